"""The error of a round that cannot be measured."""

from __future__ import annotations


class CannotMeasure(Exception):
    """A round cannot go on. `reason` is a code without personal data."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
