"""SQL of the hot path. Rows are read by position.

`gather` is one query for a chunk. `claim` and `settle` are usually one statement for a batch; households, fallback legs, caps and
unresolved messages need more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from psycopg.errors import UniqueViolation
from pydantic_core import from_json, to_json

from channels.base import Channel
from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.domain.message import Kind, State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import GROUP_OF, Choice, CoolDown, Device, Facts, Person, SentMessage
from dispatcher.ledger.campaigns import template_approvals, whatsapp_templates
from dispatcher.ledger.campaigns.whatsapp_templates import NO_TEXTS, ApprovedTexts
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import cap_reservations, fallback_legs, households, unresolved
from dispatcher.ledger.delivery.cap_reservations import NO_LIMITS, SendLimits
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import (
    KEY,
    KEY_ARRAYS,
    SPEC,
    in_cancelled_campaign,
    join_origin,
    key_arrays,
    same_job,
    same_message,
)
from dispatcher.ledger.pg_arrays import int_array, text_array
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a task works on. `campaign_state` is None for a trigger. `stopped_channels`: each with the provider's code.
    `approved`: the template versions that may be sent, each digest with the number of its approval. `digests`: the version of each
    template that it was accepted with; a template that is missing here has the version of the folder.
    """

    period: int
    number: int
    spec: Spec
    campaign_no: int | None
    campaign_id: str | None
    campaign_state: CampaignState | None
    stopped_channels: Mapping[Channel, str] = field(default_factory=dict)
    approved: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    whatsapp: ApprovedTexts = NO_TEXTS  # the WhatsApp texts that may be sent


@dataclass(frozen=True, slots=True)
class Candidate:
    """One message to be decided: a leg of a job, the facts about its recipient, and the job's variables.

    `fixed` is the channel of a leg that was tried before and is due again; None where the channel is still to be chosen.
    `tried` are the channels of the legs before this one. `partner` is the registered partner, where a household gets one message.
    """

    ref: MessageId
    facts: Facts
    data: Mapping[str, Any]
    attempts: int
    fixed: Channel | None
    tried: tuple[Channel, ...] = ()
    partner: str | None = None


def find(connection: Connection, period: int, number: int) -> Chunk | None:
    """A chunk with the spec that its jobs share; None where there is none."""
    row = connection.execute(
        f"""
        SELECT s.spec, s.no, s.id, s.state, (SELECT jsonb_object_agg(channel, code) FROM channel_stops),
               {template_approvals.IN_FORCE}, s.digests, {whatsapp_templates.APPROVED}
        FROM (
            SELECT {SPEC} AS spec, coalesce(c.template_digests, t.template_digests) AS digests, c.no, c.id, c.state
            FROM chunks k {join_origin("k")} WHERE k.period = %s AND k.chunk = %s
        ) s
        """,
        (period, number),
    ).fetchone()
    if row is None:
        return None
    spec, no, campaign_id, state, stops, approved, digests, whatsapp = row
    stopped_channels = {Channel(channel): code for channel, code in (stops or {}).items()}
    state = CampaignState(state) if state else None
    return Chunk(
        period,
        number,
        spec_from_json(spec),
        no,
        campaign_id,
        state,
        stopped_channels,
        approved or {},
        digests or {},
        whatsapp_templates.approved_texts(whatsapp),
    )


def chunk_numbers(connection: Connection, period: int, campaign_no: int) -> list[int]:
    """The numbers of a campaign's chunks, in the order of its audience."""
    rows = connection.execute(
        "SELECT chunk FROM chunks WHERE period = %s AND campaign_no = %s ORDER BY chunk", (period, campaign_no)
    )
    return [row[0] for row in rows]


# -- gather ------------------------------------------------------------------------------------------------------------

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
           {households.PARTNER}, {{sent}}, {_RECIPIENT}
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
    }
    rows_found = connection.execute(_gather_statement(tuple(chunk.spec.channels)), parameters)
    candidates: list[Candidate] = []
    for row, leg, attempts, channel, tried, data, recipient_id, repeat_of, couple, sent, *recipient in rows_found:
        partner, partner_message = couple or (None, None)
        facts = _facts(recipient_id, repeat_of, recipient, sent or (), partner_message)
        if leg is not None:
            fixed = Channel(channel) if channel else None
            before = tuple(Channel(name) for name in tried or ())
            candidates.append(Candidate(_ref(chunk, row, leg), facts, data, attempts, fixed, before, partner))
        elif chunk.spec.route == "all":
            candidates += [
                Candidate(_ref(chunk, row, index), facts, data, 0, channel, (), partner)
                for index, channel in enumerate(chunk.spec.channels)
            ]
        else:
            candidates.append(Candidate(_ref(chunk, row, 0), facts, data, 0, None, (), partner))
    return candidates


