"""Opt-out latency as a service level: what was measured, for the command line and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from dispatcher.domain.canaries import OptOutWay
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import canary_lags
from dispatcher.ledger.maintenance.canary_lags import LagSummary, LateOptOut, Measured, WayState
from dispatcher.maintenance.canaries import ways_out
from dispatcher.runtime.services import Services

SeriesStep = Literal["hour", "day"]
HOURLY_DAYS_MAX = 2  # for a longer time the series has days
LATE_MAX = 20


@dataclass(frozen=True, slots=True)
class OptOutLatency:
    """What was measured since `since`. `ways` are those that are measured by this configuration; none where canaries are off."""

    since: datetime
    until: datetime
    bound_seconds: float
    ways: Sequence[OptOutWay]
    states: Sequence[WayState]
    by_way: Sequence[LagSummary]
    series: Sequence[LagSummary]
    step: SeriesStep
    late: Sequence[LateOptOut]
    reasons: Mapping[str, int]

    @property
    def not_measured(self) -> Sequence[OptOutWay]:
        """The ways that this configuration cannot measure."""
        return [way for way in OptOutWay if way not in self.ways]


def latency(services: Services, days: int, way: OptOutWay | None = None) -> OptOutLatency:
    """What was measured in the last days, with the series of one way or of all."""
    until = services.clock() + timedelta(seconds=1)
    since = until - timedelta(days=days)
    step: SeriesStep = "hour" if days <= HOURLY_DAYS_MAX else "day"
    with lend(services.pool) as connection:
        return OptOutLatency(
            since,
            until,
            services.limits.lease_seconds,
            ways_out.usable(services),
            canary_lags.way_states(connection, since),
            canary_lags.by_way(connection, Measured(since, until)),
            canary_lags.series(connection, Measured(since, until, way), step),
            step,
            canary_lags.late(connection, since, until, LATE_MAX),
            canary_lags.reasons(connection, since, until),
        )


def latency_view(found: OptOutLatency) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "since": found.since.isoformat(),
        "until": found.until.isoformat(),
        "bound_seconds": found.bound_seconds,
        "ways": list(found.ways),
        "not_configured": list(found.not_measured),
        "by_way": [summary_view(each) for each in found.by_way],
        "step": found.step,
        "series": [summary_view(each) for each in found.series],
        "late": [late_view(each) for each in found.late],
        "not_measured": dict(found.reasons),
        "states": [_plain(asdict(each)) for each in found.states],
    }


def summary_view(summary: LagSummary) -> dict[str, Any]:
    """Numbers and percentiles; times in seconds, rounded to milliseconds."""
    document = _plain(asdict(summary))
    return document if summary.way else {name: value for name, value in document.items() if name != "way"}


def late_view(late: LateOptOut) -> dict[str, Any]:
    """A late opt-out."""
    return _plain(asdict(late))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return round(value, 3) if isinstance(value, float) else value
