"""What comes back after hand-off: providers' news, applied to messages and people's records in batches, and what people answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from channels.base import Channel, Event, EventKind, Inbound
from dispatcher import acknowledge, consequences, keywords, replies
from dispatcher.acknowledge import Publish
from dispatcher.choices import Change
from dispatcher.house import House
from dispatcher.keywords import Meaning
from dispatcher.ledger import consent, conversations, doubts, events, misses, numbers, stops, suppressions, texts
from dispatcher.ledger.consent import Word
from dispatcher.ledger.due import Due
from dispatcher.ledger.events import Move, Unsettled
from dispatcher.ledger.keys import address_key
from dispatcher.ledger.misses import Sign
from dispatcher.ledger.numbers import Owner
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.pool import Connection, lend
from dispatcher.ledger.texts import Text
from dispatcher.model import GROUP_OF, Source, State
from dispatcher.outcomes import Standing, after_news, again_at, fallback_at, meaning
from dispatcher.refs import MessageRef

BATCH = 1_000
ARRIVED = frozenset({EventKind.DELIVERED, EventKind.READ, EventKind.ENGAGED})  # news that shows an address at work


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
        signs = [Sign(event.channel, event.address_key, event.at) for event in batch if event.kind in ARRIVED and event.address_key]
        _end_misses(connection, signs)
        dues = [_follow(house, connection, event) for event in batch]
        _end_misses(connection, signs)  # of misses in this very batch, too
        if batch:
            with connection.transaction():
                _move(house, connection, batch)
                events.settled(connection, batch, house.clock())
    acknowledge.tell(publish, *dues)
    return len(batch)


def _end_misses(connection: Connection, signs: Sequence[Sign]) -> None:
    if signs:
        misses.end(connection, signs)


def _move(house: House, connection: Connection, batch: Sequence[Unsettled]) -> None:
    standings = events.lock(connection, sorted({event.ref for event in batch if event.state is not None}))
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
        events.apply(connection, list(moves.values()), now)
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
        stops.stop(connection, event.channel, event.provider, code, now)
    if event.address_key is not None and (means.suppress or _struck_out(connection, event, event.address_key)):
        consequences.suppress_key(connection, event.address_key, event.channel, event.provider, code, now)
    consequences.rest(connection, house.policy, event.recipient_id, event.channel, event.code, now)
    if means.lift and event.address_key is not None:
        suppressions.lift(connection, event.channel, event.address_key, consequences.BLOCKS, event.at, now)
    if not means.opt_out:
        return None
    return consequences.opt_out(house, connection, event.recipient_id, event.channel, event.provider, code, event.entity)


def _struck_out(connection: Connection, event: Unsettled, address_key: bytes) -> bool:
    """Whether this is one failure too many in a row for the address."""
    if event.strikes is None:
        return False
    return misses.note(connection, event.channel, address_key, event.code or "", str(event.ref), event.at) >= event.strikes


# -- what people answer ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """How a text was understood, and what to answer in the same conversation; None for nothing."""

    meaning: Meaning
    answer: str | None = None


def hear(house: House, publish: Publish, said: Inbound) -> Heard:
    """Obey a text from a person. The same one again, by its id, changes nothing and gets the same answer.

    STOP bans the number on its channel and switches the whole group off for everyone who has the number: who wrote, among
    people who share one, can't be known. START lifts what a STOP or the provider's block banned, and no more: a switch that
    is off stays off. HELP is answered, unless the provider says that it has done so. What is unclear waits for a person.
    """
    means = Meaning(said.opt_out.lower()) if said.opt_out in {"STOP", "START", "HELP"} else keywords.classify(said.text)
    key = address_key(house.secret, said.channel, said.address)
    now = house.clock()
    dues: list[Due | None] = []
    with lend(house.pool) as connection:
        ensure_period(connection, period_of(now))
        owners = numbers.owners(connection, key)
        ids = [owner.id for owner in owners]
        with connection.transaction():
            fresh = texts.take(connection, said.id, said.channel, key, ids, means, said.text, now)
            if fresh and said.channel is Channel.WHATSAPP:
                conversations.heard(connection, key, now)
            if fresh and means is Meaning.STOP:
                dues = _stop(house, connection, said.channel, key, ids, said.channel, now)
            elif fresh and means is Meaning.START:
                suppressions.lift(connection, said.channel, key, consequences.BLOCKS, now, now)
        asked = means is Meaning.HELP and said.opt_out is None and _may_answer(connection, said.channel, key, now)
        answer = _help(house, connection, owners, said.channel) if asked else None
    acknowledge.tell(publish, *dues)
    return Heard(means, answer)


def waiting(house: House, limit: int) -> list[Text]:
    """The unclear texts that wait for a person, oldest first."""
    with lend(house.pool) as connection:
        return texts.waiting(connection, limit)


def resolve(house: House, publish: Publish, text_id: str, by: str, stop: bool) -> bool:
    """Take an unclear text off the list: it was a STOP in other words, or called for nothing. False: it isn't on the list."""
    now = house.clock()
    dues: list[Due | None] = []
    with lend(house.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            text = texts.close(connection, text_id, by, now)
            if text is not None and stop:
                owners = {owner.id for owner in numbers.owners(connection, text.address_key)}
                concerned = sorted(owners.union(text.recipients))
                dues = _stop(house, connection, text.channel, text.address_key, concerned, by, text.received_at)
    acknowledge.tell(publish, *dues)
    return text is not None


def _stop(
    house: House, connection: Connection, channel: Channel, key: bytes, ids: Sequence[str], actor: str, said_at: datetime
) -> list[Due | None]:
    """Ban the number, switch the group off for these people, and write what acknowledges that to each."""
    now = house.clock()
    suppressions.suppress(connection, channel, key, Meaning.STOP, Source.INBOUND, now)
    off = (Change(f"channel:{GROUP_OF[channel]}", "off"),)
    words = [Word(recipient_id, off, said_at) for recipient_id in ids]
    recorded = consent.record_all(connection, house.secret, words, Source.INBOUND, actor, "", now)
    entity = numbers.last_entity(connection, ids, channel)
    return [acknowledge.take(house, connection, recipient_id, each.events, entity) for recipient_id, each in recorded.items()]


def _may_answer(connection: Connection, channel: Channel, key: bytes, now: datetime) -> bool:
    """A call that the provider repeats a day later opens no new window, and its answer would be refused."""
    until = conversations.open_until(connection, key) if channel is Channel.WHATSAPP else None
    return channel is not Channel.WHATSAPP or (until is not None and now < until)


def _help(house: House, connection: Connection, owners: Sequence[Owner], channel: Channel) -> str:
    """In the language of the number's first owner, and the name of who wrote there last."""
    written = numbers.last_entity(connection, [owner.id for owner in owners], channel)
    entity = house.policy.entities.get(written or "") or next(iter(house.policy.entities.values()))
    language = owners[0].language if owners else "en"
    return replies.help_text(language, entity.names[language], entity.contact)