def _ref(chunk: Chunk, row: int, leg: int) -> MessageId:
    return MessageId(chunk.period, chunk.number, row, leg)


def _facts(
    recipient_id: str, repeat_of: str | None, row: Sequence[Any], sent: Sequence[Any] = (), partner_message: str | None = None
) -> Facts:
    known, version, erased, person, language, timezone, birth_date, account, email, phone, whatsapp, partner_id, document = row
    if not known:
        return Facts(recipient_id, version=0, known=False, repeat_of=repeat_of)
    entities, purchased, devices, choices, profile, cool_downs, suppressions, unread_replies = from_json(document)
    by_subject = _choices(choices)
    objections = by_subject["objection"]
    return Facts(
        recipient_id=recipient_id,
        version=version,
        erased=erased,
        person=Person(person),
        language=language,
        timezone=timezone,
        birth_date=birth_date,
        entities=frozenset(entities),
        has_current_account=account,
        email=email,
        phone=phone,
        whatsapp=whatsapp,
        devices=tuple([Device(item["token"], item["platform"], item["permission"]) for item in devices]),
        partner_id=partner_id,
        purchased=frozenset(purchased),
        offers=by_subject["offer"],
        switches=by_subject["channel"],
        object_marketing=objections.get("marketing"),
        object_profiling=objections.get("profiling"),
        suppressions=suppressions,
        unread_replies=unread_replies,
        repeat_of=repeat_of,
        partner_message=partner_message,
        cool_downs={name: CoolDown(datetime.fromisoformat(entry["until"]), entry["code"]) for name, entry in cool_downs.items()},
        sent=tuple(
            [SentMessage(no, datetime.fromisoformat(at), Channel(channel), offer, own) for no, at, channel, offer, own, _ in sent]
        ),
        address_messages={channel: message for _, _, channel, _, _, message in sent if message is not None},
        profile=profile,
    )


def _choices(stored: Mapping[str, Mapping[str, str]]) -> Mapping[str, dict[str, Choice]]:
    """The choices in force, by kind of subject ("offer", "channel" for switches, "objection"), then by name."""
    by_subject: dict[str, dict[str, Choice]] = {"offer": {}, "channel": {}, "objection": {}}
    for subject, entry in stored.items():
        kind, _, name = subject.partition(":")
        by_subject[kind][name] = Choice(entry["value"], entry["event"], entry["source"], datetime.fromisoformat(entry["at"]))
    return by_subject


def facts_of(connection: Connection, recipient_ids: Sequence[str]) -> dict[str, Facts]:
    """The facts about these recipients, without a job."""
    rows = connection.execute(
        f"SELECT asked.id, {_RECIPIENT} FROM unnest(%s::text[]) asked (id) LEFT JOIN recipients r ON r.id = asked.id",
        (list(recipient_ids),),
    )
    return {recipient_id: _facts(recipient_id, None, recipient) for recipient_id, *recipient in rows}


# -- claim: the claim gate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """A decision to be written. `state` is claimed, refused, expired, held_out, held or waiting."""

    candidate: Candidate
    state: State
    channel: Channel | None
    reason: str | None
    until: datetime | None
    decision: Mapping[str, Any]


class CampaignGate(StrEnum):
    """Whether the campaign may go on."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim: `claimed` may be handed off, `changed` rows are decided again, the rest belongs to another worker.

    `number` is the fencing token: whoever settles these messages has to name it.
    """

    gate: CampaignGate
    number: int = 0
    claimed: frozenset[MessageId] = frozenset()
    changed: frozenset[int] = frozenset()


