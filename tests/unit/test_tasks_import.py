"""Importing the tasks starts nothing: other programs import them to publish, tools to look at them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, psutil
import dispatcher.tasks
from dispatcher import app
assert "dispatcher.send_chunk" in app.tasks
assert app.conf.task_routes and app.conf.broker_url is None
print([child.name() for child in psutil.Process().children(recursive=True)])
"""


def test_importing_the_tasks_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    theirs = ("DISPATCHER_", "CELERY_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    home = tmp_path / "home"
    environ |= {"DISPATCHER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert list(tmp_path.iterdir()) == []
