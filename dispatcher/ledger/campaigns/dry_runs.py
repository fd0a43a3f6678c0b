"""Dry runs of submitted campaigns: who made each, under which policy and with which templates, and its counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection, fetch_all


@dataclass(frozen=True, slots=True)
class StoredDryRun:
    """A dry run that is kept. `policy` is a digest, `templates` has those of the template versions by name. The counts name no
    recipient."""

    made_at: datetime
    actor: str
    policy: str
    templates: Mapping[str, str]
    counts: Mapping[str, Any]


def add(connection: Connection, campaign_no: int, run: StoredDryRun) -> None:
    """Keep a dry run; one that is kept already stays as it is."""
    connection.execute(
        "INSERT INTO campaign_dry_runs (campaign_no, made_at, actor, policy, templates, counts) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (campaign_no, run.made_at, run.actor, run.policy, Jsonb(dict(run.templates)), Jsonb(dict(run.counts))),
    )


def of_campaign(connection: Connection, campaign_no: int, limit: int) -> list[StoredDryRun]:
    """The newest dry runs of a campaign, newest first."""
    rows = fetch_all(
        connection,
        "SELECT made_at, actor, policy, templates, counts FROM campaign_dry_runs WHERE campaign_no = %(no)s"
        " ORDER BY made_at DESC, actor LIMIT %(limit)s",
        {"no": campaign_no, "limit": limit},
    )
    return [StoredDryRun(**row) for row in rows]
