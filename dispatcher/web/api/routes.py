"""The API: campaigns, messages, recipients and preferences, for systems that hold a key."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Response
from pydantic import Field, StrictBool, StringConstraints

from dispatcher.campaigns import scheduler, template_approval
from dispatcher.campaigns import submission as submission_module
from dispatcher.campaigns.actions import CampaignAction, apply, is_in_target_state
from dispatcher.consent import acknowledgement
from dispatcher.delivery import explanation
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import changes
from dispatcher.domain.recipient import ChannelGroup
from dispatcher.intake.campaign import CampaignForm, parse_campaign
from dispatcher.intake.errors import BadInput, InputError, Moment, StrictModel, validate
from dispatcher.intake.recipient_import import ERASED, BadRecipient, RecipientForm, parse
from dispatcher.intake.trigger import TriggerForm, parse_trigger
from dispatcher.ledger.campaigns import balance, lifecycle
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events, recipients
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime.services import Services
from dispatcher.web import serializers
from dispatcher.web.api import schemas
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, PublisherHere, ServicesHere, publish_or_leave
from dispatcher.web.errors import answers as problems

ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"
CampaignId = Annotated[str, Path(pattern=ID)]
RecipientId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
FAULTS_SHOWN = 20

router = APIRouter(prefix="/v1", responses=problems(401, 403, 413, 503))


# -- campaigns ---------------------------------------------------------------------------------------------------------

CampaignsKey = Annotated[ApiKey, Depends(needs(Right.CAMPAIGNS))]
for_campaigns = APIRouter(prefix="/campaigns", tags=["campaigns"], dependencies=[Depends(needs(Right.CAMPAIGNS))])


@for_campaigns.post("", status_code=201, responses=problems(409, 422), openapi_extra=body(CampaignForm, "Campaign"))
def submit_campaign(
    caller: CampaignsKey, form: JsonObject, services: ServicesHere, broker: PublisherHere, response: Response
) -> schemas.CampaignAccepted:
    """Take a campaign with its whole audience, inline as rows such as `{"recipient": "c-1", "data": {…}}`.

    The same id with the same content gets the same answer, and nothing is done again; with other content, 409.
    """
    if isinstance(form.get("audience"), str):
        raise BadInput(InputError("campaign", 0, "audience", "should be a list of rows; files of ours can't be named here"))
    known = _find(services, str(form.get("id", "")))
    desk = submission_module.validation_context(services)
    submission = parse_campaign(form, replace(desk, now=known.created_at) if known else desk)
    if submission_module.submit(services, submission, by=caller.name).taken is submission_module.SubmitStatus.CONFLICT:
        raise HTTPException(HTTPStatus.CONFLICT, "this id was used before, with other content")
    publish_or_leave(broker.publish, scheduler.due_chunks(services))
    response.headers["Location"] = f"/v1/campaigns/{submission.id}"
    with lend(services.pool) as connection:
        campaign = _known(lifecycle.find(connection, submission.id))
        faults = lifecycle.audience_errors(connection, campaign.no, FAULTS_SHOWN)
    return schemas.CampaignAccepted(
        id=campaign.id,
        audience=campaign.audience,
        invalid=campaign.invalid,
        faults=[schemas.AudienceErrorBody(line=line, field=field, message=message) for line, field, message in faults],
    )


@for_campaigns.get("", response_model=schemas.CampaignList, responses=problems(422))
def list_campaigns(services: ServicesHere, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> dict[str, Any]:
    """The newest campaigns, newest first."""
    with lend(services.pool) as connection:
        return {"campaigns": [serializers.campaign_line(campaign) for campaign in lifecycle.newest(connection, limit)]}


@for_campaigns.get("/{campaign_id}", response_model=schemas.CampaignBody, responses=problems(404))
def show_campaign(campaign_id: CampaignId, services: ServicesHere) -> dict[str, Any]:
    """A campaign with its balance."""
    with lend(services.pool) as connection:
        campaign = _known(lifecycle.find(connection, campaign_id))
        return serializers.campaign_view(campaign, balance.balance(connection, campaign), services.clock())


@for_campaigns.post("/{campaign_id}/{move}", response_model=schemas.CampaignStateBody, responses=problems(404, 409))
def act_on_campaign(
    caller: CampaignsKey, campaign_id: CampaignId, move: CampaignAction, services: ServicesHere, broker: PublisherHere
) -> dict[str, Any]:
    """Release, pause, resume or cancel. What is so already is answered like what has just been done; what can't be is a 409.

    A campaign with a large audience is released by another key than the one that submitted it.
    """
    campaign = _known(apply(services, campaign_id, move, caller.name))
    if not is_in_target_state(campaign, move):
        if move is CampaignAction.RELEASE and campaign.state is CampaignState.AWAITING_RELEASE:
            raise HTTPException(HTTPStatus.CONFLICT, "whoever submitted a campaign can't release it: that takes somebody else")
        raise HTTPException(HTTPStatus.CONFLICT, f"can't {move} a campaign that is {campaign.state}")
    publish_or_leave(broker.publish, scheduler.due_chunks(services))
    return {"id": campaign.id, "state": campaign.state}


def _find(services: Services, campaign_id: str) -> Campaign | None:
    with lend(services.pool) as connection:
        return lifecycle.find(connection, campaign_id)


def _known(campaign: Campaign | None) -> Campaign:
    if campaign is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return campaign


# -- messages ----------------------------------------------------------------------------------------------------------

for_messages = APIRouter(prefix="/messages", tags=["messages"], dependencies=[Depends(needs(Right.MESSAGES))])
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r'^"?[!#-~]{1,200}"?$')]


@for_messages.post("", status_code=202, responses=problems(409, 422), openapi_extra=body(TriggerForm, "Message", optional=("key",)))
def send_message(
    form: JsonObject, services: ServicesHere, broker: PublisherHere, response: Response, idempotency_key: IdempotencyKey = None
) -> schemas.MessageAccepted:
    """Take one message, to be sent at once; its key comes in the body or as `Idempotency-Key`.

    The same key with the same content gets the same answer, and nothing is done again; with other content, 409.
    """
    if idempotency_key is not None:
        key = idempotency_key.strip('"')
        if form.setdefault("key", key) != key:
            raise BadInput(InputError("job", 0, "key", "is not the one in the header Idempotency-Key"))
    trigger = parse_trigger(form, submission_module.validation_context(services))
    try:
        place = submission_module.take_trigger(services, trigger)
    except submission_module.KeyConflict as error:
        raise HTTPException(HTTPStatus.CONFLICT, "this key was used before, with other content") from error
    if place.fresh:
        publish_or_leave(broker.publish, [DueChunk(place.period, place.chunk, None)])
    message_id = str(MessageId(place.period, place.chunk, 0))
    response.headers["Location"] = f"/v1/messages/{message_id}"
    return schemas.MessageAccepted(id=message_id)


@for_messages.get("/{message_id}", response_model=schemas.MessageBody, responses=problems(404))
def show_message(message_id: str, services: ServicesHere) -> dict[str, Any]:
    """A message, the decision behind it, and what its provider told us since."""
    return serializers.message_view(_message(services, message_id))


@for_messages.get("/{message_id}/explanation", response_model=schemas.ExplanationBody, responses=problems(404, 422))
def explain_message(message_id: str, services: ServicesHere, language: Literal["nl", "fr", "de", "en"] = "en") -> dict[str, Any]:
    """Why a message was sent or not, in sentences for the customer, true to the decision as it was taken."""
    message = _message(services, message_id)
    with lend(services.pool) as connection:
        return serializers.explanation_view(message, explanation.explain_message(services, connection, message, language))


def _message(services: Services, message_id: str) -> Message:
    with lend(services.pool) as connection:
        message = messages.find(connection, MessageId.parse(message_id))
    if message is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return message


# -- recipients --------------------------------------------------------------------------------------------------------

for_recipients = APIRouter(prefix="/recipients", tags=["recipients"])
RecipientsKey = Annotated[ApiKey, Depends(needs(Right.RECIPIENTS))]
PreferencesKey = Annotated[ApiKey, Depends(needs(Right.PREFERENCES))]


@for_recipients.put(
    "/{recipient_id}",
    responses={**problems(409, 422), 201: {"model": schemas.RecipientResult}},
    openapi_extra=body(RecipientForm, "Recipient", optional=("id",)),
)
def put_recipient(
    caller: RecipientsKey, recipient_id: RecipientId, form: JsonObject, services: ServicesHere, response: Response
) -> schemas.RecipientResult:
    """Take in a recipient, in the form of the import file; what was known of them before is replaced. 201 for a new one."""
    if form.setdefault("id", recipient_id) != recipient_id:
        raise BadInput(InputError("recipient", 0, "id", "is not the one in the path"))
    try:
        recipient = parse(form, services.clock())
    except BadRecipient as error:
        raise BadInput(InputError("recipient", 0, error.field, error.reason)) from None
    with lend(services.pool) as connection:
        taken = recipients.upsert(connection, services.secret, [recipient], actor(caller), services.clock())
        if taken.erased:
            raise HTTPException(HTTPStatus.CONFLICT, ERASED)
        version = events.preferences(connection, recipient_id).version
    outcome = "new" if taken.new else "changed" if taken.changed else "unchanged"
    if taken.new:
        response.status_code = HTTPStatus.CREATED
    return schemas.RecipientResult(id=recipient_id, outcome=outcome, version=version)


@for_recipients.delete("/{recipient_id}", status_code=204, responses=problems(404))
def erase_recipient(caller: RecipientsKey, recipient_id: RecipientId, services: ServicesHere) -> None:
    """Forget a person. Decisions stay, without content; bans on addresses stay, without the address."""
    with lend(services.pool) as connection:
        recipients.erase(connection, services.secret, recipient_id, actor(caller), services.clock())


def actor(caller: ApiKey) -> str:
    """How a caller stands in the ledger."""
    return f"api:{caller.name}"


# -- preferences -------------------------------------------------------------------------------------------------------


class PreferencesForm(StrictModel):
    """What a person said, where, and to whom. What is left out stays as it is."""

    offers: dict[OfferType, Mode] = Field(default_factory=dict)
    channels: dict[ChannelGroup, StrictBool] = Field(default_factory=dict)
    object_marketing: StrictBool | None = None
    object_profiling: StrictBool | None = None
    source: Literal["mobile", "touch", "live", "branch"]
    actor: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    wording: Annotated[str, StringConstraints(max_length=100)] = ""
    at: Moment | None = None


IfMatch = Annotated[str | None, Header(alias="If-Match", description="The ETag of the choices that the person saw.")]


@for_recipients.get("/{recipient_id}/preferences", response_model=schemas.PreferencesBody, responses=problems(404))
def show_preferences(_: PreferencesKey, recipient_id: RecipientId, services: ServicesHere, response: Response) -> dict[str, Any]:
    """A person's choices, each with its proof. The ETag is their version."""
    with lend(services.pool) as connection:
        preferences = events.preferences(connection, recipient_id)
    response.headers["ETag"] = _etag(preferences.version)
    return serializers.preferences_view(preferences)


