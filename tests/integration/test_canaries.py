"""Canary recipients opt out in each way under the real rules, and what is still under way afterwards is measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from functools import partial

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.campaigns import submission
from dispatcher.consent import preferences
from dispatcher.delivery import messages
from dispatcher.domain.canaries import OptOutLags, OptOutWay
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.principal import Role
from dispatcher.intake.audience import inline
from dispatcher.intake.errors import BadInput
from dispatcher.intake.recipient import BadRecipient, parse
from dispatcher.ledger import roles
from dispatcher.ledger.connection import PoolOptions, lend, open_pool
from dispatcher.ledger.delivery import message_list
from dispatcher.ledger.delivery.message_list import MessageFilter
from dispatcher.ledger.maintenance import canaries, canary_lags, generations
from dispatcher.maintenance import alerting, ledger_audit, retention
from dispatcher.maintenance.alerting import Notice, Watch
from dispatcher.maintenance.canaries import rounds, service_level, signed_reports
from dispatcher.maintenance.canaries.recipients import addresses_of
from dispatcher.maintenance.standstills import Standstill, examine
from dispatcher.policy.quiet_hours import QuietHours
from dispatcher.runtime.metric_families import CANARY_BOUND_BROKEN, CANARY_OPT_OUT
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.canary_stage import AT_ONCE, CanaryStage, canary_stage
from tests.support.feed import all_events
from tests.support.people import sign_in
from tests.support.services import Broker, add_people, outbox, person
from tests.support.web_server import serving

ON = {"offer:own": "tailored", "channel:email": "on", "channel:push": "on", "channel:sms_whatsapp": "on"}


@pytest.fixture
def stage(database: str) -> Iterator[CanaryStage]:
    with canary_stage(database) as made:
        yield made


def outcomes(services: Services) -> dict[str, list[tuple[str, str | None, bool]]]:
    found: dict[str, list[tuple[str, str | None, bool]]] = {}
    with lend(services.pool) as connection:
        for each in canary_lags.results_after(connection, 0):
            found.setdefault(each.way, []).append((each.outcome, each.reason, each.is_late))
    return found


def sent(services: Services) -> list[tuple[Channel, str]]:
    return [(channel, each.address) for channel in Channel for each in outbox(services, channel).sent]


def alerts(services: Services) -> set[tuple[str, str]]:
    return {
        (finding.kind, finding.subject)
        for finding in examine(services).findings
        if finding.kind in (Standstill.OPT_OUT_LATE, Standstill.OPT_OUT_NOT_MEASURED)
    }


@contextmanager
def web_that_forgets() -> Iterator[str]:
    """A web application that answers every opt-out with success and records none."""

    application = FastAPI()

    @application.api_route("/{path:path}", methods=["GET", "POST", "PUT"], response_class=HTMLResponse)
    def answer(path: str) -> str:
        return f'<input name="page" value="of {path}">'

    with serving(application) as url:
        yield url


# -- measured ----------------------------------------------------------------------------------------------------------


def test_every_way_out_is_measured_again_and_again(stage: CanaryStage) -> None:
    stage.run_rounds(2)
    assert outcomes(stage.services) == {way: [("measured", None, False)] * 2 for way in OptOutWay}
    own = {(channel, address) for way in OptOutWay for channel, address in addresses_of(stage.services, way).items()}
    counts = Counter(sent(stage.services))
    assert counts.keys() == own
    assert min(counts.values()) == 2  # each channel of each way got a message before each opt-out
    assert alerts(stage.services) == set()


def test_canaries_may_reach_the_web_application_at_another_url(database: str) -> None:
    """Containers and many networks do not reach the public address from inside. Twilio's signature is of the public one."""
    with canary_stage(database, public_url="https://messages.bank.example") as stage:
        stage.run_rounds()
        assert outcomes(stage.services) == {way: [("measured", None, False)] for way in OptOutWay}


def test_the_opt_out_is_recorded_as_a_customers_is(stage: CanaryStage) -> None:
    stage.run_rounds()
    sources = {}
    with lend(stage.services.pool) as connection:
        people = {way: each.recipient_id for way, each in canaries.in_use(connection).items()}
    for way, recipient_id in people.items():
        last = preferences.history(stage.services, recipient_id)[-1]
        sources[way] = (last.subject, last.new_value, last.source)
    assert sources == {
        OptOutWay.ONE_CLICK: ("channel:email", "off", "unsubscribe"),
        OptOutWay.PREFERENCE_CENTRE: ("offer:own", "none", "preference_centre"),
        OptOutWay.API: ("objection:marketing", "on", "mobile"),
        OptOutWay.STOP_REPLY: ("channel:sms_whatsapp", "off", "inbound"),
        OptOutWay.PROVIDER_EVENT: ("channel:email", "off", "provider"),
        OptOutWay.BRANCH: ("objection:marketing", "on", "branch"),
    }
    stage.tick()  # the next rounds begin: everything is on again
    for recipient_id in people.values():
        now = {subject: choice.value for subject, choice in preferences.show(stage.services, recipient_id).choices.items()}
        assert now.items() >= ON.items()


