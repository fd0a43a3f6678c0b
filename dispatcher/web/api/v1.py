"""The router of `/v1`, for systems that have an API key."""

from __future__ import annotations

from fastapi import APIRouter

from dispatcher.web.api import (
    audiences,
    audit,
    campaign_results,
    campaigns,
    event_endpoints,
    events,
    messages,
    preference_stream,
    preferences,
    recipients,
    schedules,
    suppressions,
    templates,
)
from dispatcher.web.errors import problem_responses

router = APIRouter(prefix="/v1", responses=problem_responses(400, 401, 403, 413, 415, 422, 503))
for resource in (
    campaign_results,
    campaigns,
    schedules,
    audiences,
    messages,
    recipients,
    preferences,
    preference_stream,
    suppressions,
    templates,
    events,
    event_endpoints,
    audit,
):
    router.include_router(resource.router)
