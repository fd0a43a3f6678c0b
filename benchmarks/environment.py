"""The benchmark's environment: its own engines, sink and workers in a temporary folder, and recipients who may get everything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import psycopg

from benchmarks import baseline
from benchmarks.resource_usage import ProcessMeters, pid_of_postgres
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.sandbox.keys import write_certificate, write_service_account
from channels.whatsapp_templates import TemplateStatus
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.cli.demo import QUIET_HOURS
from dispatcher.delivery.whatsapp_texts import text_key, texts_of
from dispatcher.devserver import supervisor
from dispatcher.devserver.stack import free_port
from dispatcher.devserver.supervisor import ChildCommand, Supervisor, supervised
from dispatcher.embedded import engines
from dispatcher.intake.recipient_import import parse
from dispatcher.ledger.campaigns.whatsapp_templates import WhatsAppText, store
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.migrations import migrate
from dispatcher.policy import shipped
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services

READY_SECONDS = 60.0
KEPT = frozenset({"DISPATCHER_COMPACT_RECORDS"})
LANGUAGES = ("nl", "fr", "en", "nl")
# All variables of the shipped loan offer: a mail of about 15 KB.
OFFER: Mapping[str, Any] = {
    "offer_url": "https://www.kbc-bank.example/loan",
    "valid_until": "2027-03-31",
    "example_amount": 10000,
    "example_months": 48,
    "example_instalment": 231.91,
    "example_total": 11131.68,
    "annual_percentage_rate": 5.49,
    "borrowing_rate": 5.49,
}


@dataclass(frozen=True, slots=True)
class BenchEnvironment:
    """The services, processes and meters that the measurements use."""

    services: Services
    home: Path
    sink: str
    processes: Supervisor
    meters: ProcessMeters
    environ: Mapping[str, str] = field(repr=False)
    workers: int
    certificate: tuple[Path, Path]  # of the sinks, and its key

    def audience(self, people: int) -> Path:
        """An audience file for this many recipients, written once."""
        path = self.home / f"audience-{people}.jsonl"
        if not path.exists():
            with path.open("w") as file:
                file.writelines(json.dumps({"recipient": f"c-{n}", "data": offer(n)}) + "\n" for n in range(people))
        return path

    def received(self) -> Mapping[str, Any]:
        """What the sink has received so far."""
        http = HttpTransport()
        try:
            answer = http.request(HttpRequest(f"{self.sink}/count", ()))
        finally:
            http.close()
        assert isinstance(answer, HttpResponse), answer
        return answer.fields()

    @contextmanager
    def running(self, command: ChildCommand, **environ: str) -> Iterator[int]:
        """Run one more process while the block runs. Yields its process id."""
        with supervised([command], self.home / "log", {**self.environ, **environ}) as started:
            yield started.children[command.name].process.pid

    def forget_caps(self) -> None:
        """Clear the counts of frequency caps: here the same people get one campaign after the other."""
        with database() as connection:
            connection.execute("TRUNCATE cap_reservations")


def database() -> psycopg.Connection[tuple[Any, ...]]:
    """A connection to the ledger, for queries that only a benchmark needs."""
    return psycopg.connect(os.environ["DISPATCHER_DATABASE_URL"], autocommit=True)


def offer(number: int) -> dict[str, Any]:
    """The variables of one person's message."""
    return {**OFFER, "project": f"project number {number % 97}", "amount": 5_000 + 500 * (number % 40)}


def log_progress(text: str) -> None:
    """Write progress to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stderr.flush()


def wait_for(description: str, condition: Callable[[], bool], seconds: float) -> None:
    """Poll the condition until it is true. Exits the program after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up on {description} after {seconds:.0f} s")
        time.sleep(0.05)


def _certificate_bundle(home: Path, authority: Path) -> Path:
    """The certificate authorities that both sides trust: the public ones, as on any machine, and the sink's."""
    bundle = home / "bundle.pem"
    bundle.write_text(Path(certifi.where()).read_text(encoding="utf-8") + authority.read_text(encoding="utf-8"), encoding="utf-8")
    return bundle


