"""The whole program with real processes, on engines of its own, and a client that repeats what got no answer."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import psutil
import psycopg
from redis import Redis
from redis.exceptions import RedisError

from channels.sandbox import SandboxClient
from dispatcher.client import rabbitmq
from dispatcher.devserver import supervisor
from dispatcher.devserver.stack import free_port
from dispatcher.devserver.supervisor import ChildCommand, Supervisor, supervised
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.embedded import EngineError, Engines, engines
from dispatcher.embedded.daemon import processes
from dispatcher.ledger.migrations import migrate
from dispatcher.runtime.services import DeliveryLimits, Services
from dispatcher.web.api_keys import Right, new_key
from tests.chaos.clocks import MovableClock, movable_clock
from tests.chaos.disk import LedgerDisk, ledger_disk
from tests.chaos.proxy import Proxy
from tests.support.rabbitmq import RabbitNode, rabbit_node
from tests.support.services import TEMPLATES, make_services, policy_without_quiet_hours

LEASE_SECONDS = 6.0
SEND_DEADLINE_SECONDS = 2.0
CAMPAIGN_CHILDREN = TRANSACTIONAL_CHILDREN = 2
IN_FLIGHT_MAX = DeliveryLimits().in_flight_max
SECRET = "a-secret-of-the-tests-that-is-long-enough"
CUT_OFF = ("campaign", "transactional", "maintenance", "web")  # processes that a fault can cut off from PostgreSQL
CLOCKS = ("campaign", "clock", "maintenance")  # processes whose clock a fault can move
LANES = ("transactional", "inbound")  # of the worker for triggers, as in `dispatcher up`
READY_SECONDS = 90.0
FIRST, SECOND = ("machine-1", "machine-2")
FIRST_DATABASE, SECOND_DATABASE = f"{FIRST}: database", f"{SECOND}: database"
VALKEY, RABBITMQ = BROKERS = ("valkey", "rabbitmq")
PATIENCE_SECONDS = 60.0  # how long a caller repeats a request that gets no answer
CALM = [{"delay_seconds": 0.25, "share": 0.25}, {"delay_seconds": 0.6, "share": 0.05}]  # so that a fault finds requests on the way

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Topology:
    """What runs. `broker`: one of `BROKERS`. A second machine is a group of workers with a home of its own, which reaches database,
    broker and provider by proxies of its own."""

    broker: str = VALKEY
    machines: int = 1


ONE_MACHINE = Topology()


class Unanswered(Exception):
    """A request got no answer in `PATIENCE_SECONDS`."""


@dataclass(slots=True)
class Program:
    """The running program, and access to each part of it."""

    home: Path
    database: str
    store: str  # Valkey: the broker, or beside RabbitMQ
    services: Services
    children: Supervisor
    sandbox: SandboxClient
    port: int
    key: str = field(repr=False)
    proxies: Mapping[str, Proxy]
    clocks: Mapping[str, MovableClock]  # empty where clocks cannot be moved
    disk: LedgerDisk | None  # None where no disk can be mounted
    environ: Mapping[str, str] = field(repr=False)
    notes: list[str] = field(default_factory=list)  # what the supervision of the engines reported
    node: RabbitNode | None = None  # the broker, where it is RabbitMQ
    machines: Mapping[str, Sequence[Proxy]] = field(default_factory=dict)  # where there are two: all ways out of each

    def call(self, method: str, path: str, body: Any = None, seconds: float = 5.0) -> tuple[int, Any]:
        """One request to the API. Raises `OSError` where there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post, and again where there is no answer or 5xx, as SendGrid does; the answer's status. Raises `Unanswered`."""

        def attempt() -> int:
            request = Request(f"http://127.0.0.1:{self.port}{path}", body, dict(headers))
            try:
                with urlopen(request, timeout=30.0) as answer:  # noqa: S310
                    return int(answer.status)
            except HTTPError as error:
                if error.code >= 500:
                    raise
                return error.code

        return repeat(attempt, f"POST {path}")

    def insist(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Repeat a request until it gets an answer that is not the program's own failure. Raises `Unanswered`."""

        def attempt() -> tuple[int, Any]:
            status, answer = self.call(method, path, body)
            if status >= 500:
                raise OSError(f"status {status}")
            return status, answer

        return repeat(attempt, f"{method} {path}")

    def sql(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """As the owner of the database; repeated while it is away."""

        def attempt() -> list[tuple[Any, ...]]:
            with psycopg.connect(self.database, connect_timeout=5) as connection:
                cursor = connection.execute(statement.encode(), parameters)
                return cursor.fetchall() if cursor.description else []

        return repeat(attempt, "SQL")

    def redis(self) -> Redis:
        """A client of Valkey."""
        return Redis(unix_socket_path=urlsplit(self.store).path, socket_timeout=5.0)

    def waiting(self, lanes: Sequence[str]) -> int:
        """How many tasks wait in these lanes."""
        if self.node is not None:
            return sum(rabbitmq.waiting(self.node.url, lanes, 5.0).values())
        return sum(self.redis().llen(lane) for lane in lanes)

    # -- processes -----------------------------------------------------------------------------------------------------

    def process(self, name: str) -> psutil.Process:
        """The process of a child command."""
        return psutil.Process(self.children.children[name].process.pid)

    def family(self, name: str) -> list[psutil.Process]:
        """The process of a child command and its own children."""
        parent = self.process(name)
        return [parent, *parent.children(recursive=True)]

    def postgres(self) -> list[psutil.Process]:
        """The postmaster first, then its children."""
        found = processes("postgres", self.home / "postgres")
        pids = {process.pid for process in found}
        return sorted(found, key=lambda process: _parent(process) in pids)

    def valkey(self) -> list[psutil.Process]:
        """The process of Valkey."""
        return processes("valkey", self.home / "valkey")

    def rabbitmq(self) -> list[psutil.Process]:
        """The processes of RabbitMQ."""
        return self.node.processes() if self.node is not None else []

    def calm(self) -> None:
        """The provider as it usually is: now and then slow, no faults, events in order."""

        def attempt() -> None:
            self.sandbox.set_faults(CALM)
            self.sandbox.set_events(out_of_order=False, duplicate_share=0.0)

        repeat(attempt, "sandbox")


def repeat(attempt: Callable[[], T], what: str) -> T:
    """The result of `attempt`, once it does not fail because something is away. Raises `Unanswered`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return attempt()
        except (OSError, LedgerUnavailable, psycopg.Error, RedisError, json.JSONDecodeError) as error:
            if time.monotonic() > deadline:
                raise Unanswered(f"{what}: {error}") from error
            time.sleep(0.2)


@contextmanager
def running_program(topology: Topology = ONE_MACHINE) -> Iterator[Program]:
    """Start everything in a temporary folder; stop and delete it at the end."""
    home = Path(tempfile.mkdtemp(prefix="dispatcher-chaos-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        notes: list[str] = []
        disk = _own_disk(stack, home, notes)
        found = stack.enter_context(engines(home))
        migrate(found.database_url)
        node = stack.enter_context(rabbit_node()) if topology.broker == RABBITMQ else None
        web, double = free_port(), free_port()
        socket = _socket(found.database_url)
        targets: dict[str, Path | int] = {
            **dict.fromkeys(CUT_OFF, socket),
            "broker": node.port if node is not None else Path(urlsplit(found.broker_url).path),
            "provider": double,
        }
        if topology.machines > 1:
            targets |= {FIRST_DATABASE: socket, **{f"{SECOND}: {name}": targets[name] for name in ("broker", "provider")}}
            targets[SECOND_DATABASE] = socket
        proxies = {name: Proxy(target) for name, target in targets.items()}
        for proxy in proxies.values():
            stack.callback(proxy.close)
        clocks = _clocks(home, notes)
        key, entry = new_key("chaos", list(Right))
        (home / "api-keys.toml").write_text(entry, encoding="utf-8")
        environ = _environ(home, found.database_url, web, proxies) | (_rabbitmq_environ(proxies, found) if node is not None else {})
        if topology.machines > 1:
            environ["DISPATCHER_DATABASE_URL"] = _through(proxies[FIRST_DATABASE])
        services = replace(
            stack.enter_context(make_services(found.database_url)),
            clock=lambda: datetime.now(UTC),
            public_url=environ["DISPATCHER_PUBLIC_URL"],
            limits=DeliveryLimits(send_deadline_seconds=SEND_DEADLINE_SECONDS, lease_seconds=LEASE_SECONDS),
        )
        commands = _commands(home, web, double, proxies, clocks)
        if topology.machines > 1:
            commands += _second_machine(home, environ, proxies)
        children = stack.enter_context(supervised(commands, home / "log", environ))
        children.await_ready(READY_SECONDS)
        sandbox = SandboxClient(f"http://127.0.0.1:{double}")
        program = Program(
            home,
            found.database_url,
            found.broker_url,
            services,
            children,
            sandbox,
            web,
            key,
            proxies,
            clocks,
            disk,
            environ,
            notes,
            node,
            _ways_out(proxies) if topology.machines > 1 else {},
        )
        with _kept_alive(program, found):
            yield program


def _own_disk(stack: ExitStack, home: Path, notes: list[str]) -> LedgerDisk | None:
    with engines(home):
        pass  # creates the data folder
    try:
        return stack.enter_context(ledger_disk(home / "postgres"))
    except OSError as error:
        notes.append(f"the disk cannot be filled here: {error}")
        return None


def _clocks(home: Path, notes: list[str]) -> Mapping[str, MovableClock]:
    try:
        return {name: movable_clock(home / "clocks" / name) for name in CLOCKS}
    except OSError as error:
        notes.append(f"clocks cannot be moved here: {error}")
        return {}


ONE_ERASES = {"\nerasure = true": "\nerasure = false"}  # the load erases through the API, and looks at once


def _environ(home: Path, database_url: str, web: int, proxies: Mapping[str, Proxy]) -> dict[str, str]:
    own = ("DISPATCHER_", "SENDGRID_", "TWILIO_", "FCM_", "SMTP_", "GOOGLE_", "TELNYX_")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(own)},
        "DISPATCHER_HOME": str(home),
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": f"redis://127.0.0.1:{proxies['broker'].port}/0",
        "DISPATCHER_SECRET_KEY": SECRET,
        "DISPATCHER_API_KEYS": str(home / "api-keys.toml"),
        "DISPATCHER_TEMPLATES": str(TEMPLATES),
        "DISPATCHER_POLICY": str(policy_without_quiet_hours(home, ONE_ERASES)),
        "DISPATCHER_PUBLIC_URL": f"http://127.0.0.1:{web}",
        "DISPATCHER_SANDBOX_URL": f"http://127.0.0.1:{proxies['provider'].port}",
        "DISPATCHER_WEBHOOK_HOSTS": "127.0.0.1",  # the receivers of webhooks
        "DISPATCHER_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
        "DISPATCHER_SEND_DEADLINE_SECONDS": f"{SEND_DEADLINE_SECONDS:g}",
        "SENDGRID_MAILS_PER_REQUEST": "2",
    }


def _rabbitmq_environ(proxies: Mapping[str, Proxy], found: Engines) -> dict[str, str]:
    return {
        "DISPATCHER_BROKER_URL": f"amqp://guest:guest@127.0.0.1:{proxies['broker'].port}//",
        "DISPATCHER_STORE_URL": found.broker_url,
    }


def _commands(
    home: Path, web: int, double: int, proxies: Mapping[str, Proxy], clocks: Mapping[str, MovableClock]
) -> list[ChildCommand]:
    """The processes of `dispatcher up`. Those of `CUT_OFF` reach PostgreSQL through a proxy each; those of `CLOCKS` have their own
    clock."""
    commands = [
        supervisor.sandbox(double, home / "sandbox", f"http://127.0.0.1:{web}"),
        supervisor.worker("transactional", ["transactional", "inbound"], TRANSACTIONAL_CHILDREN),
        supervisor.worker("campaign", ["campaign"], CAMPAIGN_CHILDREN),
        supervisor.worker("fanout", ["fanout"], 1),
        supervisor.worker("clock", ["clock"], 1),
        supervisor.worker("events", ["events"], 2),
        supervisor.worker("maintenance", ["maintenance"], 1),
        supervisor.beat(),
        supervisor.web("127.0.0.1", web),
    ]
    return [_with_faults(command, proxies, clocks) for command in commands]


def _with_faults(command: ChildCommand, proxies: Mapping[str, Proxy], clocks: Mapping[str, MovableClock]) -> ChildCommand:
    variables: tuple[str, ...] = ()
    if command.name in CUT_OFF:
        variables += (f"DISPATCHER_DATABASE_URL={_through(proxies[command.name])}",)
    if command.name in clocks:
        variables += clocks[command.name].environ
    argv = ("/usr/bin/env", *variables, *command.argv) if variables else command.argv
    return replace(command, argv=argv, stop_seconds_max=min(command.stop_seconds_max, 20.0))


def _through(proxy: Proxy) -> str:
    return f"postgresql://dispatcher@127.0.0.1:{proxy.port}/dispatcher"


def _second_machine(home: Path, environ: Mapping[str, str], proxies: Mapping[str, Proxy]) -> list[ChildCommand]:
    (home / SECOND).mkdir()
    broker = proxies["broker"].port, proxies[f"{SECOND}: broker"].port
    own = (
        f"DISPATCHER_HOME={home / SECOND}",
        f"DISPATCHER_DATABASE_URL={_through(proxies[SECOND_DATABASE])}",
        f"DISPATCHER_BROKER_URL={environ['DISPATCHER_BROKER_URL'].replace(f':{broker[0]}/', f':{broker[1]}/')}",
        f"DISPATCHER_SANDBOX_URL=http://127.0.0.1:{proxies[f'{SECOND}: provider'].port}",
    )
    workers = [
        supervisor.worker(f"campaign-{SECOND}", ["campaign"], CAMPAIGN_CHILDREN),
        supervisor.worker(f"transactional-{SECOND}", list(LANES), TRANSACTIONAL_CHILDREN),
    ]
    return [replace(each, argv=("/usr/bin/env", *own, *each.argv), stop_seconds_max=20.0) for each in workers]


def _ways_out(proxies: Mapping[str, Proxy]) -> Mapping[str, Sequence[Proxy]]:
    second = [proxy for name, proxy in proxies.items() if name.startswith(SECOND)]
    return {FIRST: [proxy for proxy in proxies.values() if proxy not in second], SECOND: second}


def _socket(database_url: str) -> Path:
    return Path(parse_qs(urlsplit(database_url).query)["host"][0]) / ".s.PGSQL.5432"


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return 0


@contextmanager
def _kept_alive(program: Program, found: Engines) -> Iterator[None]:
    """What `dispatcher up` does: restart what ended. One thread for the engines, whose restart may wait, one for the rest."""
    stop = threading.Event()

    def restart_children() -> None:
        with suppress(OSError):
            program.children.restart_ended()

    def restart_engines() -> None:
        try:
            found.restart_dead()
            if program.node is not None:
                program.node.restart_if_dead()
        except (EngineError, AssertionError) as error:
            program.notes.append(str(error).splitlines()[0])

    def every(seconds: float, action: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            while not stop.wait(seconds):
                action()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    threads = [every(0.2, restart_children), every(0.5, restart_engines)]
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(150)
