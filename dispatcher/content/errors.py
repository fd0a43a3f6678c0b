"""Errors of a template folder, and refusals to render one message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dispatcher.domain.decision import ReasonCode


@dataclass(frozen=True, slots=True, order=True)
class TemplateError:
    """One fault of a template folder. `file` is relative to the folder, `line` counts from 1, `field` is a key or a name."""

    file: str
    line: int
    field: str
    value: str
    message: str

    def __str__(self) -> str:
        shown = f" = {self.value!r}" if self.value else ""
        return f"{self.file}:{self.line}: {self.field}{shown}: {self.message}"


class InvalidTemplates(Exception):
    """The folder cannot be used. `faults` holds all faults, by file and line."""

    def __init__(self, faults: Iterable[TemplateError]) -> None:
        self.faults: tuple[TemplateError, ...] = tuple(sorted(set(faults)))
        super().__init__("\n".join(map(str, self.faults)))


class ContentRefusal(Exception):
    """This message cannot be rendered for this person.

    `code` is MISSING_VARIABLE, WITHHELD_VARIABLE, CONTENT_GUARD or FAULT. `variable` is the name of the variable or of the
    failed check, never a value: a refusal is logged and stored.
    """

    def __init__(self, code: ReasonCode, variable: str) -> None:
        super().__init__(f"{code}: {variable}")
        self.code = code
        self.variable = variable