@contextmanager
def bench_environment(people: int, workers: int, *, one_authority: bool = False) -> Iterator[BenchEnvironment]:
    """Start everything, with this many recipients in the ledger; stop and delete it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="dispatcher-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        running_engines = stack.enter_context(engines(home))
        migrate(running_engines.database_url)
        port = free_port()
        sink = f"https://localhost:{port}"
        environ = {
            **_without_own_settings(os.environ),
            **_environment(home, sink, running_engines.database_url, running_engines.broker_url),
        }
        authority, certificate, key = write_certificate(home)
        bundle = authority if one_authority else _certificate_bundle(home, authority)
        environ |= {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
        os.environ.clear()
        os.environ.update(environ)
        triggers = supervisor.worker("transactional", ["transactional"], 1)
        commands = [_sink(port, certificate, key), triggers]
        started = stack.enter_context(supervised(commands, home / "log", environ))
        started.await_ready(READY_SECONDS)
        baseline.app.conf.broker_url = running_engines.broker_url  # this process publishes, too
        services = bootstrap.services()
        stack.callback(services.pool.close)
        approve_waiting(services, "benchmarks")
        _approve_whatsapp_texts(services)
        _add_people(services, people)
        meters = ProcessMeters(
            postgres=pid_of_postgres(home),
            sink=started.children["sink"].process.pid,
            broker_url=running_engines.broker_url,
        )
        yield BenchEnvironment(services, home, sink, started, meters, environ, workers, (certificate, key))


def _without_own_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the program's own settings: the benchmark must not reach a real provider or ledger.

    What only changes the cost stays: an idea can be measured by switching it off.
    """
    foreign = ("DISPATCHER_", "SENDGRID_", "TWILIO_", "FCM_", "SMTP_", "GOOGLE_")
    return {name: value for name, value in environ.items() if name in KEPT or not name.startswith(foreign)}


def _environment(home: Path, sink: str, database_url: str, broker_url: str) -> dict[str, str]:
    policy = home / "policy.toml"
    rules = QUIET_HOURS.sub("", shipped())  # the benchmark may run at night
    policy.write_text(rules.replace("audience_min = 500_000", "audience_min = 5_000_000"), encoding="utf-8")
    return {
        "DISPATCHER_HOME": str(home),
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": broker_url,
        "DISPATCHER_SECRET_KEY": "a-secret-of-the-benchmark-that-nobody-needs-to-know",
        "DISPATCHER_POLICY": str(policy),
        "DISPATCHER_PUBLIC_URL": "https://dispatcher.example",
        "SENDGRID_API_KEY": "SG.sink",
        "SENDGRID_BASE_URL": sink,
        "TWILIO_ACCOUNT_SID": "AC" + "5" * 32,
        "TWILIO_AUTH_TOKEN": "sink",
        "TWILIO_BASE_URL": sink,
        "TWILIO_SMS_SENDER": "+32460000000",
        "TWILIO_WHATSAPP_SENDER": "+32460000000",
        "GOOGLE_APPLICATION_CREDENTIALS": str(write_service_account(home / "account.json", sink, "sink")),
        "FCM_BASE_URL": sink,
    }


def _sink(port: int, certificate: Path, key: Path, answer_milliseconds: int = 0, name: str = "sink") -> ChildCommand:
    argv = (sys.executable, "-m", "benchmarks.sink", str(port), str(certificate), str(key), str(answer_milliseconds))
    return ChildCommand(name, argv, supervisor.SERVERS, ready=partial(accepts_connections, port))


@contextmanager
def slow_sink(bench: BenchEnvironment, answer_milliseconds: int) -> Iterator[str]:
    """One more sink, whose answers take so long, while the block runs. Yields its URL."""
    port = free_port()
    command = _sink(port, *bench.certificate, answer_milliseconds, "slow sink")
    with supervised([command], bench.home / "log", bench.environ) as started:
        started.await_ready(READY_SECONDS)
        yield f"https://localhost:{port}"


