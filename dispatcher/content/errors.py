"""What can be wrong with a template folder, and why one message can't be written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from dispatcher.domain.decision import ReasonCode


@dataclass(frozen=True, slots=True, order=True)
class TemplateError:
    """One fault of a template folder. `file` is relative to the folder; `line` counts from 1; `field` is a key or a name
    in the file."""

    file: str
    line: int
    field: str
    value: str
    message: str

    def __str__(self) -> str:
        shown = f" = {self.value!r}" if self.value else ""
        return f"{self.file}:{self.line}: {self.field}{shown}: {self.message}"


class InvalidTemplates(Exception):
    """The folder can't be used. `faults` holds all of them, by file and line."""

    def __init__(self, faults: Iterable[TemplateError]) -> None:
        self.faults: tuple[TemplateError, ...] = tuple(sorted(set(faults)))
        super().__init__("\n".join(map(str, self.faults)))


class ContentRefusal(Exception):
    """This message can't be written for this person.

    `code` is MISSING_VARIABLE, WITHHELD_VARIABLE, CONTENT_GUARD or FAULT; `variable` names the variable, or the guard that objects,
    never a value: a refusal is logged and stored.

    """

    def __init__(self, code: ReasonCode, variable: str) -> None:
        super().__init__(f"{code}: {variable}")
        self.code = code
        self.variable = variable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end a message about an unknown word: the nearest known one, else all of them."""
    names: Sequence[str] = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none are known here"
