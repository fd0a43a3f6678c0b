"""The load of the last hour: what each provider did by the minute, circuit breakers, rate limits, and tasks that waited in lanes.

Each worker process stores what it saw every few seconds (`runtime/minute_recorder.py`), and the sweep how many tasks wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

import structlog

from dispatcher.client.jobs import BrokerUnavailable
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import load_samples
from dispatcher.ledger.maintenance.load_samples import LaneMinute, ProviderMinute
from dispatcher.maintenance.lane_backlog import backlog
from dispatcher.runtime.metric_families import QUICK
from dispatcher.runtime.minute_recorder import MINUTES, OF_CHANNEL, MinuteRecorder
from dispatcher.runtime.services import Services

__all__ = ["LaneMinute", "ProviderLoad", "ProviderMinute", "RecentLoad", "last_hour", "quantile", "record", "record_lanes"]

MINUTES_SHOWN = 60
KEPT = timedelta(days=1)
WAIT_SECONDS_MAX = 1.0  # for a connection: the next call stores more

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ProviderLoad:
    """What one provider did on a channel in the last hour. `minutes` has the rows of the minutes in which it was asked."""

    provider: str
    channel: str
    minutes: Mapping[datetime, ProviderMinute]

    @property
    def total(self) -> ProviderMinute:
        """All minutes in one row."""
        rows = list(self.minutes.values())
        width = max((len(row.answers) for row in rows), default=0)
        return ProviderMinute(
            rows[0].minute,
            self.provider,
            self.channel,
            accepted=sum(row.accepted for row in rows),
            refused=sum(row.refused for row in rows),
            throttled=sum(row.throttled for row in rows),
            unavailable=sum(row.unavailable for row in rows),
            uncertain=sum(row.uncertain for row in rows),
            answers=[sum(row.answers[place] for row in rows if place < len(row.answers)) for place in range(width)],
            put_back=sum(row.put_back for row in rows),
            wait_seconds_max=max(row.wait_seconds_max for row in rows),
            openings=sum(row.openings for row in rows),
            open_until=max((row.open_until for row in rows if row.open_until), default=None),
        )


@dataclass(frozen=True, slots=True)
class RecentLoad:
    """The last hour. `minutes`: all of them, oldest first; the one that still runs is only in totals. `limits`: the rate limit of
    each channel that put messages back. `lanes`: by minute, the most tasks that waited in each lane."""

    minutes: Sequence[datetime]
    providers: Sequence[ProviderLoad]
    limits: Sequence[ProviderLoad]
    lanes: Mapping[datetime, Mapping[str, int]]


def record(services: Services, recorder: MinuteRecorder = MINUTES) -> None:
    """Store what this process has collected. Raises `LedgerUnavailable`; what it could not store is lost, but while the ledger is
    away, nothing is sent."""
    if rows := recorder.take():
        with lend(services.pool, WAIT_SECONDS_MAX) as connection:
            load_samples.add(connection, rows)


def record_lanes(services: Services) -> None:
    """Store how many tasks wait in each lane, and delete what is older than a day. Raises `LedgerUnavailable`."""
    now, tasks = services.clock(), dict[str, int]()
    try:
        if services.watched.broker_url:
            tasks = {lane: waiting.tasks for lane, waiting in backlog(services.watched.broker_url).items()}
    except BrokerUnavailable as error:
        log.warning("the lanes cannot be looked at", fault=str(error))
    with lend(services.pool) as connection:
        load_samples.note_lanes(connection, _minute(now), tasks)
        load_samples.prune(connection, now - KEPT)


def last_hour(services: Services) -> RecentLoad:
    """The load of the last hour. Raises `LedgerUnavailable`."""
    end = _minute(services.clock())
    minutes = [end - timedelta(minutes=number) for number in range(MINUTES_SHOWN, 0, -1)]
    with lend(services.pool) as connection:
        rows = load_samples.providers_since(connection, minutes[0])
        lane_rows = load_samples.lanes_since(connection, minutes[0])
    loads = [
        ProviderLoad(provider, channel, {row.minute: row for row in found})
        for (channel, provider), found in groupby(rows, lambda row: (row.channel, row.provider))
    ]
    return RecentLoad(
        minutes,
        providers=[load for load in loads if load.provider != OF_CHANNEL],
        limits=[load for load in loads if load.provider == OF_CHANNEL],
        lanes=_by_minute([row for row in lane_rows if row.minute < end]),
    )


def _by_minute(rows: Sequence[LaneMinute]) -> dict[datetime, dict[str, int]]:
    tasks: dict[datetime, dict[str, int]] = {}
    for row in rows:
        tasks.setdefault(row.minute, {})[row.lane] = row.tasks_max
    return tasks


def quantile(answers: Sequence[int], share: float) -> float | None:
    """The time in seconds within which this share of the answers came, estimated within its bucket; None without answers.

    Times beyond the last bound count as that bound.
    """
    rank = share * sum(answers)
    if not rank:
        return None
    before, low = 0, 0.0
    for count, high in zip(answers, (*QUICK, QUICK[-1]), strict=True):
        if count and before + count >= rank:
            return low + (high - low) * (rank - before) / count
        before, low = before + count, high
    return low


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
