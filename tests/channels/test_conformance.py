"""The conformance suite of `channels.testing` for our own providers, and for the loop that all HTTP adapters share."""

from __future__ import annotations

from channels.base import Outbound, Rejected, Result, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.http_adapter import message_ids, send_all
from channels.send_window import window_of
from channels.testing import ProviderConformance
from channels.testing.conformance import results
from tests.support.http_servers import http_answer, http_server
from tests.support.provider_cases import PROVIDER_CASES


class TestOurProviders(ProviderConformance):
    cases = PROVIDER_CASES


def test_exceptions_in_build_or_parse_become_results() -> None:
    case = PROVIDER_CASES[0]

    def build(outbound: Outbound) -> HttpRequest:
        return HttpRequest(f"http://127.0.0.1:{server.port}", (), b"x" * {"m-1": 1}[outbound.id])

    def parse(answer: HttpResponse) -> Result:
        raise KeyError(answer.body)

    with http_server(lambda *_: http_answer(200)) as server:
        http = HttpTransport(timeout_seconds=5)
        found = results(send_all(http, [case.outbound(1), case.outbound(2)], build, parse, window_of(30), message_ids))
        http.close()
    assert {name: type(result) for name, result in found.items()} == {"m-1": Uncertain, "m-2": Rejected}
