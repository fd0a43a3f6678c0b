"""The customer's pages in a real browser: two steps out, in four languages, by keyboard, on a phone, without scripts."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from dispatcher.domain.recipient import LANGUAGES
from dispatcher.web.app import create
from dispatcher.web.pages.customer import TEXTS
from tests.support.form_client import Visits, open_visits
from tests.support.services import add_people, person

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARTEFACTS = Path(__file__).parents[2] / "artifacts" / "pages"
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1100, "height": 900}

# In CI a missing browser is an error, which the fixture reports; elsewhere the tests are skipped with a message.
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium on this machine: the pages were not tried in a browser"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI must have chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def visits(database: str) -> Iterator[Visits]:
    """Services whose web application is served on a free port, and whose links lead there."""
    with open_visits(database) as opened, serving(opened) as url:
        yield replace(opened, services=replace(opened.services, public_url=url))


@contextmanager
def serving(visits: Visits) -> Iterator[str]:
    config = uvicorn.Config(create(visits.services, visits.broker), host="127.0.0.1", port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def opened(browser: Browser, size: dict[str, int] = DESK, *, scripts: bool = False, dark: bool = False) -> Iterator[Page]:
    """A fresh window; no cookie may be left in it at the end, and no page may have complained."""
    window: BrowserContext = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        java_script_enabled=scripts,
        color_scheme="dark" if dark else "light",
    )
    page = window.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    assert not window.cookies()
    assert not [text for text in complaints if "404" not in text]
    window.close()


def follow(target: Locator) -> None:
    """Click what leads to another page, and wait until that page is complete: a click ends when its first byte is there."""
    with target.page.expect_navigation():
        target.click()


def keep(page: Page, name: str) -> None:
    """A screenshot, for people."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


def received(visits: Visits, recipient_id: str = "c-1", language: str = "en", **changes: Any) -> tuple[str, str]:
    """The two links in an offer by e-mail."""
    add_people(visits.services, person(recipient_id, language=language, **changes))
    links = visits.write(recipient_id)
    return f"{visits.services.public_url}{links.unsubscribe}", f"{visits.services.public_url}{links.preferences}"


# -- two steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_from_a_mail_to_no_more_of_this_and_to_nothing_at_all_in_two_steps(visits: Visits, browser: Browser, language: str) -> None:
    texts = TEXTS[language]["unsubscribe"]
    for press, subject, value in (("own", "offer:own", "none"), ("everything", "objection:marketing", "on")):
        link, _ = received(visits, press, language)
        with opened(browser, PHONE) as page:
            page.goto(link)  # step one: the link in the mail
            keep(page, f"unsubscribe-{language}")
            follow(page.get_by_role("button", name=texts[press]["button"]))  # step two
            assert texts[press]["done"] in page.get_by_role("status").inner_text()
            assert page.locator("html").get_attribute("lang") == language
            keep(page, f"unsubscribe-{language}-{press}")
        assert visits.values(press)[subject] == value


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_preference_centre_is_filled_in_without_scripts(visits: Visits, browser: Browser, language: str) -> None:
    texts = TEXTS[language]
    _, link = received(visits, language=language)
    with opened(browser) as page:
        page.goto(link)
        own = page.get_by_role("radiogroup", name=texts["offers"]["own"]["name"])
        own.get_by_role("radio", name=texts["modes"]["standard"]["name"]).check()
        page.get_by_role("checkbox", name=texts["channels"]["push"]).uncheck()
        keep(page, f"preferences-{language}")
        follow(page.get_by_role("button", name=texts["preferences"]["save"]))
        assert texts["preferences"]["saved"] in page.get_by_role("status").inner_text()
        assert own.get_by_role("radio", name=texts["modes"]["standard"]["name"]).is_checked()
        keep(page, f"preferences-{language}-saved")
    assert (visits.values("c-1")["offer:own"], visits.values("c-1")["channel:push"]) == ("standard", "off")


