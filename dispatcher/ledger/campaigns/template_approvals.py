"""Approvals of template versions and their withdrawals. Rows are only added; the newest row of a digest counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.entity_scope import entity_parameter, has_entity


@dataclass(frozen=True, slots=True)
class NewApproval:
    """An approval of a template version, or its withdrawal (`approved` False), to be recorded.

    `first_actor` approved it before, where the policy asks for two people.
    """

    template: str
    version: str
    digest: str
    approved: bool
    actor: str
    at: datetime
    comment: str = ""
    first_actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(NewApproval):
    """A recorded approval or withdrawal."""

    no: int


_NEW = "template, version, digest, approved, actor, at, comment, first_actor"
_FIELDS = f"{_NEW}, no"


def _approval(row: tuple[Any, ...]) -> Approval:
    return Approval(*row[:-1], no=row[-1])


def add(connection: Connection, new: NewApproval) -> Approval:
    """Record an approval or a withdrawal."""
    row = connection.execute(
        f"INSERT INTO template_approvals ({_NEW}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_FIELDS}",
        astuple(new),
    ).fetchone()
    assert row is not None  # noqa: S101  an INSERT without a condition returns its row
    return _approval(row)


def latest(connection: Connection) -> dict[str, Approval]:
    """The newest approval or withdrawal of every template version, by digest."""
    rows = connection.execute(f"SELECT DISTINCT ON (digest) {_FIELDS} FROM template_approvals ORDER BY digest, no DESC")
    return {approval.digest: approval for approval in map(_approval, rows)}


# For a spec `s.spec`, as `in_force` gives it for its templates.
IN_FORCE = """
    (SELECT jsonb_object_agg(digest, no) FROM (
        SELECT DISTINCT ON (a.digest) a.digest, a.no, a.approved FROM template_approvals a
        WHERE a.template = s.spec->>'template' OR a.template IN (SELECT v->>1 FROM jsonb_array_elements(s.spec->'variants') v)
        ORDER BY a.digest, a.no DESC
    ) newest WHERE approved)
"""


def in_force(connection: Connection, templates: Collection[str]) -> Mapping[str, int]:
    """The approved versions of these templates: digest -> number of its approval."""
    rows = connection.execute(
        """
        SELECT digest, no FROM (
            SELECT DISTINCT ON (digest) digest, no, approved FROM template_approvals
            WHERE template = ANY(%s) ORDER BY digest, no DESC
        ) newest WHERE approved
        """,
        (list(templates),),
    )
    return dict(rows.fetchall())


def history(connection: Connection, template: str, limit: int = 100) -> list[Approval]:
    """The approvals and withdrawals of a template, newest first."""
    rows = connection.execute(
        f"SELECT {_FIELDS} FROM template_approvals WHERE template = %s ORDER BY no DESC LIMIT %s", (template, limit)
    )
    return [_approval(row) for row in rows]


# -- the first of two people -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirstApproval:
    """An approval by the first of two people: nothing may be sent because of it."""

    template: str
    digest: str
    actor: str
    comment: str
    at: datetime


def add_first(connection: Connection, first: FirstApproval) -> None:
    """Record an approval by the first of two people."""
    connection.execute(
        "INSERT INTO template_first_approvals (template, digest, actor, comment, at, after_no)"
        " SELECT %s, %s, %s, %s, %s, coalesce((SELECT max(no) FROM template_approvals WHERE digest = %s), 0)",
        (*astuple(first), first.digest),
    )


def first_approvals(connection: Connection) -> dict[str, FirstApproval]:
    """The versions that the first of two people approved and that wait for the second, by digest."""
    rows = connection.execute(
        """
        SELECT DISTINCT ON (f.digest) f.template, f.digest, f.actor, f.comment, f.at FROM template_first_approvals f
        WHERE NOT EXISTS (SELECT FROM template_approvals a WHERE a.digest = f.digest AND a.no > f.after_no)
        ORDER BY f.digest, f.no DESC
        """
    )
    return {first.digest: first for first in (FirstApproval(*row) for row in rows)}


# -- their end ---------------------------------------------------------------------------------------------------------


def older_than(connection: Connection, before: datetime) -> list[tuple[str, str]]:
    """The versions whose approval is in force and older than `before`: (template, digest)."""
    rows = connection.execute(
        """
        SELECT template, digest FROM (
            SELECT DISTINCT ON (digest) template, digest, approved, at FROM template_approvals ORDER BY digest, no DESC
        ) newest WHERE approved AND at < %s ORDER BY digest
        """,
        (before,),
    )
    return rows.fetchall()


def expire(connection: Connection, digest: str, before: datetime, now: datetime) -> bool:
    """Withdraw the approval of a version if it is older than `before`. A function does it: not every role may withdraw one."""
    return connection.execute("SELECT * FROM expire_approval(%s, %s, %s)", (digest, before, now)).fetchone() is not None


# -- what used a version -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionUse:
    """A campaign that names a version of a template."""

    digest: str
    campaign: str
    state: str
    created_at: datetime


def uses(connection: Connection, template: str, entities: Entities = None, limit: int = 1_000) -> list[VersionUse]:
    """The campaigns of these entities that name a version of this template, newest first."""
    rows = connection.execute(
        f"""
        SELECT template_digests->>%(template)s, id, state, created_at FROM campaigns
        WHERE template_digests ? %(template)s AND {has_entity("spec->>'entity'")} ORDER BY no DESC LIMIT %(limit)s
        """,
        {"template": template, "limit": limit, **entity_parameter(entities)},
    )
    return [VersionUse(*row) for row in rows]
