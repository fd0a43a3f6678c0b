"""Counters and histograms of this process, collected in memory and handed to prometheus_client once a second at most.

The hot path adds to a dictionary, once per batch. In commands nothing is handed on, and prometheus_client is not imported.

A worker's processes share a folder: each child writes its own files there, and the worker's parent adds them up when it is scraped
(the multiprocess mode of prometheus_client). Beat and the web application serve their own process.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from channels.measurements import set_observer
from dispatcher.runtime.metric_families import (
    FAMILIES,
    OTHER,
    POOL_CONNECTIONS,
    POOL_LIMIT,
    POOL_REQUESTS,
    POOL_WAIT,
    PROVIDER_RESULTS,
    PROVIDER_SECONDS,
    RATE_LIMIT_WAIT,
    RATE_LIMITED,
    Family,
    label_values,
)
from dispatcher.runtime.minute_recorder import MINUTES, MinuteRecorder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

PREFIX = "dispatcher_"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FLUSH_SECONDS = 1.0
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = structlog.get_logger()
_Key = tuple[Family, tuple[str, ...]]


class Recorder:
    """Collects counts and times. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, float] = {}
        self._gauges: dict[_Key, float] = {}
        self._times: dict[_Key, list[float]] = {}  # a count per bucket, the last one for +Inf, then the sum
        self._sink: dict[Family, Any] | None = None
        self._flushed_at = 0.0

    def count(self, family: Family, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter. `labels` in the order of the family."""
        with self._lock:
            key = (family, labels)
            self._counts[key] = self._counts.get(key, 0) + number

    def count_all(self, family: Family, numbers: Mapping[tuple[str, ...], float]) -> None:
        """Add to the counters of several labels."""
        with self._lock:
            for labels, number in numbers.items():
                key = (family, labels)
                self._counts[key] = self._counts.get(key, 0) + number

    def observe(self, family: Family, seconds: Iterable[float], labels: tuple[str, ...] = ()) -> None:
        """Add times to a histogram."""
        with self._lock:
            key, bounds = (family, labels), family.buckets
            row = self._times.get(key) or self._times.setdefault(key, [0.0] * (len(bounds) + 2))
            for each in seconds:
                row[bisect_left(bounds, each)] += 1
                row[-1] += each

    def set_gauge(self, family: Family, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[family, labels] = value

    def attach(self, sink: dict[Family, Any]) -> None:
        """Hand everything on to these metrics of prometheus_client, from now on."""
        self._sink = sink

    def flush(self, *, now: bool = False) -> None:
        """Hand on what was collected, if the last time was a second ago, or `now`."""
        sink, moment = self._sink, time.monotonic()
        if sink is None or (not now and moment - self._flushed_at < FLUSH_SECONDS):
            return
        with self._lock:
            self._flushed_at = moment
            counts, times, gauges = self._counts, self._times, self._gauges
            self._counts, self._times, self._gauges = {}, {}, {}
        for (family, labels), number in counts.items():
            _child(sink, family, labels).inc(number)
        for (family, labels), value in gauges.items():
            _child(sink, family, labels).set(value)
        for (family, labels), row in times.items():
            _child(sink, family, labels).add(row)

    def collected(self, family: Family) -> dict[tuple[str, ...], float]:
        """What was collected of a family and not handed on: numbers, or how many times. For tests."""
        with self._lock:
            if family.buckets:
                return {labels: sum(row[:-1]) for (each, labels), row in self._times.items() if each is family}
            values = self._gauges if family.is_gauge else self._counts
            return {labels: value for (each, labels), value in values.items() if each is family}


def _child(sink: dict[Family, Any], family: Family, labels: Sequence[str]) -> Any:
    """The series of these labels. A value outside the closed set becomes `other`."""
    metric = sink[family]
    if not family.labels:
        return metric
    names = family.labels
    return metric.labels(
        *(str(each) if each in label_values(family, name) else OTHER for name, each in zip(names, labels, strict=True))
    )


RECORDER = Recorder()


# -- what channels and the pool report ---------------------------------------------------------------------------------


class ChannelObserver:
    """Records what channels measure, as metrics and by the minute."""

    def __init__(self, minutes: MinuteRecorder = MINUTES) -> None:
        self._minutes = minutes

    def batch_sent(self, provider: str, channel: str, results: Mapping[str, int], seconds: Sequence[float]) -> None:
        """See `channels.measurements.Observer`."""
        self._minutes.add_batch(provider, channel, results, seconds)
        RECORDER.count_all(PROVIDER_RESULTS, {(provider, channel, result): number for result, number in results.items()})
        RECORDER.observe(PROVIDER_SECONDS, seconds, (provider, channel))

    def rate_limited(self, channel: str, messages: int, seconds_max: float) -> None:
        """See `channels.measurements.Observer`."""
        self._minutes.add_put_back(channel, messages, seconds_max)
        RECORDER.count(RATE_LIMITED, messages, (channel,))
        RECORDER.observe(RATE_LIMIT_WAIT, (seconds_max,), (channel,))

    def breaker_opened(self, provider: str, channel: str, seconds: float) -> None:
        """See `channels.measurements.Observer`."""
        self._minutes.add_opening(provider, channel, seconds)


set_observer(ChannelObserver())


def record_pool(statistics: Mapping[str, int]) -> None:
    """Record the statistics of a pool, since the last time (`ConnectionPool.pop_stats`)."""
    RECORDER.count(POOL_REQUESTS, statistics.get("requests_num", 0))
    RECORDER.count(POOL_WAIT, statistics.get("requests_wait_ms", 0) / 1000)
    RECORDER.set_gauge(POOL_CONNECTIONS, statistics.get("pool_size", 0))
    RECORDER.set_gauge(POOL_LIMIT, statistics.get("pool_max", 0))


# -- serving -----------------------------------------------------------------------------------------------------------


def start_in_process() -> CollectorRegistry:
    """Hand the metrics of this process on to a registry of their own; returns it. Where PROMETHEUS_MULTIPROC_DIR is set, as for
    several web processes, the registry adds up all processes of that folder."""
    from prometheus_client import CollectorRegistry, disable_created_metrics

    disable_created_metrics()  # they double the number of series, and nothing reads them
    registry, folder = CollectorRegistry(), os.environ.get(FOLDER_VARIABLE)
    if folder is not None:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _add_folder(registry, Path(folder))
    RECORDER.attach(_metrics(None if folder is not None else registry))
    return registry


def start_group(folder: Path) -> CollectorRegistry:
    """Start the metrics of a worker, before it forks: its children write into `folder`, which is emptied. Returns the registry that
    adds them up.

    prometheus_client chooses its mode when it is imported, and Celery's command line has imported it already, with Flower's plugin.
    """
    from prometheus_client import values

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ[FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue()
    return start_in_process()


def serve(registry: CollectorRegistry, port: int, address: str = "127.0.0.1") -> Any:
    """Serve `/metrics` on a port, in a thread; returns the server. Raises `OSError` where the port is taken."""
    from prometheus_client import start_http_server

    server, _thread = start_http_server(port, address, registry)
    return server


def exposition(registry: CollectorRegistry) -> str:
    """The metrics of a registry in the text format of Prometheus."""
    from prometheus_client import generate_latest

    RECORDER.flush(now=True)
    return generate_latest(registry).decode()


def _add_folder(registry: CollectorRegistry, folder: Path) -> None:
    """Let the registry add up the files of a folder. Before each scrape, gauges of processes that have ended are removed."""
    from prometheus_client.multiprocess import MultiProcessCollector

    class Collector(MultiProcessCollector):
        def collect(self) -> Any:
            forget_ended(folder)
            return super().collect()

    Collector(registry, str(folder))


def forget_ended(folder: Path) -> None:
    """Remove the gauges of processes that have ended. Their counters stay: a counter must not go back."""
    for file in folder.glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            file.unlink(missing_ok=True)


def _metrics(registry: CollectorRegistry | None) -> dict[Family, Any]:
    """The metrics of prometheus_client. With None, they are in no registry: the files of the folder have their values."""
    from prometheus_client import Counter, Gauge, Histogram

    class BatchHistogram(Histogram):
        """A histogram that takes many times at once."""

        def add(self, row: Sequence[float]) -> None:
            """Add a count for each bucket, and the sum, which is last."""
            self._raise_if_not_observable()
            for bucket, number in zip(self._buckets, row, strict=False):
                if number:
                    bucket.inc(number)
            self._sum.inc(row[-1])

    def make(family: Family) -> Any:
        name, labels = PREFIX + family.name, tuple(family.labels)
        if family.buckets:
            return BatchHistogram(name, family.help, labels, buckets=family.buckets, registry=registry)
        if family.is_gauge:
            return Gauge(name, family.help, labels, multiprocess_mode="livesum", registry=registry)
        return Counter(name, family.help, labels, registry=registry)

    return {family: make(family) for family in FAMILIES}
