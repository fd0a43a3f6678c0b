"""Recurring campaigns as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.campaigns.schedules import ScheduleState, ScheduleStatus
from dispatcher.web.serializers.times import moment


def schedule_view(status: ScheduleStatus) -> dict[str, Any]:
    """A recurring campaign with its next runs, its latest ones, and who did what."""
    schedule = status.schedule
    return {
        **schedule_line(status),
        "campaign": schedule.definition["campaign"],
        "ends_at": schedule.definition.get("ends_at"),
        "expires_after_minutes": schedule.definition.get("expires_after_minutes"),
        "audience_max": schedule.definition.get("audience_max"),
        "created_at": moment(schedule.created_at),
        "next_runs": [{"at": moment(run.at), "campaign": run.campaign_id} for run in status.next_runs],
        "runs": [
            {
                "at": moment(run.due_at),
                "campaign": run.campaign_id,
                "state": run.state,
                "reason": run.reason,
                "message": run.message,
                "upload": run.upload,
            }
            for run in status.runs
        ],
        "changes": [
            {"at": moment(each.at), "by": each.actor, "action": each.action, "state": each.state} for each in status.changes
        ],
    }


def schedule_line(status: ScheduleStatus) -> dict[str, Any]:
    """A recurring campaign in a list. `next_at` is null while it is paused or waits for its approval, and at its end."""
    schedule = status.schedule
    is_active = status.state is ScheduleState.ACTIVE
    return {
        "id": schedule.id,
        "state": status.state,
        "cron": schedule.definition["cron"],
        "zone": schedule.definition["zone"],
        "next_at": moment(schedule.next_at) if is_active else None,
        "submitted_by": schedule.submitted_by,
        "approved_by": schedule.approved_by,
    }
