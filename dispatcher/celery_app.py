"""The Celery application: its broker, the base of its tasks, the services of a worker process, and its logs.

Importing this module starts nothing. The embedded broker starts with the first connection.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.signals import (
    beat_init,
    before_task_publish,
    celeryd_after_setup,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from celeryconfig import CAMPAIGN_FIRST, IS_RABBITMQ
from dispatcher import broker_transport
from dispatcher.broker_messages import HIDDEN, PUBLISHED_AT, RecordedRequest
from dispatcher.campaigns import scheduler
from dispatcher.domain.broker_url import BadBrokerUrl, common_spelling
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable, PolicyNotInForce, TaskTimeLimit, WorkerDraining
from dispatcher.maintenance import heartbeats, recent_load
from dispatcher.maintenance.policy_in_force import PolicyWatch
from dispatcher.runtime import bootstrap, drain, metrics, tracing
from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.metric_families import OTHER, TASK_SECONDS, TASK_WAIT, TASKS, TASKS_PUBLISHED, lane_by_task
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import COLLECT_AFTER, Services

# While the ledger is unavailable, a task waits 1, 2, 4, 4 … seconds in its process and then goes back to the broker. So an outage
# neither drains the lanes nor fills the log. Far below the task limits, and short enough for a warm shutdown.
PAUSE_SECONDS_MAX = 4.0
AWAY = "the ledger is unavailable"

log = structlog.get_logger()


class DispatcherCelery(Celery):
    """Celery with the embedded broker where `celeryconfig` names none: its URL is known once it runs, so a connection starts it."""

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A connection for consumers."""
        self._choose_broker()
        return super().connection_for_read(url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """A connection for publishers; every other way to get a connection calls this one or the one above."""
        self._choose_broker()
        return super().connection_for_write(url, **options)

    def _choose_broker(self) -> None:
        if not self.conf.broker_url:
            self.conf.broker_url = bootstrap.broker_url()


class DispatcherTask(Task):
    """A task that waits while the ledger is unavailable, and whose time limit no `except Exception` catches."""

    abstract = True
    Request = RecordedRequest
    is_periodic = False  # beat repeats a periodic task anyway: without a ledger it ends
    needs_policy = False  # it decides or deletes by the policy: it runs only while this process has the one in force

    def __call__(self, /, *arguments: Any, **options: Any) -> Any:
        """Run the task. Celery's own `__call__` would replace the request that the worker has set."""
        try:
            if drain.is_draining():  # the worker had fetched it before
                raise WorkerDraining
            with _time_limit():
                if self.needs_policy:
                    _policy_watch().require(services())
                result = self.run(*arguments, **options)
        except TaskTimeLimit:
            raise SoftTimeLimitExceeded from None
        except WorkerDraining:
            if self.is_periodic:
                raise Ignore from None
            log.info("the worker stops; the task goes back to the broker", task=self.name)
            with suppress(LedgerUnavailable):
                scheduler.give_back(services())
            raise Reject("the worker stops", requeue=True) from None
        except (LedgerUnavailable, PolicyNotInForce) as error:
            is_away = isinstance(error, LedgerUnavailable) and not isinstance(error, KeyMismatch)
            reason = AWAY if is_away else str(error)
            if self.is_periodic:
                log.warning(reason, task=self.name)
                raise Ignore from None
            _outage.wait(self.name, reason)
            raise Reject(reason, requeue=True) from None
        _outage.failures = 0
        return result


class Outage:
    """How often in a row this process could not work, and how long to wait."""

    failures = 0

    def wait(self, task: str, reason: str) -> None:
        """Wait before the message goes back to the broker, each time twice as long."""
        seconds = min(PAUSE_SECONDS_MAX, 2.0**self.failures)
        self.failures += 1
        log.warning(f"{reason}; the task goes back to the broker", task=task, seconds=seconds)
        time.sleep(seconds)


_outage = Outage()


def _policy_watch() -> PolicyWatch:
    if not hasattr(_per_thread, "policy_watch"):
        _per_thread.policy_watch = PolicyWatch()
    watch: PolicyWatch = _per_thread.policy_watch
    return watch


@contextmanager
def _time_limit() -> Iterator[None]:
    """Turn the signal of the soft time limit into `TaskTimeLimit`. Installed for each task: billiard sets its own handler after the
    process initialiser has run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, _raise_time_limit)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _raise_time_limit(_number: int, _frame: FrameType | None) -> None:
    raise TaskTimeLimit


broker_transport.install()
app = DispatcherCelery("dispatcher", task_cls=DispatcherTask)
app.config_from_object("celeryconfig")
if app.conf.broker_url:
    with suppress(BadBrokerUrl):  # the settings report it
        app.conf.broker_url = common_spelling(app.conf.broker_url)


@celeryd_after_setup.connect
def _take_from_both_queues(**_: object) -> None:
    """On RabbitMQ the lane `campaign` has two queues. Without priorities, what goes first would wait behind all other chunks."""
    if IS_RABBITMQ and "campaign" in app.amqp.queues.consume_from:
        app.amqp.queues.select_add(app.amqp.queues[CAMPAIGN_FIRST])


class RedactedTask(DispatcherTask):
    """A task whose arguments hold personal data."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish without a readable copy of the arguments in the headers of the message."""
        return super().apply_async(args, kwargs, **{"argsrepr": HIDDEN, "kwargsrepr": HIDDEN, **options})


# -- services, once per process ----------------------------------------------------------------------------------------

_per_thread = threading.local()
_prepared: list[Future[Services]] = []  # in a worker's child: one, which a thread fills and the main thread takes


def services() -> Services:
    """The services of this process, with the present templates. Made at first use: database connections cannot cross a fork."""
    if not hasattr(_per_thread, "services"):
        _per_thread.services = _prepared_services() or bootstrap.services(patient=True)
        CurrentWork.services = _per_thread.services
    container: Services = _per_thread.services
    return container.current()


def _prepared_services() -> Services | None:
    """The services that a thread prepared for the main thread; None where that failed, for example without a ledger."""
    if _prepared and threading.current_thread() is threading.main_thread():
        with suppress(Exception):
            return _prepared.pop().result()
    return None


@worker_init.connect
@beat_init.connect
def _check_configuration(**_: object) -> None:
    """Report all configuration errors and do not start. Without this check, each task would fail. An unavailable ledger is waited
    for.
    """
    try:
        config, *_rest = bootstrap.examine()
        bootstrap.check_ledger_keys(config)
    except bootstrap.CONFIGURATION_ERRORS as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    except LedgerUnavailable:
        log.warning(AWAY)


@worker_process_init.connect
def _prepare_services(**_: object) -> None:
    """Make the services in a thread. The worker kills a child that does not report in time (`worker_proc_alive_timeout`). The child
    reports after this function, and on a busy machine, at low priority, connections and SDKs take longer than that."""
    if _metrics_server:  # it is the parent's: a child that outlives its parent must not hold the port
        _metrics_server[0].socket.close()
    bootstrap.start_traces()  # here, not in the thread: the first task is traced too
    _prepared.append(Future())
    threading.Thread(target=_make_services, args=_prepared, name="services", daemon=True).start()
    threading.Thread(target=_send_heartbeats, name="heartbeats", daemon=True).start()


def _make_services(prepared: Future[Services]) -> None:
    """Make the services, and exclude them from garbage collection: each pass over templates and SDKs takes 0.1 s and delays a
    trigger. Tasks create hardly any reference cycles, so the collector runs rarely."""
    try:
        made = bootstrap.services(patient=True)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        prepared.set_result(made)
    except BaseException as error:
        prepared.set_exception(error)


# -- drain -------------------------------------------------------------------------------------------------------------


@worker_ready.connect
def _drain_on_quit(**_: object) -> None:
    """Drain before Celery waits for running tasks: after SIGQUIT it sends the signal below only when it has waited."""
    celery_handler, parent = signal.getsignal(signal.SIGQUIT), os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == parent:  # a child that is forked later inherits this handler
            drain.begin()
        if callable(celery_handler):
            celery_handler(number, frame)

    signal.signal(signal.SIGQUIT, handle)


@worker_shutting_down.connect
def _begin_to_drain(**_: object) -> None:
    """The parent got SIGTERM or Ctrl-C."""
    drain.begin()


# -- heartbeats --------------------------------------------------------------------------------------------------------


class CurrentWork:
    """What the main thread of this process works on: the lane of its task, and the services that it has."""

    lane: str | None = None
    services: Services | None = None


def _send_heartbeats() -> None:
    """Store a heartbeat for the lane of a long task, since the tasks that beat sends for that wait behind it; and what the
    providers did since the last time."""
    while True:
        time.sleep(heartbeats.HEARTBEAT_SECONDS)
        made, lane = CurrentWork.services, CurrentWork.lane
        if made is not None:
            with suppress(LedgerUnavailable):
                if lane is not None:
                    heartbeats.record(made, lane)
                recent_load.record(made)


@worker_shutdown.connect
def _forget_lanes(**_: object) -> None:
    """What is stopped on purpose is no standstill; another worker of the lane sends its next heartbeat soon."""
    bootstrap.end_heartbeats(list(app.amqp.queues.consume_from))


@beat_init.connect
def _forget_beat_at_end(**_: object) -> None:
    atexit.register(bootstrap.end_heartbeats, [heartbeats.BEAT])


@worker_process_shutdown.connect
def _flush(**_: object) -> None:
    """Store the last measurements and export the last spans: a child of a worker ends without the functions of `atexit`."""
    if CurrentWork.services is not None:
        with suppress(LedgerUnavailable):
            recent_load.record(CurrentWork.services)
    tracing.flush()


# -- metrics -----------------------------------------------------------------------------------------------------------

_metrics_server: list[Any] = []
_STATES = {"SUCCESS": "succeeded", "FAILURE": "failed"}  # all others run again


@worker_init.connect
def _serve_worker_metrics(sender: Any = None, **_: object) -> None:
    """Serve the metrics of all processes of this worker from its parent, where a port is set."""
    config = bootstrap.settings()
    if config.metrics_port:
        name = re.sub(r"[^\w.-]", "_", str(getattr(sender, "hostname", None) or "worker").partition("@")[0])
        _serve_metrics(metrics.start_group(config.home / "metrics" / name))


@beat_init.connect
def _serve_beat_metrics(**_: object) -> None:
    if bootstrap.settings().metrics_port:
        _serve_metrics(metrics.start_in_process())


def _serve_metrics(registry: Any) -> None:
    """A port that is taken is no reason not to send: the error is in the log, and Prometheus reports a target that is down."""
    config = bootstrap.settings()
    try:
        _metrics_server.append(metrics.serve(registry, config.metrics_port, config.metrics_host))
    except OSError as error:
        log.error("metrics are not served: the port cannot be used", port=config.metrics_port, error=error.strerror)


@before_task_publish.connect
def _on_publish(sender: str | None = None, headers: Any = None, **_: object) -> None:
    """Write the time into the message, for the age of a lane, and count it."""
    if isinstance(headers, dict):
        headers.setdefault(PUBLISHED_AT, time.time())
    RECORDER.count(TASKS_PUBLISHED, labels=(str(sender),))
    RECORDER.flush()


@task_prerun.connect
def _on_start(task: Task, **_: object) -> None:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(task=task.name, task_id=task.request.id)
    _per_thread.started_at = time.monotonic()
    CurrentWork.lane = lane_by_task().get(task.name)
    published_at = getattr(task.request, PUBLISHED_AT, None)
    if isinstance(published_at, int | float):
        RECORDER.observe(TASK_WAIT, (max(0.0, time.time() - published_at),), (task.name,))


@task_postrun.connect
def _on_end(task: Task, state: str | None = None, **_: object) -> None:
    CurrentWork.lane = None
    seconds = time.monotonic() - getattr(_per_thread, "started_at", time.monotonic())
    RECORDER.count(TASKS, labels=(task.name, lane_by_task().get(task.name, OTHER), _STATES.get(state or "", "retried")))
    RECORDER.observe(TASK_SECONDS, (seconds,), (task.name,))
    if hasattr(_per_thread, "services"):
        metrics.record_pool(_per_thread.services.pool.pop_stats())
    RECORDER.flush(now=True)  # the next task may be hours away
    structlog.contextvars.clear_contextvars()


@setup_logging.connect
def _set_up_logs(**_: object) -> None:
    configure_logs()
    logging.getLogger("celery.app.trace").addFilter(_is_not_reject)


def _is_not_reject(record: logging.LogRecord) -> bool:
    """False for the traceback that Celery logs for a rejected task: the task has logged the reason."""
    return not (isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], Reject))
