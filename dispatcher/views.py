"""What is shown of campaigns, messages and choices: one shape each, ready for JSON, the same for the command line and the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dispatcher.ledger.campaigns import Balance, Campaign
from dispatcher.ledger.consent import Preferences
from dispatcher.ledger.messages import Message
from dispatcher.model import ChannelGroup, OfferType, State

# What a provider was asked to carry, whatever came of it.
HANDED_OVER = frozenset(
    {State.ACCEPTED, State.DELIVERED, State.READ, State.BOUNCED, State.COMPLAINED, State.FAILED, State.UNRESOLVED, State.DEAD}
)


def campaign_line(campaign: Campaign) -> dict[str, Any]:
    """A campaign in a list: what costs no counting."""
    return {
        "id": campaign.id,
        "state": campaign.state.value,
        "template": campaign.spec.template,
        "audience": campaign.audience,
        "invalid": campaign.invalid,
        "created_at": moment(campaign.created_at),
        "started_at": moment(campaign.started_at),
        "finished_at": moment(campaign.finished_at),
    }


def campaign_view(campaign: Campaign, balance: Balance, now: datetime) -> dict[str, Any]:
    """A campaign with its balance, which adds up to its audience."""
    audience = sum(balance.states.values())
    return {
        "id": campaign.id,
        "state": campaign.state.value,
        "audience": audience,
        "invalid": campaign.invalid,
        "balance": {state.value: balance.states.get(state, 0) for state in State},
        "reasons": dict(balance.reasons),
        "channels": {channel: dict(states) for channel, states in balance.channels.items()},
        "started_at": moment(campaign.started_at),
        "finished_at": moment(campaign.finished_at),
        "messages_per_second": messages_per_second(campaign, balance, now),
    }


def messages_per_second(campaign: Campaign, balance: Balance, now: datetime) -> float:
    """Messages handed over per second since the start, until the end or `now`; 0 before the start."""
    if campaign.started_at is None:
        return 0.0
    seconds = ((campaign.finished_at or now) - campaign.started_at).total_seconds()
    handed_over = sum(count for state, count in balance.states.items() if state in HANDED_OVER)
    return round(handed_over / seconds, 1) if seconds > 0 else 0.0


def message_view(message: Message) -> dict[str, Any]:
    """A message, the decision behind it as the ledger keeps it, and what the provider told us since."""
    return {
        "id": str(message.ref),
        "campaign": message.campaign_id,
        "recipient": message.recipient_id,
        "template": message.spec.template,
        "entity": message.spec.entity,
        "kind": message.spec.kind.value,
        "offer_type": message.spec.offer_type.value if message.spec.offer_type else None,
        "channel": message.channel.value if message.channel else None,
        "state": message.state.value,
        "reason": message.reason,
        "until": moment(message.until),
        "attempts": message.attempts,
        "provider": message.provider,
        "receipt": message.receipt,
        "claimed_at": moment(message.claimed_at),
        "accepted_at": moment(message.accepted_at),
        "updated_at": moment(message.updated_at),
        "decision": message.decision,
        "events": [
            {"provider": news.provider, "kind": news.kind, "code": news.code, "at": moment(news.at)} for news in message.news
        ],
    }


def preferences_view(preferences: Preferences) -> dict[str, Any]:
    """A person's choices in the words of the files, and under `choices` the proof of each. What was never said is null."""
    said: Mapping[str, str] = {subject: choice.value for subject, choice in preferences.choices.items()}
    return {
        "recipient": preferences.recipient_id,
        "version": preferences.version,
        "offers": {offer.value: said.get(f"offer:{offer}") for offer in OfferType},
        "channels": {group.value: _switch(said.get(f"channel:{group}")) for group in ChannelGroup},
        "object_marketing": said.get("objection:marketing") == "on",
        "object_profiling": said.get("objection:profiling") == "on",
        "choices": {
            subject: {"value": choice.value, "event": choice.event, "source": choice.source, "at": moment(choice.at)}
            for subject, choice in sorted(preferences.choices.items())
        },
    }


def _switch(value: str | None) -> bool | None:
    return None if value is None else value == "on"


def moment(at: datetime | None) -> str | None:
    """A moment as JSON has it."""
    return at.isoformat() if at else None
