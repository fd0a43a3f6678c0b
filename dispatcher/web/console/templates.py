"""The console's pages of templates: look at a version as customers see it, approve it, withdraw the approval."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel

from channels.base import Channel
from dispatcher.campaigns import template_approval, template_history, tester_sends
from dispatcher.campaigns.tester_sends import TestRequest
from dispatcher.campaigns.whatsapp_templates import statuses
from dispatcher.content import Template
from dispatcher.content.edge_cases import case_of, edge_cases
from dispatcher.content.lint.findings import lint_rules
from dispatcher.content.message_views import WIDTHS, with_scheme
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import Right, require
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.policy import Policy
from dispatcher.runtime import template_lint
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_previews import MessagePreview, message_preview, selections
from dispatcher.web.console.login import Operator, check_form_token
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/templates", default_response_class=HTMLResponse)

# The page shows a mail in a frame. The mail has its own styles and no scripts, and only the console may frame it.
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
    """Which rendering to show. A value that is missing or unknown stands for the template's first one."""

    channel: str = ""
    language: str = ""
    mode: str = ""
    case: str = ""
    scheme: str = "light"


class ApprovalForm(BaseModel):
    """The version that the page showed, and what the person wants to be kept with the approval."""

    digest: str = ""
    comment: str = ""
    form_token: str = ""


def _selected_values(selection: PreviewSelection, template: Template) -> dict[str, str]:
    known = {
        "channel": [channel.value for channel in template.channels],
        "language": list(LANGUAGES),
        "mode": sorted(mode.value for mode in template.info.modes),
        "case": [case.key for case in edge_cases(template)],
    }
    return {name: getattr(selection, name) if getattr(selection, name) in values else values[0] for name, values in known.items()}


def _preview(policy: Policy, template: Template, selected: dict[str, str]) -> MessagePreview:
    """The message that is selected."""
    data = case_of(template, selected["case"]).data
    return message_preview(policy, template, next(selections(template, data, **selected)))


def _whatsapp_status(services: Services, template: Template, selected: dict[str, str]) -> str:
    """What WhatsApp says of the text that is shown; nothing of other channels is looked up."""
    if selected["channel"] != Channel.WHATSAPP:
        return ""
    if services.template_client is None:
        return "not needed by this provider"
    mode = template.render_mode(Mode(selected["mode"]))
    found = (each for each in statuses(services, template.name) if (each.language, each.mode) == (selected["language"], mode))
    status = next(found, None)
    if status is None:
        return "not pushed"
    return f"{status.status}: {status.rejection_reason}" if status.rejection_reason else status.status


def _template(name: str, services: ServicesDependency) -> Template:
    if name not in services.catalog:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such template")
    return services.catalog[name]


TemplateDependency = Annotated[Template, Depends(_template)]


@router.get("")
def templates_page(operator: Operator, services: ServicesDependency) -> str:
    """All templates, and who approved each."""
    versions = template_approval.template_versions(services)
    return page("templates.html", operator=operator, versions=versions)


@router.get("/{name}")
def template_page(
    operator: Operator, template: TemplateDependency, selection: Annotated[PreviewSelection, Query()], services: ServicesDependency
) -> Response:
    """One template: its approval, a preview, the linter's findings, and the history of its approvals."""
    selected = _selected_values(selection, template)
    text = page(
        "template.html",
        operator=operator,
        version=template_approval.template_version(services, template.name),
        may_approve=operator.principal.may(Right.TEMPLATES, template.entity),
        may_test=_may_test(operator),
        versions=template_history.history_of(services, template.name, operator.principal.entities),
        findings=template_lint.lint_version(services.policy, template),
        rules=lint_rules(),
        blocks=set(template_lint.blocking(services.policy, template_lint.lint_version(services.policy, template))),
        selected=selected,
        tests=tester_sends.newest(services, template.name, 10),
        testers=sorted(name for name, each in services.policy.testers.items() if selected["channel"] in each.addresses),
        languages=LANGUAGES,
        message=_preview(services.policy, template, selected),
        cases=edge_cases(template),
        widths=WIDTHS,
        whatsapp_status=_whatsapp_status(services, template, selected),
    )
    return HTMLResponse(text, headers=WITH_FRAME)


@router.get("/{name}/diff/{digest}")
def diff_page(operator: Operator, template: TemplateDependency, digest: str, services: ServicesDependency) -> str:
    """What readers see differently in the present version, compared with a former one."""
    found = template_history.compare(services, template.name, digest)
    return page("template_diff.html", operator=operator, template=template, digest=digest, differences=found)


@router.get("/{name}/mail")
def mail(
    _: Operator, template: TemplateDependency, selection: Annotated[PreviewSelection, Query()], services: ServicesDependency
) -> Response:
    """An e-mail alone, for the frame."""
    message = _preview(services.policy, template, {**_selected_values(selection, template), "channel": Channel.EMAIL.value})
    if message.email is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "it cannot be rendered")
    return HTMLResponse(with_scheme(message.email.html, selection.scheme), headers=IN_FRAME)


@router.post("/{name}/test")
def send_test(
    operator: Operator,
    template: TemplateDependency,
    services: ServicesDependency,
    selection: Annotated[PreviewSelection, Query()],
    tester: Annotated[str, Form()] = "",
    form_token: Annotated[str, Form()] = "",
) -> Response:
    """Send the rendering that the page shows to a tester."""
    check_form_token(operator, form_token)
    if not _may_test(operator):
        require(operator.principal, Right.TEMPLATES)
    selected = _selected_values(selection, template)
    language = next(each for each in LANGUAGES if each == selected["language"])
    request = TestRequest(template, Channel(selected["channel"]), language, Mode(selected["mode"]), operator.principal.id)
    tester_sends.send_test(services, tester_sends.tester_of(services, tester), request)
    return RedirectResponse(f"/console/templates/{template.name}?{urlencode(selected)}#tests", HTTPStatus.SEE_OTHER)


def _may_test(operator: Operator) -> bool:
    """Whoever writes or approves sends tests."""
    return operator.principal.may(Right.TEMPLATES) or operator.principal.may(Right.CAMPAIGNS)


@router.post("/{name}/{action}")
def set_template_approval(
    operator: Operator,
    template: TemplateDependency,
    action: Literal["approve", "withdraw"],
    services: ServicesDependency,
    form: Annotated[ApprovalForm, Form()],
) -> Response:
    """Approve the version that the page showed, or withdraw its approval."""
    check_form_token(operator, form.form_token)
    require(operator.principal, Right.TEMPLATES, template.entity)
    template_approval.set_approval(services, template.name, action == "approve", operator.principal.id, form.digest, form.comment)
    return RedirectResponse(f"/console/templates/{template.name}", HTTPStatus.SEE_OTHER)
