"""The console's page with the results of a campaign, its files, and the upload of conversions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path, PurePath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse

from dispatcher.campaigns import conversions, overview, result_files, results
from dispatcher.campaigns.conversions import DEFAULT_GOAL, ConversionImport
from dispatcher.campaigns.results import CampaignResults, ResultsCache
from dispatcher.domain.campaign_results import OPT_OUT_DAYS, Dimension, Measure, Step
from dispatcher.domain.principal import Right, require
from dispatcher.domain.proportions import Share
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api.campaign_results import results_file
from dispatcher.web.console.campaigns import not_found, valid_id
from dispatcher.web.console.live import LIVE
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.console.overview import CHANGING
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/campaigns", default_response_class=HTMLResponse)

REFRESH_SECONDS = 10
ERRORS_SHOWN = 20
SERIES_CHARTS = (
    ("Sent and read", (Measure.ACCEPTED, Measure.DELIVERED, Measure.READ)),
    ("Refused and failed", (Measure.REFUSED, Measure.FAILED)),
    ("Opt-outs and complaints", (Measure.OPTED_OUT, Measure.COMPLAINED)),
)


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """A step of the funnel: its part of the audience, and of the step before."""

    label: str
    of_audience: Share
    of_previous: Share | None


@dataclass(frozen=True, slots=True)
class View:
    """What a reader chose: a dimension, a step of the series, and that the page stays as it is; and the outcome of an upload."""

    by: Dimension = Dimension.CHANNEL
    step: Step | None = None
    still: bool = False
    messages: Sequence[str] = ()
    imported: ConversionImport | None = None


def _view(by: Dimension = Dimension.CHANNEL, step: Step | None = None, still: bool = False) -> View:
    return View(by, step, still)


class ConversionUpload:
    """The form with conversions: a file, and the goal of rows without one."""

    def __init__(
        self,
        file: Annotated[UploadFile | None, File()] = None,
        goal: Annotated[str, Form()] = "",
        form_token: Annotated[str, Form()] = "",
    ) -> None:
        self.file, self.goal, self.form_token = file, goal.strip() or DEFAULT_GOAL, form_token


@router.get("/{campaign_id}/results", dependencies=[LIVE])
def results_page(
    operator: Operator,
    request: Request,
    campaign_id: str,
    services: ServicesDependency,
    view: Annotated[View, Depends(_view)],
) -> str:
    """The results of a campaign, split by one dimension."""
    return _page(operator, request, services, valid_id(campaign_id), view)


@router.get("/{campaign_id}/results.{format_}")
def download(
    operator: Operator,
    campaign_id: str,
    services: ServicesDependency,
    format_: Literal["csv", "parquet"],
    view: Annotated[View, Depends(_view)],
) -> Response:
    """The results as a file."""
    found = results.of_campaign(services, valid_id(campaign_id), view.by, view.step, operator.principal.entities)
    if found is None:
        raise not_found()
    return results_file(found, format_)


@router.post("/{campaign_id}/conversions")
def upload_conversions(
    operator: Operator,
    request: Request,
    campaign_id: str,
    services: ServicesDependency,
    upload: Annotated[ConversionUpload, Depends()],
) -> Response:
    """Record the conversions of a file, then show what became of its rows; or why none was recorded."""
    check_form_token(operator, upload.form_token)
    require(operator.principal, Right.CAMPAIGNS)
    campaign = overview.find(services, valid_id(campaign_id), operator.principal.entities)
    if campaign is None:
        raise not_found()
    try:
        imported = _import(services, campaign, upload)
    except BadInput as error:
        auditing.refused(request)
        messages = [str(fault) for fault in error.faults[:ERRORS_SHOWN]]
        shown = _page(operator, request, services, campaign_id, View(still=True, messages=messages))
        return HTMLResponse(shown, HTTPStatus.UNPROCESSABLE_ENTITY)
    cache: ResultsCache = request.app.state.results
    cache.forget(campaign_id)
    return HTMLResponse(_page(operator, request, services, campaign_id, View(still=True, imported=imported)))


def _import(services: Services, campaign: overview.Campaign, upload: ConversionUpload) -> ConversionImport:
    """Import an uploaded file, which is deleted at once. Raises `BadInput` with the name that the person knows."""
    file = upload.file
    name = PurePath((file.filename if file else None) or "").name
    if file is None or not name:
        raise BadInput(InputError("file", 0, "", "is missing: choose a .jsonl, .csv or .xlsx file"))
    with TemporaryDirectory(prefix="dispatcher-conversions-") as folder:
        path = Path(folder, f"rows{PurePath(name).suffix[:8]}")
        with path.open("wb") as copy:
            copyfileobj(file.file, copy)
        try:
            return conversions.import_file(services, campaign, path, upload.goal)
        except BadInput as error:
            raise BadInput(
                *(replace(fault, file=name if fault.file == str(path) else fault.file) for fault in error.faults)
            ) from None


def _page(
    operator: ConsoleSession,
    request: Request,
    services: Services,
    campaign_id: str,
    view: View,
) -> str:
    cache: ResultsCache = request.app.state.results
    found = cache.of_campaign(services, campaign_id, view.by, view.step)
    if found is None or not operator.principal.may(Right.CONSOLE, found.campaign.spec.entity):
        raise not_found()
    return page(
        "results.html",
        operator=operator,
        campaign=found.campaign,
        results=found,
        funnel=list(_funnel(found)),
        charts=SERIES_CHARTS,
        by=view.by,
        step=view.step,
        dimensions=[each for each in Dimension if each is not Dimension.VARIANT or found.campaign.spec.variants],
        steps=list(Step),
        formats=result_files.formats(),
        share=Share,
        opt_out_days=OPT_OUT_DAYS,
        refresh_seconds=REFRESH_SECONDS if not view.still and found.campaign.state in CHANGING else None,
        messages=view.messages,
        imported=view.imported,
    )


def _funnel(found: CampaignResults) -> Iterator[FunnelRow]:
    total, audience = found.total, found.campaign.audience
    previous: int | None = None
    steps = {
        "Audience": audience,
        "Tried to send": total.attempted,
        "Accepted by the provider": total.accepted,
        "Delivered": total.delivered,
        "Read": total.read,
    }
    for label, count in steps.items():
        yield FunnelRow(label, Share(count, audience), Share(count, previous) if previous is not None else None)
        previous = count
    if total.converted:
        yield FunnelRow("Converted", Share(total.converted, audience), None)  # also people who read nothing
