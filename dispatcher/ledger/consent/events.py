"""Consent events: recorded choices, only ever added, and the choices in force that follow from them.

The recipient's row is the lock: recording takes it FOR UPDATE, the claim gate takes it FOR SHARE. So every claim either commits
before an opt-out does, or sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import structs
from psycopg.types.json import Jsonb

from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import UnknownRecipient, VersionConflict
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import SWITCHES, BadChoice, Change, ResolvedChanges, resolve_changes
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Choice
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import opt_out_origins, revoke_pending
from dispatcher.ledger.consent.first_events import COPY_EVENTS
from dispatcher.ledger.consent.hash_chain import (
    COLUMNS,
    START,
    ChainBreak,
    ConsentEvent,
    choice_entry,
    event_hash,
    seal,
    verify,
)
from dispatcher.ledger.consent.revoke_pending import OptOut
from dispatcher.ledger.copy_text import copy_bytes, copy_text

UNDATED = "(e.source = 'import' AND e.said_at = e.recorded_at)"  # of a consent event `e`: as `ConsentEvent.dated`, in SQL

__all__ = [
    "ChainBreak",
    "ConsentEvent",
    "ConsentStatement",
    "Preferences",
    "Provenance",
    "RecordResult",
    "as_of",
]
__all__ += [
    "ChoiceDetails",
    "choice_from",
    "choices_as_of",
    "choices_from",
    "details",
    "history",
    "preferences",
    "record",
    "record_all",
    "verify",
]


@dataclass(frozen=True, slots=True)
class ConsentStatement:
    """The choices of one person at one moment. `said_at` None: the moment is unknown, see `preferences.resolve_changes`.

    `contract_version` is the version of the contract that the choices of "tailored" in it accept. `message` is the message whose
    link, or whose report, they came by; None where that is not known.
    """

    recipient_id: str
    changes: tuple[Change, ...]
    said_at: datetime | None = None
    contract_version: str = ""
    message: MessageId | None = None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a choice comes from: the source, who recorded it, and the version of the text that the person saw ("" for none)."""

    source: str
    actor: str
    wording: str = ""


@dataclass(frozen=True, slots=True)
class RecordResult:
    """The result of a statement: the person's version now, the new events, and the changes that a newer choice superseded."""

    version: int
    events: tuple[ConsentEvent, ...] = ()
    superseded: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's choices in force by subject, and the version to give when changing them."""

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
    secret: KeyRing,
    statement: ConsentStatement,
    provenance: Provenance,
    now: datetime,
    expected_version: int | None = None,
) -> RecordResult:
    """Record one person's choices and refuse the messages that they forbid, in one transaction.

    Raises `UnknownRecipient`, `BadChoice` for a `said_at` in the future, and `VersionConflict` where `expected_version` is given
    and is not the version now.
    """
    with connection.transaction():
        people = _lock(connection, [statement.recipient_id])
        if not people:
            raise UnknownRecipient(statement.recipient_id)
        if expected_version is not None and people[0].version != expected_version:
            raise VersionConflict(people[0].version)
        return record_all(connection, secret, [statement], provenance, now)[statement.recipient_id]


def record_all(
    connection: Connection, secret: KeyRing, statements: Iterable[ConsentStatement], provenance: Provenance, now: datetime
) -> dict[str, RecordResult]:
    """Record the choices of many people, one statement each, in one transaction; unknown people are left out."""
    by_person = {statement.recipient_id: statement for statement in statements}
    if any(statement.said_at and statement.said_at > now for statement in by_person.values()):
        raise BadChoice("said_at", "lies in the future")
    with connection.transaction():
        people = _lock(connection, list(by_person))
        resolved = {person.id: _resolve(person, by_person[person.id]) for person in people}
        numbers = iter(event_numbers(connection, sum(len(changes.accepted) for changes in resolved.values())))
        results: dict[str, RecordResult] = {}
        for person in people:
            statement, changes = by_person[person.id], resolved[person.id]
            events = tuple(
                ConsentEvent(
                    next(numbers), person.id, person.seq + place, change.subject,
                    person.choices.get(change.subject, {}).get("value"), change.value,
                    provenance.source, provenance.actor, provenance.wording, statement.said_at or now, now,
                    statement.contract_version if change.value == Mode.TAILORED else "",
                )
                for place, change in enumerate(changes.accepted, start=1)
            )  # fmt: skip
            results[person.id] = RecordResult(person.version + bool(events), events, changes.superseded)
        changed = [person for person in people if results[person.id].events]
        if changed:
            _append(connection, secret, changed, results, now)
            made = [event for person in changed for event in results[person.id].events]
            opt_out_origins.record(connection, made, {each.recipient_id: each.message for each in by_person.values()})
    return results


