"""Campaigns and dry runs as plain data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dispatcher.campaigns.dry_run import DryRun, SmsCost
from dispatcher.campaigns.overview import Balance, Campaign, CampaignStatus
from dispatcher.domain.campaign import Spec
from dispatcher.domain.campaign_results import ACCEPTED
from dispatcher.web.serializers.times import moment


def campaign_view(status: CampaignStatus, now: datetime) -> dict[str, Any]:
    """A campaign with its balance, which sums to `audience`, and its edits."""
    campaign, balance = status.campaign, status.balance
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
        "loading": campaign.is_loading,
        "send_at": moment(campaign.spec.send_at),
        "expires_at": moment(campaign.spec.expires_at),
        "rate_per_second": campaign.spec.rate_per_second,
        "priority": campaign.spec.priority,
        **spec_labels(campaign.spec),
        "sender": campaign.spec.sender,
        "reply_to": campaign.spec.reply_to,
        "version": campaign.version,
        "edits": [
            {"version": edit.version, "at": moment(edit.at), "by": edit.actor, "changes": dict(edit.changes)}
            for edit in status.edits
        ],
    }


def spec_labels(spec: Spec) -> dict[str, Any]:
    """The tags and the cost centre of a campaign or trigger."""
    return {"tags": list(spec.tags), "cost_centre": spec.cost_centre}


def messages_per_second(campaign: Campaign, balance: Balance, now: datetime) -> float | None:
    """Messages that providers accepted per second since the start; None before it. Refused and held out ones were not sent."""
    if campaign.started_at is None:
        return None
    seconds = ((campaign.finished_at or now) - campaign.started_at).total_seconds()
    accepted = sum(counts.get(state, 0) for counts in balance.channels.values() for state in ACCEPTED)
    return round(accepted / seconds, 1) if seconds > 0 else None


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
        **spec_labels(campaign.spec),
    }


def dry_run_view(campaign_id: str, result: DryRun) -> dict[str, Any]:
    """What a campaign would do; `states` sums to `audience`."""
    return {
        "id": campaign_id,
        "state": "dry_run",
        **result.counts(),
        "sms": dict(result.sms.most_common()),
        "cost": _cost_view(result.cost) if result.cost else None,
        **spec_labels(result.spec),
        "sender": result.spec.sender,
        "reply_to": result.spec.reply_to,
    }


def _cost_view(cost: SmsCost) -> dict[str, Any]:
    return {"currency": cost.currency, "total": cost.total, "unpriced": dict(cost.unpriced)}
