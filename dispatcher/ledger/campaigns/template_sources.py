"""The sources of template versions, by digest. Rows are only added."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """All files of one template version, the shared ones included, by their names."""

    digest: str
    template: str
    files: Mapping[str, str]


def store(connection: Connection, sources: Iterable[TemplateSource]) -> None:
    """Store these sources where the ledger does not have them.

    Looks first: a source has some 50 kB, and almost always the ledger has it. In a long transaction another process that stores
    the same one would wait for its end, so call it before.
    """
    by_digest = {source.digest: source for source in sources}
    stored = connection.execute("SELECT digest FROM template_sources WHERE digest = ANY(%s)", (list(by_digest),)).fetchall()
    for (digest,) in stored:
        del by_digest[digest]
    for source in by_digest.values():
        connection.execute(
            "INSERT INTO template_sources (digest, template, files) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (source.digest, source.template, Jsonb(dict(source.files))),
        )


def find(connection: Connection, digests: Collection[str]) -> dict[str, Mapping[str, str]]:
    """The files of these versions, by digest; those that the ledger does not have are left out."""
    rows = connection.execute("SELECT digest, files FROM template_sources WHERE digest = ANY(%s)", (list(digests),))
    return dict(rows.fetchall())


def versions(connection: Connection, template: str) -> list[tuple[str, datetime]]:
    """The versions of a template whose sources the ledger has, newest first: (digest, when it was stored)."""
    rows = connection.execute(
        "SELECT digest, stored_at FROM template_sources WHERE template = %s ORDER BY stored_at DESC, digest", (template,)
    )
    return rows.fetchall()


def name_versions(connection: Connection, digests: Mapping[str, str]) -> int:
    """Name a version (template -> digest) in each open campaign that names none yet and uses only these templates; returns their
    number."""
    return connection.execute(
        """
        UPDATE campaigns c SET template_digests = used.digests
        FROM campaigns old CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(u.template, v.digest) AS digests, bool_and(v.digest IS NOT NULL) AS complete
            FROM (SELECT old.spec->>'template' AS template
                  UNION SELECT variant->>1 FROM jsonb_array_elements(old.spec->'variants') variant) u
            LEFT JOIN unnest(%s::text[], %s::text[]) AS v (template, digest) ON v.template = u.template
        ) used
        WHERE old.no = c.no AND used.complete AND c.template_digests = '{}' AND c.state NOT IN ('finished', 'cancelled')
        """,
        (list(digests), list(digests.values())),
    ).rowcount
