"""Four eyes on templates: a commercial text may be sent only in the exact version (its digest) that a named person approved.

Dry runs, previews and checks need no approval. A change of any byte makes another version, which needs its own approval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dispatcher.content import Template
from dispatcher.policy import Policy
from dispatcher.runtime.template_versions import needs_approval

DIGEST_SHOWN = 12  # characters: enough for people to compare versions, and to name one


def unapproved(templates: Iterable[Template], policy: Policy, in_force: Mapping[str, int]) -> list[Template]:
    """The templates among these that need an approval and have none. `in_force` is keyed by digest."""
    return [template for template in templates if needs_approval(template, policy) and template.digest not in in_force]


def not_approved_text(template: Template) -> str:
    """A sentence without full stop: this version of the template has no approval."""
    return f"version {template.version} of {template.name} ({template.digest[:DIGEST_SHOWN]}) is not approved"
