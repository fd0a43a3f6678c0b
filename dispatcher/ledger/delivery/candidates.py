"""SQL of gathering: one query for the messages of a chunk with the facts about their recipients. Rows are read by position."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from channels.base import Channel
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import Choice, CoolDown, Device, Facts, Person, SentMessage
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import cap_reservations, fallback_legs, households
from dispatcher.ledger.delivery.cap_reservations import NO_LIMITS, SendLimits
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.delivery.unresolved import RESTORED
from dispatcher.ledger.message_key import (
    same_job,
)


class Candidate(Struct, frozen=True):
    """One message to be decided: a leg of a job, the facts about its recipient, and the job's variables.

    `fixed` is the channel of a leg that was tried before and is due again; None where the channel is still to be chosen.
    `tried` are the channels of the legs before this one. `partner` is the registered partner, where a household gets one message.
    `may_be_sent`: in the time that a restore of the ledger lost.
    """

    ref: MessageId
    facts: Facts
    data: Mapping[str, Any]
    attempts: int
    fixed: Channel | None
    tried: tuple[Channel, ...] = ()
    partner: str | None = None
    may_be_sent: bool = False


# Replies that may be opt-outs and that nobody has read. There are few: PostgreSQL hashes their keys once for a whole chunk, and
# looks at the ids only for the people concerned. Most people have one number for both channels.
_UNREAD = "FROM inbound_texts t WHERE t.may_be_opt_out AND t.closed_at IS NULL"
_UNREAD_KEYS = f"(SELECT t.address_key {_UNREAD})"

# Lists and documents come as one JSON array: to parse one document of six parts costs less than to parse six documents.
_RECIPIENT = f"""
    r.id IS NOT NULL, r.version, r.erased_at IS NOT NULL, r.person, r.language, r.timezone, r.birth_date, r.has_current_account,
    r.email, r.phone, r.whatsapp, {households.PARTNER_ID},
    CASE WHEN r.id IS NOT NULL THEN concat(
        '[', array_to_json(r.entities), ',', array_to_json(r.purchased), ',', r.devices, ',', r.choices, ',', r.profile, ',',
        r.rests, ',',
        coalesce((SELECT jsonb_object_agg(s.channel, 'suppression:' || s.no) FROM suppressions s
                  WHERE s.lifted_at IS NULL AND (s.address_key, s.channel) IN
                        ((r.email_key, 'email'), (r.phone_key, 'sms'), (r.whatsapp_key, 'whatsapp'))), '{{}}'), ',',
        CASE WHEN r.phone_key IN {_UNREAD_KEYS}
               OR r.whatsapp_key IS DISTINCT FROM r.phone_key AND r.whatsapp_key IN {_UNREAD_KEYS}
             THEN (
                 SELECT jsonb_object_agg(a.channel, 'inbound:' || a.id)
                 FROM (SELECT 'sms' AS channel, t.id {_UNREAD} AND t.address_key = r.phone_key
                       UNION ALL SELECT 'whatsapp', t.id {_UNREAD} AND t.address_key = r.whatsapp_key) a)
             ELSE '{{}}' END, ']') END
"""

_GATHER = f"""
    SELECT j.row, m.leg, m.attempts, m.channel, {fallback_legs.TRIED}, j.data, j.recipient_id,
           coalesce(j.repeat_of, {fallback_legs.ARRIVED}),
           {households.PARTNER},
           CASE WHEN m.leg IS NULL THEN %(restored)s ELSE coalesce(m.reason = '{RESTORED}', false) END, {{sent}}, {_RECIPIENT}
    FROM jobs j
    LEFT JOIN LATERAL (
        SELECT * FROM messages m WHERE {same_job("m", "j")}
        ORDER BY m.leg -- keeps the planner from a join of all jobs of a chunk with all its messages
    ) m ON true
    LEFT JOIN recipients r ON r.id = j.recipient_id
    WHERE j.period = %(period)s AND j.chunk = %(chunk)s AND (m.state IS NULL OR m.state = 'pending')
      AND (%(rows)s::int[] IS NULL OR j.row = ANY(%(rows)s))
    ORDER BY j.row, m.leg
