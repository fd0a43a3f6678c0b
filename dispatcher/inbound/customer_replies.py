"""What comes back after hand-off: providers' news, applied to messages and people's records in batches, and what people answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel, Inbound
from dispatcher.consent import acknowledgement
from dispatcher.consent.acknowledgement import Publish
from dispatcher.delivery import side_effects
from dispatcher.domain import opt_out_keywords
from dispatcher.domain.opt_out_keywords import Meaning
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import GROUP_OF, Source
from dispatcher.inbound import help_reply
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.consent.events import Word
from dispatcher.ledger.delivery.scheduling import Due
from dispatcher.ledger.inbound import inbound_messages, phone_owners, whatsapp_window
from dispatcher.ledger.inbound.inbound_messages import Text
from dispatcher.ledger.inbound.phone_owners import Owner
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.runtime.services import House

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
    means = Meaning(said.opt_out.lower()) if said.opt_out in {"STOP", "START", "HELP"} else opt_out_keywords.classify(said.text)
    key = address_key(house.secret, said.channel, said.address)
    now = house.clock()
    dues: list[Due | None] = []
    with lend(house.pool) as connection:
        ensure_period(connection, period_of(now))
        owners = phone_owners.owners(connection, key)
        ids = [owner.id for owner in owners]
        with connection.transaction():
            fresh = inbound_messages.take(connection, said.id, said.channel, key, ids, means, said.text, now)
            if fresh and said.channel is Channel.WHATSAPP:
                whatsapp_window.heard(connection, key, now)
            if fresh and means is Meaning.STOP:
                dues = _stop(house, connection, said.channel, key, ids, said.channel, now)
            elif fresh and means is Meaning.START:
                suppressions.lift(connection, said.channel, key, side_effects.BLOCKS, now, now)
        asked = means is Meaning.HELP and said.opt_out is None and _may_answer(connection, said.channel, key, now)
        answer = _help(house, connection, owners, said.channel) if asked else None
    acknowledgement.tell(publish, *dues)
    return Heard(means, answer)


def waiting(house: House, limit: int) -> list[Text]:
    """The unclear texts that wait for a person, oldest first."""
    with lend(house.pool) as connection:
        return inbound_messages.waiting(connection, limit)


def resolve(house: House, publish: Publish, text_id: str, by: str, stop: bool) -> bool:
    """Take an unclear text off the list: it was a STOP in other words, or called for nothing. False: it isn't on the list."""
    now = house.clock()
    dues: list[Due | None] = []
    with lend(house.pool) as connection:
        ensure_period(connection, period_of(now))
        with connection.transaction():
            text = inbound_messages.close(connection, text_id, by, now)
            if text is not None and stop:
                owners = {owner.id for owner in phone_owners.owners(connection, text.address_key)}
                concerned = sorted(owners.union(text.recipients))
                dues = _stop(house, connection, text.channel, text.address_key, concerned, by, text.received_at)
    acknowledgement.tell(publish, *dues)
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
    entity = phone_owners.last_entity(connection, ids, channel)
    return [acknowledgement.take(house, connection, recipient_id, each.events, entity) for recipient_id, each in recorded.items()]


def _may_answer(connection: Connection, channel: Channel, key: bytes, now: datetime) -> bool:
    """A call that the provider repeats a day later opens no new window, and its answer would be refused."""
    until = whatsapp_window.open_until(connection, key) if channel is Channel.WHATSAPP else None
    return channel is not Channel.WHATSAPP or (until is not None and now < until)


def _help(house: House, connection: Connection, owners: Sequence[Owner], channel: Channel) -> str:
    """In the language of the number's first owner, and the name of who wrote there last."""
    written = phone_owners.last_entity(connection, [owner.id for owner in owners], channel)
    entity = house.policy.entities.get(written or "") or next(iter(house.policy.entities.values()))
    language = owners[0].language if owners else "en"
    return help_reply.help_text(language, entity.names[language], entity.contact)
