"""Edits of campaigns: their options, the times of their chunks, and who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.ledger.connection import Connection, fetch_all, fetch_one
from dispatcher.ledger.message_key import same_chunk
from dispatcher.ledger.spec_codec import spec_from_json, spec_to_json


@dataclass(frozen=True, slots=True)
class CampaignEdit:
    """One edit. `changes` has each option with its value before and after, as JSON."""

    version: int
    at: datetime
    actor: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LockedCampaign:
    """A campaign that is locked to be edited. `chunk_jobs_max` is the size of the largest chunk without any message."""

    no: int
    period: int
    state: CampaignState
    spec: Spec
    version: int
    is_loading: bool
    started_at: datetime | None
    released_by: str | None
    chunk_jobs_max: int


_NO_MESSAGES = f"NOT EXISTS (SELECT FROM messages m WHERE {same_chunk('m', 'k')})"


def lock(connection: Connection, campaign_id: str) -> LockedCampaign | None:
    """Lock a campaign: no message of it is claimed, and its state does not change, until the transaction ends."""
    row = fetch_one(
        connection,
        f"""
        SELECT no, period, state, spec, version, state = 'scheduled' AND NOT fanned_out AS is_loading, started_at, released_by,
               (SELECT coalesce(max(size), 0) FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no
                AND k.done_at IS NULL AND {_NO_MESSAGES}) AS chunk_jobs_max
        FROM campaigns c WHERE id = %(id)s FOR UPDATE
        """,
        {"id": campaign_id},
    )
    if row is None:
        return None
    return LockedCampaign(**{**row, "state": CampaignState(row["state"]), "spec": spec_from_json(row["spec"])})


def write(connection: Connection, no: int, spec: Spec, edit: CampaignEdit, is_material: bool) -> None:
    """Write the edited spec of a locked campaign, and the edit. A material one voids a release."""
    connection.execute(
        """
        UPDATE campaigns SET spec = %(spec)s, version = %(version)s,
            state = CASE WHEN %(voids)s AND released_by IS NOT NULL THEN 'awaiting_release' ELSE state END,
            note = CASE WHEN %(voids)s AND released_by IS NOT NULL
                   THEN concat_ws('; ', nullif(note, ''), format('edited after its release by %%s', released_by)) ELSE note END,
            released_by = CASE WHEN %(voids)s THEN NULL ELSE released_by END
        WHERE no = %(no)s
        """,
        {"spec": spec_to_json(spec), "version": edit.version, "voids": is_material, "no": no},
    )
    connection.execute(
        "INSERT INTO campaign_edits (campaign_no, version, at, actor, changes, is_material) VALUES (%s, %s, %s, %s, %s, %s)",
        (no, edit.version, edit.at, edit.actor, Jsonb(dict(edit.changes)), is_material),
    )


def reschedule(connection: Connection, campaign: LockedCampaign, start: datetime, jobs_per_second: float | None) -> None:
    """Give the chunks without any message new times, from `start` on: all at once, or at a rate."""
    connection.execute(
        f"""
        UPDATE chunks k SET due_at = %(start)s + make_interval(secs => coalesce(open.before / %(rate)s::float8, 0))
        FROM (
            SELECT period, chunk, sum(size) OVER (ORDER BY chunk) - size AS before
            FROM chunks k WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND k.done_at IS NULL AND {_NO_MESSAGES}
        ) open
        WHERE {same_chunk("k", "open")}
        """,
        {"start": start, "rate": jobs_per_second, "period": campaign.period, "no": campaign.no},
    )


def of_campaign(connection: Connection, no: int) -> list[CampaignEdit]:
    """The edits of a campaign, oldest first."""
    rows = fetch_all(
        connection,
        "SELECT version, at, actor, changes FROM campaign_edits WHERE campaign_no = %(no)s ORDER BY version",
        {"no": no},
    )
    return [CampaignEdit(**row) for row in rows]
