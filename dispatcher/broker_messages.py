"""Broker messages as a worker receives them: what Celery would lose, or run under a caller's conditions, is recorded as refused.

Celery believes the headers of a message: names and ids that it logs, time limits, stamps that end the worker. A clean message
holds no more than the task, its id, its arguments, and two times. This runs in a worker's main process, which has no connection to
the ledger. So it hands a refusal to a task, without any value of the message.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog
from celery.exceptions import WorkerLostError
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.message import Message
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name

from celeryconfig import IS_RABBITMQ
from dispatcher.campaigns import refused_jobs
from dispatcher.campaigns.scheduler import CHUNKS_TOGETHER_MAX
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, JobError, RefusalReason, RefusedJob
from dispatcher.runtime import bootstrap

HIDDEN = "(kept out of events)"
KEEP_TASK = "dispatcher.keep_refused_job"
PUBLIC_TASKS = frozenset({CAMPAIGN_TASK, TRIGGER_TASK})
OWN_TASKS = "dispatcher."  # begins the names of the tasks that run here; those of Celery itself do not
# A message with an `eta` waits in the worker, which takes another one meanwhile: many of them fill it. The program itself uses 1 s.
ETA_MAX = timedelta(minutes=5)
LOSSES_MAX = 3  # a job whose process dies again and again would block its lane
REFERENCE_MAX = 2**31 - 1
DELAYED = level_name(MAX_LEVEL)  # RabbitMQ's exchange for messages that wait; each worker declares it

NOT_DECODED = "its body cannot be decoded; it should be JSON in UTF-8"
PUBLISHED_AT = "published_at"  # a header of our messages, a Unix time
MORE_CHUNKS = "more_chunks"  # a header of the messages of chunks: numbers of others that the task goes on with
PLACE = "place"  # a header of the messages of chunks: the campaign's id, n and m of "chunk n of m"
TRACEPARENT = "traceparent"  # a header that OpenTelemetry adds where the sender traces
NO_TASK_MESSAGE = "it is no message of Celery's protocol: headers `id` and `task`, and the body [arguments, keyword arguments, {}]"
BAD_TIME = "its header `eta` or `expires` is no time; it should be like 2026-11-23T10:00:00Z"
TOO_FAR = "its header `eta` (or countdown) is more than five minutes ahead; use the job's own field `send_at`"
HAS_SEQUEL = "it has a link, chain or chord of Celery, which are not carried out here; send each job as a message of its own"
UNKNOWN_TASK = "no task has this name; the reference lists the public ones"
CELERY_TASK = "Celery's own tasks (map, starmap, chunks, chain, group) do not run here; send each job as a message of its own"
NO_REFERENCES = "it is an internal task, which takes references of the program's own only"
TOO_LATE = "no worker took it before the time in its header `expires`"
KILLED = f"the worker's process ended {LOSSES_MAX} times while it worked on this job"
FAULT = "the program failed before a worker's process had the job; its log says more"
TEXTS = frozenset({
    NOT_DECODED, NO_TASK_MESSAGE, BAD_TIME, TOO_FAR, HAS_SEQUEL, UNKNOWN_TASK, CELERY_TASK, NO_REFERENCES, TOO_LATE, KILLED, FAULT
})  # fmt: skip

_CAMPAIGN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C trace context, version 00
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEQUELS = ("callbacks", "errbacks", "chain", "chord")

log = structlog.get_logger()
_losses: Counter[bytes] = Counter()  # how often a process of this worker died with a job, by the digest of its body


class Refusal(ValueError):
    """A message that no task is called with."""

    def __init__(self, reason: RefusalReason, text: str) -> None:
        super().__init__(text)
        self.reason, self.text = reason, text


@dataclass(frozen=True, slots=True)
class TaskMessageCall:
    """What a message asks for: `fields` are its headers or, in version 1 of the protocol, its body."""

    fields: Mapping[str, Any]
    positional: list[Any]
    named: dict[str, Any]
    sequel: Mapping[str, Any]
    is_newest: bool  # version 2 of the protocol: the body needs no change

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self.fields["task"])


class CleanMessage(Message):
    """A message with a call that may run, and with nothing else of what its sender wrote around it."""

    def __init__(self, message: Any, call: TaskMessageCall, now: datetime) -> None:
        body, content_type, encoding = message.body, message.content_type, message.content_encoding
        if not call.is_newest:
            body, content_type, encoding = json.dumps([call.positional, call.named, {}]), "application/json", "utf-8"
        super().__init__(
            body,
            delivery_tag=message.delivery_tag,
            content_type=content_type,
            content_encoding=encoding,
            delivery_info=_delivery(message.delivery_info),
            properties=_properties(message.properties),
            headers=_headers(call, now),
            accept=message.accept,
            channel=message.channel,
        )
        self._call = call

    @property
    def payload(self) -> list[Any]:
        """The body, decoded."""
        return [self._call.positional, self._call.named, {}]


class RecordedRequest(Request):
    """A request that is recorded as refused if it expires on the broker, or if its process dies again and again."""

    def maybe_expire(self) -> bool:
        """Whether the message expired on the broker. Celery's own would also revoke later messages with the same id."""
        is_expired = self.expires is not None and datetime.now(UTC) > self.expires
        if is_expired and self.type in PUBLIC_TASKS:  # beat repeats its tasks, and lets those that come late expire
            _keep(self.app, _refusal(self._message, RefusalReason.EXPIRED, TOO_LATE))
        return is_expired

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Note a job that was killed at its time limit; then Celery gives its message back to the broker."""
        if not soft:
            self._note_loss()
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Note a job whose process died; then Celery gives its message back to the broker."""
        if isinstance(exc_info.exception, WorkerLostError):
            self._note_loss()
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def _note_loss(self) -> None:
        """Count a loss; at the last one, record the job and acknowledge its message. Chunks are published again by the ledger."""
        if self.type not in PUBLIC_TASKS or self.acknowledged:
            return
        body = self.body if isinstance(self.body, bytes) else str(self.body).encode(errors="replace")
        digest = hashlib.sha256(body).digest()
        _losses[digest] += 1
        if _losses[digest] >= LOSSES_MAX:
            del _losses[digest]
            _keep(self.app, _refusal(self._message, RefusalReason.FAULT, KILLED))
            self.acknowledge()


