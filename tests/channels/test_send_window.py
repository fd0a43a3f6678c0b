"""A claim that has expired sends nothing more, wherever its messages stood when the worker froze."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from channels.base import Channel, Outbound, Receipt, Rejected, StaleClaim, Throttled, Unavailable, Uncertain
from channels.http import HttpRequest, HttpTransport, header_lines
from channels.http_adapter import send_all
from channels.providers.outbox import Outbox
from channels.providers.smtp import Smtp
from channels.resilience.circuit_breaker import CircuitBreaker
from channels.resilience.failover import Failover, WeightedProvider
from channels.send_window import SendWindow, boot_seconds, window_of
from tests.support.http_servers import http_answer, http_server, smtp_server
from tests.support.provider_cases import EMAIL

FINE = http_answer(202, b"fine")
HEADERS = header_lines({"X-Test": "1"})


def mails(count: int) -> list[Outbound]:
    return [Outbound(f"camp:{number}", Channel.EMAIL, f"p{number}@home.example", EMAIL) for number in range(count)]


class SteppedClock:
    """A clock whose readings are given in advance; the last one stays."""

    def __init__(self, *readings: float) -> None:
        self.readings = list(readings)

    def __call__(self) -> float:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


@pytest.fixture
def http() -> Iterator[HttpTransport]:
    made = HttpTransport(concurrency=1, connect_timeout_seconds=1, timeout_seconds=5)
    yield made
    made.close()


def send(http: HttpTransport, port: int, count: int, window: SendWindow) -> list[object]:
    def build(number: int) -> HttpRequest:
        return HttpRequest(f"http://127.0.0.1:{port}/x", HEADERS, b"%d" % number)

    results = send_all(http, range(count), build, lambda answer: Receipt(str(answer.status)), window, lambda number: (str(number),))
    return [result for _, result in sorted(results, key=lambda item: item[0])]


def test_a_clock_that_counts_sleep_never_goes_back() -> None:
    first, second = boot_seconds(), boot_seconds()
    assert 0 < first <= second


def test_a_window_admits_until_its_deadline_and_keeps_who_started() -> None:
    window = SendWindow(10.0, SteppedClock(9.0, 9.9, 10.0))
    assert window.may_start_sending(["a", "b"])
    assert not window.may_start_sending(["c"])
    assert window.started == {"a", "b"}


def test_nothing_leaves_where_the_start_can_not_be_recorded() -> None:
    window = SendWindow(10.0, lambda: 0.0, on_first=lambda: False)
    assert not window.may_start_sending(["a"])
    assert window.started == set()


def test_a_start_that_took_too_long_to_record_sends_nothing() -> None:
    clock = [0.0]

    def slow() -> bool:
        clock[0] = 11.0
        return True

    assert not SendWindow(10.0, lambda: clock[0], on_first=slow).may_start_sending(["a"])


def test_a_request_that_waited_for_a_connection_is_not_sent_late(http: HttpTransport) -> None:
    """One connection, and a window that closes once a request has arrived: the first is sent, the next ones are not."""
    with http_server(lambda *_: FINE) as server:
        results = send(http, server.port, 3, SendWindow(1.0, lambda: float(len(server.arrived))))
        assert [type(result) for result in results] == [Receipt, StaleClaim, StaleClaim]
        assert len(server.arrived) == 1


def test_the_last_look_is_where_the_body_is_lent(http: HttpTransport) -> None:
    """The window is open when the request is built and started, and closed when libcurl asks for the body."""
    window = SendWindow(10.0, SteppedClock(0.0, 20.0))
    with http_server(lambda *_: FINE) as server:
        (result,) = send(http, server.port, 1, window)
        assert isinstance(result, StaleClaim)
        time.sleep(0.05)
        assert server.arrived == []
        assert [type(result) for result in send(http, server.port, 1, window_of(5))] == [Receipt]  # the transport still works


def test_a_time_limit_ends_a_batch_and_keeps_what_was_answered(http: HttpTransport) -> None:
    """An exception that does not come from the data ends the call: it does not turn into a failed message."""

    class TimeLimit(Exception):
        pass

    def build(number: int) -> HttpRequest:
        if number == 2:
            raise TimeLimit
        return HttpRequest(f"http://127.0.0.1:{server.port}/x", HEADERS, b"%d" % number)

    def answer_all() -> None:
        for number, _ in send_all(http, range(5), build, lambda _: Receipt("r"), window, lambda number: (str(number),)):
            answered.append(number)

    answered: list[int] = []
    window = window_of(5)
    with http_server(lambda *_: FINE) as server, pytest.raises(TimeLimit):
        answer_all()
    assert answered == [0, 1]
    assert window.started == {"0", "1"}


def test_a_relay_that_is_slow_gets_no_mail_after_the_deadline() -> None:
    """The window closes when six mails have arrived; two connections may each have one more on the way."""
    with smtp_server(lambda line, _: {"data": "354 go"}.get(line.lower().split()[0], "250 ok")) as server:
        smtp = Smtp(f"smtp://127.0.0.1:{server.port}?starttls=no&connections=2", timeout_seconds=5)
        results = [result for _, result in smtp.send(mails(20), SendWindow(6.0, lambda: float(len(server.arrived))))]
        sent = sum(isinstance(result, Receipt) for result in results)
        assert 6 <= sent <= 8
        assert sum(isinstance(result, StaleClaim) for result in results) == 20 - sent
        assert len([mail for mail in server.arrived if mail]) == sent
        assert server.connections >= 2  # a connection that was dropped at the last look is opened again


def test_between_the_relay_s_go_and_the_first_byte_is_the_last_look() -> None:
    window = SendWindow(10.0, SteppedClock(0.0, 20.0))
    with smtp_server(lambda line, _: "354 go" if line.lower().startswith("data") else "250 ok") as server:
        smtp = Smtp(f"smtp://127.0.0.1:{server.port}?starttls=no", timeout_seconds=5)
        assert [type(result) for _, result in smtp.send(mails(1), window)] == [StaleClaim]
        time.sleep(0.05)
        assert [mail for mail in server.arrived if mail] == []


def test_a_caller_that_stops_leaves_no_thread_that_sends() -> None:
    def script(line: str, _: bytes) -> str | None:
        time.sleep(0.02)
        return {"data": "354 go", ".": "250 2.0.0 queued"}.get(line.lower().split()[0], "250 ok")

    with smtp_server(script) as server:
        smtp = Smtp(f"smtp://127.0.0.1:{server.port}?starttls=no&connections=3", timeout_seconds=5)
        sending = smtp.send(mails(30), window_of(30))
        next(sending)
        sending.close()  # type: ignore[attr-defined]  # a generator, as in the pipeline
        arrived = len(server.arrived)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("smtp-")]
        time.sleep(0.2)
        assert len(server.arrived) == arrived < 30


def test_an_expired_claim_says_nothing_of_the_provider() -> None:
    closed = SendWindow(0.0, lambda: 1.0)
    breaker = CircuitBreaker(Outbox(Channel.EMAIL), lambda: datetime(2026, 11, 23, tzinfo=UTC), failures_max=2)
    assert {type(result) for _, result in breaker.send(mails(5), closed)} == {StaleClaim}
    assert {type(result) for _, result in breaker.send(mails(5), window_of(5))} == {Receipt}


def test_a_second_provider_gets_nothing_after_the_deadline() -> None:
    clock = SteppedClock(0.0, 0.0, 20.0)
    first, second = Outbox(Channel.EMAIL), Outbox(Channel.EMAIL)
    first.answers[""] = Unavailable("down")
    failover = Failover([WeightedProvider(first, 1.0), WeightedProvider(second, 0.0)], lambda: 0.5)
    (result,) = [result for _, result in failover.send(mails(1), SendWindow(10.0, clock))]
    assert isinstance(result, StaleClaim)
    assert second.sent == []


def test_a_stale_claim_is_an_error_that_left_nothing() -> None:
    assert isinstance(StaleClaim(), Unavailable)
    assert not isinstance(StaleClaim(), Throttled | Uncertain | Rejected)


def test_a_draining_process_ends_what_it_began_and_begins_nothing() -> None:
    draining = [False]
    window = SendWindow(10.0, lambda: 0.0, is_draining=lambda: draining[0])
    assert window.may_start_sending(["a"])
    draining[0] = True
    assert window.may_start_sending(["a"])  # the next part of its body
    assert not window.may_start_sending(["b"])
    assert window.started == {"a"}
