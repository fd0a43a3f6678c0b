"""Campaigns in the ledger: their states, their balance, and the specs that their jobs share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.spec_codec import spec_from_json, spec_to_json


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign's row. `invalid` counts the audience rows that could not be read; `audience` those that could."""

    no: int
    id: str
    period: int
    state: CampaignState
    spec: Spec
    fanned_out: bool
    audience: int
    invalid: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    submitted_by: str
    released_by: str | None
    note: str


def create(connection: Connection, campaign_id: str, spec: Spec, now: datetime, by: str = "") -> tuple[int, int] | None:
    """Write a new campaign's row, `scheduled` and not yet fanned out: (no, period), or None when the id is taken.

    Call inside the transaction that also loads the audience, so that a campaign is there whole or not at all.
    """
    period = period_of(now)
    ensure_period(connection, period)
    row = connection.execute(
        """
        INSERT INTO campaigns (id, period, state, spec, digest, created_at, submitted_by)
        VALUES (%s, %s, 'scheduled', %s, '', %s, %s) ON CONFLICT (id) DO NOTHING RETURNING no
        """,
        (campaign_id, period, spec_to_json(spec), now, by),
    ).fetchone()
    return (row[0], period) if row else None


def complete(connection: Connection, no: int, digest: bytes, invalid: int, awaiting_release: bool = False) -> None:
    """Mark a campaign's audience as wholly in the ledger; from here on it may start, or be released."""
    state = CampaignState.AWAITING_RELEASE if awaiting_release else CampaignState.SCHEDULED
    connection.execute(
        "UPDATE campaigns SET fanned_out = true, digest = %s, invalid = %s, state = %s WHERE no = %s", (digest, invalid, state, no)
    )


def digest_of(connection: Connection, campaign_id: str) -> bytes | None:
    """What was submitted under this id, as a digest; None when nothing was."""
    row = connection.execute("SELECT digest FROM campaigns WHERE id = %s", (campaign_id,)).fetchone()
    return bytes(row[0]) if row else None


_SELECT = """
    SELECT c.no, c.id, c.period, c.state, c.spec, c.fanned_out,
           (SELECT coalesce(sum(size), 0)::int FROM chunks k WHERE k.period = c.period AND k.campaign_no = c.no),
           c.invalid, c.created_at, c.started_at, c.finished_at, c.submitted_by, c.released_by, c.note
    FROM campaigns c
"""


def _campaign(row: tuple[Any, ...]) -> Campaign:
    no, campaign_id, period, state, spec, *rest = row
    return Campaign(no, campaign_id, period, CampaignState(state), spec_from_json(spec), *rest)


def find(connection: Connection, campaign_id: str) -> Campaign | None:
    """The campaign of this id."""
    row = connection.execute(_SELECT + "WHERE c.id = %s", (campaign_id,)).fetchone()
    return _campaign(row) if row else None


def newest(connection: Connection, limit: int) -> list[Campaign]:
    """The newest campaigns, newest first."""
    return [_campaign(row) for row in connection.execute(_SELECT + "ORDER BY c.no DESC LIMIT %s", (limit,))]


def faults(connection: Connection, no: int, limit: int) -> list[tuple[int, str, str]]:
    """Audience rows that could not be read: (line, field, what is wrong)."""
    rows = connection.execute(
        "SELECT line, field, message FROM audience_faults WHERE campaign_no = %s ORDER BY line LIMIT %s", (no, limit)
    )
    return [(line, field, message) for line, field, message in rows]


# -- changes of state --------------------------------------------------------------------------------------------------
# Each takes the campaign's row lock, which the claim gate holds in share: once such a change has committed, no further
# message of the campaign is claimed.


def start_due(connection: Connection, now: datetime) -> int:
    """Set every campaign running whose audience is complete and whose moment has come; says how many."""
    return connection.execute(
        """
        UPDATE campaigns SET state = 'running', started_at = coalesce(started_at, %(now)s)
        WHERE state = 'scheduled' AND fanned_out
          AND coalesce((spec->>'send_at')::timestamptz, created_at) <= %(now)s
        """,
        {"now": now},
    ).rowcount


