"""The client for other systems: it checks a job, seals it, and leaves nothing readable of it in Valkey's files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from redis import Redis

from dispatcher import celery_app, tasks
from dispatcher.campaigns import refused_jobs
from dispatcher.client import BrokerClient, BrokerUnavailable, InvalidJob
from dispatcher.client.jobs import CampaignExtras, TriggerExtras
from dispatcher.domain.campaign_options import CampaignOptions
from dispatcher.domain.refused_job import TRIGGER_TASK
from dispatcher.domain.sealed_jobs import key_id, public_key
from dispatcher.embedded.daemon import wait_until
from dispatcher.runtime.services import Services
from tests.support.command import run_command
from tests.support.services import add_people, make_services, outbox, person, states

SECRET = "a-secret-of-the-tests-that-is-long-enough"  # of `make_services`
ROOT = Path(__file__).parents[2]


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database) as made:
        celery_app._per_thread.services = made
        yield made
        del celery_app._per_thread.services


@pytest.fixture
def client(services: Services, broker_url: str) -> Iterator[BrokerClient]:
    client = BrokerClient(broker_url, public_key(services.secret.newest))
    yield client
    client.close()


def take(broker_url: str, lane: str) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Take a message off the broker: arguments, keyword arguments and headers."""
    place = urlsplit(broker_url)
    with Redis(unix_socket_path=place.path, db=int(place.query.partition("=")[2])) as valkey:
        message = json.loads(valkey.rpop(lane))
    arguments, named, _ = json.loads(b64decode(message["body"]))
    return arguments, named, message["headers"]


def on_disk(broker_url: str, words: Sequence[bytes]) -> list[bytes]:
    """Which of the words Valkey's append-only file holds, as they are or in base64, as Celery writes its bodies."""
    with Redis(unix_socket_path=urlsplit(broker_url).path) as valkey:
        assert valkey.config_get("appendonly")["appendonly"] == "yes"
        folder = Path(valkey.config_get("dir")["dir"])
    content = b"".join(file.read_bytes() for file in (folder / "appendonlydir").iterdir())
    assert content
    inner = b"".join(
        b64decode(run + b"=" * (-len(run) % 4)) for run in re.findall(rb"[A-Za-z0-9+/]{40,}", content) if len(run) % 4 != 1
    )
    return [word for word in words if word in content + inner]


def test_a_sealed_job_leaves_nothing_readable_in_valkeys_files_and_runs(
    client: BrokerClient, services: Services, broker_url: str
) -> None:
    name = f"Zwaantje{uuid.uuid4().hex[:8]}"
    planted = (name.encode(), b"31415.92", b"@home.example")
    data = {"project": f"{name}@home.example", "amount": 31415.92, "offer_url": "https://www.kbc-bank.example/loan"}
    add_people(services, person(f"c-{name}", 1))
    assert client.send_trigger("order-17", f"c-{name}", "loan_offer", data, channels=["email"]) == "order-17"
    rows = [{"recipient": f"c-{name}", "data": data}]
    assert client.submit_campaign("spring", rows, template="loan_offer", send_at=datetime(2026, 11, 24, tzinfo=UTC)) == "spring"
    assert on_disk(broker_url, planted) == []
    for lane, task in (("transactional", tasks.trigger), ("fanout", tasks.submit_campaign)):
        arguments, named, headers = take(broker_url, lane)
        assert (list(arguments[0]), headers["argsrepr"], headers["task"]) == (["sealed"], "(sealed)", task.name)
        assert datetime.fromisoformat(headers["expires"]) > datetime.now(UTC)
        task.apply(args=arguments, kwargs=named, throw=True)
    assert [message.address for message in outbox(services).sent] == [f"c-{name}@example.org"]
    assert states(services) == {"pending": 1}
    assert refused_jobs.newest(services, 10) == []

    job = {"key": "k-2", "recipient": f"c-{name}", "template": "loan_offer", "data": data}
    with Celery("tests", broker=broker_url, set_as_current=False) as plain:  # what the client protects from
        plain.send_task(TRIGGER_TASK, (job,), queue="transactional")
    take(broker_url, "transactional")
    assert on_disk(broker_url, planted) == list(planted)


