"""The sender of a message: the entity's, or the one of the policy that its campaign chose."""

from __future__ import annotations

from channels.base import Channel
from dispatcher.content import ContentRefusal, MessageSender
from dispatcher.domain.campaign import Spec
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.recipient import Language
from dispatcher.policy.data import CampaignSender, Entity
from dispatcher.runtime.entity_senders import THE_ENTITYS, entity_sender


def message_sender(spec: Spec, entity: Entity, language: Language, public_url: str) -> MessageSender:
    """The sender as the text and the headers of an e-mail name it. Raises `ContentRefusal` as `campaign_sender` does."""
    return entity_sender(entity, spec.entity, language, public_url, campaign_sender(spec, entity), spec.reply_to or "")


def text_sender(spec: Spec, entity: Entity, channel: Channel) -> str:
    """The sender of a text message; "" means the provider account's own. Raises `ContentRefusal` as `campaign_sender` does."""
    return campaign_sender(spec, entity).senders.get(channel) or entity.senders.get(channel, "")


def campaign_sender(spec: Spec, entity: Entity) -> CampaignSender:
    """What the campaign chose. Raises `ContentRefusal` where the policy does not allow it any more: nothing goes out under another
    sender than the one that was released."""
    if spec.reply_to is not None and spec.reply_to not in entity.reply_to:
        raise ContentRefusal(ReasonCode.FAULT, "reply_to")
    if spec.sender is None:
        return THE_ENTITYS
    if spec.sender not in entity.campaign_senders:
        raise ContentRefusal(ReasonCode.FAULT, "sender")
    return entity.campaign_senders[spec.sender]
