"""Whether templates and policy speak of the same things, asked once both are read: neither can see the other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from dispatcher.content import Fault, Template
from dispatcher.content.errors import did_you_mean
from dispatcher.policy import Policy


def disagreements(policy: Policy, templates: Iterable[Template]) -> list[Fault]:
    """What a template declares that the policy doesn't know, and what it fails to declare though the policy demands it.

    An offer for a regulated product declares its topic: so it carries the sentence that the law demands, and is held to it.
    """
    return [fault for template in templates for fault in _of(policy, template)]


def _of(policy: Policy, template: Template) -> Iterator[Fault]:
    brief = template.brief
    yield from _unknown(template, "entity", template.entity, policy.entities)
    if brief.topic is not None:
        yield from _unknown(template, "topic", brief.topic, policy.topics)
    for topic, products in policy.topics.items():
        if brief.product in products and brief.topic != topic:
            yield _fault(
                template, "topic", brief.topic or "", f"must be {topic!r}: by the policy that rules offers of a {brief.product}"
            )


def _unknown(template: Template, field: str, word: str, known: Collection[str]) -> Iterator[Fault]:
    if word not in known:
        yield _fault(template, field, word, f"is not in the policy: {did_you_mean(word, known)}")


def _fault(template: Template, field: str, value: str, message: str) -> Fault:
    return Fault(f"{template.name}/template.toml", 1, field, value, message)
