"""Writing a template's texts without running the template again for everybody.

A template does for most people what it did for somebody before: the same tests turn out the same way, the same words come out, and
other values stand between them. So the real template is run once with values that note what it asks of them (`traced`). What it
asked, with the answers, is a path: one way through a tree of questions. What it wrote are the path's words, with gaps for values.
Whoever gives the same answers gets the same words with their own values in the gaps.

That must be, byte for byte, what the template would have written. A template is followed only where its syntax allows no other
outcome (`is_traceable`); each new path is held against the template itself, for the person at hand and for hostile values; and a
share of all texts is written both ways for ever. At the first difference this template is written the ordinary way from then on,
and a person is told.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jinja2
import structlog

from dispatcher.content.specialiser.compiled_path import CompiledPath, RenderPlan, Texts, compile_path, verify
from dispatcher.content.specialiser.syntax_check import is_traceable
from dispatcher.content.specialiser.tracer import TYPES, Condition, Trace, Values

PATHS_MAX = 128  # per template: about 50 KB each where a mail has typographic characters
CHECKED_SHARE = 0.001

log = structlog.get_logger()


class RenderedParts(NamedTuple):
    """What was written: texts, or where a path was taken, that path and the person's fillings."""

    ordinary: Texts | None
    path: CompiledPath | None = None
    values_by_tag: tuple[str, ...] = ()

    def texts(self) -> Texts:
        """All parts, put together."""
        if self.path is not None:
            return self.path.texts(self.values_by_tag)
        assert self.ordinary is not None  # noqa: S101  one or the other
        return self.ordinary


@dataclass(slots=True, eq=False)
class _Branch:
    question: Condition
    ask: Callable[[Values], Any]
    yes: _Node = None
    no: _Node = None


_UNTRACEABLE = "ordinary"  # where a path can't be followed
_Node: TypeAlias = _Branch | CompiledPath | str | None  # None: nobody came here yet


class Specialiser:
    """The paths of one template. `dice` gives numbers from 0 to 1: where it is below CHECKED_SHARE, a text is written both ways."""

    def __init__(self, name: str, digest: str, random: Callable[[], float], paths_max: int = PATHS_MAX) -> None:
        self._name, self._digest, self._dice, self._paths_max = name, digest, random, paths_max
        self._roots: dict[Hashable, _Node] = {}
        self._followable: dict[str, bool] = {}
        self.paths = 0
        self.off = False

    def write(self, key: Hashable, values: Values, plan: Callable[[], RenderPlan]) -> RenderedParts:
        """What `plan().texts(values)` gives. Whoever shares a `key` must share all of a plan but the values.

        Raises whatever Jinja raises.
        """
        path: CompiledPath | None = None
        values_by_tag: tuple[str, ...] = ()
        try:
            path = None if self.off else self._path(key, values, plan)
            values_by_tag = path.values_by_tag(values) if path else ()
        except Exception:  # whatever a filter or comparison makes of these values, the template itself shall say it
            path = None
        if path is None or (self._dice() < CHECKED_SHARE and not self._holds(path.texts(values_by_tag), values, plan())):
            return RenderedParts(plan().texts(values))
        return RenderedParts(None, path, values_by_tag)

    def _holds(self, texts: Texts, values: Values, plan: RenderPlan) -> bool:
        """Whether the template itself writes these texts. Where it does not, no path is taken any more."""
        try:
            same = plan.texts(values) == texts
        except Exception:
            same = False
        if not same:
            self.off = True
            log.error("specialised_text_differs", template=self._name, digest=self._digest)
        return same

    def _path(self, key: Hashable, values: Values, plan: Callable[[], RenderPlan]) -> CompiledPath | None:
        """The path that these values take, perhaps as the first to do so."""
        types = tuple(map(type, values.values()))
        if not TYPES.issuperset(types):
            return None
        root = (key, tuple(values), types)  # which values there are, and of what type, is not asked but known
        node = self._roots.get(root)
        while isinstance(node, _Branch):
            node = node.yes if node.ask(values) else node.no
        if node is None and self.paths < self._paths_max:
            node = self._learn(root, values, plan())
        return node if isinstance(node, CompiledPath) else None

    def _learn(self, root: Hashable, values: Values, plan: RenderPlan) -> _Node:
        """Follow the template for this person, and remember where that led."""
        self.paths += 1
        trace = Trace(values)
        leaf: _Node = _UNTRACEABLE
        try:
            if all(self._may_follow(template) for template in plan.parts.values()):
                path = compile_path(plan, trace)
                if verify(path, plan, trace):
                    path.kept = plan.keep(path)
                    leaf = path
        except Exception as error:  # an error that the template makes by itself is told by the ordinary way
            log.debug("template_not_followed", template=self._name, error=type(error).__name__)
        self._roots[root] = _insert(self._roots.get(root), list(trace.answers.items()), leaf)
        return leaf

    def _may_follow(self, template: jinja2.Template) -> bool:
        name = str(template.name)
        if name not in self._followable:
            self._followable[name] = is_traceable(template)
        return self._followable[name]


def _insert(node: _Node, answers: Sequence[tuple[Condition, bool]], leaf: _Node) -> _Node:
    """The tree with one more leaf. Where another question stands than was asked, the tree stays as it is."""
    if not answers:
        return leaf
    question, answer = answers[0]
    fork = _Branch(question, question.asker()) if node is None else node
    if isinstance(fork, _Branch) and fork.question == question:
        if answer:
            fork.yes = _insert(fork.yes, answers[1:], leaf)
        else:
            fork.no = _insert(fork.no, answers[1:], leaf)
    return fork
