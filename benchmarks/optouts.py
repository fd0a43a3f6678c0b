"""Run `optout_ordering` on a database of its own: opt-outs against running campaigns on all channels."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

from benchmarks.environment import BenchEnvironment, database
from benchmarks.optout_ordering import OptOutRace, race_optouts
from channels.base import Channel, Provider
from channels.http import HttpTransport
from channels.providers.fcm import Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import Twilio, TwilioAccount
from channels.sandbox import SandboxClient, running
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.ledger.connection import open_pool
from dispatcher.ledger.migrations import migrate
from dispatcher.runtime.ledger_watch import LedgerWatch

WORKERS = 3


def measure(bench: BenchEnvironment, people: int) -> OptOutRace:
    """One race."""
    with database() as connection:
        connection.execute("CREATE DATABASE race")
    url = urlsplit(os.environ["DISPATCHER_DATABASE_URL"])._replace(path="/race").geturl()
    migrate(url)
    with ExitStack() as stack:
        sandbox = stack.enter_context(running())
        sandbox.set_events(twilio_statuses=False)
        pools = [stack.enter_context(open_pool(url)) for _ in range(WORKERS)]
        worker_services = [
            replace(bench.services, pool=pool, providers=_adapters(bench, sandbox), ledger_watch=LedgerWatch()) for pool in pools
        ]  # the marks of the other database's claims would look like a restore of this one
        approve_waiting(worker_services[0], "benchmarks")
        return race_optouts(worker_services, sandbox, people, random.Random(2026))


def _adapters(bench: BenchEnvironment, sandbox: SandboxClient) -> dict[Channel, Provider]:
    http = HttpTransport(concurrency=50)
    account = str(sandbox.service_account(bench.home / "race-account.json"))
    callback = f"{sandbox.url}/callback"  # puts the message id into the sandbox's log; no statuses are requested
    number = "+32460000000"
    twilio = TwilioAccount("AC" + "5" * 32, "token", number, number, sandbox.url)
    phones = {channel: Twilio(channel, twilio, http, callback) for channel in (Channel.SMS, Channel.WHATSAPP)}
    return {Channel.EMAIL: SendGrid("SG.sandbox", http, sandbox.url), Channel.PUSH: Fcm(account, http, sandbox.url), **phones}
