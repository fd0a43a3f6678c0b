"""Provider events: store what webhooks bring, and apply it in batches to messages and to people's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from channels.base import Channel, Event, EventKind
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery import side_effects
from dispatcher.delivery.fallback import fallback_at, fallback_seconds
from dispatcher.delivery.outcomes import after_provider_event, event_effect
from dispatcher.delivery.retries import retry_at
from dispatcher.delivery.side_effects import OPT_OUT_REASONS, ProviderOptOut
from dispatcher.domain import addresses
from dispatcher.domain.campaign_results import DELIVERED, Measure
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import MessageStatus, State
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.campaigns import report_counts
from dispatcher.ledger.campaigns.report_counts import CountedReport
from dispatcher.ledger.connection import Connection, DatabaseError, lend
from dispatcher.ledger.consent import address_keys, recipients, suppressions
from dispatcher.ledger.consent.address_keys import Address
from dispatcher.ledger.delivery import scheduling, unresolved
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.inbound import provider_events, soft_bounces
from dispatcher.ledger.inbound.provider_events import EventKey, PendingEvent, StatusChange
from dispatcher.ledger.inbound.soft_bounces import DeliverySignal
from dispatcher.ledger.maintenance import alerts, stopped_channels
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy
from dispatcher.policy.data import RetryPolicy
from dispatcher.runtime.metric_families import MESSAGES, NONE, PROVIDER_EVENT_LAG
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services
from dispatcher.runtime.tracing import span

BATCH = 1_000
APPLY_TASK = "settle_events"
APPLY_AGAIN_AFTER = timedelta(minutes=1)  # then its broker message counts as lost; the sweep applies events all the same
NOT_APPLIED = "event_not_applied"  # the code of the alert
UNMATCHED = "unmatched:"  # how the code of the alert begins: an event of which no message, person or address of ours was found

# Errors that one event can cause: the other events are applied all the same. Any other error ends the batch, as does the time
# limit of a task: neither comes from the event.
EVENT_ERRORS = (DatabaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
Errors = dict[EventKey, Exception]  # the events that could not be applied this time

log = structlog.get_logger()

KINDS_PROVING_ADDRESS = frozenset({EventKind.DELIVERED, EventKind.READ, EventKind.ENGAGED})  # these show that an address works


def store_events(services: Services, events: Sequence[Event]) -> int:
    """Store the events of a webhook call. Returns how many events were new. `apply_batch` applies them.

    Of an address, only the keyed hash is stored, and only where the event names no message of ours.
    """
    now = services.clock()
    for event in events:
        RECORDER.observe(PROVIDER_EVENT_LAG, (max(0.0, (now - event.at).total_seconds()),), (event.provider,))
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            named = [_address(event) for event in events]
            keys = address_keys.in_use(connection, services.secret, {address for address in named if address})
            return provider_events.store(connection, events, now, [keys[address] if address else None for address in named])


def _address(event: Event) -> Address | None:
    """The address that an event names, in normal form; None where there is none or it cannot be read."""
    if event.address is None or event.channel is Channel.PUSH:
        return None
    try:
        is_mail = event.channel is Channel.EMAIL
        normal = addresses.reported_email(event.address) if is_mail else addresses.phone(event.address)
    except addresses.InvalidAddress:
        return None
    return event.channel, normal


def should_publish_apply_task(services: Services) -> bool:
    """Whether to publish the task that applies events, marked as published: not while one waits on the broker.

    The events must be committed before.
    """
    with lend(services.pool) as connection:
        return scheduling.mark_task_published(connection, APPLY_TASK, services.clock(), APPLY_AGAIN_AFTER)


def mark_apply_task_started(services: Services) -> None:
    """Record that the task that applies events has started. Events that come from now on publish another one."""
    with lend(services.pool) as connection:
        scheduling.mark_task_started(connection, APPLY_TASK)


def any_pending(services: Services) -> bool:
    """Whether an event waits to be applied."""
    with lend(services.pool) as connection:
        return provider_events.any_unapplied(connection, services.clock())


def apply_batch(services: Services, publish: Publish) -> int:
    """Apply the oldest events not yet applied, and acknowledge the opt-outs among them. Returns how many events there were.

    1. Apply each event to the person, each in its own transaction; an opt-out locks the person first, as all code does.
    2. Apply all events to their messages.

    Order does not matter: states only move forward. Applying an event twice does not matter either, so no lock is held for long.
    An event that cannot be applied is tried again later, and delays no other.
    """
    now = services.clock()
    with lend(services.pool) as connection:
        batch, errors = provider_events.unapplied(connection, BATCH, now)
        tried = len(batch) + len(errors)
        signals = [
            DeliverySignal(event.channel, event.address_key, event.at)
            for event in batch
            if event.kind in KINDS_PROVING_ADDRESS and event.address_key
        ]
        _reset_soft_bounces(connection, signals)
        acknowledgement_chunks = _apply_to_people(services, connection, batch, errors, now)
        _reset_soft_bounces(connection, signals)  # also those counted from this batch
        _apply_to_messages(services, connection, [event for event in batch if event.key not in errors], errors)
        _defer(connection, errors, now)
    acknowledgement.publish_acknowledgements(publish, *acknowledgement_chunks)
    return tried


def _apply_to_people(
    services: Services, connection: Connection, batch: Sequence[PendingEvent], errors: Errors, now: datetime
) -> list[DueChunk]:
    """Apply what the events say of people, each in a transaction of its own. Returns the acknowledgements that are due."""
    context = ValidationContext(services.catalog, services.policy, now)
    acknowledgement_chunks: list[DueChunk] = []
    concerned = [event for event in batch if _concerns_person(services.policy, event)]
    if concerned:
        ensure_period(connection, period_of(now))  # before the transactions: an acknowledgement is written in them
    for event in concerned:
        try:
            with connection.transaction():
                acknowledgement_chunks += _apply_to_person(connection, services.secret, context, event)
        except EVENT_ERRORS as error:
            if connection.closed:
                raise
            errors[event.key] = error
    return acknowledgement_chunks


def _concerns_person(policy: Policy, event: PendingEvent) -> bool:
    """Whether the event says anything of a person, an address or the channel. Most do not: they are deliveries."""
    effect = event_effect(event.kind)
    says = effect.suppress or effect.lift or effect.opt_out or event.soft_bounce_limit is not None
    somebody = event.recipient_id is not None or event.address_key is not None
    return effect.stop_channel or (somebody and (says or side_effects.is_cool_down(policy, event.channel, event.code)))


def _apply_to_messages(services: Services, connection: Connection, batch: Sequence[PendingEvent], errors: Errors) -> None:
    """Apply the events to their messages and mark them as applied: all at once or, where that fails, one by one."""
    if not batch:
        return
    try:
        _apply_together(services, connection, batch)
    except EVENT_ERRORS as error:
        if connection.closed:
            raise
        if len(batch) == 1:
            errors[batch[0].key] = error
            return
        for event in batch:
            _apply_to_messages(services, connection, [event], errors)


def _apply_together(services: Services, connection: Connection, batch: Sequence[PendingEvent]) -> None:
    now = services.clock()
    with connection.transaction():
        changes = _change_messages(connection, services.policy.retry, services.random, batch, now)
        unmatched = [event for event in batch if event.state is None and not _concerns_person(services.policy, event)]
        provider_events.mark_applied(connection, batch, {event.key for event in unmatched}, now)
        counts = Counter((event.provider, event.code or event.kind) for event in unmatched)
        for (provider, code), count in sorted(counts.items()):  # in one order: no deadlocks
            alerts.note(connection, provider, f"{UNMATCHED}{code}", True, now, count)
    _record(batch, changes)
    _trace(batch)


def _trace(batch: Sequence[PendingEvent]) -> None:
    """A span in the trace of each campaign or trigger that the events are about."""
    by_trace: dict[str, list[PendingEvent]] = {}
    for event in batch:
        if event.trace is not None:
            by_trace.setdefault(event.trace, []).append(event)
    for trace, events in by_trace.items():
        attributes: dict[str, str | int | list[str]] = {
            "messaging.batch.message_count": len(events),
            "messaging.system": events[0].provider,
            "dispatcher.event_kinds": sorted({str(event.kind) for event in events}),
        }
        if len(events) == 1:
            attributes["messaging.message.id"] = str(events[0].ref)
        with span("delivery report", attributes, parent=trace):
            pass


def _record(batch: Sequence[PendingEvent], changes: Mapping[MessageId, StatusChange]) -> None:
    """Count the new states. Reasons of events are providers' codes: an open set, so no label."""
    channels = {event.ref: event for event in batch}
    for ref, change in changes.items():
        event = channels[ref]
        kind = event.spec.kind if event.spec is not None else NONE
        RECORDER.count(MESSAGES, labels=(change.state, event.channel, event.provider, kind, NONE))


