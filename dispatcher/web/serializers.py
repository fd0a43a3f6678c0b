"""Plain data for JSON and tables, with the same shapes on the command line and over HTTP. No personal data but ids."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dispatcher.campaigns.audience_uploads import Upload
from dispatcher.campaigns.dry_run import DryRun, SmsCost
from dispatcher.campaigns.overview import Balance, Campaign, CampaignStatus
from dispatcher.campaigns.refused_jobs import RefusedJobEntry
from dispatcher.campaigns.template_approval import Approval, ApprovalStatus, FirstApproval, TemplateVersion
from dispatcher.campaigns.template_history import KnownVersion
from dispatcher.campaigns.tester_sends import TesterSend
from dispatcher.consent.preferences import Preferences
from dispatcher.content import TextDiff
from dispatcher.delivery.messages import DeadMessage, ListedMessage, Message, MessagePage, UnresolvedGroup, UnresolvedRow
from dispatcher.domain.message import OfferType, State
from dispatcher.domain.recipient import ChannelGroup
from dispatcher.events.event_endpoints import EndpointCursor, EndpointStatus, WebhookTestResult
from dispatcher.maintenance.retention import RetentionBacklog
from dispatcher.policy import Explanation


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
        "version": campaign.version,
        "edits": [
            {"version": edit.version, "at": moment(edit.at), "by": edit.actor, "changes": dict(edit.changes)}
            for edit in status.edits
        ],
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


def dry_run_view(campaign_id: str, result: DryRun) -> dict[str, Any]:
    """What a campaign would do; `states` sums to `audience`."""
    return {
        "id": campaign_id,
        "state": "dry_run",
        "audience": result.audience,
        "invalid": result.invalid,
        "states": dict(result.states.most_common()),
        "reasons": dict(result.reasons.most_common()),
        "channels": dict(result.channels.most_common()),
        "variants": dict(result.variants.most_common()),
        "sms": dict(result.sms.most_common()),
        "segments": dict(result.segments.most_common()),
        "cost": _cost_view(result.cost) if result.cost else None,
        "needs": list(result.needs),
    }


def _cost_view(cost: SmsCost) -> dict[str, Any]:
    return {"currency": cost.currency, "total": cost.total, "unpriced": dict(cost.unpriced)}


def upload_view(upload: Upload) -> dict[str, Any]:
    """An uploaded audience. `sha256` is that of the bytes as they were sent, `size` counts the unpacked ones."""
    return {
        "id": upload.id,
        "format": upload.suffix.removeprefix("."),
        "gzip": upload.is_gzip,
        "complete": upload.is_complete,
        "received": upload.received,
        "total": upload.total,
        "sha256": upload.sha256,
        "size": upload.size,
        "changed_at": moment(upload.at),
    }


APPROVAL_TEXTS = {
    ApprovalStatus.APPROVED: "approved by {who}, {when}",
    ApprovalStatus.WITHDRAWN: "approval withdrawn by {who}, {when}",
    ApprovalStatus.WAITING: "waits for approval",
    ApprovalStatus.FREE: "needs no approval",
}


def approval_text(version: TemplateVersion) -> str:
    """The approval of a template version, for people."""
    approval, first = version.approval, version.first
    if first is not None:
        return f"approved by {first.actor}, {first.at:%Y-%m-%d %H:%M} UTC; waits for approval by a second person"
    when = f"{approval.at:%Y-%m-%d %H:%M} UTC" if approval else ""
    who = " and ".join(filter(None, (approval.first_actor, approval.actor))) if approval else ""
    return APPROVAL_TEXTS[version.status].format(who=who, when=when)


def template_view(version: TemplateVersion) -> dict[str, Any]:
    """A template as it now is, with its newest approval or withdrawal."""
    template, approval = version.template, version.approval
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
        "standing": version.status,
        "approval": _approval_view(approval) if approval else None,
        "first_approval": _first_approval_view(version.first) if version.first else None,
    }


def _approval_view(approval: Approval) -> dict[str, Any]:
    return {
        "no": approval.no,
        "approved": approval.approved,
        "actor": approval.actor,
        "first_actor": approval.first_actor,
        "comment": approval.comment,
        "at": moment(approval.at),
    }


def _first_approval_view(first: FirstApproval) -> dict[str, Any]:
    return {"actor": first.actor, "comment": first.comment, "at": moment(first.at)}


def known_version_view(version: KnownVersion) -> dict[str, Any]:
    """A version in a template's history."""
    return {
        "digest": version.digest,
        "is_present": version.is_present,
        "stored_at": moment(version.stored_at),
        "first_approval": _first_approval_view(version.first) if version.first else None,
        "approvals": [_approval_view(each) for each in version.approvals],
        "campaigns": [{"id": use.campaign, "state": use.state, "created_at": moment(use.created_at)} for use in version.campaigns],
    }


