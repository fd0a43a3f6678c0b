"""Recipients: import in batches, show, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from psycopg.types.json import Jsonb
from pydantic_core import to_json

from channels.base import Channel
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import UnknownRecipient
from dispatcher.domain.preferences import BadChoice, Change
from dispatcher.domain.recipient import Device, Source
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import address_keys, events
from dispatcher.ledger.consent.address_keys import Address
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.first_events import COPY_EVENTS, FirstEvents, FirstEventsWriter, effective
from dispatcher.ledger.consent.hash_chain import seal
from dispatcher.ledger.copy_text import NULL, copy_bytes, copy_text
from dispatcher.ledger.message_key import join_origin, key_of, same_message
from dispatcher.ledger.pg_arrays import text_array


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person as in the bank's master data, checked and in normal form (see `intake.recipient.parse`).

    `changes` are the choices in the same row, and `said_at` is when they were made; None where the file does not say. So does
    `contract_version` name the version of the contract that the tailored ones accepted.
    """

    id: str
    person: str
    language: str
    timezone: str | None = None
    birth_date: date | None = None
    entities: tuple[str, ...] = ()
    has_current_account: bool = False
    email: str | None = None
    phone: str | None = None
    whatsapp: str | None = None
    devices: tuple[Device, ...] = ()
    partner_id: str | None = None
    purchased: tuple[str, ...] = ()
    profile: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    said_at: datetime | None = None
    contract_version: str = ""


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """The result of a batch, by id. `erased` people were left out: an import does not undo an erasure."""

    new: frozenset[str]
    changed: frozenset[str]
    unchanged: frozenset[str]
    erased: frozenset[str]


_ATTRIBUTES = (
    *("person", "language", "timezone", "birth_date", "entities", "has_current_account", "email", "phone", "whatsapp"),
    *("email_key", "phone_key", "whatsapp_key", "devices", "partner_id", "purchased", "profile"),
)
_NAMES = ", ".join(_ATTRIBUTES)
_HELD = ", ".join(f"r.{name}" for name in _ATTRIBUTES)
_EXCLUDED = ", ".join(f"excluded.{name}" for name in _ATTRIBUTES)
_FIRST = "choices, consent_seq, consent_head, consent_seal, version"  # of a new person; a known one keeps these

_TEMPORARY = f"""
CREATE TEMPORARY TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS AS
SELECT id, {_NAMES}, {_FIRST}, now() AS said_at FROM recipients WITH NO DATA
"""
_COPY = f"COPY incoming (id, {_NAMES}, {_FIRST}, said_at) FROM STDIN"

# An erasure may commit at any moment before the row is locked. So the upsert itself checks whether the person is erased: PostgreSQL
# evaluates the condition on the newest version of the row, under its lock.
_UPSERT = f"""
INSERT INTO recipients AS r (id, {_NAMES}, {_FIRST}, created_at, updated_at)
SELECT id, {_NAMES}, {_FIRST}, %(now)s, %(now)s FROM incoming ORDER BY id
ON CONFLICT (id) DO UPDATE
SET ({_NAMES}) = ROW ({_EXCLUDED}), erased_at = NULL, version = r.version + 1, updated_at = excluded.updated_at
WHERE CASE WHEN r.erased_at IS NULL THEN ({_HELD}) IS DISTINCT FROM ({_EXCLUDED})
           ELSE r.erased_at < (SELECT i.said_at FROM incoming i WHERE i.id = r.id) END
RETURNING id, xmax = 0
"""
# The upsert has locked every row that it found, also those that it left alone, so this is what it saw.
_ERASED = "SELECT r.id FROM recipients r JOIN incoming i ON i.id = r.id WHERE r.erased_at IS NOT NULL"


