"""Broker messages before Celery sees them: what callers write around a call is dropped, and what Celery would lose is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.message import Message

from dispatcher import tasks
from dispatcher.broker_messages import HIDDEN, KEEP_TASK, CleanMessage, RecordedRequest, Refusal, check
from dispatcher.campaigns import refused_jobs
from dispatcher.celery_app import app
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, JobError, RefusalReason, RefusedJob

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
ID = "5d5e2b9a-7f7d-4d0e-8c5a-1f6f2d9a0b3c"
PLANTED = "Zwaantje"


def message(body: Any, headers: Any, **others: Any) -> Any:
    return Message(json.dumps(body), content_type="application/json", content_encoding="utf-8", headers=headers, **others)  # type: ignore[no-untyped-call]


def checked(task: str = TRIGGER_TASK, args: Any = ({"key": "k-1"},), embed: Any = None, **headers: Any) -> CleanMessage:
    return check(message([list(args), {}, embed], {"task": task, "id": ID, **headers}), app.tasks, NOW)


def refusal(**given: Any) -> RefusalReason:
    with pytest.raises(Refusal) as caught:
        checked(**given)
    return caught.value.reason


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("stamped_headers", 5),
        ("stamps", 5),
        ("timelimit", [-1, -1]),
        ("timelimit", [PLANTED, None]),
        ("shadow", PLANTED),
        ("root_id", {"a": PLANTED}),
        ("parent_id", 5),
        ("group", 5),
        ("groups", 5),
        ("retries", 10**30),
        ("origin", PLANTED),
        ("ignore_result", False),
        ("replaced_task_nesting", PLANTED),
        ("argsrepr", PLANTED),
        ("kwargsrepr", [PLANTED]),
        ("hostname", PLANTED),
        (PLANTED, PLANTED),
    ],
)
def test_no_header_of_a_caller_steers_celery(header: str, value: Any) -> None:
    cleaned = checked(**{header: value})
    assert cleaned.headers == checked().headers
    request = RecordedRequest(cleaned, app=app)
    assert not request.revoked()
    assert request.time_limits == (None, None)
    assert PLANTED not in f"{request!r}{request.info(safe=True)}"


def test_the_time_of_publishing_reaches_the_task() -> None:
    cleaned = checked(published_at=NOW.timestamp() - 3.5)
    assert RecordedRequest(cleaned, app=app)._context.published_at == NOW.timestamp() - 3.5  # for the age of a lane
    for wrong in (PLANTED, True, None, NOW.timestamp() + 3_600, -1.0, float("nan")):
        assert "published_at" not in checked(published_at=wrong).headers


def test_only_the_trace_of_the_sender_reaches_the_task() -> None:
    traceparent = f"00-{'4b' * 16}-{'0f' * 8}-01"
    assert checked(traceparent=traceparent).headers["traceparent"] == traceparent
    for wrong in (PLANTED, f"{traceparent}-{PLANTED}", 5, None):
        assert "traceparent" not in checked(traceparent=wrong).headers
    cleaned = checked(tracestate=PLANTED, baggage=PLANTED)
    assert cleaned.headers == checked().headers


@pytest.mark.parametrize("name", [PLANTED, "x" * 200_000, "jan@bank.example", ID.upper()])
def test_an_id_that_is_not_celerys_is_replaced(name: str) -> None:
    replaced = checked(id=name).headers["id"]
    assert replaced != name
    assert len(replaced) == len(ID)
    assert checked().headers["id"] == ID


def test_what_a_sender_writes_as_delivery_is_read_with_care() -> None:
    properties = {"priority": 3, "reply_to": PLANTED, "correlation_id": PLANTED}
    headers = {"task": TRIGGER_TASK, "id": ID}
    hostile = check(message([[], {}, {}], headers, properties={"priority": "x"}), app.tasks, NOW)
    hostile.delivery_info["routing_key"] = "transactional"
    assert hostile.properties == {}
    plain = check(message([[], {}, {}], headers, properties=properties, delivery_info={"redelivered": 1}), app.tasks, NOW)
    assert plain.properties == {"priority": 3}
    assert plain.delivery_info == {"redelivered": False}


def test_version_1_of_the_protocol_is_read_the_same_way() -> None:
    body = {"task": TRIGGER_TASK, "id": PLANTED, "args": [{"key": "k"}], "kwargs": {}, "timelimit": [-1, -1], "shadow": PLANTED}
    read = check(message(body, None), app.tasks, NOW)
    assert read.payload == json.loads(read.body) == [[{"key": "k"}], {}, {}]
    assert PLANTED not in str(read.headers)
    assert "timelimit" not in read.headers


@pytest.mark.parametrize("task", ["celery.map", "celery.starmap", "celery.chain", "celery.accumulate", "celery.backend_cleanup"])
def test_tasks_of_celery_itself_do_not_run(task: str) -> None:
    assert task in app.tasks
    assert refusal(task=task) is RefusalReason.UNKNOWN_TASK


@pytest.mark.parametrize("name", ["callbacks", "errbacks", "chain", "chord"])
def test_a_sequel_is_refused_with_its_job_and_not_lost(name: str) -> None:
    assert refusal(embed={name: [{"task": "dispatcher.triger"}]}) is RefusalReason.BAD_ARGUMENTS
    assert checked(embed={name: None}).payload[2] == {}


def test_the_third_part_of_a_body_is_no_second_list_of_headers() -> None:
    assert refusal(embed={"delivery_info": 5}) is RefusalReason.UNREADABLE_MESSAGE


@pytest.mark.parametrize("header", ["eta", "expires"])
@pytest.mark.parametrize("value", ["soon", 5, "0001-01-01T00:00:00+14:00", ["2026-11-23"], True])
def test_a_time_that_cannot_be_read_is_refused(header: str, value: Any) -> None:
    assert refusal(**{header: value}) is RefusalReason.UNREADABLE_MESSAGE


def test_a_job_does_not_wait_in_a_worker_for_long() -> None:
    assert refusal(eta="2099-01-01T00:00:00Z") is RefusalReason.BAD_ARGUMENTS
    assert checked(eta=(NOW + timedelta(seconds=1)).isoformat()).headers["eta"] == "2026-11-23T10:00:01+00:00"
    assert checked(eta="2026-11-23T10:00:01").headers["eta"] == "2026-11-23T10:00:01+00:00"
    assert checked(eta="2020-01-01T00:00:00Z").headers["eta"] is None


@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("dispatcher.send_chunk", [PLANTED, 1]),
        ("dispatcher.send_trigger", [202611, -1]),
        ("dispatcher.load_audience", [10**30]),
        ("dispatcher.sweep", [{"a": PLANTED}]),
        (KEEP_TASK, [PLANTED]),
        (KEEP_TASK, [{"task": PLANTED, "key": None, "reason": "fault", "errors": [["", PLANTED]], "digest": "00"}]),
        (KEEP_TASK, [{"task": "a", "key": f"{PLANTED} @", "reason": "fault", "errors": [], "digest": "00"}]),
        (KEEP_TASK, [{"task": ["a"], "key": None, "reason": "fault", "errors": 5, "digest": "00"}]),
    ],
)
def test_an_internal_task_takes_references_only(task: str, args: list[Any]) -> None:
    assert refusal(task=task, args=args) is RefusalReason.BAD_ARGUMENTS


def test_a_chunks_message_may_name_others_of_its_campaign() -> None:
    shared = checked("dispatcher.send_chunk", (202611, 3), place=["spring", 3, 12], more_chunks=[4, 7]).headers
    assert shared["more_chunks"] == [4, 7]
    assert shared["argsrepr"] == "(202611, 3) spring: chunk 3 of 12 and 2 more"


@pytest.mark.parametrize("more", [PLANTED, [PLANTED], [4, -1], [True], [2**31], [4, 5, 6, 7, 8], {"4": 5}, None])
def test_what_names_no_chunks_is_left_out(more: Any) -> None:
    assert "more_chunks" not in checked("dispatcher.send_chunk", (202611, 3), more_chunks=more).headers


def test_events_show_references_and_no_jobs() -> None:
    assert checked("dispatcher.send_chunk", (202611, 3)).headers["argsrepr"] == "(202611, 3)"
    assert (
        checked("dispatcher.send_chunk", (202611, 3), place=["spring", 3, 12]).headers["argsrepr"]
        == "(202611, 3) spring: chunk 3 of 12"
    )
    wrong: list[Any] = [
        ["jan@bank.example", 3, 12],
        ["spring", PLANTED, 12],
        ["spring", 13, 12],
        ["spring", True, 12],
        ["spring"],
        PLANTED,
    ]
    for place in wrong:
        assert checked("dispatcher.send_chunk", (202611, 3), place=place).headers["argsrepr"] == "(202611, 3)"
    assert checked("dispatcher.load_audience", (3, True)).payload[0] == [3, True]
    assert checked(CAMPAIGN_TASK, (470123456,)).headers["argsrepr"] == HIDDEN
    with pytest.raises(Refusal) as caught:
        checked("dispatcher.triger")
    job = RefusedJob("dispatcher.triger", "k-1", caught.value.reason, (JobError("", caught.value.text),), b"digest")
    assert checked(KEEP_TASK, (refused_jobs.to_json(job),)).headers["argsrepr"] == HIDDEN


class RefusalSender:
    """The part of Celery's application by which a refused job is handed on."""

    conf = app.conf

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def send_task(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.sent.append((name, arguments[0]["reason"]))


def test_a_job_whose_process_is_killed_three_times_is_recorded() -> None:
    broker, answers = RefusalSender(), list[str]()
    for _ in range(3):
        request = RecordedRequest(
            checked(args=[{"key": "k-killed"}]),
            app=broker,
            task=tasks.trigger,
            on_ack=lambda *_: answers.append("acknowledged"),
            on_reject=lambda _log, _errors, requeue: answers.append(f"again: {requeue}"),
        )
        request.on_timeout(False, 540)
    assert answers == ["again: True", "again: True", "acknowledged"]
    assert broker.sent == [(KEEP_TASK, "fault")]


def test_an_expired_job_is_recorded_and_a_task_of_beat_is_not() -> None:
    broker = RefusalSender()
    late = (NOW - timedelta(days=400)).isoformat()
    job = RecordedRequest(checked(expires=late), app=broker, task=tasks.trigger)
    periodic = RecordedRequest(checked("dispatcher.release_due", (), expires=late), app=broker, task=tasks.release_due)
    assert job.maybe_expire()
    assert periodic.maybe_expire()
    assert broker.sent == [(KEEP_TASK, "expired")]
