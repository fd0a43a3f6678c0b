"""What a person who chooses or releases a time sees of that day: quiet hours, and what else is planned."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from channels.base import Channel
from dispatcher.campaigns import calendar
from dispatcher.campaigns.calendar import CalendarEntry
from dispatcher.domain.local_times import day_bounds
from dispatcher.runtime.services import Services
from dispatcher.web.console.session import ConsoleSession

# Channel, begin and end of its quiet hours, whether they last all of that day, and whether the start is in them.
QuietRow = tuple[str, tuple[str, str], bool, bool]


def same_day(operator: ConsoleSession, services: Services, start: datetime) -> list[CalendarEntry]:
    """What is planned for the local day, of the entities that this person may see."""
    entries = calendar.between(services, *day_bounds(start, services.policy.default_zone))
    return [each for each in entries if calendar.may_see(operator.principal, each)]


def quiet_on(services: Services, channels: Iterable[Channel], start: datetime) -> list[QuietRow]:
    """The quiet hours of these channels."""
    found = []
    for channel in channels:
        hours = services.policy.quiet_hours.get(channel)
        if hours is not None:
            local = start.astimezone(ZoneInfo(services.policy.default_zone))
            span = (f"{hours.start:%H:%M}", f"{hours.end:%H:%M}")
            found.append((channel.value, span, hours.silent_on(local.date()), hours.at(local)))
    return found
