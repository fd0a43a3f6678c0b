"""Approve template versions, withdraw approvals, and list them. What may be sent: `dispatcher.delivery.approval_check`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from dispatcher.content import Catalog, Template, texts_to_write
from dispatcher.delivery.approval_check import DIGEST_SHOWN, not_approved_text, unapproved
from dispatcher.domain.message import Kind
from dispatcher.domain.principal import USER_PREFIX, is_author, is_same_principal
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import lifecycle, template_approvals
from dispatcher.ledger.campaigns.template_approvals import Approval, FirstApproval, NewApproval
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.identity import users
from dispatcher.ledger.maintenance import policies
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable, needs_approval, store_sources

COMMENT_CHARACTERS_MAX = 2_000

__all__ = [
    "Approval",
    "ApprovalStatus",
    "FirstApproval",
    "TemplateVersion",
    "approval_errors",
    "approve_waiting",
    "history",
    "set_approval",
]
__all__ += [
    "NOT_APPROVED",
    "approval_obstacles",
    "blocking_findings",
    "draft_error",
    "known_template",
    "template_version",
    "template_versions",
]


class ApprovalStatus(StrEnum):
    """The approval of a template as it now is."""

    APPROVED = "approved"
    WAITING = "waiting"  # for somebody to approve it
    WITHDRAWN = "withdrawn"
    FREE = "free"  # none is needed: a service message, or the policy asks for none


NOT_APPROVED = frozenset({ApprovalStatus.WAITING, ApprovalStatus.WITHDRAWN})


class NotApproved(BadInput):
    """Templates that need an approval have none."""


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """A template version. `approval` is the newest approval or withdrawal of this digest."""

    template: Template
    status: ApprovalStatus
    approval: Approval | None
    first: FirstApproval | None = None  # by the first of two people: it waits for the second


def template_versions(services: Services) -> list[TemplateVersion]:
    """All templates by name, each with its approval."""
    with lend(services.pool) as connection:
        approvals, firsts = template_approvals.latest(connection), template_approvals.first_approvals(connection)
    return [
        _version(template, services.policy, approvals.get(template.digest), firsts.get(template.digest))
        for _, template in sorted(services.catalog.items())
    ]


def template_version(services: Services, name: str) -> TemplateVersion:
    """One template with its approval. Raises `BadInput` for an unknown name."""
    template = known_template(services.catalog, name)
    with lend(services.pool) as connection:
        approvals, firsts = template_approvals.latest(connection), template_approvals.first_approvals(connection)
    return _version(template, services.policy, approvals.get(template.digest), firsts.get(template.digest))


def history(services: Services, name: str) -> list[Approval]:
    """All approvals and withdrawals of a template, newest first."""
    with lend(services.pool) as connection:
        return template_approvals.history(connection, name)


def set_approval(
    services: Services, name: str, approved: bool, actor: str, digest: str | None = None, comment: str = ""
) -> TemplateVersion:
    """Approve a template as it now is, or withdraw its approval. Where that is so already, nothing is recorded.

    `digest` (or its beginning, of 12 characters at least) is what the person looked at: the present version, or one that was
    approved before, which campaigns may still use. Where the policy asks for two people, the first approval waits for one by
    somebody else. Raises `BadInput` for an unknown name, a digest of neither, an empty actor, a service message, an author who
    approves their own text, and findings of the linter that the policy lets block an approval. Raises `PolicyNotInForce` for an
    approval under another policy than the one in force, which may ask for less; a withdrawal is possible under any.
    """
    if approved:
        with lend(services.pool) as connection:
            policies.require_in_force(connection, services.policy.digest)
    if not approved and digest is None and name not in services.catalog:
        digest = _only_approved(services, name)
    version = _former_version(services, name, digest) or template_version(services, name)
    actor, comment = actor.strip(), comment.strip()
    with lend(services.pool) as connection:
        names, author = users.names_of(connection, actor), version.template.author
        is_nobody = author.startswith(USER_PREFIX) and users.find(connection, author) is None
    errors = list(approval_obstacles(version, approved, actor, digest, names))
    if approved and is_nobody:
        message = f"{author} is nobody who signs in: see `dispatcher users list`, or write a name, such as Jana Maes"
        errors.append(InputError(f"{name}/template.toml", 0, "author", message))
    if errors:
        raise BadInput(*errors)
    template, first = version.template, version.first
    if version.approval is not None and version.approval.approved is approved and not (first and not approved):
        return version
    if len(comment) > COMMENT_CHARACTERS_MAX:
        raise BadInput(InputError("approval", 0, "comment", f"is longer than {COMMENT_CHARACTERS_MAX} characters"))
    if approved and (findings := list(blocking_findings(services.policy, template))):
        raise BadInput(*findings)
    return _record(services, version, approved, actor, comment)


def blocking_findings(policy: Policy, template: Template) -> Iterator[InputError]:
    """The linter's findings that the policy lets block an approval."""
    # Imported here: it takes 0.1 s, and workers, which import this module, approve nothing.
    from dispatcher.runtime.template_lint import blocking, lint_version

    for each in blocking(policy, lint_version(policy, template)):
        yield InputError(each.file, each.line, f"{each.code} {each.field}", each.message)


