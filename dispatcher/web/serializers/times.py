"""Times as plain data."""

from __future__ import annotations

from datetime import datetime


def moment(at: datetime | None) -> str | None:
    """A time for JSON: ISO 8601."""
    return at.isoformat() if at else None
