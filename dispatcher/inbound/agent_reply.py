"""An operator's own answer to an inbound message that is not a keyword: by SMS, or by WhatsApp within its window.

The message leaves the list before the answer is sent, so that two operators cannot both answer and no answer is sent twice. The
text of the answer is not stored.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from channels.base import Channel, ChannelError, Content, Outbound, Provider, Result, Sms, Uncertain, WhatsApp
from channels.send_window import window_of
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys, suppressions
from dispatcher.ledger.inbound import inbound_messages, phone_owners
from dispatcher.ledger.inbound.inbound_messages import InboundMessage
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.runtime.services import Services

ANSWER_LENGTH_MAX = 1_000

NOT_WAITING = "this message does not wait for an answer any more"
BAD_LENGTH = f"an answer has 1 to {ANSWER_LENGTH_MAX} characters"
ANSWER_SECONDS = 10.0  # an answer by hand that could not be handed off by then is not sent
WINDOW_OVER = "WhatsApp accepts a free text only within 24 hours of the person's own message; that time is over"
SUPPRESSED = "the number is suppressed on this channel"
NO_NUMBER = "no recipient has this number any more"
STOPPED = "the channel is stopped"
MAYBE_SENT = "the answer may have been sent: the provider's response was lost"


def answer(services: Services, message_id: str, text: str, by: str, entities: Entities = None) -> str | None:
    """Answer an inbound message and take it off the list. Returns None when the answer was sent, else why not.

    If nothing was sent, the message waits again. If the answer may have been sent, it does not: nothing is sent twice.
    """
    text = text.strip()
    if not 0 < len(text) <= ANSWER_LENGTH_MAX:
        return BAD_LENGTH
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        message = inbound_messages.find(connection, message_id, entities)
        if message is None:
            return NOT_WAITING
        message = replace(message, address_key=address_keys.newest_key_of(connection, services.secret, message.address_key))
        if objection := _objection(connection, message, now):
            return objection
        address = phone_owners.number(connection, message.address_key)
        if address is None:
            return NO_NUMBER
        inbound_messages.close(connection, message_id, by, now)
    result = _send(services.providers[message.channel], message, address, text)
    if not isinstance(result, ChannelError):
        return None
    if isinstance(result, Uncertain):
        return MAYBE_SENT
    with lend(services.pool) as connection:
        inbound_messages.reopen(connection, message_id)
    return f"the provider did not accept it: {result}"


def _objection(connection: Connection, message: InboundMessage, now: datetime) -> str | None:
    if message.answer_until is not None and now >= message.answer_until:
        return WINDOW_OVER
    if suppressions.in_force(connection, message.channel, message.address_key):
        return SUPPRESSED
    return STOPPED if message.channel in stopped_channels.stopped(connection) else None


def _send(provider: Provider, message: InboundMessage, address: str, text: str) -> Result:
    content: Content = WhatsApp(text=text) if message.channel is Channel.WHATSAPP else Sms(text)
    ((_, result),) = provider.send([Outbound(f"answer:{message.id}", message.channel, address, content)], window_of(ANSWER_SECONDS))
    return result
