"""The bank's own systems follow a campaign through crashes: a CRM learns of a STOP, a marketing tool rebuilds the balance."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.consumers import Consumers, FeedReader, follow
from tests.chaos.load import CampaignKind, Load
from tests.chaos.program import Program, running_program
from tests.chaos.run import wait_for_quiet
from tests.support.webhook_receiver import receiver

PEOPLE = 300
TOLD_SECONDS_MAX = 5.0  # from the customer's STOP until the CRM knows
TOLD_AFTER_CRASHES_SECONDS_MAX = 60.0  # while everything starts again
CAMPAIGN = CampaignKind("spring", PEOPLE, {"channels": ["sms", "email"], "rate_per_second": 40})


def kill(program: Program, name: str) -> None:
    """Kill a process and its children, as `kill -9` and the kernel do."""
    targets = program.postgres()[:1] if name == "postgres" else program.family(name)
    for process in targets:
        process.send_signal(signal.SIGKILL)


def wait_for_event(reader: FeedReader, type_: str, **data: Any) -> float:
    """When the reader got the first such event; waits for it."""
    deadline = time.monotonic() + TOLD_AFTER_CRASHES_SECONDS_MAX
    while time.monotonic() < deadline:
        if (at := reader.seen(type_, **data)) is not None:
            return at
        time.sleep(0.05)
    raise AssertionError(f"the feed has no {type_} of {data}")


def seconds_until_told(program: Program, reader: FeedReader, recipient: str) -> float:
    """Seconds from a customer's STOP until the reader of the feed has the event."""
    ((phone,),) = program.sql("SELECT phone FROM recipients WHERE id = %(id)s", {"id": recipient})
    said = time.time()
    program.sandbox.reply(phone, "+32460001234", "STOP")
    consent = {"recipient": recipient, "subject": "channel:sms_whatsapp", "new_value": "off"}
    return wait_for_event(reader, "dispatcher.consent.changed", **consent) - said


def balance_of_feed(consumers: Consumers, campaign: str) -> dict[str, int]:
    """Recipients by state, from the feed alone. With route "first" and no fallback, a recipient has one message."""
    return dict(Counter(data["state"] for data in consumers.reader.message_states().values() if data["campaign"] == campaign))


def shown(program: Program, campaign: str) -> dict[str, Any]:
    """What `dispatcher campaign show` says."""
    command = [str(Path(sys.executable).with_name("dispatcher")), "campaign", "show", campaign, "--json"]
    done = subprocess.run(command, env=dict(program.environ), capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_the_banks_systems_are_told_everything_through_crashes() -> None:
    with receiver() as crm, running_program() as program, closing(Load(program, Random(1))) as load:
        program.calm()
        consumers = follow(program, crm)
        try:
            people = load.people(PEOPLE)
            campaign = load.submit(CAMPAIGN, people)
            wait_for_event(consumers.reader, "dispatcher.message.accepted", campaign=campaign)
            assert seconds_until_told(program, consumers.reader, people[-1]) <= TOLD_SECONDS_MAX
            for name in ("campaign", "web", "postgres"):
                time.sleep(1.0)
                kill(program, name)
            assert seconds_until_told(program, consumers.reader, people[-2]) <= TOLD_AFTER_CRASHES_SECONDS_MAX
            wait_for_quiet(program, consumers)
            assert list(consumers.errors()) == []
            states = {state: count for state, count in shown(program, campaign)["balance"].items() if count}
            assert balance_of_feed(consumers, campaign) == states
            assert sum(states.values()) == PEOPLE
        finally:
            consumers.reader.close()
