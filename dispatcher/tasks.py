"""The Celery application and every task. Arguments are references, never personal data.

The exceptions are the two tasks that other systems call, `dispatcher.submit_campaign` and `dispatcher.trigger`: their arguments are
what those systems send. Workers hide them from events, and so from Flower, whoever published the task.

Importing this module starts nothing. The embedded broker starts with the first connection.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Any

import structlog
from celery import Celery, Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.signals import beat_init, setup_logging, worker_init, worker_process_init
from kombu.exceptions import ChannelError, OperationalError

from dispatcher.broker_messages import HIDDEN, KEEP_TASK, RedactedRequest
from dispatcher.campaigns import public_tasks, refused_jobs, scheduler, submission, whatsapp_templates
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.campaigns.scheduler import DueChunk, LaneDepths
from dispatcher.campaigns.submission import SubmitResult, SubmitStatus
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable, PolicyNotInForce
from dispatcher.events import publication, webhook_delivery
from dispatcher.inbound import provider_events
from dispatcher.intake.errors import BadInput
from dispatcher.maintenance import retention, sweep
from dispatcher.maintenance.policy_in_force import PolicyWatch
from dispatcher.runtime import bootstrap
from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.services import COLLECT_AFTER, Services

BROKER_FAULTS = (OperationalError,)  # what publishing raises when the broker cannot be reached
# While the ledger is unavailable, a task waits 1, 2, 4, 4 … seconds in its process and then goes back to the broker. So an outage
# neither drains the lanes nor fills the log. Far below the task limits, and short enough for a warm shutdown.
PAUSE_SECONDS_MAX = 4.0
AWAY = "the ledger is unavailable"
FIRST, LAST = 0, 9  # priorities on the broker
DELIVERY_EXPIRES_SECONDS = 5  # the next second puts another task on the lane, as long as something is due
STEPS_PER_LIMIT = 16  # a step of a load takes this part of the soft time limit

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


class TaskTimeLimit(BaseException):
    """The soft time limit. Not an `Exception`: the limit can hit at any line, and code that expects any error of a rule or of a
    template would take it for one, and refuse a message for good."""


class DispatcherTask(Task):
    """A task that waits while the ledger is unavailable, and whose time limit no `except Exception` catches."""

    abstract = True
    is_periodic = False  # beat repeats a periodic task anyway: without a ledger it ends
    needs_policy = False  # it decides or deletes by the policy: it runs only while this process has the one in force

    def __call__(self, /, *arguments: Any, **options: Any) -> Any:
        """Run the task. Celery's own `__call__` would replace the request that the worker has set."""
        try:
            with _time_limit():
                if self.needs_policy:
                    _policy_watch().require(services())
                result = self.run(*arguments, **options)
        except TaskTimeLimit:
            raise SoftTimeLimitExceeded from None
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


app = DispatcherCelery("dispatcher", task_cls=DispatcherTask)
app.config_from_object("celeryconfig")


