"""The conformance suite: every adapter keeps the contract of `channels.base`, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import (
    BadAddress,
    ChannelError,
    Email,
    Misconfigured,
    Outbound,
    Receipt,
    Rejected,
    Result,
    StaleClaim,
    Throttled,
    Unavailable,
    Uncertain,
)
from channels.http import HttpResponse, HttpTransport
from channels.send_window import SendWindow, window_of
from channels.testing.cases import ACCESS_TOKEN, SECRET_TEXT, TOKEN_PATH, HttpAdapter, ProviderAnswers, ProviderCase
from channels.testing.servers import Answer, http_answer, http_server

LINE_BREAK = "x\r\nBcc: someone@else.example"


def results(answers: Iterable[tuple[Outbound, Result]]) -> dict[str, Result]:
    """Return the results by message id, and check that each id has one result."""
    found: dict[str, Result] = {}
    for outbound, result in answers:
        assert outbound.id not in found
        found[outbound.id] = result
    return found


def http_parts(case: ProviderCase) -> tuple[Callable[[int, HttpTransport], HttpAdapter], ProviderAnswers]:
    """Return how an HTTP adapter is made, and its provider's answers."""
    assert case.make is not None
    assert case.answers is not None
    return case.make, case.answers


@lru_cache(maxsize=64)  # cases; one adapter for the hundreds of answers that it reads
def _reader(case: ProviderCase) -> HttpAdapter:
    return http_parts(case)[0](1, HttpTransport())


# Answers of any kind: words and shapes that providers use, in odd places.
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
WORDS = st.sampled_from(
    ["code", "status", "errors", "error", "details", "message", "sid", "name", "field", "@type", "errorCode"]
) | st.sampled_from(["UNREGISTERED", "UNAVAILABLE", "INVALID_ARGUMENT", FCM_ERROR])
ODD_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS | st.just(21610),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | WORDS, inner, max_size=4),
    max_leaves=8,
)
BODIES = st.binary(max_size=60) | ODD_JSON.map(lambda value: json.dumps(value).encode())
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"Retry-After", b"X-RateLimit-Reset", b"X-Message-Id"]),
        st.binary(max_size=12) | st.sampled_from([b"9" * 30, b"Wed, 21 Oct 2015 07:28:00 GMT", b"-1", b"\xc2\xb2"]),
    ),
    max_size=2,
)
RESPONSES = st.builds(
    lambda status, headers, body: HttpResponse(
        status, (b"HTTP/1.1 200 OK\r\n", *(name + b": " + value + b"\r\n" for name, value in headers), b"\r\n"), body
    ),
    st.sampled_from([200, 201, 202, 400, 401, 403, 404, 413, 429, 500, 503]) | st.integers(100, 999),
    HEADERS,
    BODIES,
)


