"""Approvals of template versions and their withdrawals. Rows are only added; the newest row of a digest counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class NewApproval:
    """An approval of a template version, or its withdrawal (`approved` False), to be recorded."""

    template: str
    version: str
    digest: str
    approved: bool
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval(NewApproval):
    """A recorded approval or withdrawal."""

    no: int


_FIELDS = "template, version, digest, approved, actor, at, no"


def add(connection: Connection, new: NewApproval) -> Approval:
    """Record an approval or a withdrawal."""
    row = connection.execute(
        f"INSERT INTO template_approvals (template, version, digest, approved, actor, at) VALUES (%s, %s, %s, %s, %s, %s)"
        f" RETURNING {_FIELDS}",
        astuple(new),
    ).fetchone()
    assert row is not None  # noqa: S101  an INSERT without a condition returns its row
    return Approval(*row)


def latest(connection: Connection) -> dict[str, Approval]:
    """The newest approval or withdrawal of every template version, by digest."""
    rows = connection.execute(f"SELECT DISTINCT ON (digest) {_FIELDS} FROM template_approvals ORDER BY digest, no DESC")
    return {approval.digest: approval for approval in (Approval(*row) for row in rows)}


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
    return [Approval(*row) for row in rows]
