"""Editing a campaign: only while it does not run, recorded, and never past a release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.campaigns import actions, editing, overview, scheduler, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.overview import CampaignStatus
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.errors import VersionConflict
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.campaign_edit import parse_edit
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from tests.support.services import NOON, Clock, add_people, make_services, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
EVENING = "2026-11-23T18:00:00+01:00"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def form(count: int, **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(count)]
    return {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(services: Services, count: int = 2, **changes: Any) -> SubmitStatus:
    return submission.accept(services, parse_request(form(count, **changes)), by="Anna").status


def edit(services: Services, by: str = "Anna", expected: int | None = None, **changes: Any) -> str | None:
    result = editing.edit(services, "spring", parse_edit(changes), by, expected)
    assert result is not None
    return result.refusal


def act(services: Services, action: CampaignAction, by: str = "Anna") -> str | None:
    result = actions.apply(services, "spring", action, by)
    assert result is not None
    return result.refusal


def status(services: Services) -> CampaignStatus:
    found = overview.status(services, "spring")
    assert found is not None
    return found


def due_times(services: Services) -> list[float]:
    """When each chunk is due, in seconds from noon."""
    with lend(services.pool) as connection:
        rows = connection.execute("SELECT due_at FROM chunks ORDER BY chunk").fetchall()
    return [(due_at - NOON).total_seconds() for (due_at,) in rows]


def test_an_edited_campaign_starts_at_its_new_time(services: Services, clock: Clock) -> None:
    add_people(services, person("c-0", 1), person("c-1", 2))
    submit(services, send_at="2026-11-23T15:00:00Z")
    assert edit(services, send_at=EVENING, expires_at="2026-11-23T23:00:00Z", priority=2, rate_per_second=10) is None
    clock.now = datetime(2026, 11, 23, 16, 59, tzinfo=UTC)
    work(services)
    assert states(services) == {"pending": 2}
    clock.pass_(61)
    work(services)
    assert states(services) == {"accepted": 2}
    (entry,) = status(services).edits
    assert (entry.version, entry.at, entry.actor) == (1, NOON, "Anna")
    assert entry.changes == {
        "send_at": ["2026-11-23T15:00:00+00:00", "2026-11-23T17:00:00+00:00"],
        "expires_at": [None, "2026-11-23T23:00:00+00:00"],
        "priority": [5, 2],
        "rate_per_second": [None, 10],
    }


def test_null_starts_a_campaign_at_once_and_the_same_again_is_no_edit(services: Services) -> None:
    add_people(services, person("c-0", 1), person("c-1", 2))
    submit(services, send_at="2026-11-24T15:00:00Z")
    assert edit(services, send_at=None) is None
    assert edit(services, send_at=None) is None
    assert status(services).campaign.version == 1
    work(services)
    assert states(services) == {"accepted": 2}
    assert submit(services, send_at="2026-11-24T15:00:00Z") is SubmitStatus.KNOWN  # what was submitted stays the same submission


def test_a_paused_campaign_goes_on_at_its_new_rate(services: Services) -> None:
    submit(services, 30, rate_per_second=10)
    assert due_times(services) == [0, 1, 2]
    due = scheduler.due_chunks(services)[0]
    run_chunk(services, due.period, due.number)
    assert edit(services, rate_per_second=2) == "cannot edit a campaign that is running; pause it first"
    assert act(services, CampaignAction.PAUSE) is None
    assert edit(services, send_at=EVENING) == "cannot change send_at of a campaign that has started"
    assert edit(services, rate_per_second=0.1) == "cannot lower rate_per_second below 0.166667: its parts have up to 10 recipients"
    services.clock.pass_(100)  # type: ignore[attr-defined]
    assert edit(services, rate_per_second=2) is None
    assert due_times(services) == [0, 100, 105]
    assert act(services, CampaignAction.RESUME) is None
    assert status(services).campaign.spec.rate_per_second == 2


def test_an_edit_voids_a_release_and_its_actor_cannot_release(services: Services) -> None:
    strict = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    submit(strict, send_at="2026-11-23T15:00:00Z")
    assert act(services, CampaignAction.RELEASE, "Bart") is None
    assert edit(services, "Bart", priority=1) is None
    assert status(services).campaign.state == "scheduled"  # the order of work is nothing that a person releases
    assert edit(services, "Carla", send_at=EVENING) is None
    campaign = status(services).campaign
    assert (campaign.state, campaign.released_by, campaign.note) == ("awaiting_release", None, "edited after its release by Bart")
    assert act(services, CampaignAction.RELEASE, "Anna") is not None
    assert (
        act(services, CampaignAction.RELEASE, " CARLA\u200b ")
        == "who submitted or edited it cannot release it: somebody else has to"
    )
    assert act(services, CampaignAction.RELEASE, "Bart") is None
    assert status(services).campaign.released_by == "Bart"


def test_an_edit_of_another_version_is_refused(services: Services) -> None:
    submit(services, send_at="2026-11-23T15:00:00Z")
    assert edit(services, expected=0, priority=1) is None
    with pytest.raises(VersionConflict) as caught:
        edit(services, "Bart", expected=0, priority=2)
    assert caught.value.current == 1
    assert status(services).campaign.spec.priority == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"send_at": "2026-11-22T15:00:00Z"}, "send_at"),
        ({"send_at": "2026-11-24T15:00:00"}, "send_at"),
        ({"expires_at": "2026-11-23T14:00:00Z"}, "expires_at"),
        ({"send_at": "2026-11-24T16:00:00Z"}, "expires_at"),
        ({"priority": None}, "priority"),
        ({"priority": 10}, "priority"),
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"template": "insurance_offer"}, "template"),
        ({}, ""),
    ],
)
def test_a_wrong_edit_names_its_field_and_changes_nothing(services: Services, changes: dict[str, Any], field: str) -> None:
    submit(services, send_at="2026-11-23T15:00:00Z", expires_at="2026-11-24T15:00:00Z")
    with pytest.raises(BadInput) as caught:
        edit(services, **changes)
    assert [fault.field for fault in caught.value.faults] == [field]
    assert status(services).campaign.version == 0


def test_a_campaign_that_has_ended_cannot_be_edited(services: Services) -> None:
    submit(services, send_at="2026-11-23T15:00:00Z")
    act(services, CampaignAction.CANCEL)
    assert edit(services, priority=1) == "cannot edit a campaign that is cancelled"
    assert editing.edit(services, "summer", {"priority": 1}, "Anna") is None
