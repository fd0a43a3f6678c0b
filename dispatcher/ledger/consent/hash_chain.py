"""The chain of consent events: what is hashed, how, and the search for a link that is not as it was written."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from dispatcher.domain.derived_keys import derive
from dispatcher.ledger.connection import Connection

START = bytes(32)  # what the first link of every chain hangs on
PEOPLE_PER_STEP = 2_000


@dataclass(frozen=True, slots=True)
class ConsentEvent:
    """One recorded choice. `said_at` is when the person said it, `recorded_at` when we wrote it down."""

    no: int
    recipient_id: str
    seq: int
    subject: str
    old_value: str | None
    new_value: str
    source: str
    actor: str
    wording: str
    said_at: datetime
    recorded_at: datetime

    @property
    def evidence(self) -> str:
        """How a decision cites it."""
        return f"consent:{self.no}"


COLUMNS = ", ".join(ConsentEvent.__slots__)
columns = attrgetter(*ConsentEvent.__slots__)  # an event as a row; `dataclasses.astuple` would copy deeply, in 60 µs
_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """A fault in one person's chain; `seq` is the place where it shows, None where it is about the person's row."""

    recipient_id: str
    seq: int | None
    fault: str


def link(secret: bytes, event: ConsentEvent, previous_hash: bytes) -> bytes:
    """The hash of an event in its place: every column of it, and through `previous_hash` all that came before."""
    written = [value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value for value in columns(event)]
    return hmac.digest(derive(secret, "consent"), previous_hash + _canonical(written).encode(), "sha256")


def seal(secret: bytes, recipient_id: str, seq: int, head: bytes | None) -> bytes:
    """The keyed hash that a person's row bears over the end of their chain; `head` is None where nothing was said yet.

    An older end has another seal, which is nowhere any more: so a chain can't be cut short, not even together with the row.
    """
    written = _canonical([recipient_id, seq, (head or START).hex()]).encode()
    return hmac.digest(derive(secret, "consent end"), written, "sha256")


def standing(event: ConsentEvent) -> dict[str, str]:
    """The entry that an event leaves in `recipients.choices` under its subject."""
    at = event.said_at.astimezone(UTC).isoformat()
    return {"value": event.new_value, "event": event.evidence, "source": event.source, "at": at}


def verify(connection: Connection, secret: bytes) -> list[ChainBreak]:
    """Walk all chains, some thousand people at a time, and compare each person's row with what their chain says.

    Finds changed, added, missing and swapped events, chains cut short, chains of nobody, and choices that don't follow from the
    chain. What it can't find, since it takes no key: that the database's owner put a person back whole, row and chain, to an
    earlier state of which they had kept a copy, or removed a person and their chain altogether.
    """
    broken: list[ChainBreak] = []
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        broken += _strays(connection)
        last = ""
        while people := connection.execute(_PEOPLE, {"last": last, "limit": PEOPLE_PER_STEP}).fetchall():
            last = people[-1][0]
            chains = dict(_chains(connection, [row[0] for row in people]))
            for recipient_id, seq, head, sealed, choices in people:
                broken += _faults(secret, recipient_id, (seq, head, sealed), choices, chains.get(recipient_id, []))
    return broken


_PEOPLE = """
SELECT id, consent_seq, consent_head, consent_seal, choices FROM recipients WHERE id > %(last)s ORDER BY id LIMIT %(limit)s
"""


def _strays(connection: Connection) -> list[ChainBreak]:
    rows = connection.execute(
        "SELECT DISTINCT e.recipient_id FROM consent_events e LEFT JOIN recipients r ON r.id = e.recipient_id WHERE r.id IS NULL"
    ).fetchall()
    return [ChainBreak(recipient_id, None, "the chain belongs to nobody") for (recipient_id,) in rows]


def _chains(connection: Connection, ids: list[str]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    rows = connection.execute(
        f"SELECT {COLUMNS}, previous_hash, hash FROM consent_events WHERE recipient_id = ANY(%s) ORDER BY recipient_id, seq",
        (ids,),
    ).fetchall()
    for recipient_id, chain in groupby(rows, key=lambda row: str(row[1])):
        yield recipient_id, list(chain)


def _faults(
    secret: bytes,
    recipient_id: str,
    end: tuple[int, bytes | None, bytes],
    choices: Mapping[str, Any],
    rows: Iterable[tuple[Any, ...]],
) -> Iterator[ChainBreak]:
    due, running = 1, START
    derived: dict[str, dict[str, str]] = {}
    for *row, previous_hash, written in rows:
        event = ConsentEvent(*row)
        if event.seq != due:
            yield ChainBreak(recipient_id, due, "missing")
        elif previous_hash != running:
            yield ChainBreak(recipient_id, event.seq, "does not follow the event before it")
        if link(secret, event, previous_hash) != written:
            yield ChainBreak(recipient_id, event.seq, "changed")
        due, running = event.seq + 1, written
        derived[event.subject] = standing(event)
    seq, head, sealed = end
    if (due - 1, running) != (seq, head or START):
        yield ChainBreak(recipient_id, due, "the chain does not end where the person's row says")
    if seal(secret, recipient_id, seq, head) != sealed:
        yield ChainBreak(recipient_id, None, "the end of the chain was moved")
    if derived != choices:
        yield ChainBreak(recipient_id, None, "the choices are not those of the chain")
