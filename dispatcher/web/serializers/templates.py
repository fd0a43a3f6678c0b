"""Templates, their approvals and test sends as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.campaigns.template_approval import Approval, ApprovalStatus, FirstApproval, TemplateVersion
from dispatcher.campaigns.template_history import KnownVersion
from dispatcher.campaigns.tester_sends import TesterSend
from dispatcher.content import TextDiff
from dispatcher.web.serializers.times import moment

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
