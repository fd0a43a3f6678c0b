"""Recurring campaigns: one campaign per run with a fresh audience, approval, missed runs, and nothing sent in doubt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatcher.campaigns import actions, audience_uploads, overview, schedule_runs, schedules, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.audience_uploads import Upload, UploadRange
from dispatcher.campaigns.schedules import ScheduleAction, ScheduleStatus
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.errors import ScheduleConflict
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.maintenance import retention
from dispatcher.policy import ScheduleRules
from dispatcher.runtime.services import DeliveryLimits, Services
from tests.support.services import NOON, Clock, add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
DAY = timedelta(days=1)
NINE = NOON.replace(hour=8) + DAY  # 09:00 in Brussels, the day after
FIRST, SECOND = "weekly-2026-11-24T0900", "weekly-2026-11-25T0900"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock, tmp_path: Path) -> Iterator[Services]:
    with make_services(database, clock) as made:
        add_people(made, *(person(f"c-{number}", number) for number in range(3)))
        yield replace(made, audiences=tmp_path)


def form(**changes: Any) -> dict[str, Any]:
    campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "weekly-*"}}
    return {"id": "weekly", "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign, **changes}


def with_rules(services: Services, **rules: Any) -> Services:
    limits = replace(services.policy, schedules=ScheduleRules(**rules))
    return replace(services, policy=limits)


def add(services: Services, **changes: Any) -> ScheduleStatus:
    return schedules.add(services, schedules.parse(services, form(**changes)), "anna")


def upload(services: Services, upload_id: str, *recipients: str, by: str = "") -> None:
    """Put an audience; the next one is newer."""
    rows = b"".join(json.dumps({"recipient": each, "data": OFFER}).encode() + b"\n" for each in recipients)
    writer = audience_uploads.open_upload(
        services, Upload(upload_id, ".jsonl", False, submitted_by=by), UploadRange(length=len(rows))
    )
    writer.write(rows)
    writer.finish()
    writer.close()


def run_at(services: Services, clock: Clock, at: datetime) -> list[int]:
    clock.now = at
    return schedule_runs.start_due(services)


def runs(services: Services) -> list[tuple[str, str, str | None]]:
    """Each run, oldest first: its campaign, state and reason."""
    found = schedules.status(services, "weekly").runs
    return [(run.campaign_id, run.state.value, run.reason) for run in reversed(found)]


def campaign_ids(services: Services) -> list[str]:
    return [campaign.id for campaign in overview.newest(services, 100)]


def alerts(services: Services) -> list[tuple[str, str]]:
    with lend(services.pool) as connection:
        return connection.execute("SELECT provider, code FROM alerts WHERE provider LIKE 'schedule:%' ORDER BY 2").fetchall()


def test_each_run_is_a_campaign_with_the_newest_audience(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    assert run_at(services, clock, NINE - timedelta(seconds=1)) == []
    assert campaign_ids(services) == []
    run_at(services, clock, NINE)
    upload(services, "weekly-2", "c-1", "c-2")
    run_at(services, clock, NINE + DAY)
    work(services)
    assert campaign_ids(services) == [SECOND, FIRST]
    assert [each.address for each in outbox(services).sent] == ["c-0@example.org", "c-1@example.org", "c-2@example.org"]
    assert runs(services) == [(FIRST, "started", None), (SECOND, "started", None)]


def test_a_run_that_two_processes_start_is_one_campaign(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    run_at(services, clock, NINE)
    run_at(services, clock, NINE)
    with lend(services.pool) as connection:  # as if the process was lost between the submission and its record
        connection.execute("UPDATE schedule_runs SET state = 'pending', settled_at = NULL, taken_at = NULL")
    upload(services, "weekly-2", "c-1")  # newer, but the run has chosen its audience
    run_at(services, clock, NINE + timedelta(minutes=1))
    assert campaign_ids(services) == [FIRST]
    assert runs(services) == [(FIRST, "started", None)]


def test_a_day_in_the_name_chooses_the_upload_of_that_day(services: Services, clock: Clock) -> None:
    add(services, campaign={**form()["campaign"], "audience": {"upload": "list-{date}"}})
    upload(services, "list-2026-11-24", "c-0")
    upload(services, "list-2026-11-30", "c-1")
    run_at(services, clock, NINE)
    work(services)
    assert [each.address for each in outbox(services).sent] == ["c-0@example.org"]


def test_a_run_takes_no_upload_of_another_submitter(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0", by="Anna ")
    upload(services, "weekly-2", "c-1", by="bert")
    run_at(services, clock, NINE)
    work(services)
    assert [each.address for each in outbox(services).sent] == ["c-0@example.org"]
    upload(services, "weekly-3", "c-2", by="bert")
    run_at(services, clock, NINE + DAY)
    assert runs(services)[1] == (SECOND, "failed", "audience_unchanged")


@pytest.mark.parametrize("uploads", [[], ["other-1"]])
def test_without_an_audience_an_alert_and_nothing_is_sent(services: Services, clock: Clock, uploads: list[str]) -> None:
    add(services)
    for each in uploads:
        upload(services, each, "c-0")
    run_at(services, clock, NINE)
    work(services)
    assert runs(services) == [(FIRST, "failed", "audience_missing")]
    assert alerts(services) == [("schedule:weekly", "audience_missing")]
    assert (campaign_ids(services), outbox(services).sent) == ([], [])


def test_an_audience_as_last_time_is_not_sent_again(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    run_at(services, clock, NINE)
    upload(services, "weekly-2", "c-0")  # the same rows under another id
    run_at(services, clock, NINE + DAY)
    assert runs(services)[1] == (SECOND, "failed", "audience_unchanged")
    assert alerts(services) == [("schedule:weekly", "audience_unchanged")]
    assert campaign_ids(services) == [FIRST]


def test_a_template_without_approval_stops_the_run(database: str, clock: Clock, tmp_path: Path) -> None:
    with make_services(database, clock, approved=False) as made:
        services = replace(made, audiences=tmp_path)
        add(services)
        upload(services, "weekly-1", "c-0")
        run_at(services, clock, NINE)
        assert runs(services) == [(FIRST, "failed", "not_approved")]


def test_missed_runs_are_skipped_by_default(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    run_at(services, clock, NINE + DAY + timedelta(minutes=30))
    assert runs(services) == [(FIRST, "skipped", "missed"), (SECOND, "skipped", "missed")]
    assert alerts(services) == [("schedule:weekly", "missed")]
    run_at(services, clock, NINE + 2 * DAY)
    assert runs(services)[2] == ("weekly-2026-11-26T0900", "started", None)


@pytest.mark.parametrize(("minutes", "state"), [(59, "started"), (61, "skipped")])
def test_the_newest_missed_run_can_start_late(services: Services, clock: Clock, minutes: int, state: str) -> None:
    late = with_rules(services, missed="late", late_minutes_max=60.0)
    add(late)
    upload(late, "weekly-1", "c-0")
    run_at(late, clock, NINE + DAY + timedelta(minutes=minutes))
    assert [each[1] for each in runs(late)] == ["skipped", state]


def test_a_run_that_a_lost_process_took_does_not_start_late(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    with lend(services.pool) as connection:
        no = connection.execute("SELECT no FROM schedules").fetchone()
        connection.execute(
            "INSERT INTO schedule_runs (schedule_no, due_at, campaign_id, state, taken_at) VALUES (%s, %s, %s, 'pending', %s)",
            (no and no[0], NINE, FIRST, NINE),
        )
        connection.execute("UPDATE schedules SET next_at = %s", (NINE + DAY,))
    run_at(services, clock, NINE + timedelta(hours=3))
    assert runs(services) == [(FIRST, "skipped", "missed")]
    assert campaign_ids(services) == []


def test_a_definition_is_approved_by_somebody_else(services: Services, clock: Clock) -> None:
    strict = with_rules(services, approval="definition")
    assert add(strict).state == "awaiting_approval"
    with pytest.raises(ScheduleConflict, match="submitted by anna: somebody else has to approve it"):
        schedules.act(strict, "weekly", ScheduleAction.APPROVE, " Anna")
    with pytest.raises(ScheduleConflict, match="cannot resume a recurring campaign that is awaiting_approval"):
        schedules.act(strict, "weekly", ScheduleAction.RESUME, "bert")
    upload(strict, "weekly-1", "c-0")
    run_at(strict, clock, NINE)
    assert runs(strict) == []
    assert schedules.act(strict, "weekly", ScheduleAction.APPROVE, "bert").state == "active"
    run_at(strict, clock, NINE + DAY)
    assert runs(strict) == [(SECOND, "started", None)]


def test_a_stricter_policy_stops_a_definition_without_approval(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    run_at(with_rules(services, approval="definition"), clock, NINE)
    assert runs(services) == [(FIRST, "failed", "not_approved")]
    assert campaign_ids(services) == []


def large(services: Services, approval: str) -> Services:
    return replace(services, policy=replace(services.policy, four_eyes_audience_min=1, schedules=ScheduleRules(approval)))


def test_large_runs_of_an_approved_definition_are_released(services: Services, clock: Clock) -> None:
    strict = large(services, "definition")
    add(strict, audience_max=2)
    schedules.act(strict, "weekly", ScheduleAction.APPROVE, "bert")
    upload(strict, "weekly-1", "c-0", "c-1")
    run_at(strict, clock, NINE)
    upload(strict, "weekly-2", "c-0", "c-1", "c-2")
    run_at(strict, clock, NINE + DAY)
    first, second = (overview.find(strict, each) for each in (FIRST, SECOND))
    assert first is not None
    assert second is not None
    assert (first.state, first.submitted_by, first.released_by) == (CampaignState.SCHEDULED, "anna", "bert")
    assert second.state is CampaignState.AWAITING_RELEASE  # larger than what was approved


def test_a_large_run_without_approval_is_released_by_itself(services: Services, clock: Clock) -> None:
    strict = large(services, "run")
    add(strict)
    upload(strict, "weekly-1", "c-0", "c-1")
    run_at(strict, clock, NINE)
    refused, released = (actions.apply(strict, FIRST, CampaignAction.RELEASE, who) for who in ("anna", "bert"))
    assert refused is not None
    assert released is not None
    assert (refused.refusal is None, released.refusal) == (False, None)


def test_runs_in_a_pause_do_not_take_place(services: Services, clock: Clock) -> None:
    add(services)
    upload(services, "weekly-1", "c-0")
    schedules.act(services, "weekly", ScheduleAction.PAUSE, "bert")
    run_at(services, clock, NINE)
    clock.pass_(3_600)
    status = schedules.act(services, "weekly", ScheduleAction.RESUME, "bert")
    assert [run.campaign_id for run in status.next_runs[:2]] == [SECOND, "weekly-2026-11-26T0900"]
    run_at(services, clock, NINE + DAY)
    assert runs(services) == [(SECOND, "started", None)]
    assert [(each.actor, each.action) for each in status.changes] == [("anna", "add"), ("bert", "pause"), ("bert", "resume")]


def test_after_its_end_no_run_starts(services: Services, clock: Clock) -> None:
    add(services)
    schedules.act(services, "weekly", ScheduleAction.END, "bert")
    run_at(services, clock, NINE)
    assert (runs(services), schedules.status(services, "weekly").next_runs) == ([], ())
    with pytest.raises(ScheduleConflict, match="that is ended"):
        schedules.act(services, "weekly", ScheduleAction.RESUME, "bert")


def test_a_schedule_with_an_end_date_ends(services: Services, clock: Clock) -> None:
    add(services, ends_at="2026-11-24T12:00:00+01:00")
    upload(services, "weekly-1", "c-0")
    run_at(services, clock, NINE)
    assert runs(services) == [(FIRST, "started", None)]
    assert schedules.status(services, "weekly").state == "ended"


def test_what_a_run_has_not_sent_in_time_expires(services: Services, clock: Clock) -> None:
    add(services, expires_after_minutes=30)
    upload(services, "weekly-1", "c-0")
    run_at(services, clock, NINE)
    clock.pass_(1_801)
    work(services)
    assert states(services, FIRST) == {"expired": 1}


def test_a_large_audience_is_loaded_on_by_the_fan_out(services: Services, clock: Clock) -> None:
    small = replace(services, limits=DeliveryLimits(part_rows=2))
    add(small)
    upload(small, "weekly-1", *(f"c-{number}" for number in range(7)))
    (load,) = run_at(small, clock, NINE)
    assert runs(small) == [(FIRST, "started", None)]
    submission.load_some(small, load)
    campaign = overview.find(small, FIRST)
    assert campaign is not None
    assert (campaign.audience, campaign.is_loading) == (7, False)


def test_the_same_definition_twice_is_one(services: Services) -> None:
    add(services)
    assert add(services).state == "active"
    with pytest.raises(ScheduleConflict, match="another definition"):
        add(services, cron="0 10 * * *")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cron": "* 9 * * 1"}, "schedule: cron: runs more often than every 15 minutes"),
        ({"zone": "localtime"}, "schedule: zone: unknown time zone"),
        ({"zone": "Europe/Brusels"}, "schedule: zone: unknown time zone; did you mean Europe/Brussels?"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "schedule: ends_at: lies in the past"),
        ({"campaign": {"template": "nope", "audience": {"upload": "a-*"}}}, "schedule: campaign.template: unknown template 'nope'"),
        ({"campaign": {"template": "loan_offer", "audience": {"upload": "a"}}}, "campaign.audience.upload: should end in *"),
        ({"campaign": {"template": "loan_offer", "audience": "a.csv"}}, "campaign.audience: should be {"),
        ({"campaign": {"template": "loan_offer", "audience": {"upload": "../*"}}}, "campaign.audience.upload: should be the id"),
        ({"campaign": {**form()["campaign"], "send_at": "2026-12-01T00:00:00Z"}}, "campaign.send_at: is each run's own"),
        ({"campaign": {**form()["campaign"], "sender": "x"}}, "campaign.sender: 'x' is not allowed for kbc-bank"),
    ],
)
def test_a_bad_definition_names_field_and_remedy(services: Services, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        add(services, **changes)
    assert message in str(error.value)


def test_old_runs_are_deleted_by_retention(services: Services, clock: Clock) -> None:
    add(services)
    run_at(services, clock, NINE)
    assert runs(services) == [(FIRST, "failed", "audience_missing")]
    schedules.act(services, "weekly", ScheduleAction.PAUSE, "bert")
    clock.now += timedelta(days=20 * 366)
    next(each for each in retention.clear(services) if each.data.what == "runs of recurring campaigns")
    assert runs(services) == []