def _lock(connection: Connection, ids: list[str]) -> list[_Person]:
    rows = connection.execute(
        "SELECT id, version, choices, consent_seq, consent_head, erased_at IS NOT NULL FROM recipients"
        " WHERE id = ANY(%s) ORDER BY id FOR UPDATE",  # in one order, so that two transactions cannot deadlock
        (ids,),
    ).fetchall()
    return [_Person(*row) for row in rows]


def _resolve(person: _Person, statement: ConsentStatement) -> ResolvedChanges:
    current = choices_from(person.choices)
    return resolve_changes(current, statement.changes, statement.said_at, person.erased, statement.contract_version)


def event_numbers(connection: Connection, count: int) -> list[int]:
    """New numbers of consent events, in ascending order."""
    rows = connection.execute(
        "SELECT nextval(pg_get_serial_sequence('consent_events', 'no')) FROM generate_series(1, %s)", (count,)
    ).fetchall()
    return sorted(number for (number,) in rows)


_UPDATE_RECIPIENTS = """
UPDATE recipients
SET choices = new.choices, consent_seq = new.seq, consent_head = decode(new.head, 'hex'), consent_seal = decode(new.seal, 'hex'),
    version = version + 1, updated_at = %s
FROM jsonb_to_recordset(%s) AS new (id text, choices jsonb, seq integer, head text, seal text)
WHERE recipients.id = new.id
"""


def _append(
    connection: Connection, secret: KeyRing, people: Sequence[_Person], results: Mapping[str, RecordResult], now: datetime
) -> None:
    """Chain and write the events, then update each person's row and refuse the messages that the new choices forbid."""
    rows: list[dict[str, Any]] = []
    opt_outs: list[OptOut] = []
    with (
        connection.cursor() as cursor,
        cursor.copy(COPY_EVENTS) as copy,
    ):
        for person in people:
            head, choices = person.head or START, dict(person.choices)
            for event in results[person.id].events:
                previous, head = head, event_hash(secret.newest, event, head)
                copy.write(_line(event, previous, head))
                choices[event.subject] = choice_entry(event)
            opt_outs += _opt_outs(results[person.id].events, choices)
            seq = person.seq + len(results[person.id].events)
            sealed = seal(secret.newest, person.id, seq, head)
            rows.append({"id": person.id, "choices": choices, "seq": seq, "head": head.hex(), "seal": sealed.hex()})
    connection.execute(_UPDATE_RECIPIENTS, (now, Jsonb(rows)))
    revoke_pending.revoke_pending(connection, opt_outs, now)


def refuse_forbidden(connection: Connection, recipient_ids: Collection[str], now: datetime) -> None:
    """Refuse what the first events of new people forbid. Few of them have messages that wait: those whose triggers came before."""
    rows = connection.execute(
        "SELECT DISTINCT recipient_id FROM messages WHERE recipient_id = ANY(%s) AND state IN ('pending', 'held', 'waiting')",
        (list(recipient_ids),),
    ).fetchall()
    opt_outs: list[OptOut] = []
    for (recipient_id,) in rows:
        events = history(connection, recipient_id)
        opt_outs += _opt_outs(events, {event.subject: choice_entry(event) for event in events})
    revoke_pending.revoke_pending(connection, opt_outs, now)


def _line(event: ConsentEvent, previous_hash: bytes, new_hash: bytes) -> str:
    said, recorded = event.said_at.isoformat(), event.recorded_at.isoformat()
    texts = (event.subject, event.old_value, event.new_value, event.source, event.actor, event.wording)
    return (
        f"{event.no}\t{copy_text(event.recipient_id)}\t{event.seq}\t"
        + "\t".join(map(copy_text, texts))
        + f"\t{said}\t{recorded}\t{copy_text(event.contract_version)}\t{copy_bytes(previous_hash)}\t{copy_bytes(new_hash)}\n"
    )


