"""Four eyes on templates: a commercial text leaves only in the very wording (its digest) that a named person approved.

Dry runs, previews and checks ask for nothing. A change of any byte is another wording, and asks again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.content import Template
from dispatcher.domain.message import Kind
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services

DIGEST_SHOWN = 12  # characters: enough for people to compare, and to name a wording by


def unapproved(services: Services, names: Collection[str], in_force: Mapping[str, int]) -> list[Template]:
    """The templates among these whose present wording is not among the approved ones."""
    asked = [services.catalog[name] for name in names if _needs(services.catalog[name], services.policy)]
    return [template for template in asked if template.digest not in in_force]


def not_approved_text(template: Template) -> str:
    """That a template waits, in words."""
    return f"{template.name} as it now is (version {template.version}, {template.digest[:DIGEST_SHOWN]}) is not approved by anybody"


def _needs(template: Template, policy: Policy) -> bool:
    return policy.four_eyes_templates and template.info.kind is Kind.COMMERCIAL
