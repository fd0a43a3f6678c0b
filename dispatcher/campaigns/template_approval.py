"""Four eyes on templates: a commercial text leaves only in the very wording (its digest) that a named person approved.

Dry runs, previews and checks ask for nothing. A change of any byte is another wording, and asks again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.content import Catalog, Template
from dispatcher.delivery.approval_check import DIGEST_SHOWN, _needs, unapproved, unsaid
from dispatcher.domain.message import Kind
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputFault
from dispatcher.ledger.campaigns import template_approvals
from dispatcher.ledger.campaigns.template_approvals import Approval
from dispatcher.ledger.connection import Connection, lend
from dispatcher.policy import Policy
from dispatcher.runtime.services import House


class Standing(StrEnum):
    """How a template's present wording stands."""

    APPROVED = "approved"
    WAITING = "waiting"  # for somebody to approve it
    WITHDRAWN = "withdrawn"
    FREE = "free"  # none is needed: a service message, or the policy asks for none


@dataclass(frozen=True, slots=True)
class Wording:
    """A template as it now is, and the newest word on it."""

    template: Template
    standing: Standing
    word: Approval | None


def wordings(house: House) -> list[Wording]:
    """All templates by name, each with its standing."""
    with lend(house.pool) as connection:
        words = template_approvals.latest(connection)
    return [_wording(template, house.policy, words.get(template.digest)) for _, template in sorted(house.catalog.items())]


def wording(house: House, name: str) -> Wording:
    """One template with its standing. Raises BadInput for an unknown name."""
    template = _known(house.catalog, name)
    with lend(house.pool) as connection:
        return _wording(template, house.policy, template_approvals.latest(connection).get(template.digest))


def say(house: House, name: str, approved: bool, actor: str, digest: str | None = None) -> Wording:
    """Approve a template's present wording, or withdraw its approval; what is so already is not said twice.

    `digest` (or its beginning, of 12 characters at least) is what the person looked at. Raises BadInput for an unknown name,
    another digest than the present one, nobody's name, a service message, and an author who approves their own text.
    """
    present = wording(house, name)
    if faults := list(_faults(present, approved, actor.strip(), digest)):
        raise BadInput(*faults)
    template = present.template
    if present.word is not None and present.word.approved is approved:
        return present
    with lend(house.pool) as connection:
        word = template_approvals.add(connection, name, template.version, template.digest, approved, actor.strip(), house.clock())
    return _wording(template, house.policy, word)


def approve_waiting(house: House, actor: str) -> list[Wording]:
    """Approve every template that waits for it, by name; for demos, tests and benchmarks, whose texts nobody gets."""
    waiting = [found.template for found in wordings(house) if found.standing is Standing.WAITING]
    return [say(house, template.name, True, actor) for template in waiting]


def _faults(present: Wording, approved: bool, actor: str, digest: str | None) -> list[InputFault]:
    template, faults = present.template, []
    if template.brief.kind is Kind.SERVICE:
        faults.append(InputFault("approval", 0, "template", f"{template.name} is a service message: it needs no approval"))
    if not actor:
        faults.append(InputFault("approval", 0, "actor", "missing: an approval is somebody's"))
    if digest is not None and not (len(digest) >= DIGEST_SHOWN and template.digest.startswith(digest)):
        message = f"{template.name} is now {template.digest[:DIGEST_SHOWN]}; look at it again"
        faults.append(InputFault("approval", 0, "digest", message))
    if approved and template.author and actor.casefold() == template.author.casefold():
        faults.append(
            InputFault("approval", 0, "actor", f"{template.author} wrote {template.name}: somebody else has to approve it")
        )
    if not approved and present.word is None:
        faults.append(InputFault("approval", 0, "template", f"{template.name} has no approval that could be withdrawn"))
    return faults


def hold_door(house: House, connection: Connection, names: Collection[str]) -> list[InputFault]:
    """What to say at the door to who asks for these templates; nothing where all are approved."""
    if not any(_needs(house.catalog[name], house.policy) for name in names):
        return []
    waiting = unapproved(house, names, template_approvals.in_force(connection, names))
    return [
        InputFault("approval", 0, "template", f"{unsaid(each)}: `dispatcher templates approve {each.name}`") for each in waiting
    ]


def _wording(template: Template, policy: Policy, word: Approval | None) -> Wording:
    if not _needs(template, policy):
        return Wording(template, Standing.FREE, word)
    if word is None:
        return Wording(template, Standing.WAITING, None)
    return Wording(template, Standing.APPROVED if word.approved else Standing.WITHDRAWN, word)


def _known(catalog: Catalog, name: str) -> Template:
    if name not in catalog:
        raise BadInput(InputFault("templates", 0, "name", f"there is no template {name!r}{did_you_mean(name, catalog)}"))
    return catalog[name]
