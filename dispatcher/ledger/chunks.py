"""The hot path's SQL: gather, claim, settle, each one round trip for a whole batch."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from channels.base import Channel
from dispatcher.ledger import approvals, caps, doubts, households, legs
from dispatcher.ledger.campaigns import spec_from_json
from dispatcher.ledger.pool import Connection
from dispatcher.model import CampaignState, Choice, Device, Facts, Person, Rest, Sent, Spec, State
from dispatcher.refs import MessageRef


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a task works on. `campaign_state` is None for a trigger. `approved` are the wordings of its templates that may leave, by
    digest, each with the number of its approval."""

    period: int
    number: int
    spec: Spec
    campaign_no: int | None
    campaign_id: str | None
    campaign_state: CampaignState | None
    approved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One message to be decided: a leg of a job, what is known of its recipient, and the variables that came with the job.

    `fixed` is the channel of a leg that was tried before and is due again; None where the channel is still to be chosen.
    `tried` are the channels of the legs before this one. `partner` is the registered partner, where a household gets one message.
    """

    ref: MessageRef
    facts: Facts
    data: Mapping[str, Any]
    attempts: int
    fixed: Channel | None
    tried: tuple[Channel, ...] = ()
    partner: str | None = None


def find(connection: Connection, period: int, number: int) -> Chunk | None:
    """The chunk of a reference, with the spec that its jobs share."""
    row = connection.execute(
        """
        SELECT coalesce(c.spec, t.spec), c.no, c.id, c.state
        FROM chunks k
        LEFT JOIN campaigns c ON c.no = k.campaign_no
        LEFT JOIN triggers t ON t.chunk = k.chunk AND k.campaign_no IS NULL
        WHERE k.period = %s AND k.chunk = %s
        """,
        (period, number),
    ).fetchone()
    if row is None:
        return None
    kept, no, campaign_id, state = row
    spec = spec_from_json(kept)
    approved = approvals.in_force(connection, spec.templates)
    return Chunk(period, number, spec, no, campaign_id, CampaignState(state) if state else None, approved)


def numbers_of(connection: Connection, period: int, campaign_no: int) -> list[int]:
    """The numbers of a campaign's chunks, in the order of its audience."""
    rows = connection.execute(
        "SELECT chunk FROM chunks WHERE period = %s AND campaign_no = %s ORDER BY chunk", (period, campaign_no)
    )
    return [row[0] for row in rows]


# -- gather ------------------------------------------------------------------------------------------------------------

_RECIPIENT = f"""
    r.id IS NOT NULL, coalesce(r.version, 0), r.erased_at IS NOT NULL, r.person, r.language, r.timezone, r.birth_date,
    r.entities, r.has_current_account, r.email, r.phone, r.whatsapp, r.devices, {households.PARTNER_ID}, r.purchased, r.choices,
    r.profile, r.rests,
    (SELECT jsonb_object_agg(s.channel, 'suppression:' || s.no) FROM suppressions s
     WHERE s.lifted_at IS NULL AND (s.address_key, s.channel) IN
           ((r.email_key, 'email'), (r.phone_key, 'sms'), (r.whatsapp_key, 'whatsapp')))
"""

_GATHER = f"""
    SELECT j.row, m.leg, m.attempts, m.channel, {legs.TRIED}, j.data, j.recipient_id, coalesce(j.repeat_of, {legs.ARRIVED}),
           {households.PARTNER}, {caps.SENT}, {_RECIPIENT}
    FROM jobs j
    LEFT JOIN messages m ON m.period = j.period AND m.chunk = j.chunk AND m.row = j.row
    LEFT JOIN recipients r ON r.id = j.recipient_id
    WHERE j.period = %(period)s AND j.chunk = %(chunk)s AND (m.state IS NULL OR m.state = 'pending')
      AND (%(rows)s::int[] IS NULL OR j.row = ANY(%(rows)s))
    ORDER BY j.row, m.leg
"""


