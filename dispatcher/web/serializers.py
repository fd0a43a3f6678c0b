"""Plain data of what people and machines are shown: the same shapes on the command line and over HTTP. No personal data but ids."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dispatcher.campaigns.dry_run import DryRun
from dispatcher.campaigns.template_approval import ApprovalStatus, TemplateVersion
from dispatcher.domain.message import OfferType, State
from dispatcher.domain.recipient import ChannelGroup
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.consent.events import Preferences
from dispatcher.ledger.delivery.messages import Message
from dispatcher.maintenance import retention
from dispatcher.policy import Explanation


def campaign_view(campaign: Campaign, balance: Balance, now: datetime) -> dict[str, Any]:
    """A campaign with its balance, which sums to `audience`."""
    return {
        "id": campaign.id,
        "state": campaign.state,
        "template": campaign.spec.template,
        "entity": campaign.spec.entity,
        "audience": campaign.audience,
        "invalid": campaign.invalid,
        "balance": {state.value: count for state, count in balance.states.items()},
        "reasons": dict(balance.reasons),
        "channels": {channel: dict(states) for channel, states in balance.channels.items()},
        "created_at": moment(campaign.created_at),
        "started_at": moment(campaign.started_at),
        "finished_at": moment(campaign.finished_at),
        "messages_per_second": messages_per_second(campaign, balance, now),
        "variants": {name: dict(states) for name, states in balance.variants.items()},
        "submitted_by": campaign.submitted_by,
        "released_by": campaign.released_by,
        "note": campaign.note,
    }


def messages_per_second(campaign: Campaign, balance: Balance, now: datetime) -> float | None:
    """Decided recipients per second since the start, sent or not; None before it."""
    if campaign.started_at is None:
        return None
    seconds = ((campaign.finished_at or now) - campaign.started_at).total_seconds()
    decided = campaign.audience - balance.states[State.PENDING]
    return round(decided / seconds, 1) if seconds > 0 else None


def campaign_line(campaign: Campaign) -> dict[str, Any]:
    """A campaign in a list."""
    return {
        "id": campaign.id,
        "state": campaign.state,
        "template": campaign.spec.template,
        "audience": campaign.audience,
        "invalid": campaign.invalid,
        "created_at": moment(campaign.created_at),
        "started_at": moment(campaign.started_at),
        "finished_at": moment(campaign.finished_at),
    }


def dry_run_view(campaign_id: str, rehearsal: DryRun) -> dict[str, Any]:
    """What a campaign would do; `states` sums to `audience`."""
    return {
        "id": campaign_id,
        "state": "dry_run",
        "audience": rehearsal.audience,
        "invalid": rehearsal.invalid,
        "states": dict(rehearsal.states.most_common()),
        "reasons": dict(rehearsal.reasons.most_common()),
        "channels": dict(rehearsal.channels.most_common()),
        "variants": dict(rehearsal.variants.most_common()),
        "needs": list(rehearsal.needs),
    }


STANDING = {
    ApprovalStatus.APPROVED: "was approved by {who}, {when}",
    ApprovalStatus.WITHDRAWN: "had its approval withdrawn by {who}, {when}",
    ApprovalStatus.WAITING: "waits for somebody to approve it",
    ApprovalStatus.FREE: "needs no approval",
}


def approval_text(wording: TemplateVersion) -> str:
    """How a template's present wording stands, for people."""
    word = wording.word
    return STANDING[wording.standing].format(who=word.actor if word else "", when=f"{word.at:%Y-%m-%d %H:%M} UTC" if word else "")


def template_view(wording: TemplateVersion) -> dict[str, Any]:
    """A template as it now is, and who approved that; `approval` is the newest word on this digest."""
    template, word = wording.template, wording.word
    return {
        "name": template.name,
        "version": template.version,
        "author": template.author,
        "digest": template.digest,
        "kind": template.info.kind,
        "offer_type": template.info.offer_type,
        "topic": template.info.topic,
        "modes": sorted(template.info.modes),
        "channels": list(template.channels),
        "standing": wording.standing,
        "approval": {"no": word.no, "approved": word.approved, "actor": word.actor, "at": moment(word.at)} if word else None,
    }


def retention_view(standing: retention.RetentionBacklog) -> dict[str, Any]:
    """A kind of data, how long it is kept, and how much of it is due to be cleared."""
    keeping = standing.keeping
    return {
        "class": keeping.term,
        "what": keeping.what,
        "kept": str(standing.kept),
        "older_than": moment(standing.before),
        "due": standing.due,
    }


def message_view(message: Message) -> dict[str, Any]:
    """One message as the ledger knows it."""
    return {
        "id": str(message.ref),
        "campaign": message.campaign_id,
        "recipient": message.recipient_id,
        "template": message.decision["job"][1] if "job" in message.decision else message.spec.template,
        "channel": message.channel,
        "state": message.state,
        "reason": message.reason,
        "until": moment(message.until),
        "attempts": message.attempts,
        "provider": message.provider,
        "receipt": message.receipt,
        "claimed_at": moment(message.claimed_at),
        "accepted_at": moment(message.accepted_at),
        "updated_at": moment(message.updated_at),
        "decision": dict(message.decision),
        "events": [
            {"provider": news.provider, "kind": news.kind, "code": news.code, "at": moment(news.at), "extra": dict(news.extra)}
            for news in message.news
        ],
    }


def explanation_view(message: Message, told: Explanation) -> dict[str, Any]:
    """A message's explanation, sentence by sentence; `text` is all of them."""
    return {
        "id": str(message.ref),
        "recipient": message.recipient_id,
        "state": message.state,
        "reason": message.reason,
        "language": told.language,
        "at": moment(message.updated_at),
        "what": list(told.what),
        "why": list(told.why),
        "data": list(told.data),
        "change": list(told.change),
        "who": list(told.who),
        "contact": list(told.contact),
        "text": told.text,
    }


def preferences_view(preferences: Preferences) -> dict[str, Any]:
    """A person's choices in the words of the files, and under `choices` the proof of each. What was never said is null."""
    said = {subject: choice.value for subject, choice in preferences.choices.items()}
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
    """A time for JSON."""
    return at.isoformat() if at else None