def _defer(connection: Connection, errors: Errors, now: datetime) -> None:
    """Let events that failed wait, and alert. The log and the ledger name the type of the error: its text may be personal data."""
    if not errors:
        return
    provider_events.defer(connection, {key: type(error).__name__ for key, error in errors.items()}, now)
    for provider in sorted({key.provider for key in errors}):
        alerts.note(connection, provider, NOT_APPLIED, True, now)
    for key, error in errors.items():
        log.error("a provider event was not applied", provider=key.provider, event_id=key.id, error=type(error).__name__)


def _reset_soft_bounces(connection: Connection, signals: Sequence[DeliverySignal]) -> None:
    if signals:
        soft_bounces.reset(connection, signals)


def _change_messages(
    connection: Connection, retry: RetryPolicy, random: Callable[[], float], batch: Sequence[PendingEvent], now: datetime
) -> dict[MessageId, StatusChange]:
    statuses = provider_events.lock(connection, sorted({event.ref for event in batch if event.state is not None}))
    were_unresolved = {ref for ref, status in statuses.items() if status.state is State.UNRESOLVED}
    changes: dict[MessageId, StatusChange] = {}
    reports: list[CountedReport] = []
    for event in batch:
        status = statuses.get(event.ref)
        change = status_change(status, event, now, random, retry) if status is not None else None
        if status is None or change is None:
            continue
        if event.campaign_no is not None:
            reports += [CountedReport(event.campaign_no, measure, event.at) for measure in _reached(status.state, change.state)]
        earlier = changes.get(event.ref)
        if earlier is not None and change.returned is None:
            change = replace(change, returned=earlier.returned)
        changes[event.ref], statuses[event.ref] = change, status_after(status, change)
    if changes:
        provider_events.apply(connection, list(changes.values()), now)
    if resolved := [ref for ref in changes if ref in were_unresolved]:
        unresolved.remove(connection, resolved)
    report_counts.add(connection, reports)
    return changes