def gather(
    connection: Connection, chunk: Chunk, rows: Collection[int] | None = None, since: datetime | None = None
) -> list[Candidate]:
    """All that is known of the chunk's messages that are still to be decided; of some `rows` only, where given.

    `since` is how far back messages already sent are counted; None where they don't matter.
    With route "all" each asked channel is a message of its own, told apart by its leg.
    """
    names = {"period": chunk.period, "chunk": chunk.number, "rows": None if rows is None else sorted(rows)}
    first, household = chunk.spec.route == "first", chunk.spec.one_per_household
    found = connection.execute(_GATHER, {**names, "since": since, "first": first, "household": household})
    candidates: list[Candidate] = []
    for row, leg, attempts, channel, tried, data, recipient_id, repeat_of, couple, sent, *recipient in found:
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


def _ref(chunk: Chunk, row: int, leg: int) -> MessageRef:
    return MessageRef(chunk.period, chunk.number, row, leg)


def _facts(
    recipient_id: str, repeat_of: str | None, row: Sequence[Any], sent: Sequence[Any] = (), partner_message: str | None = None
) -> Facts:
    known, version, erased, person, language, timezone, birth_date, entities, account, *rest = row
    if not known:
        return Facts(recipient_id, version=0, known=False, repeat_of=repeat_of)
    email, phone, whatsapp, devices, partner_id, purchased, choices, profile, rests, suppressions = rest
    offers, switches, objections = _choices(choices)
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
        devices=tuple(Device(item["token"], item["platform"], item["permission"]) for item in devices),
        partner_id=partner_id,
        purchased=frozenset(purchased),
        offers=offers,
        switches=switches,
        object_marketing=objections.get("marketing"),
        object_profiling=objections.get("profiling"),
        suppressions=suppressions or {},
        repeat_of=repeat_of,
        partner_message=partner_message,
        rests={name: Rest(datetime.fromisoformat(kept["until"]), kept["code"]) for name, kept in rests.items()},
        sent=tuple(Sent(no, datetime.fromisoformat(at), Channel(channel), offer) for no, at, channel, offer in sent),
        profile=profile,
    )


def _choices(kept: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, Choice], dict[str, Choice], dict[str, Choice]]:
    """The derived current choices, by what they are about: offers, channel switches, objections."""
    sorted_out: dict[str, dict[str, Choice]] = {"offer": {}, "channel": {}, "objection": {}}
    for subject, choice in kept.items():
        about, _, name = subject.partition(":")
        sorted_out[about][name] = Choice(choice["value"], choice["event"], choice["source"], datetime.fromisoformat(choice["at"]))
    return sorted_out["offer"], sorted_out["channel"], sorted_out["objection"]


def facts_of(connection: Connection, recipient_ids: Sequence[str]) -> dict[str, Facts]:
    """What is known of these recipients, whether or not a job asks for them."""
    rows = connection.execute(
        f"SELECT asked.id, {_RECIPIENT} FROM unnest(%s::text[]) asked (id) LEFT JOIN recipients r ON r.id = asked.id",
        (list(recipient_ids),),
    )
    return {recipient_id: _facts(recipient_id, None, recipient) for recipient_id, *recipient in rows}


# -- claim: the gate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision on its way into the ledger. `state` is claimed, refused, expired, held_out, held or waiting."""

    candidate: Candidate
    state: State
    channel: Channel | None
    reason: str | None
    until: datetime | None
    decision: Mapping[str, Any]


class Gate(StrEnum):
    """Whether the campaign may go on."""

    OPEN = "open"
    SHUT = "shut"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the gate let through: `won` may be handed over, `changed` rows are to be decided again, the rest is another worker's."""

    gate: Gate
    won: frozenset[MessageRef] = frozenset()
    changed: frozenset[int] = frozenset()


