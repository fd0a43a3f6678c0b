"""The sender of an entity's messages. What is sent and every preview take it from here, so that both have the same length. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.content import NO_SENDERS, MessageSender, Senders, Template
from dispatcher.domain.recipient import Language
from dispatcher.policy import Policy
from dispatcher.policy.data import CampaignSender, Entity
from dispatcher.runtime.link_hosts import link_hosts

THE_ENTITYS = CampaignSender()


def entity_sender(
    entity: Entity, key: str, language: Language, public_url: str = "", chosen: CampaignSender = THE_ENTITYS, reply_to: str = ""
) -> MessageSender:
    """The sender as the text and the headers of an e-mail name it, in the recipient's language. `key` is the entity's in the
    policy; `chosen` is what a campaign chooses."""
    return MessageSender(
        entity.names[language],
        chosen.address or entity.sender_address,
        entity=key,
        hosts=link_hosts(entity, public_url),
        from_name=chosen.name,
        reply_to=reply_to,
    )


def senders_of(policy: Policy, template: Template) -> Senders:
    """The senders of a template's own entity, by language; none for an entity that the policy does not know."""
    entity = policy.entities.get(template.entity)
    return senders(entity, template.entity) if entity else NO_SENDERS


def senders(entity: Entity, key: str) -> Mapping[Language, MessageSender]:
    """The senders of an entity, by language."""
    return {language: entity_sender(entity, key, language) for language in entity.names}
