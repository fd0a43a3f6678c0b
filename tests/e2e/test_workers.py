"""The whole machine: plain Celery workers, a real broker, the official adapters and the providers' sandbox."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from celery import Celery
from redis import Redis

from channels.base import Channel
from channels.sandbox import SandboxClient, running
from dispatcher.campaigns import refused_jobs, scheduler, submission
from dispatcher.embedded import Engines
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import balance as balance_module
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import alerts, policies, stopped_channels
from dispatcher.maintenance import policy_in_force
from dispatcher.policy import parse, shipped
from dispatcher.runtime.services import IN_FLIGHT_MAX, Services
from tests.support.services import TEMPLATES, add_people, make_services, person, policy_without_quiet_hours

OFFER = {"project": "zonnepanelen", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SECRET = "a-secret-of-the-tests-that-is-long-enough"  # the one that make_house uses
# A child of billiard 4.3's pool sometimes miscounts which of its results were received, and then waits 30 s before it ends.
STOP_SECONDS_MAX = 90.0


@dataclass(frozen=True)
class IdleMachine:
    """A ledger, a broker and a sandbox of this test alone, and what a worker needs to work on them."""

    services: Services
    sandbox: SandboxClient
    celery: Celery
    log: Path
    broker_url: str
    environ: Mapping[str, str]

    @property
    def templates(self) -> Path:
        """The folder of templates that all processes of this machine read."""
        return Path(self.environ["DISPATCHER_TEMPLATES"])

    def run(self, *command: str) -> int:
        """Run a `dispatcher` command; its exit code."""
        program = (sys.executable, "-c", "from dispatcher.cli import main; main()", *command)
        return subprocess.run(program, env=self.environ, capture_output=True, check=False).returncode

    def submit(self, count: int, **changes: Any) -> None:
        rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(count)]
        form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
        self.celery.send_task("dispatcher.submit_campaign", (form,), queue="fanout")

    def on_the_broker(self, lane: str) -> int:
        """The messages of a lane but for heartbeats, those included that a worker has and did not acknowledge."""
        place = urlsplit(self.broker_url)
        with Redis(unix_socket_path=place.path, db=int(place.query.partition("=")[2]), decode_responses=True) as client:
            lists = [key for key in client.scan_iter(f"{lane}*") if client.type(key) == "list"]
            waiting = [message for key in lists for message in client.lrange(key, 0, -1)]
            unacked = [message for message in client.hvals("unacked") if lane in json.loads(message)[2]]
            return sum("dispatcher.record_heartbeat" not in message for message in waiting + unacked)

    def has_begun_to_send(self) -> bool:
        """Whether a byte of a claim's messages may have left; before, a lost claim is simply pending again."""
        with lend(self.services.pool) as connection:
            return connection.execute("SELECT FROM claim_starts WHERE NOT is_revoked LIMIT 1").fetchone() is not None

    def balance(self) -> dict[str, int]:
        with lend(self.services.pool) as connection:
            campaign = lifecycle.find(connection, "spring")
            if campaign is None:
                return {}
            counted = balance_module.balance(connection, campaign)
        assert sum(counted.states.values()) == campaign.audience
        return {state.value: count for state, count in counted.states.items() if count}


@dataclass(frozen=True)
class Machine(IdleMachine):
    """The same with a worker at work, and beat."""

    worker: subprocess.Popen[bytes]


@pytest.fixture
def idle_machine(database: str, broker_url: str, tmp_path: Path) -> Iterator[IdleMachine]:
    policy = policy_without_quiet_hours(tmp_path)
    with make_services(database) as still, running() as double:
        services = replace(still, clock=lambda: datetime.now(UTC), policy=parse(policy.read_text(encoding="utf-8")))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
            "DISPATCHER_HOME": str(tmp_path),
            "DISPATCHER_DATABASE_URL": database,
            "DISPATCHER_BROKER_URL": broker_url,
            "DISPATCHER_SECRET_KEY": SECRET,
            "DISPATCHER_TEMPLATES": str(copytree(TEMPLATES, tmp_path / "templates")),
            "DISPATCHER_POLICY": str(policy),
            "DISPATCHER_SANDBOX_URL": double.url,
            "DISPATCHER_LEASE_SECONDS": "4",
        }
        celery = Celery(broker=broker_url, set_as_current=False)
        celery.config_from_object("celeryconfig")
        celery.conf.broker_url = broker_url
        yield IdleMachine(services, double, celery, tmp_path / "worker.log", broker_url, environ)


