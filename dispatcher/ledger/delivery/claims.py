"""SQL of the claim gate, usually one statement for a batch. Households, fallback legs and caps need more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from psycopg.errors import UniqueViolation
from pydantic_core import to_json

from channels.base import Channel
from dispatcher.domain.decision_skeleton import CompactRecord
from dispatcher.domain.message import Kind, State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import GROUP_OF
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import cap_reservations, fallback_legs, households, unresolved
from dispatcher.ledger.delivery.candidates import Candidate
from dispatcher.ledger.delivery.cap_reservations import NO_LIMITS, SendLimits
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.events import outbox
from dispatcher.ledger.maintenance import generations
from dispatcher.ledger.message_key import (
    KEY,
)
from dispatcher.ledger.pg_arrays import int_array, text_array


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """A decision to be written. `state` is claimed, refused, expired, held_out, held, waiting, or unresolved after a restore."""

    candidate: Candidate
    state: State
    channel: Channel | None
    reason: str | None
    until: datetime | None
    decision: Mapping[str, Any] | CompactRecord

    @property
    def document(self) -> Mapping[str, Any]:
        """The complete record of the decision."""
        return self.decision.document() if isinstance(self.decision, CompactRecord) else self.decision


class CampaignGate(StrEnum):
    """Whether the campaign may go on."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of a claim: `claimed` may be handed off, `changed` rows are decided again, the rest belongs to another worker.

    `number` is the fencing token: whoever settles these messages has to name it. `at` is the database's time before the claim, in
    microseconds of Unix time; `generation` is the ledger's.
    """

    gate: CampaignGate
    number: int = 0
    claimed: frozenset[MessageId] = frozenset()
    changed: frozenset[int] = frozenset()
    at: int = 0
    generation: int = 0


# One statement, so that the claim gate costs one round trip and one commit. Its parts depend on each other in this order: the lock
# on the campaign, the locks on the recipients (PostgreSQL returns the version that is current once it has the lock), what changed,
# what is written. `claimed_at` is the clock of the database, read while the locks are held: a successful claim is earlier than any
# opt-out that it did not see. It stays when the message is decided again: a mark outside the ledger may name that claim. Texts that
# may contain many quotes are sent in binary (%b).
_CLAIM = """
    WITH gate AS MATERIALIZED (
        SELECT state = 'running' AND {released} AS is_open FROM campaigns WHERE no = %(no)s FOR SHARE
    ), locked AS MATERIALIZED (
        SELECT id, version, email_key, phone_key, whatsapp_key FROM recipients
        WHERE id = ANY(%(people)b::text[]) AND coalesce((SELECT is_open FROM gate), %(no)s IS NULL AND {released})
        ORDER BY id {lock}
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
        WHERE coalesce((SELECT is_open FROM gate), %(no)s IS NULL AND {released})
    ){absent}, changed AS MATERIALIZED (
        SELECT row FROM asked WHERE is_changed
        UNION ALL
        SELECT suppressed_meanwhile(array_agg(a.row), array_agg(a.channel), array_agg(a.address_key), %(commercial)s)
        FROM asked a WHERE a.state = 'claimed' AND NOT a.is_changed AND a.address_key IS NOT NULL {meanwhile}
    ), touched AS (
        UPDATE chunks SET touched_at = %(now)s, repeats = 0
        WHERE period = %(period)s AND chunk = %(chunk)s AND coalesce((SELECT is_open FROM gate), %(no)s IS NULL AND {released})
    ), entered AS (
        INSERT INTO messages ({key}, campaign_no, recipient_id, attempts, channel, state, reason, until,
                              claimed_at, updated_at, decision, claim_no, address_key)
        SELECT %(period)s, %(chunk)s, e.row, e.leg, %(no)s, e.recipient_id, e.attempts, e.channel, e.state, e.reason, e.until,
               CASE e.state WHEN 'claimed' THEN clock_timestamp() WHEN 'unresolved' THEN (
                   SELECT coalesce(restored_to, began_at) FROM ledger_generations ORDER BY no DESC LIMIT 1) END,
               %(now)s, e.decision::jsonb,
               CASE WHEN e.state = 'claimed' THEN (SELECT claim_no FROM number) END, e.address_key
        FROM asked e WHERE e.row NOT IN (SELECT row FROM changed)
        ON CONFLICT ({key}) DO UPDATE
        SET channel = excluded.channel, state = excluded.state, reason = excluded.reason, until = excluded.until,
            claimed_at = coalesce(excluded.claimed_at, messages.claimed_at), updated_at = excluded.updated_at,
            decision = excluded.decision, claim_no = excluded.claim_no, address_key = excluded.address_key
        WHERE messages.state = 'pending'
        RETURNING {columns}, address_key
    ), to_outbox AS ({enter}
    ) {reserve}
    SELECT 'changed', row, 0 FROM changed
    UNION ALL SELECT 'lost', row, leg FROM asked WHERE (row, leg) NOT IN (SELECT row, leg FROM entered)
    UNION ALL SELECT 'claim', (extract(epoch FROM now()) * 1000000)::bigint, claim_no FROM number
    UNION ALL SELECT 'generation', max(no), 0 FROM ledger_generations
    {forgotten}
    UNION ALL SELECT 'closed', 0, 0 WHERE NOT coalesce((SELECT is_open FROM gate), %(no)s IS NULL AND {released})
