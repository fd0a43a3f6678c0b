"""The console in a real browser, without scripts: a marketer goes from an Excel file to a submitted campaign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from dispatcher.campaigns import draft_checks, drafts, overview
from dispatcher.domain.principal import Role
from dispatcher.identity import sessions
from dispatcher.identity.sessions import CONSOLE, Origin
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from dispatcher.web.console.session import COOKIE, cookies
from tests.e2e.test_browser import DESK, PHONE, browser, follow, pytestmark, serving
from tests.e2e.test_mails_in_browser import AXE, SERIOUS
from tests.integration.test_console_campaigns import workbook
from tests.support.form_client import open_visits
from tests.support.people import add_user
from tests.support.services import add_people, person, work

__all__ = ["browser", "pytestmark"]

PASSWORD = "a-long-enough-password"


@pytest.fixture
def console(database: str, tmp_path: Path) -> Iterator[tuple[Services, str]]:
    with open_visits(database) as visits:
        services = replace(visits.services, audiences=tmp_path)
        add_people(services, *(person(name, number) for number, name in enumerate(("anna", "bert", "carl", "dora"), start=1)))
        add_user(services, "mia", [Role.MARKETER], password=PASSWORD)
        add_user(services, "bart", [Role.APPROVER], password=PASSWORD)
        with serving(replace(visits, services=services)) as url:
            yield services, url


def log_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    follow(page.get_by_role("button", name="Sign in"))


def end_sessions(services: Services) -> None:
    with lend(services.pool) as connection:
        connection.execute("DELETE FROM sessions")


def test_a_campaign_goes_from_a_workbook_to_its_results(browser: Browser, console: tuple[Services, str], tmp_path: Path) -> None:
    """The day of a marketer, whose session ends while a form is filled in, and of an approver."""
    services, url = console
    file = tmp_path / "customers.xlsx"
    file.write_bytes(workbook())
    window = browser.new_context(java_script_enabled=False)
    page: Page = window.new_page()
    page.goto(f"{url}/console/campaigns/new")
    log_in(page, "mia")
    page.get_by_label("Template", exact=True).select_option("loan_offer")
    page.get_by_label("Name of the campaign").fill("spring-loan")
    page.get_by_label("1.").select_option("email")
    page.get_by_text("More options").click()
    page.get_by_label("jana-maes").check()
    end_sessions(services)
    follow(page.get_by_role("button", name="Save and go on"))
    assert "not saved yet" in page.inner_text("main")
    log_in(page, "mia")
    follow(page.get_by_role("button", name="Send it now"))
    page.get_by_label("File (").set_input_files(file)
    follow(page.get_by_role("button", name="Upload"))
    assert page.get_by_label("Klantnummer").input_value() == "recipient"  # guessed
    assert page.get_by_label("Offer URL").input_value() == "data.offer_url"
    follow(page.get_by_role("button", name="Read the file"))
    assert "1 row cannot be read" in page.inner_text("main").replace("\u202f", " ")
    follow(page.get_by_role("link", name="Go on to the dry run"))
    follow(page.get_by_role("button", name="Start the dry run"))
    follow(page.get_by_role("link", name="Go on to time and rate"))
    page.get_by_label("Messages per second").fill("50")
    follow(page.get_by_role("button", name="Save and go on"))
    follow(page.get_by_role("button", name="Submit the campaign"))
    assert urlsplit(page.url).path == "/console/campaigns/spring-loan"
    approver = browser.new_context(java_script_enabled=False).new_page()
    approver.goto(f"{url}/console")
    log_in(approver, "bart")
    follow(approver.get_by_role("status").get_by_role("link", name="spring-loan"))
    seen = approver.inner_text("main").replace("\u202f", " ")
    assert "by user:mia" in seen
    assert "missing_variable project" in seen
    follow(approver.get_by_role("link", name="Show examples"))
    assert "a bike" in approver.inner_text("main")
    follow(approver.get_by_role("link", name="Back to the campaign"))
    follow(approver.get_by_role("button", name="Run it again"))
    assert "by user:bart" in approver.inner_text("main")
    follow(approver.get_by_role("button", name="Release"))
    assert "running" in approver.inner_text("h1")
    work(services)
    page.reload()
    follow(page.get_by_role("link", name="Results"))
    assert "Accepted by the provider" in page.inner_text("main")
    page.go_back()
    follow(page.get_by_role("button", name="Copy as new"))
    assert page.get_by_label("jana-maes").is_checked()
    found = overview.find(services, "spring-loan")
    assert found is not None
    assert (found.audience, found.submitted_by) == (3, "user:mia")
    approver.context.close()
    window.close()


# On a phone each row of such a table is a card: nothing is left to scroll to.
NO_CARDS_SCROLL = "[...document.querySelectorAll('.scroll:has(.cards)')].every(area => area.scrollWidth <= area.clientWidth)"


def prepared(services: Services, owner: str) -> list[str]:
    """The pages of a draft with a file that was checked, those around it, and one of a submitted campaign."""
    form = {"id": "spring-loan", "template": "loan_offer", "channels": ["email"], "send_at": "2026-12-01T08:30:00+00:00"}
    made = []
    for each in (form, {**form, "id": "other", "seeds": ["jana-maes"]}):
        draft = drafts.find(services, drafts.create(services, owner, each), owner)
        assert draft is not None
        draft = drafts.upload(services, draft, BytesIO(workbook()), "customers.xlsx")
        draft = drafts.assign(services, draft, ["recipient", "data.project", "data.amount", "data.offer_url", "-"])
        made.append(draft_checks.run(services, draft))
    drafts.submit(services, made[1], owner)
    pages = ("", "/audience", "/columns", "/check", "/examples", "/schedule", "/submit")
    around = (
        "help",
        "campaigns/new",
        "campaigns/other/edit",
        "campaigns/other",
        "campaigns/other/examples",
        "calendar?month=2026-12",
        "calendar?month=2027-01",
    )
    return [*(f"/console/drafts/1{each}" for each in pages), *(f"/console/{each}" for each in around)]


def test_the_pages_of_a_draft_are_accessible(browser: Browser, console: tuple[Services, str]) -> None:
    services, url = console
    session_id = sessions.start(services, "user:mia", Origin(CONSOLE, "browser"))
    cookie = cookies(services, session_id, "user:mia")[0]
    found = []
    paths = prepared(services, "user:mia")
    for size, is_dark in ((PHONE, True), (PHONE, False), (DESK, False), (DESK, True)):
        window = browser.new_context(
            viewport={"width": size["width"], "height": size["height"]},
            color_scheme="dark" if is_dark else "light",
            bypass_csp=True,  # the program's pages have no scripts
        )
        window.add_cookies([{"name": COOKIE, "value": cookie, "url": f"{url}/console"}])
        page = window.new_page()
        for path in paths:
            answer = page.goto(f"{url}{path}")
            assert answer is not None
            assert answer.status == 200, path
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, size)
            assert size != PHONE or page.evaluate(NO_CARDS_SCROLL), path
            page.evaluate(AXE)
            found += [f"{path} {size} {is_dark}: {each}" for each in page.evaluate(SERIOUS, [])]
        window.close()
    assert not found
