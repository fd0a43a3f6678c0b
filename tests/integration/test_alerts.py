"""Each alert fires when its fault happens: make it, read `/metrics` before and after, and let promtool evaluate the rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from channels.base import Channel, ChannelError, Event, EventKind, Unavailable, Uncertain
from channels.resilience.observed import Observed
from dispatcher.campaigns import scheduler, submission
from dispatcher.celery_app import _on_publish
from dispatcher.domain.preferences import Change
from dispatcher.events import event_endpoints, publication
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import partitions
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.maintenance import generations, stopped_channels
from dispatcher.maintenance import opt_out_lag
from dispatcher.maintenance.metrics import OUTSIDE_GAUGES, families
from dispatcher.maintenance.surroundings import Surroundings
from dispatcher.runtime.metric_families import FAMILIES, MESSAGES, WEBHOOK_CALLS, label_values
from dispatcher.runtime.metrics import RECORDER, ChannelObserver, exposition, start_in_process
from dispatcher.runtime.services import Services, Watched
from dispatcher.web.app import create
from dispatcher.web.metrics_page import family_text
from tests.integration.test_webhook_delivery import HOSTS
from tests.integration.test_webhook_delivery import add as add_endpoint
from tests.support.canary_stage import canary_stage
from tests.support.promtool import firing
from tests.support.services import Broker, Clock, add_people, make_services, outbox, person, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
RELEASE_DUE = "dispatcher.release_due"
OPT_OUTS_MEASURED = "dispatcher_opt_out_to_last_hand_off_seconds_count"


@lru_cache(maxsize=1)
def registry() -> CollectorRegistry:
    return start_in_process()


def scrape(services: Services) -> str:
    """What `/metrics` serves."""
    return "".join(family_text(*each) for each in families(services)) + exposition(registry())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield replace(made, providers={channel: Observed(provider) for channel, provider in made.providers.items()})


def check(alert: str, services: Services, fault: Callable[[], object]) -> None:
    """The alert is silent before the fault, and fires after it."""
    before = scrape(services)
    assert not firing(alert, before, before)
    fault()
    assert firing(alert, before, scrape(services))


def submit(services: Services, count: int = 1) -> None:
    people = [f"c-{number}" for number in range(count)]
    add_people(services, *(person(each, phone=f"+32470{number:06}") for number, each in enumerate(people)))
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in people]
    form: dict[str, Any] = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)), by="Anne")


def answer_all(services: Services, error: ChannelError) -> None:
    """From now on the mail provider answers each message with this error."""
    provider = services.providers[Channel.EMAIL]
    assert isinstance(provider, Observed)
    outbox(replace(services, providers={Channel.EMAIL: provider.inner})).answers[""] = error


def test_a_campaign_that_no_worker_takes_is_stuck(services: Services, clock: Clock) -> None:
    submit(services)
    clock.pass_(1_200)
    scheduler.due_chunks(services)
    check("CampaignStuck", services, lambda: clock.pass_(1_200))


def test_a_task_that_waits_shows_a_lane_without_worker(services: Services, broker_url: str) -> None:
    watching = replace(services, watched=Watched(broker_url=broker_url))

    def publish() -> None:
        application = Celery("tests", broker=broker_url)
        application.config_from_object("celeryconfig")
        application.conf.broker_url = broker_url
        application.send_task("dispatcher.settle_events", headers={"published_at": time.time() - 600}, priority=3)
        application.send_task("dispatcher.settle_events", priority=0)

    check("LaneWithoutWorker", watching, publish)
    assert 'dispatcher_lane_tasks{lane="inbound"} 2\n' in scrape(watching)


def test_beat_that_publishes_nothing_is_away(services: Services) -> None:
    _on_publish(sender=RELEASE_DUE, headers={})
    before = scrape(services)
    assert firing("BeatAway", before, before)
    _on_publish(sender=RELEASE_DUE, headers={})
    assert not firing("BeatAway", before, scrape(services))


def test_a_database_that_does_not_answer_is_away(services: Services) -> None:
    before = scrape(services)
    with make_services(NOWHERE, wait_seconds_max=0.2) as lost:
        after = scrape(lost)
    assert 'dispatcher_engine_up{engine="database"} 0\n' in after
    assert firing("EngineAway", before, after)
    assert not firing("EngineAway", before, before)


def test_a_provider_that_answers_with_errors_is_failing(services: Services) -> None:
    def fail() -> None:
        answer_all(services, Unavailable("refused"))
        submit(services)
        work(services)

    check("ProviderFailing", services, fail)


def test_a_provider_with_late_answers_is_slow(services: Services) -> None:
    check("ProviderSlow", services, lambda: ChannelObserver().batch_sent("smtp", "email", {"accepted": 9}, [7.0] * 9))


def test_a_stopped_channel_is_reported(services: Services) -> None:
    def stop() -> None:
        with lend(services.pool) as connection:
            stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", services.clock())

    check("ChannelStopped", services, stop)


def test_a_restored_ledger_alerts(services: Services) -> None:
    def restore() -> None:
        with lend(services.pool) as connection, connection.transaction():
            generations.begin(connection, "claim_missing", "", None, services.clock())

    check("LedgerRestored", services, restore)


def test_a_provider_without_reports_has_silent_webhooks(services: Services) -> None:
    check("WebhooksSilent", services, lambda: ChannelObserver().batch_sent("telnyx", "sms", {"accepted": 9}, [0.1]))
    before = scrape(services)
    ChannelObserver().batch_sent("telnyx", "sms", {"accepted": 9}, [0.1])
    RECORDER.count(WEBHOOK_CALLS, labels=("telnyx", "accepted"))
    assert not firing("WebhooksSilent", before, scrape(services))


def test_unsigned_calls_are_refused_webhooks(services: Services) -> None:
    def call() -> None:
        with TestClient(create(services, Broker())) as client:
            assert [client.post("/webhooks/twilio/status").status_code for _ in range(9)] == [403] * 9

    check("WebhooksRefused", services, call)


def test_an_event_that_is_not_applied_is_behind(services: Services, clock: Clock) -> None:
    def report() -> None:
        event = Event("twilio", "e-1", Channel.SMS, EventKind.DELIVERED, services.clock(), receipt="SM1")
        assert provider_events.store_events(services, [event]) == 1
        clock.pass_(600)

    check("ProviderEventsBehind", services, report)


def test_lost_answers_make_unresolved_rise(services: Services) -> None:
    answer_all(services, Uncertain("timeout"))
    submit(services, 60)
    before = scrape(services)
    work(services)
    after = scrape(services)
    assert "dispatcher_messages_unresolved 60\n" in after
    assert firing("UnresolvedRising", before, after, minutes=140)
    assert not firing("UnresolvedRising", before, after), "it does not rise any more"


def test_many_complaints_are_reported(services: Services) -> None:
    def complain() -> None:
        RECORDER.count(MESSAGES, 2_000, ("accepted", "email", "smtp", "commercial", ""))
        RECORDER.count(MESSAGES, 5, ("complained", "email", "smtp", "", ""))

    check("ComplaintRate", services, complain)


def test_an_outbox_that_nobody_publishes_lags(services: Services, clock: Clock) -> None:
    publication.publish(services)

    def refuse() -> None:
        submit(services)
        work(services)
        clock.pass_(600)

    check("OutboxLag", services, refuse)


def test_a_disabled_event_endpoint_is_behind(services: Services) -> None:
    with_hosts = replace(services, webhook_hosts=HOSTS)

    def disable() -> None:
        add_endpoint(with_hosts, "http://127.0.0.1:9/events", "crm")
        event_endpoints.disable(with_hosts, "crm", "tests")

    check("EventEndpointBehind", with_hosts, disable)


def test_a_late_settlement_after_an_opt_out_breaks_the_bound(services: Services, clock: Clock) -> None:
    opt_out_lag.measure(services)

    def opt_out_and_settle_late() -> None:
        submit(services)
        work(services)
        opted_out_at = clock.now
        with lend(services.pool) as connection:
            statement = ConsentStatement("c-0", (Change("channel:email", "off"),), opted_out_at)
            events.record(connection, services.secret, statement, Provenance("branch", "clerk"), opted_out_at)
            # The claim has the database's time, the settlement that of a worker that was frozen for two minutes.
            connection.execute(
                "UPDATE messages SET claimed_at = %s, accepted_at = %s",
                (opted_out_at - timedelta(seconds=1), opted_out_at + timedelta(seconds=120)),
            )
        clock.pass_(300)
        opt_out_lag.measure(services)

    check("OptOutBoundBroken", services, opt_out_and_settle_late)


def test_an_opt_out_is_measured_once(services: Services, clock: Clock) -> None:
    add_people(services, person("anna"))
    for _ in range(3):  # the choices of the import are measured, too
        opt_out_lag.measure(services)
        clock.pass_(150)
    before = sample(scrape(services), OPT_OUTS_MEASURED)
    with lend(services.pool) as connection:
        statement = ConsentStatement("anna", (Change("offer:own", "none"),), clock.now)
        events.record(connection, services.secret, statement, Provenance("branch", "clerk"), clock.now)
    for _ in range(5):
        clock.pass_(90)
        opt_out_lag.measure(services)
    assert sample(scrape(services), OPT_OUTS_MEASURED) == before + 1


def sample(text: str, name: str) -> float:
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_a_late_opt_out_of_a_canary_is_reported(database: str) -> None:
    with canary_stage(database) as stage:
        stage.run_rounds()

        def arrive_late() -> None:
            stage.report_arrivals(after=timedelta(seconds=stage.services.limits.lease_seconds + 5))
            stage.tick(work=False)

        check("CanaryOptOutLate", stage.services, arrive_late)


def test_a_way_out_that_is_not_measured_is_reported(database: str) -> None:
    with canary_stage(database, web=False) as stage:
        for _ in range(4):
            stage.tick()

        def pass_minutes() -> None:
            with lend(stage.services.pool) as connection:
                connection.execute("UPDATE canary_rounds SET started_at = started_at - interval '20 minutes'")

        check("CanaryNotMeasured", stage.services, pass_minutes)


def test_a_certificate_near_its_end_is_reported(services: Services, tmp_path: Path) -> None:
    file = tmp_path / "public.pem"
    watching = replace(services, watched=Watched(certificates=(file,)))
    file.write_bytes(certificate(days=60))
    check("CertificateEndsSoon", watching, lambda: file.write_bytes(certificate(days=3)))
    file.unlink()
    assert 'dispatcher_certificate_end_timestamp_seconds{certificate="public.pem"} 0\n' in scrape(watching)


def certificate(days: int) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dispatcher.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    signed = builder.not_valid_before(now - timedelta(days=90)).not_valid_after(now + timedelta(days=days)).sign(key, SHA256())
    return bytes(signed.public_bytes(Encoding.PEM))


def test_a_month_without_partitions_is_reported(services: Services, database: str) -> None:
    now = datetime.now(UTC)
    with lend(services.pool) as connection:
        partitions.create_ahead(connection, now)

    def drop() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            rows = connection.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'chunks'::regclass")
            for (name,) in rows.fetchall():
                if name.removeprefix("chunks_") > f"{now:%Y%m}":
                    connection.execute(f"DROP TABLE {name} CASCADE".encode())

    check("PartitionMissing", services, drop)


def test_a_full_disk_is_reported(services: Services, tmp_path: Path) -> None:
    assert "dispatcher_disk_free_bytes " in scrape(replace(services, watched=Watched(home=tmp_path)))
    full = Surroundings({}, {}, disk_size=100, disk_free=5)
    gauges = [family_text(gauge.name, gauge.help, gauge.samples(full)) for gauge in OUTSIDE_GAUGES]
    before = "".join(gauges).replace("dispatcher_disk_free_bytes 5", "dispatcher_disk_free_bytes 50")
    assert firing("DiskAlmostFull", before, "".join(gauges))
    assert not firing("DiskAlmostFull", before, before)


def test_a_target_that_does_not_answer_is_down() -> None:
    assert firing("TargetDown", "up 1\n", "up 0\n")
    assert not firing("TargetDown", "up 1\n", "up 1\n")


def test_no_value_from_outside_becomes_a_label(services: Services) -> None:
    """Codes, names and addresses end as `other`."""
    planted = "anna@example.org"
    RECORDER.count(MESSAGES, labels=("failed", planted, planted, planted, planted))
    RECORDER.count(WEBHOOK_CALLS, labels=(planted, planted))
    for channel in Channel:
        ChannelObserver().batch_sent(planted, channel, {planted: 1}, [0.1])
    text = scrape(services)
    assert planted not in text
    closed = {f"dispatcher_{family.name}": family for family in FAMILIES}
    for name, labels in series(text):
        if name in closed:
            for label in labels.keys() - {"le"}:
                assert labels[label] in label_values(closed[name], label), (name, labels)


def series(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            yield each.name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count"), each.labels


def test_a_batch_is_counted_by_state_channel_and_kind(services: Services) -> None:
    name = 'dispatcher_messages_total{channel="email",kind="commercial",provider="outbox",reason="",state="accepted"}'
    submit(services, 3)
    before = scrape(services)
    work(services)
    after = scrape(services)
    assert sample(after, name) - (sample(before, name) if f"{name} " in before else 0) == 3
    assert sample(after, 'dispatcher_claim_to_hand_off_seconds_count{kind="commercial"}') >= 1
