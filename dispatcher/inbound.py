"""What providers report after hand-off, applied to messages and to people's records, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

from channels.base import Channel, Event
from channels.twilio import Inbound
from dispatcher import acknowledge, consequences, keywords
from dispatcher.acknowledge import Publish
from dispatcher.choices import Change
from dispatcher.house import House
from dispatcher.keywords import Meaning
from dispatcher.ledger import consent, events, numbers, stops, suppressions
from dispatcher.ledger.chunks import Due
from dispatcher.ledger.consent import Word
from dispatcher.ledger.events import Move, Unsettled
from dispatcher.ledger.keys import address_key
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.pool import Connection, lend
from dispatcher.model import GROUP_OF, Source
from dispatcher.outcomes import after_event, fallback_at, meaning
from dispatcher.refs import MessageRef

BATCH = 1_000


def keep(house: House, news: Sequence[Event]) -> int:
    """Store what a webhook brought; says how much of it was new. Applying it is `settle_some`'s work."""
    with lend(house.pool) as connection:
        return events.keep(connection, news, house.clock())


def settle_some(house: House, publish: Publish) -> int:
    """Apply the oldest events not yet applied, and have the noes among them acknowledged; says how many events there were.

    Order does not matter: states only move forward. Doing it twice does not matter either, so nothing is locked for long: first
    what an event says of the person, each in its own transaction (an opt-out locks the person before the messages, as everybody
    does), then all messages at once.
    """
    with lend(house.pool) as connection:
        batch = events.unsettled(connection, BATCH)
        dues = [_follow(house, connection, event) for event in batch]
        if batch:
            with connection.transaction():
                _move(house, connection, batch)
                events.settled(connection, batch, house.clock())
    acknowledge.tell(publish, *dues)
    return len(batch)


def _move(house: House, connection: Connection, batch: Sequence[Unsettled]) -> None:
    states = events.lock_states(connection, sorted({event.ref for event in batch if event.state is not None}))
    moves: dict[MessageRef, Move] = {}
    now = house.clock()
    for event in batch:
        state = states.get(event.ref)
        after = after_event(state, event.kind) if state is not None else None
        if after is not None and after != state:
            states[event.ref] = after
            moves[event.ref] = Move(event.ref, after, event.code, fallback_at(event.spec, event.channel, after, now))
    events.apply(connection, list(moves.values()), now)


def _follow(house: House, connection: Connection, event: Unsettled) -> Due | None:
    """Dead addresses, opt-outs and stopped channels that the event reveals; the acknowledgement that an opt-out is owed."""
    means = meaning(event.kind)
    if event.recipient_id is None:
        return None
    if means.stop_channel:
        stops.stop(connection, event.channel, event.provider, event.code or event.kind, house.clock())
    if means.suppress and event.address_key is not None:
        consequences.suppress_key(
            connection, event.address_key, event.channel, event.provider, event.code or event.kind, house.clock()
        )
    consequences.rest(connection, house.policy, event.recipient_id, event.channel, event.code, house.clock())
    if not means.opt_out:
        return None
    return consequences.opt_out(
        house, connection, event.recipient_id, event.channel, event.provider, event.code or event.kind, event.entity
    )


# -- what people answer ------------------------------------------------------------------------------------------------


def hear(house: House, publish: Publish, said: Inbound) -> Meaning:
    """Obey a text from a person, and say how it was understood. Doing it twice changes nothing more.

    STOP bans the number on its channel and switches the whole group off for everyone who has the number: who wrote, among
    people who share one, can't be known. START lifts the ban, and no more: a switch that is off stays off.
    """
    means = Meaning(said.opt_out.lower()) if said.opt_out in {"STOP", "START", "HELP"} else keywords.classify(said.text)
    key = address_key(house.secret, said.channel, said.address)
    now = house.clock()
    if means is Meaning.STOP:
        with lend(house.pool) as connection:
            ensure_period(connection, period_of(now))
            with connection.transaction():
                dues = _stop(house, connection, said.channel, key)
        acknowledge.tell(publish, *dues)
    elif means is Meaning.START:
        with lend(house.pool) as connection:
            suppressions.lift(connection, said.channel, key, now)
    return means


def _stop(house: House, connection: Connection, channel: Channel, key: bytes) -> list[Due | None]:
    """Ban the number, switch the group off for all who have it, and write what acknowledges that to each."""
    now = house.clock()
    suppressions.suppress(connection, channel, key, Meaning.STOP, Source.INBOUND, now)
    off = (Change(f"channel:{GROUP_OF[channel]}", "off"),)
    words = [Word(owner, off, now) for owner in numbers.owners(connection, key)]
    recorded = consent.record_all(connection, house.secret, words, Source.INBOUND, channel, "", now)
    return [acknowledge.take(house, connection, owner, each.events) for owner, each in recorded.items()]
