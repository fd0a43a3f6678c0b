"""Campaigns with faulty providers: a tenth of all requests fails, in every documented way, and every balance still adds up.

Real workers, beat and web app, with the sandbox as a process of its own. STORM is the number of recipients; only the waiting is
made short: what is to wait for minutes or days is due at once. A provider that dies and comes back is in `test_chaos`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from channels.base import Channel
from channels.sandbox import SandboxClient
from dispatcher.campaigns import submission, whatsapp_templates
from dispatcher.delivery import reconciliation
from dispatcher.delivery.explanation import explain_message
from dispatcher.devserver import supervisor
from dispatcher.devserver.stack import free_port
from dispatcher.devserver.supervisor import Supervisor, supervised
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import balance, lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.ledger.maintenance.metrics import metrics
from dispatcher.policy import parse
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import load
from tests.support.services import TEMPLATES, add_people, make_services, person, policy_without_quiet_hours

PEOPLE = int(os.environ.get("STORM", "1000")) // len(Channel)  # of each channel
PATIENCE_SECONDS = 120 + PEOPLE / 10
SECRET = "a-secret-of-the-tests-that-is-long-enough"  # the one that make_house uses
LANES = ("transactional", "inbound", "fanout", "clock", "maintenance")
LANGUAGES = ("nl", "fr", "de", "en")
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SHARE = 0.1
SLOW_SECONDS = 1.6  # longer than the adapters wait

# What each provider documents as an answer to a send: (status, its code).
DOCUMENTED: Mapping[str, tuple[tuple[int, str], ...]] = {
    "sendgrid": ((400, ""), (401, ""), (403, ""), (404, ""), (405, ""), (413, ""), (415, ""), (429, "")),
    "twilio": (
        *((400, str(code)) for code in (21211, 21408, 21602, 21610, 21611, 21612, 21614, 21617, 21703, 29999)),
        *((401, "20003"), (404, "20404"), (429, "20429")),
    ),
    "fcm": (
        *((404, "UNREGISTERED"), (400, "INVALID_ARGUMENT"), (403, "SENDER_ID_MISMATCH"), (429, "QUOTA_EXCEEDED")),
        *((503, "UNAVAILABLE"), (500, "INTERNAL"), (401, "THIRD_PARTY_AUTH_ERROR"), (401, ""), (403, "")),
    ),
    "google": ((500, ""), (401, "")),
}
# What can happen to any request, after it was taken or instead. FCM's own 5xx mean "try again", so they never stand for a push that
# was taken; what is lost on the way may do so with every provider.
ANYWHERE: tuple[dict[str, Any], ...] = (
    {},
    {"taken": True},
    {"cut": 0, "taken": True},
    {"cut": 20, "taken": True},
    {"body": "<html>", "status": 502},
    {"delay_seconds": 0.05},
    {"delay_seconds": SLOW_SECONDS, "share": 0.002},
)


def storm() -> list[dict[str, Any]]:
    """Rules that strike a tenth of each provider's requests."""
    rules: list[dict[str, Any]] = []
    for provider, answers in DOCUMENTED.items():
        ways: list[dict[str, Any]] = [{"status": status, "error": code} for status, code in answers]
        ways += [{**way, "provider": provider} for way in ANYWHERE]
        if provider in {"sendgrid", "twilio"}:
            ways += [{"status": status, "taken": taken} for status in (500, 503) for taken in (False, True)]
        rules += [{"share": SHARE / len(ways), **way, "provider": provider} for way in ways]
    return rules


