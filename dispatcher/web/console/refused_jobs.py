"""The console's list of refused Celery jobs."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import refused_jobs
from dispatcher.domain.principal import Right, require, require_unlimited
from dispatcher.web.console.login import FormToken, Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/refused-jobs", default_response_class=HTMLResponse)

JOBS_SHOWN = 200


@router.get("")
def refused_jobs_page(operator: Operator, services: ServicesDependency) -> str:
    """The refused jobs that were neither mended nor closed."""
    return page(
        "refused_jobs.html",
        operator=operator,
        jobs=refused_jobs.newest(services, JOBS_SHOWN, entities=operator.principal.entities),
        kept_for=services.policy.retention.refused_jobs,
    )


@router.post("/{number}")
def close(operator: Operator, number: int, services: ServicesDependency, form_token: FormToken = "") -> Response:
    """Take a refused job off the list."""
    check_form_token(operator, form_token)
    require(operator.principal, Right.OPERATE)
    require_unlimited(operator.principal)
    refused_jobs.close(services, number, operator.principal.id)
    return RedirectResponse("/console/refused-jobs", HTTPStatus.SEE_OTHER)
