"""Static checks of template sources: names, values of `mode`, loops, calls and unsafe HTML.

They read Jinja's syntax tree. Each finding is (line in the source, name, message).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias, TypeVar

from jinja2 import TemplateSyntaxError, meta, nodes

from dispatcher.content.declaration import IMPERSONAL_CATEGORIES, IN_A_LINK, RESERVED, TemplateVariable
from dispatcher.content.environment import TemplateEnvironment
from dispatcher.content.inline_styles import style_faults
from dispatcher.content.mail_html import GAP, GAP_EDGES, link_fault, link_is_allowed, read_mail_html
from dispatcher.content.statement_pairs import unpaired
from dispatcher.content.themes import NEUTRAL
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.domain.spelling import did_you_mean, nearest

Finding: TypeAlias = tuple[int, str, str]

_TEXT_LINK = re.compile(rf"(?:https?://|www\.)(?:{GAP.pattern}|[^\s<>\"'])+", re.IGNORECASE)
_THEME = {**NEUTRAL.values("en"), "logo_url": "https://www.bank.example/logo.png", "logo_width": "1", "logo_height": "1"}
_Kind = TypeVar("_Kind", bound=nodes.Node)
_MACRO = re.compile(r"\{%-?\s*macro\s+(\w+)")
_LITERAL = (nodes.List, nodes.Tuple, nodes.Const)


def check_source(
    env: TemplateEnvironment,
    name: str,
    source: str,
    variables: Mapping[str, TemplateVariable],
    shared: Mapping[str, frozenset[str]],
) -> list[Finding]:
    """All findings for one source.

    `variables` are those that it may use in addition to RESERVED, `shared` the sources that it may refer to, each with its macros.
    """
    try:
        tree = env.parse(source, name)
        names = env.compile_source(name, source, tree)
    except TemplateSyntaxError as error:
        line, message = unpaired(env, source) or (error.lineno, error.message or "can't be read")
        return [(line, "syntax", message)]
    except Exception as error:  # too deep, too many blocks, a constant that can't be computed: Jinja passes on Python's own errors
        return [(1, "syntax", f"can't be compiled ({type(error).__name__})")]
    parts = _TreeNodes(tree)
    found = [
        *_undeclared(parts, names, variables),
        *_attributes(parts),
        *_modes(parts),
        *_references(parts, name, shared),
        *_filters(env, parts),
        *_imports_without_context(env, parts),
        *_loops_and_escaping(parts),
        *_calls(parts, {name for names in shared.values() for name in names}),
    ]
    found += _html(env, source, variables) if name.endswith(".html") else _personal_data_in_links(env, source, variables)
    return sorted(set(found))


def used_variables(env: TemplateEnvironment, source: str) -> frozenset[str]:
    """The names that a text reads from its context; none if it has a syntax error, which `check_source` reports."""
    try:
        return frozenset(meta.find_undeclared_variables(env.parse(source)))
    except (TemplateSyntaxError, RecursionError):
        return frozenset()


def defined_macros(env: TemplateEnvironment, source: str) -> frozenset[str]:
    """The macros that a source defines, also one with a syntax error: `check_source` reports that, and no use of its macros."""
    try:
        return frozenset(node.name for node in env.parse(source).find_all(nodes.Macro))
    except (TemplateSyntaxError, RecursionError):
        return frozenset(_MACRO.findall(source))


class _TreeNodes:
    """The nodes below a node, in the order of Jinja's `find_all`. They are listed once: each search of Jinja walks the tree."""

    def __init__(self, root: nodes.Node) -> None:
        self._nodes: list[nodes.Node] = []
        stack = _children(root)[::-1]
        while stack:
            node = stack.pop()
            self._nodes.append(node)
            stack += _children(node)[::-1]

    def find(self, kind: type[_Kind]) -> Iterator[_Kind]:
        """All nodes of a kind."""
        return (node for node in self._nodes if isinstance(node, kind))


def _children(node: nodes.Node) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    for name in node.fields:
        value = getattr(node, name, None)
        if isinstance(value, nodes.Node):
            found.append(value)
        elif isinstance(value, list):
            found += [each for each in value if isinstance(each, nodes.Node)]
    return found


