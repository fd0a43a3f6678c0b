"""What people said about how they want to be reached: append-only events, and the current state that follows from them.

The recipient's row is the lock: whoever records takes it FOR UPDATE, the claim gate takes it FOR SHARE. So every claim
committed before a no did, or sees it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.errors import UnknownRecipient, VersionConflict
from dispatcher.domain.preferences import SWITCHES, BadChoice, Change, ResolvedChanges, resolve_changes
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Choice
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import revoke_pending
from dispatcher.ledger.consent.hash_chain import COLUMNS, START, ChainBreak, ConsentEvent, columns, link, seal, standing, verify
from dispatcher.ledger.consent.revoke_pending import OptOut

__all__ = [
    "ChainBreak",
    "ConsentEvent",
    "ConsentStatement",
    "Preferences",
    "RecordResult",
    "as_of",
]
__all__ += ["choices_as_of", "choices_from", "history", "preferences", "record", "record_all", "verify"]


@dataclass(frozen=True, slots=True)
class ConsentStatement:
    """What one person said at one moment. `said_at` None: nobody knows when, see `resolve_changes`."""

    recipient_id: str
    changes: tuple[Change, ...]
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What a word led to: the person's version now, the new events, and what a newer word outranked."""

    version: int
    events: tuple[ConsentEvent, ...] = ()
    outranked: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's current choices by subject, and the version to name when changing them."""

    recipient_id: str
    version: int
    choices: Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class _Person:
    id: str
    version: int
    choices: dict[str, Any]
    seq: int
    head: bytes | None
    erased: bool


def record(
    connection: Connection,
    secret: bytes,
    recipient_id: str,
    changes: Sequence[Change],
    source: str,
    actor: str,
    wording: str,
    said_at: datetime,
    now: datetime,
    expected_version: int | None = None,
) -> RecordResult:
    """Record what one person said and stop what it forbids, in one transaction.

    `wording` is the version of the text the person saw. Raises `UnknownRecipient`, `BadChoice` for a `said_at` in the
    future, and `VersionConflict` where `expected_version` is given and no longer stands.
    """
    with connection.transaction():
        people = _lock(connection, [recipient_id])
        if not people:
            raise UnknownRecipient(recipient_id)
        if expected_version is not None and people[0].version != expected_version:
            raise VersionConflict(people[0].version)
        word = ConsentStatement(recipient_id, tuple(changes), said_at)
        return record_all(connection, secret, [word], source, actor, wording, now)[recipient_id]


def record_all(
    connection: Connection,
    secret: bytes,
    words: Iterable[ConsentStatement],
    source: str,
    actor: str,
    wording: str,
    now: datetime,
) -> dict[str, RecordResult]:
    """Record what many people said, one word each, set-based, in one transaction; unknown people are left out."""
    said = {word.recipient_id: word for word in words}
    if any(word.said_at and word.said_at > now for word in said.values()):
        raise BadChoice("said_at", "lies in the future")
    with connection.transaction():
        people = _lock(connection, list(said))
        rulings = {person.id: _rule(person, said[person.id]) for person in people}
        numbers = iter(_numbers(connection, sum(len(ruling.accepted) for ruling in rulings.values())))
        results: dict[str, RecordResult] = {}
        for person in people:
            word, ruling = said[person.id], rulings[person.id]
            events = tuple(
                ConsentEvent(
                    next(numbers), person.id, person.seq + place, change.subject,
                    person.choices.get(change.subject, {}).get("value"), change.value,
                    source, actor, wording, word.said_at or now, now,
                )
                for place, change in enumerate(ruling.accepted, start=1)
            )  # fmt: skip
            results[person.id] = RecordResult(person.version + bool(events), events, ruling.superseded)
        changed = [person for person in people if results[person.id].events]
        if changed:
            _append(connection, secret, changed, results, now)
    return results


def _lock(connection: Connection, ids: list[str]) -> list[_Person]:
    rows = connection.execute(
        "SELECT id, version, choices, consent_seq, consent_head, erased_at IS NOT NULL FROM recipients"
        " WHERE id = ANY(%s) ORDER BY id FOR UPDATE",  # in one order, so that two recorders never wait for each other
        (ids,),
    ).fetchall()
    return [_Person(*row) for row in rows]


def _rule(person: _Person, word: ConsentStatement) -> ResolvedChanges:
    return resolve_changes(choices_from(person.choices), word.changes, word.said_at, closed=person.erased)


def _numbers(connection: Connection, count: int) -> list[int]:
    rows = connection.execute(
        "SELECT nextval(pg_get_serial_sequence('consent_events', 'no')) FROM generate_series(1, %s)", (count,)
    ).fetchall()
    return sorted(number for (number,) in rows)