def test_a_rewrite_takes_acknowledged_plain_jobs_out_of_the_file(broker_url: str) -> None:
    """What cannot be avoided for plain jobs ends soon: Valkey rewrites the file once it has doubled, from 4 MB on."""
    name = uuid.uuid4().hex.encode()
    with Redis(unix_socket_path=urlsplit(broker_url).path) as valkey:
        assert valkey.config_get("auto-aof-rewrite-min-size") == {"auto-aof-rewrite-min-size": str(4 * 2**20)}
        valkey.rpush("lane", name)
        valkey.delete("lane")
        assert on_disk(broker_url, [name]) == [name]
        valkey.execute_command("BGREWRITEAOF")
        assert wait_until(lambda: on_disk(broker_url, [name]) == [], 30.0)


# -- errors before anything is sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": " "}, "key: should be a text of 1 to 200 characters"),
        ({"recipient": "jan@home.example"}, "recipient: should be 1 to 100 letters, digits or . _ : -"),
        ({"template": ""}, "template: should be the name of a template"),
        ({"data": {"amount": float("nan")}}, "data: should hold JSON only"),
        ({"data": {"on": datetime(2026, 11, 23, tzinfo=UTC)}}, "data: should hold JSON only"),
        ({"chanels": ["sms"]}, "chanels: unknown field; did you mean channels?"),
        ({"channels": "sms"}, "channels: should be a list of push, email, sms, whatsapp"),
        ({"expires_at": datetime(2026, 11, 23)}, "expires_at: should be a datetime with its time zone"),  # noqa: DTZ001
        ({"fallback_after_seconds": 0}, "fallback_after_seconds: should be a number from 1 to "),
    ],
)
def test_a_bad_trigger_is_refused_before_it_is_sent(client: BrokerClient, changes: dict[str, Any], error: str) -> None:
    good = {"key": "k", "recipient": "c-1", "template": "loan_offer", "data": {}}
    with pytest.raises(InvalidJob) as raised:
        client.send_trigger(**{**good, **changes})
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"campaign_id": "a b"}, "id: should be 1 to 100 letters"),
        ({"template": "a", "variants": {"a": "b"}}, "template: name either a template or variants"),
        ({"audience": [{"recipient": "c-1"}, {"recipiant": "c-2"}]}, "audience.2: should be"),
        ({"audience": [{"recipient": "c 1"}]}, "audience.1.recipient: should be"),
        ({"audience": ""}, "audience: should be the name of a file"),
        ({"route": "some"}, "route: should be first or all"),
        ({"priority": True}, "priority: should be a number from 0 to 9"),
        ({"priority": 10}, "priority: should be a number from 0 to 9"),
        ({"one_per_household": 1}, "one_per_household: should be True or False"),
        ({"collapse_key": "a b"}, "collapse_key: should match"),
    ],
)
def test_a_bad_campaign_is_refused_before_it_is_sent(client: BrokerClient, changes: dict[str, Any], error: str) -> None:
    good: dict[str, Any] = {"campaign_id": "spring", "audience": [{"recipient": "c-1"}], "template": "loan_offer"}
    with pytest.raises(InvalidJob) as raised:
        client.submit_campaign(**{**good, **changes})
    assert error in str(raised.value)


def test_a_bad_public_key_is_named() -> None:
    with pytest.raises(ValueError, match="dispatcher keys public"):
        BrokerClient("redis://127.0.0.1:1/0", "not-a-key")


def test_an_unreachable_broker_is_one_error_that_says_to_repeat() -> None:
    client = BrokerClient("redis://127.0.0.1:1/0", public_key(SECRET.encode()))
    with pytest.raises(BrokerUnavailable, match="repeat the call"):
        client.send_trigger("k", "c-1", "loan_offer", {})


def test_the_client_checks_every_option_that_the_workers_know() -> None:
    known = {field.name for field in fields(CampaignOptions)}
    assert known <= set(CampaignExtras.__annotations__) | set(TriggerExtras.__annotations__)


def test_the_client_loads_no_sdk_and_no_other_part_of_the_program() -> None:
    program = (
        "import sys, dispatcher.client\n"
        "heavy = 'firebase_admin sendgrid twilio psycopg pydantic jinja2 fastapi phonenumbers celery kombu cryptography'.split()\n"
        "parts = {name.split('.')[1] for name in sys.modules if name.startswith('dispatcher.')}\n"
        "ours = sorted(parts - {'client', 'domain'})\n"
        "print([name for name in heavy if name in sys.modules], ours)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] []", "")


def test_the_command_prints_the_public_key(database: str, tmp_path: Path) -> None:
    done = run_command(database, tmp_path, "keys", "public", "--json")
    document = json.loads(done.stdout)
    assert (document["public_key"], document["id"]) == (public_key(SECRET.encode()), key_id(public_key(SECRET.encode())))
    assert run_command(database, tmp_path, "keys", "public").stdout.strip() == document["public_key"]