def release(connection: Connection, campaign_id: str, by: str, now: datetime) -> bool:
    """Awaiting release -> scheduled, by somebody else than who submitted it. False when it is not theirs to release, or no more.

    Its chunks keep their rate from now on.
    """
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE campaigns SET state = 'scheduled', released_by = %(by)s
            WHERE id = %(id)s AND state = 'awaiting_release' AND lower(trim(%(by)s::text)) NOT IN ('', lower(trim(submitted_by)))
            RETURNING no, period, created_at
            """,
            {"id": campaign_id, "by": by},
        ).fetchone()
        if row is not None:
            _shift(connection, row[0], row[1], row[2], now)
    return row is not None


def pause(connection: Connection, campaign_id: str, now: datetime) -> bool:
    """Running or scheduled -> paused. False when the campaign is in no state to be paused."""
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s WHERE id = %s AND state IN ('running', 'scheduled')",
            (now, campaign_id),
        ).rowcount
    )


def halt(connection: Connection, no: int, note: str, now: datetime) -> bool:
    """Running -> paused, with a note that says why. False when the campaign runs no more."""
    return bool(
        connection.execute(
            "UPDATE campaigns SET state = 'paused', paused_at = %s, note = %s WHERE no = %s AND state = 'running'", (now, note, no)
        ).rowcount
    )


def resume(connection: Connection, campaign_id: str, now: datetime) -> bool:
    """Paused -> scheduled, from where it starts at once or at its `send_at`; what was due meanwhile keeps its rate, and why it
    paused is settled."""
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE campaigns SET state = 'scheduled', note = '' WHERE id = %s AND state = 'paused'
            RETURNING no, period, paused_at
            """,
            (campaign_id,),
        ).fetchone()
        if row is None:
            return False
        no, period, paused_at = row
        _shift(connection, no, period, paused_at, now)
        connection.execute(
            "UPDATE chunks SET touched_at = NULL WHERE period = %s AND campaign_no = %s AND done_at IS NULL",
            (period, no),
        )
    return True


def _shift(connection: Connection, no: int, period: int, stood_since: datetime, now: datetime) -> None:
    """Move what was due while the campaign stood still, so that it does not all leave at once."""
    connection.execute(
        """
        UPDATE chunks SET due_at = due_at + (%(now)s - %(since)s), touched_at = NULL
        WHERE period = %(period)s AND campaign_no = %(no)s AND done_at IS NULL AND due_at + (%(now)s - %(since)s) > %(now)s
        """,
        {"now": now, "since": stood_since, "period": period, "no": no},
    )


def cancel(connection: Connection, campaign_id: str, now: datetime) -> bool:
    """Stop for good: what is not yet handed over becomes `cancelled`. False when it had ended already."""
    with connection.transaction():
        row = connection.execute(
            """
            UPDATE campaigns SET state = 'cancelled', finished_at = %s
            WHERE id = %s AND state NOT IN ('finished', 'cancelled') RETURNING no, period
            """,
            (now, campaign_id),
        ).fetchone()
        if row is None:
            return False
        names = {"now": now, "no": row[0], "period": row[1]}
        connection.execute(
            """
            UPDATE messages m SET state = 'cancelled', reason = 'cancelled', until = NULL, updated_at = %(now)s
            FROM chunks k
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND m.period = k.period AND m.chunk = k.chunk
              AND m.state IN ('pending', 'held', 'waiting')
            """,
            names,
        )
        connection.execute(  # no leg is followed by another
            """
            UPDATE messages m SET until = NULL FROM chunks k
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND m.period = k.period AND m.chunk = k.chunk
              AND m.until IS NOT NULL
            """,
            names,
        )
        connection.execute(
            """
            INSERT INTO messages (period, chunk, row, leg, campaign_no, updated_at, recipient_id, state, reason, decision)
            SELECT j.period, j.chunk, j.row, 0, j.campaign_no, %(now)s, j.recipient_id, 'cancelled', 'cancelled', '{}'
            FROM chunks k JOIN jobs j ON j.period = k.period AND j.chunk = k.chunk
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND k.done_at IS NULL
              AND NOT EXISTS (SELECT FROM messages m WHERE m.period = j.period AND m.chunk = j.chunk AND m.row = j.row)
            """,
            names,
        )
        connection.execute(
            """
            UPDATE chunks k SET done_at = %(now)s
            WHERE k.period = %(period)s AND k.campaign_no = %(no)s AND k.done_at IS NULL
              AND NOT EXISTS (
                SELECT FROM messages m WHERE m.period = k.period AND m.chunk = k.chunk AND m.state = 'claimed')
            """,
            names,
        )
    return True


def finish_ended(connection: Connection, now: datetime, no: int | None = None) -> int:
    """Mark as finished every running campaign (or the one given) in which nothing is left to do; says how many."""
    return connection.execute(
        """
        UPDATE campaigns c SET state = 'finished', finished_at = %(now)s
        WHERE c.state = 'running' AND c.fanned_out AND (%(no)s::bigint IS NULL OR c.no = %(no)s)
          AND NOT EXISTS (SELECT FROM chunks k WHERE k.campaign_no = c.no AND k.done_at IS NULL)
          AND NOT EXISTS (SELECT FROM messages m WHERE m.until IS NOT NULL AND m.campaign_no = c.no)
        """,
        {"now": now, "no": no},
    ).rowcount
