"""Names, addresses, tokens and keys are planted wherever they can enter: none of them is in a log line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jinja2
import psycopg
import pytest
import structlog
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from dispatcher.broker_messages import Refusal, check
from dispatcher.celery_app import app
from dispatcher.ledger.connection import lend
from dispatcher.runtime.logs import configure_logs
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import local_key, read_keys
from dispatcher.web.app import create
from tests.support.services import Broker, make_services
from tests.unit.test_broker_messages import NOW, message

NAME, MAIL, PHONE = "Zwaantje", "zwaantje.vandevelde@example.org", "+32470123456"
TOKEN, KEY = "hFjTq9Zk3vXw7Lr2Bs8Nd4Pc6Mg1Ya5", "dsp_4kT9wQz7LmX2vBn8RcYp5sHd3JfG6uA1eK0oNiWt"
PLANTED = (NAME.lower(), MAIL, PHONE, "470123456", TOKEN.lower(), KEY.lower(), "vandevelde")
ALL = f"{NAME} {MAIL} {PHONE} {TOKEN} {KEY}"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database) as made:
        yield made


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the program writes into its log, as JSON."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    monkeypatch.setenv("DISPATCHER_LOG_FORMAT", "json")
    # A server that another test ran in this process gave uvicorn handlers of its own; the web application takes them away.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    stream = io.StringIO()
    configure_logs()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def check_lines(written: io.StringIO, least: int) -> None:
    text = written.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) >= least, text
    for planted in PLANTED:
        assert planted not in text.lower(), text


def test_nothing_that_a_request_brings_is_logged(services: Services, written: io.StringIO, tmp_path: Path) -> None:
    key, file = local_key(b"a-secret-of-the-tests-that-is-long-enough", tmp_path)
    application = create(services, Broker(), read_keys(file))

    @application.get("/broken")
    def broken() -> None:
        raise ValueError(ALL)

    headers = {"User-Agent": MAIL, "Authorization": f"Bearer {KEY}", "Referer": f"https://x.example/u/{TOKEN}", "X-Name": NAME}
    with TestClient(application, raise_server_exceptions=False) as client:
        for path in (f"/{MAIL}", f"/u/{TOKEN}", f"/p/{TOKEN}", f"/v1/recipients/{PHONE}", f"/v1/messages/{NAME}", "/broken"):
            client.get(path, headers=headers, params={"who": MAIL, "phone": PHONE, "key": KEY, "name": NAME})
        client.request(NAME.upper(), "/v1/campaigns", headers=headers)
        client.post(f"/u/{TOKEN}", headers=headers, data={"List-Unsubscribe": "One-Click", "who": ALL})
        client.post("/console/login", headers=headers, data={"name": NAME, "password": KEY})
        headers["Authorization"] = f"Bearer {key}"
        client.get(f"/v1/recipients/{NAME}", headers=headers, params={"who": ALL})
        client.post("/v1/campaigns", headers=headers, json={"id": MAIL, "audience": [{"recipient": PHONE, "data": {"n": ALL}}]})
        client.post("/v1/campaigns", headers=headers, content=f"{{{ALL}".encode())
        client.post("/webhooks/sendgrid", headers=headers, json=[{"email": MAIL, "reason": ALL}])
        client.post("/webhooks/twilio/sms", headers=headers, data={"From": PHONE, "Body": ALL})
    check_lines(written, 14)
    assert key not in written.getvalue()


def test_nothing_that_a_broker_message_brings_is_logged(written: io.StringIO) -> None:
    log = structlog.get_logger()
    for task, args in ((NAME, [ALL]), ("dispatcher.send_chunk", [MAIL, PHONE]), ("dispatcher.trigger", {"key": ALL})):
        with pytest.raises(Refusal) as refused:
            check(message([args, {}, {}], {"task": task, "id": TOKEN}), app.tasks, NOW)
        log.warning("a message on the broker was refused", why=refused.value.text)
    logging.getLogger("celery.worker.consumer.consumer").error(
        "Received unregistered task of type %s.\nbody: %s", "'dispatcher.triger'", ALL
    )
    logging.getLogger("kombu").warning("message lost at redis://user:%s@broker:6379?token=%s", TOKEN, TOKEN)
    check_lines(written, 5)


def errors(services: Services) -> Iterator[Exception]:
    """One of each library, with the planted texts in its own."""
    with pytest.raises(psycopg.Error) as database, lend(services.pool) as connection:
        connection.execute("SELECT %s::int", (ALL,))
    yield database.value
    with pytest.raises(ValueError, match="Zwaantje") as field:
        TypeAdapter(int).validate_python(ALL)
    yield field.value
    with pytest.raises(jinja2.TemplateError) as template:
        jinja2.Environment(autoescape=True).from_string("{{ " + ALL + " }}")
    yield template.value
    request = httpx.Request("GET", f"https://user:{TOKEN}@api.example/u/{TOKEN}?to={MAIL}")
    yield httpx.ConnectError(f"cannot reach {request.url} for {ALL}", request=request)


def test_no_text_of_a_librarys_error_is_logged(services: Services, written: io.StringIO) -> None:
    count = 0
    for error in errors(services):
        for logger in ("dispatcher.tasks", "celery.app.trace", "asyncio", "uvicorn.error"):
            logging.getLogger(logger).error("it failed", exc_info=error)
            count += 1
        structlog.get_logger().error("it failed", exc_info=error)
        count += 1
    check_lines(written, count)


@pytest.mark.parametrize(
    "text",
    [
        f"sent to {MAIL}",
        f"<{MAIL}>",
        f"call {PHONE} now",
        "call +32 470 12 34 56",
        f"GET https://dispatcher.example/u/{TOKEN}",
        f"GET /p/{TOKEN}?who={MAIL} HTTP/1.1",
        f"Authorization: Bearer {KEY}",
        f"the key {KEY}",
        f"postgresql://dispatcher:{TOKEN}@db.example/ledger",
    ],
)
def test_a_librarys_own_words_lose_addresses_and_secrets(written: io.StringIO, text: str) -> None:
    logging.getLogger("third_party").warning("%s", text)
    structlog.get_logger().warning("of ours", value=text, values=[text])
    for planted in (*PLANTED, "470 12 34"):
        assert planted not in written.getvalue().lower()


def test_ids_stay_as_they_are(written: io.StringIO) -> None:
    ids: dict[str, Any] = {
        "message": "202611-123-17-0",
        "campaign": "spring-2026.b",
        "task_id": "5d5e2b9a-7f7d-4d0e-8c5a-1f6f2d9a0b3c",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "route": "/u/{token:path}",
        "place": "dispatcher.tasks:12",
    }
    structlog.get_logger().info("request", **ids)
    line = json.loads(written.getvalue())
    assert {name: line[name] for name in ids} == ids