def text_diff_view(found: TextDiff) -> dict[str, Any]:
    """A text that two versions show differently."""
    return {
        "language": found.language,
        "channel": found.channel,
        "mode": found.mode,
        "part": found.part,
        "data": found.data,
        "changes": [{"kind": change.kind, "text": change.text} for change in found.changes],
    }


def tester_send_view(sent: TesterSend) -> dict[str, Any]:
    """A test send: a name of staff, and no content."""
    return {
        "no": sent.no,
        "template": sent.template,
        "digest": sent.digest,
        "tester": sent.tester,
        "channel": sent.channel,
        "language": sent.language,
        "mode": sent.mode,
        "by": sent.actor,
        "at": moment(sent.at),
        "state": sent.state,
        "code": sent.code,
        "provider": sent.provider,
        "receipt": sent.receipt,
    }


def retention_view(backlog: RetentionBacklog) -> dict[str, Any]:
    """A class of data, how long it is kept, and how much of it is due to be cleared."""
    return {
        "class": backlog.data.policy_key,
        "what": backlog.data.what,
        "kept": str(backlog.kept_for),
        "older_than": moment(backlog.before),
        "due": backlog.overdue,
    }


def message_view(message: Message) -> dict[str, Any]:
    """One message, its decision and its delivery reports."""
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
            {"provider": each.provider, "kind": each.kind, "code": each.code, "at": moment(each.at), "extra": dict(each.extra)}
            for each in message.reports
        ],
    }


def message_line(message: ListedMessage) -> dict[str, Any]:
    """A message in a list."""
    return {
        "id": str(message.ref),
        "campaign": message.campaign_id,
        "recipient": message.recipient_id,
        "channel": message.channel,
        "state": message.state,
        "reason": message.reason,
        "attempts": message.attempts,
        "updated_at": moment(message.updated_at),
    }


def message_page(page: MessagePage) -> dict[str, Any]:
    """A page of messages; `next` is the cursor of the next one, null where there is none."""
    return {"messages": [message_line(each) for each in page.messages], "next": str(page.next) if page.next else None}


def dead_view(message: DeadMessage) -> dict[str, Any]:
    """A dead message in a list."""
    return {"id": str(message.ref), "campaign": message.campaign_id, "reason": message.reason, "since": moment(message.since)}


def unresolved_view(message: UnresolvedRow) -> dict[str, Any]:
    """An unresolved message in a list. `ask_at` is null where no provider can be asked."""
    return {
        "id": str(message.ref),
        "campaign": message.campaign_id,
        "recipient": message.recipient_id,
        "channel": message.channel,
        "reason": message.reason,
        "since": moment(message.since),
        "ask_at": moment(message.ask_at),
        "provider": message.provider,
        "claimed_at": moment(message.claimed_at),
    }


def unresolved_group_view(group: UnresolvedGroup) -> dict[str, Any]:
    """How many unresolved messages there are of one campaign, channel and provider."""
    return {
        "campaign": group.campaign_id,
        "channel": group.channel,
        "provider": group.provider,
        "messages": group.count,
        "first_claimed_at": moment(group.first_at),
        "last_claimed_at": moment(group.last_at),
    }