@dataclass(frozen=True)
class Weather:
    """The program at work in a storm, and hands that do what people and time do."""

    services: Services
    children: Supervisor
    sandbox: SandboxClient
    database: str

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as the owner of the database, who may change times."""
        with psycopg.connect(self.database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def until(self, done: Callable[[], bool]) -> None:
        """Run until done. What waits is made due, what crashed is restarted, and `dispatcher check` runs now and then."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            assert time.monotonic() < deadline, self.sql("SELECT channel, state, reason, count(*) FROM messages GROUP BY 1, 2, 3")
            self.sql("UPDATE messages SET until = now() WHERE state = 'waiting' AND until > now() + interval '1 second'")
            with lend(self.services.pool) as connection:
                for channel in stopped_channels.stopped(connection):
                    if self.services.providers[channel].check() is None:
                        stopped_channels.lift(connection, channel, self.services.clock())
            time.sleep(0.3)

    def sent(self) -> bool:
        """Whether all campaigns have ended."""
        with lend(self.services.pool) as connection:
            return all(campaign.state is CampaignState.FINISHED for campaign in all_of(connection))

    def heard(self) -> bool:
        """Whether all provider events have arrived and are applied."""
        if self.sandbox.counts()["events"]["pending"]:
            return False
        with lend(self.services.pool) as connection:
            return metrics(connection, self.services.clock()).events_unsettled == 0

    def ask(self) -> None:
        """Make unresolved messages due, until each was looked up as often as the program does."""
        for _ in range(len(reconciliation.AGAIN_SECONDS) + 1):
            self.sql("UPDATE doubts SET ask_at = now() WHERE ask_at IS NOT NULL")
            while reconciliation.ask_some(self.services):
                pass
        self.until(self.heard)


@contextmanager
def weather(database: str, broker_url: str, home: Path) -> Iterator[Weather]:
    """The whole program, as `dispatcher up` runs it, on a ledger and a broker of this test alone."""
    web, double = free_port(), free_port()
    public_url = f"http://127.0.0.1:{web}"
    policy = policy_without_quiet_hours(home)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
        "DISPATCHER_HOME": str(home),
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_BROKER_URL": broker_url,
        "DISPATCHER_SECRET_KEY": SECRET,
        "DISPATCHER_TEMPLATES": str(TEMPLATES),
        "DISPATCHER_POLICY": str(policy),
        "DISPATCHER_PUBLIC_URL": public_url,
        "DISPATCHER_SANDBOX_URL": f"http://127.0.0.1:{double}",
        "DISPATCHER_LEASE_SECONDS": "4",  # so that an answer is waited for 1.3 s
        "SENDGRID_MAILS_PER_REQUEST": "3",
    }
    commands = [
        supervisor.sandbox(double, home / "sandbox", public_url),
        supervisor.worker("campaign", ["campaign"], 2),
        supervisor.worker("others", LANES, 1),
        supervisor.beat(),
        supervisor.web("127.0.0.1", web),
    ]
    with make_services(database) as still, supervised(commands, home / "log", environ) as children:
        services = replace(
            still,
            clock=lambda: datetime.now(UTC),
            policy=parse(policy.read_text(encoding="utf-8")),
            providers=bootstrap.providers(load(environ)),
            template_client=bootstrap.template_client(load(environ)),
            public_url=public_url,
        )
        children.await_ready(60)
        whatsapp_templates.push(services)
        yield Weather(services, children, SandboxClient(f"http://127.0.0.1:{double}"), database)


def submit(services: Services) -> None:
    for place, channel in enumerate(Channel):
        numbers = range(place * PEOPLE, (place + 1) * PEOPLE)
        phones = {number: f"+3247{number:07}" for number in numbers}
        add_people(
            services,
            *(
                person(f"c-{n}", language=LANGUAGES[n % 4], phone=phones[n], whatsapp=phones[n], email=f"{n}@home.example")
                for n in numbers
            ),
        )
        rows = [{"recipient": f"c-{number}", "data": OFFER} for number in numbers]
        form = {"id": channel.value, "template": "loan_offer", "channels": [channel.value], "audience": rows}
        submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def all_of(connection: Any) -> list[lifecycle.Campaign]:
    found = [lifecycle.find(connection, channel.value) for channel in Channel]
    return [campaign for campaign in found if campaign is not None]


