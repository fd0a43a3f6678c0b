"""Writing a template's texts without running the template again for everybody.

A template does for most people what it did for somebody before: the same tests turn out the same way, the same words come out, and
other values stand between them. So the real template is run once with values that note what it asks of them (`traced`). What it
asked, with the answers, is a path: one way through a tree of questions. What it wrote are the path's words, with gaps for values.
Whoever gives the same answers gets the same words with their own values in the gaps.

That must be, byte for byte, what the template would have written. A template is followed only where its syntax allows no other
outcome (`followable`); each new path is held against the template itself, for the person at hand and for hostile values; and a
share of all texts is written both ways for ever. At the first difference this template is written the ordinary way from then on,
and a person is told.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import jinja2
import structlog
from markupsafe import escape

from channels.base import Gapped
from dispatcher.content.followable import followable
from dispatcher.content.traced import TYPES, Lost, Question, Recipe, Trace, Values, cut, tracing

PATHS_MAX = 128  # per template: about 50 KB each where a mail has typographic characters
CHECKED_SHARE = 0.001

Texts: TypeAlias = dict[str, str]  # by the name of the part, such as "email.html"
Finish: TypeAlias = Callable[[str], str]

log = structlog.get_logger()

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
class Plan:
    """What is to be written, and from what.

    `finish` is done to the text of a part, character by character: so it may as well be done to its pieces. `context` puts values,
    or what stands for them, among all else that the template is told. `keep` says what its owner wants to keep with a new path.
    """

    parts: Mapping[str, jinja2.Template]
    context: Callable[[Values], Mapping[str, Any]]
    finish: Mapping[str, Finish] = field(default_factory=dict)
    keep: Callable[[Path], Any] = lambda _: None

    def texts(self, values: Values) -> Texts:
        """All parts, written the ordinary way. Raises whatever Jinja raises."""
        return self.rendered(self.context(values))

    def rendered(self, context: Mapping[str, Any]) -> Texts:
        """All parts, written from a whole context."""
        return {part: self.finish.get(part, str)(template.render(context)) for part, template in self.parts.items()}


@dataclass(slots=True, eq=False)
class Path:
    """What a template writes for all who give the same answers.

    A gap's number is a place in `fillings`: first what each of the `recipes` gives, as it is; then what those in `escaped` give,
    as it stands in HTML; then what those in `finished` give, finished.
    """

    recipes: tuple[Recipe, ...]
    escaped: tuple[int, ...]  # numbers of recipes
    finished: tuple[tuple[int, Finish], ...]
    parts: Mapping[str, Gapped]
    kept: Any = None
    _getters: tuple[Callable[[Values], Any], ...] = ()

    def __post_init__(self) -> None:
        self._getters = tuple(recipe.getter() for recipe in self.recipes)

    def fillings(self, values: Values) -> tuple[str, ...]:
        """A person's text for every gap."""
        shown = [str(get(values)) for get in self._getters]
        escaped = _escaped([shown[number] for number in self.escaped])
        return (*shown, *escaped, *[finish(shown[number]) for number, finish in self.finished])

    def texts(self, fillings: Sequence[str]) -> Texts:
        """All parts, filled."""
        return {part: gapped.filled(fillings) for part, gapped in self.parts.items()}

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


class Written(NamedTuple):
    """What was written: texts, or where a path was taken, that path and the person's fillings."""

    ordinary: Texts | None
    path: Path | None = None
    fillings: tuple[str, ...] = ()

    def texts(self) -> Texts:
        """All parts, put together."""
        if self.path is not None:
            return self.path.texts(self.fillings)
        assert self.ordinary is not None  # noqa: S101  one or the other
        return self.ordinary


@dataclass(slots=True, eq=False)
class _Fork:
    question: Question
    ask: Callable[[Values], Any]
    yes: _Node = None
    no: _Node = None


_ORDINARY = "ordinary"  # where a path can't be followed
_Node: TypeAlias = _Fork | Path | str | None  # None: nobody came here yet


