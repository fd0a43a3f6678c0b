"""A command imports only its own group, and finds in it what the whole command line has there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import typer

from dispatcher.cli.command_groups import GROUPS, command_line

IMPORTS = """
import sys
from dispatcher.cli.command_groups import command_line
command_line("audience")
print(*sorted(name for name in sys.modules if name.startswith(("dispatcher.cli.", "openpyxl.cell", "valkey.client"))))
"""


def commands(first: str = "") -> dict[str, Any]:
    """The commands of the root and of each group, by name."""
    root: Any = typer.main.get_command(command_line(first))
    return {name: sorted(getattr(command, "commands", ())) for name, command in root.commands.items()}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_alone_has_the_commands_that_it_has_among_all(name: str) -> None:
    assert commands(name) == {name: commands()[name]}


def test_a_command_imports_no_other_group() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"dispatcher.cli.{name}" for name in ("audiences", "command_groups", "output")]
