"""When a recurring campaign runs: a cron expression in a named time zone. Pure.

The expression is read in local time. A time that the clock skips in spring runs as much later as the clock moves (02:30 becomes
03:30). A time that comes twice in autumn runs once, the first time. So no two runs have the same local time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = 5  # cronsim also reads a sixth one, for seconds
APART_MIN = timedelta(minutes=15)  # `* 9 * * 1` is a mistyped `0 9 * * 1`, and would write to everybody 60 times
RUNS_CHECKED = 500  # of an expression, for the distance between two of them
SOMEDAY = datetime(2026, 1, 1)  # noqa: DTZ001  a local time, from which an expression is checked


class BadCron(ValueError):
    """A cron expression that cannot be used; the message says why."""


def check_cron(cron: str) -> None:
    """Raise `BadCron` for an expression that is not one, that never comes, or whose runs are too close together."""
    if len(cron.split()) != FIELDS:
        raise BadCron("should have five fields: minute, hour, day of the month, month, day of the week, such as 0 9 * * 1")
    try:
        times = list(islice(CronSim(cron, SOMEDAY), RUNS_CHECKED))
    except CronSimError as error:
        raise BadCron(f"is not a cron expression: {str(error).lower()}") from None
    if not times:
        raise BadCron("never comes")
    if any(later - earlier < APART_MIN for earlier, later in pairwise(times)):
        raise BadCron(f"runs more often than every {APART_MIN.seconds // 60} minutes; `0` in the first field means once an hour")


def run_times(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """The times of the runs after a moment, in UTC, oldest first; no end but that of the calendar."""
    place = ZoneInfo(zone)
    for local in CronSim(cron, after.astimezone(place).replace(tzinfo=None)):
        # `fold=0` is the first of two equal times; of a time that is skipped, the one with the offset from before.
        at = local.replace(tzinfo=place, fold=0).astimezone(UTC)
        if at > after:
            yield at
            after = at


def run_id(schedule_id: str, at: datetime, zone: str) -> str:
    """The campaign's id of a run: the schedule's with the local time, such as `weekly-2026-12-01T0900`."""
    return f"{schedule_id}-{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H%M}"
