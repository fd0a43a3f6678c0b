"""The life of a chunk: gather, decide, render, claim, send, conclude, settle. Read `work` from top to bottom.

A worker may be killed after any line. Before the claim commits nothing has happened; after it, what is not settled is `unresolved`
once the lease is over. Nothing stands between claim and hand-off.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import groupby

from channels.base import BadAddress, Channel, Content, Outbound, Push, Result
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, ref_token
from dispatcher.content import ContentRefusal, Letter, Links, Sender, Template
from dispatcher.delivery import side_effects
from dispatcher.delivery.approval_check import unapproved, unsaid
from dispatcher.delivery.outcomes import Outcome, conclude, fallback_at, fold
from dispatcher.domain.campaign import Spec
from dispatcher.domain.decision import Code, Decision, Hold, Leg, Refuse, Send
from dispatcher.domain.message import Job, Kind, Mode, State
from dispatcher.domain.recipient import Facts, Sent
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import Connection, LedgerUnavailable, lend
from dispatcher.ledger.delivery import claims, scheduling
from dispatcher.ledger.delivery.claims import Candidate, Chunk, Claim, Entry, Gate, Settlement
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.policy import decide, record, variant_of
from dispatcher.runtime.services import House

STATE_OF: Mapping[str, State] = {Code.EXPIRED: State.EXPIRED, Code.HELD_OUT: State.HELD_OUT, Code.CANCELLED: State.CANCELLED}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A candidate with its decision and, when it may leave, what would be handed over: one outbound, or one per device."""

    entry: Entry
    outbounds: tuple[Outbound, ...] = ()


def run_chunk(house: House, period: int, number: int) -> Chunk | None:
    """Work on a chunk until nothing of it is left to decide. Safe to repeat, and to run twice at once: the claim decides.

    A campaign whose text nobody approved, since it was changed or the approval withdrawn, pauses itself, and nothing of it is lost.
    Returns the chunk, or None when there is none of this number. Raises `LedgerUnavailable`; then the chunk is tried again.
    """
    with lend(house.pool) as connection:
        chunk = claims.find(connection, period, number)
    if chunk is None:
        return None
    if chunk.campaign_no is not None and (waiting := unapproved(house, chunk.spec.templates, chunk.approved)):
        with lend(house.pool) as connection:
            lifecycle.halt(connection, chunk.campaign_no, f"paused itself: {unsaid(waiting[0])}", house.clock())
        return chunk
    stopped = dict(chunk.stopped)
    rows: frozenset[int] | None = None
    for _ in range(house.limits.decide_rounds_max):
        with lend(house.pool) as connection:
            candidates = claims.gather(connection, chunk, rows, caps_since(house, chunk))
        changed: set[int] = set()
        for batch in batches(candidates, house.limits.batch(chunk.spec.channels)):
            claim = work(house, chunk, batch, stopped)
            if claim.gate is Gate.SHUT:
                return chunk
            changed |= claim.changed
        if not changed:
            break
        rows = frozenset(changed)
    with lend(house.pool) as connection:
        scheduling.close(connection, chunk, house.clock())
    return chunk


def batches(candidates: Sequence[Candidate], size: int) -> Iterator[list[Candidate]]:
    """Candidates in batches of about `size`; the legs of one job stay together, so that they are claimed together."""
    batch: list[Candidate] = []
    for _, legs in groupby(candidates, key=lambda candidate: candidate.ref.row):
        batch += legs
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def work(house: House, chunk: Chunk, batch: Sequence[Candidate], stopped: dict[Channel, str]) -> Claim:
    """One batch through its whole life. No connection is held while providers are spoken to. What stops a channel stands in
    `stopped` from then on."""
    prepared = prepare_all(house, chunk, batch, stopped)
    with lend(house.pool) as connection:
        claim = claims.claim(connection, chunk, [item.entry for item in prepared], house.clock(), caps_since(house, chunk))
    won = [item for item in prepared if item.entry.candidate.ref in claim.won]
    if won:
        concluded = conclude_all(house, chunk, won, send(house, won))
        settle(house, chunk, concluded)
        stopped |= {item.channel: item.outcome.reason or "" for item in concluded if item.outcome.stop_channel}
    return claim


# -- decide and render -------------------------------------------------------------------------------------------------