def _undeclared(tree: _TreeNodes, names: frozenset[str], variables: Mapping[str, TemplateVariable]) -> Iterator[Finding]:
    known = {*variables, *RESERVED}
    # Inside a block, Jinja's own search does not see what the file imports or sets outside of it.
    inside = {*_imported_names(tree), *(node.name for node in tree.find(nodes.Macro))}
    inside |= {node.name for node in tree.find(nodes.Name) if node.ctx == "store"}
    called = {node.node.name for node in tree.find(nodes.Call) if isinstance(node.node, nodes.Name)}  # `_calls` reports them
    for unknown in names - known - inside - called:
        line = next((node.lineno for node in tree.find(nodes.Name) if node.name == unknown), 1)
        yield line, unknown, f"undeclared variable{did_you_mean(unknown, known)}"


def _attributes(tree: _TreeNodes) -> Iterator[Finding]:
    for node in tree.find(nodes.Getattr):
        owner = node.node.name if isinstance(node.node, nodes.Name) else ""
        if owner == "loop" and not node.attr.startswith("_"):
            continue
        parts = RESERVED.get(owner, frozenset())
        if node.attr not in parts:
            yield node.lineno, f"{owner}.{node.attr}", f"no such part{did_you_mean(node.attr, parts)}"


def _modes(tree: _TreeNodes) -> Iterator[Finding]:
    modes = [Mode.TAILORED.value, Mode.STANDARD.value]
    for node in tree.find(nodes.Compare):
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if any(isinstance(side, nodes.Name) and side.name == "mode" for side in sides):
            for side in sides:
                if isinstance(side, nodes.Const) and side.value not in modes:
                    yield node.lineno, "mode", f"is never {side.value!r}{did_you_mean(str(side.value), modes)}"


def _references(tree: _TreeNodes, name: str, shared: Mapping[str, frozenset[str]]) -> Iterator[Finding]:
    for node in tree.find(nodes.Stmt):
        if not isinstance(node, nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport):
            continue
        target = getattr(node.template, "value", None)
        if not isinstance(target, str):
            yield node.lineno, "reference", "must name its file in quotes, so that it can be checked"
        elif target == name or target not in shared:
            yield node.lineno, target, f"no such file to refer to{did_you_mean(target, set(shared) - {name})}"
        elif {*name.split("/")} & {*LANGUAGES} and not {*target.split("/")} & {*LANGUAGES} <= {*name.split("/")}:
            yield node.lineno, target, "is of another language than this text"
        elif isinstance(node, nodes.FromImport):
            for alias in node.names:
                macro = alias[0] if isinstance(alias, tuple) else alias
                if macro not in shared[target]:
                    yield node.lineno, macro, f"no such macro in {target}{did_you_mean(macro, shared[target])}"


def _filters(env: TemplateEnvironment, tree: _TreeNodes) -> Iterator[Finding]:
    """Filters that do not exist. Within an `if`, Jinja notices only when the text is rendered."""
    for node in tree.find(nodes.Filter):
        if node.name not in env.filters:
            yield node.lineno, node.name, f"no such filter{did_you_mean(node.name, env.filters)}"


def _imports_without_context(env: TemplateEnvironment, tree: _TreeNodes) -> Iterator[Finding]:
    """Macros that use the message's values, such as the theme, imported so that they do not see them."""
    for node in tree.find(nodes.FromImport):
        target = str(getattr(node.template, "value", ""))
        if not node.with_context and (used := env.context_names.get(target, frozenset())):
            yield node.lineno, target, f"must be imported 'with context': it uses {', '.join(sorted(used))}"


def _loops_and_escaping(tree: _TreeNodes) -> Iterator[Finding]:
    for loop in tree.find(nodes.For):
        if not isinstance(loop.iter, _LITERAL) or loop.recursive:
            yield loop.lineno, "for", "loops only over a list written right there"
        if any(loop.find_all(nodes.For)):
            yield loop.lineno, "for", "loops can't be nested"
    for node in tree.find(nodes.ScopedEvalContextModifier):
        yield node.lineno, "autoescape", "can't be switched"


