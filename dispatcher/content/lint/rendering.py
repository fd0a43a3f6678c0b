"""Whether every message can be rendered with the data that the policy allows, and whether data chooses a link to a partner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product

from jinja2 import TemplateSyntaxError, nodes

from dispatcher.content.declaration import IMPERSONAL_CATEGORIES
from dispatcher.content.environment import environment
from dispatcher.content.errors import ContentRefusal
from dispatcher.content.links import host_of, is_within
from dispatcher.content.lint.findings import LintFinding, lint_rules
from dispatcher.content.lint.marked import MarkedSources, Place
from dispatcher.content.lint.samples import LintContext, LintSample, lint_request
from dispatcher.content.preview import data_sets, error_place
from dispatcher.content.source_files import SourceFile
from dispatcher.content.template import Template
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind, Mode

SERVICE = "service"  # the row of the policy's categories for service messages
_LINK = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)


def allowed_categories(template: Template, mode: Mode, context: LintContext) -> frozenset[str] | None:
    """The data categories that the policy allows in this mode; None where it is not known."""
    return context.categories.get(SERVICE if template.info.kind is Kind.SERVICE else mode.value)


def withheld(template: Template, context: LintContext) -> Iterator[LintFinding]:
    """Texts that use a variable whose category the policy does not allow in their mode: every such message would be refused.

    Rendering finds the uses in macros and layouts too.
    """
    sources = MarkedSources(template)
    modes, sets = sorted(template.info.modes), list(data_sets(template))
    for language, channel, mode, (_, data) in product(template.languages, template.channels, modes, sets):
        allowed = allowed_categories(template, mode, context)
        if allowed is None or template.categories(mode) <= allowed:
            continue
        request = lint_request(template, channel, language, mode, context)
        request = replace(request, categories=request.categories & allowed, data={**request.data, **data})
        try:
            template.render(request)
        except ContentRefusal as refusal:
            if refusal.code is ReasonCode.WITHHELD_VARIABLE and mode in template.variables[refusal.variable].modes:
                place = error_place(template, request, sources.origin)
                category = template.variables[refusal.variable].category
                message = f"its category {category!r} is not allowed by the policy in the mode {mode}: the message would be refused"
                yield LintFinding(
                    *place, "T602", lint_rules()["T602"].severity, refusal.variable, "", message, (language,), (channel,), (mode,)
                )


def declared_categories(template: Template, context: LintContext, sources: MarkedSources) -> Iterator[LintFinding]:
    """Variables of a category that the policy allows in none of their modes."""
    if not context.categories:
        return
    for name, variable in template.variables.items():
        allowed = [allowed_categories(template, mode, context) or frozenset() for mode in variable.modes]
        if not any(variable.category in categories for categories in allowed):
            place = sources.declared_at("variables", name, "category")
            message = "the policy allows this category in no mode of this variable"
            rule = lint_rules()["T603"]
            yield LintFinding(*place, "T603", rule.severity, f"variables.{name}.category", variable.category, message)


def chosen_links(samples: list[LintSample]) -> Iterator[LintFinding]:
    """Links to a partner that a condition on the person chooses: the partner would learn what the condition says."""
    seen: set[tuple[str, str]] = set()
    for sample in samples:
        hosts = sample.requirements.hosts
        language = sample.request.language
        for part, source in sample.sources.parts[language].items() if hosts else ():
            if (language, part) not in seen:
                seen.add((language, part))
                for place, link in _chosen(sample.template, source, frozenset(hosts.partners) if hosts else frozenset()):
                    message = "a condition on the person chooses this link to a partner: it must be the same for everybody"
                    finding = sample.finding("T307", place, part, message, link)
                    yield replace(finding, channels=(part.partition(".")[0],), modes=())


def _chosen(template: Template, source: SourceFile, partners: frozenset[str]) -> Iterator[tuple[Place, str]]:
    try:
        tree = environment({}).parse(source.source)
    except TemplateSyntaxError:
        return
    tainted = {name for name, each in template.variables.items() if each.category not in IMPERSONAL_CATEGORIES} | {"mode"}
    for node in tree.find_all((nodes.If, nodes.CondExpr, nodes.Assign)):  # in the order of the text, as they are run
        if isinstance(node, nodes.Assign):
            if _names(node.node) & tainted:
                tainted |= {each.name for each in node.find_all(nodes.Name) if each.ctx == "store"}
        elif isinstance(node, nodes.If | nodes.CondExpr) and _names(node.test) & tainted:
            tainted |= {each.name for each in node.find_all(nodes.Name) if each.ctx == "store"}
            yield from _branches(template, node, source, partners)
    yield from _open_links(tree, tainted, source, partners)


def _open_links(
    tree: nodes.Template, tainted: set[str], source: SourceFile, partners: frozenset[str]
) -> Iterator[tuple[Place, str]]:
    """Links to partners that a value about the person, or a condition on it, continues."""
    for output in tree.find_all(nodes.Output):
        yield from _continued(output, tainted, source, partners)
    for parent in (tree, *tree.find_all((nodes.Block, nodes.If, nodes.CallBlock, nodes.Macro, nodes.For))):
        for each, following in pairwise(parent.iter_child_nodes()):
            if isinstance(each, nodes.Output) and isinstance(following, nodes.If) and _names(following.test) & tainted:
                last = each.nodes[-1]
                link = _open_link(last.data) if isinstance(last, nodes.TemplateData) else ""
                if link and is_within(host_of(link), partners):
                    yield (source.file, source.line + following.lineno - 1), link


def _names(node: nodes.Node) -> set[str]:
    own = {node.name} if isinstance(node, nodes.Name) else set()
    return own | {each.name for each in node.find_all(nodes.Name)}


def _branches(template: Template, node: nodes.Node, source: SourceFile, partners: frozenset[str]) -> Iterator[tuple[Place, str]]:
    """The links to partners in the branches of a condition, unless all branches have the same."""
    branches: list[Sequence[nodes.Node]]
    if isinstance(node, nodes.If):
        branches = [node.body, *([each] for each in node.elif_), node.else_]
    else:
        assert isinstance(node, nodes.CondExpr)  # noqa: S101  the caller's other kind
        branches = [[node.expr1], [node.expr2] if node.expr2 else []]
    found = [{link: line for each in branch for link, line in _partner_links(template, each, partners)} for branch in branches]
    for links in found:
        for link, line in links.items():
            if not all(link in other for other in found):
                yield (source.file, source.line + line - 1), link


def _partner_links(template: Template, node: nodes.Node, partners: frozenset[str]) -> Iterator[tuple[str, int]]:
    for each in (node, *node.find_all((nodes.TemplateData, nodes.Const, nodes.Name))):
        text = each.data if isinstance(each, nodes.TemplateData) else getattr(each, "value", "")
        for link in _LINK.finditer(text) if isinstance(text, str) else ():
            if is_within(host_of(link[0]), partners):
                yield link[0], each.lineno + text[: link.start()].count("\n")
        if isinstance(each, nodes.Name) and each.name in template.variables:
            variable = template.variables[each.name]
            if variable.type == "url" and any(is_within(host_of(str(value)), partners) for value in variable.example.values()):
                yield f"{{{{ {each.name} }}}}", each.lineno


def _open_link(text: str) -> str:
    """The link with which a text ends, and which what follows may continue; "" for none."""
    start = re.search(r"https?://[^\s\"'<>]*\Z", text, re.IGNORECASE)
    return start[0] if start else ""


def _continued(
    output: nodes.Output, tainted: set[str], source: SourceFile, partners: frozenset[str]
) -> Iterator[tuple[Place, str]]:
    """A link to a partner that a value about the person continues."""
    link = ""
    for each in output.nodes:
        if isinstance(each, nodes.TemplateData):
            link = _open_link(each.data)
        elif link and is_within(host_of(link), partners) and _names(each) & tainted:
            yield (source.file, source.line + each.lineno - 1), link