@pytest.fixture
def machine(idle_machine: IdleMachine, tmp_path: Path) -> Iterator[Machine]:
    worker = ("worker", "--concurrency", "2", "--loglevel", "INFO", "-E")
    beat = ("beat", "--schedule", str(tmp_path / "beat"), "--pidfile", "")
    with idle_machine.log.open("wb") as file:
        children = [
            subprocess.Popen(
                (sys.executable, "-m", "celery", "-A", "dispatcher", *each), stdout=file, stderr=file, env=idle_machine.environ
            )
            for each in (worker, beat)
        ]
    try:
        parts = {each.name: getattr(idle_machine, each.name) for each in fields(idle_machine)}
        yield Machine(**parts, worker=children[0])
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(STOP_SECONDS_MAX)


def wait_until(met: Callable[[], bool], machine: IdleMachine, seconds: float = 240.0, log: Path | None = None) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, (log or machine.log).read_text()[-4000:]
        time.sleep(0.05)


def finished(machine: Machine, campaign_id: str = "spring") -> bool:
    with lend(machine.services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
    return campaign is not None and campaign.state == "finished"


def test_the_rate_holds_when_the_workers_stand_still_for_a_while(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", phone=f"+32470{number:06}") for number in range(240)))
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(240)]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, "rate_per_second": 20}
    parsed = parse_campaign(form, submission.validation_context(machine.services))
    submission.submit(machine.services, parsed)
    wait_until(lambda: "accepted" in machine.balance(), machine)
    workers = [psutil.Process(machine.worker.pid), *psutil.Process(machine.worker.pid).children(recursive=True)]
    for process in workers:
        process.suspend()
    time.sleep(6)  # six seconds' worth is put on the broker
    for process in workers:
        process.resume()
    wait_until(lambda: finished(machine), machine)
    with lend(machine.services.pool) as connection:
        moments = [at for (at,) in connection.execute("SELECT claimed_at FROM messages ORDER BY 1")]
    assert max(sum(0 <= (later - at).total_seconds() < 1 for later in moments) for at in moments) <= 3.5 * 20


def test_a_campaign_and_a_trigger_go_through_workers_and_no_personal_data_is_seen_on_the_way(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", number, language="nl") for number in range(40)))
    with Redis(unix_socket_path=urlsplit(machine.broker_url).path).monitor() as monitor:  # type: ignore[no-untyped-call]
        parsed = parse_campaign(
            {
                "id": "spring",
                "template": "loan_offer",
                "channels": ["email", "sms"],
                "route": "all",
                "audience": [{"recipient": f"c-{number}", "data": OFFER} for number in range(40)],
            },
            submission.validation_context(machine.services),
        )
        submission.submit(machine.services, parsed)  # beat finds it
        wait_until(lambda: finished(machine), machine)
        job = {"key": "k-1", "recipient": "c-1", "template": "optout_acknowledgement", "data": {"first_name": "Zwaantje"}}
        machine.celery.send_task("dispatcher.trigger", (job,), queue="transactional", argsrepr="(…)")
        wait_until(lambda: machine.sandbox.counts()["total"] == 81, machine)
        seen = _received_events(monitor)
    assert machine.balance() == {"accepted": 40}
    assert Counter(arrival["address"] for arrival in machine.sandbox.log()).most_common(1)[0][1] == 2
    assert "dispatcher.send_chunk" in seen
    log = machine.log.read_text()
    for personal in ("example.org", "+3247", "zonnepanelen"):
        assert personal not in seen
        assert personal not in log
    assert "Zwaantje" not in log


def _received_events(monitor: Any) -> str:
    """All that went over the broker while the monitor listened, decoded where it is base64."""
    import base64
    import re

    monitor.connection._sock.settimeout(0.5)
    events = []
    while True:
        try:
            events.append(str(monitor.next_command()["command"]))
        except Exception:
            break
    text = "\n".join(events)
    bodies = [base64.b64decode(body).decode("utf-8", "replace") for body in re.findall(r'"body": "([A-Za-z0-9+/=]{8,})"', text)]
    return "\n".join([text, *bodies])


def add_template(machine: Machine, name: str) -> None:
    """A new offer in the folder: the loan offer under another name, with the name at the beginning of its SMS."""
    folder = copytree(machine.templates / "loan_offer", machine.templates / name)
    declaration = folder / "template.toml"
    declaration.write_text(declaration.read_text().replace('name = "loan_offer"', f'name = "{name}"'))
    edit_template(machine, name, name)


def edit_template(machine: Machine, name: str, word: str) -> None:
    """Put a word at the beginning of the SMS."""
    for texts in (machine.templates / name).glob("*/texts.toml"):
        texts.write_text(texts.read_text().replace("[sms]\ntext = '''", f"[sms]\ntext = '''{word}! "))


def approve(machine: Machine, name: str) -> None:
    assert machine.run("templates", "check", name) == 0
    assert machine.run("templates", "approve", name) == 0


def submit_file(machine: Machine, campaign_id: str, people: range, **changes: Any) -> None:
    """Submit a campaign as a person does at the command line."""
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in people]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["sms"], "audience": rows, **changes}
    file = machine.templates.parent / f"{campaign_id}.yaml"
    file.write_text(json.dumps(form))  # JSON is YAML
    assert machine.run("campaign", "submit", str(file)) == 0


