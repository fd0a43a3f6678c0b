"""The opt-out latency in a real browser: charts under the page's own content security policy, readable for everybody."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from dispatcher.domain.canaries import OptOutWay
from dispatcher.ledger.connection import lend
from tests.e2e.test_browser import AXE, DESK, PHONE, VIOLATIONS, browser, keep, pytestmark, visits
from tests.e2e.test_desk_in_browser import signed_in
from tests.support.form_client import Visits

__all__ = ["browser", "pytestmark", "visits"]

PATH = "/console/opt-out-latency?days=7"
CHARTS = ".plot.drawn canvas"
MEASURED = """
INSERT INTO canary_rounds (way, recipient_id, step, stepped_at, started_at, answered_at, closed_at, outcome, reason, bound_seconds,
                           jobs, claim_seconds, hand_off_seconds, arrival_seconds, is_late)
SELECT way, 'canary:' || way, 4, at, at, at, at, CASE WHEN n %% 40 = 7 THEN 'not_measured' ELSE 'measured' END,
       CASE WHEN n %% 40 = 7 THEN 'web_unreachable' END, 60, 20, 0, (n %% 9) * 0.11, (n %% 13) * 0.37 + (n %% 90) / 80 * 61,
       n %% 90 >= 80 AND way = 'api'
FROM unnest(%(ways)s::text[]) way, generate_series(1, 140) n, LATERAL (SELECT %(now)s::timestamptz - n * interval '1 hour') t (at)
"""


@pytest.mark.parametrize(("size", "dark"), [(DESK, False), (DESK, True), (PHONE, False)])
def test_latency_is_drawn_and_axe_finds_nothing(visits: Visits, browser: Browser, size: dict[str, int], *, dark: bool) -> None:
    with lend(visits.services.pool) as connection:
        connection.execute(MEASURED, {"ways": [way.value for way in OptOutWay], "now": visits.clock()})
    with signed_in(visits, browser, size, dark=dark) as page:
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{visits.services.public_url}{PATH}")
        page.locator(CHARTS).nth(1).wait_for()
        assert complaints == []
        keep(page, f"console-opt-outs-{'phone' if size == PHONE else 'desk'}-{'dark' if dark else 'light'}")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        page.evaluate(AXE)
        assert page.evaluate(VIOLATIONS) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
