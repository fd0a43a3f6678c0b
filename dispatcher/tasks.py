"""Every Celery task. Arguments are references, never personal data.

The exceptions are the two tasks that other systems call, `dispatcher.submit_campaign` and `dispatcher.trigger`: their arguments are
what those systems send. Workers hide them from events, and so from Flower, whoever published the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog
from celery import Task
from celery.signals import beat_init
from kombu.exceptions import ChannelError, OperationalError

from celeryconfig import CAMPAIGN_FIRST, IS_RABBITMQ, LANES
from dispatcher.broker_messages import KEEP_TASK, MORE_CHUNKS, PLACE, PUBLISHED_AT
from dispatcher.campaigns import public_tasks, refused_jobs, schedule_runs, scheduler, submission, whatsapp_templates
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.campaigns.scheduler import DueChunk, LaneDepths
from dispatcher.campaigns.submission import SubmitResult, SubmitStatus
from dispatcher.celery_app import RedactedTask, app, services
from dispatcher.delivery import reconciliation
from dispatcher.delivery.pipeline import run_chunk, run_chunks
from dispatcher.events import event_files, kafka_delivery, publication, webhook_delivery
from dispatcher.inbound import provider_events
from dispatcher.intake.errors import BadInput
from dispatcher.maintenance import heartbeats, retention, sweep
from dispatcher.maintenance.canaries import rounds
from dispatcher.runtime import drain
from dispatcher.runtime.tracing import within

BROKER_FAULTS = (OperationalError,)  # what publishing raises when the broker cannot be reached
FIRST, LAST = 0, 9  # priorities on the broker
FIRST_QUEUE_MAX = 4  # a campaign has 5 by default, which is 4 on the broker for its first chunk and 5 for all others
CAMPAIGN_QUEUES = ("campaign", CAMPAIGN_FIRST) if IS_RABBITMQ else ("campaign",)
DELIVERY_EXPIRES_SECONDS = 5  # the next second puts another task on the lane, as long as something is due
STEPS_PER_LIMIT = 16  # a step of a load takes this part of the soft time limit

log = structlog.get_logger()


# -- publishing --------------------------------------------------------------------------------------------------------


def publish(dues: Iterable[DueChunk]) -> None:
    """Put chunks on the broker: those of campaigns on their lane by priority, triggers on the fast lane."""
    for due in dues:
        if due.priority is None:
            with within(due.trace):
                send_trigger.apply_async((due.period, due.number), priority=LAST if due.is_repeat else FIRST)
        else:
            first = due.is_first_of_campaign
            priority = LAST if due.is_repeat and not first else _broker_priority(due.priority, first)
            with within(due.trace):
                headers = {PLACE: list(due.place) if due.place is not None else None, MORE_CHUNKS: list(due.more) or None}
                queue = CAMPAIGN_FIRST if IS_RABBITMQ and priority <= FIRST_QUEUE_MAX else None
                send_chunk.apply_async((due.period, due.number), priority=priority, headers=headers, queue=queue)


def lane_depths() -> LaneDepths:
    """How many messages wait in the lanes that repeats are put on."""
    try:
        with app.connection_or_acquire() as connection:
            return LaneDepths(_depth(connection, *CAMPAIGN_QUEUES), _depth(connection, "transactional"))
    except Exception as error:  # each broker's client has errors of its own
        log.warning("the depths of the lanes are unknown", fault=type(error).__name__)
        return LaneDepths()


def _depth(connection: Any, *queues: str) -> int:
    depth = 0
    for queue in queues:
        with suppress(ChannelError), connection.channel() as channel:  # Valkey has no key for an empty queue
            depth += int(channel.queue_declare(queue, passive=True).message_count)
    return depth


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
# Those that run every second or so send no events: they would push everything else out of Flower's history.


@app.task(name="dispatcher.load_audience", bind=True, throws=(BadInput,), needs_policy=True)
def load_audience(task: Task, number: int, is_stalled: bool = False) -> None:
    """Go on with the audience of a campaign, from its file. A lost step is found again by the sweep, which marks the load as worked
    on: so `is_stalled` says that nobody does."""
    result = public_tasks.load_some(services(), number, _step_seconds(), is_stalled or _is_redelivered(task))
    log.info("audience", campaign=number, status=result.status, audience=result.audience)
    _after_step(result)


@app.task(name="dispatcher.send_chunk", bind=True, needs_policy=True)
def send_chunk(task: Task, period: int, number: int) -> None:
    """Work on a campaign's chunk and those that came with it, then publish the campaign's next ones. Chunks whose message is lost
    are published again."""
    numbers = [number, *(getattr(task.request, MORE_CHUNKS, None) or ())]
    chunk = run_chunks(services(), period, numbers, lambda each: _is_superfluous(task, period, each))
    if chunk is not None:
        following = scheduler.next_chunk(services(), chunk, len(numbers))
        publish(replace(due, is_first_of_campaign=_is_first_of_campaign(task)) for due in following)


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
    while not drain.is_draining() and provider_events.apply_batch(services(), publish):
        pass


@app.task(name=KEEP_TASK)
def keep_refused_job(job: Mapping[str, Any]) -> None:
    """Record a broker message that no task could be called with."""
    refused_jobs.record(services(), refused_jobs.from_json(job))


@app.task(name="dispatcher.release_due", is_periodic=True, send_events=False)
def release_due() -> None:
    """Every second: start what is due."""
    publish(scheduler.due_chunks(services(), lane_depths()))


@app.task(name="dispatcher.publish_events", is_periodic=True, send_events=False)
def publish_outbox() -> None:
    """Every second: publish what waits in the outbox; start deliveries to event endpoints and Kafka where something is due."""
    publication.publish(services())
    if webhook_delivery.is_due(services()):
        deliver_webhooks.apply_async(expires=DELIVERY_EXPIRES_SECONDS)
    if kafka_delivery.is_due(services()):
        deliver_kafka.apply_async(expires=DELIVERY_EXPIRES_SECONDS)


@app.task(name="dispatcher.deliver_webhooks", is_periodic=True)
def deliver_webhooks() -> None:
    """Deliver events to event endpoints, for half a minute at most: the next task goes on."""
    webhook_delivery.deliver(services())


@app.task(name="dispatcher.deliver_kafka", is_periodic=True)
def deliver_kafka() -> None:
    """Deliver events to Kafka, for 20 s and the last delivery reports at most: the next task goes on."""
    kafka_delivery.deliver(services())


@app.task(name="dispatcher.write_event_files", is_periodic=True)
def write_event_files() -> None:
    """Every minute: write event files of the periods that are over, for 20 s and one part at most."""
    event_files.write(services())


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


@app.task(name="dispatcher.run_schedules", is_periodic=True, needs_policy=True)
def run_schedules() -> None:
    """Every 10 s: start the runs of recurring campaigns that are due."""
    for number in schedule_runs.start_due(services()):
        publish_load(number)


@app.task(name="dispatcher.run_canaries", is_periodic=True, send_events=False, needs_policy=True)
def run_canaries() -> None:
    """Every 10 s, where canaries are on: take the steps of their rounds that are due."""
    rounds.run(services(), publish)


@app.task(name="dispatcher.sweep", is_periodic=True)
def run_sweep() -> None:
    """Every 5 s: run the sweep (see `maintenance/sweep.py`), continue stalled loads, and apply provider events whose task was
    lost."""
    sweep.sweep(services())
    for number in submission.take_stalled(services()):
        load_audience.apply_async((number, True))
    _apply_all_events()


@app.task(name="dispatcher.record_heartbeat", bind=True, is_periodic=True, send_events=False)
def record_heartbeat(task: Task) -> None:
    """Every 5 s, on each lane: say that beat, broker, this worker and the database work."""
    lane, published_at = (task.request.delivery_info or {}).get("routing_key"), getattr(task.request, PUBLISHED_AT, None)
    if lane in LANES:  # whoever may publish may not invent parts
        heartbeats.record(services(), lane, published_at if isinstance(published_at, int | float) else None)


@app.task(name="dispatcher.retain", is_periodic=True, needs_policy=True)
def retain() -> None:
    """Every hour: delete data whose retention period is over."""
    for result in retention.clear(services()):
        if result.cleared:
            log.info("retention", policy_key=result.data.policy_key, what=result.data.what, cleared=result.cleared)