# `claimed_at` is the database's clock, read while the recipients' locks are held: a claim that won shows a time before any opt-out
# that it did not see.
# What may hold many characters or quotes goes over in binary (%b): psycopg writes text arrays in Python, quote by quote.
_ENTER = """
    INSERT INTO messages (period, chunk, row, leg, campaign_no, recipient_id, attempts, channel, state, reason, until,
                          claimed_at, updated_at, decision)
    SELECT %(period)s, %(chunk)s, e.row, e.leg, %(no)s, e.recipient_id, e.attempts, e.channel, e.state, e.reason, e.until,
           CASE WHEN e.state = 'claimed' THEN clock_timestamp() END, %(now)s, e.decision::jsonb
    FROM unnest(%(row)s::int[], %(leg)s::smallint[], %(recipient_id)b::text[], %(attempts)s::smallint[],
                %(channel)s::text[], %(state)s::text[], %(reason)s::text[], %(until)s::timestamptz[], %(decision)b::text[])
         AS e (row, leg, recipient_id, attempts, channel, state, reason, until, decision)
    ON CONFLICT (period, chunk, row, leg) DO UPDATE
    SET channel = excluded.channel, state = excluded.state, reason = excluded.reason, until = excluded.until,
        claimed_at = excluded.claimed_at, updated_at = excluded.updated_at, decision = excluded.decision
    WHERE messages.state = 'pending'
    RETURNING row, leg, state, recipient_id, channel
"""

_ENTER_AND_RESERVE = caps.RESERVE.format(enter=_ENTER)


def claim(connection: Connection, chunk: Chunk, entries: Sequence[Entry], now: datetime, since: datetime | None = None) -> Claim:
    """The gate: in one transaction, lock campaign and recipients against opt-outs, re-read versions, write what still holds.

    A recipient's row lock is the order of things: an opt-out takes the opposing lock, so each claim either committed before the
    opt-out did, or sees the changed version here and is decided again. Only claims that were won here may be handed over.

    With `since`, frequency caps apply: the locks keep other claims out too, whoever got another message since the look is
    decided again, and what is claimed is reserved.
    """
    with connection.transaction():
        if chunk.campaign_no is not None and not _running(connection, chunk.campaign_no):
            return Claim(Gate.SHUT)
        people = {entry.candidate.facts.recipient_id for entry in entries}
        partners = {entry.candidate.partner for entry in entries if entry.candidate.partner is not None}
        versions = _lock_versions(connection, people | partners, alone=since is not None or bool(partners))
        changed = {
            entry.candidate.ref.row
            for entry in entries
            if versions.get(entry.candidate.facts.recipient_id, 0) != entry.candidate.facts.version
        }
        if since is not None:
            changed |= _sent_meanwhile(connection, chunk, entries, since)
        if later := [entry.candidate.ref for entry in entries if entry.state is State.CLAIMED and entry.candidate.tried]:
            changed |= legs.arrived(connection, later)
        if partners:
            changed |= _served_meanwhile(connection, chunk, entries)
        kept = [entry for entry in entries if entry.candidate.ref.row not in changed]
        connection.execute("UPDATE chunks SET touched_at = %s WHERE period = %s AND chunk = %s", (now, chunk.period, chunk.number))
        enter = _ENTER if since is None else _ENTER_AND_RESERVE
        written = connection.execute(enter, _columns(chunk, kept, now)).fetchall() if kept else []
    won = frozenset(_ref(chunk, row, leg) for row, leg, state, *_ in written if state == State.CLAIMED)
    return Claim(Gate.OPEN, won, frozenset(changed))


def _running(connection: Connection, campaign_no: int) -> bool:
    row = connection.execute("SELECT state FROM campaigns WHERE no = %s FOR SHARE", (campaign_no,)).fetchone()
    return bool(row and row[0] == CampaignState.RUNNING)


def _sent_meanwhile(connection: Connection, chunk: Chunk, entries: Sequence[Entry], since: datetime) -> set[int]:
    """A refusal or a hold stands whatever else the person got; only what would leave is looked at again."""
    asked = [
        (entry.candidate.ref.row, facts.recipient_id, max((sent.no for sent in facts.sent), default=0))
        for entry in entries
        if entry.state is State.CLAIMED and (facts := entry.candidate.facts)
    ]
    return caps.unseen(connection, chunk.number, chunk.spec.route == "first", asked, since) if asked else set()


def _served_meanwhile(connection: Connection, chunk: Chunk, entries: Sequence[Entry]) -> set[int]:
    """Rows that would leave although the partner, in this batch or elsewhere, has the household's message by now."""
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