def upsert(connection: Connection, secret: KeyRing, batch: Sequence[Recipient], actor: str, now: datetime) -> UpsertResult:
    """Write a batch (each id once) in one transaction: attributes are replaced, choices become consent events.

    An equal row changes nothing, not even the version. An import is the bank's master data, not the person's own statement, so its
    choices follow `preferences.resolve_changes`: they may always allow less, but override a choice that the person made elsewhere
    only where the row's `said_at` is later. An erased person comes back only with a row whose `said_at` is after the erasure.
    The rows of new people are written once, with the choices that follow from their first events.
    """
    ids = {recipient.id for recipient in batch}
    with connection.transaction():
        keys = address_keys.in_use(connection, secret, _addresses(batch))
        first = _first_events(connection, secret, batch, actor, now)
        _copy(connection, secret, batch, keys, first)
        written: dict[str, bool] = dict(connection.execute(_UPSERT, {"now": now}).fetchall())
        new = {recipient_id for recipient_id, inserted in written.items() if inserted}
        erased = {row[0] for row in connection.execute(_ERASED)}
        began = new & first.keys()  # of somebody who was added meanwhile, the events are recorded as for known people
        _write_first_events(connection, [first[recipient_id] for recipient_id in sorted(began)])
        events.refuse_forbidden(connection, began, now)
        done = erased | began
        statements = [
            ConsentStatement(r.id, r.changes, r.said_at, r.contract_version) for r in batch if r.changes and r.id not in done
        ]
        recorded = events.record_all(connection, secret, statements, Provenance(Source.IMPORT, actor), now) if statements else {}
        connection.execute("TRUNCATE incoming")  # for a caller whose own transaction goes on
    changed = (written.keys() | {recipient_id for recipient_id, result in recorded.items() if result.events}) - new
    return UpsertResult(frozenset(new), frozenset(changed), frozenset(ids - new - changed - erased), frozenset(erased))


_ADD_UNKNOWN = """
INSERT INTO recipients (id, person, language, consent_seal, created_at, updated_at)
SELECT id, person, language, decode(seal, 'hex'), %(now)s, %(now)s
FROM jsonb_to_recordset(%(people)s) AS p (id text, person text, language text, seal text) ORDER BY id
ON CONFLICT (id) DO NOTHING
"""


def record_opt_outs(
    connection: Connection, secret: KeyRing, people: Sequence[Recipient], actor: str, now: datetime
) -> frozenset[str]:
    """Record only the `changes` of these people (each id once), whose other data could not be read; the ids of those it holds for.

    Known people keep their attributes. An unknown person is added without addresses: the opt-out is there before the data.
    """
    if not people:
        return frozenset()
    rows = [
        {"id": p.id, "person": p.person, "language": p.language, "seal": seal(secret.newest, p.id, 0, None).hex()} for p in people
    ]
    with connection.transaction():
        connection.execute(_ADD_UNKNOWN, {"people": Jsonb(rows), "now": now})
        statements = [ConsentStatement(p.id, p.changes, None) for p in people]
        return frozenset(events.record_all(connection, secret, statements, Provenance(Source.IMPORT, actor), now))


def _addresses(batch: Sequence[Recipient]) -> set[Address]:
    return {(kind, address) for r in batch for kind, address in _addresses_of(r) if address}


def _addresses_of(r: Recipient) -> tuple[tuple[str, str | None], ...]:
    return ("email", r.email), ("sms", r.phone), ("whatsapp", r.whatsapp)


def _first_events(
    connection: Connection, secret: KeyRing, batch: Sequence[Recipient], actor: str, now: datetime
) -> dict[str, FirstEvents]:
    """The first events, by id, of those who are not in the ledger yet and made choices."""
    if any(r.said_at and r.said_at > now for r in batch if r.changes):
        raise BadChoice("said_at", "lies in the future")
    rows = connection.execute("SELECT id FROM recipients WHERE id = ANY(%s)", ([r.id for r in batch],))
    known = {row[0] for row in rows}
    people = [(r, changes) for r in batch if r.id not in known and (changes := effective(r.changes))]
    if not people:
        return {}
    numbers = iter(events.event_numbers(connection, sum(len(changes) for _, changes in people)))
    writer = FirstEventsWriter(secret.newest, Source.IMPORT, actor, now)
    return {r.id: writer.write(r.id, changes, r.said_at, r.contract_version, numbers) for r, changes in people}


def _write_first_events(connection: Connection, first: Sequence[FirstEvents]) -> None:
    if first:
        with connection.cursor() as cursor, cursor.copy(COPY_EVENTS) as copy:
            copy.write("".join(each.lines for each in first))


