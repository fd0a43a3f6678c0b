"""The metrics: the name, meaning and value of each. Counts only: no names of people, campaigns or addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from channels.base import Channel
from dispatcher.events import event_sinks
from dispatcher.inbound.provider_events import UNMATCHED
from dispatcher.ledger.connection import lend
from dispatcher.ledger.events.endpoint_cursors import EndpointCounts
from dispatcher.ledger.events.sink_cursors import EventSinkCounts
from dispatcher.ledger.maintenance import metrics
from dispatcher.ledger.maintenance.metrics import Metrics
from dispatcher.maintenance.standstills import Standstill, SystemState, examine
from dispatcher.maintenance.surroundings import Surroundings
from dispatcher.runtime.services import Services

__all__ = ["GAUGES", "OUTSIDE_GAUGES", "STATE_GAUGES", "Gauge", "Metrics", "OutsideGauge", "Sample", "collect", "families", "ping"]

Sample = tuple[Mapping[str, str], float]  # labels and value


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric. The public name has the prefix `dispatcher_`. Labels are values of our own enums and ids of endpoints."""

    name: str
    help: str
    samples: Callable[[Metrics], Sequence[Sample]]
    labels: tuple[str, ...] = ()


def collect(services: Services) -> Metrics:
    """Count campaigns, chunks, messages and events."""
    with lend(services.pool) as connection:
        return _configured(services, metrics.metrics(connection, services.clock()))


def _configured(services: Services, counts: Metrics) -> Metrics:
    """Without sinks that this process does not know."""
    configured = event_sinks.configured(services)
    return replace(counts, sinks=tuple(sink for sink in counts.sinks if sink.id in configured))


def families(services: Services) -> Iterator[tuple[str, str, Sequence[Sample]]]:
    """Name, meaning and values of every gauge. While the ledger is away, only of what is around it."""
    state = examine(services)
    for outside in OUTSIDE_GAUGES:
        yield outside.name, outside.help, outside.samples(state.around)
    for gauge in STATE_GAUGES:
        yield gauge.name, gauge.help, gauge.samples(state)
    if state.counts is None:
        return
    counts = _configured(services, state.counts)
    for counted in GAUGES:
        yield counted.name, counted.help, counted.samples(counts)


def ping(services: Services, wait_seconds_max: float) -> None:
    """Return when the database answers. Raises `LedgerUnavailable` after so many seconds."""
    with lend(services.pool, wait_seconds_max) as connection:
        metrics.ping(connection)


def _number(name: str, meaning: str, value: Callable[[Metrics], float]) -> Gauge:
    return Gauge(name, meaning, lambda counts: [({}, value(counts))])


def _by_state(counts: Metrics) -> list[Sample]:
    return [({"state": state}, count) for state, count in counts.campaigns.items()]


def _oldest_event_age(counts: Metrics) -> list[Sample]:
    oldest = counts.oldest_unsettled_at
    return [({}, (counts.counted_at - oldest).total_seconds() if oldest else 0.0)]


def _outbox_age(counts: Metrics) -> list[Sample]:
    oldest = counts.outbox_oldest_at
    return [({}, max((counts.counted_at - oldest).total_seconds(), 0.0) if oldest else 0.0)]


def _lag_seconds(endpoint: EndpointCounts | EventSinkCounts, now: datetime) -> float:
    return max((now - endpoint.oldest_at).total_seconds(), 0.0) if endpoint.oldest_at else 0.0


def _by_endpoint(name: str, meaning: str, value: Callable[[EndpointCounts, datetime], float]) -> Gauge:
    return Gauge(
        name,
        meaning,
        lambda counts: [({"endpoint": each.id}, value(each, counts.counted_at)) for each in counts.endpoints],
        ("endpoint",),
    )


def _by_sink(name: str, meaning: str, value: Callable[[EventSinkCounts, datetime], float]) -> Gauge:
    return Gauge(
        name, meaning, lambda counts: [({"sink": each.id}, value(each, counts.counted_at)) for each in counts.sinks], ("sink",)
    )


def _idle_seconds(counts: Metrics) -> list[Sample]:
    since = counts.campaign_idle_since
    return [({}, max((counts.counted_at - since).total_seconds(), 0.0) if since else 0.0)]


def _partitions_end(counts: Metrics) -> list[Sample]:
    """The first moment that has no partition, as a Unix time."""
    if counts.partitions_until is None:
        return [({}, 0.0)]
    year, month = divmod(counts.partitions_until, 100)
    return [({}, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())]


def _alerts_by_known(counts: Metrics) -> list[Sample]:
    return [({"known": str(known).lower()}, sum(alert.known is known for alert in counts.alerts)) for known in (True, False)]


def _unmatched(counts: Metrics) -> int:
    return sum(alert.count for alert in counts.alerts if alert.code.startswith(UNMATCHED))


def _by_reason(counts: Metrics) -> list[Sample]:
    return [({"reason": reason}, count) for reason, count in counts.jobs_refused.items()]


def _stopped_by_channel(counts: Metrics) -> list[Sample]:
    stopped = {stop.channel for stop in counts.stops}
    return [({"channel": channel}, channel in stopped) for channel in Channel]


