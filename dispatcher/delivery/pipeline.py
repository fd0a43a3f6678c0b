"""The steps of a chunk: gather, decide, render, claim, send, conclude, settle. Read `process_batch` from top to bottom.

A task may have several chunks of one campaign: the last messages of one travel while the next is decided.

A worker may be killed, frozen or cut off after any line. Before the claim commits nothing has happened. After it, each hand-off
first checks the claim's deadline (`hand_off`). Only a worker that gives the claim number can settle (`settlement`). When a claim
expires, its messages become `pending` if nothing was sent, else `unresolved`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import groupby

import structlog
from structlog.contextvars import bind_contextvars

from channels.alerts import alert
from channels.base import Channel, Content, Outbound, Push
from channels.overlap import Overlap
from dispatcher.content import ContentRefusal, RenderRequest, Template, take_render_counts
from dispatcher.delivery.approval_check import not_approved_text, unapproved
from dispatcher.delivery.batch_metrics import record_claim, record_hand_off, record_outcomes
from dispatcher.delivery.fallback import channels_after
from dispatcher.delivery.hand_off import PreparedMessage, hand_off, send_window_for_claim
from dispatcher.delivery.planned_sends import PlannedSends, may_interact
from dispatcher.delivery.senders import message_sender, text_sender
from dispatcher.delivery.settlement import conclude_all, settle
from dispatcher.delivery.token_links import TokenLinks
from dispatcher.delivery.whatsapp_texts import allowed_texts, content_sids, with_content_sid
from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.domain.decision import Decision, Hold, Permission, ReasonCode, Refuse, Send
from dispatcher.domain.decision_skeleton import with_content
from dispatcher.domain.errors import WorkerDraining
from dispatcher.domain.message import Job, Kind, Mode, State
from dispatcher.domain.recipient import Facts
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import claims, pace, scheduling
from dispatcher.ledger.delivery.candidates import Candidate, gather
from dispatcher.ledger.delivery.cap_reservations import NO_LIMITS, SendLimits
from dispatcher.ledger.delivery.chunks import Chunk, find_chunk
from dispatcher.ledger.delivery.claims import CampaignGate, Claim, ClaimEntry
from dispatcher.ledger.delivery.unresolved import RESTORED
from dispatcher.policy import decide, record, variant_of
from dispatcher.policy.compact_record import compact
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable
from dispatcher.runtime.tracing import span

log = structlog.get_logger()

DECISION_SECONDS_MAX = 1.0  # from a decision to its claim

STATE_BY_REASON: Mapping[str, State] = {
    ReasonCode.EXPIRED: State.EXPIRED,
    ReasonCode.GLOBAL_CONTROL_GROUP: State.HELD_OUT,
    ReasonCode.HELD_OUT: State.HELD_OUT,
}


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What the chunks of one task share: when it ends, the batches on their way, and the channels that stopped meanwhile."""

    end: float
    sends: Overlap
    stopped_channels: dict[Channel, str] = field(default_factory=dict)


def run_chunk(services: Services, period: int, number: int) -> Chunk | None:
    """Decide and send what is left of one chunk, see `run_chunks`. Returns it, or None where there is none of this number."""
    return run_chunks(services, period, [number])


def _never(_number: int) -> bool:
    return False


def run_chunks(
    services: Services, period: int, numbers: Sequence[int], is_superfluous: Callable[[int], bool] = _never
) -> Chunk | None:
    """Decide and send what is left of these chunks of one campaign, or of a trigger's chunk, for at most `chunk_seconds` together.

    What was not begun, or not finished in that time, is put back. A message whose recipient changes again and again is left after
    `decide_rounds_max` rounds: its chunk is published again once nobody has worked on it for a lease (`scheduling.take_due`).
    `is_superfluous` is asked before each chunk. Safe to repeat and to run twice at the same time, because of the claim.

    A campaign pauses itself where the template version that it was accepted with is not approved any more, or can't be loaded;
    nothing of it is lost. A trigger is refused then.
    A chunk of a campaign with a rate whose turn has not come is put back.
    Returns the last chunk that there is, or None. Raises `LedgerUnavailable`, and `WorkerDraining` between two batches; then all
    are tried again.
    """
    run = TaskRun(services.monotonic_clock() + services.limits.chunk_seconds, Overlap(services.limits.in_flight_max))
    last: Chunk | None = None
    left, decided = list(numbers), list[Chunk]()
    with run.sends:
        while left:
            chunk = None if is_superfluous(left[0]) else _find(services, period, left[0])
            if chunk is not None:
                last = chunk
                if not _run_one(services, chunk, run):
                    break
                decided.append(chunk)
            del left[0]
    _end(services, period, decided, left)
    return last


