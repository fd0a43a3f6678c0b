"""Provider events: stored once each as they come in, applied to their messages in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from channels.base import Channel, Event, EventKind, RetryHint
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import MessageStatus, State
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import frequency_caps
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.spec_codec import spec_from_json


def keep(connection: Connection, events: Sequence[Event], now: datetime) -> int:
    """Store events that are new; says how many were. An event that names no message of ours is kept as well."""
    refs = [_ref(event.message_id) for event in events]
    periods = [ref.period if ref else period_of(now) for ref in refs]
    for period in set(periods):
        ensure_period(connection, period)
    return connection.execute(
        """
        INSERT INTO provider_events (period, provider, id, kind, channel, code, receipt, chunk, row, leg, at,
            again_seconds, again_max, strikes, extra, received_at)
        SELECT *, %(now)s FROM unnest(%(period)s::int[], %(provider)s::text[], %(id)s::text[], %(kind)s::text[],
            %(channel)s::text[], %(code)s::text[], %(receipt)s::text[], %(chunk)s::bigint[], %(row)s::int[], %(leg)s::smallint[],
            %(at)s::timestamptz[], %(again_seconds)s::float8[], %(again_max)s::smallint[], %(strikes)s::smallint[],
            %(extra)s::jsonb[])
        ON CONFLICT DO NOTHING
        """,
        {
            "now": now,
            "period": periods,
            "provider": [event.provider for event in events],
            "id": [event.id for event in events],
            "kind": [event.kind for event in events],
            "channel": [event.channel for event in events],
            "code": [event.code for event in events],
            "receipt": [event.receipt for event in events],
            "chunk": [ref.chunk if ref else None for ref in refs],
            "row": [ref.row if ref else None for ref in refs],
            "leg": [ref.leg if ref else None for ref in refs],
            "at": [event.at for event in events],
            "again_seconds": [event.retry_hint and event.retry_hint.wait_seconds for event in events],
            "again_max": [event.retry_hint and event.retry_hint.times_max for event in events],
            "strikes": [event.soft_bounce_limit for event in events],
            "extra": [Jsonb(dict(event.extra)) if event.extra else None for event in events],
        },
    ).rowcount


def _ref(message_id: str | None) -> MessageId | None:
    try:
        return MessageId.parse(message_id) if message_id else None
    except BadMessageId:
        return None


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """A stored event and the message it is about, as it stands now; `state` is None when the message is not in the ledger."""

    ref: MessageId
    provider: str
    id: str
    kind: EventKind
    channel: Channel
    code: str | None
    receipt: str | None
    retry_hint: RetryHint | None
    strikes: int | None
    state: State | None
    recipient_id: str | None
    entity: str | None
    spec: Spec | None  # of a campaign or trigger whose messages fall back to another channel
    at: datetime
    address_key: bytes | None


_UNSETTLED = """
    SELECT e.period, coalesce(e.chunk, 1), coalesce(e.row, 0), coalesce(e.leg, 0), e.provider, e.id, e.kind, e.channel, e.code,
           e.receipt, e.again_seconds, e.again_max, e.strikes,
           m.state, m.recipient_id, coalesce(c.spec, t.spec)->>'entity',
           CASE WHEN coalesce(c.spec, t.spec)->'fallback_after_seconds' <> 'null' THEN coalesce(c.spec, t.spec) END, e.at,
           CASE e.channel WHEN 'email' THEN r.email_key WHEN 'sms' THEN r.phone_key WHEN 'whatsapp' THEN r.whatsapp_key END
    FROM provider_events e
    LEFT JOIN messages m ON m.period = e.period AND m.chunk = e.chunk AND m.row = e.row AND m.leg = e.leg
    LEFT JOIN campaigns c ON c.no = m.campaign_no
    LEFT JOIN triggers t ON t.chunk = m.chunk AND m.campaign_no IS NULL
    LEFT JOIN recipients r ON r.id = m.recipient_id
    WHERE e.settled_at IS NULL ORDER BY e.received_at, e.at LIMIT %s
