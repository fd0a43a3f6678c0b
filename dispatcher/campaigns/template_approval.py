"""Four eyes on templates: a commercial text leaves only in the very wording (its digest) that a named person approved.

Dry runs, previews and checks ask for nothing. A change of any byte is another wording, and asks again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.content import Catalog, Template
from dispatcher.delivery.approval_check import DIGEST_SHOWN, _needs, not_approved_text, unapproved
from dispatcher.domain.message import Kind
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import template_approvals
from dispatcher.ledger.campaigns.template_approvals import Approval
from dispatcher.ledger.connection import Connection, lend
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services


class ApprovalStatus(StrEnum):
    """How a template's present wording stands."""

    APPROVED = "approved"
    WAITING = "waiting"  # for somebody to approve it
    WITHDRAWN = "withdrawn"
    FREE = "free"  # none is needed: a service message, or the policy asks for none


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """A template as it now is, and the newest word on it."""

    template: Template
    standing: ApprovalStatus
    word: Approval | None


def template_versions(services: Services) -> list[TemplateVersion]:
    """All templates by name, each with its standing."""
    with lend(services.pool) as connection:
        words = template_approvals.latest(connection)
    return [_wording(template, services.policy, words.get(template.digest)) for _, template in sorted(services.catalog.items())]


def template_version(services: Services, name: str) -> TemplateVersion:
    """One template with its standing. Raises BadInput for an unknown name."""
    template = _known(services.catalog, name)
    with lend(services.pool) as connection:
        return _wording(template, services.policy, template_approvals.latest(connection).get(template.digest))


def set_approval(services: Services, name: str, approved: bool, actor: str, digest: str | None = None) -> TemplateVersion:
    """Approve a template's present wording, or withdraw its approval; what is so already is not said twice.

    `digest` (or its beginning, of 12 characters at least) is what the person looked at. Raises BadInput for an unknown name,
    another digest than the present one, nobody's name, a service message, and an author who approves their own text.
    """
    present = template_version(services, name)
    if faults := list(_faults(present, approved, actor.strip(), digest)):
        raise BadInput(*faults)
    template = present.template
    if present.word is not None and present.word.approved is approved:
        return present
    with lend(services.pool) as connection:
        word = template_approvals.add(
            connection, name, template.version, template.digest, approved, actor.strip(), services.clock()
        )
    return _wording(template, services.policy, word)


def approve_waiting(services: Services, actor: str) -> list[TemplateVersion]:
    """Approve every template that waits for it, by name; for demos, tests and benchmarks, whose texts nobody gets."""
    waiting = [found.template for found in template_versions(services) if found.standing is ApprovalStatus.WAITING]
    return [set_approval(services, template.name, True, actor) for template in waiting]


def _faults(present: TemplateVersion, approved: bool, actor: str, digest: str | None) -> list[InputError]:
    template, faults = present.template, []
    if template.info.kind is Kind.SERVICE:
        faults.append(InputError("approval", 0, "template", f"{template.name} is a service message: it needs no approval"))
    if not actor:
        faults.append(InputError("approval", 0, "actor", "missing: an approval is somebody's"))
    if digest is not None and not (len(digest) >= DIGEST_SHOWN and template.digest.startswith(digest)):
        message = f"{template.name} is now {template.digest[:DIGEST_SHOWN]}; look at it again"
        faults.append(InputError("approval", 0, "digest", message))
    if approved and template.author and actor.casefold() == template.author.casefold():
        faults.append(
            InputError("approval", 0, "actor", f"{template.author} wrote {template.name}: somebody else has to approve it")
        )
    if not approved and present.word is None:
        faults.append(InputError("approval", 0, "template", f"{template.name} has no approval that could be withdrawn"))
    return faults


def approval_errors(services: Services, connection: Connection, names: Collection[str]) -> list[InputError]:
    """What to say at the door to who asks for these templates; nothing where all are approved."""
    if not any(_needs(services.catalog[name], services.policy) for name in names):
        return []
    waiting = unapproved(services, names, template_approvals.in_force(connection, names))
    return [
        InputError("approval", 0, "template", f"{not_approved_text(each)}: `dispatcher templates approve {each.name}`")
        for each in waiting
    ]


def _wording(template: Template, policy: Policy, word: Approval | None) -> TemplateVersion:
    if not _needs(template, policy):
        return TemplateVersion(template, ApprovalStatus.FREE, word)
    if word is None:
        return TemplateVersion(template, ApprovalStatus.WAITING, None)
    return TemplateVersion(template, ApprovalStatus.APPROVED if word.approved else ApprovalStatus.WITHDRAWN, word)


def _known(catalog: Catalog, name: str) -> Template:
    if name not in catalog:
        raise BadInput(InputError("templates", 0, "name", f"there is no template {name!r}{did_you_mean(name, catalog)}"))
    return catalog[name]
