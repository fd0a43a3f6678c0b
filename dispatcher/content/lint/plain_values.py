"""Amounts, dates and numbers that a text shows without the filter of their type: "15000" and "2027-03-31", in every language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from dispatcher.content.declaration import TemplateVariable
from dispatcher.content.environment import LANGUAGE_FILTERS, environment
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample, first_by_language

_FILTERS: Mapping[str, tuple[str, ...]] = {
    "money": ("money",),
    "date": ("date",),
    "number": ("number", "percent", "plural", "money"),
}
_ENV = environment({})
_ALIKE_MAX = 999  # whole numbers up to this are written alike in all languages, with and without the filter


def plain_values(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """The findings in the sources of one template."""
    for sample in first_by_language(samples):
        files = sample.template.source
        for part, source in sample.sources.parts[sample.request.language].items():
            if source.is_generated:
                continue
            for line, name, used in _shown(source.source, files):
                variable = sample.template.variables.get(name)
                if variable is None or not _needs(variable, used):
                    continue
                shown = f"| {used}" if used else ""
                finding = sample.finding("T608", source.place(line), f"{part}: {name}", _message(variable), shown)
                yield replace(finding, channels=(part.partition(".")[0],), modes=())


def _message(variable: TemplateVariable) -> str:
    if variable.type not in _FILTERS:
        return f"is of type {variable.type}, which this filter cannot write"
    filters = " or ".join(f"| {each}" for each in _FILTERS[variable.type][:2])
    return f"is of type {variable.type}: write {{{{ {variable.name} {filters} }}}}"


def _needs(variable: TemplateVariable, used: str) -> bool:
    """Whether this variable needs another filter than the one used ("" for none)."""
    filters = _FILTERS.get(variable.type)
    if filters is None:
        return used in LANGUAGE_FILTERS and used != "plural"
    if used:
        return used not in filters
    if variable.type != "number":
        return True
    return any(value != int(value) or abs(value) > _ALIKE_MAX for value in (*variable.example.values(), *variable.samples))


def _callable(tree: nodes.Template, files: Mapping[str, str]) -> dict[str, nodes.Macro]:
    """The macros that a text can call, by name."""
    found = {each.name: each for each in tree.find_all(nodes.Macro)}
    for each in tree.find_all(nodes.FromImport):
        imported = _macros(files.get(str(getattr(each.template, "value", "")), ""))
        for alias in each.names:
            macro, name = alias if isinstance(alias, tuple) else (alias, alias)
            if macro in imported:
                found[name] = imported[macro]
    return found


@lru_cache(maxsize=32)
def _macros(source: str) -> Mapping[str, nodes.Macro]:
    try:
        return {each.name: each for each in _ENV.parse(source).find_all(nodes.Macro)}
    except TemplateSyntaxError:  # which loading reports
        return {}


def _shown(source: str, files: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Line and name of each variable that a text shows, and the first filter of a language that it goes through, or ""."""
    try:
        tree = _ENV.parse(source)
    except TemplateSyntaxError:  # as above
        return
    macros = _callable(tree, files)
    aliases = {
        each.target.name: each.node.name
        for each in tree.find_all(nodes.Assign)
        if isinstance(each.target, nodes.Name) and isinstance(each.node, nodes.Name)
    }
    shown = [node for output in tree.find_all(nodes.Output) for node in output.nodes]
    for node in (*shown, *(block.call for block in tree.find_all(nodes.CallBlock))):
        for line, name, used in _of(node, "", macros):
            yield line, aliases.get(name, name), used


def _of(node: Any, used: str, macros: Mapping[str, nodes.Macro]) -> Iterator[tuple[int, str, str]]:
    """The variables that an expression shows. What it compares, or only tests, is not shown."""
    if isinstance(node, nodes.Name):
        yield node.lineno, node.name, used
    elif isinstance(node, nodes.Filter):
        if node.node is not None and node.name not in ("length", "default", "d") and node.name in _ENV.filters:
            yield from _of(node.node, used or (node.name if node.name in LANGUAGE_FILTERS else ""), macros)
    elif isinstance(node, nodes.CondExpr):
        yield from _of(node.expr1, used, macros)
        yield from _of(node.expr2, used, macros) if node.expr2 is not None else ()
    elif isinstance(node, nodes.Call):
        yield from _arguments(node, used, macros)
    elif isinstance(node, nodes.Concat | nodes.And | nodes.Or | nodes.BinExpr | nodes.Neg) and not isinstance(node, nodes.Compare):
        for child in node.iter_child_nodes():
            yield from _of(child, used, macros)


def _arguments(call: nodes.Call, used: str, macros: Mapping[str, nodes.Macro]) -> Iterator[tuple[int, str, str]]:
    """The variables that a macro is called with, but for those that the macro itself gives to a filter."""
    macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
    names = [each.name for each in macro.args] if macro else []
    filtered = {
        each.node.name
        for each in (macro.find_all(nodes.Filter) if macro else ())
        if isinstance(each.node, nodes.Name) and each.name in LANGUAGE_FILTERS
    }
    positional = [(names[place] if place < len(names) else "", value) for place, value in enumerate(call.args)]
    for parameter, value in (*positional, *((each.key, each.value) for each in call.kwargs)):
        if parameter not in filtered:
            yield from _of(value, used, macros)
