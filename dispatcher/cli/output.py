"""Output of commands: tables for people, one JSON document for machines. Logs and progress go to stderr."""

from __future__ import annotations

import getpass
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON document per event, each on one line.")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="Allowed as for every command; the output is JSON in any case.")]

REFUSED, BAD_INPUT = 1, 2

PIPE_WIDTH = 240  # in a pipe, so that lines are not folded


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, soft_wrap=True, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


out = _console(stderr=False)
err = _console(stderr=True)


def print_json(document: Any) -> None:
    """Print one document on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")


def print_json_line(document: Any) -> None:
    """Print one document in one line on stdout, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def pairs(title: str, values: Mapping[str, Any]) -> None:
    """Print a table of names and values, without the empty ones."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value not in (None, "", {}, []):
            table.add_row(escape(name), escape(readable(value)))
    out.print(table)


def rows(title: str, names: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    """Print a table with a header; numbers are aligned right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, name in enumerate(names):
        numeric = bool(lines) and all(isinstance(line[index], int | float) for line in lines)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        table.add_row(*(escape(readable(cell)) for cell in line))
    out.print(table)


MOMENT = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:\.\d+)?\+00:00")


def readable(value: Any) -> str:
    """A value for a table: empty for None, moments to the second, at most two decimals, lists without brackets and quotes."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.005 or value == 0 else f"{value:.1g}"
        case Mapping():
            return ", ".join(f"{name}: {readable(each)}" for name, each in value.items())
        case list() | tuple():
            return ("; " if any(isinstance(each, Mapping) for each in value) else ", ").join(map(readable, value))
    return MOMENT.sub(r"\1 \2 UTC", str(value))


class CommandFailure(Exception):
    """Ends a command with a message and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def fail(message: str, code: int) -> NoReturn:
    """End with a message, which `errors.run` prints for people or machines."""
    raise CommandFailure(message, code)


def show_left_out(faults: Sequence[object]) -> None:
    """Say on stderr which faults of templates keep these from being shown."""
    for fault in faults:
        err.print(f"left out: {fault}", markup=False)


def plural(count: int, noun: str) -> str:
    """A count with its noun, which is in the singular for 1."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def escape(text: str) -> str:
    """Text that may contain square brackets, for a rich console."""
    return text.replace("[", r"\[")


@contextmanager
def progress(label: str, total: int | None) -> Iterator[tuple[Progress, Any]]:
    """A progress bar on stderr; silent where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        yield bar, bar.add_task(label, total=total)


def account() -> str:
    """The name of this user account; empty where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
