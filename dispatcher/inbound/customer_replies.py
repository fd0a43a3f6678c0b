"""Customers' replies by SMS or WhatsApp: apply STOP and START, answer HELP, keep the unclear ones for an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel, InboundText
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery.side_effects import OPT_OUT_REASONS
from dispatcher.domain import opt_out_keywords
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.opt_out_keywords import ReplyMeaning, ReplyReading
from dispatcher.domain.preferences import Change
from dispatcher.domain.principal import Entities
from dispatcher.domain.recipient import GROUP_OF, Source
from dispatcher.inbound import help_reply
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys, events, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.inbound import inbound_messages, phone_owners, whatsapp_window
from dispatcher.ledger.inbound.inbound_messages import InboundMessage, ReceivedMessage
from dispatcher.ledger.inbound.phone_owners import PhoneOwner
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services

__all__ = ["InboundMessage", "ReplyResult", "close_unclear_message", "handle_reply", "waiting"]

PROVIDERS_READING = frozenset({"STOP", "START", "HELP"})  # what a provider may have read in the text itself


@dataclass(frozen=True, slots=True)
class ReplyResult:
    """How a message was understood, and what to answer in the same conversation; None for nothing."""

    meaning: ReplyMeaning
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A STOP from a number: everybody who may have sent it, who recorded it, and when it was said.

    `actor` is the operator who read an unclear message; the channel where the program recognised STOP, since nobody can know which
    owner of the number wrote.
    """

    channel: Channel
    address_key: bytes
    recipient_ids: Sequence[str]
    actor: str
    said_at: datetime


def handle_reply(services: Services, publish: Publish, message: InboundText) -> ReplyResult:
    """Handle a message from a customer. The same one again, by its id, changes nothing and gets the same answer.

    STOP suppresses the number on its channel and switches the whole group off for everybody who has the number: among people who
    share one, nobody can know who wrote. START lifts only what a STOP or the provider's own block suppressed; a switch that is off
    stays off. HELP is answered, unless the provider says that it has answered. An unclear message waits for an operator; if it
    may be an opt-out, advertising to its number waits too.
    """
    meaning = _meaning(message, services.policy)
    reading = ReplyReading(meaning, meaning is ReplyMeaning.UNCLEAR and _may_be_opt_out(message))
    address = (message.channel, message.address)
    now = services.clock()
    acknowledgement_chunks: list[DueChunk | None] = []
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            key = address_keys.in_use(connection, services.secret, [address])[address]
            address_keys.lock_owners(connection, [], [key])  # a concurrent erasure must not leave the text of the message
            owners = phone_owners.owners(connection, key)
            ids = [owner.id for owner in owners]
            new = inbound_messages.store(connection, message, key, ids, reading, now)
            if new and message.channel is Channel.WHATSAPP:
                whatsapp_window.open_window(connection, key, now)
            if new and meaning is ReplyMeaning.STOP:
                acknowledgement_chunks = _stop(
                    connection, services.secret, _context(services), StopRequest(message.channel, key, ids, message.channel, now)
                )
            elif new and meaning is ReplyMeaning.START:
                suppressions.lift(connection, (message.channel, key), OPT_OUT_REASONS, now, now)
        asks_help = meaning is ReplyMeaning.HELP and message.opt_out is None
        answers = asks_help and _may_answer(connection, message.channel, key, now)
        answer = _help(connection, services.policy, owners, message.channel) if answers else None
    acknowledgement.publish_acknowledgements(publish, *acknowledgement_chunks)
    return ReplyResult(meaning, answer)


def _meaning(message: InboundText, policy: Policy) -> ReplyMeaning:
    """What a message asks for: by the provider's reading, the button that was pressed, or the text.

    A STOP in any of them counts. Otherwise the first that is clear does, but no START where the text holds a no.
    """
    own_names = {name for entity in policy.entities.values() for name in entity.names.values()}
    readings = [opt_out_keywords.classify(text, own_names) for text in (message.button, message.text) if text]
    provider = (message.opt_out or "").strip().upper()
    if provider in PROVIDERS_READING:
        readings.insert(0, ReplyMeaning(provider.lower()))
    if ReplyMeaning.STOP in readings:
        return ReplyMeaning.STOP
    meaning = next((reading for reading in readings if reading is not ReplyMeaning.UNCLEAR), ReplyMeaning.UNCLEAR)
    if meaning is ReplyMeaning.START and any(opt_out_keywords.holds_no(text) for text in (message.button, message.text) if text):
        return ReplyMeaning.UNCLEAR
    return meaning


