"""Quiet hours: when a channel is silent, when its silence ends, and which days are public holidays. Pure.

The hours are in `[quiet_hours]` of `policy.toml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PUBLIC_HOLIDAY = "public_holiday"
MIDNIGHT = time(0, 0)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When a channel is silent, by the recipient's wall clock: from `start` to before `end`, and on whole days.

    `weekdays` counts from Monday = 0; `holidays_of` is the country whose public holidays are silent, if any.
    """

    start: time
    end: time
    weekdays: frozenset[int] = frozenset()
    holidays_of: str | None = None

    def covers(self, clock: time) -> bool:
        """Whether a wall clock time is quiet. The hours may cross midnight."""
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def silent_on(self, day: date) -> bool:
        """Whether the whole day is silent."""
        if day.weekday() in self.weekdays:
            return True
        return self.holidays_of is not None and day in public_holidays(self.holidays_of, day.year)

    def at(self, local: datetime) -> bool:
        """Whether a moment, in the recipient's zone, is silent."""
        return self.covers(local.time()) or self.silent_on(local.date())

    def until(self, local: datetime) -> datetime:
        """The end, in UTC, of the silence that includes this moment in the recipient's zone."""
        end = local
        while self.at(local):  # skips nights and silent days in a row; it ends, because the policy allows at least one weekday
            end = next_time(end, self.end if self.covers(local.time()) else MIDNIGHT, local.tzinfo)
            local = end.astimezone(local.tzinfo)
        return end


def next_time(after: datetime, clock: time, where: tzinfo | None) -> datetime:
    """The next moment, in UTC, at which the wall clock in `where` shows `clock`; the later one if it shows it twice.

    A time that the change to summer time skips counts as if the clock had not changed: some minutes after the gap.
    """
    local = after.astimezone(where)
    days = 0 if local.time() < clock else 1
    wall = datetime.combine(local.date() + timedelta(days=days), clock, tzinfo=where)
    return max(wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC))


@lru_cache(maxsize=256)
def public_holidays(country: str, year: int) -> frozenset[date]:
    """A country's public holidays in a year. Raises NotImplementedError for an unknown country."""
    import holidays  # takes 0.1 s: only a policy with silent days pays for it

    return frozenset(holidays.country_holidays(country, years=year))