def _lock_versions(connection: Connection, recipient_ids: Collection[str], alone: bool) -> dict[str, int]:
    """Current versions, each row locked until the transaction ends; in the order of ids, so that claims can't deadlock.

    Opt-outs always wait for the lock; other claims do where it is to be held `alone`.
    """
    lock = "FOR NO KEY UPDATE" if alone else "FOR SHARE"
    rows = connection.execute(f"SELECT id, version FROM recipients WHERE id = ANY(%s) ORDER BY id {lock}", (list(recipient_ids),))
    return {recipient_id: version for recipient_id, version in rows}  # noqa: C416  rows are tuples of Any


def _columns(chunk: Chunk, entries: Sequence[Entry], now: datetime) -> dict[str, Any]:
    return {
        "period": chunk.period,
        "chunk": chunk.number,
        "no": chunk.campaign_no,
        "now": now,
        "offer_type": chunk.spec.offer_type,
        "row": [entry.candidate.ref.row for entry in entries],
        "leg": [entry.candidate.ref.leg for entry in entries],
        "recipient_id": [entry.candidate.facts.recipient_id for entry in entries],
        "attempts": [entry.candidate.attempts for entry in entries],
        "channel": [entry.channel for entry in entries],
        "state": [entry.state for entry in entries],
        "reason": [entry.reason for entry in entries],
        "until": [entry.until for entry in entries],
        "decision": [json.dumps(entry.decision) for entry in entries],
    }


# -- settle ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one hand-off."""

    ref: MessageRef
    state: State
    reason: str | None
    until: datetime | None
    receipt: str | None
    provider: str
    attempt_spent: bool


NOT_GONE = frozenset({State.FAILED, State.WAITING, State.DEAD})


def settle(connection: Connection, settlements: Sequence[Settlement], now: datetime) -> None:
    """Write what became of a batch of hand-offs. News that overtook us (an event) is not moved back; its receipt is added.

    What is known not to have left no longer counts towards the person's caps; what may have is written down to be asked about.
    """
    stayed = [item.ref for item in settlements if item.state in NOT_GONE]
    doubtful = [item.ref for item in settlements if item.state is State.UNRESOLVED]
    with connection.transaction() if stayed or doubtful else nullcontext():
        _write(connection, settlements, now)
        if stayed:
            caps.release(connection, stayed)
        if doubtful:
            doubts.open_(connection, doubtful, now)


def _write(connection: Connection, settlements: Sequence[Settlement], now: datetime) -> None:
    connection.execute(
        """
        UPDATE messages m
        SET state = CASE WHEN m.state IN ('claimed', 'unresolved') THEN s.state ELSE m.state END,
            reason = CASE WHEN m.state IN ('claimed', 'unresolved') THEN s.reason ELSE m.reason END,
            until = CASE WHEN m.state IN ('claimed', 'unresolved') THEN s.until ELSE m.until END,
            attempts = m.attempts + s.spent::int, receipt = coalesce(s.receipt, m.receipt), provider = s.provider,
            accepted_at = CASE WHEN s.receipt IS NOT NULL THEN %(now)s ELSE m.accepted_at END, updated_at = %(now)s
        FROM unnest(%(period)s::int[], %(chunk)s::bigint[], %(row)s::int[], %(leg)s::smallint[], %(state)s::text[],
                    %(reason)s::text[], %(until)s::timestamptz[], %(receipt)b::text[], %(provider)s::text[], %(spent)s::bool[])
             AS s (period, chunk, row, leg, state, reason, until, receipt, provider, spent)
        WHERE m.period = s.period AND m.chunk = s.chunk AND m.row = s.row AND m.leg = s.leg
        """,
        {
            "now": now,
            "period": [item.ref.period for item in settlements],
            "chunk": [item.ref.chunk for item in settlements],
            "row": [item.ref.row for item in settlements],
            "leg": [item.ref.leg for item in settlements],
            "state": [item.state for item in settlements],
            "reason": [item.reason for item in settlements],
            "until": [item.until for item in settlements],
            "receipt": [item.receipt for item in settlements],
            "provider": [item.provider for item in settlements],
            "spent": [item.attempt_spent for item in settlements],
        },
    )
