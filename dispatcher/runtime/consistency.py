"""Check that templates and policy agree, once both are read: neither knows the other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dispatcher.content import THEMES, Template, TemplateError, check_examples, check_links_to_partners, host_of, is_within
from dispatcher.domain.spelling import did_you_mean
from dispatcher.policy import Policy
from dispatcher.runtime.entity_senders import senders_of
from dispatcher.runtime.link_hosts import link_hosts


def disagreements(policy: Policy, templates: Iterable[Template]) -> list[TemplateError]:
    """What a template declares and the policy does not know, and what the policy requires and the template does not declare.

    An offer for a regulated product must declare its topic, so that it carries the sentence that the law requires. Links may name
    the entity's own hosts and its partners'.
    """
    templates = tuple(templates)
    faults = [fault for template in templates for fault in _of(policy, template)]
    return [*faults, *dict.fromkeys(fault for template in templates for fault in _theme_faults(policy, template))]


def _theme_faults(policy: Policy, template: Template) -> Iterator[TemplateError]:
    """Themes whose name is nearly that of an entity, and logos on a host from which the content guard would refuse them."""
    for entity, theme in template.themes.items():
        file = f"{THEMES}{entity}.toml"
        if entity not in policy.entities:
            if hint := did_you_mean(entity, policy.entities):
                yield TemplateError(file, 1, "file", entity, f"is not in the policy{hint}")
            continue
        own = link_hosts(policy.entities[entity]).own
        for url in dict.fromkeys(url for url in theme.logo_url.values() if not is_within(host_of(url), own)):
            yield TemplateError(file, 1, "logo.url", url, "names a host that the policy does not allow this entity")


def _of(policy: Policy, template: Template) -> Iterator[TemplateError]:
    yield from _declaration_errors(policy, template)
    if template.entity in policy.entities:
        yield from check_examples(template, _place, senders_of(policy, template))
        yield from check_links_to_partners(template, link_hosts(policy.entities[template.entity]))


def declaration_errors(policy: Policy, template: Template) -> Iterator[TemplateError]:
    """The disagreements that need no rendering: in what a template declares, and in its themes."""
    yield from _declaration_errors(policy, template)
    yield from _theme_faults(policy, template)


def _declaration_errors(policy: Policy, template: Template) -> Iterator[TemplateError]:
    info = template.info
    yield from _unknown(template, "entity", template.entity, policy.entities)
    if info.topic is not None:
        yield from _unknown(template, "topic", info.topic, policy.topics)
    for topic, products in policy.topics.items():
        if info.product in products and info.topic != topic:
            yield _fault(
                template, "topic", info.topic or "", f"must be {topic!r}: the policy demands it for offers of a {info.product}"
            )


def _place(source: str, line: int) -> tuple[str, int]:
    return source.partition("#")[0], line


def _unknown(template: Template, field: str, value: str, known: Collection[str]) -> Iterator[TemplateError]:
    if value not in known:
        yield _fault(template, field, value, f"is not in the policy{did_you_mean(value, known)}")


def _fault(template: Template, field: str, value: str, message: str) -> TemplateError:
    return TemplateError(f"{template.name}/template.toml", 1, field, value, message)
