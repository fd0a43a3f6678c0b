"""The dry run of a draft, examples of its messages, and test sends."""

from __future__ import annotations

from http import HTTPStatus
from itertools import product
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dispatcher.campaigns import draft_checks, drafts, tester_sends
from dispatcher.campaigns.drafts import Draft
from dispatcher.campaigns.message_examples import EXAMPLE_ROWS_MAX
from dispatcher.campaigns.tester_sends import TestRequest
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from dispatcher.web import auditing
from dispatcher.web.api.campaigns import DRY_RUN_LOCK
from dispatcher.web.console.draft_forms import OwnDraft, PostedForm, entity_of, without_commands
from dispatcher.web.console.login import Operator
from dispatcher.web.console.release_view import by_channel
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/drafts/{no}", default_response_class=HTMLResponse)

BUSY = "Another dry run is under way. Try again in a moment."


@router.get("/check")
def check_page(operator: Operator, services: ServicesDependency, draft: OwnDraft) -> str:
    """What the campaign would do, by the last dry run."""
    return _page(operator, services, draft, [])


@router.post("/check")
def run_check(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:  # noqa: ARG001
    """Decide and render every message; send and keep nothing but the counts."""
    if not DRY_RUN_LOCK.acquire(blocking=False):
        return HTMLResponse(_page(operator, services, draft, [BUSY]), HTTPStatus.TOO_MANY_REQUESTS)
    try:
        draft_checks.run(services, draft)
    except BadInput as error:
        text = _page(operator, services, draft, _messages(error))
        return HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY)
    finally:
        DRY_RUN_LOCK.release()
    return RedirectResponse(f"/console/drafts/{draft.no}/check", HTTPStatus.SEE_OTHER)


def _messages(error: BadInput) -> list[str]:
    return [without_commands(f"{fault.field}: {fault.message}" if fault.field else fault.message) for fault in error.faults[:20]]


def _page(operator: ConsoleSession, services: Services, draft: Draft, messages: list[str]) -> str:
    counts: Any = draft.dry_run
    return page(
        "draft_check.html",
        operator=operator,
        draft=draft,
        counts=counts,
        messages=messages,
        needs=[without_commands(need) for need in counts["needs"]] if counts else [],
        obstacles=by_channel(counts["obstacles"]) if counts else {},
        seconds=draft_checks.seconds_at_rate(counts, draft.form.get("rate_per_second")) if counts else None,
        testers=sorted(services.policy.testers),
        tests=[each for name in drafts.check_names(draft.form) for each in tester_sends.newest(services, name, 5)],
        ready=bool(draft.file_check and draft.file_check["rows"] and not draft.file_check["fault"]),
        rows_max=draft_checks.DRY_RUN_ROWS_MAX,
    )


@router.get("/examples")
def examples_page(operator: Operator, request: Request, services: ServicesDependency, draft: OwnDraft) -> Response:
    """A message for each language and channel, from real rows. Each look at a recipient is recorded."""
    entity = entity_of(services, draft.form)
    with_profiles = operator.principal.may(Right.PEOPLE, entity)
    if not DRY_RUN_LOCK.acquire(blocking=False):
        return HTMLResponse(_page(operator, services, draft, [BUSY]), HTTPStatus.TOO_MANY_REQUESTS)
    try:
        found = draft_checks.examples(services, draft, with_profiles)
    except BadInput as error:
        return HTMLResponse(_page(operator, services, draft, _messages(error)), HTTPStatus.UNPROCESSABLE_ENTITY)
    finally:
        DRY_RUN_LOCK.release()
    for recipient in sorted({each.recipient for each in found}):
        note = AuditNote(
            AuditAction.LOOK, "recipient", recipient, recipient=recipient, entity=entity, reason=f"examples of draft {draft.no}"
        )
        auditing.note(request, note)
    text = page(
        "draft_examples.html",
        operator=operator,
        draft=draft,
        examples=found,
        with_profiles=with_profiles,
        rows_max=EXAMPLE_ROWS_MAX,
    )
    return HTMLResponse(text)


@router.post("/test")
def send_tests(operator: Operator, services: ServicesDependency, draft: OwnDraft, posted: PostedForm) -> Response:
    """Send the templates with their examples to a tester, on each of the campaign's channels that the tester has."""
    try:
        count, messages = _send_tests(services, draft, posted.text("tester"), operator.principal.id)
    except BadInput as error:
        count, messages = 0, _messages(error)
    if not count:
        return HTMLResponse(_page(operator, services, draft, messages), HTTPStatus.UNPROCESSABLE_ENTITY)
    return RedirectResponse(f"/console/drafts/{draft.no}/check#tests", HTTPStatus.SEE_OTHER)


def _send_tests(services: Services, draft: Draft, name: str, actor: str) -> tuple[int, list[str]]:
    """How many test messages were sent, and why others were not. Raises BadInput."""
    tester, spec = tester_sends.tester_of(services, name), drafts.check_form(services, draft.form)
    count, messages = 0, []
    for template_name, channel in product(spec.templates, spec.channels):
        template = services.catalog[template_name]
        for mode in sorted(template.info.modes):
            request = TestRequest(template, channel, tester.language, mode, actor, entity=spec.entity)
            try:
                count += tester_sends.send_test(services, tester, request) is not None
            except BadInput as error:
                messages += _messages(error)
    return count, list(dict.fromkeys(messages))
