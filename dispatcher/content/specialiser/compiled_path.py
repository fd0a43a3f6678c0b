"""Compiled paths: the output of a template for all values that give the same answers to its conditions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias

import jinja2
from markupsafe import escape

from channels.base import TextTemplate
from dispatcher.content.specialiser.tracer import Derivation, Trace, Untraceable, Values, split_at_marks, tracing_environment

Texts: TypeAlias = dict[str, str]  # by the name of the part, such as "email.html"
Postprocess: TypeAlias = Callable[[str], str]

# Hostile values, five of each type: a path must be correct for them too.
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
    """The templates to render, and how.

    `context` makes the Jinja context from values, or from traced values. `postprocess` maps the text of a part character by
    character, so it can be applied to the pieces of a text, too. `attach` returns what the caller stores with a new path.
    `complete` adds the values that are made on demand; each has the same name and type for all recipients.
    """

    parts: Mapping[str, jinja2.Template]
    context: Callable[[Values], Mapping[str, Any]]
    postprocess: Mapping[str, Postprocess] = field(default_factory=dict)
    attach: Callable[[CompiledPath], Any] = lambda _: None
    complete: Callable[[Values], Values] = lambda values: values

    def texts(self, values: Values) -> Texts:
        """All parts, rendered with Jinja. Raises whatever Jinja raises."""
        return self.render(self.context(values))

    def render(self, context: Mapping[str, Any]) -> Texts:
        """All parts, rendered with Jinja from a complete context."""
        return {part: self.postprocess.get(part, str)(template.render(context)) for part, template in self.parts.items()}


@dataclass(slots=True, eq=False)
class CompiledPath:
    """The output of a template for all values that give the same answers.

    A gap's number is an index into `values_by_tag`: first the result of each derivation; then those in `escaped`, escaped for
    HTML; then those in `postprocessed`, postprocessed.
    """

    derivations: tuple[Derivation, ...]
    escaped: tuple[int, ...]  # indexes of derivations
    postprocessed: tuple[tuple[int, Postprocess], ...]
    parts: Mapping[str, TextTemplate]
    attachment: Any = None
    _getters: tuple[Callable[[Values], Any], ...] = ()

    def __post_init__(self) -> None:
        self._getters = tuple(derivation.getter() for derivation in self.derivations)

    def values_by_tag(self, values: Values) -> tuple[str, ...]:
        """The text for each gap, from one person's values."""
        texts = [str(get(values)) for get in self._getters]
        escaped = _escape_all([texts[number] for number in self.escaped])
        return (*texts, *escaped, *[postprocess(texts[number]) for number, postprocess in self.postprocessed])

    def texts(self, values_by_tag: Sequence[str]) -> Texts:
        """All parts, filled."""
        return {part: gapped.fill(values_by_tag) for part, gapped in self.parts.items()}

    def gaps(self, name: str, *, in_html: bool) -> frozenset[int]:
        """The gaps that contain exactly the value of this name."""
        wanted = Derivation(name)
        if in_html:
            return frozenset(gap for gap in self.html_gaps if self.derivations[self.escaped[gap - len(self.derivations)]] == wanted)
        return frozenset(gap for gap, derivation in enumerate(self.derivations) if derivation == wanted)

    @property
    def html_gaps(self) -> range:
        """The gaps with escaped text."""
        return range(len(self.derivations), len(self.derivations) + len(self.escaped))


def _escape_all(texts: Sequence[str]) -> Sequence[str]:
    """Escape all texts for HTML in one call, joined by a character that HTML does not escape."""
    joined = str(escape("\0".join(texts))).split("\0")
    return joined if len(joined) == len(texts) else [str(escape(text)) for text in texts]


def compile_path(plan: RenderPlan, trace: Trace) -> CompiledPath:
    """The path that these values take. Raises `Untraceable`, and whatever the template raises on traced values."""
    context = plan.context(trace.context())
    pieces_by_part: dict[str, list[tuple[str, int, bool]]] = {}
    for part, template in plan.parts.items():
        traced_template = tracing_environment(template.environment).get_template(str(template.name))
        pieces_by_part[part] = list(split_at_marks(traced_template.render(context)))
    derivations = tuple(trace.derivations)
    presentations: dict[tuple[int, Postprocess | None], int] = {(number, str): number for number in range(len(derivations))}
    for in_html in (True, False):  # the order of `values_by_tag`
        for part, pieces in pieces_by_part.items():
            for _, number, escaped in pieces:
                if number >= 0 and escaped is in_html:
                    presentations.setdefault((number, _presentation(plan.postprocess.get(part, str), escaped)), len(presentations))
    parts = {}
    for part, pieces in pieces_by_part.items():
        postprocess = plan.postprocess.get(part, str)
        words = tuple(postprocess(before) for before, _, _ in pieces)
        "".join(words).encode()  # raises if the text is not valid Unicode
        parts[part] = TextTemplate(
            words, tuple(presentations[number, _presentation(postprocess, escaped)] for _, number, escaped in pieces if number >= 0)
        )
    extra = list(presentations)[len(derivations) :]
    return CompiledPath(
        derivations,
        tuple(number for number, presentation in extra if presentation is None),
        tuple((number, presentation) for number, presentation in extra if presentation is not None),
        parts,
    )


def _presentation(postprocess: Postprocess, escaped: bool) -> Postprocess | None:
    """How a value is shown: by this function, or escaped for HTML (None)."""
    if escaped and postprocess is not str:
        raise Untraceable
    return None if escaped else postprocess


def verify(path: CompiledPath, plan: RenderPlan, trace: Trace) -> bool:
    """Whether path and template give equal texts, for the traced values and for all probes that take the same path."""
    return all(path.texts(path.values_by_tag(values)) == plan.texts(values) for values in (trace.values, *_probes(trace)))


def _probes(trace: Trace) -> Iterator[Values]:
    """The traced values, replaced by hostile ones; as many at once as possible without a change of an answer."""
    for number in range(len(_PROBES[str])):
        probe = {name: _PROBES[type(value)][number] for name, value in trace.values.items()}
        while names := set(_values_that_change_answers(trace, probe)):
            probe |= {name: trace.values[name] for name in names}
        yield probe


def _values_that_change_answers(trace: Trace, probe: Values) -> Iterator[str]:
    """The names of replaced values that change an answer."""
    for condition, answer in trace.answers.items():
        try:
            unchanged = bool(condition.evaluator()(probe)) == answer
        except Exception:
            unchanged = False
        if not unchanged:
            yield from (name for name in condition.names if probe[name] is not trace.values[name])