def test_a_tenth_of_faults_loses_nothing_doubles_nothing_and_leaves_nothing_unexplained(
    database: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with weather(database, broker_url, tmp_path) as storming:
        storming.sandbox.set_faults(storm())
        storming.sandbox.set_events(out_of_order=True, duplicate_share=0.1)
        submit(storming.services)
        storming.until(storming.sent)
        storming.sandbox.clear_faults()
        storming.until(storming.heard)
        storming.ask()
        told, arrivals = closed_books(storming)
        for line in told:
            if line.state is State.UNRESOLVED:  # for an accepted mail there are events; for a push there is no way to know
                assert line.channel is Channel.PUSH or not arrivals[line.ref]
    told_of(told, capsys)
    states = Counter(line.state for line in told)
    assert states.keys() >= {State.DELIVERED, State.READ, State.UNRESOLVED, State.FAILED}
    assert sum(states[state] for state in GONE) > 0.7 * len(told)


# -- the books ---------------------------------------------------------------------------------------------------------

GONE = frozenset({State.ACCEPTED, State.DELIVERED, State.READ})


@dataclass(frozen=True, slots=True)
class Line:
    """A message in the books."""

    ref: str
    channel: Channel
    state: State
    reason: str | None
    receipt: str | None


def closed_books(storming: Weather) -> tuple[list[Line], Counter[str]]:
    """All messages and what arrived, once the balance adds up, nothing arrived twice, and every end is true and explained."""
    with lend(storming.services.pool) as connection:
        for campaign in all_of(connection):
            assert campaign.state is CampaignState.FINISHED
            assert sum(balance.balance(connection, campaign).states.values()) == campaign.audience == PEOPLE

    rows = storming.sql(
        "SELECT concat_ws('-', period, chunk, row, leg), channel, state, reason, receipt FROM messages"
        " WHERE campaign_no IS NOT NULL"
    )
    lines = [Line(ref, Channel(channel), State(state), reason, receipt) for ref, channel, state, reason, receipt in rows]
    assert len(lines) == len(Channel) * PEOPLE
    arrived = {row["receipt"]: row["message_id"] for row in storming.sandbox.log() if row["channel"] != "email"}
    arrivals = Counter(row["message_id"] for row in storming.sandbox.log())
    others = arrivals.copy()
    for line in lines:
        count = others.pop(line.ref, 0)
        assert count <= 1, f"{line.channel} {line.ref} arrived {count} times"
        if line.state is State.UNRESOLVED:
            assert line.channel in {Channel.EMAIL, Channel.PUSH}, "Twilio was asked, and could tell"
        else:
            assert count == (line.state in GONE), f"{line.channel} {line.ref} {line.state} {line.reason}"
        if line.state in GONE and line.channel is not Channel.EMAIL:
            assert arrived[line.receipt] == line.ref
    acknowledged(storming.services, others)
    explained(storming.services, lines)
    return lines, arrivals


def acknowledged(services: Services, arrivals: Counter[str]) -> None:
    """All else that arrived is acknowledgements, one for each opt-out that a provider reported."""
    with lend(services.pool) as connection:
        for message_id, count in arrivals.items():
            letter = messages.find(connection, MessageId.parse(message_id))
            assert letter is not None
            assert (letter.spec.template, count) == ("optout_acknowledgement", 1)


def explained(services: Services, lines: list[Line]) -> None:
    """Each kind of end has an explanation in every language."""
    kinds = {(line.channel, line.state, line.reason): line for line in lines}
    with lend(services.pool) as connection:
        for (_, state, reason), line in kinds.items():
            assert (reason is None) == (state in GONE)
            message = messages.find(connection, MessageId.parse(line.ref))
            assert message is not None
            for language in LANGUAGES:
                assert explain_message(connection, services.policy, message, language).text


def told_of(lines: list[Line], capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures where STORM sets the size."""
    if "STORM" in os.environ:
        with capsys.disabled():
            counted = Counter((line.channel.value, line.state.value) for line in lines)
            print(*(f"{channel} {state} {count}" for (channel, state), count in sorted(counted.items())), sep="\n")  # noqa: T201