def _reached(before: State, after: State) -> Iterator[Measure]:
    """What a delivery report adds to the results of a campaign. A message that is read or complained about was delivered. Pure."""
    if after in DELIVERED and before not in DELIVERED:
        yield Measure.DELIVERED
    if after in (State.READ, State.COMPLAINED):
        yield Measure(after.value)


def status_change(
    status: MessageStatus, event: PendingEvent, now: datetime, random: Callable[[], float], retry: RetryPolicy
) -> StatusChange | None:
    """What an event does to a message of this status; None for nothing. Pure."""
    attempt = event.receipt or event.id
    state = after_provider_event(status, event.kind, attempt)
    if state is None or state is status.state:
        return None
    if state is State.FAILED:
        until = retry_at(event.retry_hint, status, fallback_seconds(event.spec, event.channel), now, random, retry)
        if until is not None:
            return StatusChange(event.ref, State.WAITING, event.code, until, event.receipt, event.provider, attempt)
    until = None if status.cancelled else fallback_at(event.spec, event.channel, state, now)
    return StatusChange(event.ref, state, event.code, until, event.receipt, event.provider)


def status_after(status: MessageStatus, change: StatusChange) -> MessageStatus:
    """The status of a message after a change. Pure."""
    new = (change.returned,) if change.returned is not None and change.returned not in status.returned else ()
    return replace(status, state=change.state, returned=status.returned + new)


def _apply_to_person(connection: Connection, secret: KeyRing, context: ValidationContext, event: PendingEvent) -> list[DueChunk]:
    """Suppress addresses, stop channels and record opt-outs, as the event says. Returns the acknowledgements that are due.

    Without a message of ours it holds for the address: for all who have it, and for who gets it later.
    """
    effect = event_effect(event.kind)
    code, now = event.code or event.kind, context.now
    key = address_keys.newest_key_of(connection, secret, event.address_key) if event.address_key is not None else None
    if effect.stop_channel:
        stopped_channels.stop(connection, event.channel, event.provider, code, now)
    if key is not None and (effect.suppress or _count_soft_bounce(connection, event, key)):
        suppressions.suppress(connection, event.channel, key, code, event.provider, now)
    if side_effects.is_cool_down(context.policy, event.channel, event.code):
        for recipient_id in _concerned(connection, event, key):
            side_effects.start_cool_down(connection, context.policy, recipient_id, event.channel, event.code, now)
    if effect.lift and key is not None:
        suppressions.lift(connection, (event.channel, key), OPT_OUT_REASONS, event.at, now, by_report=True)
    if not effect.opt_out:
        return []
    message = event.ref if event.state is not None else None
    reported = ProviderOptOut(event.recipient_id, key, event.channel, event.provider, code, event.entity, message)
    return side_effects.opt_out(connection, secret, context, reported)


def _concerned(connection: Connection, event: PendingEvent, key: bytes | None) -> list[str]:
    """The recipient of the event's message; without a message, all who have the address."""
    if event.recipient_id is not None:
        return [event.recipient_id]
    return recipients.with_address(connection, event.channel, key) if key is not None else []


def _count_soft_bounce(connection: Connection, event: PendingEvent, address_key: bytes) -> bool:
    """Count the failure, if it is a soft bounce. Returns whether the limit that suppresses the address is reached."""
    if event.soft_bounce_limit is None:
        return False
    failed = str(event.ref) if event.state is not None else event.receipt or event.id  # one message counts once
    count = soft_bounces.count(connection, event.channel, address_key, event.code or "", failed, event.at)
    return count >= event.soft_bounce_limit