def _find(services: Services, period: int, number: int) -> Chunk | None:
    with lend(services.pool) as connection:
        return find_chunk(connection, period, number)


def _end(services: Services, period: int, decided: Sequence[Chunk], left: Sequence[int]) -> None:
    """Once all is settled: close the chunks that are done, and put back the others."""
    if not decided and not left:
        return
    with lend(services.pool) as connection:
        for chunk in decided:
            scheduling.close(connection, chunk, services.clock())
        if left:
            scheduling.put_back(connection, period, left)


def _chunk_attributes(chunk: Chunk) -> Mapping[str, str | int]:
    numbers = {"dispatcher.period": chunk.period, "dispatcher.chunk": chunk.number}
    return numbers if chunk.campaign_id is None else {**numbers, "dispatcher.campaign": chunk.campaign_id}


def _run_one(services: Services, chunk: Chunk, run: TaskRun) -> bool:
    """Decide the messages of one chunk and start to send them. False where it has to stop before all are decided."""
    bind_contextvars(campaign=chunk.campaign_id, period=chunk.period, chunk=chunk.number)  # of every line until the next chunk
    if chunk.campaign_no is None:
        bind_contextvars(message=str(chunk.ref(0, 0)))
    with span("chunk", _chunk_attributes(chunk)):
        return _may_start(services, chunk) and _decide_all(services, chunk, run)


def _may_start(services: Services, chunk: Chunk) -> bool:
    # Stop here if the campaign is not running. It could start later, after its approval was withdrawn, and this worker would still
    # use the approval it read above.
    if chunk.campaign_state not in (None, CampaignState.RUNNING) or not may_use_templates(services, chunk):
        return False
    if chunk.spec.rate_per_second is None or chunk.campaign_state is not CampaignState.RUNNING:
        return True
    with lend(services.pool) as connection:
        return pace.try_start(connection, chunk, services.clock())


def _decide_all(services: Services, chunk: Chunk, run: TaskRun) -> bool:
    """Decide until no recipient has changed meanwhile. False where the campaign may not go on, or the time is over."""
    run.stopped_channels.update(chunk.stopped_channels)
    rows_to_decide: frozenset[int] | None = None
    for _ in range(services.limits.decide_rounds_max):
        with span("gather"), lend(services.pool) as connection:
            candidates = gather(connection, chunk, rows_to_decide, send_limits(services, chunk))
        changed: set[int] = set()
        for batch in batches(candidates, services.limits.batch(chunk.spec.channels)):
            _require_not_draining(services)
            claim = process_batch(services, chunk, batch, run)
            if claim.gate is CampaignGate.CLOSED or services.monotonic_clock() >= run.end:
                return False
            changed |= claim.changed
            run.sends.poll()
        if not changed:
            break
        rows_to_decide = frozenset(changed)
        # Reload the trigger's chunk: its approval may have been withdrawn. (A campaign would be paused instead.)
        if chunk.campaign_no is None:
            with lend(services.pool) as connection:
                chunk = find_chunk(connection, chunk.period, chunk.number) or chunk
    return True


def _require_not_draining(services: Services) -> None:
    if services.is_draining():
        raise WorkerDraining


def may_use_templates(services: Services, chunk: Chunk) -> bool:
    """Whether the chunk's templates can be loaded and, for a campaign, are approved. If not, the campaign is paused, or the trigger
    refused. The approval of a trigger is looked at when it is decided."""
    try:
        templates = load_versions(services, chunk)
    except TemplateUnavailable as error:
        _pause_or_refuse(services, chunk, str(error))
        return False
    if chunk.campaign_no is None or not (waiting := unapproved(templates, services.policy, chunk.approved)):
        return True
    note = f"paused itself: {not_approved_text(waiting[0])}"
    with lend(services.pool) as connection:
        lifecycle.pause_with_note(connection, chunk.campaign_no, note, services.clock())
    return False


