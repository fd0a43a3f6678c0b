"""Endpoints of events as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.events.event_endpoints import EndpointCursor, EndpointStatus, RecordedAct, WebhookTestResult
from dispatcher.web.serializers.times import moment


def endpoint_view(status: EndpointStatus) -> dict[str, Any]:
    """An event endpoint, how far behind it is, and what was given up. Its secret is never part of it."""
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
        "changes": [endpoint_change_view(each) for each in status.changes],
    }


def endpoint_change_view(recorded: RecordedAct) -> dict[str, Any]:
    """Who changed an endpoint, when and how; `reason` is in the actor's words."""
    act = recorded.act
    return {
        "endpoint": recorded.endpoint_id,
        "at": moment(recorded.at),
        "by": act.actor,
        "action": act.action,
        "reason": act.reason,
        "detail": dict(act.detail),
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
