"""Whether a template can be traced, by its syntax alone. Pure.

While a template is traced (see `decision_tree`), its output contains a mark in place of each value. This is correct as long as
the template only outputs text or passes it on. A template that *inspects* its own output (tests, compares or filters a macro's
result, a captured block, a concatenation) would inspect the mark. So it may inspect only plain values: values of the context,
through known filters, and names that are bound to nothing else. A template with unknown syntax is not traced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import jinja2
from jinja2 import nodes

DERIVING_FILTERS = frozenset({"capitalize", "date", "length", "lower", "money", "number", "percent", "plural", "trim", "upper"})
_FILTERS = DERIVING_FILTERS | {"d", "default"}
_TESTS = frozenset({"==", "defined", "eq", "equalto", "ge", "gt", "in", "le", "lessthan", "lt", "ne", "none", "undefined"})
_LOOP = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
_CONTEXT_DICTS = frozenset({"sender", "links", "theme"})  # dicts of the context: their items are values
_BUILT_IN = frozenset({"caller", "kwargs", "loop", "self", "super", "varargs"})
_REFERENCES = (nodes.Extends, nodes.Include, nodes.FromImport)
_KNOWN = frozenset(
    {
        *(nodes.Template, nodes.TemplateData, nodes.Output, nodes.Const, nodes.Name, nodes.Getattr, nodes.List, nodes.Tuple),
        *(nodes.Block, nodes.Extends, nodes.Include, nodes.FromImport, nodes.Macro, nodes.Call, nodes.CallBlock, nodes.Keyword),
        *(nodes.If, nodes.CondExpr, nodes.For, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test),
        *(nodes.Filter, nodes.Concat, nodes.Assign, nodes.AssignBlock, nodes.With),
    }
)

_TEXT = nodes.Concat([])  # represents anything that is not plain


def is_traceable(template: jinja2.Template) -> bool:
    """Whether this template, with all that it extends, includes and imports, inspects only plain values."""
    try:
        trees = list(_trees(template.environment, str(template.name), set()))
        all_nodes = [node for tree in trees for node in (tree, *tree.find_all(nodes.Node))]
        if not all(type(node) in _KNOWN for node in all_nodes):
            return False
        plain = _plain_names(all_nodes)
        return all(_is_plain(expression, plain) for node in all_nodes for expression in _inspected(node))
    except (_Unknown, jinja2.TemplateError):
        return False


class _Unknown(Exception):
    """Syntax that this module does not know."""


def _trees(env: jinja2.Environment, name: str, visited: set[str]) -> Iterator[nodes.Template]:
    """The syntax trees of the template and of all sources that it refers to."""
    if name in visited or env.loader is None:
        return
    visited.add(name)
    tree = env.parse(env.loader.get_source(env, name)[0], name)
    yield tree
    for node in tree.find_all(_REFERENCES):
        target = node.template  # type: ignore[attr-defined]  # all three have one
        if not (isinstance(target, nodes.Const) and isinstance(target.value, str)):
            raise _Unknown
        yield from _trees(env, target.value, visited)


def _inspected(node: nodes.Node) -> Iterable[nodes.Node]:
    """The expressions that this node inspects."""
    match node:
        case nodes.If() | nodes.CondExpr():
            return [node.test]
        case nodes.Compare():
            return [node.expr, *(operand.expr for operand in node.ops)]
        case nodes.And() | nodes.Or():
            return [node.left, node.right]
        case nodes.Not():
            return [node.node]
        case nodes.Filter() | nodes.Test() | nodes.Getattr():
            return [node]
        case nodes.AssignBlock():
            return [] if node.filter is None else [_TEXT]
        case nodes.For():
            is_literal = isinstance(node.iter, nodes.List | nodes.Tuple) and not node.recursive
            return [node.test or nodes.Const(True)] if is_literal else [_TEXT]
        case _:
            return []


def _is_plain(node: nodes.Node | None, plain: frozenset[str]) -> bool:
    """Whether an expression is a value of the context, or derived only from such values."""
    match node:
        case nodes.Const() | nodes.TemplateData():
            return True
        case nodes.Name():
            return node.name in plain
        case nodes.Getattr():
            owner = node.node.name if isinstance(node.node, nodes.Name) else ""
            return node.attr in _LOOP if owner == "loop" else owner in _CONTEXT_DICTS & plain
        case nodes.Filter() | nodes.Test():
            known = node.name in (_FILTERS if isinstance(node, nodes.Filter) else _TESTS)
            parts = (node.node, *node.args, *(keyword.value for keyword in node.kwargs))
            return known and not node.dyn_args and not node.dyn_kwargs and all(_is_plain(part, plain) for part in parts)
        case nodes.Compare() | nodes.And() | nodes.Or() | nodes.Not():
            return all(_is_plain(part, plain) for part in _inspected(node))
        case nodes.CondExpr():
            return all(_is_plain(part, plain) for part in (node.test, node.expr1, node.expr2 or node.test))
        case nodes.List() | nodes.Tuple():
            return all(_is_plain(item, plain) for item in node.items)
        case _:
            return False


def _plain_names(all_nodes: Iterable[nodes.Node]) -> frozenset[str]:
    """The names that are bound to plain values only, in all scopes of all sources. Scopes are not distinguished."""
    bound: dict[str, list[nodes.Node]] = defaultdict(list)
    for name, value in _bindings(list(all_nodes)):
        bound[name].append(value)
    plain = frozenset({node.name for node in all_nodes if isinstance(node, nodes.Name)} | set(bound)) - _BUILT_IN
    while True:
        smaller = frozenset(name for name in plain if all(_is_plain(value, plain) for value in bound[name]))
        if smaller == plain:
            return plain
        plain = smaller


def _bindings(all_nodes: list[nodes.Node]) -> Iterator[tuple[str, nodes.Node]]:
    """Every name that is bound in some scope, with the expression."""
    macros: dict[str, list[nodes.Macro]] = defaultdict(list)
    aliases: dict[str, set[str]] = defaultdict(set)
    for node in all_nodes:
        if isinstance(node, nodes.Macro):
            macros[node.name].append(node)
            aliases[node.name].add(node.name)
            yield node.name, _TEXT
            yield from ((parameter.name, value) for parameter, value in zip(node.args[::-1], node.defaults[::-1], strict=False))
        elif isinstance(node, nodes.FromImport):
            for name in node.names:
                original, alias = name if isinstance(name, tuple) else (name, name)
                aliases[alias].add(original)
                yield alias, _TEXT
    for node in all_nodes:
        if isinstance(node, nodes.Call):
            yield from _arguments(node, aliases, macros)
        else:
            yield from _assignments(node)


def _assignments(node: nodes.Node) -> Iterator[tuple[str, nodes.Node]]:
    match node:
        case nodes.Assign():
            yield _name(node.target), node.node
        case nodes.AssignBlock():
            yield _name(node.target), _TEXT
        case nodes.For(iter=nodes.List() | nodes.Tuple() as listed):
            yield from ((_name(node.target), item) for item in listed.items)
        case nodes.With():
            yield from ((_name(target), value) for target, value in zip(node.targets, node.values, strict=True))
        case nodes.CallBlock(args=[_, *_]):
            raise _Unknown


def _arguments(
    call: nodes.Call, aliases: Mapping[str, set[str]], macros: Mapping[str, list[nodes.Macro]]
) -> Iterator[tuple[str, nodes.Node]]:
    """The bindings of parameters by a call, for all macros that it may call."""
    target = call.node.name if isinstance(call.node, nodes.Name) else ""
    if call.dyn_args or call.dyn_kwargs:
        raise _Unknown
    if target in {"caller", "super"} and not call.args and not call.kwargs:
        return
    called = [macro for name in aliases.get(target, ()) for macro in macros.get(name, ())]
    if not called:
        raise _Unknown
    for macro in called:
        yield from ((parameter.name, value) for parameter, value in zip(macro.args, call.args, strict=False))
    yield from ((keyword.key, keyword.value) for keyword in call.kwargs)


def _name(target: nodes.Node) -> str:
    if not isinstance(target, nodes.Name):
        raise _Unknown
    return target.name