# One statement, so that the claim gate costs one round trip and one commit. Its parts depend on each other in this order: the lock
# on the campaign, the locks on the recipients (PostgreSQL returns the version that is current once it has the lock), what changed,
# what is written. `claimed_at` is the clock of the database, read while the locks are held: a successful claim is earlier than any
# opt-out that it did not see. Texts that may contain many quotes are sent in binary (%b).
_CLAIM = """
    WITH gate AS MATERIALIZED (
        SELECT state = 'running' AS is_open FROM campaigns WHERE no = %(no)s FOR SHARE
    ), locked AS MATERIALIZED (
        SELECT id, version, email_key, phone_key, whatsapp_key FROM recipients
        WHERE id = ANY(%(people)b::text[]) AND coalesce((SELECT is_open FROM gate), %(no)s IS NULL) ORDER BY id {lock}
    ), number AS MATERIALIZED (
        SELECT nextval('claim_number') AS claim_no
    ), asked AS MATERIALIZED (
        SELECT e.*, coalesce(l.version, 0) <> e.version AS is_changed,
               CASE e.channel WHEN 'email' THEN l.email_key WHEN 'sms' THEN l.phone_key WHEN 'whatsapp' THEN l.whatsapp_key END
               AS address_key
        FROM unnest(%(row)s::int[], %(leg)s::smallint[], %(recipient_id)b::text[], %(version)s::bigint[], %(seen)s::bigint[],
                    %(seen_by_address)s::bigint[], %(attempts)s::smallint[], %(channel)s::text[], %(state)s::text[],
                    %(reason)s::text[], %(until)s::timestamptz[], %(decision)b::text[])
             AS e (row, leg, recipient_id, version, seen, seen_by_address, attempts, channel, state, reason, until, decision)
        LEFT JOIN locked l ON l.id = e.recipient_id
        WHERE coalesce((SELECT is_open FROM gate), %(no)s IS NULL)
    ), changed AS MATERIALIZED (
        SELECT row FROM asked WHERE is_changed
        UNION ALL
        SELECT suppressed_meanwhile(array_agg(a.row), array_agg(a.channel), array_agg(a.address_key), %(commercial)s)
        FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed AND a.address_key IS NOT NULL {meanwhile}
    ), touched AS (
        UPDATE chunks SET touched_at = %(now)s, repeats = 0
        WHERE period = %(period)s AND chunk = %(chunk)s AND coalesce((SELECT is_open FROM gate), %(no)s IS NULL)
    ), entered AS (
        INSERT INTO messages ({key}, campaign_no, recipient_id, attempts, channel, state, reason, until,
                              claimed_at, updated_at, decision, claim_no, address_key)
        SELECT %(period)s, %(chunk)s, e.row, e.leg, %(no)s, e.recipient_id, e.attempts, e.channel, e.state, e.reason, e.until,
               CASE WHEN e.state = 'claimed' THEN clock_timestamp() END, %(now)s, e.decision::jsonb,
               CASE WHEN e.state = 'claimed' THEN (SELECT claim_no FROM number) END, e.address_key
        FROM asked e WHERE e.row NOT IN (SELECT row FROM changed)
        ON CONFLICT ({key}) DO UPDATE
        SET channel = excluded.channel, state = excluded.state, reason = excluded.reason, until = excluded.until,
            claimed_at = excluded.claimed_at, updated_at = excluded.updated_at, decision = excluded.decision,
            claim_no = excluded.claim_no, address_key = excluded.address_key
        WHERE messages.state = 'pending'
        RETURNING {columns}, address_key
    ), to_outbox AS ({enter}
    ) {reserve}
    SELECT 'changed', row, 0 FROM changed
    UNION ALL SELECT 'lost', row, leg FROM asked WHERE (row, leg) NOT IN (SELECT row, leg FROM entered)
    UNION ALL SELECT 'claim', 0, claim_no FROM number
    UNION ALL SELECT 'closed', 0, 0 WHERE NOT coalesce((SELECT is_open FROM gate), %(no)s IS NULL)
"""
# Withdrawing an approval pauses the campaign, which the gate checks. A trigger has no campaign, so its claim checks the approval
# directly.
_WITHDRAWN = """
        UNION ALL SELECT row FROM asked WHERE state = 'claimed' AND NOT approval_stands(%(approval)s)
"""


@lru_cache(maxsize=16)
def _statement(*, exclusive: bool, limited: bool, by_address: bool, approved: bool) -> str:
    """The claim with what applies: locks that keep out other claims too, limits by person and address, the look at a trigger's
    approval."""
    changed = [
        *([cap_reservations.MEANWHILE] if limited else []),
        *([cap_reservations.MEANWHILE_BY_ADDRESS] if by_address else []),
        *([_WITHDRAWN] if approved else []),
    ]
    return _CLAIM.format(
        key=KEY,
        columns=outbox.changed("messages"),
        enter=outbox.enter("entered"),
        lock="FOR NO KEY UPDATE" if exclusive or limited else "FOR SHARE",
        meanwhile="".join(changed),
        reserve=cap_reservations.RESERVE if limited else "",
    )