def test_after_the_way_out_the_preference_centre_is_one_link_away(visits: Visits, browser: Browser) -> None:
    link, _ = received(visits)
    with opened(browser) as page:
        page.goto(link)
        follow(page.get_by_role("button", name=TEXTS["en"]["unsubscribe"]["email"]["button"]))
        follow(page.get_by_role("link", name=TEXTS["en"]["common"]["back"]))
        assert not page.get_by_role("checkbox", name="E-mail").is_checked()
        follow(page.get_by_role("link", name="FR: Français"))
        assert page.get_by_role("heading", level=1).inner_text() == TEXTS["fr"]["preferences"]["heading"]


def test_the_consequence_of_tailored_is_shown_when_it_is_chosen(visits: Visits, browser: Browser) -> None:
    _, link = received(visits, offers={"own": "standard"}, channels={"email": True, "push": False, "sms_whatsapp": False})
    texts = TEXTS["en"]["preferences"]
    with opened(browser, PHONE) as page:
        page.goto(link)
        warning, own = page.get_by_text(texts["channels_now"]), page.get_by_role("radiogroup", name="Our own offers")
        assert not warning.is_visible()
        own.get_by_role("radio", name="Tailored").check()
        assert warning.is_visible()
        page.get_by_role("checkbox", name=texts["keep_off"]).first.check()
        keep(page, "preferences-tailored")
        follow(page.get_by_role("button", name=texts["save"]))
        assert texts["switched_on"] in page.get_by_role("status").inner_text()
        keep(page, "preferences-tailored-saved")
    values = visits.values("c-1")
    assert [values[f"channel:{group}"] for group in ("email", "push", "sms_whatsapp")] == ["on", "off", "on"]


# -- for everybody -----------------------------------------------------------------------------------------------------


def test_everything_can_be_done_by_keyboard_and_the_focus_shows(visits: Visits, browser: Browser) -> None:
    _, link = received(visits)
    with opened(browser, scripts=True) as page:
        page.goto(link)
        focus_on(page, "#own-tailored")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")  # none
        focus_on(page, "#email")
        page.keyboard.press("Space")
        focus_on(page, "form button")
        page.keyboard.press("Enter")
        page.locator("[role=status]:focus").wait_for()  # announced, and where the next Tab goes on from
    assert (visits.values("c-1")["offer:own"], visits.values("c-1")["channel:email"]) == ("none", "off")


def focus_on(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus; every stop on the way must show that it has it."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement !== document.body"):
            style, width = page.evaluate(
                "(s => [s.outlineStyle, parseFloat(s.outlineWidth)])(getComputedStyle(document.activeElement))"
            )
            assert style == "solid"
            assert width >= 2
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"{selector} can't be reached by keyboard")


PAGES = ("unsubscribe", "unsubscribed", "preferences", "saved", "unknown")


@contextmanager
def each_page(
    visits: Visits, browser: Browser, size: dict[str, int], language: str, *, dark: bool
) -> Iterator[Iterator[tuple[str, Page]]]:
    """A walk through all pages, with scripts on so that the test can measure."""
    unsubscribe, preferences = received(
        visits, language=language, offers={"own": "standard"}, channels={"email": True, "push": False}
    )
    texts = TEXTS[language]

    def walk(page: Page) -> Iterator[tuple[str, Page]]:
        page.goto(unsubscribe)
        yield "unsubscribe", page
        follow(page.get_by_role("button", name=texts["unsubscribe"]["everything"]["button"]))
        yield "unsubscribed", page
        page.goto(preferences)
        page.locator("#own-tailored").check()
        yield "preferences", page
        follow(page.get_by_role("button", name=texts["preferences"]["save"]))
        yield "saved", page
        page.goto(f"{visits.services.public_url}/u/nonsense?lang={language}")
        yield "unknown", page

    with opened(browser, size, scripts=True, dark=dark) as page:
        yield walk(page)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_phone_shows_every_page_without_scrolling_sideways(visits: Visits, browser: Browser, language: str) -> None:
    with each_page(visits, browser, PHONE, language, dark=False) as pages:
        for name, page in pages:
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
            for box in page.evaluate(
                "[...document.querySelectorAll('button, nav a')].map(e => e.getBoundingClientRect().toJSON())"
            ):
                assert min(box["width"], box["height"]) >= 24, name  # WCAG 2.2, 2.5.8: large enough for a thumb
            if name == "preferences":  # all notices shown, details folded: three screens, of once nearly six
                assert page.evaluate("document.documentElement.scrollHeight") < 3 * PHONE["height"]
            keep(page, f"phone-{language}-{name}")