class RefusalConsumer(Consumer):
    """Celery's consumer, which records the messages that it cannot give to a task. It acknowledges them: they would only come back.

    Celery's own one logs and deletes them; some, such as a body of `5`, end the whole worker, again at each delivery.
    """

    def connect(self) -> Any:
        """Connect. On RabbitMQ this declares all lanes: messages may be published to one that no worker has served yet, and delayed
        ones are bound to each."""
        connection = super().connect()
        for queue in self.app.amqp.queues.values() if IS_RABBITMQ else ():
            queue(connection.default_channel).declare()
        return connection

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """The function that takes each message."""
        handle = super().create_task_handler(*arguments, **options)

        def receive(message: Any) -> Any:
            try:
                checked = check(message, self.strategies, datetime.now(UTC))
            except Refusal as refusal:
                return self._refuse(message, refusal.reason, refusal.text)
            try:
                return self._delay(checked) if IS_RABBITMQ and checked.headers["eta"] else handle(checked)
            except self.connection_errors:
                raise
            except Exception as error:  # Celery lets it end the worker, and the message comes back to the next one
                log.error(
                    "a message on the broker was not given to its task", task=checked.headers["task"], error=type(error).__name__
                )
                return None if checked.acknowledged else self._refuse(checked, RefusalReason.FAULT, FAULT)

        return receive

    def _delay(self, message: CleanMessage) -> None:
        """Let RabbitMQ keep a message until its time. Here it would take the place of a running task: the number of messages that a
        worker may have from a quorum queue cannot grow."""
        eta = datetime.fromisoformat(message.headers["eta"])
        seconds = max(1, math.ceil((eta - datetime.now(UTC)).total_seconds()))
        with self.app.producer_or_acquire() as producer:
            producer.publish(
                message.body,
                exchange=DELAYED,
                routing_key=calculate_routing_key(seconds, message.delivery_info["routing_key"]),
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=message.headers,
                **message.properties,
            )
        message.ack_log_error(get_logger(__name__), self.connection_errors)

    def on_decode_error(self, message: Any, exc: Exception) -> None:  # noqa: ARG002  Celery's signature
        """Refuse a message whose compression cannot be undone."""
        self._refuse(message, RefusalReason.UNREADABLE_MESSAGE, NOT_DECODED)

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:  # noqa: ARG002  Celery's signature
        """Refuse a message that Celery itself cannot read."""
        self._refuse(message, RefusalReason.UNREADABLE_MESSAGE, NO_TASK_MESSAGE)

    def _refuse(self, message: Any, reason: RefusalReason, text: str) -> None:
        job = _refusal(message, reason, text)
        what = f"no task is called {job.task}" if text == UNKNOWN_TASK else text
        log.warning(f"a message on the broker was refused: {what}", task=job.task, key=job.key)
        _keep(self.app, job)
        message.reject_log_error(get_logger(__name__), self.connection_errors)


