"""The import contracts also hold for new modules: each of these files breaks the build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
LAYERS, CELERY, LEDGER, POSTGRESQL = (
    "imports only from the layers below it",
    "Only the Celery application, tasks, broker messages and the client know Celery",
    "call use cases, never the ledger",
    "Only the ledger speaks to PostgreSQL",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that a test may add a module to."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("dispatcher", "channels"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of a copy of the code."""
    command = [sys.executable, "-c", LINT_IMPORTS, "--no-cache"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, env={"COLUMNS": "500"})


@pytest.mark.parametrize(
    ("path", "code", "broken"),
    [
        ("dispatcher/recommendations.py", "import os", LAYERS),
        ("dispatcher/consent/recommendations.py", "from dispatcher.delivery import pipeline", LAYERS),
        ("dispatcher/domain/recommendations.py", "from dispatcher.policy import Policy", LAYERS),
        ("dispatcher/campaigns/recommendations.py", "from dispatcher.web import api_keys", LAYERS),
        ("dispatcher/campaigns/recommendations.py", "import celery", CELERY),
        ("dispatcher/client/recommendations.py", "import celery", CELERY),
        ("dispatcher/client/recommendations.py", "from dispatcher.policy import Policy", LAYERS),
        ("dispatcher/web/api/recommendations.py", "from kombu import Connection", CELERY),
        ("dispatcher/web/console/recommendations.py", "from dispatcher.ledger.connection import lend", LEDGER),
        ("dispatcher/cli/recommendations.py", "from dispatcher.ledger.campaigns import lifecycle", LEDGER),
        ("dispatcher/demo/recommendations.py", "from dispatcher.ledger.campaigns import lifecycle", LEDGER),
        ("dispatcher/devserver/recommendations.py", "from dispatcher.ledger.migrations import migrate", LEDGER),
        ("dispatcher/delivery/recommendations.py", "import psycopg", POSTGRESQL),
        ("dispatcher/cli/recommendations.py", "from psycopg_pool import ConnectionPool", POSTGRESQL),
        ("channels/providers/recommendations.py", "from dispatcher.domain import message", "Providers do not know the dispatcher"),
    ],
)
def test_a_new_module_cannot_escape_the_contract(checkout: Path, path: str, code: str, broken: str) -> None:
    module = checkout / path
    module.write_text(f"{code}\n", encoding="utf-8")
    done = lint(checkout)
    module.unlink()
    assert done.returncode == 1, done.stdout
    assert any(broken in line and line.endswith("BROKEN") for line in done.stdout.splitlines()), done.stdout


def test_tasks_can_not_use_the_ledger(checkout: Path) -> None:
    module = checkout / "dispatcher/tasks.py"
    before = module.read_text(encoding="utf-8")
    module.write_text(f"{before}\nfrom dispatcher.ledger.connection import lend\n", encoding="utf-8")
    done = lint(checkout)
    module.write_text(before, encoding="utf-8")
    assert any(LEDGER in line and line.endswith("BROKEN") for line in done.stdout.splitlines()), done.stdout