GAUGES = (
    Gauge("campaigns", "Campaigns by state.", _by_state, ("state",)),
    _number("chunks_open", "Chunks of campaigns and triggers that are not done.", lambda counts: counts.chunks_open),
    _number("messages_parked", "Messages held or waiting.", lambda counts: counts.messages_parked),
    _number(
        "messages_overdue",
        "Parked messages whose time has come; if they stay, beat is not running.",
        lambda counts: counts.messages_overdue,
    ),
    _number("events_unsettled", "Provider events not yet applied.", lambda counts: counts.events_unsettled),
    Gauge("events_unsettled_age_seconds", "Age of the oldest of them.", _oldest_event_age),
    _number(
        "events_unmatched",
        "Provider events that fit no message, person or address of ours, since their alerts began.",
        _unmatched,
    ),
    _number("outbox_rows", "Rows of the outbox that are not published yet.", lambda counts: counts.outbox_rows),
    Gauge("outbox_age_seconds", "Age of the oldest of them.", _outbox_age),
    _by_endpoint(
        "webhook_lag_events", "Events behind the end of the stream, by endpoint.", lambda endpoint, _: endpoint.lag_events
    ),
    _by_endpoint("webhook_lag_seconds", "Age of the oldest of them.", _lag_seconds),
    _by_endpoint("webhook_failing", "1 while the last attempt failed.", lambda endpoint, _: endpoint.is_failing),
    _by_endpoint("webhook_disabled", "1 for an endpoint that gets nothing.", lambda endpoint, _: endpoint.is_disabled),
    _by_endpoint("webhook_dead_ranges", "Ranges of events that could not be delivered.", lambda endpoint, _: endpoint.dead_ranges),
    _by_sink(
        "event_sink_lag_events", "Events behind the end of the stream, by sink: Kafka, files.", lambda sink, _: sink.lag_events
    ),
    _by_sink("event_sink_lag_seconds", "Age of the oldest of them; of files, a whole period is normal.", _lag_seconds),
    _by_sink("event_sink_failing", "1 while the last attempt failed.", lambda sink, _: sink.is_failing),
    _number("texts_waiting", "Inbound messages that wait for an operator.", lambda counts: counts.texts_waiting),
    _number("messages_unresolved", "Unresolved messages: they may have been sent.", lambda counts: counts.unresolved),
    Gauge("jobs_refused", "Refused Celery jobs that nobody mended or closed, by reason.", _by_reason, ("reason",)),
    Gauge(
        "provider_codes",
        "Providers' codes of the last week that need a person; an unknown one has no rule yet.",
        _alerts_by_known,
        ("known",),
    ),
    Gauge(
        "channel_stopped",
        "1 for a channel whose keys or settings are wrong: it sends nothing until a check passes.",
        _stopped_by_channel,
        ("channel",),
    ),
    Gauge(
        "campaign_idle_seconds",
        "Of the running campaigns with due chunks: how long nobody has worked on the one that has waited longest.",
        _idle_seconds,
    ),
    Gauge(
        "partitions_end_timestamp_seconds", "The first moment that has no partition: nothing can be written then.", _partitions_end
    ),
)


@dataclass(frozen=True, slots=True)
class OutsideGauge:
    """As `Gauge`, of what is around the ledger: it has values while the ledger is away."""

    name: str
    help: str
    samples: Callable[[Surroundings], Sequence[Sample]]
    labels: tuple[str, ...] = ()


OUTSIDE_GAUGES = (
    OutsideGauge(
        "engine_up",
        "1 while the database, the broker or the store beside it answers.",
        lambda around: [({"engine": name}, up) for name, up in around.engines.items()],
        ("engine",),
    ),
    OutsideGauge(
        "lane_tasks",
        "Tasks that wait on the broker, by lane.",
        lambda around: [({"lane": lane}, each.tasks) for lane, each in around.lanes.items()],
        ("lane",),
    ),
    OutsideGauge(
        "lane_age_seconds",
        "Age of the oldest of them; 0 where it is not known.",
        lambda around: [
            ({"lane": lane}, max(0.0, around.looked_at - each.oldest_at) if each.oldest_at else 0.0)
            for lane, each in around.lanes.items()
        ],
        ("lane",),
    ),
    OutsideGauge(
        "disk_size_bytes",
        "Size of the disk that has DISPATCHER_HOME.",
        lambda around: [({}, size) for size in _known(around.disk_size)],
    ),
    OutsideGauge("disk_free_bytes", "Free space of it.", lambda around: [({}, free) for free in _known(around.disk_free)]),
    OutsideGauge(
        "certificate_end_timestamp_seconds",
        "When a certificate of DISPATCHER_CERTIFICATES ends; 0 where the file cannot be read.",
        lambda around: [({"certificate": name}, end) for name, end in around.certificates.items()],
        ("certificate",),
    ),
)


def _known(number: int | None) -> list[int]:
    return [] if number is None else [number]


@dataclass(frozen=True, slots=True)
class StateGauge:
    """As `Gauge`, of what stands still."""

    name: str
    help: str
    samples: Callable[[SystemState], Sequence[Sample]]
    labels: tuple[str, ...] = ()


def _by_kind(state: SystemState) -> list[Sample]:
    kinds = Counter(finding.kind for finding in state.findings)
    return [({"kind": kind}, kinds[kind]) for kind in Standstill]


STATE_GAUGES = (
    StateGauge("standstill", "What stands still, by kind: 0 is good.", _by_kind, ("kind",)),
    StateGauge(
        "heartbeat_timestamp_seconds",
        "When beat and a worker of each lane last sent a heartbeat.",
        lambda state: [({"component": name}, heartbeat.seen_at.timestamp()) for name, heartbeat in state.heartbeats.items()],
        ("component",),
    ),
)