class RedactedTask(DispatcherTask):
    """A task whose arguments hold personal data."""

    abstract = True
    Request = RedactedRequest

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish without a readable copy of the arguments in the headers of the message."""
        return super().apply_async(args, kwargs, **{"argsrepr": HIDDEN, "kwargsrepr": HIDDEN, **options})


# -- services, once per process ----------------------------------------------------------------------------------------

_per_thread = threading.local()
_prepared: list[Future[Services]] = []  # in a worker's child: one, which a thread fills and the main thread takes


def services() -> Services:
    """The services of this process, with the present templates. Made at first use: database connections cannot cross a fork."""
    if not hasattr(_per_thread, "services"):
        _per_thread.services = _prepared_services() or bootstrap.services()
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
    _prepared.append(Future())
    threading.Thread(target=_make_services, args=_prepared, name="services", daemon=True).start()


def _make_services(prepared: Future[Services]) -> None:
    """Make the services, and exclude them from garbage collection: each pass over templates and SDKs takes 0.1 s and delays a
    trigger. Tasks create hardly any reference cycles, so the collector runs rarely."""
    try:
        made = bootstrap.services()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        prepared.set_result(made)
    except BaseException as error:
        prepared.set_exception(error)


@setup_logging.connect
def _set_up_logs(**_: object) -> None:
    configure_logs()
    logging.getLogger("celery.app.trace").addFilter(_is_not_reject)


def _is_not_reject(record: logging.LogRecord) -> bool:
    """False for the traceback that Celery logs for a rejected task: the task has logged the reason."""
    return not (isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], Reject))


# -- publishing --------------------------------------------------------------------------------------------------------


def publish(dues: Iterable[DueChunk]) -> None:
    """Put chunks on the broker: those of campaigns on their lane by priority, triggers on the fast lane."""
    for due in dues:
        if due.priority is None:
            send_trigger.apply_async((due.period, due.number), priority=LAST if due.is_repeat else FIRST)
        else:
            first = due.is_first_of_campaign
            priority = LAST if due.is_repeat and not first else _broker_priority(due.priority, first)
            send_chunk.apply_async((due.period, due.number), priority=priority)


def lane_depths() -> LaneDepths:
    """How many messages wait in the lanes that repeats are put on."""
    try:
        with app.connection_or_acquire() as connection:
            return LaneDepths(*(_depth(connection, lane) for lane in ("campaign", "transactional")))
    except Exception as error:  # each broker's client has errors of its own
        log.warning("the depths of the lanes are unknown", fault=type(error).__name__)
        return LaneDepths()


def _depth(connection: Any, lane: str) -> int:
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(lane, passive=True).message_count)
    except ChannelError:  # Valkey has no key for an empty lane
        return 0


def _broker_priority(priority: int, is_first_of_campaign: bool) -> int:
    """Map a campaign's priority to a broker priority (both 0-9).

    Campaigns of priority 2n and 2n+1 use 2n for their first chunk and 2n+1 for all others.
    """
    return priority // 2 * 2 + (not is_first_of_campaign)


def _is_first_of_campaign(task: Task) -> bool:
    broker_priority = (task.request.delivery_info or {}).get("priority")
    return broker_priority is not None and broker_priority % 2 == 0


def publish_load(number: int) -> None:
    """Put the next step of a campaign's audience on the broker."""
    load_audience.apply_async((number,))


def publish_events() -> None:
    """Put a task on the inbound lane that applies provider events."""
    settle_events.apply_async()


# -- what other systems call -------------------------------------------------------------------------------------------


@app.task(name="dispatcher.submit_campaign", bind=True, base=RedactedTask, throws=(BadInput,), needs_policy=True, typing=False)
def submit_campaign(task: Task, /, *arguments: Any, **fields: Any) -> None:
    """Accept a campaign: the fields of a campaign file, its audience inline or as a file in DISPATCHER_AUDIENCES."""
    call = TaskCall(task.name, arguments, fields)
    campaign_id, result = public_tasks.accept_campaign(services(), call, _step_seconds(), _is_redelivered(task))
    log.info("campaign submitted", campaign=campaign_id, status=result.status, audience=result.audience)
    if result.status is SubmitStatus.LOADING and result.load is None:  # only this message has the rows; sealed, if it is
        submit_campaign.apply_async(arguments, fields, countdown=1)
    else:
        _after_step(result)


def _is_redelivered(task: Task) -> bool:
    """Whether the broker delivers this message again: the worker that had it was lost."""
    return bool((task.request.delivery_info or {}).get("redelivered"))


def _step_seconds() -> float:
    """How long a task loads an audience before it leaves the rest to the next one: 30 s of the 480 s that Celery allows."""
    return float(app.conf.task_soft_time_limit) / STEPS_PER_LIMIT


def _after_step(result: SubmitResult) -> None:
    """Put the next step on the broker, or what is due once the audience is complete."""
    if result.status is SubmitStatus.LOADING and result.load is not None:
        publish_load(result.load)
    elif result.status is not SubmitStatus.LOADING:
        publish(scheduler.due_chunks(services()))


@app.task(name="dispatcher.trigger", bind=True, base=RedactedTask, throws=(BadInput,), needs_policy=True, typing=False)
def trigger(task: Task, /, *arguments: Any, **fields: Any) -> None:
    """Accept one job and send it at once: {"key", "recipient", "template", "data"} and, optional, "channels", "send_at",
    "expires_at", "fallback_after_seconds"."""
    place = public_tasks.accept_trigger(services(), TaskCall(task.name, arguments, fields))
    if submission.is_due(services(), place):
        run_chunk(services(), place.period, place.chunk)


# -- internal tasks ----------------------------------------------------------------------------------------------------


