"""Four eyes on templates: a commercial text may be sent only in the exact version (its digest) that a named person approved.

Dry runs, previews and checks need no approval. A change of any byte makes another version, which needs its own approval.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.content import Catalog, Template
from dispatcher.domain.message import Kind
from dispatcher.policy import Policy

DIGEST_SHOWN = 12  # characters: enough for people to compare versions, and to name one


def needs_approval(template: Template, policy: Policy) -> bool:
    """Whether the policy asks for an approval of this template."""
    return policy.four_eyes_templates and template.info.kind is Kind.COMMERCIAL


def unapproved(catalog: Catalog, policy: Policy, names: Collection[str], in_force: Mapping[str, int]) -> list[Template]:
    """The templates among these that need an approval and have none. `in_force` is keyed by digest."""
    templates = [catalog[name] for name in names if needs_approval(catalog[name], policy)]
    return [template for template in templates if template.digest not in in_force]


def not_approved_text(template: Template) -> str:
    """A sentence without full stop: this version of the template has no approval."""
    return f"version {template.version} of {template.name} ({template.digest[:DIGEST_SHOWN]}) is not approved"