def _record(services: Services, version: TemplateVersion, approved: bool, actor: str, comment: str) -> TemplateVersion:
    """Record an approval or a withdrawal, with all that follows from it."""
    template, first, name, now = version.template, version.first, version.template.name, services.clock()
    if approved and needs_two(template, services.policy) and (first is None or is_same_principal(first.actor, actor)):
        first = first or FirstApproval(name, template.digest, actor, comment, now)
        with lend(services.pool) as connection, connection.transaction():
            store_sources(connection, [template])
            if version.first is None:
                template_approvals.add_first(connection, first)
        return _version(template, services.policy, version.approval, first)
    with lend(services.pool) as connection, connection.transaction():
        store_sources(connection, [template])
        if not approved:  # the lock on the campaigns makes an order with their claims: none commits after the withdrawal
            lifecycle.pause_campaigns_of_template(
                connection, name, template.digest, f"paused itself: the approval of {name} was withdrawn", now
            )
        first_actor = first.actor if first and approved else None
        new = NewApproval(name, template.version, template.digest, approved, actor, now, comment, first_actor)
        approval = template_approvals.add(connection, new)
    return _version(template, services.policy, approval)


def needs_two(template: Template, policy: Policy) -> bool:
    """Whether the policy asks for two people to approve this template."""
    return needs_approval(template, policy) and template.info.topic in policy.second_approver_topics


def expire_approvals(services: Services) -> int:
    """Withdraw the approvals that are older than the policy in force allows, and pause the campaigns that use them; returns their
    number."""
    days, now = services.policy.approval_days, services.clock()
    if not days:
        return 0
    before = now - timedelta(days=days)
    with lend(services.pool) as connection:
        if not policies.is_in_force(connection, services.policy.digest):
            return 0
        due = template_approvals.older_than(connection, before)
        for name, digest in due:
            note = f"paused itself: the approval of {name} has expired after {days} days"
            with connection.transaction():  # the campaigns first, as `set_approval` does
                lifecycle.pause_campaigns_of_template(connection, name, digest, note, now)
                template_approvals.expire(connection, digest, before, now)
    return len(due)


def _only_approved(services: Services, name: str) -> str | None:
    """The digest of the approved version of a template that the folder does not have, or has with faults; None if there is none."""
    with lend(services.pool) as connection:
        digests = sorted(template_approvals.in_force(connection, [name]))
    if len(digests) > 1:
        shown = ", ".join(digest[:DIGEST_SHOWN] for digest in digests)
        raise BadInput(InputError("approval", 0, "digest", f"{name} has {len(digests)} approved versions: name one of {shown}"))
    return digests[0] if digests else None


def _former_version(services: Services, name: str, digest: str | None) -> TemplateVersion | None:
    """The version of this digest, or of this beginning of one, if it was approved before and is not the folder's present one."""
    if digest is None or len(digest) < DIGEST_SHOWN:
        return None
    if name in services.catalog and services.catalog[name].digest.startswith(digest):
        return None
    with lend(services.pool) as connection:
        newest = next((each for each in template_approvals.history(connection, name) if each.digest.startswith(digest)), None)
        firsts = template_approvals.first_approvals(connection)
    if newest is None:
        return None
    try:
        found = services.versions.load(services.pool, services.policy, services.catalog, {name: newest.digest})
    except TemplateUnavailable as error:
        raise BadInput(InputError("approval", 0, "digest", str(error))) from None
    return _version(found[newest.digest], services.policy, newest, firsts.get(newest.digest))


