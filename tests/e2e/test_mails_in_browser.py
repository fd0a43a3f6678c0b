"""Every shipped mail in a real browser: axe-core on a phone and on a desktop, light and dark. And the workbench, live."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from channels.base import Channel, Email, assemble
from dispatcher.content import Template, example_request
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.policy import parse, shipped
from dispatcher.web.workbench import WorkbenchFolder, create_workbench
from tests.e2e.test_browser import ARGUMENTS, CHROMIUM
from tests.support.services import templates
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write

AXE = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SIZES = ((375, 812), (1280, 900))
SCHEMES = ("light", "dark")
SERIOUS = """
async rules => {
  const options = rules.length ? {runOnly: {type: 'rule', values: rules}} : {};
  const result = await axe.run(document, {...options, resultTypes: ['violations']});
  return result.violations.filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => each.id + ': ' + each.nodes.map(node => node.html.slice(0, 200)).join(' | '));
}
"""
OF_THE_LOOK = ["color-contrast", "target-size", "scrollable-region-focusable", "link-in-text-block"]  # depend on size and scheme

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium on this machine: the mails were not tried in a browser"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI must have chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=ARGUMENTS)
        yield launched
        launched.close()


def mails(template: Template) -> Iterator[tuple[str, str]]:
    for language in LANGUAGES:
        for mode in sorted(template.info.modes):
            content = assemble(template.render(example_request(template, Channel.EMAIL, language, mode)))
            assert isinstance(content, Email)
            yield f"{template.name}, {language}, {mode}", content.html


def faults(page: Page, html: str) -> list[str]:
    """What axe-core finds in a mail that is serious: all rules once, those of the look for each size and scheme."""
    page.set_content(html)
    page.evaluate(AXE)
    found: list[str] = []
    for scheme in SCHEMES:
        for width, height in SIZES:
            page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            page.set_viewport_size({"width": width, "height": height})
            rules = [] if (scheme, width) == (SCHEMES[0], SIZES[0][0]) else OF_THE_LOOK
            found += [f"{scheme}, {width} px: {each}" for each in page.evaluate(SERIOUS, rules)]
    return found


@pytest.mark.parametrize("name", sorted(templates()))
def test_axe_finds_nothing_serious_in_a_shipped_mail(browser: Browser, name: str) -> None:
    page = browser.new_page()
    page.route("https://**", lambda route: route.abort())  # pictures: not on this machine
    found = {shown: faults(page, html) for shown, html in mails(templates()[name])}
    page.close()
    assert not {shown: each for shown, each in found.items() if each}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    servers: list[uvicorn.Server] = []
    followed = WorkbenchFolder(parse(shipped(), "policy.toml"), folder)
    application = create_workbench(followed, lambda: any(each.should_exit for each in servers))
    config = uvicorn.Config(application, port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server, listening = uvicorn.Server(config), config.bind_socket()
    servers.append(server)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_workbench_reloads_on_save_and_can_be_read(browser: Browser, tmp_path: Path) -> None:
    folder = write(tmp_path, sound_folder())
    with serving(folder) as url:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/templates/offer?language=nl")
        text = folder / "offer" / "nl" / "texts.toml"
        text.write_text(text.read_text(encoding="utf-8").replace("Een lening voor je plannen", "Leen slim"), encoding="utf-8")
        page.get_by_text("Leen slim").first.wait_for()
        assert page.frame_locator("iframe").first.locator("h1").inner_text() == "Een lening voor je plannen"
        page.get_by_label("Channel").select_option("sms")  # the script submits the form
        page.wait_for_url("**channel=sms**")
        assert page.locator("iframe").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate(AXE)
        assert page.evaluate(SERIOUS, []) == []
        assert complaints == []
        page.close()
