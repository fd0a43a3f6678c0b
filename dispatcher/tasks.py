"""The Celery application and every task. Arguments are references, never personal data.

The exceptions are the two tasks that other systems call, `dispatcher.submit_campaign` and `dispatcher.trigger`: their arguments are
what those systems send. Workers hide them from events, and so from Flower, whoever published the task.

Importing this module starts nothing. The embedded broker starts with the first connection.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

import structlog
from celery import Celery, Task
from celery.signals import setup_logging, worker_init, worker_process_init
from celery.worker.request import Request
from kombu.exceptions import OperationalError

from dispatcher.campaigns import scheduler, submission
from dispatcher.campaigns.scheduler import DueChunk
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.maintenance import retention, sweep
from dispatcher.runtime import bootstrap
from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.services import COLLECT_AFTER, Services

BROKER_FAULTS = (OperationalError,)  # what publishing raises when the broker cannot be reached
HIDDEN = "(kept out of events)"
RETRY_SECONDS = 2.0  # before a task tries again whose ledger is away; far below the broker's visibility timeout

log = structlog.get_logger()
Body = TypeVar("Body", bound=Callable[..., Any])


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


app = DispatcherCelery("dispatcher")
app.config_from_object("celeryconfig")


class RedactedRequest(Request):
    """A request whose events, logs and repr show no arguments."""

    @property
    def argsrepr(self) -> str:
        """What Flower shows as arguments."""
        return HIDDEN

    @property
    def kwargsrepr(self) -> str:
        """What Flower shows as keyword arguments."""
        return HIDDEN


class RedactedTask(Task):
    """A task whose arguments hold personal data."""

    Request = RedactedRequest

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish without a readable copy of the arguments in the headers of the message."""
        return super().apply_async(args, kwargs, **{"argsrepr": HIDDEN, "kwargsrepr": HIDDEN, **options})


# -- services, once per process ----------------------------------------------------------------------------------------

_per_thread = threading.local()


def services() -> Services:
    """The services of this process, made at first use: database connections cannot cross a fork."""
    if not hasattr(_per_thread, "services"):
        _per_thread.services = bootstrap.services()
    container: Services = _per_thread.services
    return container


@worker_init.connect
def _check_configuration(**_: object) -> None:
    """Name everything that is wrong at once and do not start, instead of failing task after task."""
    try:
        bootstrap.examine()
    except bootstrap.UNFIT as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


@worker_process_init.connect
def _make_services(**_: object) -> None:
    """Make the services, and exclude them from garbage collection: each walk over templates and SDKs takes 0.1 s, which delays a
    trigger. The objects of a task have hardly any cycles, so the collector runs rarely."""
    services()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


@setup_logging.connect
def _set_up_logs(**_: object) -> None:
    configure_logs()


# -- publishing --------------------------------------------------------------------------------------------------------


def publish(dues: Iterable[DueChunk]) -> None:
    """Put chunks on the broker: those of campaigns on their lane by priority, triggers on the fast lane."""
    for due in dues:
        if due.priority is None:
            send_trigger.apply_async((due.period, due.number))
        else:
            send_chunk.apply_async((due.period, due.number), priority=_level(due.priority, due.ahead))


def _level(priority: int, ahead: bool) -> int:
    """One of the broker's ten priorities: two neighbours of ours share a pair, and within a pair what is ahead goes first."""
    return priority // 2 * 2 + (not ahead)


def _is_ahead(task: Task) -> bool:
    level = (task.request.delivery_info or {}).get("priority")
    return level is not None and level % 2 == 0


def publish_events() -> None:
    """Put a task on the inbound lane that applies provider events."""
    settle_events.apply_async()


def retry_while_unavailable(body: Body) -> Body:
    """Try again without limit while the ledger is away, because the job exists only on the broker."""

    @wraps(body)
    def run(task: Task, *arguments: Any) -> Any:
        try:
            return body(task, *arguments)
        except LedgerUnavailable as error:
            raise task.retry(exc=error, countdown=RETRY_SECONDS, max_retries=None) from None

    return run  # type: ignore[return-value]


# -- what other systems call -------------------------------------------------------------------------------------------


@app.task(name="dispatcher.submit_campaign", base=RedactedTask, bind=True, throws=(BadInput,))
@retry_while_unavailable
def submit_campaign(_task: Task, campaign: Mapping[str, Any]) -> None:
    """Accept a campaign: the fields of a campaign file, its audience inline or as a file that the worker can read."""
    parsed = parse_request(campaign)
    result = submission.accept(services(), parsed, by="celery")
    log.info("campaign submitted", campaign=parsed.id, status=result.status, audience=result.audience)
    publish(scheduler.due_chunks(services()))


@app.task(name="dispatcher.trigger", base=RedactedTask, bind=True, throws=(BadInput,))
@retry_while_unavailable
def trigger(_task: Task, job: Mapping[str, Any]) -> None:
    """Accept one job and send it at once: {"key", "recipient", "template", "data"} and, optional, "channels", "expires_at",
    "fallback_after_seconds"."""
    place = submission.accept_trigger(services(), job)
    run_chunk(services(), place.period, place.chunk)


# -- internal tasks ----------------------------------------------------------------------------------------------------


@app.task(name="dispatcher.send_chunk", bind=True)
def send_chunk(task: Task, period: int, number: int) -> None:
    """Work on a campaign's chunk, then put the campaign's next one on the broker. A lost chunk is found again by its lease."""
    chunk = run_chunk(services(), period, number)
    if chunk is not None:
        publish(replace(due, ahead=_is_ahead(task)) for due in scheduler.next_chunk(services(), chunk))


@app.task(name="dispatcher.send_trigger")
def send_trigger(period: int, number: int) -> None:
    """Work on a trigger that is already in the ledger."""
    run_chunk(services(), period, number)


@app.task(name="dispatcher.settle_events")
def settle_events() -> None:
    """Apply the stored provider events."""
    while provider_events.settle_some(services(), publish):
        pass


@app.task(name="dispatcher.release_due")
def release_due() -> None:
    """Every second: start what is due."""
    publish(scheduler.due_chunks(services()))


@app.task(name="dispatcher.ask_providers")
def ask_providers() -> None:
    """Every 8 s: look up unresolved messages at their providers."""
    if reconciliation.ask_some(services()):
        settle_events()


@app.task(name="dispatcher.sweep")
def run_sweep() -> None:
    """Every 5 s: mark expired claims unresolved, and do what a lost message of the broker left undone."""
    sweep.sweep(services())
    while provider_events.settle_some(services(), publish):
        pass


@app.task(name="dispatcher.retain")
def retain() -> None:
    """Every hour: delete what the policy does not keep any longer."""
    for result in retention.clear(services()):
        if result.cleared:
            log.info("retention", term=result.data.term, what=result.data.what, cleared=result.cleared)
