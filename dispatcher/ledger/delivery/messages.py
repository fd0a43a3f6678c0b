"""Single messages, as people ask for them; the dead, and how they come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """One provider event of a message."""

    provider: str
    kind: str
    code: str | None
    at: datetime
    extra: Mapping[str, str]  # what no rule knows


@dataclass(frozen=True, slots=True)
class Message:
    """A message's row. A job that nobody has decided yet has none: it shows as pending, with an empty decision."""

    ref: MessageId
    campaign_id: str | None
    spec: Spec
    recipient_id: str
    channel: Channel | None
    state: State
    reason: str | None
    until: datetime | None
    attempts: int
    provider: str | None
    receipt: str | None
    claimed_at: datetime | None
    accepted_at: datetime | None
    updated_at: datetime | None
    decision: Mapping[str, Any]
    news: tuple[DeliveryReport, ...]


_SELECT = """
    SELECT j.period, j.chunk, j.row, coalesce(m.leg, 0), c.id, coalesce(c.spec, t.spec), j.recipient_id, m.channel,
           coalesce(m.state, 'pending'), m.reason, m.until, coalesce(m.attempts, 0), m.provider, m.receipt,
           m.claimed_at, m.accepted_at, m.updated_at, coalesce(m.decision, '{}')
    FROM (SELECT period, chunk, row, campaign_no, recipient_id FROM jobs
          UNION SELECT period, chunk, row, campaign_no, recipient_id FROM messages) j
    LEFT JOIN messages m ON m.period = j.period AND m.chunk = j.chunk AND m.row = j.row
    LEFT JOIN campaigns c ON c.no = j.campaign_no
    LEFT JOIN triggers t ON t.chunk = j.chunk AND j.campaign_no IS NULL
"""


def find(connection: Connection, ref: MessageId) -> Message | None:
    """The message of this id; None when there is none, nor a job that would become it."""
    row = connection.execute(
        _SELECT + "WHERE j.period = %s AND j.chunk = %s AND j.row = %s AND coalesce(m.leg, 0) = %s",
        (ref.period, ref.chunk, ref.row, ref.leg),
    ).fetchone()
    return _message(connection, row) if row else None


def of_campaign(connection: Connection, campaign_id: str, recipient_id: str) -> list[Message]:
    """What a campaign had for one recipient, leg by leg."""
    rows = connection.execute(
        _SELECT
        + "WHERE j.campaign_no = (SELECT no FROM campaigns WHERE id = %s) AND j.recipient_id = %s ORDER BY j.chunk, j.row, m.leg",
        (campaign_id, recipient_id),
    ).fetchall()
    return [_message(connection, row) for row in rows]


def _message(connection: Connection, row: Sequence[Any]) -> Message:
    period, chunk, position, leg, campaign_id, spec, recipient_id, channel, state, *rest = row
    reason, until, attempts, provider, receipt, claimed_at, accepted_at, updated_at, decision = rest
    ref = MessageId(period, chunk, position, leg)
    news = connection.execute(
        """
        SELECT provider, kind, code, at, coalesce(extra, '{}') FROM provider_events
        WHERE period = %s AND chunk = %s AND row = %s AND leg = %s ORDER BY at, kind
        """,
        (ref.period, ref.chunk, ref.row, ref.leg),
    )
    return Message(
        ref,
        campaign_id,
        spec_from_json(spec),
        recipient_id,
        Channel(channel) if channel else None,
        State(state),
        reason,
        until,
        attempts,
        provider,
        receipt,
        claimed_at,
        accepted_at,
        updated_at,
        decision,
        tuple(DeliveryReport(*item) for item in news),
    )


def decided_triggers(connection: Connection, keys: Sequence[str]) -> dict[str, MessageId]:
    """Those of these triggers that are past deciding and handing over, by their keys."""
    rows = connection.execute(
        """
        SELECT t.key, m.period, m.chunk, m.row, m.leg FROM triggers t JOIN messages m ON m.period = t.period AND m.chunk = t.chunk
        WHERE t.key = ANY(%s) AND m.state NOT IN ('pending', 'claimed')
        """,
        (list(keys),),
    )
    return {key: MessageId(*place) for key, *place in rows}


def dead(connection: Connection, campaign_id: str | None, limit: int) -> list[tuple[MessageId, str | None, str | None, datetime]]:
    """Messages whose attempts are spent: (ref, campaign id, reason, since), newest first."""
    rows = connection.execute(
        """
        SELECT m.period, m.chunk, m.row, m.leg, c.id, m.reason, m.updated_at
        FROM messages m LEFT JOIN campaigns c ON c.no = m.campaign_no
        WHERE m.state = 'dead' AND (%(id)s::text IS NULL OR c.id = %(id)s) ORDER BY m.updated_at DESC LIMIT %(limit)s
        """,
        {"id": campaign_id, "limit": limit},
    )
    return [(MessageId(period, chunk, row, leg), *rest) for period, chunk, row, leg, *rest in rows]


def replay(connection: Connection, refs: Sequence[MessageId], now: datetime) -> int:
    """Give dead messages new attempts, through every check again; says how many were dead. A cancelled campaign's stay dead,
    and so does what has fallen back to another channel.
    """
    return connection.execute(
        """
        WITH replayed AS (
            UPDATE messages m SET state = 'waiting', until = %(now)s, attempts = 0, updated_at = %(now)s
            FROM unnest(%(period)s::int[], %(chunk)s::bigint[], %(row)s::int[], %(leg)s::smallint[]) AS r (period, chunk, row, leg)
            WHERE m.period = r.period AND m.chunk = r.chunk AND m.row = r.row AND m.leg = r.leg AND m.state = 'dead'
              AND NOT EXISTS (
                SELECT FROM messages o JOIN campaigns f ON f.no = o.campaign_no AND f.spec->>'route' = 'first'
                WHERE o.period = m.period AND o.chunk = m.chunk AND o.row = m.row AND o.leg > m.leg)
              AND NOT EXISTS (SELECT FROM campaigns c WHERE c.no = m.campaign_no AND c.state = 'cancelled')
            RETURNING m.campaign_no
        ), reopened AS (
            UPDATE campaigns SET state = 'running', finished_at = NULL
            WHERE no IN (SELECT campaign_no FROM replayed) AND state = 'finished'
        )
        SELECT FROM replayed
        """,
        {
            "now": now,
            "period": [ref.period for ref in refs],
            "chunk": [ref.chunk for ref in refs],
            "row": [ref.row for ref in refs],
            "leg": [ref.leg for ref in refs],
        },
    ).rowcount
