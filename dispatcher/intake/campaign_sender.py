"""The sender and reply address that a campaign may choose: those that the policy allows its entity."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from channels.base import Channel
from dispatcher.domain.campaign_options import CampaignOptions
from dispatcher.domain.spelling import did_you_mean
from dispatcher.policy.data import CampaignSender, Entity


def sender_errors(options: CampaignOptions, entity: Entity, channels: Collection[Channel]) -> Iterator[tuple[str, str]]:
    """Field and error of a sender or reply address that the policy does not allow, or that no channel of the campaign uses."""
    if options.sender is not None:
        sender = entity.campaign_senders.get(options.sender)
        if sender is None:
            yield "sender", _not_allowed(options.sender, entity.id, entity.campaign_senders)
        elif not uses(sender, channels):
            yield "sender", f"{options.sender} says nothing for the channels of this campaign: {', '.join(sorted(channels))}"
    if options.reply_to is not None:
        if options.reply_to not in entity.reply_to:
            yield "reply_to", _not_allowed(options.reply_to, entity.id, entity.reply_to)
        elif Channel.EMAIL not in channels:
            yield "reply_to", "needs the channel email"


def uses(sender: CampaignSender, channels: Collection[Channel]) -> bool:
    """Whether a sender is another one than the entity's on one of these channels."""
    return bool((sender.name or sender.address) and Channel.EMAIL in channels) or not sender.senders.keys().isdisjoint(channels)


def _not_allowed(value: str, entity: str, allowed: Collection[str]) -> str:
    names = ", ".join(allowed) or "none"
    return f"{value!r} is not allowed for {entity}{did_you_mean(value, allowed)}; the policy allows: {names}"
