"""Times that people write, in a named time zone: with the days on which the clock is changed. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

NOT_ZONES = frozenset({"localtime", "Factory"})  # files beside the zones: the setting of a machine, and none at all


class BadLocalTime(ValueError):
    """A local time that is none, or that comes twice; the message says what to do."""

    def __init__(self, message: str, is_double: bool = False) -> None:
        super().__init__(message)
        self.is_double = is_double


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all time zones."""
    return frozenset(available_timezones() - NOT_ZONES)


def moment_of(text: str, zone: str, occurrence: str = "") -> datetime:
    """The moment of a local time such as 2026-12-01T09:30, in UTC. `occurrence` is "first" or "second" for a time that comes twice.

    Raises `BadLocalTime` for a time that the clock skips in spring, and for one that comes twice in autumn where nobody has said
    which is meant.
    """
    try:
        local = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadLocalTime("should be a day and a time, such as 2026-12-01T09:30") from None
    if local.tzinfo is not None or not 1970 < local.year < 2200:
        raise BadLocalTime("should be a day and a time without a zone, such as 2026-12-01T09:30")
    place = ZoneInfo(zone)
    first, second = (local.replace(tzinfo=place, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(place).replace(tzinfo=None) != local:
        after = max(first, second).astimezone(place)
        raise BadLocalTime(f"does not exist: the clocks of {zone} are put forward over it; take {after:%H:%M} or later")
    if first != second and occurrence not in ("first", "second"):
        raise BadLocalTime(
            f"comes twice: the clocks of {zone} are put back over it; choose the first or the second", is_double=True
        )
    return second if occurrence == "second" else first


def local_text(at: datetime, zone: str) -> str:
    """A moment as a local time such as 2026-12-01T09:30, for a form."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}"


def occurrence_of(at: datetime, zone: str) -> str:
    """ "first" or "second" for a moment whose local time comes twice; "" for any other."""
    local = at.astimezone(ZoneInfo(zone))
    if local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        return ""
    return "second" if local.fold else "first"


def day_bounds(day: datetime, zone: str) -> tuple[datetime, datetime]:
    """The beginning and the end of the local day of a moment, in UTC: 23 to 25 hours."""
    midnight = day.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return midnight.astimezone(UTC), (midnight + timedelta(days=1)).astimezone(UTC)
