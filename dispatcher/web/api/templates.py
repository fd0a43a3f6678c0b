"""`/v1/templates`: list them with their approvals, approve a version, withdraw an approval, send one to a tester."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path
from pydantic import Field, StringConstraints

from channels.base import Channel
from dispatcher.campaigns import template_approval, template_history, tester_sends
from dispatcher.campaigns.tester_sends import TestRequest
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import require
from dispatcher.domain.recipient import Language
from dispatcher.intake.errors import StrictModel, validate
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api.schemas.templates import (
    TemplateBody,
    TemplateDiff,
    TemplateHistory,
    TemplateList,
    TesterSendBody,
    TesterSendList,
)
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses
from dispatcher.web.serializers.templates import known_version_view, template_view, tester_send_view, text_diff_view

TemplatesKey = Annotated[ApiKey, Depends(needs(Right.TEMPLATES))]
VersionDigest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The digest of a version.")]
TemplateName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,99}$", description="The name of the template.")]
ApprovalAction = Annotated[Literal["approve", "withdraw"], Path(description="What to do.")]

router = APIRouter(prefix="/templates", tags=["templates"], dependencies=[Depends(needs(Right.TEMPLATES))])


class TemplateVersionForm(StrictModel):
    """The template version that the person looked at."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    comment: Annotated[str, StringConstraints(max_length=2_000)] = ""


class TestForm(StrictModel):
    """A test send. `data` replaces the template's examples."""

    tester: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    channel: Channel
    language: Language | None = None
    mode: Literal[Mode.TAILORED, Mode.STANDARD] = Mode.STANDARD
    data: Annotated[dict[str, Any], Field(default_factory=dict)]


@router.get("", response_model=TemplateList)
def list_templates(services: ServicesDependency) -> dict[str, Any]:
    """Every template with the digest of its present version, and who approved that."""
    return {"templates": [template_view(each) for each in template_approval.template_versions(services)]}


@router.get("/{name}/history", response_model=TemplateHistory, responses=problem_responses(404))
def list_template_versions(name: TemplateName, services: ServicesDependency, entities: CallerEntities) -> dict[str, Any]:
    """Every version of a template: who approved or withdrew it, and which campaigns used it."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return {"versions": [known_version_view(each) for each in template_history.history_of(services, name, entities)]}


@router.get("/{name}/diff/{digest}", response_model=TemplateDiff, responses=problem_responses(404, 422))
def list_template_differences(name: TemplateName, digest: VersionDigest, services: ServicesDependency) -> dict[str, Any]:
    """What readers see differently in the template as it now is, compared with a former version, word by word."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return {"differences": [text_diff_view(each) for each in template_history.compare(services, name, digest)]}


@router.get("/{name}/tests", response_model=TesterSendList, responses=problem_responses(404))
def list_test_sends(name: TemplateName, services: ServicesDependency) -> dict[str, Any]:
    """The newest test sends of a template: who sent which version to whom, and what became of it."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return {"tests": [tester_send_view(each) for each in tester_sends.newest(services, name)]}


@router.post(
    "/{name}/test",
    response_model=TesterSendBody,
    responses=problem_responses(404, 422),
    openapi_extra=body(TestForm, "TestSend"),
)
def send_test(caller: TemplatesKey, name: TemplateName, form: JsonObject, services: ServicesDependency) -> dict[str, Any]:
    """Send the template as it now is to a tester of the policy, marked as a test. No approval is needed, and nothing is counted."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    parsed = validate(TestForm, form, "test")
    tester = tester_sends.tester_of(services, parsed.tester)
    language = parsed.language or tester.language
    request = TestRequest(services.catalog[name], parsed.channel, language, parsed.mode, caller.name, parsed.data)
    sent = tester_sends.send_test(services, tester, request)
    assert sent is not None  # noqa: S101  only a seed can have been sent before
    return tester_send_view(sent)


@router.post(
    "/{name}/{action}",
    response_model=TemplateBody,
    responses=problem_responses(404, 422),
    openapi_extra=body(TemplateVersionForm, "TemplateVersion"),
)
def set_template_approval(
    caller: TemplatesKey, name: TemplateName, action: ApprovalAction, form: JsonObject, services: ServicesDependency
) -> dict[str, Any]:
    """Approve the version of this digest, or withdraw its approval. The name of the key is the approver's, not the author's.

    Where the policy asks for two people, the first approval waits for that of another key.
    """
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    require(caller.principal, Right.TEMPLATES, services.catalog[name].entity)
    parsed = validate(TemplateVersionForm, form, "approval")
    version = template_approval.set_approval(services, name, action == "approve", caller.name, parsed.digest, parsed.comment)
    return template_view(version)
