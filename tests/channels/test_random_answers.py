"""Random answers: every message ends in a receipt or in one of the seven errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import (
    BadAddress,
    Misconfigured,
    OptedOut,
    Outbound,
    Receipt,
    Rejected,
    Result,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.http import HttpTransport
from channels.providers.smtp import Smtp
from channels.send_window import window_of
from tests.support.http_servers import Answer, Line, http_server, raw_server
from tests.support.provider_cases import ACCESS_TOKEN, HTTP_ADAPTERS, PROVIDER_CASES, ProviderCase

ENDS = (Receipt, Rejected, BadAddress, OptedOut, Throttled, Unavailable, Uncertain, Misconfigured)
PATIENCE_SECONDS = 0.15
LATE = st.sampled_from([0.0] * 18 + [0.02, 2 * PATIENCE_SECONDS])
over_sockets = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ends(pairs: Iterator[tuple[Outbound, Result]], batch: list[Outbound]) -> list[Result]:
    found = list(pairs)
    assert sorted(sent.id for sent, _ in found) == sorted(sent.id for sent in batch)
    assert all(type(result) in ENDS for _, result in found)
    return [result for _, result in found]


# -- over HTTP ---------------------------------------------------------------------------------------------------------

JSON = st.sampled_from(
    [
        {},
        {"sid": "SM1"},
        {"name": "projects/bank/messages/1"},
        {"data": {"id": "1"}},
        {"errors": [{"message": "x", "code": "40300", "title": "STOP"}]},
        {"code": 21610, "message": "x"},
        {"error": {"status": "UNAVAILABLE"}},
        {"data": [], "errors": {}},
        [None],
        7,
    ]
)
BODIES = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode())
LENGTHS = st.sampled_from(["exact", "exact", "exact", "more", "less", "none", "chunked"])


@st.composite
def http_answers(draw: st.DrawFn) -> Answer:
    """Generate answers with any status and body, a wrong or right length, cut anywhere, late."""
    status = draw(st.sampled_from([200, 201, 202, 204, 400, 401, 403, 404, 413, 429, 500, 503]) | st.integers(100, 999))
    body, length = draw(BODIES), draw(LENGTHS)
    declared = {"exact": len(body), "more": len(body) + 5, "less": max(0, len(body) - 5)}.get(length)
    waits = draw(st.lists(st.sampled_from(["Retry-After: 2", "Retry-After: x"]), max_size=1))
    lines = [f"HTTP/1.1 {status} Status", "X-Message-Id: sg-1", *waits]
    lines += (
        [f"Content-Length: {declared}"] if declared is not None else ["Transfer-Encoding: chunked"] if length == "chunked" else []
    )
    raw = "\r\n".join([*lines, "", ""]).encode() + body
    cut = draw(st.none() | st.integers(0, len(raw)))
    return Answer(raw[:cut], close=cut is not None or draw(st.booleans()), seconds=draw(LATE))


@pytest.mark.parametrize("name", HTTP_ADAPTERS)
def test_any_http_bytes_give_a_result(name: str) -> None:
    make: Any = HTTP_ADAPTERS[name][0]
    case = next(case for case in PROVIDER_CASES if case.name == name)
    answers: list[Answer] = []

    def script(request: Any, _: int) -> Answer:
        return ACCESS_TOKEN if request.path == "/token" else answers.pop() if answers else Answer(b"", close=True)

    with http_server(script) as server:
        http = HttpTransport(timeout_seconds=PATIENCE_SECONDS)
        provider = make(server.port, http)
        list(provider.send([], window_of(30)))  # FCM fetches its access token with the first message

        @over_sockets
        @given(st.lists(http_answers(), min_size=1, max_size=3))
        def check(given_answers: list[Answer]) -> None:
            answers[:] = given_answers
            batch = [case.outbound(number) for number in range(3)]
            ends(provider.send(batch, window_of(30)), batch)

        check()
        http.close()


# -- over SMTP ---------------------------------------------------------------------------------------------------------

REPLIES = (
    st.sampled_from([b"220 relay\r\n", b"250 ok\r\n", b"250-a\r\n250 AUTH PLAIN\r\n", b"354 go\r\n", b"235 ok\r\n"])
    | st.builds("{} {}\r\n".format, st.integers(0, 999), st.sampled_from(["", "5.1.1 x", "4.2.1 x", "é"])).map(str.encode)
    | st.binary(max_size=20)
    | st.sampled_from([b"250-" + b"x" * 9_000, b"250-more\r\n" * 50, b"25", b"\r\n", b"250"])
)
LINES = st.none() | st.tuples(REPLIES, LATE)


def test_any_smtp_bytes_give_a_result() -> None:
    case: ProviderCase = next(case for case in PROVIDER_CASES if case.name == "smtp")
    lines: list[Line] = []

    with raw_server(lambda: lines.pop(0) if lines else None) as server:
        smtp = Smtp(f"smtp://user:pass@127.0.0.1:{server.port}?starttls=no", timeout_seconds=PATIENCE_SECONDS)

        @over_sockets
        @given(st.integers(0, 8), st.lists(LINES, max_size=8))
        def check(good: int, odd: list[Line]) -> None:
            script = (b"220 relay", b"250-a\r\n250 AUTH PLAIN", b"235 ok", b"250 ok", b"250 ok", b"354 go", b"250 ok", b"250 ok")
            lines[:] = [(reply + b"\r\n", 0.0) for reply in script[:good]] + odd
            batch = [case.outbound(number) for number in range(2)]
            ends(smtp.send(batch, window_of(30)), batch)

        check()


def test_an_endless_smtp_reply_times_out() -> None:
    case = next(case for case in PROVIDER_CASES if case.name == "smtp")

    good = (b"220 relay", b"250 relay", b"250 ok", b"250 ok", b"354 go", b"250 ok")
    lines: list[Line] = [*[(b"220-wait\r\n", PATIENCE_SECONDS / 10)] * 30, (b"\r\n".join(good) + b"\r\n", 0.0), (b"", 3.0)]
    with raw_server(lambda: lines.pop(0) if lines else None, listens=False) as server:
        smtp = Smtp(f"smtp://127.0.0.1:{server.port}?starttls=no", timeout_seconds=PATIENCE_SECONDS)
        batch = [case.outbound(1)]
        assert [type(result) for result in ends(smtp.send(batch, window_of(30)), batch)] == [Unavailable]
