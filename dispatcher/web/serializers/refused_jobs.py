"""Refused jobs as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.campaigns.refused_jobs import RefusedJobEntry
from dispatcher.web.serializers.times import moment


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
