"""The tests of the example package: the conformance suite, run as any package with a plugin runs it."""

from __future__ import annotations

from pigeon_sms import Pigeon, PigeonAccount

from channels.base import Sms
from channels.http import HttpTransport
from channels.testing import NOT_TEXT, SMS, ProviderAnswers, ProviderConformance, as_json, http_case, phone


def pigeon(port: int, http: HttpTransport) -> Pigeon:
    return Pigeon(PigeonAccount("key", "+32460000000", f"http://127.0.0.1:{port}"), http)


ANSWERS = ProviderAnswers(
    fine=lambda number: as_json(201, {"id": f"p-{number}"}),
    throttled=as_json(429, {"error": "too_many"}, "Retry-After: 2"),
    wrong_key=as_json(401, {"error": "wrong_key"}),
    echo=lambda words: as_json(400, {"error": words}),
)


class TestPigeon(ProviderConformance):
    cases = (http_case("pigeon", pigeon, ANSWERS, (SMS, phone), Sms(NOT_TEXT)),)
