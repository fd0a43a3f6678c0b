"""`/v1/templates`: list them with their approvals, approve a version, withdraw an approval."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path
from pydantic import StringConstraints

from dispatcher.campaigns import template_approval
from dispatcher.intake.errors import StrictModel, validate
from dispatcher.web import serializers
from dispatcher.web.api import schemas
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.openapi import body
from dispatcher.web.api_keys import ApiKey, Right
from dispatcher.web.dependencies import JsonObject, ServicesDependency
from dispatcher.web.errors import problem_responses

TemplatesKey = Annotated[ApiKey, Depends(needs(Right.TEMPLATES))]
TemplateName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,99}$")]

router = APIRouter(prefix="/templates", tags=["templates"], dependencies=[Depends(needs(Right.TEMPLATES))])


class TemplateVersionForm(StrictModel):
    """The template version that the person looked at."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@router.get("", response_model=schemas.TemplateList)
def list_templates(services: ServicesDependency) -> dict[str, Any]:
    """Every template with the digest of its present version, and who approved that."""
    return {"templates": [serializers.template_view(each) for each in template_approval.template_versions(services)]}


@router.post(
    "/{name}/{action}",
    response_model=schemas.TemplateBody,
    responses=problem_responses(404, 422),
    openapi_extra=body(TemplateVersionForm, "TemplateVersion"),
)
def set_template_approval(
    caller: TemplatesKey, name: TemplateName, action: Literal["approve", "withdraw"], form: JsonObject, services: ServicesDependency
) -> dict[str, Any]:
    """Approve the version of this digest, or withdraw its approval. The name of the key is the approver's, not the author's."""
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    digest = validate(TemplateVersionForm, form, "approval").digest
    return serializers.template_view(template_approval.set_approval(services, name, action == "approve", caller.name, digest))