def test_arrivals_are_measured_when_the_reports_come(stage: CanaryStage) -> None:
    stage.run_rounds()
    with lend(stage.services.pool) as connection:
        assert all(each.awaits_arrivals for each in canary_lags.results_after(connection, 0))
    stage.report_arrivals()
    stage.tick()
    with lend(stage.services.pool) as connection:
        found = canary_lags.results_after(connection, 0)
    assert not any(each.awaits_arrivals for each in found)
    assert all((each.arrival_seconds or 0) > 0 for each in found)  # the reports say: after the opt-out


def test_one_process_at_a_time_takes_a_step(stage: CanaryStage) -> None:
    stage.tick(work=False)
    (canary, *_) = stage.open_rounds().values()
    with lend(stage.services.pool) as connection:
        assert canaries.take_step(connection, canary.no, 1)
        assert not canaries.take_step(connection, canary.no, 1)
        assert canaries.start(connection, OptOutWay(canary.way), canary.recipient_id, 60.0, timedelta(0)) is None


def test_one_call_measures_each_way_once(stage: CanaryStage) -> None:
    services = replace(stage.services, sleep=lambda _: stage.report_arrivals())
    results = rounds.run_once(services, stage.broker.publish, 600.0)
    assert {each.way: each.outcome for each in results} == dict.fromkeys(OptOutWay, "measured")
    assert not any(each.awaits_arrivals or each.is_late for each in results)


def test_a_worker_with_fewer_rights_can_do_all_of_it(stage: CanaryStage, database: str) -> None:
    roles.create(database)
    with open_pool(database, PoolOptions(role=roles.TASKS)) as pool:
        worker = replace(stage, services=replace(stage.services, pool=pool))
        worker.run_rounds()
        with lend(pool) as connection:
            connection.execute("UPDATE canaries SET made_at = made_at - interval '7 hours'")
        worker.run_rounds()
        with lend(pool) as connection:
            connection.execute("UPDATE canaries SET retired_at = retired_at - interval '2 days'")
            assert canaries.forget(connection, datetime.now(UTC) - timedelta(days=1), 100) == len(OptOutWay)
    assert outcomes(stage.services) == {way: [("measured", None, False)] * 2 for way in OptOutWay}


# -- late --------------------------------------------------------------------------------------------------------------


def test_an_opt_out_that_is_answered_and_lost_is_an_alert(stage: CanaryStage) -> None:
    before = RECORDER.collected(CANARY_BOUND_BROKEN).get((OptOutWay.ONE_CLICK,), 0)
    with web_that_forgets() as url:
        broken = replace(stage, services=replace(stage.services, public_url=url))
        broken.run_rounds()
    found = outcomes(stage.services)
    lost = {OptOutWay.ONE_CLICK, OptOutWay.PREFERENCE_CENTRE, OptOutWay.API, OptOutWay.STOP_REPLY}
    assert {way for way, each in found.items() if each == [("measured", None, True)]} == lost
    assert found[OptOutWay.BRANCH] == [("measured", None, False)]  # it is recorded without the web application
    assert alerts(stage.services) == {(Standstill.OPT_OUT_LATE, way) for way in lost}
    assert RECORDER.collected(CANARY_BOUND_BROKEN)[OptOutWay.ONE_CLICK,] == before + 1
    notices: set[str] = set()

    def notify(notice: Notice) -> bool:
        notices.add(notice.title)
        return True

    for clock in (stage.services.clock, lambda: datetime.now(UTC) + timedelta(seconds=15)):
        services = replace(stage.services, clock=clock)
        Watch(partial(replace, services), notify, clock).look()
    assert f"opt_out_late {OptOutWay.ONE_CLICK}" in notices
    assert any(each.kind == Standstill.OPT_OUT_LATE for each in alerting.newest(stage.services, 50))


def test_an_arrival_after_the_bound_is_an_alert(stage: CanaryStage) -> None:
    stage.run_rounds()
    assert alerts(stage.services) == set()
    stage.report_arrivals(after=timedelta(seconds=stage.services.limits.lease_seconds + 5))
    stage.tick()
    assert alerts(stage.services) == {(Standstill.OPT_OUT_LATE, way) for way in OptOutWay}
    assert outcomes(stage.services)[OptOutWay.API] == [("measured", None, True)]


