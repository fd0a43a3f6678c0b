"""A person's own answer, in free words, to somebody whose text no machine understood: by SMS, or by WhatsApp within its window.

The text comes off the list before the answer leaves, so that two people at two desks can't both answer, and none leaves twice. The
words are not kept.
"""

from __future__ import annotations

from datetime import datetime

from channels.base import Channel, ChannelError, Content, Outbound, Result, Sms, Uncertain, WhatsApp
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.inbound import inbound_messages, phone_owners
from dispatcher.ledger.inbound.inbound_messages import InboundMessage
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.runtime.services import Services

WORDS_LENGTH_MAX = 1_000

NOT_WAITING = "it does not wait any more"
NO_WORDS = f"an answer has 1 to {WORDS_LENGTH_MAX} characters"
WINDOW_OVER = "WhatsApp takes free words within 24 hours of the person's own; that time is over"
BANNED = "the number is banned on this channel"
NO_NUMBER = "nobody on record has the number any more"
STOPPED = "the channel is stopped"
DOUBTFUL = "it may have left: the provider's answer got lost"


def answer(services: Services, text_id: str, words: str, by: str) -> str | None:
    """Answer a text that waits, and take it off the list; None where it left, else why not, in words for who asked.

    What did not leave waits again. What may have left does not: nothing of ours leaves twice.
    """
    if not 0 < len(words.strip()) <= WORDS_LENGTH_MAX:
        return NO_WORDS
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        text = inbound_messages.find(connection, text_id)
        if text is None:
            return NOT_WAITING
        if objection := _objection(connection, text, now):
            return objection
        address = phone_owners.number(connection, text.address_key)
        if address is None:
            return NO_NUMBER
        inbound_messages.close(connection, text_id, by, now)
    return _told(services, text_id, _send(services, text, address, words.strip()))


def _objection(connection: Connection, text: InboundMessage, now: datetime) -> str | None:
    if text.answer_until is not None and now >= text.answer_until:
        return WINDOW_OVER
    if suppressions.in_force(connection, text.channel, text.address_key):
        return BANNED
    return STOPPED if text.channel in stopped_channels.stopped(connection) else None


def _send(services: Services, text: InboundMessage, address: str, words: str) -> Result:
    content: Content = WhatsApp(text=words) if text.channel is Channel.WHATSAPP else Sms(words)
    outbound = Outbound(f"answer:{text.id}", text.channel, address, content)
    ((_, result),) = services.providers[text.channel].send([outbound])
    return result


def _told(services: Services, text_id: str, result: Result) -> str | None:
    if not isinstance(result, ChannelError):
        return None
    if isinstance(result, Uncertain):
        return DOUBTFUL
    with lend(services.pool) as connection:
        inbound_messages.reopen(connection, text_id)
    return f"not taken by the provider: {result}"
