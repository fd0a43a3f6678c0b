"""The figures of the complaint brake: accepted messages, bounces and complaints of running campaigns."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk


@dataclass(frozen=True, slots=True)
class CampaignRates:
    """The counts of a running campaign since the brake last paused it, or else since its start."""

    no: int
    id: str
    note: str
    taken: int
    complained: int
    bounced: int
    ever: tuple[int, int, int]  # the same three counts since its start


# Accepted messages are counted per chunk, and complaints and bounces have a small index of their own: no message is read.
_RATES = f"""
    SELECT c.no, c.id, c.note, coalesce((c.braked->>'taken')::int, 0), coalesce((c.braked->>'complained')::int, 0),
           coalesce((c.braked->>'bounced')::int, 0), taken.n, bad.complained, bad.bounced
    FROM campaigns c
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(k.accepted), 0)::int AS n FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no
    ) taken
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT (e.chunk, e.row, e.leg)) FILTER (WHERE e.kind = 'complained')::int AS complained,
               count(DISTINCT (e.chunk, e.row, e.leg)) FILTER (WHERE e.kind = 'bounced')::int AS bounced
        FROM chunks k JOIN provider_events e ON {same_chunk("e", "k")}
        WHERE k.period = c.period AND k.campaign_no = c.no AND e.kind IN ('complained', 'bounced')
    ) bad
    WHERE c.state = 'running'
"""


def campaign_rates(connection: Connection) -> list[CampaignRates]:
    """The counts of every running campaign."""
    return [
        CampaignRates(no, name, note, taken - base[0], complained - base[1], bounced - base[2], (taken, complained, bounced))
        for no, name, note, *base, taken, complained, bounced in connection.execute(_RATES)
    ]


def stop(connection: Connection, rates: CampaignRates, note: str, now: datetime) -> bool:
    """Pause the campaign with a note; False where it is no longer running."""
    base = dict(zip(("taken", "complained", "bounced"), rates.ever, strict=True))
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s, note = %s, braked = %s WHERE no = %s AND state = 'running'",
            (now, note, Jsonb(base), rates.no),
        ).rowcount
    )


def warn(connection: Connection, rates: CampaignRates, note: str) -> None:
    """Set the campaign's note."""
    connection.execute("UPDATE campaigns SET note = %s WHERE no = %s", (note, rates.no))
