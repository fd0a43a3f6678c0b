"""Takes the pictures of the documentation from a running demo: `make screenshots`. Needs a chromium.

Those that README and the guides show go to `docs/images/`, the gallery of templates to `docs/images/templates/`; one of every
other page goes to `build/screenshots/`, to look at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from playwright.sync_api import Browser, HttpCredentials, Page, sync_playwright

from docs.gallery import write_gallery

ROOT = Path(__file__).parent.parent
SHOWN, OTHERS = ROOT / "docs" / "images", ROOT / "build" / "screenshots"
RECIPIENTS = 300
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LABELS = (
    "console",
    "password",
    "API key",
    "sandbox inbox",
    "preference centre",
    "one-click unsubscribe",
    "Flower",
    "user:password",
)  # as the demo names them
URL_LINE = re.compile(rf"^ +({'|'.join(LABELS)}) +(\S+)$")
OFFER = {"project": "your new kitchen", "amount": 12_000, "offer_url": "https://www.kbc-bank.example/loan"}
ENGLISH = "ol.rows a:has-text('your new kitchen')"
CONSOLE = {
    "overview": "",
    "unresolved": "/unresolved",
    "inbound": "/inbound-messages",
    "templates": "/templates",
    "template": "/templates/loan_offer",
    "results": "/campaigns/spring-loan/results",
}


@contextmanager
def demo(home: Path) -> Iterator[Mapping[str, str]]:
    """A demo that keeps running, and the addresses that it prints."""
    command = [str(Path(sys.executable).with_name("dispatcher")), "demo", "--recipients", str(RECIPIENTS), "--keep"]
    environ = {**os.environ, "DISPATCHER_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own
    assert process.stdout is not None  # noqa: S101  it is a pipe
    urls: dict[str, str] = {}
    try:
        for line in process.stdout:
            if found := URL_LINE.match(line):
                urls[found[1]] = found[2]
            if len(urls) == len(LABELS):
                break
        yield urls
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def send_an_english_mail(urls: Mapping[str, str], home: Path) -> None:
    """A loan offer to somebody who reads English and may have it."""
    with (home / "demo" / "customers.jsonl").open(encoding="utf-8") as file:
        people = [person for person in map(json.loads, file) if person["language"] == "en" and person.get("email")]
    address = f"{urls['console'].removesuffix('/console')}/v1/messages"
    headers = {"Authorization": f"Bearer {urls['API key']}", "Content-Type": "application/json"}
    for person in people:
        if person.get("offers", {}).get("own") == "tailored":
            job = {"key": person["id"], "recipient": person["id"], "template": "loan_offer", "channels": ["email"], "data": OFFER}
            urlopen(Request(address, json.dumps(job).encode(), headers)).close()  # noqa: S310  our own address


def sign_in(page: Page, urls: Mapping[str, str]) -> None:
    """Open the console."""
    page.goto(urls["console"])
    page.fill("input[name=name]", "local")
    page.fill("input[name=password]", urls["password"])
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state()


def take_flower(browser: Browser, urls: Mapping[str, str]) -> None:
    """Flower's list of tasks, with the chunks of campaigns at its top."""
    user, _, password = urls["user:password"].partition(":")
    login: HttpCredentials = {"username": user, "password": password}
    page = browser.new_context(viewport={"width": 1420, "height": 460}, http_credentials=login).new_page()
    page.goto(f"{urls['Flower']}/tasks")
    page.fill("input[type=search]", "send_chunk")
    page.wait_for_timeout(3_000)  # it asks again for each letter
    page.screenshot(path=SHOWN / "flower.png")


def open_page(browser: Browser, width: int, height: int) -> Page:
    """A fresh window."""
    return browser.new_context(viewport={"width": width, "height": height}).new_page()


def take_all(browser: Browser, urls: Mapping[str, str]) -> None:
    """All pictures."""
    console = open_page(browser, 1180, 820)
    sign_in(console, urls)
    console.goto(f"{urls['console']}/campaigns/spring-loan")
    console.screenshot(path=SHOWN / "console.png")
    for name, path in CONSOLE.items():
        console.goto(f"{urls['console']}{path}")
        console.screenshot(path=OTHERS / f"console-{name}.png", full_page=True)
    inbox = open_page(browser, 900, 1000)
    inbox.goto(f"{urls['sandbox inbox']}/?channel=email&q=")
    while not inbox.query_selector(ENGLISH):  # it is on its way
        inbox.wait_for_timeout(200)
        inbox.reload()
    inbox.screenshot(path=OTHERS / "inbox.png")
    inbox.click(ENGLISH)
    inbox.screenshot(path=SHOWN / "mail.png")
    for name in ("preference centre", "one-click unsubscribe"):
        inbox.goto(urls[name])
        inbox.screenshot(path=OTHERS / f"{name.replace(' ', '-')}.png", full_page=True)


def main() -> None:
    """Run a demo, take the pictures, stop it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium is installed")
    OTHERS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shots") as folder, demo(Path(folder)) as urls, sync_playwright() as playwright:
        send_an_english_mail(urls, Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        take_all(browser, urls)
        take_flower(browser, urls)
        write_gallery(browser)
        browser.close()
    sys.stdout.write(f"pictures: {SHOWN}, {OTHERS}\n")


if __name__ == "__main__":
    main()
