"""The hash chain of a person's consent events: what is hashed and how, and the check of all chains."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from pydantic_core import to_json

from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.recipient import Source
from dispatcher.ledger.connection import Connection

MARKETING_OBJECTION = "objection:marketing"
START = bytes(32)  # the previous hash of the first event of every chain
PEOPLE_PER_STEP = 2_000


@dataclass(frozen=True, slots=True)
class ConsentEvent:
    """One recorded choice. `said_at` is when the person made it, `recorded_at` when we recorded it.

    `contract_version` is the version of the contract that a choice of "tailored" accepted, "" where it was not stated.
    """

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
    contract_version: str = ""

    @property
    def evidence(self) -> str:
        """How a decision names it as evidence."""
        return f"consent:{self.no}"

    @property
    def is_opt_out(self) -> bool:
        """Whether the event is an opt-out: an offer type set to none, a channel to off, or an objection to marketing."""
        kind = self.subject.partition(":")[0]
        choice = (self.subject, self.new_value)
        return (kind, self.new_value) in {("offer", "none"), ("channel", "off")} or choice == (MARKETING_OBJECTION, "on")

    @property
    def dated(self) -> bool:
        """Whether the day of the choice is known. An import that names no time is recorded with its own."""
        return self.source != Source.IMPORT or self.said_at != self.recorded_at


COLUMNS = ", ".join(ConsentEvent.__slots__)
columns = attrgetter(*ConsentEvent.__slots__)  # an event as a row; `dataclasses.astuple` would copy deeply, in 60 µs


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """A fault in one person's chain. `seq` is where it was found, None where the person's row is wrong."""

    recipient_id: str
    seq: int | None
    fault: str


def event_hash(key: bytes, event: ConsentEvent, previous_hash: bytes) -> bytes:
    """The hash of an event under a secret key: over all its columns, and through `previous_hash` over all events before it."""
    *row, said_at, recorded_at, contract_version = columns(event)
    accepted = [contract_version] if contract_version else []  # without one, the bytes of events from before there were versions
    written = to_json(
        [*row, _in_utc(said_at), _in_utc(recorded_at), *accepted]
    )  # the bytes of `json`, without blanks, in a fifth of the time
    return hmac.digest(derive(key, "consent"), previous_hash + written, "sha256")


@lru_cache(maxsize=1_024)
def _in_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def seal(key: bytes, recipient_id: str, seq: int, head: bytes | None) -> bytes:
    """The keyed hash over the end of a person's chain, stored in the person's row; `head` is None where there are no events.

    An older end has another seal, which is stored nowhere: so nobody can cut a chain short, not even by changing the row too.
    """
    written = to_json([recipient_id, seq, (head or START).hex()])
    return hmac.digest(derive(key, "consent end"), written, "sha256")


def choice_entry(event: ConsentEvent) -> dict[str, str]:
    """The entry of an event in `recipients.choices`, under its subject."""
    entry = {"value": event.new_value, "event": event.evidence, "source": event.source, "at": _in_utc(event.said_at)}
    return entry | {"contract_version": event.contract_version} if event.contract_version else entry


def verify(connection: Connection, secret: KeyRing) -> list[ChainBreak]:
    """Check all chains, some thousand people at a time, and compare each person's row with their chain.

    Events are never written again, so after a rotation of the secret key each one counts that any key of the ring made.
    Finds changed, added, missing and swapped events, chains that were cut short, chains without a person, and choices that do not
    follow from the chain. Two changes need no key and are not found: the owner of the database restores a person, row and chain, to
    an earlier copy, or deletes a person with the whole chain.
    """
    broken: list[ChainBreak] = []
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        broken += _orphans(connection)
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


def _orphans(connection: Connection) -> list[ChainBreak]:
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
    secret: KeyRing,
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
        if not any(event_hash(key, event, previous_hash) == written for key in secret):
            yield ChainBreak(recipient_id, event.seq, "changed")
        due, running = event.seq + 1, written
        derived[event.subject] = choice_entry(event)
    seq, head, sealed = end
    if (due - 1, running) != (seq, head or START):
        yield ChainBreak(recipient_id, due, "the chain does not end where the person's row says")
    if not any(seal(key, recipient_id, seq, head) == sealed for key in secret):
        yield ChainBreak(recipient_id, None, "the end of the chain was moved")
    if derived != choices:
        yield ChainBreak(recipient_id, None, "the choices are not those of the chain")
