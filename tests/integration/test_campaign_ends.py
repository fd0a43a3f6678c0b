"""A cancelled or forgotten campaign comes to its end, whatever its messages were at; on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels.base import Channel, Outbound, Rejected, Result, Throttled
from channels.providers.outbox import Outbox
from channels.send_window import SendWindow
from dispatcher.campaigns import submission
from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import lend
from dispatcher.maintenance import retention
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def submit(services: Services, **changes: Any) -> None:
    add_people(services, person("c-1", 1), person("c-2", 2))
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2")]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)), by="Anne")


def campaign(services: Services) -> Campaign:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, "spring")
    assert found is not None
    return found


def open_chunks(services: Services) -> int:
    with lend(services.pool) as connection:
        row = connection.execute("SELECT count(*) FROM chunks WHERE done_at IS NULL").fetchone()
    return int(row[0]) if row else 0


class CancelsWhileSending(Outbox):
    """A provider; the campaign is cancelled during its call."""

    services: Services

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        with lend(self.services.pool) as connection:
            lifecycle.cancel(connection, "spring", self.services.clock())
        yield from super().send(batch, window)


def cancelled_while_sending(services: Services, channel: Channel = Channel.EMAIL) -> tuple[Services, Outbox]:
    provider = CancelsWhileSending(channel)
    services = replace(services, providers={**services.providers, channel: provider})
    provider.services = services
    return services, provider


def test_what_waits_after_a_cancel_is_cancelled_and_the_month_can_go(services: Services, clock: Clock) -> None:
    clock.now = datetime(2014, 3, 10, 11, 0, tzinfo=UTC)
    services, provider = cancelled_while_sending(services)
    provider.answers[""] = Throttled("429", retry_after_seconds=60)
    submit(services)
    work(services)
    assert states(services) == {"cancelled": 2}
    assert (campaign(services).state, open_chunks(services)) == (CampaignState.CANCELLED, 0)
    provider.answers.clear()
    for _ in range(3):
        clock.pass_(DAY)
        work(services)
    assert (states(services), open_chunks(services), provider.sent) == ({"cancelled": 2}, 0, [])
    clock.now = datetime(2026, 11, 23, tzinfo=UTC)
    assert sum(done.cleared for done in retention.clear(services) if done.data.policy_key == "decisions") >= 1
    with lend(services.pool) as connection:
        assert lifecycle.find(connection, "spring") is None


@pytest.mark.parametrize("answer", [None, Rejected("30005")])
def test_no_leg_follows_what_was_on_its_way_when_the_campaign_was_cancelled(
    services: Services, clock: Clock, answer: Rejected | None
) -> None:
    services, provider = cancelled_while_sending(services, Channel.PUSH)
    if answer is not None:
        provider.answers[""] = answer
    submit(services, channels=["push", "email"], fallback_after_seconds=60)
    for _ in range(3):
        work(services)
        clock.pass_(DAY)
    assert states(services) == {"failed" if answer else "accepted": 2}
    assert (outbox(services).sent, open_chunks(services)) == ([], 0)


def test_a_cap_does_not_count_what_was_throttled_when_the_campaign_was_cancelled(services: Services) -> None:
    services, provider = cancelled_while_sending(services)
    provider.answers[""] = Throttled("429", retry_after_seconds=60)
    submit(services)
    work(services)
    with lend(services.pool) as connection:
        assert connection.execute("SELECT count(*) FROM cap_reservations").fetchone() == (0,)


@pytest.mark.parametrize("state", ["held", "waiting", "pending"])
def test_messages_that_a_cancel_missed_are_cancelled_later(services: Services, clock: Clock, state: str) -> None:
    """A settle that read the campaign just before the cancel committed leaves such messages, and so did earlier versions."""
    submit(services)
    work(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET state = 'cancelled', finished_at = %s", (clock.now,))
        until = None if state == "pending" else clock.now + timedelta(seconds=60)
        connection.execute("UPDATE messages SET state = %s, until = %s", (state, until))
        if state == "pending":
            connection.execute("UPDATE chunks SET done_at = NULL")
    clock.pass_(61)
    work(services)
    work(services)
    assert (states(services), open_chunks(services)) == ({"cancelled": 2}, 0)


# -- forgotten campaigns -----------------------------------------------------------------------------------------------


def test_a_campaign_forgotten_in_pause_is_ended_by_the_policy_and_says_so(services: Services, clock: Clock) -> None:
    submit(services)
    with lend(services.pool) as connection:
        assert lifecycle.pause_by_id(connection, "spring", clock.now)
    clock.pass_(30 * DAY)
    work(services)
    assert campaign(services).state is CampaignState.PAUSED
    clock.pass_(1)
    work(services)
    found = campaign(services)
    assert (found.state, found.note) == (CampaignState.CANCELLED, "cancelled by the policy: paused for more than 30 days")
    assert found.finished_at == clock.now
    assert (states(services), open_chunks(services), outbox(services).sent) == ({"cancelled": 2}, 0, [])


def test_why_a_forgotten_campaign_was_paused_stays_in_its_note(services: Services, clock: Clock) -> None:
    submit(services)
    work(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET state = 'running', finished_at = NULL")
        assert lifecycle.pause_with_note(connection, campaign(services).no, "paused itself: too many complaints", clock.now)
    clock.pass_(31 * DAY)
    work(services)
    assert (
        campaign(services).note
        == "cancelled by the policy: paused for more than 30 days; before: paused itself: too many complaints"
    )


def test_a_campaign_that_nobody_releases_is_ended_by_the_policy(services: Services, clock: Clock) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=1, abandoned_after_days=7))
    submit(services)
    clock.pass_(7 * DAY + 1)
    work(services)
    found = campaign(services)
    assert (found.state, found.note) == (CampaignState.CANCELLED, "cancelled by the policy: not released for more than 7 days")


@pytest.mark.parametrize("paused", [True, False])
def test_a_campaign_whose_hour_is_yet_to_come_is_not_forgotten(services: Services, clock: Clock, paused: bool) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_audience_min=500 if paused else 1))
    submit(services, send_at=(clock.now + timedelta(days=60)).isoformat())
    if paused:
        with lend(services.pool) as connection:
            assert lifecycle.pause_by_id(connection, "spring", clock.now)
    clock.pass_(89 * DAY)
    work(services)
    assert campaign(services).state in (CampaignState.PAUSED, CampaignState.AWAITING_RELEASE)
    clock.pass_(2 * DAY)
    work(services)
    assert campaign(services).state is CampaignState.CANCELLED