# The contrast of every text with its background, after WCAG 2.2 (1.4.3).
CONTRAST = """
() => {
  const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const rgba = s => { const n = s.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const light = c => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
  const ground = e => {
    for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, words = walk.currentNode.textContent.trim();
    if (!words || !e.checkVisibility()) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(ground(e))];
    found.push([words, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}
"""

# Basic rules by hand: fields with names, groups with legends, unique ids, references that lead somewhere, one main heading.
FAULTS = """
() => {
  const faults = [], all = s => [...document.querySelectorAll(s)], says = e => e && e.textContent.trim();
  for (const e of all('input:not([type=hidden])')) if (![...e.labels].some(says)) faults.push('no label: ' + e.id);
  for (const e of all('fieldset')) if (!says(e.querySelector(':scope > legend:first-child'))) faults.push('no legend');
  for (const e of all('button, a')) if (!says(e)) faults.push('no name');
  for (const e of all('[aria-describedby], [aria-labelledby]'))
    for (const id of (e.getAttribute('aria-describedby') || e.getAttribute('aria-labelledby')).split(' '))
      if (!document.getElementById(id)) faults.push('leads nowhere: ' + id);
  const ids = all('[id]').map(e => e.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  if (all('h1').length !== 1) faults.push('not one h1');
  if (all('main').length !== 1) faults.push('not one main');
  if (!document.title) faults.push('no title');
  if (!document.documentElement.lang) faults.push('no lang');
  if (all('script, link, img, iframe, [style], [onclick]').length) faults.push('what the policy forbids');
  return faults;
}
"""


AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
VIOLATIONS = """
async () => (await axe.run(document, {resultTypes: ['violations']})).violations
  .map(each => each.id + ': ' + each.nodes.map(node => node.html.slice(0, 200)).join(' | '))
"""


@pytest.mark.parametrize("dark", [False, True])
def test_pages_can_be_read_by_weak_eyes_and_screen_readers(visits: Visits, browser: Browser, dark: bool) -> None:
    with each_page(visits, browser, DESK, "de", dark=dark) as pages:
        seen = []
        for name, page in pages:
            seen.append(name)
            assert page.evaluate(FAULTS) == [], name
            page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            page.evaluate(AXE)
            assert page.evaluate(VIOLATIONS) == [], name
            contrasts = page.evaluate(CONTRAST)
            assert len(contrasts) > 5
            assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == [], name
            keep(page, f"{'dark' if dark else 'light'}-{name}")
    assert tuple(seen) == PAGES


# -- the API reference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_api_reference_shows_every_call_without_another_site(visits: Visits, browser: Browser, size: dict[str, int]) -> None:
    with opened(browser, size, scripts=True) as page:
        sites: set[str] = set()
        page.on("request", lambda request: sites.add(request.url.partition("/docs")[0].partition("/openapi")[0]))
        page.goto(f"{visits.services.public_url}/docs")
        page.get_by_text("submit_campaign").first.wait_for(state="attached")
        assert page.locator(".opblock").count() >= 50
        page.locator("#operations-campaigns-submit_campaign button").first.click()
        page.get_by_text("Accept a campaign with its whole audience").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert {each for each in sites if not each.startswith("data:")} == {visits.services.public_url}
        keep(page, f"api-reference-{size['width']}")
