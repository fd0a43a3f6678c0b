"""Traces of the whole program, as a collector gets them: one trace for a campaign, and nothing personal in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

from channels.sandbox import running
from dispatcher.devserver.stack import free_port
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.embedded.daemon import wait_until
from dispatcher.events import event_endpoints
from dispatcher.web.api_keys import local_key
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.services import TEMPLATES, add_people, make_services, person, policy_without_quiet_hours
from tests.support.webhook_receiver import receiver

SECRET = "a-secret-of-the-tests-that-is-long-enough"  # the one that make_services uses
OFFER = {"project": "zonnepanelen", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
WAY = {
    "POST /v1/campaigns",
    "submit campaign",
    "apply_async/dispatcher.send_chunk",
    "run/dispatcher.send_chunk",
    "chunk",
    "gather",
    "decide and render",
    "claim",
    "send",
    "settle",
    "delivery report",
    "publish events",
    "deliver events",
}
PARENTS = {
    "submit campaign": "POST /v1/campaigns",
    "run/dispatcher.send_chunk": "apply_async/dispatcher.send_chunk",
    "chunk": "run/dispatcher.send_chunk",
    "claim": "chunk",
    "send": "chunk",
    "settle": "chunk",
    "delivery report": "submit campaign",
    "publish events": "submit campaign",
    "deliver events": "submit campaign",
}


@contextmanager
def program(environ: Mapping[str, str], home: Path, port: int) -> Iterator[Path]:
    """A worker of all lanes, beat and the web application, as long as the block lasts; their log."""
    celery = (sys.executable, "-m", "celery", "-A", "dispatcher")
    commands = (
        (*celery, "worker", "--concurrency", "2", "--loglevel", "INFO"),
        (*celery, "beat", "--schedule", str(home / "beat"), "--pidfile", ""),
        (sys.executable, "-m", "uvicorn", "--factory", "dispatcher.web:app", "--port", str(port), "--no-access-log"),
    )
    log = home / "program.log"
    with log.open("wb") as file, ExitStack() as ends:
        for command in commands:
            child = subprocess.Popen(command, stdout=file, stderr=file, env=environ)
            ends.callback(child.wait, 120)
            ends.callback(child.terminate)
        yield log


def call(url: str, headers: Mapping[str, str], form: Mapping[str, Any] | None = None) -> bytes:
    body = json.dumps(form).encode() if form is not None else None
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})  # noqa: S310 - our own URL
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content


def answers(url: str) -> bool:
    try:
        return bool(call(url, {}))
    except OSError:
        return False


def test_a_campaign_is_one_trace_and_nothing_personal_is_in_any(database: str, broker_url: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    key, keys = local_key(KeyRing.of(SECRET.encode()).newest, tmp_path)
    with make_services(database) as made, running(state_folder=tmp_path / "sandbox") as double, ExitStack() as servers:
        services = replace(made, webhook_hosts=frozenset({"127.0.0.1"}))
        collector, crm = servers.enter_context(otlp_receiver()), servers.enter_context(receiver())
        double.set_events(sendgrid_url=f"{url}/webhooks/sendgrid", delay_seconds=0.2)
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DISPATCHER_", "SENDGRID_", "TWILIO_"))},
            "DISPATCHER_HOME": str(tmp_path),
            "DISPATCHER_DATABASE_URL": database,
            "DISPATCHER_BROKER_URL": broker_url,
            "DISPATCHER_SECRET_KEY": SECRET,
            "DISPATCHER_TEMPLATES": str(copytree(TEMPLATES, tmp_path / "templates")),
            "DISPATCHER_POLICY": str(policy_without_quiet_hours(tmp_path)),
            "DISPATCHER_SANDBOX_URL": double.url,
            "DISPATCHER_API_KEYS": str(keys),
            "DISPATCHER_PUBLIC_URL": url,
            "DISPATCHER_WEBHOOK_HOSTS": "127.0.0.1",
            "DISPATCHER_TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        add_people(services, *(person(f"c-{number}", number, language="nl") for number in range(30)))
        form = {"id": "crm", "url": crm.url, "batch_max": 100, "types": ["dispatcher.message.*"]}
        event_endpoints.add(services, event_endpoints.parse_form(form), "tests")
        with program(environ, tmp_path, port) as log:
            assert wait_until(lambda: answers(f"{url}/healthz"), 240), log.read_text()[-4000:]
            rows = [{"recipient": f"c-{number}", "data": OFFER} for number in range(30)]
            campaign = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
            headers = {"Authorization": f"Bearer {key}", "traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
            call(f"{url}/v1/campaigns", {**headers, "tracestate": "who=anna-peeters", "baggage": "who=anna-peeters"}, campaign)
            assert wait_until(lambda: any(each.name == "delivery report" for each in collector.spans), 240), log.read_text()[-4000:]
            assert wait_until(lambda: {each.name for each in collector.spans if each.trace == CALLER} >= WAY, 240), names(collector)
            token = link_token(double.message(1))
            call(f"{url}/u/{token}?who=anna-peeters", {"User-Agent": "anna-peeters"})
            assert wait_until(lambda: "GET /u/{token:path}" in names(collector), 240), names(collector)
        check_parents([each for each in collector.spans if each.trace == CALLER])
        assert not any(name.startswith("run/dispatcher.") for name in names(collector) - WAY - {"run/dispatcher.settle_events"})
        assert {event.get("traceparent", "")[3:35] for event in crm.events} == {CALLER}
        exported = b"".join(collector.bodies)

    written = log.read_bytes()
    for planted in (b"peeters", b"@example.org", b"+32470", b"zonnepanelen", token.encode(), key.encode(), SECRET.encode()):
        assert planted not in exported, planted
        assert planted not in written, planted
    assert CALLER.encode() in written


def names(collector: OtlpReceiver) -> set[str]:
    return {each.name for each in collector.spans}


def link_token(message: Mapping[str, Any]) -> str:
    """The token of the unsubscribe link in a mail that the sandbox got."""
    found = re.search(r"/u/([\w.~-]+)", json.dumps(message))
    assert found is not None
    return found[1]


def check_parents(spans: list[ReceivedSpan]) -> None:
    by_id = {each.id: each for each in spans}
    for each in spans:
        if each.name in PARENTS:
            assert by_id[each.parent].name == PARENTS[each.name], (each.name, by_id[each.parent].name)
