"""What the logs say of errors."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import amqp
from redis.exceptions import ConnectionError as BrokerConnectionError

from dispatcher.runtime.log_redaction import secrets_in
from dispatcher.runtime.logs import OncePerMinute, format_error, hide_error_text, shorten_lost_connection

PLANTED = "anna@example.org"


def logged(error: BaseException) -> dict[str, object]:
    return dict(
        shorten_lost_connection(None, "error", {"event": "unrecoverable", "exc_info": (type(error), error, error.__traceback__)})
    )


def failed(cause: BaseException) -> BaseException:
    """An error that followed another, as kombu's do."""
    try:
        try:
            raise cause
        except type(cause):
            None.hostname  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError as error:
        return error
    raise AssertionError


def test_a_lost_connection_is_one_line() -> None:
    for cause in (BrokerConnectionError("closed"), ConnectionResetError(), amqp.ConnectionForced("closed")):
        line = logged(failed(cause))
        assert line == {
            "event": "unrecoverable",
            "error": "AttributeError",
            "connection_lost": type(cause).__name__,
            "place": line["place"],
        }
        assert str(line["place"]).startswith("test_logs.py:")


def test_any_other_error_keeps_its_place_and_loses_its_text() -> None:
    event = format_error(None, "error", {"event": "x", "exc_info": failed(ValueError(PLANTED))})
    assert str(event["exception"]).startswith("builtins.AttributeError")
    assert "test_logs.py" in str(event["exception"])
    assert "ValueError" in str(event["exception"])
    assert PLANTED not in str(event)


def test_an_idle_installation_logs_no_ticks() -> None:
    """Beat publishes four tasks a second; before, an idle installation wrote more than a million lines a day."""
    code = """
import logging
from dispatcher.runtime.logs import configure_logs
configure_logs()
beat = logging.getLogger("celery.beat")
beat.info("Scheduler: Sending due task %s (%s)", "sweep", "dispatcher.sweep")
beat.info("beat: Starting...")
beat.error("Scheduler: Error: cannot send due task")
logging.getLogger("celery.worker.strategy").info("Task dispatcher.sweep[1] received")
logging.getLogger("celery.app.trace").info("Task dispatcher.sweep[1] succeeded in 0.1s")
"""
    written = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    events = [json.loads(line)["event"] for line in written.splitlines()]
    assert events == ["beat: Starting...", "Scheduler: Error: cannot send due task", "Task dispatcher.sweep[1] succeeded in 0.1s"]


def test_celery_writes_no_text_of_an_unexpected_error() -> None:
    try:
        raise ValueError(PLANTED)
    except ValueError as error:
        values = {
            "name": "dispatcher.retain",
            "id": "1",
            "description": "raised unexpected",
            "exc": repr(error),
            "traceback": PLANTED,
        }
        record = logging.LogRecord(
            "celery.app.trace", logging.ERROR, "", 0, "Task %(name)s[%(id)s] %(description)s: %(exc)s", (values,), sys.exc_info()
        )
    assert hide_error_text(record)
    assert record.getMessage() == "Task dispatcher.retain[1] raised unexpected: ValueError"
    assert PLANTED not in str(record.args)


LOGGED = """
import logging, warnings, structlog
from dispatcher.runtime.logs import configure_logs
configure_logs()
warnings.warn("a warning of a library")
structlog.contextvars.bind_contextvars(task="dispatcher.retain", task_id="t-1", campaign="spring")
structlog.get_logger().info("of ours")
logging.getLogger("kombu").warning("of a library")
try:
    raise ValueError("anna@" + "example.org")  # a traceback shows the line itself, from Python 3.13 on for -c, too
except ValueError:
    logging.getLogger("kombu").exception("failed")
"""


def test_every_line_is_json_and_names_its_task() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["py.warnings", "__main__", "kombu", "kombu"]
    assert all(line["task_id"] == "t-1" and line["campaign"] == "spring" for line in lines[1:])
    assert PLANTED not in done.stderr


def test_secrets_of_the_environment_are_found_in_their_variables() -> None:
    environ = {
        "SENDGRID_API_KEY": "a-key-of-sendgrid",
        "DISPATCHER_SECRET_KEY": "the-newest-key, the-one-before",
        "SMTP_URL": "smtps://user:a-password@relay.example",
        "SHORT_KEY": "on",
        "HOME": "/var/lib/dispatcher",
    }
    assert set(secrets_in(environ)) == {"a-key-of-sendgrid", "the-newest-key", "the-one-before", "a-password"}


def test_a_collector_that_is_away_is_one_line_a_minute() -> None:
    once = OncePerMinute()
    records = [logging.LogRecord("otlp", level, "", 0, PLANTED, (), None) for level in (logging.WARNING, *[logging.ERROR] * 3)]
    assert [once.filter(record) for record in records] == [False, True, False, False]
    assert (records[1].getMessage(), records[1].levelno) == ("traces cannot be exported and are lost", logging.WARNING)