@for_recipients.put(
    "/{recipient_id}/preferences",
    response_model=schemas.PreferencesResult,
    responses=problems(404, 412, 422),
    openapi_extra=body(PreferencesForm, "Preferences"),
)
def put_preferences(
    _: PreferencesKey,
    recipient_id: RecipientId,
    form: JsonObject,
    services: ServicesHere,
    broker: PublisherHere,
    response: Response,
    if_match: IfMatch = None,
) -> dict[str, Any]:
    """Record what a person said. With `If-Match`, only if nobody changed anything since: else 412, and the ETag that stands.

    A no is acknowledged to the person by one e-mail.
    """
    said = validate(PreferencesForm, form, "preferences")
    asked = changes(
        {offer.value: mode.value for offer, mode in said.offers.items()},
        {group.value: on for group, on in said.channels.items()},
        said.object_marketing,
        said.object_profiling,
    )
    recorded = acknowledgement.record(
        services, broker.publish, recipient_id, asked, said.source, said.actor, said.wording, said.at, _version(if_match)
    )
    with lend(services.pool) as connection:
        preferences = events.preferences(connection, recipient_id)
    response.headers["ETag"] = _etag(preferences.version)
    return {**serializers.preferences_view(preferences), "outranked": [change.subject for change in recorded.outranked]}


