"""The first consent events of people who are new to the ledger, as lines of COPY: thousands at a time, without an object for each.

What is recorded, hashed and sealed is the same as in `events.record_all` and `hash_chain`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import to_json

from dispatcher.domain.derived_keys import derive
from dispatcher.domain.message import Mode
from dispatcher.domain.preferences import Change, resolve_changes
from dispatcher.ledger.consent.hash_chain import COLUMNS, START, seal
from dispatcher.ledger.copy_text import NULL, copy_text

_NO_CONTRACT = ("", "", "")  # what an event has of a contract version: in the hashed JSON, in COPY, in the person's choices
COPY_EVENTS = f"COPY consent_events ({COLUMNS}, previous_hash, hash) FROM STDIN"


@dataclass(frozen=True, slots=True)
class FirstEvents:
    """The events of one new person as lines, and what follows from them for the person's row; `choices` is JSON."""

    lines: str
    choices: str
    seq: int
    head: bytes | None
    seal: bytes


class FirstEventsWriter:
    """Writes the events of new people whose choices have one source and actor, and are recorded at one moment."""

    def __init__(self, key: bytes, source: str, actor: str, now: datetime) -> None:
        self._key = key
        self._event_key = derive(key, "consent")
        self._source = _json(source)
        self._now = now.astimezone(UTC).isoformat()
        self._hashed = f'{self._source},{_json(actor)},""'  # source, actor, and no text that the person saw
        self._copied = f"{copy_text(source)}\t{copy_text(actor)}\t"

    def write(
        self,
        recipient_id: str,
        changes: Sequence[Change],
        said_at: datetime | None,
        contract_version: str,
        numbers: Iterator[int],
    ) -> FirstEvents:
        """The events of these changes. `numbers` gives each its number; there are as many as in `effective`."""
        said = said_at.astimezone(UTC).isoformat() if said_at else self._now
        quoted_id, copied_id = _json(recipient_id), copy_text(recipient_id)
        head, head_hex = START, START.hex()
        lines, choices = [], []
        accepted = (f",{_json(contract_version)}", copy_text(contract_version), f',"contract_version":{_json(contract_version)}')
        for seq, change in enumerate(changes, start=1):
            no = next(numbers)
            is_acceptance = contract_version and change.value == Mode.TAILORED
            hashed, copied, entry = accepted if is_acceptance else _NO_CONTRACT
            written = (
                f'[{no},{quoted_id},{seq},"{change.subject}",null,"{change.value}",{self._hashed},"{said}","{self._now}"{hashed}]'
            )
            head, previous_hex = hmac.digest(self._event_key, head + written.encode(), "sha256"), head_hex
            head_hex = head.hex()
            lines.append(
                f"{no}\t{copied_id}\t{seq}\t{change.subject}\t{NULL}\t{change.value}\t{self._copied}\t{said}\t{self._now}"
                f"\t{copied}\t\\\\x{previous_hex}\t\\\\x{head_hex}\n"
            )
            choices.append(
                f'"{change.subject}":{{"value":"{change.value}","event":"consent:{no}","source":{self._source},"at":"{said}"{entry}}}'
            )
        end = head if changes else None
        sealed = seal(self._key, recipient_id, len(changes), end)
        return FirstEvents("".join(lines), f"{{{','.join(choices)}}}", len(changes), end, sealed)


@lru_cache(maxsize=4_096)
def effective(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes that take effect for a person without any choice, in the order to record them."""
    return resolve_changes({}, changes, None).accepted


def _json(text: str) -> str:
    return to_json(text).decode()
