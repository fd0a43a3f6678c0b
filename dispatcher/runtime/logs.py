"""Logs on stderr: readable lines in a terminal, else one JSON object a line. They contain ids, never personal data."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import amqp
import redis
import structlog
from structlog.typing import EventDict

from dispatcher.runtime import tracing
from dispatcher.runtime.log_redaction import redact

LOG_FORMAT = "DISPATCHER_LOG_FORMAT"

_LOST = (ConnectionError, redis.ConnectionError, amqp.ConnectionError)
_TASK_NAME = re.compile(r"[\w.]{1,100}")


def configure_logs(level: int = logging.INFO) -> None:
    """Format our own and the libraries' logs in the same way."""
    shared: list[structlog.typing.Processor] = [
        add_trace_ids,
        structlog.contextvars.merge_contextvars,  # the task or request, the campaign and chunk that are worked on
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    is_text = {"json": False, "text": True}.get(os.environ.get(LOG_FORMAT, ""), sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if is_text else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                shorten_lost_connection,
                format_error,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("celery.worker.consumer.consumer").filters[:] = [hide_message_bodies]
    logging.getLogger("celery.app.trace").filters[:] = [hide_error_text]
    logging.getLogger("celery.beat").filters[:] = [is_no_tick]
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)  # a task's end has a line, which says more than its start
    logging.captureWarnings(True)  # else they are lines of their own, in no format
    for client in ("httpx", "httpx2", "httpcore"):  # they log the URL of each request
        logging.getLogger(client).setLevel(logging.WARNING)
    exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    exporter.filters[:] = [OncePerMinute()]  # a collector that is away is no reason for two lines every five seconds
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # its warnings contain connection strings


class OncePerMinute(logging.Filter):
    """Lets one line a minute through: one that says that traces are lost, and not why, which may quote the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if record.levelno < logging.ERROR or time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + 60.0
        record.msg, record.args = "traces cannot be exported and are lost", ()
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info, record.exc_text = None, None
        return True


def add_trace_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Name the trace and span in which the line was written, where traces are on."""
    event.update(tracing.log_ids())
    return event


def hide_message_bodies(record: logging.LogRecord) -> bool:
    """Leave out the contents of messages that Celery refuses: of an unknown task, or with a body that it cannot read.

    Celery logs them whole, and a misspelt task name of another system puts a customer's name and address there.
    """
    template = str(record.msg)
    if "body" in template.lower():
        name = str(record.args[0]) if isinstance(record.args, tuple) and record.args and "unregistered task" in template else ""
        record.msg = "a message on the broker was refused: %s"
        record.args = (f"no task is called {name}" if _TASK_NAME.fullmatch(name.strip("'")) else "it cannot be read",)
        record.exc_info, record.exc_text = None, None
    return True


def is_no_tick(record: logging.LogRecord) -> bool:
    """Leave out that beat publishes a task, four times a second: a metric counts them, and a log of it hides everything else."""
    return record.levelno > logging.INFO or "due task" not in str(record.msg)


def hide_error_text(record: logging.LogRecord) -> bool:
    """Leave out the text of an error that a task did not expect: Celery writes it into its message."""
    if record.levelno >= logging.ERROR and isinstance(record.args, dict) and "exc" in record.args:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        record.args = {**record.args, "exc": type(error).__name__ if error is not None else "", "traceback": ""}
    return True


def format_error(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Write the classes and places of an error and of those that it followed, and none of their texts.

    A text may hold a value: PostgreSQL's errors have the row (`DETAIL: Key (email)=…`), pydantic's the input.
    """
    error = _error_of(event.pop("exc_info", None))
    if error is not None:
        parts = []
        for each in _chain(error):
            frames = traceback.StackSummary.extract(traceback.walk_tb(each.__traceback__))
            parts.append(f"{type(each).__module__}.{type(each).__qualname__}\n{''.join(frames.format())}".rstrip())
        event["exception"] = "\nfollowed ".join(parts)
    return event


def _error_of(found: object) -> BaseException | None:
    """The error that a log record names."""
    if isinstance(found, tuple):
        found = found[1]
    if isinstance(found, BaseException):
        return found
    return sys.exc_info()[1] if found else None


def shorten_lost_connection(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Name error and place instead of a traceback where a connection was lost: that is an outage, not a bug.

    Celery and kombu log hundreds of lines when the broker goes away, at times with an error of their own on top.
    """
    error = _error_of(event.get("exc_info"))
    if error is None:
        return event
    lost = next((each for each in _chain(error) if isinstance(each, _LOST)), None)
    if lost is None:
        return event
    frame = next(iter(traceback.extract_tb(error.__traceback__)[-1:]), None)
    place = f"{Path(frame.filename).name}:{frame.lineno}" if frame else ""
    short = {name: value for name, value in event.items() if name not in {"exc_info", "exception"}}
    return {**short, "error": type(error).__name__, "connection_lost": type(lost).__name__, "place": place}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it followed."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