def caps_since(house: House, chunk: Chunk) -> datetime | None:
    """How far back the caps look; None where none applies: service messages are exempt."""
    return house.policy.caps_since(house.clock()) if chunk.spec.kind is Kind.COMMERCIAL else None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is about to be claimed: the person's next message, and the partner's, are decided as if it had gone."""

    sent: dict[str, tuple[Sent, ...]] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)  # recipient -> message id

    def known_to(self, candidate: Candidate) -> Candidate:
        """The candidate with what is ahead of it."""
        facts = candidate.facts
        sent, partner_message = self.sent.get(facts.recipient_id), self.served.get(candidate.partner or "")
        if sent is None and partner_message is None:
            return candidate
        more = facts.sent + (sent or ())
        return replace(candidate, facts=replace(facts, sent=more, partner_message=facts.partner_message or partner_message))

    def note(self, entry: Entry, offer_type: str | None, now: datetime) -> None:
        """Take a claim-to-be down."""
        person = entry.candidate.facts.recipient_id
        if entry.channel is not None and offer_type is not None:
            self.sent[person] = (*self.sent.get(person, ()), Sent(0, now, entry.channel, offer_type))
        if entry.candidate.partner is not None:
            self.served[person] = str(entry.candidate.ref)


def prepare_all(
    house: House, chunk: Chunk, batch: Sequence[Candidate], stopped: Mapping[Channel, str], ahead: Ahead | None = None
) -> list[Prepared]:
    """Decide and write a batch, one after the other: each sees those before it, here and in what was `ahead`."""
    ahead, spec = ahead or Ahead(), chunk.spec
    alone = spec.route == "first" and not spec.one_per_household  # then no message bears on another of the campaign
    prepared: list[Prepared] = []
    for candidate in batch:
        item = prepare(house, chunk, candidate if alone else ahead.known_to(candidate), stopped)
        prepared.append(item)
        if not alone and item.entry.state is State.CLAIMED:
            ahead.note(item.entry, spec.offer_type, house.clock())
    return prepared


def prepare(house: House, chunk: Chunk, candidate: Candidate, stopped: Mapping[Channel, str]) -> Prepared:
    """Decide one message and, if it may leave, write it. Reaches out to nothing."""
    now = house.clock()
    job = job_of(house, chunk, candidate)
    decision = decide(job, candidate.facts, house.policy, now)
    kept = record(decision, candidate.facts, house.policy, job, _used(house, job, decision))
    if isinstance(decision, Refuse):
        code = decision.headline.code
        return Prepared(Entry(candidate, STATE_OF.get(code, State.REFUSED), candidate.fixed, code, None, kept))
    if isinstance(decision, Hold):
        return Prepared(Entry(candidate, State.HELD, candidate.fixed, decision.headline.code, decision.until, kept))
    leg = decision.legs[0]
    if leg.channel in stopped:
        until = now + timedelta(seconds=house.policy.retry.stopped_seconds)
        return Prepared(Entry(candidate, State.WAITING, leg.channel, stopped[leg.channel], until, kept))
    try:
        content = house.catalog[template_of(house, chunk, candidate)].render(letter_of(house, chunk, candidate, leg))
    except ContentRefusal as refusal:
        refused = {**kept, "content": {"code": refusal.code, "where": refusal.variable}}
        return Prepared(Entry(candidate, State.REFUSED, leg.channel, refusal.code, None, refused))
    entry = Entry(candidate, State.CLAIMED, leg.channel, None, None, kept)
    sender = house.policy.entities[job.entity].senders.get(leg.channel, "")
    return Prepared(entry, tuple(outbounds(chunk, candidate, leg.channel, content, now, sender)))


def _used(house: House, job: Job, decision: Decision) -> frozenset[str] | None:
    """The data categories that the text asks for, where there will be one."""
    return _categories(house.catalog[job.brief.template], decision.legs[0].mode) if isinstance(decision, Send) else None


@lru_cache(maxsize=256)  # templates by modes
def _categories(template: Template, mode: Mode) -> frozenset[str]:
    return template.categories(mode)


def template_of(house: House, chunk: Chunk, candidate: Candidate) -> str:
    """What this person's message is written from."""
    spec = chunk.spec
    if not spec.variants:
        return spec.template
    return variant_of(house.policy.holdout_salt, spec.variants, chunk.campaign_id or "", candidate.facts.recipient_id)


def job_of(house: House, chunk: Chunk, candidate: Candidate) -> Job:
    """The job as the policy sees it. A leg asks for its own channel only; a later leg for those that were not tried yet."""
    spec = chunk.spec
    channels = spec.after(candidate.tried[-1]) if candidate.tried else spec.channels
    template = house.catalog[template_of(house, chunk, candidate)]
    return Job(
        id=str(candidate.ref),
        recipient_id=candidate.facts.recipient_id,
        entity=spec.entity,
        brief=template.brief,
        channels=channels if candidate.fixed is None else (candidate.fixed,),
        campaign_id=chunk.campaign_id,
        expires_at=spec.expires_at,
        holdout_percent=spec.holdout_percent,
        approval=chunk.approved.get(template.digest),
    )


def letter_of(house: House, chunk: Chunk, candidate: Candidate, leg: Leg) -> Letter:
    """All that the rendering may know: only the data categories that the decision allows."""
    entity, facts = house.policy.entities[chunk.spec.entity], candidate.facts
    unsubscribe = ref_token(house.secret, UNSUBSCRIBE, candidate.ref)
    preferences = ref_token(house.secret, PREFERENCES, candidate.ref)
    return Letter(
        channel=leg.channel,
        language=facts.language,
        mode=leg.mode,
        categories=leg.categories,
        data=candidate.data,
        profile=facts.profile,
        sender=Sender(entity.names[facts.language], entity.sender_address),
        links=Links(f"{house.public_url}/u/{unsubscribe}", f"{house.public_url}/p/{preferences}"),
    )


