"""When a call is repeated, and how long the client waits before. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import random

BUSY = frozenset({429, 503})  # the server says that it did nothing, or that the outcome is not known; and when to ask again
LOST = frozenset({500, 502, 504})  # a proxy without an answer of the server: the outcome is not known


@dataclass(frozen=True, slots=True)
class CallRetries:
    """How often a call is repeated, and the seconds between: doubled each time, with jitter, unless the server says when.

    A wait that the server asks for is never cut: a longer one than `wait_seconds_max` ends the attempts.
    """

    attempts_max: int = 5
    first_wait_seconds: float = 0.5
    wait_seconds_max: float = 60.0

    def wait_seconds(self, attempt: int, retry_after: str | None = None) -> float | None:
        """The wait after this attempt, counted from 1. None: do not try again."""
        if attempt >= self.attempts_max:
            return None
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            seconds = float(retry_after)
            return seconds if seconds <= self.wait_seconds_max else None
        return float(min(self.first_wait_seconds * 2 ** (attempt - 1), self.wait_seconds_max) * (0.5 + random() / 2))  # noqa: S311


def is_repeated(status: int, is_repeatable: bool) -> bool:
    """Whether a call that was answered so is repeated. 429 is answered before anything is done."""
    return status == 429 or (is_repeatable and status in BUSY | LOST)
