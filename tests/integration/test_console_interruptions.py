"""The console where a form is interrupted: its session ends, another window changes the same draft, a button is pressed twice."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns import draft_checks, drafts, overview
from dispatcher.domain.errors import DraftConflict
from dispatcher.identity import sessions
from dispatcher.identity.sessions import CONSOLE, Origin
from dispatcher.runtime.services import Services
from dispatcher.web.console.session import BROWSER_COOKIE, COOKIE, cookies
from tests.integration.test_console_campaigns import OPTIONS, Marketer, clock, marketer, ready, web, workbook
from tests.support.people import add_user

__all__ = ["clock", "marketer", "web"]

SAME = {"Accept": "text/html", "sec-fetch-site": "same-origin"}
PASSWORD = "a-long-enough-password"
TYPED = {**OPTIONS, "tags": 'spring, "quoted" <b>', "cost_centre": "\nline two"}


@pytest.fixture
def ended(web: tuple[Services, TestClient]) -> tuple[Services, TestClient, str]:
    """The browser of a person whose session has just ended, and the token of the form that is still open in it."""
    services, client = web
    user = add_user(services, "mia", password=PASSWORD)
    session_id = sessions.start(services, user, Origin(CONSOLE, "testclient"))
    for name, value in zip((COOKIE, BROWSER_COOKIE), cookies(services, session_id, user), strict=True):
        client.cookies.set(name, value, path="/console")
    token = hidden(client.get("/console/campaigns/new").text)["form_token"]
    sessions.end(services, session_id)
    return services, client, token


def hidden(text: str) -> dict[str, str]:
    """The values of the hidden fields of a page's last form."""
    form = text.rpartition("<form")[2]
    inputs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    areas = re.findall(r'<textarea name="([^"]+)" hidden>\n(.*?)</textarea>', form, re.DOTALL)
    return {name: unescape(value) for name, value in (*inputs, *areas)}


def sign_in(client: TestClient, kept: str, name: str = "mia") -> Response:
    data = {"name": name, "password": PASSWORD, "kept": kept, "to": "/console"}
    return client.post("/console/login", data=data, headers=SAME, follow_redirects=False)


def test_a_form_of_an_ended_session_is_offered_again(ended: tuple[Services, TestClient, str]) -> None:
    services, client, token = ended
    data = {"form_token": token, **TYPED}
    answer = client.post("/console/campaigns/new", data=data, headers=SAME, follow_redirects=False)
    assert (answer.status_code, "not saved yet" in answer.text) == (403, True)
    assert "quoted" not in answer.text  # nobody else who signs in here reads it
    wrong = client.post("/console/login", data={"name": "mia", "password": "x", "kept": hidden(answer.text)["kept"]}, headers=SAME)
    answer = sign_in(client, hidden(wrong.text)["kept"])
    assert answer.status_code == 200
    fields = hidden(answer.text)
    assert fields.pop("form_token") != token
    assert fields["tags"] == TYPED["tags"]
    assert fields["cost_centre"] == TYPED["cost_centre"]
    assert not drafts.of_owner(services, "user:mia")  # nothing is done without its person


def test_a_kept_form_is_offered_to_nobody_else(ended: tuple[Services, TestClient, str]) -> None:
    services, client, token = ended
    data = {"form_token": token, **TYPED}
    kept = hidden(client.post("/console/campaigns/new", data=data, headers=SAME).text)["kept"]
    add_user(services, "bart", password=PASSWORD)
    answer = sign_in(client, kept, "bart")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    answer = client.post("/console/kept-form", data={"kept": kept}, follow_redirects=False)
    assert answer.headers["location"] == "/console"


def test_a_form_of_another_site_is_not_kept(ended: tuple[Services, TestClient, str]) -> None:
    _, client, token = ended
    for site in ("cross-site", "same-site", "none"):
        headers = {**SAME, "sec-fetch-site": site}
        answer = client.post("/console/campaigns/new", data={"form_token": token}, headers=headers, follow_redirects=False)
        assert answer.headers["location"].startswith("/console/login"), site