def test_a_claim_after_a_provider_event_may_be_within_the_bound() -> None:
    lags = OptOutLags(claim=0.5, hand_off=0.6, arrival=0.7)
    assert [way for way in OptOutWay if not lags.is_late(way, 60.0)] == [OptOutWay.PROVIDER_EVENT]
    assert OptOutLags(claim=61.0, hand_off=61.0, arrival=61.0).is_late(OptOutWay.PROVIDER_EVENT, 60.0)


# -- not measured ------------------------------------------------------------------------------------------------------


def test_without_a_web_application_nothing_is_late_but_unmeasured(database: str) -> None:
    with canary_stage(database, web=False) as stage:
        for _ in range(4):
            stage.tick()
        found = outcomes(stage.services)
        reasons = {way: each[0][:2] for way, each in found.items()}
        assert reasons[OptOutWay.API] == ("not_measured", "web_unreachable")
        assert not any(is_late for each in found.values() for _, _, is_late in each)
        assert alerts(stage.services) == set()  # it may be over in a minute
        with lend(stage.services.pool) as connection:
            connection.execute("UPDATE canary_rounds SET started_at = started_at - interval '20 minutes'")
        assert (Standstill.OPT_OUT_NOT_MEASURED, OptOutWay.API) in alerts(stage.services)


def test_workers_that_stand_still_are_not_a_late_opt_out(stage: CanaryStage) -> None:
    for _ in range(4):
        stage.tick(work=False)
    with lend(stage.services.pool) as connection:
        connection.execute("UPDATE canary_rounds SET started_at = started_at - interval '2 minutes'")
    stage.tick(work=False)
    assert outcomes(stage.services) == {way: [("not_measured", "pending", False)] for way in OptOutWay}


def test_quiet_hours_are_no_alert_and_no_opt_out(stage: CanaryStage) -> None:
    whole_day = QuietHours(time(0, 0), time(23, 59, 59, 999_999))
    always = {Channel.SMS: whole_day, Channel.WHATSAPP: whole_day}
    silent = replace(stage, services=replace(stage.services, policy=replace(stage.services.policy, quiet_hours=always)))
    silent.run_rounds()
    with lend(stage.services.pool) as connection:
        connection.execute("UPDATE canary_rounds SET started_at = started_at - interval '20 minutes'")
    assert outcomes(silent.services)[OptOutWay.BRANCH] == [("measured", None, False)]  # by e-mail and push
    assert outcomes(silent.services)[OptOutWay.STOP_REPLY] == [("not_measured", "quiet_hours", False)]
    assert (Standstill.OPT_OUT_NOT_MEASURED, OptOutWay.STOP_REPLY) not in alerts(silent.services)


def test_an_address_that_a_customer_has_is_never_used(stage: CanaryStage) -> None:
    address = addresses_of(stage.services, OptOutWay.ONE_CLICK)[Channel.EMAIL]
    add_people(stage.services, person("c-1", email=address))
    stage.run_rounds()
    assert outcomes(stage.services)[OptOutWay.ONE_CLICK] == [("not_measured", "address_in_use", False)]
    assert (Channel.EMAIL, address) not in sent(stage.services)


def test_while_canaries_are_off_nothing_happens(stage: CanaryStage) -> None:
    rounds.run(replace(stage.services, canaries=None), stage.broker.publish, AT_ONCE)
    assert (stage.open_rounds(), sent(stage.services), alerts(replace(stage.services, canaries=None))) == ({}, [], set())


# -- canaries are nobody -----------------------------------------------------------------------------------------------


def test_other_systems_and_lists_know_no_canary(stage: CanaryStage) -> None:
    add_people(stage.services, person("c-1"))
    stage.run_rounds()
    stage.report_arrivals()
    assert "canary:" not in json.dumps(all_events(stage.services))
    assert messages.accepted_count(stage.services) == 0
    with lend(stage.services.pool) as connection:
        (one_click,) = [each.recipient_id for way, each in canaries.in_use(connection).items() if way is OptOutWay.ONE_CLICK]
        assert message_list.page(connection, MessageFilter(), None, 100).messages == ()
        assert message_list.page(connection, MessageFilter(recipient=one_click), None, 100).messages  # who looks for it finds it
        assert connection.execute("SELECT count(*) FROM campaigns").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM triggers WHERE starts_with(key, 'ack:')").fetchone() == (0,)


def test_no_file_or_job_from_outside_may_name_a_canary(stage: CanaryStage) -> None:
    name, message = "canary:api:1", "reserved for canary recipients"
    (row,) = inline([{"recipient": name}])
    assert message in repr(row)
    with pytest.raises(BadInput, match=message):
        submission.accept_trigger(stage.services, {"key": "k", "recipient": name, "template": "loan_offer", "data": {}})
    with pytest.raises(BadRecipient):
        parse(person(name), datetime.now(UTC))


