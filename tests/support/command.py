"""The `dispatcher` command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SECRET = "a-secret-of-the-tests-that-is-long-enough"


def run_command(
    database_url: str, folder: Path, *arguments: str, broker_url: str = "redis://127.0.0.1:1/0"
) -> subprocess.CompletedProcess[str]:
    """Run it on this database; `folder` holds its home."""
    return subprocess.run(
        [sys.executable, "-c", "from dispatcher.cli import main; main()", *arguments],
        env={
            **os.environ,
            "COLUMNS": "400",
            "DISPATCHER_HOME": str(folder / "home"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "DISPATCHER_DATABASE_URL": database_url,
            "DISPATCHER_BROKER_URL": broker_url,
            "DISPATCHER_SECRET_KEY": SECRET,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
