"""Messages and explanations as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.delivery.messages import DeadMessage, ListedMessage, Message, MessagePage, UnresolvedGroup, UnresolvedRow
from dispatcher.policy import Explanation
from dispatcher.web.serializers.times import moment


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