def test_a_canary_counts_in_no_cap(stage: CanaryStage) -> None:
    stage.run_rounds(3)  # more than a cap of the policy allows in a day
    assert all(each == ("measured", None, False) for way in outcomes(stage.services).values() for each in way)


def test_a_retired_canary_is_deleted_but_not_its_measurements(stage: CanaryStage) -> None:
    stage.run_rounds()
    stage.report_arrivals()
    last = stage.services.ledger_watch.last_claim()
    assert last is not None
    with lend(stage.services.pool) as connection:
        connection.execute("UPDATE canaries SET made_at = made_at - interval '7 hours'")
    stage.run_rounds()
    with lend(stage.services.pool) as connection:
        retired = connection.execute("SELECT count(*) FROM canaries WHERE retired_at IS NOT NULL").fetchone()
        connection.execute("UPDATE canaries SET retired_at = retired_at - interval '2 days' WHERE retired_at IS NOT NULL")
        gone = [row[0] for row in connection.execute("SELECT recipient_id FROM canaries WHERE retired_at IS NOT NULL")]
    assert retired == (len(OptOutWay),)
    cleared = {result.data.what: result.cleared for result in retention.clear(stage.services)}
    assert cleared["canary recipients of the days before"] == len(OptOutWay)
    assert ledger_audit.verify(stage.services) == []
    with lend(stage.services.pool) as connection:
        for rest in (
            "SELECT count(*) FROM recipients WHERE id = ANY(%s)",
            "SELECT count(*) FROM consent_events WHERE recipient_id = ANY(%s)",
            "SELECT count(*) FROM messages WHERE recipient_id = ANY(%s)",
            "SELECT count(*) FROM jobs WHERE recipient_id = ANY(%s)",
        ):
            assert connection.execute(rest, (gone,)).fetchone() == (0,), rest
        assert generations.has_claim(connection, last), "its absence must not look like a restore, which holds all sending"
        assert not generations.has_claim(connection, replace(last, at=last.at + 3_600_000_000))
        assert len(canary_lags.results_after(connection, 0)) == 2 * len(OptOutWay)
        connection.execute("UPDATE canary_rounds SET started_at = started_at - interval '500 days'")
    cleared = {result.data.what: result.cleared for result in retention.clear(stage.services)}
    assert cleared["measured opt-outs of canary recipients"] >= 2 * len(OptOutWay)


# -- shown -------------------------------------------------------------------------------------------------------------


def test_the_page_and_the_numbers_show_what_was_measured(stage: CanaryStage) -> None:
    stage.run_rounds()
    stage.report_arrivals()
    stage.tick()
    view = service_level.latency_view(service_level.latency(stage.services, 1))
    assert {each["way"]: each["measured"] for each in view["by_way"]} == dict.fromkeys(OptOutWay, 1)
    assert (view["not_configured"], view["late"], view["not_measured"]) == ([], [], {})
    assert sum(each["measured"] for each in view["series"]) == len(OptOutWay)
    assert all(each["arrival_p50"] == each["arrival_max"] > 0 for each in view["by_way"])
    assert RECORDER.collected(CANARY_OPT_OUT)[OptOutWay.API, "arrival"] >= 1
    with TestClient(create(stage.services, Broker()), base_url="https://d.example") as client:
        sign_in(client, stage.services, Role.OPERATOR)
        page = client.get("/console/opt-out-latency?days=7&way=api")
    assert page.status_code == 200
    assert all(name in page.text for name in ("One-click unsubscribe", "STOP reply", "Show the numbers", 'data-series="p99"'))


def test_a_monthly_report_shows_any_change(stage: CanaryStage) -> None:
    stage.run_rounds()
    month = f"{datetime.now(UTC):%Y-%m}"
    document = signed_reports.monthly_report(stage.services, month)
    assert (document["opt_outs"], document["measured"], document["late"], document["complete"]) == (6, 6, 0, False)
    text, secret = json.dumps(document, indent=1), stage.services.secret
    check = signed_reports.verify(text, secret=secret)
    assert (check.is_unchanged, check.is_ours, check.month) == (True, True, month)
    assert signed_reports.verify(text.replace('"late": 0', '"late": 1'), secret=secret).is_unchanged is False
    other = KeyRing.of(b"another-secret-that-is-long-enough-for-this")
    assert signed_reports.verify(text, secret=other).is_ours is False
    assert signed_reports.verify(text, secret=KeyRing.of(other.newest, secret.newest)).is_ours is True  # after a rotation
    assert signed_reports.verify(text, document["public_key"]).is_ours is True
    for bad in ("", "[]", "{}", '{"signature": 1}'):
        with pytest.raises(BadInput):
            signed_reports.verify(bad)
    for month in ("2026-13", "november", "2999-01"):
        with pytest.raises(BadInput):
            signed_reports.monthly_report(stage.services, month)
