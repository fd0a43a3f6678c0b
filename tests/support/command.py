"""The `dispatcher` command: in this process, or in one of its own where a test needs a process, or a broker for the work."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import structlog

from channels.alerts import set_alert_sink
from dispatcher.cli.command_groups import command_line
from dispatcher.cli.errors import run
from dispatcher.runtime import bootstrap

SECRET = "a-secret-of-the-tests-that-is-long-enough"
PROGRAM = (sys.executable, "-c", "from dispatcher.cli import main; main()")
CACHES = (bootstrap.settings, bootstrap.joined_engines, bootstrap.migrate_once)


def variables(database_url: str, folder: Path, **more: str) -> Mapping[str, str]:
    """The environment of a command on this database, with a broker that cannot be reached; `folder` holds its home."""
    return {
        "COLUMNS": "400",
        "DISPATCHER_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "DISPATCHER_DATABASE_URL": database_url,
        "DISPATCHER_BROKER_URL": "redis://127.0.0.1:1/0",
        "DISPATCHER_SECRET_KEY": SECRET,
        **more,
    }


def start_command(database_url: str, folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, which costs two seconds of a processor."""
    environ = {**os.environ, **variables(database_url, folder, **more)}
    return subprocess.run((*PROGRAM, *arguments), env=environ, capture_output=True, text=True, check=False, timeout=300)


def run_command(database_url: str, folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run it in this process, with settings and connections of its own. Not for commands that put work on the broker: the Celery
    application of a process has one."""
    out, err = io.StringIO(), io.StringIO()
    logs = structlog.get_config()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in variables(database_url, folder, **more).items():
            patch.setenv(name, value)
        structlog.configure(  # warnings on stderr, as the program does
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), logger_factory=structlog.PrintLoggerFactory(err)
        )
        _forget()
        try:
            code = run(command_line(*arguments[:1]), arguments)
        finally:
            structlog.configure(**logs)
            set_alert_sink(lambda *_: None)  # the command's own has a connection
            _forget()
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _forget() -> None:
    for cache in CACHES:
        cache.cache_clear()
