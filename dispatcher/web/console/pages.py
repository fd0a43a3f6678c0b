"""The router of `/console`."""

from __future__ import annotations

from fastapi import APIRouter

from dispatcher.web.console import (
    account,
    audit,
    calendar,
    campaign_checks,
    campaign_edits,
    campaign_results,
    campaigns,
    charts,
    desk,
    draft_audience,
    draft_checks,
    draft_options,
    draft_submission,
    event_endpoints,
    guide,
    inbound_messages,
    live,
    login,
    messages,
    oidc,
    operations,
    opt_out_latency,
    overview,
    people,
    refused_jobs,
    schedules,
    search,
    second_factor,
    templates,
    unresolved,
)

router = APIRouter(include_in_schema=False)
for group in (
    *(live, charts, login, oidc, account, second_factor, overview, search),
    *(draft_options, draft_audience, draft_checks, draft_submission, calendar),
    *(campaign_edits, campaign_checks),  # before `campaigns`: edit, dry-run
    *(campaign_results, campaigns, messages, inbound_messages, unresolved, refused_jobs, schedules, templates),
    *(event_endpoints, audit, operations, opt_out_latency, people, desk, guide),
):
    router.include_router(group.router, prefix="/console")
