"""Real engines for all tests: started once a run, a database and a broker of its own for each test."""

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
BROKER_NUMBERS = range(1, 16)  # 0 is left alone, as in earnest

# For `make mutants`: the same few examples each time, and no effort to make a failing one smaller.
settings.register_profile("mutants", max_examples=25, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it where everybody looks when the tests against the providers' own descriptions could not run."""
    from tests.support.api_descriptions import SPECS

    if not SPECS.exists():
        terminalreporter.write_line(
            "The adapters were not held to the providers' descriptions: the folder is not here; set DISPATCHER_SPECS."
        )


@pytest.fixture(scope="session")
def running_engines() -> Iterator[Engines]:
    """PostgreSQL and Valkey for this run, in a folder with a short name: a socket's path may have 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="dispatcher-tests-"))
    with engines(home) as found:
        yield found
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_database(running_engines: Engines) -> str:
    """The URL of a migrated database that nobody may write to; `database` copies it."""
    _admin(running_engines, f"CREATE DATABASE {TEMPLATE}")
    url = _with_name(running_engines.database_url, TEMPLATE)
    migrate(url)
    return url


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Numbers for names; one row for the whole run."""
    return itertools.count(1)


@pytest.fixture
def database(running_engines: Engines, template_database: str, numbers: Iterator[int]) -> Iterator[str]:
    """The URL of a fresh, migrated database of this test alone."""
    with _fresh_database(running_engines, template_database, next(numbers)) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database(running_engines: Engines, template_database: str, numbers: Iterator[int]) -> Iterator[str]:
    """One fresh, migrated database for all tests of a module, where each keeps to people of its own."""
    with _fresh_database(running_engines, template_database, next(numbers)) as url:
        yield url


@contextmanager
def _fresh_database(running: Engines, template: str, number: int) -> Iterator[str]:
    name = f"test_{number}"
    _admin(running, f"CREATE DATABASE {name} TEMPLATE {urlsplit(template).path[1:]}")
    yield _with_name(running.database_url, name)
    _admin(running, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def broker_url(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    """The URL, for Celery, of an empty broker of this test alone."""
    number = BROKER_NUMBERS[next(numbers) % len(BROKER_NUMBERS)]
    with Redis(unix_socket_path=urlsplit(running_engines.broker_url).path, db=number) as client:
        client.flushdb()
        yield f"{running_engines.broker_url}?virtual_host={number}"
        client.flushdb()


def _admin(running: Engines, statement: str) -> None:
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _with_name(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()
