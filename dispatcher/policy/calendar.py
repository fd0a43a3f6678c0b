"""Weekdays and public holidays. Pure: the calendar of a country and a year does not change while the program runs."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PUBLIC_HOLIDAY = "public_holiday"


@lru_cache(maxsize=256)
def public_holidays(country: str, year: int) -> frozenset[date]:
    """A country's public holidays in a year. Raises NotImplementedError for an unknown country."""
    import holidays  # takes 0.1 s: only a policy with silent days pays for it

    return frozenset(holidays.country_holidays(country, years=year))
