"""The workbench's pages. They read files and send nothing; a fault of a template is shown at its line and never ends the page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from itertools import groupby
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from channels.base import Channel
from dispatcher.content import Template
from dispatcher.content.edge_cases import case_of, edge_cases
from dispatcher.content.lint.findings import Severity
from dispatcher.content.message_views import WIDTHS, with_scheme
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.domain.spelling import did_you_mean
from dispatcher.runtime.template_previews import MessagePreview, message_preview, selections
from dispatcher.web.middleware import SecurityHeaders
from dispatcher.web.pages.workbench import SCRIPT, STYLE, page
from dispatcher.web.workbench.folder import TemplateReport, WorkbenchFolder, excerpts, read_values

HOSTS = ["127.0.0.1", "localhost"]  # another name in the Host header is that of a site that resolves to this machine
LOOK_SECONDS, PING_SECONDS = 0.3, 15
SEVERITIES = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
TITLES = {Channel.PUSH: "Push", Channel.EMAIL: "E-mail", Channel.SMS: "SMS", Channel.WHATSAPP: "WhatsApp"}
PAGE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}
IN_FRAME = {  # a mail has its own styles and no scripts, and only the workbench may frame it
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; "
    "frame-ancestors 'self'; base-uri 'none'; sandbox",
    "X-Frame-Options": "SAMEORIGIN",
}


class WorkbenchChoice(BaseModel):
    """What a page shows. Empty or unknown values stand for all; `data` is JSON that the author typed."""

    channel: str = ""
    language: str = ""
    mode: str = ""
    case: str = ""
    size: str = ""
    data: str = ""


Choice = Annotated[WorkbenchChoice, Query()]


def create_workbench(folder: WorkbenchFolder, is_ending: Callable[[], bool] = lambda: False) -> FastAPI:
    """The application for one folder. Open streams of events end when `is_ending`: a server waits for them."""
    app = FastAPI(title="workbench", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(SecurityHeaders, https=False)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)

    def shown(name: str, status: HTTPStatus = HTTPStatus.OK, **values: Any) -> Response:
        text = page(name, version=folder.version(), folder=folder.folder, **values)
        return HTMLResponse(text, status, headers=PAGE)

    @app.get("/")
    def index() -> Response:
        """All templates."""
        return shown("index.html", reports=folder.reports())

    @app.get("/templates/{name}")
    def template_page(name: str, choice: Choice) -> Response:
        """One template: its findings beside the lines, and its messages."""
        if name not in folder.names():
            text = f"There is no template {name!r}{did_you_mean(name, folder.names())}."
            return shown("fault.html", HTTPStatus.NOT_FOUND, title="Not found", text=text)
        report = folder.report(name)
        values = _template_values(folder, report, choice) if report.template else _NO_MESSAGES
        found = Counter(each.severity for each in report.findings)
        return shown(
            "template.html",
            report=report,
            choice=choice,
            counts=[(name, found[severity]) for severity, name in SEVERITIES.items() if found[severity]],
            titles=TITLES,
            excerpts=excerpts(report),
            languages=LANGUAGES,
            widths=WIDTHS,
            data_file=folder.data_file.name if folder.data_file else "",
            **values,
        )

    @app.get("/templates/{name}/mail")
    def mail(name: str, choice: Choice, scheme: str = "light") -> Response:
        """One mail alone, for a frame."""
        template = folder.report(name).template if name in folder.names() else None
        if template is None:
            return HTMLResponse("", HTTPStatus.NOT_FOUND, headers=IN_FRAME)
        data, _ = _values(folder, template, choice)
        only = {"channel": "email", "language": choice.language, "mode": choice.mode}
        message = message_preview(folder.policy, template, next(selections(template, data, **only)))
        html = message.email.html if message.email else ""
        return HTMLResponse(with_scheme(html, scheme), headers=IN_FRAME)

    @app.get("/events")
    def events(request: Request) -> Response:
        """The folder's version, and again after each change: server-sent events."""
        return StreamingResponse(folder_versions(folder, request, is_ending), media_type="text/event-stream")

    @app.get("/style.css")
    def style() -> Response:
        """The style sheet."""
        return Response(STYLE, media_type="text/css")

    @app.get("/workbench.js")
    def script() -> Response:
        """The script that reloads a page."""
        return Response(SCRIPT, media_type="text/javascript")

    return app


_NO_MESSAGES = {"cases": (), "case": None, "data_faults": (), "by_channel": ()}


def _values(folder: WorkbenchFolder, template: Template, choice: WorkbenchChoice) -> tuple[dict[str, Any], list[str]]:
    """The values of a page, and what is wrong with those that the author gave."""
    of_file, file_faults = folder.data()
    typed, typed_faults = read_values(choice.data, "Your own values")
    own = {**of_file, **typed}
    faults = [*file_faults, *typed_faults, *(f"{name}: {message}" for name, message in template.data_errors(typed))]
    declared = {name: value for name, value in own.items() if name in template.variables}
    return {**case_of(template, choice.case).data, **declared}, faults


def _template_values(folder: WorkbenchFolder, report: TemplateReport, choice: WorkbenchChoice) -> dict[str, Any]:
    template = report.template
    assert template is not None  # noqa: S101  the caller looked
    data, faults = _values(folder, template, choice)
    only = {name: value for name, value in choice if name in ("channel", "language", "mode")}
    messages = [message_preview(folder.policy, template, each) for each in selections(template, data, **only)]
    by_channel = groupby(messages, lambda each: each.selection.channel)
    return {
        "cases": edge_cases(template),
        "case": case_of(template, choice.case),
        "data_faults": faults,
        "by_channel": [(channel, list(_with_queries(same, choice))) for channel, same in by_channel],
    }


def _with_queries(messages: Iterator[MessagePreview], choice: WorkbenchChoice) -> Iterator[tuple[MessagePreview, str]]:
    """Each message with the query of its own page, for the frames of a mail."""
    for message in messages:
        own = {"language": message.selection.language, "mode": message.selection.mode, "case": choice.case, "data": choice.data}
        yield message, urlencode({name: value for name, value in own.items() if value}) if _is_mail(message) else ""


def _is_mail(message: MessagePreview) -> bool:
    return message.selection.channel is Channel.EMAIL


async def folder_versions(
    folder: WorkbenchFolder, request: Request, is_ending: Callable[[], bool] = lambda: False
) -> AsyncIterator[str]:
    """The folder's version as a server-sent event, now and after each change, until the browser is gone."""
    sent, waited = "", 0.0
    while not is_ending() and not await request.is_disconnected():
        version = await asyncio.to_thread(folder.version)
        if version != sent:
            yield f"data: {version}\n\n"
            sent, waited = version, 0.0
        elif waited >= PING_SECONDS:  # finds out whether the browser is still there
            yield ":\n\n"
            waited = 0.0
        await asyncio.sleep(LOOK_SECONDS)
        waited += LOOK_SECONDS
