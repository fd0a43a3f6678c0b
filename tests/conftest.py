"""Real engines for all tests, started once per run; each test has its own database and broker."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import Phase, settings
from redis import Redis

from dispatcher.embedded import Engines, engines
from dispatcher.ledger.migrations import migrate

TEMPLATE = "migrated"
# A test may kill PostgreSQL, but no test cuts the power: what the kernel has is not lost. A new database costs a third.
NOT_DURABLE = ("fsync = off", "full_page_writes = off")
MEMORY_BYTES_MIN = 4_000_000_000  # a run takes some 300 MB per process
BROKER_NUMBERS = range(1, 16)  # number 0 is for the program

# For `make mutants`: the same few examples in each run, and no shrinking.
settings.register_profile("mutants", max_examples=25, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report in the summary that the tests against the providers' API descriptions could not run."""
    from tests.support.api_descriptions import SPECS

    if not SPECS.exists():
        terminalreporter.write_line(
            "The adapters were not tested against the providers' API descriptions: set DISPATCHER_SPECS to their folder."
        )


@pytest.fixture(scope="session")
def running_engines() -> Iterator[Engines]:
    """PostgreSQL and Valkey for this run, in a folder with a short path: a socket's path may have 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="dispatcher-tests-", dir=memory_folder()))
    with engines(home) as found:
        for setting in NOT_DURABLE:
            _admin(found, f"ALTER SYSTEM SET {setting}")
        _admin(found, "SELECT pg_reload_conf()")
        yield found
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_database(running_engines: Engines) -> str:
    """The URL of a migrated database; `database` copies it, and no test writes to it."""
    _admin(running_engines, f"CREATE DATABASE {TEMPLATE}")
    url = _with_name(running_engines.database_url, TEMPLATE)
    migrate(url)
    return url


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Numbers for names; one sequence for the whole run."""
    return itertools.count(1)


@pytest.fixture
def database(running_engines: Engines, template_database: str, numbers: Iterator[int]) -> Iterator[str]:
    """The URL of a new, migrated database for this test only."""
    with _fresh_database(running_engines, template_database, next(numbers)) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database(running_engines: Engines, template_database: str, numbers: Iterator[int]) -> Iterator[str]:
    """One new, migrated database for all tests of a module; each test uses its own recipients."""
    with _fresh_database(running_engines, template_database, next(numbers)) as url:
        yield url


@contextmanager
def new_database(running: Engines, number: int, options: str = "") -> Iterator[str]:
    """The URL of an empty database without a schema, made with these options."""
    name = f"empty_{number}"
    _admin(running, f"CREATE DATABASE {name} {options}")
    yield _with_name(running.database_url, name)
    _admin(running, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _fresh_database(running: Engines, template: str, number: int) -> Iterator[str]:
    name = f"test_{number}"
    _admin(running, f"CREATE DATABASE {name} TEMPLATE {urlsplit(template).path[1:]} STRATEGY file_copy")
    yield _with_name(running.database_url, name)
    _admin(running, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def broker_url(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    """The URL, for Celery, of an empty broker for this test only."""
    number = BROKER_NUMBERS[next(numbers) % len(BROKER_NUMBERS)]
    with Redis(unix_socket_path=urlsplit(running_engines.broker_url).path, db=number) as client:
        client.flushdb()
        yield f"{running_engines.broker_url}?virtual_host={number}"
        client.flushdb()


def memory_folder() -> Path | None:
    """A folder in memory, where there is one with space: each test's database is 750 files, which take half the time there."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > MEMORY_BYTES_MIN else None


def _admin(running: Engines, statement: str) -> None:
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _with_name(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
