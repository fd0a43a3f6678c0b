"""Local times that people write, also on the days on which the clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatcher.domain.local_times import BadLocalTime, day_bounds, local_text, moment_of, occurrence_of

BRUSSELS = "Europe/Brussels"


def test_a_time_that_the_clock_skips_is_refused() -> None:
    with pytest.raises(BadLocalTime, match=r"does not exist.*take 03:30 or later"):
        moment_of("2027-03-28T02:30", BRUSSELS)
    assert moment_of("2027-03-28T03:00", BRUSSELS) == datetime(2027, 3, 28, 1, tzinfo=UTC)


def test_a_time_that_comes_twice_needs_a_choice() -> None:
    with pytest.raises(BadLocalTime, match="comes twice") as refused:
        moment_of("2026-10-25T02:30", BRUSSELS)
    assert refused.value.is_double
    first, second = (moment_of("2026-10-25T02:30", BRUSSELS, each) for each in ("first", "second"))
    assert second - first == timedelta(hours=1)
    assert [occurrence_of(each, BRUSSELS) for each in (first, second)] == ["first", "second"]
    assert local_text(first, BRUSSELS) == local_text(second, BRUSSELS) == "2026-10-25T02:30"


@pytest.mark.parametrize("text", ["tomorrow", "", "2026-12-01T09:30+01:00", "0001-01-01T00:00", "9999-12-31T23:59"])
def test_what_is_no_local_time_is_refused(text: str) -> None:
    with pytest.raises(BadLocalTime):
        moment_of(text, BRUSSELS)


def test_a_local_day_has_23_to_25_hours() -> None:
    for day, hours in (("2027-03-28T12:00", 23), ("2026-10-25T12:00", 25), ("2026-12-01T09:30", 24)):
        begin, end = day_bounds(moment_of(day, BRUSSELS), BRUSSELS)
        assert end - begin == timedelta(hours=hours)
        assert occurrence_of(moment_of(day, BRUSSELS), BRUSSELS) == ""
