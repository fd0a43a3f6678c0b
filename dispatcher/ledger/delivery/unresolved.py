"""Messages that may have gone: whether a provider can still be asked about each, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.spec_codec import spec_from_json

FIRST_SECONDS = 120.0  # news that comes by itself is given this long, and who asks may take so long


@dataclass(frozen=True, slots=True)
class UnresolvedSend:
    """An unresolved message, and what is needed to ask about it. `asked` counts the answers that left the doubt.

    `address` is today's, None where there is none; `changed` that the person's record has changed since the claim, so that it may
    be another. `receipts` are those of former attempts. `spec` is that of a job with a fallback.
    """

    ref: MessageId
    channel: Channel
    recipient_id: str
    asked: int
    claimed_at: datetime
    address: str | None
    changed: bool
    receipts: tuple[str, ...] = ()
    spec: Spec | None = None


@dataclass(frozen=True, slots=True)
class UnresolvedRow:
    """An unresolved message as people are shown it. `ask_at` is None where nobody can be asked any more."""

    ref: MessageId
    campaign_id: str | None
    recipient_id: str
    channel: Channel | None
    reason: str | None
    since: datetime
    ask_at: datetime | None


def open_(connection: Connection, refs: Sequence[MessageId], now: datetime) -> None:
    """Write down that these may have gone, in the transaction that says so of them."""
    connection.execute(
        """
        INSERT INTO doubts (period, chunk, row, leg, since, ask_at)
        SELECT *, %s::timestamptz, %s::timestamptz FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[])
        ON CONFLICT (period, chunk, row, leg) DO UPDATE SET since = excluded.since, ask_at = excluded.ask_at, asked = 0
        """,
        (now, now + timedelta(seconds=FIRST_SECONDS), *_columns(refs)),
    )


def close(connection: Connection, refs: Sequence[MessageId]) -> None:
    """These are in doubt no more."""
    connection.execute(
        "DELETE FROM doubts d USING unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS r (period, chunk, row, leg)"
        " WHERE (d.period, d.chunk, d.row, d.leg) = (r.period, r.chunk, r.row, r.leg)",
        _columns(refs),
    )


def take(connection: Connection, now: datetime) -> UnresolvedSend | None:
    """The message to ask about next, for this caller alone for a while; None where none is due."""
    row = connection.execute(
        """
        WITH next AS (
            SELECT * FROM doubts WHERE ask_at <= %(now)s ORDER BY ask_at LIMIT 1 FOR UPDATE SKIP LOCKED
        ), taken AS (
            UPDATE doubts d SET ask_at = %(again)s FROM next n
            WHERE (d.period, d.chunk, d.row, d.leg) = (n.period, n.chunk, n.row, n.leg)
        )
        SELECT n.period, n.chunk, n.row, n.leg, m.state, m.channel, m.recipient_id, n.asked, m.claimed_at,
               CASE m.channel WHEN 'email' THEN r.email WHEN 'sms' THEN r.phone WHEN 'whatsapp' THEN r.whatsapp END,
               coalesce(r.updated_at > m.claimed_at, true), coalesce(array_remove(m.returned || m.receipt, NULL), '{}'),
               CASE WHEN c.spec->'fallback_after_seconds' <> 'null' THEN c.spec END
        FROM next n
        LEFT JOIN messages m ON (m.period, m.chunk, m.row, m.leg) = (n.period, n.chunk, n.row, n.leg)
        LEFT JOIN recipients r ON r.id = m.recipient_id
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        """,
        {"now": now, "again": now + timedelta(seconds=FIRST_SECONDS)},
    ).fetchone()
    if row is None:
        return None
    period, chunk, number, leg, state, channel, recipient_id, asked, claimed_at, address, changed, receipts, spec = row
    ref = MessageId(period, chunk, number, leg)
    if state != State.UNRESOLVED:
        close(connection, [ref])
        return take(connection, now)
    about = spec_from_json(spec) if spec else None
    return UnresolvedSend(ref, Channel(channel), recipient_id, asked, claimed_at, address, changed, tuple(receipts), about)


def about(connection: Connection, ref: MessageId) -> tuple[Channel, Spec | None] | None:
    """The channel of an unresolved message and, where it has a fallback, its spec; None where it isn't unresolved."""
    row = connection.execute(
        """
        SELECT m.channel, CASE WHEN c.spec->'fallback_after_seconds' <> 'null' THEN c.spec END
        FROM messages m LEFT JOIN campaigns c ON c.no = m.campaign_no
        WHERE (m.period, m.chunk, m.row, m.leg) = (%s, %s, %s, %s) AND m.state = 'unresolved'
        """,
        (ref.period, ref.chunk, ref.row, ref.leg),
    ).fetchone()
    return (Channel(row[0]), spec_from_json(row[1]) if row[1] else None) if row else None


def postpone(connection: Connection, ref: MessageId, ask_at: datetime | None) -> None:
    """An answer left the doubt: ask again then, or never."""
    connection.execute(
        "UPDATE doubts SET ask_at = %s, asked = asked + 1 WHERE (period, chunk, row, leg) = (%s, %s, %s, %s)",
        (ask_at, ref.period, ref.chunk, ref.row, ref.leg),
    )


def lines(connection: Connection, campaign_id: str | None, limit: int) -> list[UnresolvedRow]:
    """The unresolved messages, oldest first."""
    rows = connection.execute(
        """
        SELECT d.period, d.chunk, d.row, d.leg, c.id, m.recipient_id, m.channel, m.reason, d.since, d.ask_at
        FROM doubts d JOIN messages m ON (m.period, m.chunk, m.row, m.leg) = (d.period, d.chunk, d.row, d.leg)
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        WHERE m.state = 'unresolved' AND (%(id)s::text IS NULL OR c.id = %(id)s) ORDER BY d.since, 1, 2, 3, 4 LIMIT %(limit)s
        """,
        {"id": campaign_id, "limit": limit},
    )
    return [
        UnresolvedRow(MessageId(period, chunk, row, leg), campaign, recipient_id, Channel(channel) if channel else None, *rest)
        for period, chunk, row, leg, campaign, recipient_id, channel, *rest in rows
    ]


def _columns(refs: Sequence[MessageId]) -> tuple[list[int], list[int], list[int], list[int]]:
    return [ref.period for ref in refs], [ref.chunk for ref in refs], [ref.row for ref in refs], [ref.leg for ref in refs]
