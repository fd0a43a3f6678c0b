"""Lists of messages: every message once, in an order that does not change, by any filter, without personal data but ids."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from channels.base import Channel
from dispatcher.campaigns import submission
from dispatcher.delivery import messages
from dispatcher.delivery.messages import MessageFilter
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import message_list
from dispatcher.runtime.services import Services
from dispatcher.web.serializers.messages import message_page
from tests.support.services import NOON, Clock, add_people, make_services, person, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def submit(services: Services, campaign_id: str, numbers: range, **changes: Any) -> None:
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in numbers]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def trigger(services: Services, key: str, recipient_id: str) -> None:
    job = {"key": key, "recipient": recipient_id, "template": "optout_acknowledgement", "data": {"scope": "email"}}
    place = submission.accept_trigger(services, job)
    run_chunk(services, place.period, place.chunk)


def listed(services: Services, scan_rows: int = 20_000, **wanted: Any) -> list[tuple[str | None, str, str]]:
    """Campaign, recipient and state of all messages, read page by page."""
    found: list[tuple[str | None, str, str]] = []
    cursor: MessageId | None = None
    while True:
        with lend(services.pool) as connection:
            page = message_list.page(connection, MessageFilter(**wanted), cursor, 3, scan_rows)
        assert len(page.messages) <= 3
        found += [(each.campaign_id, each.recipient_id, each.state.value) for each in page.messages]
        if page.next is None:
            return found
        cursor = page.next


@pytest.fixture
def sent(services: Services, clock: Clock) -> None:
    """A finished campaign of eight (two refused), a trigger an hour later, and a campaign of five that is not decided."""
    add_people(services, *(person(f"c-{n}", n, offers={"own": "none" if n % 4 == 3 else "tailored"}) for n in range(8)))
    submit(services, "spring", range(8))
    work(services)
    clock.pass_(3600)
    trigger(services, "k-1", "c-1")
    submit(services, "later", range(5), send_at="2026-11-24T11:00:00Z")


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("scan_rows", [20_000, 2])
def test_each_message_is_listed_once_by_every_filter(services: Services, scan_rows: int) -> None:
    every = listed(services, scan_rows)
    assert len(every) == len(set(every)) == 14
    assert [campaign for campaign, _, _ in every] == ["later"] * 5 + [None] + ["spring"] * 8  # newest first
    for wanted in (
        {"campaign": "spring"},
        {"campaign": "later"},
        {"recipient": "c-1"},
        {"recipient": "c-1", "campaign": "spring"},
        {"recipient": "nobody"},
    ):
        names = {"campaign": 0, "recipient": 1}
        expected = [each for each in every if all(each[names[name]] == value for name, value in wanted.items())]
        assert listed(services, scan_rows, **wanted) == expected
    assert listed(services, scan_rows, state=State.REFUSED) == [("spring", "c-7", "refused"), ("spring", "c-3", "refused")]
    assert len(listed(services, scan_rows, state=State.PENDING)) == 5
    assert len(listed(services, scan_rows, channel=Channel.EMAIL)) == 7
    assert listed(services, scan_rows, channel=Channel.SMS) == []
    assert len(listed(services, scan_rows, until=NOON.replace(hour=12))) == 8
    assert listed(services, scan_rows, since=NOON.replace(hour=12)) == [(None, "c-1", "accepted")]
    assert listed(services, scan_rows, campaign="nothing") == []


@pytest.mark.usefixtures("sent")
def test_a_page_does_not_change_while_others_are_added(services: Services) -> None:
    first = messages.list_page(services, MessageFilter(), None, 4)
    trigger(services, "k-2", "c-2")
    work(services)
    second = messages.list_page(services, MessageFilter(), str(first.next), 100)
    refs = [each.ref for each in (*first.messages, *second.messages)]
    assert len(refs) == len(set(refs)) == 14
    assert refs == sorted(refs, reverse=True)


@pytest.mark.usefixtures("sent")
def test_a_list_has_ids_and_nothing_else_of_a_person(services: Services) -> None:
    view = message_page(messages.list_page(services, MessageFilter(), None, 100))
    text = json.dumps(view)
    assert "c-1" in text
    for secret in ("example.org", "+3247", "solar", "device-"):
        assert secret not in text


@pytest.mark.parametrize("cursor", ["", "1", "202611-1-2", "202611-1-2-0; DROP TABLE messages"])
def test_a_cursor_that_is_none_is_refused(services: Services, cursor: str) -> None:
    with pytest.raises(BadInput, match="next"):
        messages.list_page(services, MessageFilter(), cursor, 10)