def test_a_password_is_not_kept(ended: tuple[Services, TestClient, str]) -> None:
    _, client, token = ended
    data = {"form_token": token, "old": "secret-1", "new": "secret-2", "again": "secret-2"}
    answer = client.post("/console/password", data=data, headers=SAME, follow_redirects=False)
    assert "do it again" in answer.text
    assert "kept" not in hidden(answer.text)


def test_a_file_of_an_ended_session_says_that_it_was_not_taken(ended: tuple[Services, TestClient, str]) -> None:
    _, client, token = ended
    files = {"file": ("a.csv", b"recipient\nanna\n")}
    pages = {"/console/drafts/1/audience": "/console/drafts/1/audience", "/console/campaigns/one/rows": "/console/campaigns/one"}
    for path, page in pages.items():
        answer = client.post(path, data={"form_token": token}, files=files, headers=SAME, follow_redirects=False)
        assert "do it again" in answer.text
        assert hidden(answer.text)["to"] == page


def test_a_form_of_the_session_before_is_offered_again(marketer: Marketer) -> None:
    data = {**OPTIONS, "form_token": "0" * 64}
    assert marketer.client.post("/console/campaigns/new", data=data, headers={"Accept": "text/html"}).status_code == 403
    answer = marketer.client.post("/console/campaigns/new", data=data, headers=SAME)
    assert hidden(answer.text)["form_token"] == marketer.token
    answer = marketer.client.post("/console/campaigns/new", data=hidden(answer.text), follow_redirects=False)
    assert answer.headers["location"].endswith("/audience")


def test_a_window_does_not_overwrite_what_another_changed(marketer: Marketer) -> None:
    no = ready(marketer)
    first = hidden(marketer.get(f"/console/drafts/{no}").partition('<details class="confirm">')[0])["shown"]
    assert marketer.post(f"/console/drafts/{no}", **OPTIONS, cost_centre="one", shown=first).status_code == 303
    answer = marketer.post(f"/console/drafts/{no}", **OPTIONS, cost_centre="two", shown=first)
    assert (answer.status_code, 'value="two"' in answer.text) == (409, True)
    draft = drafts.find(marketer.services, no, "user:mia")
    assert draft is not None
    assert draft.form["cost_centre"] == "one"
    again = hidden(answer.text.partition('<details class="confirm">')[0])["shown"]
    assert marketer.post(f"/console/drafts/{no}", **OPTIONS, cost_centre="two", shown=again).status_code == 303


def test_a_dry_run_does_not_put_old_options_back(marketer: Marketer) -> None:
    no = ready(marketer)
    draft = drafts.find(marketer.services, no, "user:mia")
    assert draft is not None
    later = marketer.services.clock() + timedelta(seconds=1)
    drafts.change_form(replace(marketer.services, clock=lambda: later), draft, {**draft.form, "cost_centre": "new"})
    with pytest.raises(DraftConflict):
        draft_checks.run(marketer.services, draft)
    stored = drafts.find(marketer.services, no, "user:mia")
    assert stored is not None
    assert (stored.form["cost_centre"], stored.dry_run) == ("new", None)


def test_only_what_the_page_showed_is_submitted(marketer: Marketer) -> None:
    no = ready(marketer)
    fields = hidden(marketer.get(f"/console/drafts/{no}/submit"))
    marketer.upload(no, workbook())
    answer = marketer.post(f"/console/drafts/{no}/submit", **fields)
    assert (answer.status_code, "another window" in answer.text) == (409, True)
    assert overview.find(marketer.services, "spring-loan") is None


def test_a_second_press_leads_to_the_same_campaign(marketer: Marketer) -> None:
    no = ready(marketer)
    fields = hidden(marketer.get(f"/console/drafts/{no}/submit"))
    for _ in range(2):
        answer = marketer.post(f"/console/drafts/{no}/submit", **fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/campaigns/spring-loan")
    assert marketer.post(f"/console/drafts/{no}/submit").status_code == 404
