"""The whole program on one machine: engines, workers, beat, web, Flower, and the sandbox where no provider is set."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from channels.http_adapter import utc_now
from dispatcher.devserver import supervisor
from dispatcher.devserver.processes import CAMPAIGN, LANES, lane_worker
from dispatcher.devserver.supervisor import (
    ChildCommand,
    Say,
    Supervisor,
    check_ports,
    engines_kept,
    port_fault,
    silent,
    supervised,
    with_metrics,
)
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable
from dispatcher.embedded import Engines, engines
from dispatcher.identity.passwords import readable
from dispatcher.identity.users import ensure_local
from dispatcher.runtime.bootstrap import check_keys_and_policy, migrate_once
from dispatcher.runtime.settings import Settings
from dispatcher.web.api_keys import local_key

FLOWER_PORT = 5555


@dataclass(frozen=True, slots=True)
class StackUrls:
    """URLs for people."""

    web: str
    sandbox: str | None
    flower: str | None


@dataclass(frozen=True, slots=True)
class RunningStack:
    """The running program."""

    processes: Supervisor
    engines: Engines
    urls: StackUrls
    environ: Mapping[str, str]  # for commands that work on the same data
    key: str | None = field(repr=False)  # for the API, on this machine only; None where API keys are configured
    password: str | None = field(repr=False)  # of the person `local`; None where others sign in
    flower_login: str | None = field(repr=False)  # user and password for Flower, with a colon between them; None without Flower


@contextmanager
def run_stack(
    settings: Settings,
    environ: Mapping[str, str],
    workers: int,
    flower_port: int | None,
    say: Say = silent,
    until: threading.Event | None = None,
) -> Iterator[RunningStack]:
    """Run all processes as long as the block lasts, restart those that end, and stop them in an order that loses no work.

    Each lane has its own worker, and campaign workers run at a lower priority, so that neither a trigger nor a periodic task waits
    for a campaign. `say` gets a line about each process that ends. Once `until` is set, nothing is waited for.
    Raises `EngineError`, `PortError`, `ProcessError`.
    """
    flower_login = flower_login_of(settings) if flower_port else None
    commands = _commands(settings, workers, flower_port, flower_login)
    check_ports(commands)  # before anything starts: a foreign program on a port would look like a part that is ready
    with engines(settings.home, settings.database_url, settings.broker_url) as joined, engines_kept(joined, say):
        _prepare_ledger(settings, joined.database_url, say, until or threading.Event())
        shared = {
            "DISPATCHER_HOME": str(settings.home),
            "DISPATCHER_DATABASE_URL": joined.database_url,
            "DISPATCHER_BROKER_URL": joined.broker_url,
            "DISPATCHER_SECRET_KEY": settings.secret_key,
        }
        key, password = None, None
        if settings.database_url is None:
            password = ensure_local(joined.database_url, KeyRing.parse(settings.secret_key), utc_now())
        if settings.api_keys is None and settings.database_url is None:
            key, keys = local_key(KeyRing.parse(settings.secret_key).newest, settings.home)
            shared["DISPATCHER_API_KEYS"] = str(keys)
            if settings.canaries is not None and not settings.canaries.api_key:
                shared["DISPATCHER_CANARY_API_KEY"] = key
        urls = _urls(settings, flower_port)
        with supervised(commands, settings.home / "log", {**environ, **shared}, say) as children:
            children.await_ready(until=until)
            yield RunningStack(children, joined, urls, shared, key, password, flower_login)


def flower_login_of(settings: Settings) -> str:
    """User and password for Flower. The password is derived from the secret key: the same at each start, and of no other use."""
    return f"local:{readable(derive(KeyRing.parse(settings.secret_key).newest, 'flower-password')[:10])}"


def _commands(settings: Settings, workers: int, flower_port: int | None, flower_login: str | None) -> Sequence[ChildCommand]:
    web_port = urlsplit(settings.public_url).port or 8000
    commands = [
        *(lane_worker(settings, lane, workers if lane == CAMPAIGN else None) for lane in LANES),
        supervisor.beat(),
    ]
    if settings.metrics_port:
        commands = [with_metrics(command, port) for port, command in enumerate(commands, settings.metrics_port)]
    commands.append(supervisor.web("127.0.0.1", web_port))
    if flower_port and flower_login:
        commands.append(supervisor.flower(flower_port, settings.home, flower_login))
    if _uses_sandbox(settings):
        port = urlsplit(settings.sandbox_url).port or 8025
        commands.insert(0, supervisor.sandbox(port, settings.home / "sandbox", settings.public_url.rstrip("/")))
    return commands


def _prepare_ledger(settings: Settings, database_url: str, say: Say, until: threading.Event) -> None:
    """Migrate the ledger as soon as it can be reached, and check the secret keys and the policy."""
    while not until.is_set():
        try:
            migrate_once(database_url)
            return check_keys_and_policy(settings, database_url, say)
        except KeyMismatch:
            raise
        except LedgerUnavailable as error:
            say(str(error))
            until.wait(1.0)
    return None


def _uses_sandbox(settings: Settings) -> bool:
    return "sandbox" in settings.providers.values()


def _urls(settings: Settings, flower_port: int | None) -> StackUrls:
    return StackUrls(
        web=settings.public_url.rstrip("/"),
        sandbox=settings.sandbox_url if _uses_sandbox(settings) else None,
        flower=f"http://127.0.0.1:{flower_port}" if flower_port else None,
    )


def free_flower_port() -> int:
    """Flower's usual port, or a free one where another program uses it."""
    return FLOWER_PORT if port_fault(supervisor.flower(FLOWER_PORT, Path(), "")) is None else free_port()


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