def _opt_outs(events: Sequence[ConsentEvent], choices: Mapping[str, Mapping[str, str]]) -> list[OptOut]:
    """The events that forbid messages. A change from tailored to standard does not: the new version has them decided again."""
    no_channel_left = all(choices.get(subject, {}).get("value") == "off" for subject in SWITCHES)
    opt_outs = []
    for event in events:
        subject, _, name = event.subject.partition(":")
        if subject == "offer" and event.new_value == "none":
            opt_outs.append(OptOut(event.recipient_id, ReasonCode.CHOICE_NONE, event.evidence, offer_type=name))
        elif subject == "channel" and event.new_value == "off":
            closed = tuple(str(channel) for channel, group in GROUP_OF.items() if group == ChannelGroup(name))
            opt_outs.append(OptOut(event.recipient_id, ReasonCode.CHANNEL_OFF, event.evidence, closed, no_channel_left))
        elif event.subject == "objection:marketing" and event.new_value == "on":
            opt_outs.append(OptOut(event.recipient_id, ReasonCode.OBJECTED, event.evidence))
    return opt_outs


# -- reading -----------------------------------------------------------------------------------------------------------


def choices_from(stored: Mapping[str, Mapping[str, str]]) -> dict[str, Choice]:
    """The column `recipients.choices`, by subject."""
    return {subject: choice_from(entry) for subject, entry in stored.items()}


def choice_from(entry: Mapping[str, str]) -> Choice:
    """One entry of the column `recipients.choices`."""
    at = datetime.fromisoformat(entry["at"])
    return Choice(entry["value"], entry["event"], entry["source"], at, entry.get("contract_version", ""))


def preferences(connection: Connection, recipient_id: str) -> Preferences:
    """The choices in force. Raises `UnknownRecipient`."""
    row = connection.execute("SELECT version, choices FROM recipients WHERE id = %s", (recipient_id,)).fetchone()
    if row is None:
        raise UnknownRecipient(recipient_id)
    choices = choices_from(row[1])
    known = details(connection, [choice.event for choice in choices.values()])
    return Preferences(
        recipient_id,
        row[0],
        {subject: structs.replace(choice, dated=known[choice.event].dated) for subject, choice in choices.items()},
    )


@dataclass(frozen=True, slots=True)
class ChoiceDetails:
    """What the event of a choice says besides: whether its day is known, and the version of the contract that it accepted."""

    dated: bool
    contract_version: str


def details(connection: Connection, evidence: Collection[str]) -> dict[str, ChoiceDetails]:
    """The details of consent events, by evidence. An event that is no longer there is undated: nothing may be claimed of it."""
    numbers = [int(each.rpartition(":")[2]) for each in evidence]
    rows = connection.execute(
        f"SELECT no, NOT {UNDATED}, contract_version FROM consent_events e WHERE no = ANY(%s)", (numbers,)
    ).fetchall()
    known = {f"consent:{no}": ChoiceDetails(dated, contract_version) for no, dated, contract_version in rows}
    return {each: known.get(each, ChoiceDetails(dated=False, contract_version="")) for each in evidence}


def history(connection: Connection, recipient_id: str) -> list[ConsentEvent]:
    """All consent events of a person, oldest first."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM consent_events WHERE recipient_id = %s ORDER BY seq",
        (recipient_id,),
    )
    return [ConsentEvent(*row) for row in rows]


def choices_as_of(connection: Connection, recipient_ids: Sequence[str], moment: datetime) -> dict[str, dict[str, Choice]]:
    """`as_of` for many people at once, by person."""
    rows = connection.execute(
        """
        SELECT DISTINCT ON (recipient_id, subject) recipient_id, subject, new_value, no, source, said_at, contract_version
        FROM consent_events
        WHERE recipient_id = ANY(%s) AND recorded_at <= %s ORDER BY recipient_id, subject, seq DESC
        """,
        (list(recipient_ids), moment),
    )
    choices: dict[str, dict[str, Choice]] = {}
    for recipient_id, subject, value, no, *rest in rows:
        choices.setdefault(recipient_id, {})[subject] = Choice(value, f"consent:{no}", *rest)
    return choices


def as_of(connection: Connection, recipient_id: str, moment: datetime) -> dict[str, Choice]:
    """The choices that were in force at a moment, by subject: recorded by then, whenever they were made."""
    choices: dict[str, Choice] = {}
    for event in history(connection, recipient_id):
        if event.recorded_at <= moment:
            choices[event.subject] = Choice(
                event.new_value, event.evidence, event.source, event.said_at, event.contract_version, event.dated
            )
    return choices