"""


def unsettled(connection: Connection, limit: int) -> list[PendingEvent]:
    """The oldest events not yet applied, each with its message as it stands."""
    return [_unsettled(row) for row in connection.execute(_UNSETTLED, (limit,))]


def _unsettled(row: Sequence[Any]) -> PendingEvent:
    period, chunk, number, leg, provider, event_id, kind, channel, code, receipt, seconds, most, strikes, *about = row
    state, recipient_id, entity, spec, at, key = about
    return PendingEvent(
        MessageId(period, chunk, number, leg),
        provider,
        event_id,
        EventKind(kind),
        Channel(channel),
        code,
        receipt,
        RetryHint(seconds, most) if seconds is not None else None,
        strikes,
        State(state) if state else None,
        recipient_id,
        entity,
        spec_from_json(spec) if spec else None,
        at,
        bytes(key) if key else None,
    )


def lock(connection: Connection, refs: Sequence[MessageId]) -> dict[MessageId, MessageStatus]:
    """How these messages stand, locked in one order so that a settle and an event can't cross."""
    rows = connection.execute(
        """
        SELECT m.period, m.chunk, m.row, m.leg, m.state, m.attempts, coalesce(m.returned, '{}'),
               coalesce(c.state = 'cancelled', false)
        FROM messages m
        JOIN unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS r (period, chunk, row, leg)
          ON m.period = r.period AND m.chunk = r.chunk AND m.row = r.row AND m.leg = r.leg
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        ORDER BY 1, 2, 3, 4 FOR UPDATE OF m
        """,
        _columns(refs),
    )
    return {
        MessageId(period, chunk, row, leg): MessageStatus(State(state), attempts, tuple(returned), cancelled)
        for period, chunk, row, leg, state, attempts, returned, cancelled in rows
    }


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What news does to a message. `until` is when it leaves again, or the next leg is due, if any.

    `receipt` and `provider` say of which attempt the news is; `returned` that it had reached nobody.
    """

    ref: MessageId
    state: State
    reason: str | None
    until: datetime | None = None
    receipt: str | None = None
    provider: str | None = None
    returned: str | None = None


def apply(connection: Connection, moves: Sequence[StatusChange], now: datetime) -> None:
    """Move messages to the states that events brought, in the caller's transaction. What reached nobody counts towards no cap, and
    a campaign that had ended goes on where something of it waits again.
    """
    connection.execute(
        """
        UPDATE messages m SET state = s.state, until = s.until, updated_at = %s,
               reason = CASE WHEN s.state IN ('accepted', 'delivered', 'read') THEN s.reason ELSE coalesce(s.reason, m.reason) END,
               receipt = CASE WHEN m.receipt IS NULL OR m.receipt = ANY(m.returned) THEN coalesce(s.receipt, m.receipt)
                              ELSE m.receipt END,
               accepted_at = CASE WHEN s.receipt IS NULL THEN m.accepted_at ELSE coalesce(m.accepted_at, %s) END,
               provider = coalesce(m.provider, s.provider),
               returned = CASE WHEN s.returned IS NULL THEN m.returned ELSE array_append(m.returned, s.returned) END
        FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[], %s::text[], %s::text[], %s::timestamptz[], %s::text[],
                    %s::text[], %s::text[])
             AS s (period, chunk, row, leg, state, reason, until, receipt, provider, returned)
        WHERE m.period = s.period AND m.chunk = s.chunk AND m.row = s.row AND m.leg = s.leg
        """,
        (
            now,
            now,
            *_columns([move.ref for move in moves]),
            [move.state for move in moves],
            [move.reason for move in moves],
            [move.until for move in moves],
            [move.receipt for move in moves],
            [move.provider for move in moves],
            [move.returned for move in moves],
        ),
    )
    if gone_by := [move.ref for move in moves if move.state in {State.WAITING, State.FAILED}]:
        frequency_caps.release(connection, gone_by)
    if parked := [move.ref for move in moves if move.until is not None]:
        _reopen(connection, parked)


def _reopen(connection: Connection, refs: Sequence[MessageId]) -> None:
    connection.execute(
        """
        UPDATE campaigns c SET state = 'running', finished_at = NULL
        FROM messages m JOIN unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS r (period, chunk, row, leg)
          ON m.period = r.period AND m.chunk = r.chunk AND m.row = r.row AND m.leg = r.leg
        WHERE c.no = m.campaign_no AND c.state = 'finished'
        """,
        _columns(refs),
    )


def _columns(refs: Sequence[MessageId]) -> tuple[list[int], list[int], list[int], list[int]]:
    return [ref.period for ref in refs], [ref.chunk for ref in refs], [ref.row for ref in refs], [ref.leg for ref in refs]


def settled(connection: Connection, events: Sequence[PendingEvent], now: datetime) -> None:
    """Mark events as applied."""
    connection.execute(
        """
        UPDATE provider_events e SET settled_at = %s
        FROM unnest(%s::int[], %s::text[], %s::text[]) AS s (period, provider, id)
        WHERE e.period = s.period AND e.provider = s.provider AND e.id = s.id
        """,
        (now, [event.ref.period for event in events], [event.provider for event in events], [event.id for event in events]),
    )
