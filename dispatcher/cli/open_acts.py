"""The acts of this command that are in the audit log, until their outcome is known: the exit code says it."""

from __future__ import annotations

from collections.abc import Callable

from dispatcher.cli.output import BAD_INPUT, REFUSED

_open: list[Callable[[bool], None]] = []


def add(conclude: Callable[[bool], None]) -> None:
    """Add an act; `conclude` gets whether it was done."""
    _open.append(conclude)


def conclude_all(code: int | None) -> None:
    """Conclude all acts by the exit code. After an interruption or a fault, nobody knows: they stay without an outcome."""
    acts, _open[:] = list(_open), []
    for conclude in acts if code in (0, REFUSED, BAD_INPUT) else ():
        conclude(code == 0)