def _copy(
    connection: Connection,
    secret: KeyRing,
    batch: Sequence[Recipient],
    keys: Mapping[Address, bytes],
    first: Mapping[str, FirstEvents],
) -> None:
    connection.execute(_TEMPORARY)
    lines = [_line(r, keys, first.get(r.id) or FirstEvents("", "{}", 0, None, seal(secret.newest, r.id, 0, None))) for r in batch]
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write("".join(lines))


def _line(r: Recipient, keys: Mapping[Address, bytes], first: FirstEvents) -> str:
    """A person as a line of COPY, with the columns of `_COPY`. A person with choices has the version after the first change."""
    hashes = [keys[kind, address] if address else None for kind, address in _addresses_of(r)]
    devices = [{"token": each.token, "platform": each.platform, "permission": each.permission} for each in r.devices]
    cells = (
        r.id, r.person, r.language, r.timezone, r.birth_date.isoformat() if r.birth_date else None, text_array(r.entities),
        "t" if r.has_current_account else "f", r.email, r.phone, r.whatsapp,
    )  # fmt: skip
    more = (to_json(devices).decode(), r.partner_id, text_array(r.purchased), to_json(r.profile).decode(), first.choices)
    said_at = r.said_at.isoformat() if r.said_at else NULL
    return (
        "\t".join([*map(copy_text, cells), *map(copy_bytes, hashes), *map(copy_text, more)])
        + f"\t{first.seq}\t{copy_bytes(first.head)}\t{copy_bytes(first.seal)}\t{2 if first.seq else 1}\t{said_at}\n"
    )


# -- a person's rights -------------------------------------------------------------------------------------------------

_SHOW = """
SELECT jsonb_strip_nulls(jsonb_build_object(
    'id', r.id, 'version', r.version, 'person', r.person, 'language', r.language, 'timezone', r.timezone,
    'birth_date', r.birth_date, 'entities', r.entities, 'has_current_account', r.has_current_account,
    'email', r.email, 'phone', r.phone, 'whatsapp', r.whatsapp, 'push', r.devices, 'partner', r.partner_id,
    'purchased', r.purchased, 'created_at', r.created_at, 'updated_at', r.updated_at, 'erased_at', r.erased_at,
    'suppressions', (
        SELECT coalesce(jsonb_agg(to_jsonb(s) - 'address_key' ORDER BY s.no), '[]') FROM suppressions s
        WHERE s.channel = 'email' AND s.address_key = r.email_key OR s.channel = 'sms' AND s.address_key = r.phone_key
           OR s.channel = 'whatsapp' AND s.address_key = r.whatsapp_key),
    'failures_in_a_row', (
        SELECT jsonb_agg(to_jsonb(f) - 'address_key' ORDER BY f.at) FROM misses f
        WHERE f.address_key IN (r.email_key, r.phone_key, r.whatsapp_key)),
    'whatsapp_window', (
        SELECT jsonb_build_object('heard_at', max(w.heard_at), 'open_until', max(w.heard_at) + interval '24 hours')
        FROM conversations w WHERE w.address_key IN (r.phone_key, r.whatsapp_key) HAVING count(*) > 0)
)), r.profile, r.choices FROM recipients r WHERE r.id = %s
"""


def with_address(connection: Connection, channel: Channel, address_key: bytes) -> list[str]:
    """The ids of all who have this address on this channel, known by its keyed hash; a telephone number counts on both channels."""
    columns = ("email_key",) if channel is Channel.EMAIL else ("phone_key", "whatsapp_key")
    statement = " UNION ".join(f"SELECT id FROM recipients WHERE {column} = %(key)s" for column in columns)
    return [row[0] for row in connection.execute(f"{statement} ORDER BY id", {"key": address_key})]


def with_device(connection: Connection, token: str) -> list[str]:
    """The ids of all who have this device. Reads every recipient: for single questions only."""
    rows = connection.execute(
        "SELECT id FROM recipients WHERE devices @> jsonb_build_array(jsonb_build_object('token', %s::text))", (token,)
    )
    return [row[0] for row in rows]