# -- the check of a message --------------------------------------------------------------------------------------------


def check(message: Any, tasks: Mapping[str, Any], now: datetime) -> CleanMessage:
    """The message as its task may have it. Raises `Refusal`."""
    call = _call(message)
    if not call.task.startswith(OWN_TASKS) or call.task not in tasks:
        raise Refusal(RefusalReason.UNKNOWN_TASK, CELERY_TASK if call.task.startswith("celery.") else UNKNOWN_TASK)
    if any(call.sequel.get(name) for name in _SEQUELS):
        raise Refusal(RefusalReason.BAD_ARGUMENTS, HAS_SEQUEL)
    if not call.sequel.keys() <= set(_SEQUELS):  # Celery would take any of them for a header
        raise Refusal(RefusalReason.UNREADABLE_MESSAGE, NO_TASK_MESSAGE)
    if call.task not in PUBLIC_TASKS and not _has_references(call):
        raise Refusal(RefusalReason.BAD_ARGUMENTS, NO_REFERENCES)
    return CleanMessage(message, call, now)


def _call(message: Any) -> TaskMessageCall:
    try:
        payload = message.payload
    except Exception:  # each serializer, compression and encoding has errors of its own
        raise Refusal(RefusalReason.UNREADABLE_MESSAGE, NOT_DECODED) from None
    headers = message.headers
    if isinstance(payload, dict):  # version 1 of the protocol, or its body with the headers of version 2
        is_newer = isinstance(headers, dict) and "task" in headers
        fields: Any = headers if is_newer else payload
        positional: Any = payload.get("args") if is_newer else payload.get("args", [])
        named, sequel = payload.get("kwargs", {}), {name: payload.get(name) for name in _SEQUELS}
    elif isinstance(payload, list) and len(payload) == 3 and isinstance(payload[2], dict | None):
        fields, (positional, named, sequel) = headers, payload
    else:
        raise Refusal(RefusalReason.UNREADABLE_MESSAGE, NO_TASK_MESSAGE)
    is_call = isinstance(positional, list) and isinstance(named, dict)
    has_name = isinstance(fields, dict) and all(isinstance(fields.get(name), str) for name in ("task", "id"))
    if not is_call or not has_name:
        raise Refusal(RefusalReason.UNREADABLE_MESSAGE, NO_TASK_MESSAGE)
    return TaskMessageCall(fields, positional, named, sequel or {}, isinstance(payload, list))


def _has_references(call: TaskMessageCall) -> bool:
    """Whether the arguments of an internal task are those that this program writes: numbers, or a refused job."""
    if call.named:
        return False
    if call.task == KEEP_TASK:
        return len(call.positional) == 1 and refused_jobs.is_json(call.positional[0], TEXTS)
    return all(isinstance(each, int) and 0 <= each <= REFERENCE_MAX for each in call.positional)


