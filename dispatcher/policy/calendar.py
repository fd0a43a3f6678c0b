"""Days on which people are left in peace. Pure: the calendar of a country and a year never changes while we run."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PUBLIC_HOLIDAY = "public_holiday"


@lru_cache(maxsize=256)
def public_holidays(country: str, year: int) -> frozenset[date]:
    """A country's public holidays in a year. Raises NotImplementedError for a country that the calendar does not know."""
    import holidays  # a tenth of a second, which only a policy with silent days should cost

    return frozenset(holidays.country_holidays(country, years=year))
