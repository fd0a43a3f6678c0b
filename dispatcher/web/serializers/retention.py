"""Retention as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.maintenance.retention import RetentionBacklog
from dispatcher.web.serializers.times import moment


def retention_view(backlog: RetentionBacklog) -> dict[str, Any]:
    """A class of data, how long it is kept, and how much of it is due to be cleared."""
    return {
        "class": backlog.data.policy_key,
        "what": backlog.data.what,
        "kept": str(backlog.kept_for),
        "older_than": moment(backlog.before),
        "due": backlog.overdue,
    }
