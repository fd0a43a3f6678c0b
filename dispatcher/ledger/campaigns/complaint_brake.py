"""The complaint brake's figures: what providers took of running campaigns, what came back, what was complained about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class CampaignRates:
    """A running campaign since the brake last stopped it, or from its start."""

    no: int
    id: str
    note: str
    taken: int
    complained: int
    bounced: int
    ever: tuple[int, int, int]  # the same three, from the start


# Taken messages are summed per chunk, and complaints and bounces have a small index of their own: no message is read.
_STANDINGS = """
    SELECT c.no, c.id, c.note, coalesce((c.braked->>'taken')::int, 0), coalesce((c.braked->>'complained')::int, 0),
           coalesce((c.braked->>'bounced')::int, 0), taken.n, bad.complained, bad.bounced
    FROM campaigns c
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(k.accepted), 0)::int AS n FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no
    ) taken
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT (e.chunk, e.row, e.leg)) FILTER (WHERE e.kind = 'complained')::int AS complained,
               count(DISTINCT (e.chunk, e.row, e.leg)) FILTER (WHERE e.kind = 'bounced')::int AS bounced
        FROM chunks k JOIN provider_events e ON e.period = k.period AND e.chunk = k.chunk
        WHERE k.period = c.period AND k.campaign_no = c.no AND e.kind IN ('complained', 'bounced')
    ) bad
    WHERE c.state = 'running'
"""


def campaign_rates(connection: Connection) -> list[CampaignRates]:
    """How the running campaigns stand."""
    return [
        CampaignRates(no, name, note, taken - base[0], complained - base[1], bounced - base[2], (taken, complained, bounced))
        for no, name, note, *base, taken, complained, bounced in connection.execute(_STANDINGS)
    ]


def stop(connection: Connection, standing: CampaignRates, note: str, now: datetime) -> bool:
    """Pause the campaign with a note; False when it runs no more."""
    base = dict(zip(("taken", "complained", "bounced"), standing.ever, strict=True))
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s, note = %s, braked = %s WHERE no = %s AND state = 'running'",
            (now, note, Jsonb(base), standing.no),
        ).rowcount
    )


def warn(connection: Connection, standing: CampaignRates, note: str) -> None:
    """Leave a note on the campaign."""
    connection.execute("UPDATE campaigns SET note = %s WHERE no = %s", (note, standing.no))
