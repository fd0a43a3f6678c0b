"""Paths through templates: what a template writes for all who give it the same answers, found and proven. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias

import jinja2
from markupsafe import escape

from channels.base import TextTemplate
from dispatcher.content.specialiser.tracer import Recipe, Trace, Untraceable, Values, cut, tracing

Texts: TypeAlias = dict[str, str]  # by the name of the part, such as "email.html"
Finish: TypeAlias = Callable[[str], str]

# Values that no careful person would send, five of each type: a path must hold for them too.
_PROBES: Mapping[type, Sequence[Any]] = {
    str: (
        "<b>&amp;\"'</b>",
        "\ue0f0<aZ0>\ue0f1 \u00e9\U0001f600 \ue0f0&lt;aZ1&gt;\ue0f1",
        "",
        "\u00df\u0130\u0149 lOng" * 300,
        "two\nlines\t\x00 {{ x }} %s href=",
    ),
    int: (0, 1, -7, 10**9, 2),
    Decimal: tuple(map(Decimal, ("0", "1", "-1.50", "1234567.891", "1E+3"))),
    date: (date(2024, 2, 29), date(1999, 12, 31), date(2026, 11, 23), date.min, date.max),
}


@dataclass(frozen=True, slots=True, eq=False)
class RenderPlan:
    """What is to be written, and from what.

    `finish` is done to the text of a part, character by character: so it may as well be done to its pieces. `context` puts values,
    or what stands for them, among all else that the template is told. `keep` says what its owner wants to keep with a new path.
    """

    parts: Mapping[str, jinja2.Template]
    context: Callable[[Values], Mapping[str, Any]]
    finish: Mapping[str, Finish] = field(default_factory=dict)
    keep: Callable[[CompiledPath], Any] = lambda _: None

    def texts(self, values: Values) -> Texts:
        """All parts, written the ordinary way. Raises whatever Jinja raises."""
        return self.rendered(self.context(values))

    def rendered(self, context: Mapping[str, Any]) -> Texts:
        """All parts, written from a whole context."""
        return {part: self.finish.get(part, str)(template.render(context)) for part, template in self.parts.items()}


@dataclass(slots=True, eq=False)
class CompiledPath:
    """What a template writes for all who give the same answers.

    A gap's number is a place in `fillings`: first what each of the `recipes` gives, as it is; then what those in `escaped` give,
    as it stands in HTML; then what those in `finished` give, finished.
    """

    recipes: tuple[Recipe, ...]
    escaped: tuple[int, ...]  # numbers of recipes
    finished: tuple[tuple[int, Finish], ...]
    parts: Mapping[str, TextTemplate]
    kept: Any = None
    _getters: tuple[Callable[[Values], Any], ...] = ()

    def __post_init__(self) -> None:
        self._getters = tuple(recipe.getter() for recipe in self.recipes)

    def values_by_tag(self, values: Values) -> tuple[str, ...]:
        """A person's text for every gap."""
        shown = [str(get(values)) for get in self._getters]
        escaped = _escaped([shown[number] for number in self.escaped])
        return (*shown, *escaped, *[finish(shown[number]) for number, finish in self.finished])

    def texts(self, values_by_tag: Sequence[str]) -> Texts:
        """All parts, filled."""
        return {part: gapped.fill(values_by_tag) for part, gapped in self.parts.items()}

    def gaps(self, name: str, *, in_html: bool) -> frozenset[int]:
        """The gaps that hold the value of this name, and nothing else."""
        wanted = Recipe(name)
        if in_html:
            return frozenset(gap for gap in self.html_gaps if self.recipes[self.escaped[gap - len(self.recipes)]] == wanted)
        return frozenset(gap for gap, recipe in enumerate(self.recipes) if recipe == wanted)

    @property
    def html_gaps(self) -> range:
        """The gaps whose fillings are escaped."""
        return range(len(self.recipes), len(self.recipes) + len(self.escaped))


def _escaped(texts: Sequence[str]) -> Sequence[str]:
    """The texts as they stand in HTML, all at once: what is between them is no character that HTML would escape."""
    together = str(escape("\0".join(texts))).split("\0")
    return together if len(together) == len(texts) else [str(escape(text)) for text in texts]


def follow(plan: RenderPlan, trace: Trace) -> CompiledPath:
    """The path that these values take. Raises Lost, and whatever the template makes of traced values."""
    context = plan.context(trace.context())
    cuts: dict[str, list[tuple[str, int, bool]]] = {}
    for part, template in plan.parts.items():
        twin = tracing(template.environment).get_template(str(template.name))
        cuts[part] = list(cut(twin.render(context)))
    recipes = tuple(trace.recipes)
    shows: dict[tuple[int, Finish | None], int] = {(number, str): number for number in range(len(recipes))}
    for in_html in (True, False):  # the order of a path's fillings
        for part, pieces in cuts.items():
            for _, number, escaped in pieces:
                if number >= 0 and escaped is in_html:
                    shows.setdefault((number, _show(plan.finish.get(part, str), escaped)), len(shows))
    parts = {}
    for part, pieces in cuts.items():
        finish = plan.finish.get(part, str)
        words = tuple(finish(before) for before, _, _ in pieces)
        "".join(words).encode()  # what is no Unicode has no place in a path
        parts[part] = TextTemplate(
            words, tuple(shows[number, _show(finish, escaped)] for _, number, escaped in pieces if number >= 0)
        )
    extra = list(shows)[len(recipes) :]
    return CompiledPath(
        recipes,
        tuple(number for number, show in extra if show is None),
        tuple((number, show) for number, show in extra if show is not None),
        parts,
    )


def _show(finish: Finish, escaped: bool) -> Finish | None:
    """How a value is shown: None for as it stands in HTML."""
    if escaped and finish is not str:
        raise Untraceable
    return None if escaped else finish


def proven(path: CompiledPath, plan: RenderPlan, trace: Trace) -> bool:
    """Whether the path says what the template says, for the person at hand and for all probes that take the same path."""
    return all(path.texts(path.values_by_tag(values)) == plan.texts(values) for values in (trace.values, *_probes(trace)))


def _probes(trace: Trace) -> Iterator[Values]:
    """The person's values replaced by hostile ones, as many at once as leave the answers what they are."""
    for number in range(len(_PROBES[str])):
        probe = {name: _PROBES[type(value)][number] for name, value in trace.values.items()}
        while strays := set(_strays(trace, probe)):
            probe |= {name: trace.values[name] for name in strays}
        yield probe


def _strays(trace: Trace, probe: Values) -> Iterator[str]:
    """The names of replaced values by which an answer becomes another one."""
    for question, answer in trace.answers.items():
        try:
            kept = bool(question.asker()(probe)) == answer
        except Exception:
            kept = False
        if not kept:
            yield from (name for name in question.names if probe[name] is not trace.values[name])
