"""Campaigns through bad weather: a tenth of all requests goes wrong, in every documented way, and the books still close."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from channels.base import Channel, Provider
from channels.fcm import Fcm
from channels.http import Http
from channels.sandbox import Sandbox, running, write_service_account
from channels.sendgrid import SendGrid
from channels.twilio import TwilioSms, TwilioWhatsApp
from dispatcher import campaigns
from dispatcher.explanations import explain_message
from dispatcher.house import House
from dispatcher.ledger import campaigns as ledger
from dispatcher.ledger import messages, stops
from dispatcher.ledger.messages import Message
from dispatcher.ledger.pool import lend
from dispatcher.model import CampaignState, State
from dispatcher.pipeline import run_chunk
from dispatcher.refs import MessageRef
from dispatcher.submission import parse_campaign
from tests.channels.rigs import ACCOUNT, SENDER, closed_port
from tests.houses import Clock, add_people, make_house, person

PEOPLE = 375  # of each channel
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


@contextmanager
def open_house(database: str, sandbox: Sandbox, tmp_path: Path) -> Iterator[House]:
    """A house whose providers are the real adapters, before this sandbox."""
    http = Http(concurrency=64, timeout_seconds=1.0)
    hook = "https://bank.example/status"
    providers: dict[Channel, Provider] = {
        Channel.EMAIL: SendGrid("SG.key", http, sandbox.url, mails_per_request=3),
        Channel.SMS: TwilioSms(ACCOUNT, "token", SENDER, http, sandbox.url, hook),
        Channel.WHATSAPP: TwilioWhatsApp(ACCOUNT, "token", SENDER, http, sandbox.url, hook),
        Channel.PUSH: Fcm(str(write_service_account(tmp_path / "account.json", sandbox.url)), http, sandbox.url),
    }
    with make_house(database, Clock()) as made:
        yield replace(made, providers=providers)
    http.close()


def submit(house: House) -> None:
    for place, channel in enumerate(Channel):
        numbers = range(place * PEOPLE, (place + 1) * PEOPLE)
        phones = {number: f"+3247{number:07}" for number in numbers}
        add_people(
            house,
            *(
                person(f"c-{n}", language=LANGUAGES[n % 4], phone=phones[n], whatsapp=phones[n], email=f"{n}@home.example")
                for n in numbers
            ),
        )
        rows = [{"recipient": f"c-{number}", "data": OFFER} for number in numbers]
        form = {"id": channel.value, "template": "loan_offer", "channels": [channel.value], "audience": rows}
        campaigns.submit(house, parse_campaign(form, campaigns.desk(house)))


def weather(house: House) -> None:
    """Rounds until nothing waits."""
    for _ in range(500):
        one_round(house)
        if not unfinished(house):
            return
    raise AssertionError("some messages wait for ever")


def one_round(house: House) -> None:
    """What beat, the workers and a person with `dispatcher check` do in some minutes."""
    campaigns.sweep(house)
    dues = campaigns.due_chunks(house)
    while dues:
        due = dues.pop()
        chunk = run_chunk(house, due.period, due.number)
        assert chunk is not None
        dues += campaigns.next_chunk(house, chunk)
    assert isinstance(house.clock, Clock)
    house.clock.pass_(120)
    with lend(house.pool) as connection:
        for channel in stops.stopped(connection):
            if house.providers[channel].check() is None:
                stops.lift(connection, channel)


def unfinished(house: House) -> int:
    open_states = (State.PENDING, State.CLAIMED, State.HELD, State.WAITING)
    with lend(house.pool) as connection:
        return sum(ledger.balance(connection, found).states[state] for found in all_of(connection) for state in open_states)


def all_of(connection: Any) -> list[ledger.Campaign]:
    found = [ledger.find(connection, channel.value) for channel in Channel]
    return [campaign for campaign in found if campaign is not None]


def every(house: House) -> Iterator[Message]:
    with lend(house.pool) as connection:
        for place, channel in enumerate(Channel):
            for number in range(place * PEOPLE, (place + 1) * PEOPLE):
                yield from messages.of_campaign(connection, channel.value, f"c-{number}")


def test_a_tenth_of_faults_loses_nothing_doubles_nothing_and_leaves_nothing_unexplained(database: str, tmp_path: Path) -> None:
    with running() as sandbox, open_house(database, sandbox, tmp_path) as house:
        sandbox.set_faults(storm())
        submit(house)
        weather(house)
        sandbox.clear_faults()
        told = closed_books(house, sandbox)
    states = Counter(message.state for message in told)
    assert states.keys() >= {State.ACCEPTED, State.UNRESOLVED, State.FAILED}
    assert states[State.ACCEPTED] > 0.7 * len(told)


def test_the_same_with_a_sandbox_that_is_killed_and_started_again(database: str, tmp_path: Path) -> None:
    port = closed_port()
    sandbox = Sandbox(f"http://127.0.0.1:{port}")
    with open_house(database, sandbox, tmp_path) as house, process(port, tmp_path) as first:
        sandbox.set_faults(storm())
        submit(house)
        killer = Thread(target=kill_after, args=(first, sandbox, PEOPLE))
        killer.start()
        rounds = 0
        while killer.is_alive():  # what runs into the dead port waits, and comes back
            one_round(house)
            rounds += 1
        one_round(house)
        assert first.wait() == -signal.SIGKILL
        with process(port, tmp_path):
            sandbox.set_faults(storm())
            weather(house)
            sandbox.clear_faults()
            told = closed_books(house, sandbox)
    assert rounds
    assert Counter(message.state for message in told)[State.ACCEPTED] > 0.5 * len(told)


@contextmanager
def process(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sandbox in a process of its own, which remembers what arrived."""
    command = [sys.executable, "-m", "channels.sandbox", "--port", str(port), "--state", str(tmp_path / "sandbox")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert "ready" in started.stdout.readline()
            yield started
        finally:  # leaving Popen's own block waits, for ever if it still runs
            started.kill()


def kill_after(victim: subprocess.Popen[str], sandbox: Sandbox, arrivals: int) -> None:
    """Without a warning, in the middle of things."""
    while sandbox.counts()["total"] < arrivals:
        time.sleep(0.005)
    victim.kill()


def closed_books(house: House, sandbox: Sandbox) -> list[Message]:
    """All messages, once the balance adds up, nothing arrived twice, and every end is explained."""
    with lend(house.pool) as connection:
        for campaign in all_of(connection):
            assert campaign.state is CampaignState.FINISHED
            assert sum(ledger.balance(connection, campaign).states.values()) == campaign.audience == PEOPLE

    arrivals = Counter((row["channel"], row["message_id"]) for row in sandbox.log())
    told = list(every(house))
    assert len(told) == len(Channel) * PEOPLE
    for message in told:
        arrived = arrivals.pop((str(message.channel), str(message.ref)), 0)
        assert arrived <= 1, f"{message.channel} {message.ref} arrived {arrived} times"
        if message.state is not State.UNRESOLVED:
            assert arrived == (message.state is State.ACCEPTED), f"{message.channel} {message.state} {message.reason}"
    acknowledged(house, arrivals)
    explained(house, told)
    return told


def acknowledged(house: House, arrivals: Counter[tuple[str, str]]) -> None:
    """What else arrived are letters to those whose no a provider told us of, one each."""
    with lend(house.pool) as connection:
        for (_, message_id), count in arrivals.items():
            letter = messages.find(connection, MessageRef.parse(message_id))
            assert letter is not None
            assert (letter.spec.template, count) == ("optout_acknowledgement", 1)


def explained(house: House, told: list[Message]) -> None:
    """Each kind of end says why, in every language."""
    kinds = {(message.channel, message.state, message.reason): message for message in told}
    with lend(house.pool) as connection:
        for (_, state, reason), message in kinds.items():
            assert (reason is None) == (state is State.ACCEPTED)
            for language in LANGUAGES:
                assert explain_message(house, connection, message, language).text
