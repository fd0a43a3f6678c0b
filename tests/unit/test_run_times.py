"""When recurring campaigns run: cron in a time zone, through both changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest

from dispatcher.domain.run_times import BadCron, check_cron, run_id, run_times

BRUSSELS = "Europe/Brussels"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def runs(cron: str, after: str, count: int = 3) -> list[str]:
    return [f"{each:%m-%d %H:%M}" for each in islice(run_times(cron, BRUSSELS, at(after)), count)]


def test_a_run_keeps_its_local_time_over_the_year() -> None:
    assert runs("0 9 1 * *", "2026-09-15") == ["10-01 07:00", "11-01 08:00", "12-01 08:00"]


def test_a_skipped_local_time_runs_once_an_hour_later() -> None:
    assert runs("30 2 * * *", "2026-03-28T12:00") == ["03-29 01:30", "03-30 00:30", "03-31 00:30"]  # at 03:30, then 02:30
    assert run_id("weekly", at("2026-03-29T01:30"), BRUSSELS) == "weekly-2026-03-29T0330"


def test_a_skipped_time_and_the_one_it_moves_to_are_one_run() -> None:
    assert runs("30 2,3 * * *", "2026-03-28T12:00") == ["03-29 01:30", "03-30 00:30", "03-30 01:30"]


def test_a_local_time_that_comes_twice_runs_the_first_time() -> None:
    assert runs("30 2 * * *", "2026-10-24T12:00") == ["10-25 00:30", "10-26 01:30", "10-27 01:30"]
    assert runs("0,30 * * * *", "2026-10-25T00:15") == ["10-25 00:30", "10-25 02:00", "10-25 02:30"]


def test_no_run_comes_between_two_equal_times() -> None:
    assert runs("30 2 * * *", "2026-10-25T01:10", 1) == ["10-26 01:30"]  # 02:10, for the second time


def test_runs_of_one_schedule_have_different_ids() -> None:
    times = list(islice(run_times("0,15,30,45 * * * *", BRUSSELS, at("2026-03-01")), 24_000))
    assert len({run_id("a", each, BRUSSELS) for each in times}) == 24_000
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("* 9 * * 1", "more often than every 15 minutes"),
        ("0 9 * *", "five fields"),
        ("0 0 9 * * 1", "five fields"),
        ("61 9 * * 1", "bad minute"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("@daily", "five fields"),
    ],
)
def test_a_bad_cron_expression_says_what_is_wrong(cron: str, message: str) -> None:
    with pytest.raises(BadCron, match=message):
        check_cron(cron)