def explanation_view(message: Message, explanation: Explanation) -> dict[str, Any]:
    """The explanation of a message, by sentences; `text` is all of them."""
    return {
        "id": str(message.ref),
        "recipient": message.recipient_id,
        "state": message.state,
        "reason": message.reason,
        "language": explanation.language,
        "at": moment(message.updated_at),
        "what": list(explanation.what),
        "why": list(explanation.why),
        "data": list(explanation.data),
        "change": list(explanation.change),
        "who": list(explanation.who),
        "contact": list(explanation.contact),
        "text": explanation.text,
    }


def endpoint_view(status: EndpointStatus) -> dict[str, Any]:
    """A event endpoint, how far behind it is, and what was given up. Its secret is never part of it."""
    endpoint = status.endpoint
    return {
        "id": endpoint.id,
        "url": status.shown_url,
        "state": endpoint.state.value,
        "disabled_reason": endpoint.disabled_reason,
        "types": list(endpoint.target.types),
        "entities": list(endpoint.target.entities),
        "campaigns": list(endpoint.target.campaigns),
        "batch_max": endpoint.target.batch_max,
        "cursor": status.live.cursor,
        "lag_events": status.lag_events,
        "lag_seconds": round(status.lag_seconds, 1),
        "attempts": status.live.attempts,
        "error": status.error,
        "failing_since": moment(status.live.failing_since),
        "next_try_at": moment(status.live.next_try_at) if status.live.failing_since else None,
        "delivered_at": moment(endpoint.delivered_at),
        "secret_version": endpoint.secret_version,
        "old_secret_until": moment(endpoint.old_secret_until),
        "created_by": endpoint.created_by,
        "created_at": moment(endpoint.created_at),
        "replays": [webhook_range_view(each) for each in status.replays],
        "dead": [webhook_range_view(each) for each in status.dead],
    }


def webhook_range_view(cursor: EndpointCursor) -> dict[str, Any]:
    """A range of events that is dead, or is delivered again."""
    return {
        "number": cursor.no,
        "from": cursor.cursor + 1,
        "to": cursor.last,
        "attempts": cursor.attempts,
        "error": cursor.error,
        "since": moment(cursor.since),
    }


def webhook_test_view(result: WebhookTestResult) -> dict[str, Any]:
    """What a receiver answered to a test event; `error` is null for a status of 2xx."""
    return {
        "webhook_id": result.webhook_id,
        "status": result.answer.status,
        "error": result.answer.error,
        "milliseconds": round(result.answer.seconds * 1000),
    }


def preferences_view(preferences: Preferences) -> dict[str, Any]:
    """A person's choices with the names of the import file, and under `choices` the proof of each. A choice never made is null."""
    values = {subject: choice.value for subject, choice in preferences.choices.items()}
    return {
        "recipient": preferences.recipient_id,
        "version": preferences.version,
        "offers": {offer.value: values.get(f"offer:{offer}") for offer in OfferType},
        "channels": {group.value: _switch(values.get(f"channel:{group}")) for group in ChannelGroup},
        "object_marketing": values.get("objection:marketing") == "on",
        "object_profiling": values.get("objection:profiling") == "on",
        "choices": {
            subject: {"value": choice.value, "event": choice.event, "source": choice.source, "at": moment(choice.at)}
            for subject, choice in sorted(preferences.choices.items())
        },
    }


def _switch(value: str | None) -> bool | None:
    return None if value is None else value == "on"


def moment(at: datetime | None) -> str | None:
    """A time for JSON: ISO 8601."""
    return at.isoformat() if at else None


def refused_job(job: RefusedJobEntry) -> dict[str, Any]:
    """A refused job. Its state is `open`, `mended` (a job with its key was accepted later) or `closed` by a person."""
    return {
        "number": job.no,
        "state": "closed" if job.closed_at else "mended" if job.mended_at else "open",
        "task": job.task,
        "key": job.key,
        "reason": job.reason.value,
        "errors": [{"field": error.field, "message": error.message} for error in job.errors],
        "count": job.count,
        "first_at": moment(job.first_at),
        "last_at": moment(job.last_at),
        "mended_at": moment(job.mended_at),
        "closed_at": moment(job.closed_at),
        "closed_by": job.closed_by,
    }
