"""Providers' own lists are read to their end: who opted out there gets nothing from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from channels.base import Channel
from channels.http import HttpTransport
from channels.providers.sendgrid import SendGrid
from channels.sandbox.client import SandboxClient
from channels.sandbox.server import running
from channels.sendgrid_lists import PAGE_ROWS
from dispatcher.campaigns import submission
from dispatcher.consent import suppressions
from dispatcher.consent.suppressions import ListsNotRead, SuppressionFilter
from dispatcher.intake.campaign import parse_campaign
from dispatcher.runtime.services import Services
from tests.support.sandbox_clients import make_mail, sendgrid_client
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work

KEY = "SG.sandbox"
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
LISTED = {"bounce+1": "bounced", "spam+2": "complained", "unsubscribe+3": "opted_out"}


@pytest.fixture
def sandbox() -> Iterator[SandboxClient]:
    with running() as client:
        yield client


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    """Everything is sent to the outbox, on the Monday after the sandbox's today: in no quiet hours."""
    today = datetime.now(UTC).replace(hour=11, minute=0)
    with make_services(database, Clock(today + timedelta(days=7 - today.weekday()))) as made:
        yield made


def asking(services: Services, sandbox: SandboxClient) -> Services:
    """The same, with an e-mail provider that is asked for its lists."""
    adapter = SendGrid(KEY, HttpTransport(), base_url=sandbox.url, now=services.clock)
    return replace(services, providers={**services.providers, Channel.EMAIL: adapter})


def test_whoever_opted_out_at_the_provider_gets_nothing(services: Services, sandbox: SandboxClient) -> None:
    names = [*LISTED, "well+4"]
    add_people(services, *(person(f"c-{number}", number, email=f"{name}@example.org") for number, name in enumerate(names)))
    for name in names:
        sendgrid_client(sandbox).send(make_mail(f"{name}@example.org"))
    planned = suppressions.pull(asking(services, sandbox), None, "tests", dry_run=True)["sendgrid"]
    assert (planned.taken, planned.counts.new, suppressions.page(services, SuppressionFilter())) == (3, 3, [])
    pulled = suppressions.pull(asking(services, sandbox), None, "tests", dry_run=False)["sendgrid"]
    assert (pulled.taken, pulled.counts.new, pulled.counts.opt_outs) == (3, 3, 2)  # a spam report is one, too
    assert dict(pulled.reasons) == dict.fromkeys(LISTED.values(), 1)
    assert suppressions.pull(asking(services, sandbox), None, "tests", dry_run=False)["sendgrid"].counts.new == 0
    assert {each.source for each in suppressions.page(services, SuppressionFilter())} == {"sendgrid"}
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(len(names))]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    work(services)
    assert states(services) == {"accepted": 1, "refused": 3}
    assert [each.address for each in outbox(services).sent] == ["well+4@example.org"]


def test_lists_of_many_pages_are_read_from_a_day_on(services: Services, sandbox: SandboxClient) -> None:
    count = PAGE_ROWS + 3
    parts = [{"to": [{"email": f"bounce+{number}@example.org"}]} for number in range(count)]
    sendgrid_client(sandbox).send(make_mail(personalizations=parts))
    later = services.clock()
    assert suppressions.pull(asking(services, sandbox), later, "tests", dry_run=False)["sendgrid"].taken == 0
    assert suppressions.pull(asking(services, sandbox), None, "tests", dry_run=False)["sendgrid"].counts.new == count


def test_a_list_that_is_not_read_to_its_end_is_an_error(services: Services, sandbox: SandboxClient) -> None:
    sandbox.refuse_keys([KEY])
    with pytest.raises(ListsNotRead, match="sendgrid: "):
        suppressions.pull(asking(services, sandbox), None, "tests", dry_run=False)


def test_providers_without_lists_are_named(services: Services, sandbox: SandboxClient) -> None:
    assert suppressions.without_lists(asking(services, sandbox)) == ["outbox"]
    assert suppressions.pull(services, None, "tests", dry_run=False) == {}