def approve_waiting(services: Services, actor: str) -> list[TemplateVersion]:
    """Approve every template that waits for it, by name: for demos, tests and benchmarks, which send to nobody. The linter does
    not run: it takes a second for a template."""
    waiting = [version.template for version in template_versions(services) if version.status is ApprovalStatus.WAITING]
    for template in waiting:
        for each in (actor, f"{actor}, second"):
            version = template_version(services, template.name)
            if version.status is ApprovalStatus.WAITING:
                _record(services, version, True, each, "")
    return [template_version(services, template.name) for template in waiting]


def approval_obstacles(
    present: TemplateVersion, approved: bool, actor: str, digest: str | None, names: Collection[str] = ()
) -> list[InputError]:
    """What stands against this approval or withdrawal. `names` are those of the actor: a template names its author in words."""
    template, errors = present.template, []
    if template.info.kind is Kind.SERVICE:
        errors.append(InputError("approval", 0, "template", f"{template.name} is a service message: it needs no approval"))
    if not actor:
        errors.append(InputError("approval", 0, "actor", "missing: name who approves"))
    if digest is not None and not (len(digest) >= DIGEST_SHOWN and template.digest.startswith(digest)):
        message = f"{template.name} is now {template.digest[:DIGEST_SHOWN]}; look at it again"
        errors.append(InputError("approval", 0, "digest", message))
    if approved and template.author and is_author(template.author, actor, names):
        errors.append(
            InputError("approval", 0, "actor", f"{template.author} wrote {template.name}: somebody else has to approve it")
        )
    if approved and (left := draft_error(template)):
        errors.append(left)
    if approved and (faults := template.translation_faults):
        message = f"{template.name} has {len(faults)} texts that are not translated, or stale; the first is {faults[0]}"
        errors.append(InputError("approval", 0, "template", message))
    if not approved and present.approval is None and present.first is None:
        errors.append(InputError("approval", 0, "template", f"{template.name} has no approval that could be withdrawn"))
    return errors


def approval_errors(connection: Connection, policy: Policy, templates: Collection[Template]) -> list[InputError]:
    """An error for each of these templates that is a draft, or needs an approval and has none; empty where all may be sent."""
    if drafts := [error for each in templates if (error := draft_error(each))]:
        return drafts
    if not any(needs_approval(each, policy) for each in templates):
        return []
    waiting = unapproved(templates, policy, template_approvals.in_force(connection, [each.name for each in templates]))
    return [
        InputError("approval", 0, "template", f"{not_approved_text(each)}: `dispatcher templates approve {each.name}`")
        for each in waiting
    ]


def draft_error(template: Template) -> InputError | None:
    """An error for a template with texts that are still to be written, a service message included."""
    texts = texts_to_write(template)
    if not texts:
        return None
    first = f"{texts[0].file}, line {texts[0].line}"
    message = (
        f"{len(texts)} of its texts are still to be written, the first at {first}: `dispatcher templates check {template.name}`"
    )
    return InputError("approval", 0, "template", message)


def _version(template: Template, policy: Policy, approval: Approval | None, first: FirstApproval | None = None) -> TemplateVersion:
    if not needs_approval(template, policy):
        return TemplateVersion(template, ApprovalStatus.FREE, approval)
    if approval is None or first is not None:
        return TemplateVersion(template, ApprovalStatus.WAITING, approval, first)
    return TemplateVersion(template, ApprovalStatus.APPROVED if approval.approved else ApprovalStatus.WITHDRAWN, approval)


def known_template(catalog: Catalog, name: str) -> Template:
    """The template of this name. Raises `BadInput` with its fault, or the nearest name."""
    if name not in catalog:
        raise BadInput(InputError("templates", 0, "name", catalog.reason(name)))
    return catalog[name]