def load_versions(services: Services, chunk: Chunk) -> list[Template]:
    """The chunk's templates, each in the version that it was accepted with. Raises `TemplateUnavailable`.

    Once this process has the versions in memory, this costs no statement.
    """
    _load(services, chunk)
    for name in chunk.spec.templates:
        if name not in chunk.digests and name not in services.catalog:
            raise TemplateUnavailable(f"there is no template {name}")
    return [template_in(services, chunk, name) for name in chunk.spec.templates]


def template_in(services: Services, chunk: Chunk, name: str) -> Template:
    """A template in the version that the chunk was accepted with; where none was named, the one in the folder."""
    digest = chunk.digests.get(name)
    if digest is None:
        return services.catalog[name]
    return services.versions.get(digest) or _load(services, chunk)[digest]


def _load(services: Services, chunk: Chunk) -> Mapping[str, Template]:
    return services.versions.load(services.pool, services.policy, services.catalog, chunk.digests)


def _pause_or_refuse(services: Services, chunk: Chunk, reason: str) -> None:
    """Pause the campaign, or refuse the trigger: its template can't be loaded, and another version must not be sent instead."""
    alert("templates", "unavailable")
    log.error("a template can't be loaded", campaign=chunk.campaign_id, period=chunk.period, chunk=chunk.number, reason=reason)
    now = services.clock()
    with lend(services.pool) as connection:
        if chunk.campaign_no is not None:
            lifecycle.pause_with_note(connection, chunk.campaign_no, f"paused itself: {reason}", now)
            return
        spec = chunk.spec
        document = {
            "policy": services.policy.digest,
            "is": "refuse",
            "job": [spec.entity, spec.template, spec.kind, spec.offer_type],
            "reasons": [[ReasonCode.FAULT, "template", chunk.digests.get(spec.template, ""), *spec.channels]],
            "content": {"code": ReasonCode.FAULT, "where": reason},
        }
        entries = [
            ClaimEntry(candidate, State.REFUSED, candidate.fixed, ReasonCode.FAULT, None, document)
            for candidate in gather(connection, chunk)
        ]
        claims.claim(connection, chunk, entries, now)
        scheduling.close(connection, chunk, now)


def batches(candidates: Sequence[Candidate], size: int) -> Iterator[list[Candidate]]:
    """Candidates in batches of about `size`. The legs of one job stay in one batch, so that they are claimed together."""
    batch: list[Candidate] = []
    for _, legs in groupby(candidates, key=lambda candidate: candidate.ref.row):
        batch += legs
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def process_batch(services: Services, chunk: Chunk, batch: Sequence[Candidate], run: TaskRun) -> Claim:
    """Decide, render and claim one batch, and start to send it. The rest, `send_claimed`, goes on while `run.sends` is polled."""
    take_render_counts()  # what the checks of templates rendered is no message
    size = {"messaging.batch.message_count": len(batch)}
    with span("decide and render", size):
        prepared = _prepare_and_make_room(services, chunk, batch, run)
    entries, limits, approval = [item.entry for item in prepared], send_limits(services, chunk), _trigger_approval(services, chunk)
    deadline = services.monotonic_clock() + services.limits.send_deadline_seconds  # from before the claim, which may wait for locks
    seen = services.ledger_watch.last_claim()
    with span("claim", size) as traced, lend(services.pool) as connection:
        claim = claims.claim(connection, chunk, entries, services.clock(), limits, approval)
        if not services.ledger_watch.note_claim(connection, seen, claim, services.clock()):
            return Claim(CampaignGate.CLOSED)  # another claim had this number: the ledger was restored, and is held now
        traced.set_attribute("dispatcher.claim", claim.number)
    claimed = [item for item in prepared if item.entry.candidate.ref in claim.claimed]
    record_claim(chunk.spec.kind, [item.entry for item in prepared], claim)
    if claimed:
        send = partial(send_claimed, services, chunk, claimed, claim.number, deadline, run.stopped_channels)
        run.sends.start(send, len(claimed))
    return claim


def _prepare_and_make_room(services: Services, chunk: Chunk, batch: Sequence[Candidate], run: TaskRun) -> list[PreparedMessage]:
    """Decide and render while earlier batches travel, then wait until this one may follow.

    What changes during the wait is looked at again: a quiet hour or an expiry may have come, a channel may have stopped. The claim
    looks at the rest.
    """
    stopped, decided_at = len(run.stopped_channels), services.monotonic_clock()
    prepared = prepare_all(services, chunk, batch, run.stopped_channels)
    run.sends.make_room(len(batch))
    if len(run.stopped_channels) > stopped or services.monotonic_clock() - decided_at > DECISION_SECONDS_MAX:
        prepared = prepare_all(services, chunk, batch, run.stopped_channels)
    return [_unresolved_if_restored(item) for item in prepared]