def first_words(machine: Machine) -> dict[str, str]:
    """The first word of the SMS that each number got."""
    return {arrival["address"]: arrival["text"].split()[0] for arrival in machine.sandbox.log() if arrival["channel"] == "sms"}


def test_a_new_template_leaves_without_a_restart_of_the_workers(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", number) for number in range(3)))
    wait_until(lambda: "ready" in machine.log.read_text(), machine)
    submit_file(machine, "spring", range(1))
    wait_until(lambda: finished(machine), machine)  # the workers have loaded their templates
    add_template(machine, "autumn_offer")
    approve(machine, "autumn_offer")
    submit_file(machine, "autumn", range(1, 2), template="autumn_offer")
    wait_until(lambda: finished(machine, "autumn"), machine, 120)
    job = {"key": "k-1", "recipient": "c-2", "template": "autumn_offer", "data": OFFER, "channels": ["sms"]}
    machine.celery.send_task("dispatcher.trigger", (job,), queue="transactional")  # a worker knows the name, too
    wait_until(lambda: machine.sandbox.counts()["total"] == 3, machine, 120)
    assert sorted(first_words(machine).values())[-2:] == ["autumn_offer!", "autumn_offer!"]
    assert "KeyError" not in machine.log.read_text()


def test_an_edited_template_leaves_in_a_new_campaign_and_the_running_one_keeps_its_own_text(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", number) for number in range(64)))
    wait_until(lambda: "ready" in machine.log.read_text(), machine)
    submit_file(machine, "spring", range(60), rate_per_second=1)  # a minute, so that it is under way on a slow machine, too
    wait_until(lambda: "accepted" in machine.balance(), machine)
    with lend(machine.services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", datetime.now(UTC))
    edit_template(machine, "loan_offer", "Autumn")
    approve(machine, "loan_offer")
    submit_file(machine, "autumn", range(60, 64))
    wait_until(lambda: finished(machine, "autumn"), machine, 120)
    before = len(first_words(machine))
    with lend(machine.services.pool) as connection:
        assert lifecycle.resume(connection, "spring", datetime.now(UTC))
    wait_until(lambda: len(first_words(machine)) >= before + 3, machine)
    words = first_words(machine)
    assert {number for number, word in words.items() if word == "Autumn!"} == {f"+324700000{number}" for number in range(60, 64)}


def test_events_hide_what_a_caller_put_into_arguments(machine: Machine) -> None:
    add_people(machine.services, person("c-1"))
    received: list[dict[str, Any]] = []
    job = {"key": "k-1", "recipient": "c-1", "template": "optout_acknowledgement", "data": {"first_name": "Zwaantje"}}
    wait_until(lambda: "ready" in machine.log.read_text(), machine)
    with machine.celery.connection() as connection:
        receiver = machine.celery.events.Receiver(connection, handlers={"*": received.append})
        listener = threading.Thread(target=_listen, args=(receiver,), daemon=True)
        listener.start()
        wait_until(lambda: bool(received), machine)  # beat's tasks: the listener receives
        machine.celery.send_task("dispatcher.trigger", (job,), queue="transactional", argsrepr=repr(job), kwargsrepr="{}")
        wait_until(lambda: any(event.get("name") == "dispatcher.trigger" for event in received), machine)
        wait_until(lambda: machine.sandbox.counts()["total"] == 1, machine)
        receiver.should_stop = True
        listener.join(10)
    assert "Zwaantje" not in json.dumps(received, default=str)


def test_refused_messages_are_recorded_acknowledged_and_not_logged(machine: Machine) -> None:
    wait_until(lambda: "ready" in machine.log.read_text(), machine)
    job = {"key": "k-1", "recipient": "Zwaantje", "data": {"email": "zwaantje@home.example"}}
    machine.celery.send_task("dispatcher.triger", (job,), queue="transactional")
    machine.celery.send_task("dispatcher.submit_campaign", kwargs={"campain": job}, queue="fanout")
    late = {"key": "late", "recipient": "Zwaantje", "template": "loan_offer"}
    machine.celery.send_task("dispatcher.trigger", (late,), queue="transactional", expires=datetime(2026, 1, 1, tzinfo=UTC))
    headers = {"id": "x", "task": "dispatcher.trigger"}
    broken: list[dict[str, Any]] = [
        {"body": "Zwaantje", "headers": {}},
        {"body": "5", "headers": headers, "content-type": "application/json"},  # ends a worker of Celery's own
        {"body": '[[], {"a": "Zwaantje"}]', "headers": headers, "content-type": "application/json"},
        {"body": '[{"a": 1}, ["Zwaantje"], {}]', "headers": headers, "content-type": "application/json"},
        {"body": '[["Zwaantje"], {}, {}]', "headers": {"task": "dispatcher.trigger"}, "content-type": "application/json"},
        {"body": '[["Zwaantje", 2], {}, {}]', "headers": headers | {"eta": "Zwaantje"}, "content-type": "application/json"},
        {"body": '[["Zwaantje", 3], {}, {}]', "headers": headers | {"task": ["a"]}, "content-type": "application/json"},
        {"body": "Zwaantje", "headers": headers, "content-type": "application/x-python-serialize"},
        {"body": "Zwaantje 4", "headers": headers | {"compression": "zlib"}, "content-type": "application/json"},
    ]
    plain = {"key": "stamped", "recipient": "c-1", "template": "optout_acknowledgement", "data": {"first_name": "Anna"}}
    add_people(machine.services, person("c-1"))
    hostile = {
        "stamped_headers": 5,
        "stamps": 5,
        "timelimit": [-1, -1],
        "shadow": "Zwaantje",
        "root_id": "Zwaantje",
        "retries": "x",
    }
    machine.celery.send_task("dispatcher.trigger", (plain,), queue="transactional", task_id="Zwaantje", headers=hostile)
    machine.celery.send_task("celery.starmap", ({"task": "dispatcher.trigger"}, [[job]]), queue="transactional")
    with Redis(unix_socket_path=urlsplit(machine.broker_url).path, db=int(machine.broker_url.partition("=")[2])) as client:
        for number, message in enumerate(broken):
            properties = {"delivery_tag": str(number), "delivery_info": {"exchange": "inbound", "routing_key": "inbound"}}
            whole = {"content-encoding": "utf-8", "properties": properties, **message}
            client.lpush("inbound", json.dumps(whole))
    wait_until(lambda: len(refused_jobs.newest(machine.services, 100)) >= 4 + len(broken), machine)
    wait_until(lambda: not any(machine.on_the_broker(lane) for lane in ("fanout", "inbound", "transactional")), machine)
    reasons = Counter((each.reason.value, each.task, each.key) for each in refused_jobs.newest(machine.services, 100))
    assert reasons["unknown_task", "dispatcher.triger", "k-1"] == 1
    assert reasons["unknown_task", "celery.starmap", None] == 1
    assert reasons["expired", "dispatcher.trigger", "late"] == 1
    assert reasons["invalid_fields", "dispatcher.submit_campaign", None] == 1
    assert sum(reasons[each] for each in reasons if each[0] == "unreadable_message") == len(broken), reasons
    wait_until(lambda: machine.sandbox.counts()["total"] == 1, machine)  # neither a header nor a time limit of the caller stops it
    assert machine.worker.poll() is None
    log = machine.log.read_text()
    assert "no task is called dispatcher.triger" in log
    with lend(machine.services.pool) as connection:
        stored = repr(connection.execute("SELECT * FROM refused_jobs").fetchall())
    assert "zwaantje" not in (log + stored).lower()


def _listen(receiver: Any) -> None:
    with suppress(TimeoutError):
        receiver.capture(limit=None, timeout=5, wakeup=False)


def test_a_channel_with_wrong_keys_stops_keeps_its_messages_and_goes_on_when_check_passes(machine: Machine, database: str) -> None:
    add_people(machine.services, *(person(f"c-{number}", number) for number in range(30)))
    machine.sandbox.refuse_keys(["SG.sandbox"])
    machine.submit(30)
    wait_until(lambda: machine.balance() == {"waiting": 30}, machine)
    with lend(machine.services.pool) as connection:
        assert stopped_channels.stopped(connection) == {Channel.EMAIL: "http_401"}
    assert machine.run("check") == 1
    machine.submit(20, id="later", channels=["push", "email"], route="all")  # the other channels go on
    wait_until(lambda: machine.sandbox.counts()["push"] == 20, machine)
    assert machine.sandbox.counts()["email"] == 0

    machine.sandbox.refuse_keys([])
    assert machine.run("check") == 0
    with psycopg.connect(database) as connection_of_owner:  # the five minutes that they rest are over
        connection_of_owner.execute("UPDATE messages SET until = now() WHERE state = 'waiting'")
    wait_until(lambda: finished(machine) and finished(machine, "later"), machine)
    assert machine.balance() == {"accepted": 30}
    arrivals = Counter(arrival["message_id"] for arrival in machine.sandbox.log())
    assert len(arrivals) == 30 + 2 * 20
    assert max(arrivals.values()) == 1
    with lend(machine.services.pool) as connection:
        assert stopped_channels.stopped(connection) == {}
        assert messages.of_campaign(connection, "spring", "c-0")[0].attempts == 1


def test_a_small_campaign_waits_for_no_more_than_its_turn_behind_a_large_one(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", number % 100) for number in range(5000)))
    machine.sandbox.set_faults([{"provider": "sendgrid", "delay_seconds": 0.2}])
    machine.submit(5000)
    wait_until(lambda: machine.balance().get("accepted", 0) > 0, machine)  # all ten chunks are on the broker
    machine.submit(50, id="small")
    wait_until(lambda: finished(machine, "small"), machine)
    counted = machine.balance()
    assert counted.get("pending", 0) > 1500, counted  # the chunks that were under way, and what a worker had fetched, went before
    machine.sandbox.clear_faults()


def test_a_killed_worker_child_costs_nobody_a_second_message_and_the_campaign_ends(machine: Machine) -> None:
    add_people(machine.services, *(person(f"c-{number}", number % 100) for number in range(1500)))
    machine.sandbox.set_faults([{"provider": "sendgrid", "share": 1.0, "delay_seconds": 2.0}])
    machine.submit(1500)
    wait_until(machine.has_begun_to_send, machine)
    for child in psutil.Process(machine.worker.pid).children():
        os.kill(child.pid, signal.SIGKILL)
    machine.sandbox.clear_faults()
    wait_until(lambda: finished(machine), machine)
    counted = machine.balance()
    assert set(counted) <= {"accepted", "unresolved"}
    assert sum(counted.values()) == 1500
    assert 0 < counted.get("unresolved", 0) <= 2 * IN_FLIGHT_MAX  # of two processes
    arrivals = Counter(arrival["address"] for arrival in machine.sandbox.log())
    assert max(arrivals.values()) == 1
    assert counted["accepted"] <= len(arrivals) <= 1500
    with lend(machine.services.pool) as connection:
        assert messages.of_campaign(connection, "spring", "c-0")[0].attempts <= 1


def test_while_the_ledger_is_away_chunks_wait_on_the_broker_and_the_log_is_quiet(
    machine: Machine, database: str, running_engines: Engines
) -> None:
    add_people(machine.services, *(person(f"c-{number}", number) for number in range(30)))
    wait_until(lambda: "ready" in machine.log.read_text(), machine)
    parsed = parse_campaign(
        {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": [{"recipient": "c-1", "data": OFFER}]},
        submission.validation_context(machine.services),
    )
    submission.submit(machine.services, parsed)
    name = urlsplit(database).path[1:]
    with psycopg.connect(running_engines.database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        for number in range(20):
            machine.celery.send_task("dispatcher.send_chunk", (202612, number), queue="campaign")
        time.sleep(14)  # a worker looks for the ledger for ten seconds
        messages_left = machine.on_the_broker("campaign")
        owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
    wait_until(lambda: finished(machine), machine)
    assert messages_left == 20
    assert machine.balance() == {"accepted": 1}
    assert "Traceback" not in machine.log.read_text()
    assert "the ledger is unavailable" in machine.log.read_text()


# A worker one of whose rules hangs, once, for longer than the soft time limit.
HANGING = """
import os, pathlib, sys, time
from dispatcher import celery_app, tasks
from dispatcher.policy.rules import RULES
marker = pathlib.Path(os.environ["DISPATCHER_HOME"], "hung")

def hang(case):
    if not marker.exists():
        marker.touch()
        time.sleep(30)

RULES.person["hang"] = hang
tasks.send_chunk.soft_time_limit = 2
celery_app.app.worker_main(["worker", "--concurrency", "1", "--queues", "campaign", "--hostname", "hanging@%h"])
"""


def test_a_soft_time_limit_while_deciding_refuses_nobody(idle_machine: IdleMachine, tmp_path: Path) -> None:
    add_people(idle_machine.services, *(person(f"c-{number}", number) for number in range(30)))
    parsed = parse_campaign(
        {
            "id": "spring",
            "template": "loan_offer",
            "channels": ["email"],
            "audience": [{"recipient": f"c-{number}", "data": OFFER} for number in range(30)],
        },
        submission.validation_context(idle_machine.services),
    )
    submission.submit(idle_machine.services, parsed)
    for due in scheduler.due_chunks(idle_machine.services):
        idle_machine.celery.send_task("dispatcher.send_chunk", (due.period, due.number), queue="campaign")
    log = tmp_path / "hanging.log"
    with log.open("wb") as file:
        hanging = subprocess.Popen((sys.executable, "-c", HANGING), stdout=file, stderr=file, env=idle_machine.environ)
    try:
        wait_until(lambda: "SoftTimeLimitExceeded" in log.read_text(), idle_machine, log=log)
        for period, number in _open_chunks(idle_machine):  # as the clock does after the lease
            idle_machine.celery.send_task("dispatcher.send_chunk", (period, number), queue="campaign")
        wait_until(lambda: idle_machine.balance() == {"accepted": 30}, idle_machine, log=log)
    finally:
        hanging.terminate()
        hanging.wait(STOP_SECONDS_MAX)


def _open_chunks(machine: IdleMachine) -> list[tuple[int, int]]:
    with lend(machine.services.pool) as connection:
        return connection.execute("SELECT period, chunk FROM chunks WHERE done_at IS NULL").fetchall()


def test_children_on_a_slow_machine_announce_themselves_before_they_make_their_services(
    idle_machine: IdleMachine, tmp_path: Path
) -> None:
    slow = """
import time
from dispatcher import celery_app, tasks
from dispatcher.runtime import bootstrap
make = bootstrap.services

def services(*arguments):
    time.sleep(6)  # longer than Celery waits for a child by default
    return make(*arguments)

bootstrap.services = services
celery_app.app.conf.worker_proc_alive_timeout = 4.0
celery_app.app.worker_main(["worker", "--concurrency", "1", "--queues", "campaign", "--hostname", "slow@%h"])
"""
    log = tmp_path / "slow.log"
    with log.open("wb") as file:
        worker = subprocess.Popen((sys.executable, "-c", slow), stdout=file, stderr=file, env=idle_machine.environ)
    try:
        wait_until(lambda: "ready" in log.read_text(), idle_machine, log=log)
        (child,) = psutil.Process(worker.pid).children()
        time.sleep(6)
        assert [child] == psutil.Process(worker.pid).children()
        assert "Timed out" not in log.read_text()
    finally:
        worker.terminate()
        worker.wait(STOP_SECONDS_MAX)


def test_workers_halt_while_another_policy_is_in_force(machine: Machine) -> None:
    """Nothing is decided, nothing is lost, and everything goes on once their policy is in force."""
    wait_until(lambda: policy_in_force.find(machine.services) is not None, machine)
    theirs, other = machine.services.policy.digest, parse(shipped()).digest
    with lend(machine.services.pool) as connection:
        policies.adopt(connection, other, "operator", machine.services.clock())
    add_people(machine.services, *(person(f"c-{number}", number) for number in range(20)))
    machine.submit(20)
    wait_until(lambda: "dispatcher policy adopt" in machine.log.read_text(), machine)
    time.sleep(3)
    assert machine.balance() == {}
    with lend(machine.services.pool) as connection:
        assert policy_in_force.NOT_IN_FORCE in [alert.code for alert in alerts.newest(connection)]
    assert machine.run("policy", "adopt") == 0
    current = policy_in_force.find(machine.services)
    assert current is not None
    assert current.digest == theirs
    wait_until(lambda: finished(machine), machine)
    assert sum(machine.balance().values()) == 20
    assert "Traceback" not in machine.log.read_text()
