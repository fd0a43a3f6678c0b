"""What comes back after hand-off: providers' news, applied to messages and people's records in batches, and what people answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel, InboundText
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery import side_effects
from dispatcher.domain import opt_out_keywords
from dispatcher.domain.opt_out_keywords import ReplyMeaning
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import GROUP_OF, Source
from dispatcher.inbound import help_reply
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.consent.events import ConsentStatement
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.inbound import inbound_messages, phone_owners, whatsapp_window
from dispatcher.ledger.inbound.inbound_messages import InboundMessage
from dispatcher.ledger.inbound.phone_owners import PhoneOwner
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.runtime.services import Services

# -- what people answer ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplyResult:
    """How a text was understood, and what to answer in the same conversation; None for nothing."""

    meaning: ReplyMeaning
    answer: str | None = None


def handle_reply(services: Services, publish: Publish, said: InboundText) -> ReplyResult:
    """Obey a text from a person. The same one again, by its id, changes nothing and gets the same answer.

    STOP bans the number on its channel and switches the whole group off for everyone who has the number: who wrote, among
    people who share one, can't be known. START lifts what a STOP or the provider's block banned, and no more: a switch that
    is off stays off. HELP is answered, unless the provider says that it has done so. What is unclear waits for a person.
    """
    means = (
        ReplyMeaning(said.opt_out.lower()) if said.opt_out in {"STOP", "START", "HELP"} else opt_out_keywords.classify(said.text)
    )
    key = address_key(services.secret, said.channel, said.address)
    now = services.clock()
    dues: list[DueChunk | None] = []
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))
        owners = phone_owners.owners(connection, key)
        ids = [owner.id for owner in owners]
        with connection.transaction():
            fresh = inbound_messages.take(connection, said.id, said.channel, key, ids, means, said.text, now)
            if fresh and said.channel is Channel.WHATSAPP:
                whatsapp_window.open_window(connection, key, now)
            if fresh and means is ReplyMeaning.STOP:
                dues = _stop(services, connection, said.channel, key, ids, said.channel, now)
            elif fresh and means is ReplyMeaning.START:
                suppressions.lift(connection, said.channel, key, side_effects.BLOCKS, now, now)
        asked = means is ReplyMeaning.HELP and said.opt_out is None and _may_answer(connection, said.channel, key, now)
        answer = _help(services, connection, owners, said.channel) if asked else None
    acknowledgement.publish_acknowledgements(publish, *dues)
    return ReplyResult(means, answer)


def waiting(services: Services, limit: int) -> list[InboundMessage]:
    """The unclear texts that wait for a person, oldest first."""
    with lend(services.pool) as connection:
        return inbound_messages.waiting(connection, limit)


def resolve(services: Services, publish: Publish, text_id: str, by: str, stop: bool) -> bool:
    """Take an unclear text off the list: it was a STOP in other words, or called for nothing. False: it isn't on the list."""
    now = services.clock()
    dues: list[DueChunk | None] = []
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            text = inbound_messages.close(connection, text_id, by, now)
            if text is not None and stop:
                owners = {owner.id for owner in phone_owners.owners(connection, text.address_key)}
                concerned = sorted(owners.union(text.recipients))
                dues = _stop(services, connection, text.channel, text.address_key, concerned, by, text.received_at)
    acknowledgement.publish_acknowledgements(publish, *dues)
    return text is not None


def _stop(
    services: Services, connection: Connection, channel: Channel, key: bytes, ids: Sequence[str], actor: str, said_at: datetime
) -> list[DueChunk | None]:
    """Ban the number, switch the group off for these people, and write what acknowledges that to each."""
    now = services.clock()
    suppressions.suppress(connection, channel, key, ReplyMeaning.STOP, Source.INBOUND, now)
    off = (Change(f"channel:{GROUP_OF[channel]}", "off"),)
    words = [ConsentStatement(recipient_id, off, said_at) for recipient_id in ids]
    recorded = consent.record_all(connection, services.secret, words, Source.INBOUND, actor, "", now)
    entity = phone_owners.last_entity(connection, ids, channel)
    return [
        acknowledgement.acknowledge(services, connection, recipient_id, each.events, entity)
        for recipient_id, each in recorded.items()
    ]


def _may_answer(connection: Connection, channel: Channel, key: bytes, now: datetime) -> bool:
    """A call that the provider repeats a day later opens no new window, and its answer would be refused."""
    until = whatsapp_window.open_until(connection, key) if channel is Channel.WHATSAPP else None
    return channel is not Channel.WHATSAPP or (until is not None and now < until)


def _help(services: Services, connection: Connection, owners: Sequence[PhoneOwner], channel: Channel) -> str:
    """In the language of the number's first owner, and the name of who wrote there last."""
    written = phone_owners.last_entity(connection, [owner.id for owner in owners], channel)
    entity = services.policy.entities.get(written or "") or next(iter(services.policy.entities.values()))
    language = owners[0].language if owners else "en"
    return help_reply.help_text(language, entity.names[language], entity.contact)
