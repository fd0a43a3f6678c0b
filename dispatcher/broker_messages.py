"""Broker messages as a worker receives them: arguments stay hidden, and what Celery would delete unread is recorded as refused.

This runs in a worker's main process, which has no connection to the ledger. So it hands a refusal to a task, without any value of
the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from dispatcher.campaigns import refused_jobs
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.refused_job import JobError, RefusalReason, RefusedJob
from dispatcher.runtime import bootstrap

HIDDEN = "(kept out of events)"
KEEP_TASK = "dispatcher.keep_refused_job"
NOT_DECODED = "its body cannot be decoded; it should be JSON in UTF-8"
NO_TASK_MESSAGE = "it is no message of Celery's protocol: headers `id` and `task`, and the body [arguments, keyword arguments, {}]"
UNKNOWN_TASK = "no task has this name; the reference lists the public ones"
TOO_LATE = "no worker took it before the time in its header `expires`"

log = structlog.get_logger()


class RedactedRequest(Request):
    """A request whose events, logs and repr show no arguments. It is recorded as refused if it expires on the broker."""

    @property
    def argsrepr(self) -> str:
        """What Flower shows as arguments."""
        return HIDDEN

    @property
    def kwargsrepr(self) -> str:
        """What Flower shows as keyword arguments."""
        return HIDDEN

    def maybe_expire(self) -> bool:
        """Whether the message expired on the broker."""
        is_expired = bool(super().maybe_expire())
        if is_expired:
            _keep(self.app, _refusal(self._message, RefusalReason.EXPIRED, TOO_LATE))
        return is_expired


class RefusalConsumer(Consumer):
    """Celery's consumer, which records the messages that it cannot give to a task. It acknowledges them: they would only come back.

    Celery's own one logs and deletes them; some, such as a body of `5`, end the whole worker, again at each delivery.
    """

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """The function that takes each message."""
        handle = super().create_task_handler(*arguments, **options)

        def receive(message: Any) -> Any:
            if problem := _unreadable(message):
                return self._refuse(message, RefusalReason.UNREADABLE_MESSAGE, problem)
            if _task_name(message) not in self.strategies:
                return self._refuse(message, RefusalReason.UNKNOWN_TASK, UNKNOWN_TASK)
            return handle(message)

        return receive

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:  # noqa: ARG002  Celery's signature
        """Refuse a message with a header that cannot be read, such as `eta`."""
        self._refuse(message, RefusalReason.UNREADABLE_MESSAGE, NO_TASK_MESSAGE)

    def _refuse(self, message: Any, reason: RefusalReason, text: str) -> None:
        job = _refusal(message, reason, text)
        what = f"no task is called {job.task}" if reason is RefusalReason.UNKNOWN_TASK else text
        log.warning(f"a message on the broker was refused: {what}", task=job.task, key=job.key)
        _keep(self.app, job)
        message.reject_log_error(get_logger(__name__), self.connection_errors)


def _unreadable(message: Any) -> str | None:
    """Why a message is none that a task can be called with; None for one that can."""
    try:
        payload = message.payload
    except Exception:  # each serializer, compression and encoding has errors of its own
        return NOT_DECODED
    headers = message.headers
    if isinstance(payload, dict):  # version 1 of the protocol, or its body with the headers of version 2
        is_newer = isinstance(headers, dict) and "task" in headers
        fields, positional = (headers, payload.get("args")) if is_newer else (payload, payload.get("args", []))
        named = payload.get("kwargs", {})
    elif isinstance(payload, list) and len(payload) == 3 and isinstance(payload[2], dict | None):
        fields, (positional, named, _) = headers, payload
    else:
        return NO_TASK_MESSAGE
    is_call = isinstance(positional, list) and isinstance(named, dict)
    has_name = isinstance(fields, dict) and all(isinstance(fields.get(name), str) for name in ("task", "id"))
    return None if is_call and has_name else NO_TASK_MESSAGE


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
