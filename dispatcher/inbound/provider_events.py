"""What comes back after hand-off: providers' news, applied to messages and people's records in batches, and what people answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from channels.base import Event, EventKind
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery import side_effects
from dispatcher.delivery.outcomes import after_news, again_at, fallback_at, meaning
from dispatcher.domain.message import Standing, State
from dispatcher.domain.message_id import MessageRef
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.delivery import unresolved as doubts
from dispatcher.ledger.delivery.scheduling import Due
from dispatcher.ledger.inbound import provider_events, soft_bounces
from dispatcher.ledger.inbound.provider_events import Move, Unsettled
from dispatcher.ledger.inbound.soft_bounces import Sign
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.runtime.services import House

BATCH = 1_000


ARRIVED = frozenset({EventKind.DELIVERED, EventKind.READ, EventKind.ENGAGED})  # news that shows an address at work


def keep(house: House, news: Sequence[Event]) -> int:
    """Store what a webhook brought; says how much of it was new. Applying it is `settle_some`'s work."""
    with lend(house.pool) as connection:
        return provider_events.keep(connection, news, house.clock())


def settle_some(house: House, publish: Publish) -> int:
    """Apply the oldest events not yet applied, and have the noes among them acknowledged; says how many events there were.

    Order does not matter: states only move forward. Doing it twice does not matter either, so nothing is locked for long: first
    what an event says of the person, each in its own transaction (an opt-out locks the person before the messages, as everybody
    does), then all messages at once.
    """
    with lend(house.pool) as connection:
        batch = provider_events.unsettled(connection, BATCH)
        signs = [Sign(event.channel, event.address_key, event.at) for event in batch if event.kind in ARRIVED and event.address_key]
        _end_misses(connection, signs)
        dues = [_follow(house, connection, event) for event in batch]
        _end_misses(connection, signs)  # of misses in this very batch, too
        if batch:
            with connection.transaction():
                _move(house, connection, batch)
                provider_events.settled(connection, batch, house.clock())
    acknowledgement.tell(publish, *dues)
    return len(batch)


def _end_misses(connection: Connection, signs: Sequence[Sign]) -> None:
    if signs:
        soft_bounces.end(connection, signs)


def _move(house: House, connection: Connection, batch: Sequence[Unsettled]) -> None:
    standings = provider_events.lock(connection, sorted({event.ref for event in batch if event.state is not None}))
    unresolved = {ref for ref, standing in standings.items() if standing.state is State.UNRESOLVED}
    moves: dict[MessageRef, Move] = {}
    now = house.clock()
    for event in batch:
        standing = standings.get(event.ref)
        move = moved(house, standing, event, now) if standing is not None else None
        if standing is None or move is None:
            continue
        before = moves.get(event.ref)
        if before is not None and move.returned is None:
            move = replace(move, returned=before.returned)
        moves[event.ref], standings[event.ref] = move, stands(standing, move)
    if moves:
        provider_events.apply(connection, list(moves.values()), now)
    if resolved := [ref for ref in moves if ref in unresolved]:
        doubts.close(connection, resolved)


def moved(house: House, standing: Standing, event: Unsettled, now: datetime) -> Move | None:
    """What an event does to a message that stands so; None for nothing."""
    attempt = event.receipt or event.id
    state = after_news(standing, event.kind, attempt)
    if state is None or state is standing.state:
        return None
    if state is State.FAILED:
        until = again_at(event.again, standing, event.spec, event.channel, now, house.dice, house.policy.retry)
        if until is not None:
            return Move(event.ref, State.WAITING, event.code, until, event.receipt, event.provider, attempt)
    until = None if standing.cancelled else fallback_at(event.spec, event.channel, state, now)
    return Move(event.ref, state, event.code, until, event.receipt, event.provider)


def stands(standing: Standing, move: Move) -> Standing:
    """How a message stands after a move."""
    new = (move.returned,) if move.returned is not None and move.returned not in standing.returned else ()
    return replace(standing, state=move.state, returned=standing.returned + new)


def _follow(house: House, connection: Connection, event: Unsettled) -> Due | None:
    """Dead addresses, opt-outs and stopped channels that the event reveals; the acknowledgement that an opt-out is owed."""
    means = meaning(event.kind)
    if event.recipient_id is None:
        return None
    code, now = event.code or event.kind, house.clock()
    if means.stop_channel:
        stopped_channels.stop(connection, event.channel, event.provider, code, now)
    if event.address_key is not None and (means.suppress or _struck_out(connection, event, event.address_key)):
        side_effects.suppress_key(connection, event.address_key, event.channel, event.provider, code, now)
    side_effects.rest(connection, house.policy, event.recipient_id, event.channel, event.code, now)
    if means.lift and event.address_key is not None:
        suppressions.lift(connection, event.channel, event.address_key, side_effects.BLOCKS, event.at, now)
    if not means.opt_out:
        return None
    return side_effects.opt_out(house, connection, event.recipient_id, event.channel, event.provider, code, event.entity)


def _struck_out(connection: Connection, event: Unsettled, address_key: bytes) -> bool:
    """Whether this is one failure too many in a row for the address."""
    if event.strikes is None:
        return False
    return soft_bounces.note(connection, event.channel, address_key, event.code or "", str(event.ref), event.at) >= event.strikes