"""


@lru_cache(maxsize=64)
def _gather_statement(channels: tuple[Channel, ...]) -> str:
    return _GATHER.replace("{sent}", cap_reservations.sent(channels))


# The document of `_RECIPIENT`: entities, purchased, devices, choices, profile, cool-downs, suppressions, unread replies.
_DOCUMENT = Decoder(
    tuple[
        frozenset[str],
        frozenset[str],
        tuple[Device, ...],
        dict[str, Choice],
        dict[str, dict[str, Any]],
        dict[str, CoolDown],
        dict[str, str],
        dict[str, str],
    ]
)
_PERSONS = {person.value: person for person in Person}


def gather(
    connection: Connection, chunk: Chunk, rows: Collection[int] | None = None, limits: SendLimits = NO_LIMITS
) -> list[Candidate]:
    """The chunk's messages that are still to be decided, each with its facts; of some `rows` only, where given.

    With route "all" each channel asked for is a message of its own, with its own leg.
    """
    parameters = {
        "period": chunk.period,
        "chunk": chunk.number,
        "rows": None if rows is None else sorted(rows),
        "limited": limits.apply,
        "since": limits.since,
        "first": chunk.spec.route == "first",
        "household": chunk.spec.one_per_household,
        "restored": chunk.is_restored,
    }
    rows_found = connection.execute(_gather_statement(tuple(chunk.spec.channels)), parameters)
    candidates: list[Candidate] = []
    for row, leg, attempts, channel, tried, data, recipient_id, repeat_of, couple, restored, sent, *recipient in rows_found:
        partner, partner_message = couple or (None, None)
        facts = _facts(recipient_id, repeat_of, recipient, sent or (), partner_message)
        if leg is not None:
            fixed = Channel(channel) if channel else None
            before = tuple(Channel(name) for name in tried or ())
            candidates.append(Candidate(chunk.ref(row, leg), facts, data, attempts, fixed, before, partner, restored))
        elif chunk.spec.route == "all":
            candidates += [
                Candidate(chunk.ref(row, index), facts, data, 0, channel, (), partner, restored)
                for index, channel in enumerate(chunk.spec.channels)
            ]
        else:
            candidates.append(Candidate(chunk.ref(row, 0), facts, data, 0, None, (), partner, restored))
    return candidates


def _facts(
    recipient_id: str, repeat_of: str | None, row: Sequence[Any], sent: Sequence[Any] = (), partner_message: str | None = None
) -> Facts:
    known, version, erased, person, language, timezone, birth_date, account, email, phone, whatsapp, partner_id, document = row
    if not known:
        return Facts(recipient_id, version=0, known=False, repeat_of=repeat_of)
    entities, purchased, devices, choices, profile, cool_downs, suppressions, unread_replies = _DOCUMENT.decode(document)
    offers, switches, objections = _by_kind(choices)
    return Facts(
        recipient_id=recipient_id,
        version=version,
        erased=erased,
        person=_PERSONS[person],
        language=language,
        timezone=timezone,
        birth_date=birth_date,
        entities=entities,
        has_current_account=account,
        email=email,
        phone=phone,
        whatsapp=whatsapp,
        devices=devices,
        partner_id=partner_id,
        purchased=purchased,
        offers=offers,
        switches=switches,
        object_marketing=objections.get("marketing"),
        object_profiling=objections.get("profiling"),
        suppressions=suppressions,
        unread_replies=unread_replies,
        repeat_of=repeat_of,
        partner_message=partner_message,
        cool_downs=cool_downs,
        sent=tuple(
            [SentMessage(no, datetime.fromisoformat(at), Channel(channel), offer, own) for no, at, channel, offer, own, _ in sent]
        ),
        address_messages={channel: message for _, _, channel, _, _, message in sent if message is not None},
        profile=profile,
    )


def _by_kind(choices: Mapping[str, Choice]) -> tuple[dict[str, Choice], dict[str, Choice], dict[str, Choice]]:
    """The choices in force by name: of offers, of channels (the switches), and objections."""
    by_kind: dict[str, dict[str, Choice]] = {"offer": {}, "channel": {}, "objection": {}}
    for subject, choice in choices.items():
        kind, _, name = subject.partition(":")
        by_kind[kind][name] = choice
    return by_kind["offer"], by_kind["channel"], by_kind["objection"]


def facts_of(connection: Connection, recipient_ids: Sequence[str]) -> dict[str, Facts]:
    """The facts about these recipients, without a job."""
    rows = connection.execute(
        f"SELECT asked.id, {_RECIPIENT} FROM unnest(%s::text[]) asked (id) LEFT JOIN recipients r ON r.id = asked.id",
        (list(recipient_ids),),
    )
    return {recipient_id: _facts(recipient_id, None, recipient) for recipient_id, *recipient in rows}
