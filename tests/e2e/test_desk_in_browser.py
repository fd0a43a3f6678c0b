"""A call at the desk in a real browser: by keyboard only, without scripts, readable for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.consent import preferences
from dispatcher.domain.principal import Role
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.web.app import create
from dispatcher.web.console.session import COOKIE
from tests.e2e.test_browser import AXE, DESK, PHONE, VIOLATIONS, browser, keep, pytestmark, visits
from tests.support.form_client import Visits
from tests.support.people import sign_in
from tests.support.services import add_people, person

__all__ = ["browser", "pytestmark", "visits"]


@contextmanager
def signed_in(
    visits: Visits, browser: Browser, size: dict[str, int] = DESK, *, dark: bool = False, locale: str = "nl-BE"
) -> Iterator[Page]:
    """A window of somebody of the desk, who may erase, too."""
    client = TestClient(create(visits.services, visits.broker), base_url="https://x.example")
    sign_in(client, visits.services, "dora", (Role.DESK, Role.COMPLIANCE))
    window = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]}, color_scheme="dark" if dark else "light", locale=locale
    )
    cookie = {"name": COOKIE, "value": client.cookies[COOKIE], "url": f"{visits.services.public_url}/console"}
    window.add_cookies([cookie])  # type: ignore[list-item]
    yield window.new_page()
    window.close()


def has_focus(page: Page, selector: str) -> None:
    """Wait until an element has the focus: a browser moves it once the page is drawn."""
    page.locator(f"{selector}:focus").wait_for()


def test_a_call_is_done_by_keyboard_only(visits: Visits, browser: Browser) -> None:
    add_people(visits.services, person("c-1", language="fr", offers={"own": "standard", "partner": "none"}))
    with signed_in(visits, browser) as page:
        page.goto(f"{visits.services.public_url}/console/desk")
        has_focus(page, "main input[name=q]")
        page.keyboard.type("+32 470 00 00 01")
        page.keyboard.press("Enter")
        has_focus(page, "input[name=identity-check]")
        page.keyboard.press("ArrowDown")  # from identity card to itsme
        page.keyboard.press("Tab")
        page.keyboard.press("Space")  # in the branch
        page.keyboard.press("Tab")  # own offers
        page.keyboard.press("ArrowDown")  # from standard to none
        page.keyboard.press("Enter")
        has_focus(page, "[role=status]")  # announced, and where the next Tab goes on from
        assert "Bewaard" in page.get_by_role("status").inner_text()
        event = preferences.history(visits.services, "c-1")[-1]
        assert (event.subject, event.new_value, event.source) == ("offer:own", "none", "branch")
        for key in ("Shift+Tab", "Shift+Tab", "Enter"):  # past "all on record" to "next customer"
            page.keyboard.press(key)
        has_focus(page, "main input[name=q]")


def test_a_live_page_keeps_what_somebody_types(visits: Visits, browser: Browser) -> None:
    with signed_in(visits, browser) as page:
        page.goto(f"{visits.services.public_url}/console/operations")
        page.evaluate("window.isSamePage = true")
        page.locator("header input[name=q]").fill("half a campaign")
        with lend(visits.services.pool) as connection:
            stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", visits.services.clock())
        page.get_by_text("twilio answered 20003").wait_for()  # by the script
        assert page.evaluate("window.isSamePage") is True
        assert page.locator("header input[name=q]").input_value() == "half a campaign"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_on_live_pages(visits: Visits, browser: Browser, size: dict[str, int]) -> None:
    with signed_in(visits, browser, size) as page:
        for path in ("", "/operations"):
            page.goto(f"{visits.services.public_url}/console{path}")
            page.evaluate(AXE)
            assert page.evaluate(VIOLATIONS) == [], path
            if size == PHONE:
                assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (PHONE, True)])
def test_axe_finds_nothing_on_the_desk_and_on_people(visits: Visits, browser: Browser, size: dict[str, int], *, dark: bool) -> None:
    add_people(visits.services, person("c-1", 1, offers={"own": "standard"}), person("c-2", 1))
    visits.write("c-1")
    with signed_in(visits, browser, size, dark=dark) as page:
        for name, path in (("desk", "desk"), ("call", "desk/c-1"), ("people", "people"), ("person", "people/c-1")):
            page.goto(f"{visits.services.public_url}/console/{path}")
            if name in ("desk", "people"):
                page.locator("main input[name=q]").fill("+32470000001")
                page.keyboard.press("Enter")
                page.locator("main table").wait_for()
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            page.evaluate(AXE)
            assert page.evaluate(VIOLATIONS) == [], name
            if size == PHONE:
                assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
            keep(page, f"console-{name}-{'dark' if dark else 'light'}")
