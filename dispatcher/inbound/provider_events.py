"""What comes back after hand-off: providers' news, applied to messages and people's records in batches, and what people answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from channels.base import Event, EventKind
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery import side_effects
from dispatcher.delivery.outcomes import after_provider_event, event_effect, fallback_at, retry_at
from dispatcher.domain.message import MessageStatus, State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.delivery import unresolved as doubts
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.inbound import provider_events, soft_bounces
from dispatcher.ledger.inbound.provider_events import PendingEvent, StatusChange
from dispatcher.ledger.inbound.soft_bounces import DeliverySignal
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.runtime.services import Services

BATCH = 1_000


ARRIVED = frozenset({EventKind.DELIVERED, EventKind.READ, EventKind.ENGAGED})  # news that shows an address at work


def keep(services: Services, news: Sequence[Event]) -> int:
    """Store what a webhook brought; says how much of it was new. Applying it is `settle_some`'s work."""
    with lend(services.pool) as connection:
        return provider_events.store(connection, news, services.clock())


def settle_some(services: Services, publish: Publish) -> int:
    """Apply the oldest events not yet applied, and have the noes among them acknowledged; says how many events there were.

    Order does not matter: states only move forward. Doing it twice does not matter either, so nothing is locked for long: first
    what an event says of the person, each in its own transaction (an opt-out locks the person before the messages, as everybody
    does), then all messages at once.
    """
    with lend(services.pool) as connection:
        batch = provider_events.unapplied(connection, BATCH)
        signs = [
            DeliverySignal(event.channel, event.address_key, event.at)
            for event in batch
            if event.kind in ARRIVED and event.address_key
        ]
        _end_misses(connection, signs)
        dues = [_follow(services, connection, event) for event in batch]
        _end_misses(connection, signs)  # of misses in this very batch, too
        if batch:
            with connection.transaction():
                _move(services, connection, batch)
                provider_events.mark_applied(connection, batch, services.clock())
    acknowledgement.publish_acknowledgements(publish, *dues)
    return len(batch)


def _end_misses(connection: Connection, signs: Sequence[DeliverySignal]) -> None:
    if signs:
        soft_bounces.reset(connection, signs)


def _move(services: Services, connection: Connection, batch: Sequence[PendingEvent]) -> None:
    standings = provider_events.lock(connection, sorted({event.ref for event in batch if event.state is not None}))
    unresolved = {ref for ref, standing in standings.items() if standing.state is State.UNRESOLVED}
    moves: dict[MessageId, StatusChange] = {}
    now = services.clock()
    for event in batch:
        standing = standings.get(event.ref)
        move = status_change(services, standing, event, now) if standing is not None else None
        if standing is None or move is None:
            continue
        before = moves.get(event.ref)
        if before is not None and move.returned is None:
            move = replace(move, returned=before.returned)
        moves[event.ref], standings[event.ref] = move, status_after(standing, move)
    if moves:
        provider_events.apply(connection, list(moves.values()), now)
    if resolved := [ref for ref in moves if ref in unresolved]:
        doubts.remove(connection, resolved)


def status_change(services: Services, standing: MessageStatus, event: PendingEvent, now: datetime) -> StatusChange | None:
    """What an event does to a message that stands so; None for nothing."""
    attempt = event.receipt or event.id
    state = after_provider_event(standing, event.kind, attempt)
    if state is None or state is standing.state:
        return None
    if state is State.FAILED:
        until = retry_at(event.retry_hint, standing, event.spec, event.channel, now, services.random, services.policy.retry)
        if until is not None:
            return StatusChange(event.ref, State.WAITING, event.code, until, event.receipt, event.provider, attempt)
    until = None if standing.cancelled else fallback_at(event.spec, event.channel, state, now)
    return StatusChange(event.ref, state, event.code, until, event.receipt, event.provider)


def status_after(standing: MessageStatus, move: StatusChange) -> MessageStatus:
    """How a message stands after a move."""
    new = (move.returned,) if move.returned is not None and move.returned not in standing.returned else ()
    return replace(standing, state=move.state, returned=standing.returned + new)


def _follow(services: Services, connection: Connection, event: PendingEvent) -> DueChunk | None:
    """Dead addresses, opt-outs and stopped channels that the event reveals; the acknowledgement that an opt-out is owed."""
    means = event_effect(event.kind)
    if event.recipient_id is None:
        return None
    code, now = event.code or event.kind, services.clock()
    if means.stop_channel:
        stopped_channels.stop(connection, event.channel, event.provider, code, now)
    if event.address_key is not None and (means.suppress or _struck_out(connection, event, event.address_key)):
        side_effects.suppress_key(connection, event.address_key, event.channel, event.provider, code, now)
    side_effects.rest(connection, services.policy, event.recipient_id, event.channel, event.code, now)
    if means.lift and event.address_key is not None:
        suppressions.lift(connection, event.channel, event.address_key, side_effects.BLOCKS, event.at, now)
    if not means.opt_out:
        return None
    return side_effects.opt_out(services, connection, event.recipient_id, event.channel, event.provider, code, event.entity)


def _struck_out(connection: Connection, event: PendingEvent, address_key: bytes) -> bool:
    """Whether this is one failure too many in a row for the address."""
    if event.strikes is None:
        return False
    return soft_bounces.count(connection, event.channel, address_key, event.code or "", str(event.ref), event.at) >= event.strikes
