"""People are told once when something stands still, are reminded until one of them takes care, and are told when it is over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from channels.base import Channel
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.events import publication
from dispatcher.ledger.connection import PoolOptions, lend, open_pool
from dispatcher.ledger.maintenance import standing_alerts, stopped_channels
from dispatcher.maintenance import alerting
from dispatcher.maintenance.alerting import Notice, Watch
from dispatcher.runtime import notifications
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import InvalidSettings, Settings
from tests.support.services import Clock, make_services

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


class Inbox:
    def __init__(self) -> None:
        self.notices: list[tuple[str, bool]] = []
        self.is_open = True

    def __call__(self, notice: Notice) -> bool:
        if self.is_open:
            self.notices.append((notice.title, notice.is_over))
        return self.is_open

    def take(self) -> list[tuple[str, bool]]:
        taken, self.notices = self.notices, []
        return taken


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        publication.publish(made)
        yield made


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def watch(services: Services, inbox: Inbox, clock: Clock) -> Watch:
    return Watch(lambda: services, inbox, clock)


def stop(services: Services) -> None:
    with lend(services.pool) as connection:
        stopped_channels.stop(connection, Channel.SMS, "twilio", "20003", services.clock())


def lift(services: Services) -> None:
    with lend(services.pool) as connection:
        stopped_channels.lift(connection, Channel.SMS, services.clock())


def look(watch: Watch, clock: Clock, seconds: float = 10) -> None:
    watch.look()
    clock.pass_(seconds)


def test_a_standstill_is_told_once_and_its_end_too(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    look(watch, clock)
    assert inbox.take() == []  # it may be over at once
    for _ in range(5):
        look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", False)]
    lift(services)
    look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", True)]
    look(watch, clock)
    assert inbox.take() == []


def test_what_is_over_at_the_next_look_notifies_nobody(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    look(watch, clock)
    lift(services)
    look(watch, clock)
    assert inbox.take() == []


def test_reminders_end_when_somebody_takes_care(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    look(watch, clock)
    look(watch, clock, 3_600)
    look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", False)] * 2
    (alert,) = alerting.newest(services, 10)
    assert alerting.acknowledge(services, alert.no, "user:anne")
    assert not alerting.acknowledge(services, alert.no, "user:bart")
    clock.pass_(7_200)
    look(watch, clock)
    assert inbox.take() == []
    lift(services)
    look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", True)]


def test_a_notification_that_nobody_took_is_sent_again(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    inbox.is_open = False
    for _ in range(3):
        look(watch, clock)
    inbox.is_open = True
    look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", False)]


def test_of_two_watchers_one_notifies(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    other = Inbox()
    for _ in range(3):
        look(watch, clock, 5)
        look(Watch(lambda: services, other, clock), clock, 5)
    assert sorted([*inbox.take(), *other.take()]) == [("channel_stopped sms", False)]


def test_while_one_watcher_notifies_no_other_does(services: Services, watch: Watch, inbox: Inbox, clock: Clock) -> None:
    stop(services)
    look(watch, clock)
    with lend(services.pool) as connection, connection.transaction():
        assert standing_alerts.take_lock(connection)  # another watcher is sending its notifications
        look(watch, clock)
        assert inbox.take() == []
    look(watch, clock)
    assert inbox.take() == [("channel_stopped sms", False)]


def test_a_ledger_that_is_away_is_told_and_its_return(services: Services, inbox: Inbox, clock: Clock) -> None:
    with open_pool(NOWHERE, PoolOptions(wait_seconds_max=0.1)) as pool:
        places = [replace(services, pool=pool)]
        watch = Watch(lambda: places[0], inbox, clock)
        for _ in range(4):
            look(watch, clock)
        assert inbox.take() == [("database", False)]
        places[0] = services
        look(watch, clock)
        assert inbox.take() == [("database", True)]


def test_a_ledger_that_never_answered_is_told_too(inbox: Inbox, clock: Clock) -> None:
    def none() -> Services:
        raise LedgerUnavailable("away")

    watch = Watch(none, inbox, clock)
    for _ in range(3):
        look(watch, clock)
    assert inbox.take() == [("database", False)]


def test_old_alerts_are_deleted(services: Services, watch: Watch, clock: Clock) -> None:
    stop(services)
    look(watch, clock)
    lift(services)
    look(watch, clock)
    clock.pass_(timedelta(days=91).total_seconds())
    look(watch, clock)
    assert alerting.newest(services, 10) == []


class AlertReceiver(BaseHTTPRequestHandler):
    bodies: list[bytes]

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


def test_a_webhook_gets_title_and_text_by_apprise() -> None:
    with HTTPServer(("127.0.0.1", 0), AlertReceiver) as server:
        server.bodies = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        send = notifications.notifier([f"json://127.0.0.1:{server.server_port}/alerts"])
        assert send("dispatcher: beat", "Beat sends no heartbeat.", False)
        server.shutdown()
        (body,) = server.bodies  # type: ignore[attr-defined]
    document = json.loads(body)
    assert (document["title"], document["message"], document["type"]) == (
        "dispatcher: beat",
        "Beat sends no heartbeat.",
        "failure",
    )
    assert not notifications.notifier(["json://127.0.0.1:1/"])("dispatcher: beat", "Nobody is there.", False)


def test_a_target_that_is_no_url_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text("# on call\njson://127.0.0.1/alerts\nsecret-of-ours\n", encoding="utf-8")
    with pytest.raises(InvalidSettings, match=f"{path}:3: ") as caught:
        Settings.from_environment({"DISPATCHER_ALERT_TARGETS": str(path)})
    assert "secret-of-ours" not in str(caught.value)
