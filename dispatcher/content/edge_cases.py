"""Values that break layouts: long names, no name, names from right to left, emoji, huge amounts, none, one and many. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dispatcher.content.declaration import TemplateVariable
from dispatcher.content.preview import data_sets
from dispatcher.content.template import Template

_NUMERIC = ("money", "number")
STRESS_TEST = "long-texts"  # the key of a case that is longer than any real value
_LONG = "Maximiliaan-Alexander van der Straeten de Ponthière-Wittgenstein"


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """Values in place of the examples. `key` names the case in an address, `title` for people."""

    key: str
    title: str
    data: Mapping[str, Any]


def edge_cases(template: Template) -> tuple[EdgeCase, ...]:
    """The cases that make a difference to this template; the first one is its examples."""
    variables = template.variables.values()
    names = [each.name for each in variables if each.type == "text" and each.category == "identity"]
    texts = [each.name for each in variables if each.type == "text"]
    numbers = [each.name for each in variables if each.type in _NUMERIC]
    optional_names = [name for name in names if not template.variables[name].required]
    cases = [
        EdgeCase("examples", "Examples", {}),
        EdgeCase("no-name", "No name", dict.fromkeys(optional_names)),
        EdgeCase("long-name", "Long name", dict.fromkeys(names, _LONG)),
        EdgeCase("rtl-name", "Name from right to left", dict.fromkeys(names, "محمد عبد الرحمن")),
        EdgeCase("emoji-name", "Emoji", dict.fromkeys(names, "Zoë 🎉👩‍👩‍👧")),
        EdgeCase(STRESS_TEST, "Long texts", {name: " ".join([_text(template.variables[name])] * 4) for name in texts}),
        EdgeCase("huge", "Huge amounts", dict.fromkeys(numbers, 987_654_321.09)),
        EdgeCase("none", "0", dict.fromkeys(numbers, 0)),
        EdgeCase("one", "1", dict.fromkeys(numbers, 1)),
        EdgeCase("many", "Many", dict.fromkeys(numbers, 1_234)),
    ]
    for number, (which, data) in enumerate(data_sets(template)):
        if number:
            cases.append(EdgeCase(f"set-{number}", which.strip().capitalize(), data))
    return tuple(case for case in cases if case.data or case.key == "examples")


def case_of(template: Template, key: str) -> EdgeCase:
    """The case with this key; the examples where the template has none."""
    cases = edge_cases(template)
    return next((case for case in cases if case.key == key), cases[0])


def _text(variable: TemplateVariable) -> str:
    return str(next(iter(variable.example.values()), ""))