def show(connection: Connection, recipient_id: str) -> dict[str, Any]:
    """A person's record, ready for JSON, with the field names of the import file and the evidence of each choice in `choices`.

    Raises `UnknownRecipient`.
    """
    row = connection.execute(_SHOW, (recipient_id,)).fetchone()
    if row is None:
        raise UnknownRecipient(recipient_id)
    shown, profile, choices = row
    values = {subject: entry["value"] for subject, entry in choices.items()}
    return {
        **shown,
        "offers": {subject[6:]: value for subject, value in values.items() if subject.startswith("offer:")},
        "channels": {subject[8:]: value == "on" for subject, value in values.items() if subject.startswith("channel:")},
        "object_marketing": values.get("objection:marketing") == "on",
        "object_profiling": values.get("objection:profiling") == "on",
        "choices": choices,
        "profile": profile,
    }


def has_email(connection: Connection, recipient_id: str) -> bool:
    """Whether the person has an e-mail address; False for an unknown person."""
    row = connection.execute("SELECT email IS NOT NULL FROM recipients WHERE id = %s", (recipient_id,)).fetchone()
    return bool(row and row[0])


# The keys of a person's jobs: one index scan per campaign, and one for triggers and repeated rows.
JOBS_OF_RECIPIENT = """
SELECT period, chunk, row FROM jobs WHERE recipient_id = %(id)s AND (campaign_no IS NULL OR repeat_of IS NOT NULL)
UNION ALL
SELECT j.* FROM campaigns c CROSS JOIN LATERAL (
    SELECT period, chunk, row FROM jobs
    WHERE period = c.period AND campaign_no = c.no AND recipient_id = %(id)s AND repeat_of IS NULL OFFSET 0) j
"""

_EXPORT = f"""
SELECT jsonb_build_object(
    'consent', (SELECT coalesce(jsonb_agg(to_jsonb(e) || jsonb_build_object('dated', NOT {events.UNDATED}) ORDER BY e.seq), '[]')
                FROM consent_events e
                WHERE e.recipient_id = %(id)s),
    'messages', (SELECT coalesce(jsonb_agg(to_jsonb(m) || jsonb_build_object(
                     'id', concat_ws('-', {key_of("m")}), 'campaign', c.id, 'trigger', t.key,
                     'events', (SELECT coalesce(jsonb_agg(to_jsonb(p) - 'address_key' - 'unmatched' ORDER BY p.at), '[]')
                                FROM provider_events p
                                WHERE {same_message("p", "m")}))
                     ORDER BY {key_of("m")}), '[]')
                 FROM messages m {join_origin("m")} WHERE m.recipient_id = %(id)s),
    'jobs', (SELECT coalesce(jsonb_agg(to_jsonb(j) ORDER BY j.period, j.chunk, j.row), '[]')
             FROM jobs j JOIN ({JOBS_OF_RECIPIENT}) mine USING (period, chunk, row)),
    'answers', (SELECT coalesce(jsonb_agg(to_jsonb(t) - 'address_key' - 'recipients' ORDER BY t.received_at, t.id), '[]')
                FROM inbound_texts t WHERE t.recipients @> ARRAY[%(id)s::text]),
    'conversions', (SELECT coalesce(jsonb_agg(jsonb_build_object('campaign', c.id, 'goal', v.goal, 'at', v.at)
                                               ORDER BY v.at, c.id, v.goal), '[]')
                    FROM conversions v JOIN campaigns c ON c.no = v.campaign_no WHERE v.recipient_id = %(id)s),
    'looks_and_acts', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                           'at', a.at, 'who', a.principal_id, 'kind', a.kind, 'place', a.place, 'action', a.action,
                           'outcome', a.outcome, 'object', a.object_type, 'id', a.object_id, 'reason', a.reason)
                           ORDER BY a.no), '[]')
                       FROM audit_log a WHERE a.recipient = %(id)s AND a.outcome <> 'done')
)
"""


def export(connection: Connection, recipient_id: str) -> dict[str, Any]:
    """All data about a person, ready for JSON: `show`, and consent events, messages with decisions and provider events, jobs with
    their variables, inbound messages, and who looked at the person or acted. Raises `UnknownRecipient`.
    """
    with connection.transaction():
        shown = show(connection, recipient_id)
        row = connection.execute(_EXPORT, {"id": recipient_id}).fetchone()
        found = row[0] if row else {}
        messages = found.get("messages", [])
        decisions = decision_skeletons.expand_all(connection, [message["decision"] for message in messages])
    for message, decision in zip(messages, decisions, strict=True):
        message["decision"] = decision
    return {**shown, **found}