_FOLLOW = """
UPDATE recipients
SET choices = new.choices, consent_seq = new.seq, consent_head = decode(new.head, 'hex'), consent_seal = decode(new.seal, 'hex'),
    version = version + 1, updated_at = %s
FROM jsonb_to_recordset(%s) AS new (id text, choices jsonb, seq integer, head text, seal text)
WHERE recipients.id = new.id
"""


def _append(
    connection: Connection, secret: bytes, people: Sequence[_Person], results: Mapping[str, RecordResult], now: datetime
) -> None:
    """Chain and write the events, then let each person's row and parked messages follow."""
    rows: list[dict[str, Any]] = []
    noes: list[OptOut] = []
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY consent_events ({COLUMNS}, previous_hash, hash) FROM STDIN") as copy,
    ):
        for person in people:
            head, now_standing = person.head or START, dict(person.choices)
            for event in results[person.id].events:
                previous, head = head, link(secret, event, head)
                copy.write_row((*columns(event), previous, head))
                now_standing[event.subject] = standing(event)
            noes += _noes(results[person.id].events, now_standing)
            seq = person.seq + len(results[person.id].events)
            sealed = seal(secret, person.id, seq, head)
            rows.append({"id": person.id, "choices": now_standing, "seq": seq, "head": head.hex(), "seal": sealed.hex()})
    connection.execute(_FOLLOW, (now, Jsonb(rows)))
    revoke_pending.revoke_pending(connection, noes, now)


def _noes(events: Sequence[ConsentEvent], now_standing: Mapping[str, Mapping[str, str]]) -> list[OptOut]:
    """The events that forbid outright. What merely narrows (tailored to standard) is decided anew, by the version."""
    no_channel_left = all(now_standing.get(subject, {}).get("value") == "off" for subject in SWITCHES)
    noes = []
    for event in events:
        subject, _, what = event.subject.partition(":")
        if subject == "offer" and event.new_value == "none":
            noes.append(OptOut(event.recipient_id, ReasonCode.CHOICE_NONE, event.evidence, offer_type=what))
        elif subject == "channel" and event.new_value == "off":
            closed = tuple(str(channel) for channel, group in GROUP_OF.items() if group == ChannelGroup(what))
            noes.append(OptOut(event.recipient_id, ReasonCode.CHANNEL_OFF, event.evidence, closed, no_channel_left))
        elif event.subject == "objection:marketing" and event.new_value == "on":
            noes.append(OptOut(event.recipient_id, ReasonCode.OBJECTED, event.evidence))
    return noes


# -- reading -----------------------------------------------------------------------------------------------------------


def choices_from(stored: Mapping[str, Mapping[str, str]]) -> dict[str, Choice]:
    """The column `recipients.choices`, by subject."""
    return {
        subject: Choice(entry["value"], entry["event"], entry["source"], datetime.fromisoformat(entry["at"]))
        for subject, entry in stored.items()
    }


def preferences(connection: Connection, recipient_id: str) -> Preferences:
    """What stands now. Raises `UnknownRecipient`."""
    row = connection.execute("SELECT version, choices FROM recipients WHERE id = %s", (recipient_id,)).fetchone()
    if row is None:
        raise UnknownRecipient(recipient_id)
    return Preferences(recipient_id, row[0], choices_from(row[1]))


def history(connection: Connection, recipient_id: str) -> list[ConsentEvent]:
    """All that a person ever chose, oldest first."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM consent_events WHERE recipient_id = %s ORDER BY seq",
        (recipient_id,),
    )
    return [ConsentEvent(*row) for row in rows]


def choices_as_of(connection: Connection, recipient_ids: Sequence[str], moment: datetime) -> dict[str, dict[str, Choice]]:
    """`as_of` for many people at once, by person."""
    rows = connection.execute(
        """
        SELECT DISTINCT ON (recipient_id, subject) recipient_id, subject, new_value, no, source, said_at FROM consent_events
        WHERE recipient_id = ANY(%s) AND recorded_at <= %s ORDER BY recipient_id, subject, seq DESC
        """,
        (list(recipient_ids), moment),
    )
    known: dict[str, dict[str, Choice]] = {}
    for recipient_id, subject, value, no, source, said_at in rows:
        known.setdefault(recipient_id, {})[subject] = Choice(value, f"consent:{no}", source, said_at)
    return known


def as_of(connection: Connection, recipient_id: str, moment: datetime) -> dict[str, Choice]:
    """What we knew at a moment, by subject: what had been recorded by then, whenever it was said."""
    known: dict[str, Choice] = {}
    for event in history(connection, recipient_id):
        if event.recorded_at <= moment:
            known[event.subject] = Choice(event.new_value, event.evidence, event.source, event.said_at)
    return known
