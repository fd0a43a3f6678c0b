"""Celery's room: the application, the tasks, and how work is put on the broker. Arguments are references, never personal data.

The two tasks that other systems call, `dispatcher.submit_campaign` and `dispatcher.trigger`, carry what those systems put in;
workers hide it from events, and so from Flower, whoever sent it.
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

from dispatcher.campaigns import scheduler
from dispatcher.campaigns import submission as submission_module
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.maintenance import retention
from dispatcher.maintenance import sweep as sweep_module
from dispatcher.runtime import bootstrap
from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.services import COLLECT_AFTER, Services

BROKER_FAULTS = (OperationalError,)  # what publishing raises when the broker can't be reached
HIDDEN = "(kept out of events)"
RETRY_SECONDS = 2.0  # how long a task rests whose ledger is away; far below the broker's visibility timeout

log = structlog.get_logger()
Body = TypeVar("Body", bound=Callable[..., Any])

app = Celery("dispatcher")
app.config_from_object("celeryconfig")
if not app.conf.broker_url:
    app.conf.broker_url = bootstrap.broker_url()


class RedactedRequest(Request):
    """A request whose events, logs and repr say nothing of what a caller put into its arguments."""

    @property
    def argsrepr(self) -> str:
        """What Flower shows as arguments."""
        return HIDDEN

    @property
    def kwargsrepr(self) -> str:
        """What Flower shows as keyword arguments."""
        return HIDDEN


class RedactedTask(Task):
    """A task whose callers put personal data into its arguments."""

    Request = RedactedRequest

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish without a readable copy of the arguments in the message's headers."""
        return super().apply_async(args, kwargs, **{"argsrepr": HIDDEN, "kwargsrepr": HIDDEN, **options})


# -- the house, once per process ---------------------------------------------------------------------------------------

_per_thread = threading.local()


def services() -> Services:
    """This process's house, made at first use: connections can't cross a fork."""
    if not hasattr(_per_thread, "services"):
        _per_thread.services = bootstrap.services()
    made: Services = _per_thread.services
    return made


@worker_init.connect
def _refuse_to_start_unfit(**_: object) -> None:
    """Name everything that is wrong at once, before anything starts, rather than fail task after task."""
    try:
        bootstrap.examine()
    except bootstrap.UNFIT as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


@worker_process_init.connect
def _make_house(**_: object) -> None:
    """Make the house, and keep it out of the garbage collector's sight: to walk templates and SDKs again and again costs 0.1 s a
    time, which a trigger would notice. What work leaves behind has hardly a cycle, so the collector looks seldom."""
    services()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


@setup_logging.connect
def _set_up_logs(**_: object) -> None:
    configure_logs()


# -- onto the broker ---------------------------------------------------------------------------------------------------


def publish(dues: Iterable[DueChunk]) -> None:
    """Put chunks on the broker: a campaign's on its lane by priority, a trigger on the fast one."""
    for due in dues:
        if due.priority is None:
            send_trigger.apply_async((due.period, due.number))
        else:
            send_chunk.apply_async((due.period, due.number), priority=_level(due.priority, due.ahead))


def _level(priority: int, ahead: bool) -> int:
    """One of the broker's ten priorities: two neighbours of ours share a pair, and of a pair what is ahead goes first."""
    return priority // 2 * 2 + (not ahead)


def _is_ahead(task: Task) -> bool:
    level = (task.request.delivery_info or {}).get("priority")
    return level is not None and level % 2 == 0


def publish_events() -> None:
    """Tell the inbound lane that provider events have come in."""
    settle_events.apply_async()


def retry_while_unavailable(body: Body) -> Body:
    """Try again, for as long as it takes, while the ledger is away: the job exists only on the broker."""

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
    """Take a campaign: the fields of a campaign file, its audience inline or as a file that the worker can read."""
    submission = parse_campaign(campaign, submission_module.validation_context(services()))
    admission = submission_module.submit(services(), submission, by="celery")
    log.info("campaign submitted", campaign=submission.id, taken=admission.taken, audience=admission.audience)
    publish(scheduler.due_chunks(services()))


@app.task(name="dispatcher.trigger", base=RedactedTask, bind=True, throws=(BadInput,))
@retry_while_unavailable
def trigger(_task: Task, job: Mapping[str, Any]) -> None:
    """Take one job and send it at once: {"key", "recipient", "template", "data"}, and if wanted "channels", "expires_at",
    "fallback_after_seconds"."""
    place = submission_module.take_trigger(services(), parse_trigger(job, submission_module.validation_context(services())))
    run_chunk(services(), place.period, place.chunk)


# -- our own -----------------------------------------------------------------------------------------------------------


@app.task(name="dispatcher.send_chunk", bind=True)
def send_chunk(task: Task, period: int, number: int) -> None:
    """Work on a campaign's chunk, then put the campaign's next one on the broker, in its place. A lost chunk is found again by its
    lease.
    """
    chunk = run_chunk(services(), period, number)
    if chunk is not None:
        publish(replace(due, ahead=_is_ahead(task)) for due in scheduler.next_chunk(services(), chunk))


@app.task(name="dispatcher.send_trigger")
def send_trigger(period: int, number: int) -> None:
    """Work on a trigger that is in the ledger already."""
    run_chunk(services(), period, number)


@app.task(name="dispatcher.settle_events")
def settle_events() -> None:
    """Apply the provider events that have come in."""
    while provider_events.settle_some(services(), publish):
        pass


@app.task(name="dispatcher.release_due")
def release_due() -> None:
    """Each second: start what is due."""
    publish(scheduler.due_chunks(services()))


@app.task(name="dispatcher.ask_providers")
def ask_providers() -> None:
    """Now and then: ask what became of messages that may have gone."""
    if reconciliation.ask_some(services()):
        settle_events()


@app.task(name="dispatcher.sweep")
def sweep() -> None:
    """Each few seconds: put right what a lost worker or a lost broker message left behind."""
    sweep_module.sweep(services())
    while provider_events.settle_some(services(), publish):
        pass


@app.task(name="dispatcher.retain")
def retain() -> None:
    """Each hour: clear what has been kept for as long as the policy says."""
    for done in retention.clear(services()):
        if done.cleared:
            log.info("retention", kept=done.keeping.term, what=done.keeping.what, cleared=done.cleared)