def _etag(version: int) -> str:
    return f'"{version}"'


def _version(if_match: str | None) -> int | None:
    """The version that must still stand; None for any. What is no ETag of ours matches nothing."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().strip('"')
    return int(tag) if tag.isascii() and tag.isdigit() and len(tag) <= 18 and if_match.strip() == _etag(int(tag)) else -1


# -- templates ---------------------------------------------------------------------------------------------------------

TemplatesKey = Annotated[ApiKey, Depends(needs(Right.TEMPLATES))]
TemplateName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,99}$")]
for_templates = APIRouter(prefix="/templates", tags=["templates"], dependencies=[Depends(needs(Right.TEMPLATES))])


class TemplateVersionForm(StrictModel):
    """Which wording a word is about: what the person looked at."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@for_templates.get("", response_model=schemas.TemplateList)
def list_templates(services: ServicesHere) -> dict[str, Any]:
    """Every template with the digest of its present wording, and who approved that."""
    return {"templates": [serializers.template_view(each) for each in template_approval.template_versions(services)]}


@for_templates.post(
    "/{name}/{word}",
    response_model=schemas.TemplateBody,
    responses=problems(404, 422),
    openapi_extra=body(TemplateVersionForm, "Wording"),
)
def set_template_approval(
    caller: TemplatesKey, name: TemplateName, word: Literal["approve", "withdraw"], form: JsonObject, services: ServicesHere
) -> dict[str, Any]:
    """Approve a template's present wording, or withdraw that. The key's name is the person's, and not the author's."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    digest = validate(TemplateVersionForm, form, "approval").digest
    return serializers.template_view(template_approval.set_approval(services, name, word == "approve", caller.name, digest))


for part in (for_campaigns, for_messages, for_recipients, for_templates):
    router.include_router(part)
