"""`/v1/campaigns/{id}/results` and `/v1/campaigns/{id}/conversions`."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Response

from dispatcher.campaigns import conversions, overview, result_files, results
from dispatcher.campaigns.results import CampaignResults
from dispatcher.domain.campaign_results import Dimension, Step
from dispatcher.domain.principal import Entities
from dispatcher.intake.conversions import ConversionsForm, parse_conversions
from dispatcher.runtime.services import Services
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.campaigns import CampaignId
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.results import CampaignResultsBody, ConversionsRecorded
from dispatcher.web.api_keys import Right
from dispatcher.web.dependencies import CampaignObject, ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.results import conversions_view, results_view

router = APIRouter(prefix="/campaigns", tags=["campaigns"], dependencies=[Depends(needs(Right.CAMPAIGNS))])

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


class ResultParameters:
    """The query parameters of the results."""

    def __init__(
        self,
        by: Annotated[Dimension | None, Query(description="Also split by this.")] = None,
        step: Annotated[Step | None, Query(description="The step of the series; else one that suits its length.")] = None,
    ) -> None:
        self.by, self.step = by, step


Parameters = Annotated[ResultParameters, Depends()]


@router.get("/{campaign_id}/results", response_model=CampaignResultsBody, responses=problem_responses(404))
def show_results(
    campaign_id: CampaignId, services: ServicesDependency, parameters: Parameters, entities: CallerEntities
) -> dict[str, Any]:
    """The results of a campaign: totals with rates and intervals, a time series, groups, variants, and the control group."""
    return results_view(_results(services, campaign_id, parameters, entities))


@router.get(
    "/{campaign_id}/results/export",
    response_class=Response,
    responses={200: {"description": "The file", "content": {kind: {} for kind in MEDIA_TYPES.values()}}, **problem_responses(404)},
)
def export_results(
    campaign_id: CampaignId,
    services: ServicesDependency,
    parameters: Parameters,
    entities: CallerEntities,
    format_: Annotated[Literal["csv", "parquet"], Query(alias="format", description="The format of the file.")] = "csv",
) -> Response:
    """The results as a file, with one row for each number."""
    return results_file(_results(services, campaign_id, parameters, entities), format_)


def results_file(found: CampaignResults, format_: str) -> Response:
    """The results as a download. Raises `BadInput`."""
    name = f"{found.campaign.id.replace(':', '_')}-results.{format_}"
    with TemporaryDirectory(prefix="dispatcher-results-") as folder:
        path = FilePath(folder, name)
        result_files.write(found, path)
        content = path.read_bytes()
    return Response(content, media_type=MEDIA_TYPES[format_], headers={"Content-Disposition": f'attachment; filename="{name}"'})


@router.post(
    "/{campaign_id}/conversions",
    response_model=ConversionsRecorded,
    responses=problem_responses(404, 422),
    openapi_extra=body(ConversionsForm, "Conversions"),
)
def record_conversions(
    campaign_id: CampaignId, form: CampaignObject, services: ServicesDependency, entities: CallerEntities
) -> dict[str, Any]:
    """Record who of a campaign did what it is for, such as `{"recipient": "c-1", "at": "2026-12-24"}`, also in the control group.

    Each person counts once for each goal, by the first time, so a call can be repeated. Nothing is kept about people who are not in
    the campaign.
    """
    rows = parse_conversions(form, services.clock(), conversions.zone(services))
    campaign = overview.find(services, campaign_id, entities)
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return conversions_view(conversions.record(services, campaign, rows))


def _results(services: Services, campaign_id: str, parameters: ResultParameters, entities: Entities) -> CampaignResults:
    found = results.of_campaign(services, campaign_id, parameters.by, parameters.step, entities)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return found