def send_claimed(
    services: Services,
    chunk: Chunk,
    claimed: Sequence[PreparedMessage],
    claim_number: int,
    deadline: float,
    stopped_channels: dict[Channel, str],
) -> None:
    """Hand off the messages of one claim and settle it. No connection is held during provider calls. Adds channels that stop."""
    window = send_window_for_claim(services, claim_number, deadline)
    started = services.monotonic_clock()
    hand_off_result = hand_off(services.providers, claimed, window)
    record_hand_off(chunk.spec.kind, window, started, services)
    concluded = conclude_all(services, chunk.spec, claimed, hand_off_result.results)
    with span("settle", {"dispatcher.claim": claim_number, "messaging.batch.message_count": len(concluded)}):
        settle(services, chunk.spec.entity, claim_number, concluded)
    record_outcomes(chunk.spec.kind, concluded)
    stopped_channels |= {item.channel: item.outcome.reason or "" for item in concluded if item.outcome.stop_channel}
    if hand_off_result.interruption is not None:
        raise hand_off_result.interruption


def _unresolved_if_restored(item: PreparedMessage) -> PreparedMessage:
    """What may have been sent in the time that a restore lost becomes unresolved. While it is held, it stays marked."""
    entry = item.entry
    if not entry.candidate.may_be_sent or entry.state not in (State.CLAIMED, State.HELD, State.WAITING):
        return item
    state = State.UNRESOLVED if entry.state is State.CLAIMED else entry.state
    return PreparedMessage(replace(entry, state=state, reason=RESTORED))


def _trigger_approval(services: Services, chunk: Chunk) -> int | None:
    """The approval that a trigger's template was decided with; None for campaigns and where no approval is needed."""
    template = template_in(services, chunk, chunk.spec.template)
    if chunk.campaign_no is not None or template.info.kind is not Kind.COMMERCIAL:
        return None
    return chunk.approved.get(template.digest)


# -- decide and render -------------------------------------------------------------------------------------------------


def send_limits(services: Services, chunk: Chunk) -> SendLimits:
    """What limits the messages of the chunk: frequency caps and, in a campaign, one message per address. Service messages are
    exempt."""
    if chunk.spec.kind is not Kind.COMMERCIAL:
        return NO_LIMITS
    return SendLimits(
        services.policy.caps_since(services.clock()), services.policy.one_per_address and chunk.campaign_no is not None
    )


def prepare_all(
    services: Services,
    chunk: Chunk,
    batch: Sequence[Candidate],
    stopped_channels: Mapping[Channel, str],
    planned: PlannedSends | None = None,
) -> list[PreparedMessage]:
    """Decide and render a batch in order: each candidate sees the planned sends before it, in this batch and in `planned`."""
    planned, spec = planned or PlannedSends(), chunk.spec
    interact = may_interact(spec)
    prepared: list[PreparedMessage] = []
    for candidate in batch:
        item = prepare(services, chunk, planned.add_to(candidate, spec.channels) if interact else candidate, stopped_channels)
        prepared.append(item)
        if interact and item.entry.state is State.CLAIMED:
            planned.note(item.entry, spec.offer_type, services.clock())
    return prepared


def prepare(services: Services, chunk: Chunk, candidate: Candidate, stopped_channels: Mapping[Channel, str]) -> PreparedMessage:
    """Decide one message and, if it may be sent, render it. Does no input or output."""
    now = services.clock()
    job = job_of(services, chunk, candidate)
    decision = decide(job, candidate.facts, services.policy, now)
    template = template_in(services, chunk, job.info.template)
    write = compact if services.compact_records else record
    document = write(decision, candidate.facts, services.policy, job, _used(template, decision))
    if isinstance(decision, Refuse):
        code = decision.headline.code
        return PreparedMessage(
            ClaimEntry(candidate, STATE_BY_REASON.get(code, State.REFUSED), candidate.fixed, code, None, document)
        )
    if isinstance(decision, Hold):
        return PreparedMessage(ClaimEntry(candidate, State.HELD, candidate.fixed, decision.headline.code, decision.until, document))
    permission = decision.permissions[0]
    if permission.channel in stopped_channels:
        until = now + timedelta(seconds=services.policy.retry.stopped_seconds)
        return PreparedMessage(
            ClaimEntry(candidate, State.WAITING, permission.channel, stopped_channels[permission.channel], until, document)
        )
    try:
        content = template.render(request_for(services, chunk, candidate, permission))
        if permission.channel is Channel.WHATSAPP:
            sids = content_sids(template, chunk.whatsapp, services.whatsapp_account)
            content = with_content_sid(content, sids, candidate.facts.language, template.render_mode(permission.mode))
        sender = text_sender(chunk.spec, services.policy.entities[job.entity], permission.channel)
    except ContentRefusal as refusal:
        refused = with_content(document, refusal.code, refusal.variable)
        return PreparedMessage(ClaimEntry(candidate, State.REFUSED, permission.channel, refusal.code, None, refused))
    entry = ClaimEntry(candidate, State.CLAIMED, permission.channel, None, None, document)
    return PreparedMessage(entry, tuple(outbounds(chunk, candidate, permission.channel, content, now, sender)))