def claim(
    connection: Connection,
    chunk: Chunk,
    entries: Sequence[ClaimEntry],
    now: datetime,
    limits: SendLimits = NO_LIMITS,
    approval: int | None = None,
) -> Claim:
    """The claim gate: in one transaction, lock campaign and recipients, compare versions, write the decisions that still hold.

    The lock on a recipient's row gives the order: an opt-out takes the conflicting lock, so each claim either commits before the
    opt-out does, or sees the changed version here and is decided again. Only messages that were claimed here may be handed off.

    With `limits`, the locks keep out other claims too; a recipient who got another message since `gather`, or whose address did, is
    decided again; and each claimed message is reserved. With `approval`, the approval of that number must still stand.
    """
    by_address = limits.apply and any(entry.channel not in (None, Channel.PUSH) for entry in entries)
    variant = {"limited": limits.apply, "by_address": by_address, "approved": approval is not None}
    once_in = chunk.campaign_no if limits.one_per_address else None
    values = {"now": now, "since": limits.since, "once_in": once_in, "approval": approval}
    fallback_refs = [entry.candidate.ref for entry in entries if entry.state is State.CLAIMED and entry.candidate.tried]
    partners = {entry.candidate.partner for entry in entries if entry.candidate.partner is not None}
    try:
        if not fallback_refs and not partners:
            return _enter(connection, chunk, entries, _statement(exclusive=False, **variant), values)
        with connection.transaction():
            _lock(connection, partners | {entry.candidate.facts.recipient_id for entry in entries})
            changed = fallback_legs.arrived(connection, fallback_refs) | _served_meanwhile(connection, chunk, entries)
            unchanged = [entry for entry in entries if entry.candidate.ref.row not in changed]
            claim = _enter(connection, chunk, unchanged, _statement(exclusive=True, **variant), values)
    except UniqueViolation:
        # Two claims reserve one address at the same moment, and the other recipient was imported so late that the address was not
        # yet shared when it could be locked. The other claim won; nothing of this one was written.
        return Claim(CampaignGate.OPEN, changed=frozenset(entry.candidate.ref.row for entry in entries))
    return claim if claim.gate is CampaignGate.CLOSED else replace(claim, changed=claim.changed | changed)


def _enter(connection: Connection, chunk: Chunk, entries: Sequence[ClaimEntry], statement: str, values: Mapping[str, Any]) -> Claim:
    asked = {entry.candidate.ref for entry in entries if entry.state is State.CLAIMED}
    number = 0
    changed: set[int] = set()
    lost: set[MessageId] = set()
    for what, row, last in connection.execute(statement, {**_columns(chunk, entries), **values}):
        if what == "closed":
            return Claim(CampaignGate.CLOSED)
        if what == "claim":
            number = last
        elif what == "changed":
            changed.add(row)
        else:
            lost.add(_ref(chunk, row, last))
    return Claim(CampaignGate.OPEN, number, frozenset(asked - lost), frozenset(changed))


def _served_meanwhile(connection: Connection, chunk: Chunk, entries: Sequence[ClaimEntry]) -> set[int]:
    """Rows that may not be sent, because the partner got the household's message meanwhile, in this batch or elsewhere."""
    couples = [(entry.candidate, entry.candidate.partner) for entry in entries if entry.state is State.CLAIMED]
    asked = [(candidate, partner) for candidate, partner in couples if partner is not None]
    served = households.served(connection, chunk.period, chunk.campaign_no or 0, [partner for _, partner in asked])
    rows = set()
    for candidate, partner in asked:
        if partner in served:
            rows.add(candidate.ref.row)
        else:
            served.add(candidate.facts.recipient_id)
    return rows


def _lock(connection: Connection, recipient_ids: Collection[str]) -> None:
    """Lock these rows against opt-outs and other claims, in the order of ids as every claim does, so that they cannot deadlock."""
    connection.execute("SELECT FROM recipients WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", (list(recipient_ids),))


def _columns(chunk: Chunk, entries: Sequence[ClaimEntry]) -> dict[str, Any]:
    candidates = [entry.candidate for entry in entries]
    people = [candidate.facts.recipient_id for candidate in candidates]
    return {
        "period": chunk.period,
        "chunk": chunk.number,
        "no": chunk.campaign_no,
        "first": chunk.spec.route == "first",
        "offer_type": chunk.spec.offer_type,
        "commercial": chunk.spec.kind is Kind.COMMERCIAL,
        "people": list(set(people)),
        "row": int_array(candidate.ref.row for candidate in candidates),
        "leg": int_array(candidate.ref.leg for candidate in candidates),
        "recipient_id": people,
        "version": int_array(candidate.facts.version for candidate in candidates),
        "seen": int_array(_newest(entry, own=True) for entry in entries),
        "seen_by_address": int_array(_newest(entry, own=False) for entry in entries),
        "attempts": int_array(candidate.attempts for candidate in candidates),
        "channel": text_array(entry.channel for entry in entries),
        "state": text_array(entry.state for entry in entries),
        "reason": text_array(entry.reason for entry in entries),
        "until": [entry.until for entry in entries],
        "decision": [to_json(entry.decision).decode() for entry in entries],
    }


