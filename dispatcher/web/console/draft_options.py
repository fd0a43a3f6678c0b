"""The first page of a new campaign: template, channels, sender and labels; and the list of one's drafts."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from channels.base import Channel
from dispatcher.campaigns import drafts, overview, template_approval
from dispatcher.campaigns.drafts import Draft
from dispatcher.domain.principal import Right, require
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.runtime.services import Services
from dispatcher.web.console.draft_forms import (
    CHANGED_ELSEWHERE,
    NO_ERRORS,
    Errors,
    OwnDraft,
    Posted,
    PostedForm,
    by_field,
    entity_of,
    is_outdated,
    mark_of,
    number,
)
from dispatcher.web.console.login import Operator
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(default_response_class=HTMLResponse)

FURTHER = (  # the page hides them until one is used
    *("fallback_after_seconds", "sender", "reply_to", "tags", "cost_centre", "seeds", "holdout_percent", "one_per_household"),
)
FOREIGN: Errors = {"entity": ["choose one of yours: you make no campaigns in the name of the template’s entity"]}
SHOWN = ("id", "template", "entity", "channels", "route", *FURTHER)


@router.get("/campaigns/new")
def new_campaign_page(operator: Operator, services: ServicesDependency, template: str = "") -> str:
    """Ask for the template, the channels and the other options of a new campaign."""
    require(operator.principal, Right.CAMPAIGNS)
    return _page(operator, services, None, {"template": template}, NO_ERRORS)


@router.post("/campaigns/new")
def create_draft(operator: Operator, services: ServicesDependency, posted: PostedForm) -> Response:
    """Store a new draft, then ask for its audience."""
    require(operator.principal, Right.CAMPAIGNS)
    form = _form(services, posted, {})
    if not _may_use(operator, services, form):
        return _refused(_page(operator, services, None, form, FOREIGN))
    try:
        _check_new_id(services, form)
        no = drafts.create(services, operator.principal.id, form)
    except BadInput as error:
        return _refused(_page(operator, services, None, form, by_field(error.faults, SHOWN)))
    return _to(f"/console/drafts/{no}/audience")


@router.get("/drafts/{no}")
def options_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> str:
    """The options of a draft."""
    return _page(operator, services, draft, draft.form, NO_ERRORS)


@router.post("/drafts/{no}")
def change_options(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:
    """Store other options of a draft, then go on to its audience."""
    form = _form(services, posted, draft.form)
    if not _may_use(operator, services, form):
        return _refused(_page(operator, services, draft, form, FOREIGN))
    if is_outdated(posted, mark_of(draft, SHOWN)):
        return HTMLResponse(_page(operator, services, draft, form, {"": [CHANGED_ELSEWHERE]}), HTTPStatus.CONFLICT)
    try:
        _check_new_id(services, form)
        drafts.change_form(services, draft, form)
    except BadInput as error:
        return _refused(_page(operator, services, draft, form, by_field(error.faults, SHOWN)))
    return _to(f"/console/drafts/{draft.no}/audience")


@router.post("/drafts/{no}/delete")
def delete_draft(services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:  # noqa: ARG001  checks the token
    """Delete a draft and its file."""
    drafts.delete(services, draft)
    return _to("/console/campaigns/new")


@router.post("/campaigns/{campaign_id}/copy")
def copy_campaign(
    operator: Operator,
    services: ServicesDependency,
    campaign_id: str,
    posted: PostedForm,  # noqa: ARG001  checks the token
) -> Response:
    """Begin a draft like an earlier campaign."""
    require(operator.principal, Right.CAMPAIGNS)
    campaign = overview.find(services, campaign_id, operator.principal.entities) if "\0" not in campaign_id else None
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such campaign")
    no = drafts.start_copy(services, operator.principal.id, campaign.spec, _free_id(services, campaign.id))
    return _to(f"/console/drafts/{no}")


def _check_new_id(services: Services, form: Mapping[str, Any]) -> None:
    """Raise BadInput where another campaign has the id already: the submission would refuse it at the end."""
    try:
        known = overview.find(services, str(form["id"])) if "\0" not in str(form["id"]) else None
    except KeyError:
        known = None
    if known is not None:
        raise BadInput(InputError("campaign", 0, "id", "another campaign has this name already"))


def _free_id(services: Services, begin: str) -> str:
    """An id that no campaign has, which begins like another one."""
    day = services.clock().date().isoformat()
    candidates = (f"{begin[:80]}-{day}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 100))))
    return next((each for each in candidates if overview.find(services, each) is None), "")


def _may_use(operator: ConsoleSession, services: Services, form: Mapping[str, Any]) -> bool:
    """Whether this person makes campaigns for the entity of a form."""
    return operator.principal.may(Right.CAMPAIGNS, entity_of(services, form))


def _form(services: Services, posted: Posted, before: Mapping[str, Any]) -> dict[str, Any]:
    """The campaign form with the values of this page; what other pages ask for stays."""
    form = {name: value for name, value in before.items() if name not in SHOWN}
    template = posted.text("template")
    values: dict[str, Any] = {
        "id": posted.text("id") or (_free_id(services, template) if template else ""),
        "template": None if "variants" in form else template,
        "entity": posted.text("entity"),
        "channels": posted.texts("channels"),
        "route": posted.text("route"),
        "sender": posted.text("sender"),
        "reply_to": posted.text("reply_to"),
        "tags": [tag for tag in posted.text("tags").replace(",", " ").split() if tag],
        "cost_centre": posted.text("cost_centre"),
        "seeds": posted.texts("seeds"),
        "holdout_percent": number(posted.text("holdout_percent")),
        "one_per_household": posted.text("one_per_household") == "on",
    }
    minutes = number(posted.text("fallback_minutes"))
    values["fallback_after_seconds"] = minutes * 60 if isinstance(minutes, float) else minutes
    return {**form, **{name: value for name, value in values.items() if value not in ("", None, [], False)}}


def _page(operator: ConsoleSession, services: Services, draft: Draft | None, form: Mapping[str, Any], errors: Errors) -> str:
    may_use = [each for each in services.policy.entities if operator.principal.may(Right.CAMPAIGNS, each)]
    entities = [services.policy.entities[name] for name in may_use]
    fallback = form.get("fallback_after_seconds", "")
    return page(
        "draft_options.html",
        operator=operator,
        draft=draft,
        form=form,
        shown=mark_of(draft, SHOWN) if draft else "",
        errors=errors,
        versions=template_approval.template_versions(services),
        entities=entities,
        channels=[channel.value for channel in Channel],
        testers=sorted(services.policy.testers),
        senders=sorted({name for entity in entities for name in entity.campaign_senders}),
        reply_addresses=sorted({address for entity in entities for address in entity.reply_to}),
        is_open=not {*form, *errors}.isdisjoint(FURTHER),
        fallback_minutes=f"{fallback / 60:g}" if isinstance(fallback, int | float) else fallback,
        own=drafts.of_owner(services, operator.principal.id) if draft is None else [],
    )


def _refused(text: str) -> Response:
    return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY)


def _to(path: str) -> Response:
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)