def _used(template: Template, decision: Decision) -> frozenset[str] | None:
    """The data categories that the text uses, where a text will be rendered."""
    return _categories(template, decision.permissions[0].mode) if isinstance(decision, Send) else None


@lru_cache(maxsize=256)  # templates by modes
def _categories(template: Template, mode: Mode) -> frozenset[str]:
    return template.categories(mode)


def template_of(services: Services, chunk: Chunk, candidate: Candidate) -> str:
    """The template of this person's message."""
    spec = chunk.spec
    if not spec.variants:
        return spec.template
    return variant_of(services.policy.holdout_salt, spec.variants, chunk.campaign_id or "", candidate.facts.recipient_id)


def job_of(services: Services, chunk: Chunk, candidate: Candidate) -> Job:
    """The job as the policy sees it.

    A leg that was tried before keeps its channel. A new fallback leg may use the channels after the last one tried.
    """
    spec = chunk.spec
    channels = channels_after(spec, candidate.tried[-1]) if candidate.tried else spec.channels
    template = template_in(services, chunk, template_of(services, chunk, candidate))
    return Job(
        id=str(candidate.ref),
        recipient_id=candidate.facts.recipient_id,
        entity=spec.entity,
        info=template.info,
        channels=channels if candidate.fixed is None else (candidate.fixed,),
        campaign_id=chunk.campaign_id,
        expires_at=spec.expires_at,
        holdout_percent=spec.holdout_percent,
        approval=chunk.approved.get(template.digest),
        whatsapp_texts=allowed_texts(template, chunk.whatsapp, services.whatsapp_account),
    )


def request_for(services: Services, chunk: Chunk, candidate: Candidate, permission: Permission) -> RenderRequest:
    """All that the rendering may use: only the data categories that the decision allows."""
    entity, facts = services.policy.entities[chunk.spec.entity], candidate.facts
    return RenderRequest(
        channel=permission.channel,
        language=facts.language,
        mode=permission.mode,
        categories=permission.categories,
        data=candidate.data,
        profile=facts.profile,
        sender=message_sender(chunk.spec, entity, facts.language, services.public_url),
        links=TokenLinks(services.secret, services.public_url, candidate.ref),
    )


def outbounds(
    chunk: Chunk, candidate: Candidate, channel: Channel, content: Content, now: datetime, sender: str
) -> Iterator[Outbound]:
    """What is handed off: a push once per device that may show it, other messages once. `sender` "" means the account's own."""
    ttl_seconds, flow = _ttl_seconds(chunk.spec, now), chunk.campaign_id or ""
    if isinstance(content, Push) and chunk.spec.collapse_key:
        content = replace(content, options=replace(content.options, collapse_key=chunk.spec.collapse_key))
    for address in addresses(candidate.facts, channel):
        yield Outbound(str(candidate.ref), channel, address, content, ttl_seconds, flow, sender)


def _ttl_seconds(spec: Spec, now: datetime) -> int | None:
    """How long a provider may try: as long as the campaign says, and not beyond its expiry."""
    left = int((spec.expires_at - now).total_seconds()) if spec.expires_at else None
    return min((seconds for seconds in (left, spec.ttl_seconds) if seconds is not None), default=None)


def addresses(facts: Facts, channel: Channel) -> list[str]:
    """The person's addresses on this channel."""
    if channel is Channel.PUSH:
        return [device.token for device in facts.devices if device.permission]
    address = facts.address(channel)
    return [address] if address else []