def _may_be_opt_out(message: InboundText) -> bool:
    """A button's label is its text, and its payload says more: both have to be harmless."""
    return any(opt_out_keywords.may_be_opt_out(text) for text in (message.text, message.button) if text is not None)


def _context(services: Services) -> ValidationContext:
    return ValidationContext(services.catalog, services.policy, services.clock())


def waiting(services: Services, limit: int, entities: Entities = None) -> list[InboundMessage]:
    """The unclear messages from customers of these entities that wait for an operator, oldest first."""
    with lend(services.pool) as connection:
        return inbound_messages.waiting(connection, limit, entities)


def received_from(services: Services, recipient_id: str, limit: int) -> list[ReceivedMessage]:
    """The inbound messages of a person, newest first, read or not."""
    with lend(services.pool) as connection:
        return inbound_messages.of_recipient(connection, recipient_id, limit)


def close_unclear_message(
    services: Services, publish: Publish, message_id: str, by: str, stop: bool, entities: Entities = None
) -> bool:
    """Close an unclear message, and apply it as a STOP if it was one. Returns False where it is not waiting."""
    now = services.clock()
    acknowledgement_chunks: list[DueChunk | None] = []
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            message = inbound_messages.close(connection, message_id, by, now, entities)
            if message is not None and stop:
                acknowledgement_chunks = _stop_late(connection, services.secret, _context(services), message, by)
    acknowledgement.publish_acknowledgements(publish, *acknowledgement_chunks)
    return message is not None


def stop_unread(connection: Connection, secret: KeyRing, context: ValidationContext, before: datetime, limit: int) -> int:
    """Apply messages received before then as STOP where nobody has read them and they may be opt-outs; returns their number.

    Nobody can read a text that is deleted: without this, its number would wait for ever. The scheduler sends the acknowledgements.
    """
    ids = inbound_messages.overdue_unread(connection, before, limit)
    if ids:
        ensure_period(connection, period_of(context.now))
    for message_id in ids:
        with connection.transaction():
            message = inbound_messages.close(connection, message_id, inbound_messages.DELETED_UNREAD, context.now)
            if message is not None:
                _stop_late(connection, secret, context, message, inbound_messages.DELETED_UNREAD)
    return len(ids)


def _stop_late(
    connection: Connection, secret: KeyRing, context: ValidationContext, message: InboundMessage, by: str
) -> list[DueChunk | None]:
    """A STOP from all who had the number when the message came, and all who have it now."""
    key = address_keys.newest_key_of(connection, secret, message.address_key)
    owners = {owner.id for owner in phone_owners.owners(connection, key)}
    ids = sorted(owners.union(message.recipients))
    return _stop(connection, secret, context, StopRequest(message.channel, key, ids, by, message.received_at))


def _stop(connection: Connection, secret: KeyRing, context: ValidationContext, request: StopRequest) -> list[DueChunk | None]:
    """Suppress the number, switch the group off for these people, and write an acknowledgement to each."""
    channel, ids, now = request.channel, request.recipient_ids, context.now
    suppressions.suppress(connection, channel, request.address_key, ReplyMeaning.STOP, Source.INBOUND, now)
    off = (Change(f"channel:{GROUP_OF[channel]}", "off"),)
    statements = [ConsentStatement(recipient_id, off, request.said_at) for recipient_id in ids]
    recorded = events.record_all(connection, secret, statements, Provenance(Source.INBOUND, request.actor), now)
    entity = phone_owners.last_entity(connection, ids, channel)
    return [
        acknowledgement.acknowledge(connection, context, recipient_id, result.events, entity)
        for recipient_id, result in recorded.items()
    ]


def _may_answer(connection: Connection, channel: Channel, key: bytes, now: datetime) -> bool:
    """SMS: always. WhatsApp: only while the service window is open; outside it, an answer would be refused.

    A webhook call that the provider repeats does not open the window again.
    """
    until = whatsapp_window.open_until(connection, key) if channel is Channel.WHATSAPP else None
    return channel is not Channel.WHATSAPP or (until is not None and now < until)


def _help(connection: Connection, policy: Policy, owners: Sequence[PhoneOwner], channel: Channel) -> str:
    """The answer to HELP, in the language of the number's first owner and the name of the entity that wrote there last."""
    last = phone_owners.last_entity(connection, [owner.id for owner in owners], channel)
    entity = policy.entities.get(last or "") or next(iter(policy.entities.values()))
    language = owners[0].language if owners else "en"
    return help_reply.help_text(language, entity.names[language], entity.contact)
