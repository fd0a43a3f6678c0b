"""The console's pages on templates: look at a wording as people would see it, approve it, take that back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from channels.base import Channel, Email, PlainContent, Sms, assemble
from dispatcher.campaigns import template_approval
from dispatcher.content import ContentRefusal, MessageSender, Template, count_segments, example_request
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.ledger.campaigns import template_approvals
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import Right
from dispatcher.web.console.campaigns import Operator, same_page
from dispatcher.web.dependencies import ServicesHere
from dispatcher.web.pages.console import page
from dispatcher.web.serializers import approval_text

router = APIRouter(prefix="/console/templates", include_in_schema=False, default_response_class=HTMLResponse)

# The page shows a mail in a frame; the mail has styles of its own, no scripts, and may be framed by the console only.
WITH_FRAME = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}
IN_FRAME = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; "
    "frame-ancestors 'self'; base-uri 'none'; sandbox",
    "X-Frame-Options": "SAMEORIGIN",
}


class PreviewSelection(BaseModel):
    """Which rendering to look at; what is not asked for, or not there, is the template's first."""

    channel: str = ""
    language: str = ""
    mode: str = ""


def _choice(asked: PreviewSelection, template: Template) -> dict[str, str]:
    known = {
        "channel": [channel.value for channel in template.channels],
        "language": list(LANGUAGES),
        "mode": sorted(mode.value for mode in template.info.modes),
    }
    return {name: getattr(asked, name) if getattr(asked, name) in values else values[0] for name, values in known.items()}


def _written(services: Services, template: Template, choice: dict[str, str]) -> tuple[PlainContent, str]:
    """The content from the template's examples, and what a WhatsApp reader would see. Raises ContentRefusal."""
    entity = services.policy.entities.get(template.entity)
    sender = MessageSender(entity.names[choice["language"]], entity.sender_address) if entity else None
    letter = example_request(template, Channel(choice["channel"]), choice["language"], Mode(choice["mode"]), sender=sender)
    content = assemble(template.render(letter))
    return content, template.visible_text(content, letter)


def _template(name: str, services: ServicesHere) -> Template:
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such template")
    return services.catalog[name]


TemplateHere = Annotated[Template, Depends(_template)]


@router.get("")
def templates_page(operator: Operator, services: ServicesHere) -> str:
    """All templates, and who approved each."""
    return page("templates.html", operator=operator, wordings=template_approval.template_versions(services), words=approval_text)


@router.get("/{name}")
def template_page(
    operator: Operator, template: TemplateHere, asked: Annotated[PreviewSelection, Query()], services: ServicesHere
) -> Response:
    """One template: how it stands, how it looks, and what was said of it."""
    with lend(services.pool) as connection:
        history = template_approvals.history(connection, template.name)
    choice = _choice(asked, template)
    seen: dict[str, Any] = {"content": None, "shown": "", "refused": None}
    try:
        seen["content"], seen["shown"] = _written(services, template, choice)
    except ContentRefusal as refusal:
        seen["refused"] = refusal
    text = page(
        "template.html",
        operator=operator,
        wording=template_approval.template_version(services, template.name),
        words=approval_text,
        may_say=Right.TEMPLATES in operator.key.rights,
        history=history,
        choice=choice,
        languages=LANGUAGES,
        segments=count_segments(seen["content"].text) if isinstance(seen["content"], Sms) else None,
        **seen,
    )
    return HTMLResponse(text, headers=WITH_FRAME)


@router.get("/{name}/mail")
def mail(_: Operator, template: TemplateHere, asked: Annotated[PreviewSelection, Query()], services: ServicesHere) -> Response:
    """An e-mail alone, for the frame."""
    try:
        content, _shown = _written(services, template, _choice(asked, template))
    except ContentRefusal:
        raise HTTPException(HTTPStatus.NOT_FOUND, "it can't be written") from None
    return HTMLResponse(content.html if isinstance(content, Email) else "", headers=IN_FRAME)


@router.post("/{name}/{word}")
def set_template_approval(
    operator: Operator,
    template: TemplateHere,
    word: Literal["approve", "withdraw"],
    services: ServicesHere,
    digest: Annotated[str, Form()] = "",
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Approve the wording that the page showed, or withdraw that."""
    same_page(operator, form_token)
    if Right.TEMPLATES not in operator.key.rights:
        raise HTTPException(HTTPStatus.FORBIDDEN, "your key lacks the right templates")
    template_approval.set_approval(services, template.name, word == "approve", operator.key.name, digest)
    return RedirectResponse(f"/console/templates/{template.name}", HTTPStatus.SEE_OTHER)
