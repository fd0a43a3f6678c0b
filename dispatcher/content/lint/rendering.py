"""Whether every message can be rendered with the data that the policy allows, and whether data chooses a link to a partner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from dispatcher.content.errors import ContentRefusal
from dispatcher.content.lint.findings import LintFinding, lint_rules
from dispatcher.content.lint.marked import MarkedSources
from dispatcher.content.lint.partner_choice import chosen_partner_links
from dispatcher.content.lint.samples import LintContext, LintSample, first_by_language, lint_request
from dispatcher.content.preview import data_sets, error_place
from dispatcher.content.template import Template
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind, Mode
from dispatcher.domain.spelling import did_you_mean

SERVICE = "service"  # the row of the policy's categories for service messages


def allowed_categories(template: Template, mode: Mode, context: LintContext) -> frozenset[str] | None:
    """The data categories that the policy allows in this mode; None where it is not known."""
    return context.categories.get(SERVICE if template.info.kind is Kind.SERVICE else mode.value)


def withheld(template: Template, context: LintContext) -> Iterator[LintFinding]:
    """Texts that use a variable whose category the policy does not allow in their mode: every such message would be refused.

    Rendering finds the uses in macros and layouts too.
    """
    sources = MarkedSources(template)
    unknown = {name for name, each in template.variables.items() if not _is_known(each.category, context)}  # T603 reports them
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
                if refusal.variable in unknown:
                    continue
                place = error_place(template, request, sources.origin)
                category = template.variables[refusal.variable].category
                message = f"its category {category!r} is not allowed by the policy in the mode {mode}: the message would be refused"
                yield LintFinding(
                    *place, "T602", lint_rules()["T602"].severity, refusal.variable, "", message, (language,), (channel,), (mode,)
                )


def _is_known(category: str, context: LintContext) -> bool:
    """Whether the policy has this category in any mode."""
    return any(category in categories for categories in context.categories.values())


def declared_categories(template: Template, context: LintContext, sources: MarkedSources) -> Iterator[LintFinding]:
    """Variables of a category that the policy allows in none of their modes."""
    if not context.categories:
        return
    for name, variable in template.variables.items():
        allowed = [allowed_categories(template, mode, context) or frozenset() for mode in variable.modes]
        if variable.category and not any(variable.category in categories for categories in allowed):
            place = sources.declared_at("variables", name, "category")
            message = "the policy allows this category in no mode of this variable"
            if not _is_known(variable.category, context):
                known = frozenset().union(*context.categories.values())
                message = f"is no category of the policy{did_you_mean(variable.category, known) or _listed(known)}"
            rule = lint_rules()["T603"]
            yield LintFinding(*place, "T603", rule.severity, f"variables.{name}.category", variable.category, message)


def _listed(known: frozenset[str]) -> str:
    return f"; known: {', '.join(sorted(known))}"


def chosen_links(samples: list[LintSample]) -> Iterator[LintFinding]:
    """Links to a partner that data about the person chooses or completes: the partner would learn what it says."""
    for sample in first_by_language(samples):
        hosts, language = sample.requirements.hosts, sample.request.language
        partners = frozenset(hosts.partners) if hosts else frozenset[str]()
        parts = sample.sources.parts[language]
        for part, place, link in chosen_partner_links(sample.template, language, parts, partners) if partners else ():
            message = "data about the person chooses this link to a partner: it must be the same for everybody"
            finding = sample.finding("T307", place, part, message, link)
            yield replace(finding, channels=(part.partition(".")[0],), modes=())