def outbounds(
    chunk: Chunk, candidate: Candidate, channel: Channel, content: Content, now: datetime, sender: str
) -> Iterator[Outbound]:
    """What is handed over: a push once per device that may show it, anything else once. `sender` is "" for the account's own."""
    ttl_seconds, flow = _ttl_seconds(chunk.spec, now), chunk.campaign_id or ""
    if isinstance(content, Push) and chunk.spec.collapse_key:
        content = replace(content, options=replace(content.options, collapse_key=chunk.spec.collapse_key))
    for address in addresses(candidate.facts, channel):
        yield Outbound(str(candidate.ref), channel, address, content, ttl_seconds, flow, sender)


def _ttl_seconds(spec: Spec, now: datetime) -> int | None:
    """How long a provider may go on trying: as long as the campaign says, and never beyond its end."""
    left = int((spec.expires_at - now).total_seconds()) if spec.expires_at else None
    return min((seconds for seconds in (left, spec.ttl_seconds) if seconds is not None), default=None)


def addresses(facts: Facts, channel: Channel) -> list[str]:
    """Where this channel reaches the person."""
    if channel is Channel.PUSH:
        return [device.token for device in facts.devices if device.permission]
    address = facts.address(channel)
    return [address] if address else []


# -- send --------------------------------------------------------------------------------------------------------------


def send(house: House, won: Sequence[Prepared]) -> Mapping[str, list[tuple[Outbound, Result]]]:
    """Hand over what was won, a provider at a time; what came back, by message id."""
    by_channel: dict[Channel, list[Outbound]] = defaultdict(list)
    for item in won:
        for outbound in item.outbounds:
            by_channel[outbound.channel].append(outbound)
    results: dict[str, list[tuple[Outbound, Result]]] = defaultdict(list)
    for channel, waiting in by_channel.items():
        for outbound, result in house.providers[channel].send(waiting):
            results[outbound.id].append((outbound, result))
    return results


# -- conclude and settle -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Concluded:
    """One message's outcome, and the addresses (devices, for a push) that turned out to be dead."""

    candidate: Candidate
    channel: Channel
    provider: str
    outcome: Outcome
    dead_addresses: tuple[str, ...]

    @property
    def settlement(self) -> Settlement:
        """The outcome as the ledger takes it."""
        outcome = self.outcome
        return Settlement(
            self.candidate.ref, outcome.state, outcome.reason, outcome.until, outcome.receipt, self.provider, outcome.attempt_spent
        )


def conclude_all(
    house: House, chunk: Chunk, won: Sequence[Prepared], results: Mapping[str, list[tuple[Outbound, Result]]]
) -> list[Concluded]:
    """What follows for each message from what its provider said."""
    now = house.clock()
    concluded = []
    for item in won:
        candidate, channel = item.entry.candidate, item.entry.channel
        assert channel is not None  # noqa: S101  a claimed entry has one
        answers = results[str(candidate.ref)]
        outcome = conclude(fold([result for _, result in answers]), candidate.attempts, now, house.dice, house.policy.retry)
        if outcome.until is None and (until := fallback_at(chunk.spec, channel, outcome.state, now)) is not None:
            outcome = replace(outcome, until=until)
        dead = tuple(outbound.address for outbound, result in answers if isinstance(result, BadAddress))
        concluded.append(Concluded(candidate, channel, house.providers[channel].name, outcome, dead))
    return concluded


def settle(house: House, chunk: Chunk, concluded: Sequence[Concluded]) -> None:
    """Write outcomes down. Receipts in hand are worth waiting for: a ledger that went away is asked again for a while."""
    waited_seconds = 0.0
    while True:
        try:
            with lend(house.pool) as connection:
                return settle_once(house, chunk, connection, concluded)
        except LedgerUnavailable:
            if waited_seconds >= house.limits.settle_patience_seconds:
                raise
        house.pause(1.0)
        waited_seconds += 1.0


def settle_once(house: House, chunk: Chunk, connection: Connection, concluded: Sequence[Concluded]) -> None:
    """States first, in one statement; then the rare consequences: dead addresses, stopped channels, and opt-outs, whose
    acknowledgement the clock puts on the broker.
    """
    now = house.clock()
    claims.settle(connection, [item.settlement for item in concluded], now)
    for item in concluded:
        facts, outcome = item.candidate.facts, item.outcome
        if item.channel is Channel.PUSH:
            side_effects.drop_devices(connection, facts.recipient_id, item.dead_addresses, now)
        elif outcome.suppress:
            side_effects.suppress(connection, house.secret, facts, outcome, item.channel, item.provider, now)
        side_effects.rest(connection, house.policy, facts.recipient_id, item.channel, outcome.reason, now)
        if outcome.opt_out:
            side_effects.opt_out(
                house, connection, facts.recipient_id, item.channel, item.provider, outcome.reason or "", chunk.spec.entity
            )
        if outcome.stop_channel:
            stopped_channels.stop(connection, item.channel, item.provider, outcome.reason or "", now)
