"""Provider events: stored once each as they come in, applied to their messages in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel, Event, EventKind
from dispatcher.ledger.campaigns import spec_from_json
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.pool import Connection
from dispatcher.model import Spec, State
from dispatcher.refs import BadRef, MessageRef


def keep(connection: Connection, events: Sequence[Event], now: datetime) -> int:
    """Store events that are new; says how many were. An event that names no message of ours is kept as well."""
    refs = [_ref(event.message_id) for event in events]
    periods = [ref.period if ref else period_of(now) for ref in refs]
    for period in set(periods):
        ensure_period(connection, period)
    return connection.execute(
        """
        INSERT INTO provider_events (period, provider, id, kind, channel, code, receipt, chunk, row, leg, at, received_at)
        SELECT *, %(now)s FROM unnest(%(period)s::int[], %(provider)s::text[], %(id)s::text[], %(kind)s::text[],
            %(channel)s::text[], %(code)s::text[], %(receipt)s::text[], %(chunk)s::bigint[], %(row)s::int[], %(leg)s::smallint[],
            %(at)s::timestamptz[])
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
        },
    ).rowcount


def _ref(message_id: str | None) -> MessageRef | None:
    try:
        return MessageRef.parse(message_id) if message_id else None
    except BadRef:
        return None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A stored event and the message it is about, as it stands now; `state` is None when the message is not in the ledger."""

    ref: MessageRef
    provider: str
    id: str
    kind: EventKind
    channel: Channel
    code: str | None
    state: State | None
    recipient_id: str | None
    entity: str | None
    spec: Spec | None  # of a campaign whose messages fall back to another channel
    at: datetime
    address_key: bytes | None


def unsettled(connection: Connection, limit: int) -> list[Unsettled]:
    """The oldest events not yet applied, each with its message as it stands."""
    rows = connection.execute(
        """
        SELECT e.period, coalesce(e.chunk, 1), coalesce(e.row, 0), coalesce(e.leg, 0), e.provider, e.id, e.kind, e.channel, e.code,
               m.state, m.recipient_id, coalesce(c.spec, t.spec)->>'entity', e.at,
               CASE WHEN c.spec->'fallback_after_seconds' <> 'null' THEN c.spec END,
               CASE e.channel WHEN 'email' THEN r.email_key WHEN 'sms' THEN r.phone_key WHEN 'whatsapp' THEN r.whatsapp_key END
        FROM provider_events e
        LEFT JOIN messages m ON m.period = e.period AND m.chunk = e.chunk AND m.row = e.row AND m.leg = e.leg
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        LEFT JOIN triggers t ON t.chunk = m.chunk AND m.campaign_no IS NULL
        LEFT JOIN recipients r ON r.id = m.recipient_id
        WHERE e.settled_at IS NULL ORDER BY e.received_at, e.at LIMIT %s
        """,
        (limit,),
    )
    return [
        Unsettled(
            MessageRef(period, chunk, row, leg),
            provider,
            event_id,
            EventKind(kind),
            Channel(channel),
            code,
            State(state) if state else None,
            recipient_id,
            entity,
            spec_from_json(spec) if spec else None,
            at,
            bytes(key) if key else None,
        )
        for period, chunk, row, leg, provider, event_id, kind, channel, code, state, recipient_id, entity, at, spec, key in rows
    ]


def lock_states(connection: Connection, refs: Sequence[MessageRef]) -> dict[MessageRef, State]:
    """The states of these messages, locked in one order so that a settle and an event can't cross."""
    rows = connection.execute(
        """
        SELECT m.period, m.chunk, m.row, m.leg, m.state FROM messages m
        JOIN unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS r (period, chunk, row, leg)
          ON m.period = r.period AND m.chunk = r.chunk AND m.row = r.row AND m.leg = r.leg
        ORDER BY 1, 2, 3, 4 FOR UPDATE OF m
        """,
        _columns(refs),
    )
    return {MessageRef(period, chunk, row, leg): State(state) for period, chunk, row, leg, state in rows}


@dataclass(frozen=True, slots=True)
class Move:
    """What news does to a message. `until` is when the next leg is due, if any."""

    ref: MessageRef
    state: State
    reason: str | None
    until: datetime | None


def apply(connection: Connection, moves: Sequence[Move], now: datetime) -> None:
    """Move messages to the states that events brought."""
    connection.execute(
        """
        UPDATE messages m SET state = s.state, reason = coalesce(s.reason, m.reason), until = s.until, updated_at = %s
        FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[], %s::text[], %s::text[], %s::timestamptz[])
             AS s (period, chunk, row, leg, state, reason, until)
        WHERE m.period = s.period AND m.chunk = s.chunk AND m.row = s.row AND m.leg = s.leg
        """,
        (
            now,
            *_columns([move.ref for move in moves]),
            [move.state for move in moves],
            [move.reason for move in moves],
            [move.until for move in moves],
        ),
    )


def _columns(refs: Sequence[MessageRef]) -> tuple[list[int], list[int], list[int], list[int]]:
    return [ref.period for ref in refs], [ref.chunk for ref in refs], [ref.row for ref in refs], [ref.leg for ref in refs]


def settled(connection: Connection, events: Sequence[Unsettled], now: datetime) -> None:
    """Mark events as applied."""
    connection.execute(
        """
        UPDATE provider_events e SET settled_at = %s
        FROM unnest(%s::int[], %s::text[], %s::text[]) AS s (period, provider, id)
        WHERE e.period = s.period AND e.provider = s.provider AND e.id = s.id
        """,
        (now, [event.ref.period for event in events], [event.provider for event in events], [event.id for event in events]),
    )