def _headers(call: TaskMessageCall, now: datetime) -> dict[str, Any]:
    """The headers that Celery gets. Ids that are none of Celery's own are replaced: they could hold anything, and are logged."""
    eta, expires = (_time(call.fields.get(name)) for name in ("eta", "expires"))
    if eta is not None and eta > now + ETA_MAX:
        raise Refusal(RefusalReason.BAD_ARGUMENTS, TOO_FAR)
    name = call.fields["id"]
    published_at = call.fields.get(PUBLISHED_AT)
    times = {PUBLISHED_AT: published_at} if isinstance(published_at, float) and 0 < published_at <= now.timestamp() + 60 else {}
    traceparent = call.fields.get(TRACEPARENT)
    trace = {TRACEPARENT: traceparent} if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent) else {}
    shown = repr(tuple(call.positional)) + _place(call) if call.task not in PUBLIC_TASKS | {KEEP_TASK} else HIDDEN
    return {
        "task": call.task,
        "id": name if _ID.fullmatch(name) else str(uuid4()),
        "lang": "py",
        "eta": eta.isoformat() if eta is not None and eta > now else None,
        "expires": expires.isoformat() if expires is not None else None,
        "retries": 0,
        "argsrepr": shown,
        "kwargsrepr": HIDDEN if shown == HIDDEN else "{}",
        **times,
        **trace,
        **({MORE_CHUNKS: more} if (more := _more_chunks(call)) else {}),
    }


def _more_chunks(call: TaskMessageCall) -> list[int]:
    """References, as the arguments are."""
    more = call.fields.get(MORE_CHUNKS)
    if not isinstance(more, list) or len(more) >= CHUNKS_TOGETHER_MAX:
        return []
    return more if all(type(each) is int and 0 <= each <= REFERENCE_MAX for each in more) else []


def _place(call: TaskMessageCall) -> str:
    """What Flower shows of a chunk after its arguments. Only a name that can be a campaign's id: whoever may publish could write
    anything there."""
    place = call.fields.get(PLACE)
    if not isinstance(place, list) or len(place) != 3 or not all(type(each) is int for each in place[1:]):
        return ""
    campaign_id, number, count = place
    is_id = isinstance(campaign_id, str) and _CAMPAIGN_ID.fullmatch(campaign_id) and 0 < number <= count
    more = f" and {len(others)} more" if (others := _more_chunks(call)) else ""
    return f" {campaign_id}: chunk {number} of {count}{more}" if is_id else ""


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(RefusalReason.UNREADABLE_MESSAGE, BAD_TIME) from None


def _delivery(given: object) -> dict[str, Any]:
    """How the broker delivered it. On Valkey the sender writes this, too."""
    fields = given if isinstance(given, dict) else {}
    names = {name: fields[name] for name in ("exchange", "routing_key") if isinstance(fields.get(name), str)}
    return {**names, "redelivered": fields.get("redelivered") is True}


def _properties(given: object) -> dict[str, Any]:
    priority = given.get("priority") if isinstance(given, dict) else None
    return {"priority": priority} if isinstance(priority, int) and 0 <= priority <= 9 else {}


# -- the record of a refusal -------------------------------------------------------------------------------------------


def _task_name(message: Any) -> str:
    for fields in (message.headers, message.payload):
        if isinstance(fields, dict) and isinstance(fields.get("task"), str):
            return str(fields["task"])
    return ""


def _refusal(message: Any, reason: RefusalReason, text: str) -> RefusedJob:
    ring = KeyRing.parse(bootstrap.settings().secret_key)
    try:
        payload = message.payload
        name = _task_name(message)
    except Exception:
        payload, name = message.body, str((message.headers or {}).get("task", ""))
    if isinstance(payload, dict) and "args" in payload:
        payload = [payload["args"], payload.get("kwargs")]
    call = payload[:2] if isinstance(payload, list) else payload
    return refused_jobs.describe(ring, name, call, reason, (JobError("", text),))


def _keep(app: Any, job: RefusedJob) -> None:
    try:
        app.send_task(KEEP_TASK, (refused_jobs.to_json(job),))
    except Exception as error:  # each broker's client has errors of its own; the message must not stop the worker
        log.error("a refused job could not be recorded", task=job.task, key=job.key, error=type(error).__name__)
