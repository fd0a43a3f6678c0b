"""Render a template's texts without running Jinja again for each recipient.

For most recipients a template does the same as for an earlier one: its conditions have the same results, and the same text
comes out, with other values in it. So the template runs once with values that record each condition on them (`tracer`). The
conditions with their answers are a path through a decision tree. The output is the path's text, with gaps for values. Values
that give the same answers get the same text, with themselves in the gaps.

The result must equal the template's own output, byte for byte. A template is traced only if its syntax guarantees this
(`syntax_check`); each new path is compared with the template itself, for the recipient's values and for hostile values; and a
share of all texts is always rendered both ways. After the first difference, Jinja renders this template from then on, and the
error is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jinja2
import structlog

from dispatcher.content.render_counts import COUNTS
from dispatcher.content.specialiser.compiled_path import CompiledPath, RenderPlan, Texts, compile_path, verify
from dispatcher.content.specialiser.syntax_check import is_traceable
from dispatcher.content.specialiser.tracer import TYPES, Condition, Trace, Values

PATHS_MAX = 128  # per template: about 50 KB each where a mail has typographic characters
CHECKED_SHARE = 0.001

log = structlog.get_logger()


class RenderedParts(NamedTuple):
    """The result of rendering: texts, or a path and the texts for its gaps."""

    plain_texts: Texts | None
    path: CompiledPath | None = None
    values_by_tag: tuple[str, ...] = ()

    def texts(self) -> Texts:
        """All parts as complete texts."""
        if self.path is not None:
            return self.path.texts(self.values_by_tag)
        assert self.plain_texts is not None  # noqa: S101  there is one or the other
        return self.plain_texts


@dataclass(slots=True, eq=False)
class _Branch:
    condition: Condition
    evaluate: Callable[[Values], Any]
    if_true: _Node = None
    if_false: _Node = None


_UNTRACEABLE = "untraceable"  # here Jinja renders
_Node: TypeAlias = _Branch | CompiledPath | str | None  # None: not reached yet


class Specialiser:
    """The paths of one template. `random` returns numbers from 0 to 1: below CHECKED_SHARE, a text is rendered both ways."""

    def __init__(self, name: str, digest: str, random: Callable[[], float], paths_max: int = PATHS_MAX) -> None:
        self._name, self._digest, self._random, self._paths_max = name, digest, random, paths_max
        self._roots: dict[Hashable, _Node] = {}
        self._traceable: dict[str, bool] = {}
        self.paths = 0
        self.disabled = False

    def render(self, key: Hashable, values: Values, plan: Callable[[], RenderPlan]) -> RenderedParts:
        """The same result as `plan().texts(values)`. Calls with an equal `key` must have plans that differ in the values only.

        Raises whatever Jinja raises.
        """
        path: CompiledPath | None = None
        values_by_tag: tuple[str, ...] = ()
        try:
            path = None if self.disabled else self._path(key, values, plan)
            values_by_tag = path.values_by_tag(values) if path else ()
        except Exception:  # a filter or comparison fails on these values: the template itself must raise the error
            path = None
        if path is None or (
            self._random() < CHECKED_SHARE and not self._matches_template(path.texts(values_by_tag), values, plan())
        ):
            COUNTS.by_template += 1
            return RenderedParts(plan().texts(values))
        COUNTS.compiled += 1
        return RenderedParts(None, path, values_by_tag)

    def _matches_template(self, texts: Texts, values: Values, plan: RenderPlan) -> bool:
        """Whether the template itself gives these texts. If not, disable all paths of this template."""
        try:
            same = plan.texts(values) == texts
        except Exception:
            same = False
        if not same:
            self.disabled = True
            log.error("specialised_text_differs", template=self._name, digest=self._digest)
        return same

    def _path(self, key: Hashable, values: Values, plan: Callable[[], RenderPlan]) -> CompiledPath | None:
        """The path that these values take; compiled now if they are the first."""
        types = tuple(map(type, values.values()))
        if not TYPES.issuperset(types):
            return None
        root = (key, tuple(values), types)  # the names and types of the values need no condition
        node = self._roots.get(root)
        while isinstance(node, _Branch):
            node = node.if_true if node.evaluate(values) else node.if_false
        if node is None and self.paths < self._paths_max:
            node = self._compile(root, values, plan())
        return node if isinstance(node, CompiledPath) else None

    def _compile(self, root: Hashable, values: Values, plan: RenderPlan) -> _Node:
        """Trace the template with these values, and store the result in the tree."""
        self.paths += 1
        trace = Trace(plan.complete(values))
        leaf: _Node = _UNTRACEABLE
        try:
            if all(self._is_traceable(template) for template in plan.parts.values()):
                path = compile_path(plan, trace)
                if verify(path, plan, trace):
                    path.attachment = plan.attach(path)
                    leaf = path
        except Exception as error:  # if the error is the template's own, the rendering with Jinja raises it again
            log.debug("template_not_followed", template=self._name, error=type(error).__name__)
        self._roots[root] = _insert(self._roots.get(root), list(trace.answers.items()), leaf)
        return leaf

    def _is_traceable(self, template: jinja2.Template) -> bool:
        name = str(template.name)
        if name not in self._traceable:
            self._traceable[name] = is_traceable(template)
        return self._traceable[name]


def _insert(node: _Node, answers: Sequence[tuple[Condition, bool]], leaf: _Node) -> _Node:
    """The tree with one more leaf. If the tree has another condition at this point, it stays unchanged."""
    if not answers:
        return leaf
    condition, answer = answers[0]
    branch = _Branch(condition, condition.evaluator()) if node is None else node
    if isinstance(branch, _Branch) and branch.condition == condition:
        if answer:
            branch.if_true = _insert(branch.if_true, answers[1:], leaf)
        else:
            branch.if_false = _insert(branch.if_false, answers[1:], leaf)
    return branch