def accepts_connections(port: int, _pid: int) -> bool:
    """Whether something listens at this port of the machine."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def campaign_worker(workers: int, nice: int = 0) -> ChildCommand:
    """The worker of `make up`, for campaigns only. `make up` sets a nice value; beside the baseline that would be unfair."""
    return supervisor.worker("campaign", ["campaign"], workers, nice)


def baseline_worker(workers: int) -> ChildCommand:
    """The baseline's worker, with Celery's defaults. It gets the order to consume once the queue is full."""
    options = ("worker", "--queues", "idle", "--concurrency", str(workers), "--hostname", "baseline@bench", "--loglevel", "WARNING")
    argv = (sys.executable, "-m", "celery", "-A", "benchmarks.baseline", *options)
    return ChildCommand("baseline", argv, supervisor.WORKERS)


def _approve_whatsapp_texts(services: Services) -> None:
    """Record every WhatsApp text as approved: the sink has no API for templates."""
    account, now = services.whatsapp_account, services.clock()
    assert account is not None
    keys = [text_key(account, template, *place) for template in services.catalog.values() for place in texts_of(template)]
    texts = [
        WhatsAppText(key, f"text_{number}", f"HX{number:032x}", "MARKETING", TemplateStatus.APPROVED, "", now, now)
        for number, key in enumerate(keys)
    ]
    with lend(services.pool) as connection:
        store(connection, texts)


def _add_people(services: Services, people: int) -> None:
    """Add up to 200 recipients through the import, and copies of them in SQL."""
    seeds = min(people, 200)
    with lend(services.pool) as connection:
        batch = [parse(_person(number), services.clock()) for number in range(seeds)]
        recipients.upsert(connection, services.secret, batch, "benchmark", services.clock())
        with connection.transaction():
            connection.execute("CREATE TEMPORARY TABLE copies ON COMMIT DROP AS SELECT * FROM recipients LIMIT 0")
            connection.execute("ALTER TABLE copies ADD n integer")
            connection.execute(
                "INSERT INTO copies SELECT r.*, substr(r.id, 3)::int + %s * k FROM recipients r, generate_series(1, %s) k",
                (seeds, -(-people // seeds) - 1),
            )
            connection.execute(
                """
                UPDATE copies SET id = 'c-' || n, email = 'c-' || n || '@example.org', phone = '+3245' || lpad(n::text, 7, '0'),
                    whatsapp = '+3245' || lpad(n::text, 7, '0'), email_key = sha256(('e' || n)::bytea),
                    phone_key = sha256(('p' || n)::bytea), whatsapp_key = sha256(('w' || n)::bytea),
                    devices = jsonb_set(devices, '{0,token}', to_jsonb('device-' || n))
                """
            )
            connection.execute("ALTER TABLE copies DROP n")
            connection.execute("INSERT INTO recipients SELECT * FROM copies")
    with database() as connection:
        connection.execute(baseline.SCHEMA)
        connection.execute("VACUUM ANALYZE")


def _person(number: int) -> dict[str, Any]:
    phone = f"+3245{number:07}"
    return {
        "id": f"c-{number}",
        "person": "customer",
        "language": LANGUAGES[number % len(LANGUAGES)],
        "birth_date": "1980-01-31",
        "entities": ["kbc-bank"],
        "has_current_account": True,
        "email": f"c-{number}@example.org",
        "phone": phone,
        "whatsapp": phone,
        "push": [{"token": f"device-{number}", "platform": "android", "permission": True}],
        "offers": {"own": "tailored", "partner": "none", "kate": "tailored"},
        "channels": {"email": True, "push": True, "sms_whatsapp": True},
        "profile": {"identity": {"first_name": f"Élise {number}"}},
    }
