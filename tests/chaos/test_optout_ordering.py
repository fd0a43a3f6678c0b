"""An opt-out and a claim have an order: nothing is claimed after an opt-out, on any channel, with any number of workers."""

from __future__ import annotations

import os
import random
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.optout_ordering import race_optouts
from channels.base import Channel, Provider
from channels.http import HttpTransport
from channels.providers.fcm import Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import Twilio, TwilioAccount
from channels.sandbox import SandboxClient, running
from dispatcher.policy import parse, shipped
from tests.support.services import make_services

RACES = int(os.environ.get("RACES", "2"))  # a hundred in a row: RACES=100 make test ARGS=tests/chaos/test_optout_ordering.py


def adapters(sandbox: SandboxClient, folder: Path) -> dict[Channel, Provider]:
    http = HttpTransport(concurrency=50)
    account = str(sandbox.service_account(folder / "account.json"))
    callback = f"{sandbox.url}/callback"  # carries the message id into the log; no statuses are asked for
    number = "+32460000000"
    twilio = TwilioAccount("AC" + "5" * 32, "token", number, number, sandbox.url)
    phones = {channel: Twilio(channel, twilio, http, callback) for channel in (Channel.SMS, Channel.WHATSAPP)}
    return {Channel.EMAIL: SendGrid("SG.sandbox", http, sandbox.url), Channel.PUSH: Fcm(account, http, sandbox.url), **phones}


@pytest.mark.parametrize("seed", range(RACES))
def test_nothing_is_claimed_after_an_opt_out_has_committed(database: str, tmp_path: Path, seed: int) -> None:
    policy = parse("\n".join(line for line in shipped().splitlines() if "{ from = " not in line))
    with ExitStack() as stack:
        sandbox = stack.enter_context(running())
        sandbox.set_events(twilio_statuses=False)
        services_of_workers = [
            replace(
                stack.enter_context(make_services(database)),
                policy=policy,
                providers=adapters(sandbox, tmp_path),
                clock=lambda: datetime.now(UTC),
            )
            for _ in range(3)
        ]
        shown = race_optouts(services_of_workers, sandbox, people=80, rng=random.Random(seed))
    sys.stdout.write(f"{shown}\n")
    assert shown.late_claims == 0
    assert shown.refused > 0  # the opt-outs came in time for some …
    assert shown.arrivals > 200  # … and the campaigns ran