def _calls(tree: _TreeNodes, macros: Collection[str]) -> Iterator[Finding]:
    """Only macros written above or imported can be called. So no macro can call itself, and every rendering ends. Of a macro whose
    name is mistyped in its import, `_references` reports the import."""
    mistyped = _imported_names(tree) - set(macros)
    defined = [(node.lineno, node.name) for node in tree.find(nodes.Macro)]
    always = {"super", "caller", *_imported_names(tree)}
    for before, within in ((10**9, tree), *((macro.lineno, _TreeNodes(macro)) for macro in tree.find(nodes.Macro))):
        callable_here = {*always, *(name for line, name in defined if line < before)}
        for call in within.find(nodes.Call):
            target = call.node.name if isinstance(call.node, nodes.Name) else ""
            if target not in callable_here and not (target in macros and nearest(target, mistyped)):
                yield call.lineno, target or "call", "only macros written above or imported can be called"


def _imported_names(tree: _TreeNodes) -> set[str]:
    aliases = (alias for node in tree.find(nodes.FromImport) for alias in node.names)
    return {alias[1] if isinstance(alias, tuple) else alias for alias in aliases}


def _html(env: TemplateEnvironment, source: str, variables: Mapping[str, TemplateVariable]) -> Iterator[Finding]:
    """Faults of the HTML that is written in a source, in all its branches: samples may not reach each of them."""
    yield from style_faults(env, source) if "<style" in source else ()
    flat, expressions = _flat_html(env, source)
    lines = source.split("\n")
    mail = read_mail_html(flat, with_lines=True)
    for fault in mail.faults:
        yield fault.line, fault.name, fault.message
    for link in mail.links:
        start = GAP.match(link.address)
        name = expressions[int(start[1])] if start else ""
        if name in variables and variables[name].type != "url":
            yield link.line, name, "only a variable of type url may be a link"
        for gap in GAP.finditer(link.address):
            if _is_personal(expressions[int(gap[1])], variables):
                yield link.line, expressions[int(gap[1])], IN_A_LINK
        address = GAP.sub("x", link.address)
        if start or (" " in address and "{%" in lines[link.line - 1]):
            continue  # begins with a value, or depends on a statement: the samples show whether it is allowed
        if not link_is_allowed(address, link.is_loaded):
            yield link.line, f"{link.element} {link.attribute}", link_fault(link).message


def _personal_data_in_links(env: TemplateEnvironment, source: str, variables: Mapping[str, TemplateVariable]) -> Iterator[Finding]:
    """Variables about the person in links of a plain text."""
    flat, expressions = _flat_html(env, source)
    for number, line in enumerate(flat.split("\n"), 1):
        for link in _TEXT_LINK.finditer(line):
            for gap in GAP.finditer(link[0]):
                if _is_personal(expressions[int(gap[1])], variables):
                    yield number, expressions[int(gap[1])], IN_A_LINK


def _is_personal(name: str, variables: Mapping[str, TemplateVariable]) -> bool:
    return name in variables and variables[name].category not in IMPERSONAL_CATEGORIES


def _flat_html(env: TemplateEnvironment, source: str) -> tuple[str, list[str]]:
    """The source with its lines, a gap for each expression and a blank for each statement; and the name that each expression
    begins with. A value of the theme is no gap: it is the same for all readers and was checked with the theme, so that it may stand
    in a style."""
    pieces: list[str] = []
    expressions: list[str] = []
    tokens: list[tuple[str, str]] = []  # of the expression that is open
    place = 0
    for _, kind, token in env.lex(source):
        if kind == "data":
            pieces.append(token)
            continue
        if kind == "variable_begin":
            tokens, place = [], len(pieces)
            pieces.append("")
        elif kind == "variable_end":
            pieces[place] = _theme_sample(tokens) or f"{GAP_EDGES[0]}{len(expressions)} {GAP_EDGES[1]}"
            expressions.append(tokens[0][1] if tokens and tokens[0][0] == "name" else "")
        elif kind == "block_begin":
            pieces.append(" ")
        elif kind != "whitespace":
            tokens.append((kind, token))
        pieces.append("\n" * token.count("\n"))
    return "".join(pieces), expressions


def _theme_sample(tokens: list[tuple[str, str]]) -> str:
    """A value for an expression that is a value of the theme and nothing else, or ""."""
    words = [token for _, token in tokens]
    return _THEME.get(words[2], "") if len(words) == 3 and words[:2] == ["theme", "."] else ""
