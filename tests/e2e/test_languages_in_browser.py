"""The console's pages in other languages, in a real browser: nothing that axe finds, and nothing wider than a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from dispatcher.identity import users
from dispatcher.web.app import create
from dispatcher.web.console.session import COOKIE
from tests.e2e.test_browser import AXE, DESK, PHONE, VIOLATIONS, browser, keep, pytestmark, visits
from tests.e2e.test_campaign_in_browser import NO_CARDS_SCROLL
from tests.integration.test_campaign_results import run
from tests.support.form_client import Visits
from tests.support.people import sign_in

__all__ = ["browser", "pytestmark", "visits"]

PAGES = {
    "campaigns": "",
    "account": "/sessions",
    "calendar": "/calendar",
    "new-campaign": "/campaigns/new",
    "campaign": "/campaigns/spring",
    "results": "/campaigns/spring/results",
    "people": "/people",
    "person": "/people/c-1",
    "desk": "/desk/c-1",
    "templates": "/templates",
    "operations": "/operations",
    "template": "/templates/loan_offer",
    "schedules": "/schedules",
    "audit": "/audit",
    "help": "/help",
    "login": "/login",
}


@pytest.mark.parametrize(
    ("language", "size", "dark"), [("nl", DESK, False), ("fr", PHONE, True), ("de", PHONE, False), ("de", DESK, True)]
)
def test_axe_finds_nothing_in_any_language(
    visits: Visits, browser: Browser, language: str, size: dict[str, int], *, dark: bool
) -> None:
    run(visits.services)
    client = TestClient(create(visits.services, visits.broker), base_url="https://x.example")
    sign_in(client, visits.services, "mia")
    users.set_reading(visits.services, "user:mia", language, "Asia/Tokyo")
    window = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]}, color_scheme="dark" if dark else "light", locale=language
    )
    cookie = {"name": COOKIE, "value": client.cookies[COOKIE], "url": f"{visits.services.public_url}/console"}
    window.add_cookies([cookie])  # type: ignore[list-item]
    page = window.new_page()
    found = {}
    for name, path in PAGES.items():
        page.goto(f"{visits.services.public_url}/console{path}?still=true")
        keep(page, f"console-{name}-{language}-{'phone' if size == PHONE else 'desk'}")
        page.evaluate(AXE)
        is_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        is_wide |= size == PHONE and not page.evaluate(NO_CARDS_SCROLL)
        found[name] = [*page.evaluate(VIOLATIONS), *(["wider than the window"] if is_wide else [])]
    window.close()
    assert {name: each for name, each in found.items() if each} == {}
