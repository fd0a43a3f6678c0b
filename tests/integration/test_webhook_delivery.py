"""Webhooks out: each event arrives, in order, signed, whatever receivers and workers do; and goes nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import EndpointConflict, UnknownEndpoint
from dispatcher.domain.preferences import Change
from dispatcher.events import event_endpoints, publication, webhook_delivery
from dispatcher.events.event_endpoints import EndpointStatus
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.events import endpoint_cursors
from dispatcher.ledger.events.event_endpoints import EventEndpoint
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import retention
from dispatcher.runtime.services import Services
from tests.integration.test_events import everything_once
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http_answer
from tests.support.services import Clock, add_people, make_services, person
from tests.support.webhook_receiver import is_signed, receiver

HOSTS = frozenset({"127.0.0.1", "localhost", "receiver.example"})
HOUR = 3_600.0
STATES = ("accepted", "refused", "delivered", "bounced")


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(datetime.now(UTC))) as made:  # receivers compare signatures with the real time
        add_people(made, person("anna", 1), person("bert", 2), person("carl", 3, offers={"own": "none"}))
        publication.publish(made)
        yield replace(made, webhook_hosts=HOSTS)


def clock(services: Services) -> Clock:
    assert isinstance(services.clock, Clock)
    return services.clock


def add(services: Services, url: str, endpoint_id: str = "crm", **fields: Any) -> EndpointStatus:
    return event_endpoints.add(services, event_endpoints.parse_form({"id": endpoint_id, "url": url, **fields}), "tests")


def say(services: Services, *values: str) -> None:
    """Record choices of one person and publish them: an event each."""
    for value in values:
        statement = ConsentStatement("anna", (Change("channel:email", value),), services.clock())
        with lend(services.pool) as connection:
            events.record(connection, services.secret, statement, Provenance("branch", "clerk"), services.clock())
        publication.publish(services)


def numbers(received: Iterable[dict[str, Any]]) -> list[int]:
    return [int(event["sequence"]) for event in received]


def deliver_until_done(services: Services, endpoint_id: str = "crm") -> None:
    """Deliver, and let the pauses between attempts pass."""
    for _ in range(50):
        webhook_delivery.deliver(services)
        status = event_endpoints.status(services, endpoint_id)
        if not status.lag_events and not status.replays:
            return
        clock(services).pass_(webhook_delivery.BACKOFF_SECONDS_MAX)
    raise AssertionError(status)


def codes(services: Services) -> set[tuple[str, str]]:
    with lend(services.pool) as connection:
        return {(each.provider, each.code) for each in alerts.newest(connection)}


# -- what arrives ------------------------------------------------------------------------------------------------------


def test_a_receiver_verifies_each_event_with_the_public_library(services: Services) -> None:
    with receiver() as crm:
        add(services, crm.url)
        say(services, "off", "on")
        assert webhook_delivery.deliver(services) == 2
        secret = event_endpoints.secret(services, "crm")
        assert [event["data"]["new_value"] for event in crm.events] == ["off", "on"]
        assert all(is_signed(secret, request) for request in crm.requests)
        assert {request.headers["content-type"] for request in crm.requests} == {"application/cloudevents+json"}
        assert not is_signed(secret, replace(crm.requests[0], body=crm.requests[1].body))
    status = event_endpoints.status(services, "crm")
    assert (status.lag_events, status.is_failing, status.endpoint.delivered_at) == (0, False, services.clock())


def test_several_events_come_in_one_call_where_the_endpoint_takes_them(services: Services) -> None:
    with receiver() as crm:
        add(services, crm.url, batch_max=3)
        say(services, "off", "on", "off", "on", "off")
        webhook_delivery.deliver(services)
        assert [len(call) for call in crm.calls] == [3, 2]
        assert {request.headers["content-type"] for request in crm.requests} == {"application/cloudevents-batch+json"}
        assert all(is_signed(event_endpoints.secret(services, "crm"), request) for request in crm.requests)


def test_an_old_secret_verifies_for_a_day_after_rotation(services: Services) -> None:
    with receiver() as crm:
        add(services, crm.url)
        old = event_endpoints.secret(services, "crm")
        new = event_endpoints.rotate(services, "crm", "anna")
        assert old != new
        say(services, "off")
        webhook_delivery.deliver(services)
        assert all(is_signed(secret, crm.requests[0]) for secret in (old, new))
        with pytest.raises(EndpointConflict, match="signs until"):
            event_endpoints.rotate(services, "crm", "anna")
        with lend(services.pool) as connection:
            connection.execute("UPDATE event_endpoints SET old_secret_until = %s", (services.clock(),))
        say(services, "on")
        webhook_delivery.deliver(services)
        assert [is_signed(secret, crm.requests[1]) for secret in (old, new)] == [False, True]
        newest = event_endpoints.rotate(services, "crm", "anna", at_once=True)
        say(services, "off")
        webhook_delivery.deliver(services)
        assert [is_signed(secret, crm.requests[2]) for secret in (old, new, newest)] == [False, False, True]


def test_every_key_of_the_program_signs_while_it_is_rotated(services: Services) -> None:
    with receiver() as crm:
        add(services, crm.url)
        before = event_endpoints.secret(services, "crm")
        both = replace(services, secret=KeyRing((b"the-next-secret-of-the-tests-long-enough", *services.secret)))
        say(services, "off")
        webhook_delivery.deliver(both)
        after = event_endpoints.secret(both, "crm")
        assert [is_signed(secret, crm.requests[0]) for secret in (before, after)] == [True, True]


def test_an_endpoint_added_again_has_another_secret(services: Services) -> None:
    add(services, "https://127.0.0.1/")
    first = event_endpoints.secret(services, "crm")
    event_endpoints.remove(services, "crm", "anna")
    add(services, "https://127.0.0.1/")
    assert event_endpoints.secret(services, "crm") != first


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({"types": ["consent", "campaign.finished"]}, {"consent.changed", "campaign.finished"}),
        ({"types": ["message"], "entities": ["kbc-bank"]}, {f"message.{state}" for state in STATES}),
        ({"entities": ["kbc-insurance"]}, set()),
        ({"campaigns": ["spr*"], "types": ["campaign"]}, {"campaign.scheduled", "campaign.running", "campaign.finished"}),
        ({"campaigns": ["autumn"]}, set()),
    ],
)
def test_an_endpoint_gets_only_what_it_chose(services: Services, fields: dict[str, Any], types: set[str]) -> None:
    with receiver() as crm:
        add(services, crm.url, batch_max=1_000, **fields)
        everything_once(services)
        publication.publish(services)
        webhook_delivery.deliver(services)
        assert {event["type"].removeprefix("dispatcher.") for event in crm.events} == types
    assert event_endpoints.status(services, "crm").lag_events == 0


# -- faults ------------------------------------------------------------------------------------------------------------


def test_no_event_is_lost_or_out_of_order_over_failures(services: Services) -> None:
    faults = {
        2: http_answer(500),
        3: LOST,
        5: http_answer(429, b"", "Retry-After: 7"),
        6: http_answer(301, b"", "Location: /other"),
    }
    faults[8] = Answer(b"HTTP/1.1 200 OK\r\nContent-Le", close=True)
    faults[9] = http_answer(400)

    def script(_: ReceivedRequest, number: int) -> Answer:
        return faults.get(number, http_answer(200, b"<html>an error page</html>"))

    with receiver(script) as crm:
        first = add(services, crm.url, batch_max=2).live.cursor + 1
        say(services, *["off", "on"] * 4)
        deliver_until_done(services)
        assert numbers(crm.events) == list(range(first, first + 8))
        assert len(crm.requests) == 4 + len(faults)
        repeated = [earlier == later for earlier, later in zip(crm.ids, crm.ids[1:], strict=False)]
        assert repeated == [number in faults for number in range(1, len(crm.ids))], "a retry has the same id"
        by_id = dict(zip(crm.ids, (request.body for request in crm.requests), strict=True))
        assert all(by_id[request.headers["webhook-id"]] == request.body for request in crm.requests), "and the same body"
        assert {request.path for request in crm.requests} == {"/hook"}, "no redirect is followed"


def test_a_retry_waits_as_long_as_the_receiver_asks(services: Services) -> None:
    with receiver(lambda _, number: http_answer(503, b"", "Retry-After: 100") if number == 1 else http_answer(204)) as crm:
        add(services, crm.url)
        say(services, "off")
        webhook_delivery.deliver(services)
        clock(services).pass_(99)
        assert not webhook_delivery.is_due(services)
        clock(services).pass_(1)
        assert webhook_delivery.is_due(services)
        assert webhook_delivery.deliver(services) == 1
        assert len(crm.requests) == 2


def test_pauses_grow_to_a_limit_and_are_spread() -> None:
    pauses = [webhook_delivery.backoff_seconds(attempts, None, 0.0) for attempts in range(12)]
    assert pauses[:3] == [5.0, 10.0, 20.0]
    assert pauses[-1] == webhook_delivery.BACKOFF_SECONDS_MAX
    assert webhook_delivery.backoff_seconds(0, None, 1.0) == 2.5
    assert webhook_delivery.backoff_seconds(0, 10.0**6, 0.5) == webhook_delivery.RETRY_AFTER_SECONDS_MAX


def test_a_worker_that_was_lost_after_sending_causes_only_a_repeat(services: Services, database: str) -> None:
    """Its batch is sent again under the same id, with the same events, though more came in meanwhile."""
    with receiver() as crm:
        add(services, crm.url, batch_max=10)
        say(services, "off", "on")
        (endpoint,) = lease_one(services)
        lost = webhook_delivery.EndpointSlice(services, endpoint, _localhost, services.monotonic_clock())
        prepared = lost._prepare()
        assert isinstance(prepared, webhook_delivery.WebhookCall)
        lost._call(prepared)
        say(services, "off")
        assert webhook_delivery.deliver(services) == 0, "the lease holds"
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("UPDATE event_endpoints SET leased_until = now()")
        assert webhook_delivery.deliver(services) == 2
        assert [len(call) for call in crm.calls] == [2, 2, 1]
        assert crm.ids[0] == crm.ids[1] != crm.ids[2]
        assert crm.requests[0].body == crm.requests[1].body
        assert lost._settle(prepared, lost._call(prepared)) is webhook_delivery.Progress.LEASE_LOST
        assert event_endpoints.status(services, "crm").lag_events == 0, "what woke up late moves nothing"


def lease_one(services: Services) -> list[EventEndpoint]:
    with lend(services.pool) as connection:
        return endpoint_cursors.lease(connection, 1, 45.0, services.clock())


def _localhost(_: str, __: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_two_workers_never_send_to_one_endpoint_at_once(services: Services) -> None:
    at_once = threading.Semaphore(1)
    overlaps = []

    def script(_: ReceivedRequest, __: int) -> Answer:
        overlaps.append(not at_once.acquire(blocking=False))
        threading.Event().wait(0.01)
        at_once.release()
        return http_answer(204)

    with receiver(script) as crm:
        first = add(services, crm.url).live.cursor + 1
        say(services, *["off", "on"] * 10)
        workers = [threading.Thread(target=webhook_delivery.deliver, args=(services,)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert numbers(event for call in crm.calls for event in call) == list(range(first, first + 20))
    assert not any(overlaps)


def test_an_endpoint_that_hangs_does_not_delay_another(services: Services) -> None:
    other_is_done = threading.Event()

    def hang(_: ReceivedRequest, __: int) -> Answer:
        other_is_done.wait(10)
        return http_answer(204 if other_is_done.is_set() else 500)

    def last_one(_: ReceivedRequest, number: int) -> Answer:
        if number == 4:
            other_is_done.set()
        return http_answer(204)

    with receiver(hang) as slow, receiver(last_one) as crm:
        add(services, slow.url, "aaa-slow")
        add(services, crm.url)
        say(services, "off", "on", "off", "on")
        webhook_delivery.deliver(services)
        assert len(crm.events) == 4
    assert not event_endpoints.status(services, "aaa-slow").is_failing, "it had answered after the other one had all"


def test_after_72_hours_a_range_is_dead_and_can_be_replayed(services: Services) -> None:
    is_up = threading.Event()
    with receiver(lambda *_: http_answer(204 if is_up.is_set() else 500)) as crm:
        first = add(services, crm.url).live.cursor + 1
        say(services, "off", "on", "off")
        webhook_delivery.deliver(services)
        clock(services).pass_(71 * HOUR)
        say(services, "on")
        webhook_delivery.deliver(services)
        assert not event_endpoints.status(services, "crm").dead
        clock(services).pass_(1 * HOUR + 1)
        before = len(crm.requests)
        webhook_delivery.deliver(services)
        assert len(crm.requests) == before + 2, "not one call for each dead event"
        status = event_endpoints.status(services, "crm")
        assert [(each.cursor + 1, each.last, each.error) for each in status.dead] == [(first, first + 2, "http_500")]
        assert status.lag_events == 1, "the event of the last hour has its own time"
        assert ("webhook:crm", "dead") in codes(services)
        is_up.set()
        before = len(crm.requests)
        deliver_until_done(services)
        assert numbers(event for call in crm.calls[before:] for event in call) == [first + 3]
        assert event_endpoints.replay_dead(services, "crm", "anna") == 1
        deliver_until_done(services)
        assert numbers(event for call in crm.calls[before:] for event in call) == [first + 3, first, first + 1, first + 2]
    status = event_endpoints.status(services, "crm")
    assert (status.dead, status.replays) == ((), ())


def test_a_skipped_delivery_is_dead_and_the_next_one_goes_on(services: Services) -> None:
    with receiver(lambda request, _: http_answer(500 if b'"off"' in request.body else 204)) as crm:
        first = add(services, crm.url).live.cursor + 1
        say(services, "off", "on")
        webhook_delivery.deliver(services)
        status = event_endpoints.skip(services, "crm", "anna", "its record was deleted there")
        assert (status.is_failing, status.lag_events) == (False, 1)
        assert [(each.cursor + 1, each.last, each.error) for each in status.dead] == [(first, first, "skipped")]
        act = status.changes[0].act
        assert (act.actor, act.action, act.reason) == ("anna", "skip", "its record was deleted there")
        assert act.detail == {"first": first, "last": first}
        webhook_delivery.deliver(services)
        assert numbers(event for call in crm.calls for event in call) == [first, first + 1]
        assert event_endpoints.replay_dead(services, "crm", "bert") == 1  # nothing is lost
    assert [each.act.actor for each in event_endpoints.history(services, 10)] == ["bert", "anna", "tests"]


def test_a_worker_that_sends_during_a_skip_records_nothing(services: Services) -> None:
    def skip_meanwhile(*_: object) -> Answer:
        if calls:
            event_endpoints.skip(services, "crm", "anna", "stuck")
        calls.append(1)
        return http_answer(500)

    calls: list[int] = []
    with receiver(skip_meanwhile) as crm:
        first = add(services, crm.url).live.cursor + 1
        say(services, "off", "on")
        webhook_delivery.deliver(services)
        clock(services).pass_(60)
        webhook_delivery.deliver(services)
    status = event_endpoints.status(services, "crm")
    assert (status.live.cursor, status.is_failing, status.error) == (first, False, None)


def test_only_a_failing_delivery_can_be_skipped_with_a_reason(services: Services) -> None:
    with receiver() as crm:
        add(services, crm.url)
        say(services, "off")
        with pytest.raises(EndpointConflict, match="no delivery to crm is failing"):
            event_endpoints.skip(services, "crm", "anna", "because")
        with pytest.raises(BadInput, match="reason: is needed"):
            event_endpoints.skip(services, "crm", "anna", " ")
    assert [each.act.action for each in event_endpoints.history(services, 10)] == ["add"]


def test_neighbouring_dead_ranges_are_one(services: Services) -> None:
    with receiver(lambda *_: http_answer(500)) as crm:
        first = add(services, crm.url).live.cursor + 1
        for _ in range(3):
            say(services, "off", "on")
            webhook_delivery.deliver(services)
            clock(services).pass_(73 * HOUR)
            webhook_delivery.deliver(services)
        (dead,) = event_endpoints.status(services, "crm").dead
        assert (dead.cursor + 1, dead.last) == (first, first + 5)


def test_events_by_number_are_delivered_again_on_request(services: Services) -> None:
    with receiver() as crm:
        first = add(services, crm.url).live.cursor + 1
        say(services, "off", "on", "off")
        deliver_until_done(services)
        event_endpoints.replay_range(services, "crm", first + 1, first + 2, "anna")
        say(services, "on")
        deliver_until_done(services)
        assert sorted(numbers(event for call in crm.calls[3:] for event in call)) == [first + 1, first + 2, first + 3]
        assert len(set(crm.ids)) == 6, "a replay has ids of its own"
        with pytest.raises(BadInput, match="not a range of events"):
            event_endpoints.replay_range(services, "crm", first, first + 100, "anna")
        with pytest.raises(BadInput, match="no range 4711"):
            event_endpoints.replay_dead(services, "crm", "anna", 4711)


def test_a_receiver_that_is_gone_is_called_no_more(services: Services) -> None:
    is_back = threading.Event()
    with receiver(lambda *_: http_answer(204 if is_back.is_set() else 410)) as crm:
        add(services, crm.url)
        say(services, "off")
        webhook_delivery.deliver(services)
        clock(services).pass_(HOUR)
        assert not webhook_delivery.is_due(services)
        assert event_endpoints.status(services, "crm").endpoint.disabled_reason == "gone"
        assert ("webhook:crm", "gone") in codes(services)
        is_back.set()
        clock(services).pass_(100 * HOUR)
        event_endpoints.enable(services, "crm", "anna")
        deliver_until_done(services)
        assert len(crm.events) == 1
        assert crm.ids[0] == crm.ids[1]


def test_time_while_disabled_does_not_count_against_events(services: Services) -> None:
    with receiver(lambda _, number: http_answer(500 if number == 1 else 204)) as crm:
        add(services, crm.url)
        event_endpoints.disable(services, "crm", "anna")
        say(services, "off", "on")
        assert webhook_delivery.deliver(services) == 0
        clock(services).pass_(200 * HOUR)
        event_endpoints.enable(services, "crm", "anna")
        deliver_until_done(services)
        assert len(crm.events) == 2
    assert not event_endpoints.status(services, "crm").dead


def test_what_retention_deleted_is_on_the_dead_list(services: Services) -> None:
    with receiver() as crm:
        first = add(services, crm.url).live.cursor + 1
        event_endpoints.disable(services, "crm", "anna")
        say(services, "off", "on")
        clock(services).pass_(services.policy.retention.events.days * 24 * HOUR + 60)
        list(retention.clear(services))
        say(services, "off")
        event_endpoints.enable(services, "crm", "anna")
        deliver_until_done(services)
        assert numbers(crm.events) == [first + 2]
    (dead,) = event_endpoints.status(services, "crm").dead
    assert (dead.cursor + 1, dead.last, dead.error) == (first, first + 1, "deleted")
    list(retention.clear(services))
    assert not event_endpoints.status(services, "crm").dead, "nobody can do anything about it"


def test_other_filters_form_the_batch_in_flight_again(services: Services) -> None:
    with receiver(lambda _, number: http_answer(500 if number == 1 else 204)) as crm:
        add(services, crm.url, batch_max=1_000)
        everything_once(services)
        publication.publish(services)
        webhook_delivery.deliver(services)
        event_endpoints.change(services, "crm", event_endpoints.parse_change({"types": ["consent"]}), "anna")
        deliver_until_done(services)
        assert crm.ids[0] not in crm.ids[1:]
        assert {event["type"] for call in crm.calls[1:] for event in call} == {"dispatcher.consent.changed"}


def test_a_test_event_is_sent_at_once_and_is_not_in_the_stream(services: Services) -> None:
    with receiver(lambda _, number: http_answer(204 if number == 1 else 500)) as crm:
        status = add(services, crm.url)
        result = event_endpoints.send_test(services, "crm")
        assert (result.answer.status, result.answer.error) == (204, None)
        assert crm.events[0]["type"] == "dispatcher.test"
        assert is_signed(event_endpoints.secret(services, "crm"), crm.requests[0])
        assert event_endpoints.send_test(services, "crm").answer.error == "http_500"
    assert event_endpoints.status(services, "crm").live == status.live


def test_logs_name_endpoints_and_never_urls_or_events(services: Services) -> None:
    with receiver(lambda _, number: http_answer(500 if number == 1 else 204)) as crm, capture_logs() as logs:
        add(services, f"{crm.url}?token=s3cret")
        say(services, "off")
        deliver_until_done(services)
        event_endpoints.send_test(services, "crm")
    text = str(logs)
    assert "'endpoint': 'crm'" in text
    assert not any(private in text for private in ("s3cret", "127.0.0.1", "/hook", "channel:email", "anna", "whsec_"))


# -- where it may go ---------------------------------------------------------------------------------------------------


def test_a_name_with_an_internal_address_cannot_be_added(services: Services) -> None:
    form = event_endpoints.parse_form({"id": "crm", "url": "https://intern.example.com/"})
    with pytest.raises(BadInput, match="leads to an address that is not public"):
        event_endpoints.add(services, form, "tests", lambda *_: ["10.0.0.1"])
    with pytest.raises(BadInput, match="leads to an address"):
        event_endpoints.add(replace(services, webhook_hosts=frozenset()), replace_url(form, "https://localhost/"), "tests")


def replace_url(form: event_endpoints.EndpointForm, url: str) -> event_endpoints.EndpointForm:
    return form.model_copy(update={"url": url})


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "Crm"}, "id: "),
        ({"url": "http://events.example.com/"}, "url: must begin with https://, or DISPATCHER_WEBHOOK_HOSTS must name events."),
        ({"url": "https://10.0.0.1/"}, "url: names 10.0.0.1, which is not a public address"),
        ({"types": ["message.lost"]}, "types: names no type of event"),
        ({"entities": ["kbc-bnak"]}, "entities: kbc-bnak: not in the policy, which has "),
        ({"batch_max": 0}, "batch_max: "),
        ({"after": 10**6}, "after: is higher than "),
        ({"id": "taken"}, "id: taken is the id of another endpoint"),
        ({"colour": "red"}, "colour: unknown field"),
    ],
)
def test_bad_input_names_the_field(services: Services, fields: dict[str, Any], message: str) -> None:
    add(services, "https://127.0.0.1/", "taken")
    form = {"id": "crm", "url": "https://127.0.0.1/", **fields}
    with pytest.raises(BadInput) as error:
        event_endpoints.add(services, event_endpoints.parse_form(form), "tests")
    assert f"event endpoint: {message}" in str(error.value)
    assert len(event_endpoints.statuses(services)) == 1


def test_an_unknown_endpoint_is_named(services: Services) -> None:
    for look in (event_endpoints.status, event_endpoints.send_test):
        with pytest.raises(UnknownEndpoint, match="there is no event endpoint nobody"):
            look(services, "nobody")
    for act in (event_endpoints.remove, event_endpoints.enable, event_endpoints.disable):
        with pytest.raises(UnknownEndpoint, match="there is no event endpoint nobody"):
            act(services, "nobody", "anna")
