"""`/v1/recipients/{id}/preferences`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field, StrictBool, StringConstraints

from dispatcher.consent import preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.delivery import people
from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.preferences import changes
from dispatcher.domain.recipient import ChannelGroup
from dispatcher.intake.errors import Moment, StrictModel, validate
from dispatcher.intake.recipient import CONTRACT_VERSION
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.etags import etag, expected_version
from dispatcher.web.api.openapi import body
from dispatcher.web.api.recipients import RecipientId
from dispatcher.web.api.schemas.preferences import PreferencesBody, PreferencesResult
from dispatcher.web.api_keys import Right
from dispatcher.web.dependencies import JsonObject, PublisherDependency, ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.preferences import preferences_view

IfMatch = Annotated[str | None, Header(alias="If-Match", description="The ETag of the choices that the person saw.")]


def _visible(request: Request, recipient_id: RecipientId, services: ServicesDependency) -> None:
    """404 for a customer of other entities than the key's."""
    people.require_visible(services, request.state.principal, recipient_id)


router = APIRouter(
    prefix="/recipients/{recipient_id}/preferences",
    tags=["recipients"],
    dependencies=[Depends(needs(Right.PREFERENCES)), Depends(_visible)],
)


class PreferencesForm(StrictModel):
    """What a person said, where, and to whom. What is left out does not change."""

    offers: dict[OfferType, Mode] = Field(default_factory=dict)
    channels: dict[ChannelGroup, StrictBool] = Field(default_factory=dict)
    object_marketing: StrictBool | None = None
    object_profiling: StrictBool | None = None
    source: Literal["mobile", "touch", "live", "branch"]
    actor: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    wording: Annotated[str, StringConstraints(max_length=100)] = ""
    contract_version: Annotated[str, Field(description=CONTRACT_VERSION)] = ""
    at: Moment | None = None


@router.get("", response_model=PreferencesBody, responses=problem_responses(404))
def show_preferences(recipient_id: RecipientId, services: ServicesDependency, response: Response) -> dict[str, Any]:
    """A person's choices, each with its proof. The ETag is their version."""
    found = preferences.show(services, recipient_id)
    response.headers["ETag"] = etag(found.version)
    return preferences_view(found)


@router.put(
    "",
    response_model=PreferencesResult,
    responses=problem_responses(404, 412, 422),
    openapi_extra=body(PreferencesForm, "Preferences"),
)
def put_preferences(
    recipient_id: RecipientId,
    form: JsonObject,
    services: ServicesDependency,
    broker: PublisherDependency,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Record what a person said. With `If-Match`, only if nothing changed since: else 412, with the present ETag.

    One e-mail acknowledges an opt-out to the person.
    """
    parsed = validate(PreferencesForm, form, "preferences")
    change = preference_change(recipient_id, parsed, expected_version(if_match))
    recorded = preferences.record(services, broker.publish, change)
    now = preferences.show(services, recipient_id)
    response.headers["ETag"] = etag(now.version)
    return {**preferences_view(now), "outranked": [each.subject for each in recorded.superseded]}


def preference_change(recipient_id: str, form: PreferencesForm, expected_version: int | None) -> PreferenceChange:
    """What the form says of a person. Raises `BadChoice`."""
    return PreferenceChange(
        recipient_id,
        changes(
            {offer.value: mode.value for offer, mode in form.offers.items()},
            {group.value: on for group, on in form.channels.items()},
            form.object_marketing,
            form.object_profiling,
        ),
        form.source,
        form.actor,
        form.wording,
        said_at=form.at,
        expected_version=expected_version,
        contract_version=form.contract_version,
    )