class ProviderConformance:
    """The suite for one package. A subclass names its cases, and pytest collects it:

    class TestPigeon(ProviderConformance):
        cases = (PIGEON,)
    """

    cases: ClassVar[Sequence[ProviderCase]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each test for each case; those about HTTP for the cases that have `make` and `answers`."""
        over_http = [case for case in self.cases if case.make is not None]
        for name, cases in (("case", self.cases), ("http_case", over_http)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, cases, ids=[case.name for case in cases])

    def test_each_message_of_a_batch_gets_its_own_receipt(self, case: ProviderCase) -> None:
        batch = [case.outbound(number) for number in range(1, 101)]
        with case.scenario("fine") as scenario:
            found = results(scenario.provider.send(batch, window_of(30)))
            assert scenario.arrived() == 100
        assert set(found) == {outbound.id for outbound in batch}
        assert all(isinstance(result, Receipt) for result in found.values())
        assert len(set(found.values())) == 100

    def test_an_empty_batch_sends_nothing(self, case: ProviderCase) -> None:
        with case.scenario("fine") as scenario:
            assert list(scenario.provider.send([], window_of(30))) == []

    def test_nothing_is_sent_after_the_deadline_of_a_claim(self, case: ProviderCase) -> None:
        with case.scenario("fine") as scenario:
            found = results(scenario.provider.send([case.outbound(1), case.outbound(2)], SendWindow(0.0, lambda: 1.0)))
            assert scenario.arrived() == 0
        assert {type(result) for result in found.values()} == {StaleClaim}

    def test_bad_messages_are_refused_and_others_are_sent(self, case: ProviderCase) -> None:
        good = [case.outbound(1), case.outbound(2)]
        bad = [
            replace(case.outbound(3), content=case.invalid_content),
            replace(case.outbound(4), content=None),  # type: ignore[arg-type]
            replace(case.outbound(5), address=case.address(5) + "\r\nBcc: someone@else.example"),
            replace(case.outbound(6), address=""),
        ]
        with case.scenario("fine") as scenario:
            found = results(scenario.provider.send([good[0], *bad, good[1]], window_of(30)))
            assert scenario.arrived() == 2
        assert all(isinstance(found[outbound.id], Receipt) for outbound in good)
        assert all(type(found[outbound.id]) is Rejected for outbound in bad)

    def test_text_with_line_breaks_is_refused_where_unsafe(self, case: ProviderCase) -> None:
        good = case.outbound(1)
        evil = [replace(good, id=LINE_BREAK)]
        if isinstance(good.content, Email):
            mails = [
                replace(good.content, subject=LINE_BREAK),
                replace(good.content, sender_name=LINE_BREAK),
                replace(good.content, sender_address="a@b.example\r\nBcc: c"),
                replace(good.content, reply_to="a@b.example\r\nBcc: c"),
                replace(good.content, headers=(("List-Unsubscribe", LINE_BREAK),)),
                replace(good.content, headers=(("X-A\r\nBcc", "c@d.example"),)),
                replace(good.content, headers=(("Bcc", "c@d.example"),)),
            ]
            evil += [replace(good, id=f"e-{number}", content=mail) for number, mail in enumerate(mails)]
        with case.scenario("fine") as scenario:
            found = results(scenario.provider.send(evil, window_of(30)))
            assert scenario.arrived() == 0
        assert all(type(result) is Rejected for result in found.values())
        assert len(found) == len(evil)

    def test_a_refused_connection_is_unavailable(self, case: ProviderCase) -> None:
        with case.scenario("refused") as scenario:
            found = results(scenario.provider.send([case.outbound(1), case.outbound(2)], window_of(30)))
            assert isinstance(scenario.provider.check(), Unavailable)
        assert [type(result) for result in found.values()] == [Unavailable, Unavailable]

    def test_a_lost_answer_is_uncertain_and_nothing_is_sent_twice(self, case: ProviderCase) -> None:
        with case.scenario("second_answer_lost") as scenario:
            first = results(scenario.provider.send([case.outbound(1)], window_of(30)))
            second = results(scenario.provider.send([case.outbound(2)], window_of(30)))  # over the connection of the first message
            assert scenario.arrived() == 2
            third = results(scenario.provider.send([case.outbound(3)], window_of(30)))  # the loss does not affect the next message
        assert isinstance(first["m-1"], Receipt)
        assert isinstance(second["m-2"], Uncertain)
        assert isinstance(third["m-3"], Receipt)

    def test_an_unreadable_answer_is_uncertain(self, case: ProviderCase) -> None:
        with case.scenario("garbage") as scenario:
            found = results(scenario.provider.send([case.outbound(1), case.outbound(2)], window_of(30)))
            assert scenario.arrived() == 2
        assert [type(result) for result in found.values()] == [Uncertain, Uncertain]

    def test_a_rate_limit_is_throttled_with_the_wait(self, case: ProviderCase) -> None:
        with case.scenario("throttled") as scenario:
            found = results(scenario.provider.send([case.outbound(1)], window_of(30)))["m-1"]
        assert isinstance(found, Throttled)
        assert (found.retry_after_seconds is not None and found.retry_after_seconds >= 2) or not case.gives_wait

    def test_a_wrong_key_is_misconfigured(self, case: ProviderCase) -> None:
        with case.scenario("wrong_key") as scenario:
            found = results(scenario.provider.send([case.outbound(1), case.outbound(2)], window_of(30)))
            assert isinstance(scenario.provider.check(), Misconfigured)
        assert [type(result) for result in found.values()] == [Misconfigured, Misconfigured]

    def test_errors_contain_neither_address_nor_text(self, case: ProviderCase) -> None:
        outbound = case.outbound(1)
        invalid_content = replace(case.outbound(2), content=case.invalid_content)
        malformed = replace(case.outbound(3), address=outbound.address + "\n")
        with case.scenario("echo") as scenario:
            found = results(scenario.provider.send([outbound, invalid_content, malformed], window_of(30)))
        assert len(found) == 3
        for error in found.values():
            assert isinstance(error, Rejected | BadAddress)
            shown = f"{error!r} {error} {vars(error)} {error.__cause__} {error.__context__}"
            assert outbound.address not in shown
            assert SECRET_TEXT not in shown
            assert error.__traceback__ is None

    # -- adapters over HTTP: any answer, cut anywhere ------------------------------------------------------------------

    def test_a_success_cut_at_any_byte_is_uncertain(self, http_case: ProviderCase) -> None:
        case, (make, answers) = http_case, http_parts(http_case)
        whole = answers.fine(1).raw
        with http_server(lambda _, number: Answer(whole[: number - 1], close=True)) as server:
            http = HttpTransport(timeout_seconds=5)
            provider = make(server.port, http)
            requests = [(number, provider.build(case.outbound(1))) for number in range(len(whole))]
            found = [answer for _, answer in http.exchange(requests)]
            read = [provider.parse(answer) if isinstance(answer, HttpResponse) else answer for answer in found]
            http.close()
        assert len(read) == len(whole)
        assert {type(result) for result in read} == {Uncertain}

    @settings(deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(answer=RESPONSES)
    def test_any_answer_gives_a_receipt_or_a_known_error(self, http_case: ProviderCase, answer: HttpResponse) -> None:
        provider = _reader(http_case)
        result = provider.parse(answer)
        assert isinstance(result, Receipt | ChannelError)
        assert type(result) is not ChannelError
        if isinstance(result, Receipt):
            assert 200 <= answer.status < 300
        if answer.status >= 500:
            assert isinstance(result, Uncertain | Unavailable)

    def test_a_too_deeply_nested_answer_is_uncertain(self, http_case: ProviderCase) -> None:
        case = http_case
        nested = http_answer(201, b"[" * 200_000)  # deeper than JSON parsers allow
        with http_server(lambda request, _: ACCESS_TOKEN if request.path == TOKEN_PATH else nested) as server:
            provider = http_parts(case)[0](server.port, HttpTransport(timeout_seconds=5))
            found = results(provider.send([case.outbound(1), case.outbound(2)], window_of(30)))
            provider.close()
        assert [type(result) for result in found.values()] == [Uncertain, Uncertain]