class Specialiser:
    """The paths of one template. `dice` gives numbers from 0 to 1: where it is below CHECKED_SHARE, a text is written both ways."""

    def __init__(self, name: str, digest: str, dice: Callable[[], float], paths_max: int = PATHS_MAX) -> None:
        self._name, self._digest, self._dice, self._paths_max = name, digest, dice, paths_max
        self._roots: dict[Hashable, _Node] = {}
        self._followable: dict[str, bool] = {}
        self.paths = 0
        self.off = False

    def write(self, key: Hashable, values: Values, plan: Callable[[], Plan]) -> Written:
        """What `plan().texts(values)` gives. Whoever shares a `key` must share all of a plan but the values.

        Raises whatever Jinja raises.
        """
        if self.off or not TYPES.issuperset(map(type, values.values())):
            return Written(plan().texts(values))
        root = (key, tuple(values))  # which values there are decides what a template may ask
        try:
            node = self._roots.get(root)
            while isinstance(node, _Fork):
                node = node.yes if node.ask(values) else node.no
            if node is None and self.paths < self._paths_max:
                node = self._learn(root, values, plan())
            if not isinstance(node, Path):
                return Written(plan().texts(values))
            fillings = node.fillings(values)
        except Exception:  # whatever a filter or comparison makes of these values, the template itself shall say it
            return Written(plan().texts(values))
        if self._dice() < CHECKED_SHARE and (ordinary := plan().texts(values)) != node.texts(fillings):
            self.off = True
            log.error("specialised_text_differs", template=self._name, digest=self._digest)
            return Written(ordinary)
        return Written(None, node, fillings)

    def _learn(self, root: Hashable, values: Values, plan: Plan) -> _Node:
        """Follow the template for this person, and remember where that led."""
        self.paths += 1
        trace = Trace(values)
        leaf: _Node = _ORDINARY
        try:
            if all(self._may_follow(template) for template in plan.parts.values()):
                path = _followed(plan, trace)
                if _proven(path, plan, trace):
                    path.kept = plan.keep(path)
                    leaf = path
        except Exception as error:  # an error that the template makes by itself is told by the ordinary way
            log.debug("template_not_followed", template=self._name, error=type(error).__name__)
        self._roots[root] = _planted(self._roots.get(root), list(trace.answers.items()), leaf)
        return leaf

    def _may_follow(self, template: jinja2.Template) -> bool:
        name = str(template.name)
        if name not in self._followable:
            self._followable[name] = followable(template)
        return self._followable[name]


def _escaped(texts: Sequence[str]) -> Sequence[str]:
    """The texts as they stand in HTML, all at once: what is between them is no character that HTML would escape."""
    together = str(escape("\0".join(texts))).split("\0")
    return together if len(together) == len(texts) else [str(escape(text)) for text in texts]


def _followed(plan: Plan, trace: Trace) -> Path:
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
        parts[part] = Gapped(words, tuple(shows[number, _show(finish, escaped)] for _, number, escaped in pieces if number >= 0))
    extra = list(shows)[len(recipes) :]
    return Path(
        recipes,
        tuple(number for number, show in extra if show is None),
        tuple((number, show) for number, show in extra if show is not None),
        parts,
    )


def _show(finish: Finish, escaped: bool) -> Finish | None:
    """How a value is shown: None for as it stands in HTML."""
    if escaped and finish is not str:
        raise Lost
    return None if escaped else finish


def _planted(node: _Node, answers: Sequence[tuple[Question, bool]], leaf: _Node) -> _Node:
    """The tree with one more leaf. Where another question stands than was asked, the tree stays as it is."""
    if not answers:
        return leaf
    question, answer = answers[0]
    fork = _Fork(question, question.asker()) if node is None else node
    if isinstance(fork, _Fork) and fork.question == question:
        if answer:
            fork.yes = _planted(fork.yes, answers[1:], leaf)
        else:
            fork.no = _planted(fork.no, answers[1:], leaf)
    return fork


def _proven(path: Path, plan: Plan, trace: Trace) -> bool:
    """Whether the path says what the template says, for the person at hand and for all probes that take the same path."""
    return all(path.texts(path.fillings(values)) == plan.texts(values) for values in (trace.values, *_probes(trace)))


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