"""
# Withdrawing an approval pauses the campaign, which the gate checks. A trigger has no campaign, so its claim checks the approval
# directly.
_WITHDRAWN = """
        UNION ALL SELECT row FROM asked WHERE state = 'claimed' AND NOT approval_stands(%(approval)s)
"""
# Nothing is written that names a skeleton which the ledger lacks: the messages are decided again, and their skeletons stored again.
_LACKS_SKELETONS = """
        UNION ALL SELECT row FROM asked WHERE EXISTS (SELECT FROM absent)
"""
_FORGOTTEN = "UNION ALL SELECT 'forgotten', 0, 0 WHERE EXISTS (SELECT FROM absent)"


@lru_cache(maxsize=32)
def _statement(*, exclusive: bool, limited: bool, by_address: bool, approved: bool, compact: bool) -> str:
    """The claim with what applies: locks that keep out other claims too, limits by person and address, the look at a trigger's
    approval, and at the skeletons of compact records."""
    changed = [
        *([_LACKS_SKELETONS] if compact else []),
        *([cap_reservations.MEANWHILE] if limited else []),
        *([cap_reservations.MEANWHILE_BY_ADDRESS] if by_address else []),
        *([_WITHDRAWN] if approved else []),
    ]
    return _CLAIM.format(
        key=KEY,
        columns=outbox.changed("messages"),
        enter=outbox.enter("entered"),
        released=generations.IS_RELEASED,
        lock="FOR NO KEY UPDATE" if exclusive or limited else "FOR SHARE",
        meanwhile="".join(changed),
        reserve=cap_reservations.RESERVE if limited else "",
        absent=decision_skeletons.ABSENT if compact else "",
        forgotten=_FORGOTTEN if compact else "",
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

    While a restore of the ledger is not released, the gate is closed. What is written as unresolved after a restore is not claimed.
    """
    entries, skeletons = _with_skeletons(connection, entries)
    by_address = limits.apply and any(entry.channel not in (None, Channel.PUSH) for entry in entries)
    variant = {"limited": limits.apply, "by_address": by_address, "approved": approval is not None, "compact": bool(skeletons)}
    once_in = chunk.campaign_no if limits.one_per_address else None
    values = {"now": now, "since": limits.since, "once_in": once_in, "approval": approval, "skeletons": skeletons}
    fallback_refs = [entry.candidate.ref for entry in entries if entry.state is State.CLAIMED and entry.candidate.tried]
    partners = {entry.candidate.partner for entry in entries if entry.candidate.partner is not None}
    restored = [entry.candidate.ref for entry in entries if entry.state is State.UNRESOLVED]
    try:
        if restored:
            with connection.transaction():
                claim = _enter(connection, chunk, entries, _statement(exclusive=True, **variant), values)
                unresolved.add(connection, restored, now)
            return claim
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
    number = at = generation = 0
    changed: set[int] = set()
    lost: set[MessageId] = set()
    for what, row, last in connection.execute(statement, {**_columns(chunk, entries), **values}):
        if what == "closed":
            return Claim(CampaignGate.CLOSED)
        if what == "claim":
            at, number = row, last
        elif what == "generation":
            generation = row
        elif what == "changed":
            changed.add(row)
        elif what == "forgotten":
            decision_skeletons.forget(connection)
        else:
            lost.add(chunk.ref(row, last))
    return Claim(CampaignGate.OPEN, number, frozenset(asked - lost), frozenset(changed), at, generation)


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
        "decision": [_text(entry.decision) for entry in entries],
    }


def _with_skeletons(connection: Connection, entries: Sequence[ClaimEntry]) -> tuple[Sequence[ClaimEntry], list[str]]:
    """The entries, and the names of the skeletons that they need, which are stored now."""
    used = [entry.decision.skeleton for entry in entries if isinstance(entry.decision, CompactRecord)]
    skeletons = {skeleton.name: skeleton for skeleton in used}
    if not skeletons:
        return entries, []
    if not decision_skeletons.store(connection, skeletons.values()):
        return [replace(entry, decision=entry.document) for entry in entries], []
    return entries, list(skeletons)


def _text(decision: Mapping[str, Any] | CompactRecord) -> str:
    return decision.text() if isinstance(decision, CompactRecord) else to_json(decision).decode()


def _newest(entry: ClaimEntry, *, own: bool) -> int:
    """The number of the newest message that the decision saw: of the person's own, or of others' to the address of its channel."""
    sent, group = entry.candidate.facts.sent, GROUP_OF[entry.channel] if entry.channel is not None else None
    return max((item.no for item in sent if item.own is own and (own or GROUP_OF[item.channel] is group)), default=0) if sent else 0


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