def _newest(entry: ClaimEntry, *, own: bool) -> int:
    """The number of the newest message that the decision saw: of the person's own, or of others' to the address of its channel."""
    sent, group = entry.candidate.facts.sent, GROUP_OF[entry.channel] if entry.channel is not None else None
    return max((item.no for item in sent if item.own is own and (own or GROUP_OF[item.channel] is group)), default=0) if sent else 0


# -- settle ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of one hand-off, to be written."""

    ref: MessageId
    state: State
    reason: str | None
    until: datetime | None
    receipt: str | None
    provider: str
    attempt_spent: bool


NOT_SENT_AFTER_ATTEMPT = frozenset({State.FAILED, State.WAITING, State.DEAD})


def record_claim_start(connection: Connection, number: int) -> bool:
    """Record that sending may have begun. If the worker is lost after this, its messages become `unresolved`.

    Returns False if the claim was revoked; then nothing may be sent.
    """
    row = connection.execute(
        "INSERT INTO claim_starts (claim_no) VALUES (%s)"
        " ON CONFLICT (claim_no) DO UPDATE SET claim_no = excluded.claim_no RETURNING is_revoked",
        (number,),
    ).fetchone()
    return row is not None and not row[0]


def prune_starts(connection: Connection, before: datetime) -> int:
    """Remove the starts of claims that ended long ago without a settle; returns their number."""
    return connection.execute("DELETE FROM claim_starts WHERE at < %s", (before,)).rowcount


def settle(connection: Connection, number: int, settlements: Sequence[Settlement], now: datetime) -> None:
    """Write the outcomes of the messages that claim `number` still holds; a repetition, or a settle after another claim, changes
    nothing. A state that an event already moved forward stays; only the receipt is added.

    If the campaign was cancelled, a message that would wait becomes `cancelled`, and no fallback leg follows.

    A message that was certainly not sent no longer counts towards the recipient's caps. An unresolved message is added to the
    look-up list.
    """
    not_sent = [item.ref for item in settlements if item.state in NOT_SENT_AFTER_ATTEMPT]
    unknown = [item.ref for item in settlements if item.state is State.UNRESOLVED]
    with connection.transaction() if not_sent or unknown else nullcontext():
        _write(connection, number, settlements, now)
        if not_sent:
            cap_reservations.release(connection, not_sent)
        if unknown:
            unresolved.add(connection, unknown, now)


def _write(connection: Connection, number: int, settlements: Sequence[Settlement], now: datetime) -> None:
    connection.execute(
        f"""
        WITH settled AS (
            DELETE FROM claim_starts WHERE claim_no = %(number)s
        ), written AS (
            UPDATE messages m
            SET claim_no = NULL,
                state = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.state
                             WHEN s.state = 'waiting' AND {in_cancelled_campaign("m")} THEN 'cancelled' ELSE s.state END,
                reason = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.reason
                              WHEN s.state = 'waiting' AND {in_cancelled_campaign("m")} THEN 'cancelled' ELSE s.reason END,
                until = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.until
                             WHEN s.until IS NOT NULL AND {in_cancelled_campaign("m")} THEN NULL ELSE s.until END,
                attempts = m.attempts + s.spent::int, receipt = coalesce(s.receipt, m.receipt), provider = s.provider,
                accepted_at = CASE WHEN s.receipt IS NOT NULL THEN %(now)s ELSE m.accepted_at END, updated_at = %(now)s
            FROM unnest({KEY_ARRAYS}, %(state)s::text[], %(reason)s::text[], %(until)s::timestamptz[], %(receipt)s::text[],
                        %(provider)s::text[], %(spent)s::bool[])
                 AS s ({KEY}, state, reason, until, receipt, provider, spent)
            WHERE {same_message("m", "s")} AND m.claim_no = %(number)s
            RETURNING {outbox.changed("m")}, m.state = s.state OR m.state = 'cancelled' AS is_new
        )
        {outbox.enter("written", "is_new")}
        """,
        {
            "now": now,
            "number": number,
            **key_arrays(item.ref for item in settlements),
            "state": text_array(item.state for item in settlements),
            "reason": text_array(item.reason for item in settlements),
            "until": [item.until for item in settlements],
            "receipt": text_array(item.receipt for item in settlements),
            "provider": text_array(item.provider for item in settlements),
            "spent": [item.attempt_spent for item in settlements],
        },
    )