@app.task(name="dispatcher.load_audience", bind=True, throws=(BadInput,), needs_policy=True)
def load_audience(task: Task, number: int, is_stalled: bool = False) -> None:
    """Go on with the audience of a campaign, from its file. A lost step is found again by the sweep, which marks the load as worked
    on: so `is_stalled` says that nobody does."""
    result = public_tasks.load_some(services(), number, _step_seconds(), is_stalled or _is_redelivered(task))
    log.info("audience", campaign=number, status=result.status, audience=result.audience)
    _after_step(result)


@app.task(name="dispatcher.send_chunk", bind=True, needs_policy=True)
def send_chunk(task: Task, period: int, number: int) -> None:
    """Work on a campaign's chunk, then publish the campaign's next one. A chunk whose message is lost is published again."""
    if _is_superfluous(task, period, number):
        return
    chunk = run_chunk(services(), period, number)
    if chunk is not None:
        publish(replace(due, is_first_of_campaign=_is_first_of_campaign(task)) for due in scheduler.next_chunk(services(), chunk))


def _is_superfluous(task: Task, period: int, number: int) -> bool:
    """Whether the chunk is done, or another worker has it. Never where the broker repeats a delivery: its worker was lost."""
    return not _is_redelivered(task) and scheduler.needs_no_work(services(), period, number)


@app.task(name="dispatcher.send_trigger", bind=True, needs_policy=True)
def send_trigger(task: Task, period: int, number: int) -> None:
    """Work on a trigger that is already in the ledger."""
    if _is_superfluous(task, period, number):
        return
    run_chunk(services(), period, number)


@app.task(name="dispatcher.settle_events")
def settle_events() -> None:
    """Apply the stored provider events."""
    provider_events.mark_apply_task_started(services())
    _apply_all_events()


def _apply_all_events() -> None:
    while provider_events.apply_batch(services(), publish):
        pass


@app.task(name=KEEP_TASK)
def keep_refused_job(job: Mapping[str, Any]) -> None:
    """Record a broker message that no task could be called with."""
    refused_jobs.record(services(), refused_jobs.from_json(job))


@app.task(name="dispatcher.release_due", is_periodic=True)
def release_due() -> None:
    """Every second: start what is due."""
    publish(scheduler.due_chunks(services(), lane_depths()))


@app.task(name="dispatcher.publish_events", is_periodic=True)
def publish_outbox() -> None:
    """Every second: publish what waits in the outbox; start deliveries to event endpoints where something is due."""
    publication.publish(services())
    if webhook_delivery.is_due(services()):
        deliver_webhooks.apply_async(expires=DELIVERY_EXPIRES_SECONDS)


@app.task(name="dispatcher.deliver_webhooks", is_periodic=True)
def deliver_webhooks() -> None:
    """Deliver events to event endpoints, for half a minute at most: the next task goes on."""
    webhook_delivery.deliver(services())


@app.task(name="dispatcher.ask_providers", is_periodic=True)
def ask_providers() -> None:
    """Every 8 s: look up unresolved messages at their providers."""
    if reconciliation.ask_some(services()):
        _apply_all_events()


@app.task(name="dispatcher.poll_whatsapp_templates", is_periodic=True)
def poll_whatsapp_templates() -> None:
    """Every 10 s: see whether WhatsApp's decisions have to be fetched; at most once a minute they are."""
    whatsapp_templates.poll(services())


@beat_init.connect
def _poll_at_start(**_: object) -> None:
    """Do not wait 10 s for the first time: the sandbox approves no text before it is pushed."""
    with suppress(*BROKER_FAULTS):
        poll_whatsapp_templates.apply_async(expires=20, retry=False)


@app.task(name="dispatcher.sweep", is_periodic=True)
def run_sweep() -> None:
    """Every 5 s: run the sweep (see `maintenance/sweep.py`), continue stalled loads, and apply provider events whose task was
    lost."""
    sweep.sweep(services())
    for number in submission.take_stalled(services()):
        load_audience.apply_async((number, True))
    _apply_all_events()


@app.task(name="dispatcher.retain", is_periodic=True, needs_policy=True)
def retain() -> None:
    """Every hour: delete data whose retention period is over."""
    for result in retention.clear(services()):
        if result.cleared:
            log.info("retention", policy_key=result.data.policy_key, what=result.data.what, cleared=result.cleared)
