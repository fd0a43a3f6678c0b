"""The results of a campaign in a real browser: charts under the page's own content security policy, readable for everybody."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from channels.base import EventKind
from tests.e2e.test_browser import AXE, DESK, PHONE, VIOLATIONS, browser, keep, pytestmark, visits
from tests.e2e.test_desk_in_browser import signed_in
from tests.integration.test_campaign_results import report, run
from tests.support.form_client import Visits

__all__ = ["browser", "pytestmark", "visits"]

PATH = "/console/campaigns/spring/results?by=language"
CHARTS = ".plot.drawn canvas"
# Pixels of the first chart that are neither transparent nor grey, as its axes are: those of the point.
COLOURED = """() => {
    const canvas = document.querySelector(".plot.drawn canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let found = 0;
    for (let at = 0; at < pixels.length; at += 4) {
        if (pixels[at + 3] > 200 && Math.max(...pixels.slice(at, at + 3)) - Math.min(...pixels.slice(at, at + 3)) > 90) found++;
    }
    return found;
}"""


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False), (PHONE, True)])
def test_results_are_drawn_and_axe_finds_nothing(visits: Visits, browser: Browser, size: dict[str, int], *, dark: bool) -> None:
    run(visits.services)
    report(visits.services, EventKind.DELIVERED, EventKind.READ)
    with signed_in(visits, browser, size, dark=dark) as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{visits.services.public_url}{PATH}")
        page.locator(CHARTS).nth(2).wait_for()
        assert complaints == []
        keep(page, f"console-results-{'phone' if size == PHONE else 'desk'}-{'dark' if dark else 'light'}")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        page.evaluate(AXE)
        assert page.evaluate(VIOLATIONS) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_charts_are_drawn_again_when_the_page_is_updated(visits: Visits, browser: Browser) -> None:
    run(visits.services)
    report(visits.services, EventKind.DELIVERED, EventKind.READ)
    with signed_in(visits, browser) as page:
        page.goto(f"{visits.services.public_url}{PATH}")
        page.locator(CHARTS).nth(2).wait_for()
        page.evaluate("""() => {
            const main = document.getElementById("main").cloneNode(true);  // as the server sends it: without a chart
            main.querySelectorAll(".plot").forEach(each => { each.replaceChildren(); each.classList.remove("drawn"); });
            document.getElementById("main").replaceChildren(...main.childNodes);
        }""")
        page.locator(CHARTS).nth(2).wait_for()


def test_a_single_value_is_drawn_too(visits: Visits, browser: Browser) -> None:
    run(visits.services)
    with signed_in(visits, browser) as page:
        page.goto(f"{visits.services.public_url}{PATH}&step=day")
        assert page.locator("figure.chart").first.locator("tr[data-at]").count() == 1
        page.locator(CHARTS).nth(2).wait_for()
        assert page.evaluate(COLOURED) > 0
