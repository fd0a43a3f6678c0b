"""Provider events: stored once each as they come in, and applied to their messages in batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from channels.base import Channel, Event, EventKind, RetryHint
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import MessageStatus, State
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.ledger.connection import Connection, fetch_all
from dispatcher.ledger.delivery import cap_reservations
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import (
    ENTITY,
    FALLBACK_SPEC,
    IS_CANCELLED,
    KEY,
    KEY_ARRAYS,
    TRACE,
    join_origin,
    key_arrays,
    key_of,
    message_id,
    same_message,
)
from dispatcher.ledger.partitions import ensure_period, period_of, periods
from dispatcher.ledger.spec_codec import spec_from_json


def store(connection: Connection, events: Sequence[Event], now: datetime, keys: Sequence[bytes | None] | None = None) -> int:
    """Store the events that are new; returns their number. An event that names no message of ours is stored too.

    `keys` are those of the addresses that the events name; one is stored only with an event that names no message of ours.
    """
    refs = [_ref(event.message_id) for event in events]
    ours = _existing(connection, {ref for ref in refs if ref is not None})
    refs = [ref if ref in ours else None for ref in refs]
    for period in {ref.period if ref else period_of(now) for ref in refs}:
        ensure_period(connection, period)
    return connection.execute(
        _STORE,
        {
            "now": now,
            # A provider's call may be repeated in another month, and one of Twilio's has no time in it: where no message gives the
            # month, an id counts as known in whichever month it came in.
            "months": periods(connection) if None in refs else [],
            "period": [ref.period if ref else period_of(now) for ref in refs],
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
            "address_key": [key if ref is None else None for ref, key in zip(refs, keys or [None] * len(refs), strict=True)],
        },
    ).rowcount


_STORE = f"""
    INSERT INTO provider_events ({KEY}, provider, id, kind, channel, code, receipt, at,
        again_seconds, again_max, strikes, extra, address_key, received_at)
    SELECT e.*, %(now)s FROM unnest({KEY_ARRAYS}, %(provider)s::text[], %(id)s::text[], %(kind)s::text[],
        %(channel)s::text[], %(code)s::text[], %(receipt)s::text[], %(at)s::timestamptz[], %(again_seconds)s::float8[],
        %(again_max)s::smallint[], %(strikes)s::smallint[], %(extra)s::jsonb[], %(address_key)s::bytea[])
        AS e ({KEY}, provider, id, kind, channel, code, receipt, at, again_seconds, again_max, strikes, extra, address_key)
    WHERE e.chunk IS NOT NULL OR NOT EXISTS (
        SELECT FROM unnest(%(months)s::int[]) AS k (month)
        CROSS JOIN LATERAL (SELECT FROM provider_events p WHERE p.period = k.month AND p.provider = e.provider AND p.id = e.id) p)
    ON CONFLICT DO NOTHING
"""


def _existing(connection: Connection, refs: Collection[MessageId]) -> set[MessageId]:
    """Those of these ids that are ids of messages."""
    if not refs:
        return set()
    rows = fetch_all(
        connection,
        f"SELECT {key_of('m')} FROM messages m JOIN unnest({KEY_ARRAYS}) AS r ({KEY}) ON {same_message('m', 'r')}",
        key_arrays(refs),
    )
    return {message_id(row) for row in rows}


def _ref(message_id: str | None) -> MessageId | None:
    try:
        return MessageId.parse(message_id) if message_id else None
    except BadMessageId:
        return None


@dataclass(frozen=True, slots=True)
class EventKey:
    """The key of a stored event."""

    period: int
    provider: str
    id: str


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """A stored event and the message it is about, as it is now. `state` is None where the ledger has no such message.

    `is_found` is true where the event does not name the message, and its receipt and address do.
    """

    key: EventKey
    ref: MessageId
    provider: str
    id: str
    kind: EventKind
    channel: Channel
    code: str | None
    receipt: str | None
    retry_hint: RetryHint | None
    soft_bounce_limit: int | None
    state: State | None
    recipient_id: str | None
    entity: str | None
    spec: Spec | None  # set where another channel may follow
    at: datetime
    address_key: bytes | None
    is_found: bool = False
    trace: str | None = None  # of the message's campaign or trigger
    campaign_no: int | None = None


# An event that names no message of ours gets a key that no message has: chunks count from 1.
_UNSETTLED = f"""
    SELECT e.period, coalesce(e.chunk, 1) AS chunk, coalesce(e.row, 0) AS row, coalesce(e.leg, 0) AS leg, e.provider, e.id, e.kind,
           e.channel, e.code, e.receipt, e.again_seconds, e.again_max, e.strikes, e.at, m.state, m.recipient_id, m.campaign_no,
           {ENTITY} AS entity, {FALLBACK_SPEC} AS spec, {TRACE} AS trace,
           coalesce(a.new_key, m.address_key, -- the address that was written to; messages of before migration 0002 do not have it
               CASE e.channel WHEN 'email' THEN r.email_key WHEN 'sms' THEN r.phone_key WHEN 'whatsapp' THEN r.whatsapp_key END,
               own.new_key, e.address_key) AS address_key
    FROM provider_events e
    LEFT JOIN messages m ON {same_message("m", "e")}
    {join_origin("m")}
    LEFT JOIN recipients r ON r.id = m.recipient_id
    LEFT JOIN address_aliases a ON a.old_key = m.address_key
    LEFT JOIN address_aliases own ON own.old_key = e.address_key
    WHERE e.settled_at IS NULL AND (e.next_try_at IS NULL OR e.next_try_at <= %(now)s)
    ORDER BY e.received_at, e.at LIMIT %(limit)s
"""


def unapplied(connection: Connection, limit: int, now: datetime) -> tuple[list[PendingEvent], dict[EventKey, Exception]]:
    """The oldest events that are not applied yet and are due, each with its message as it is now; and those that cannot be read,
    such as one of a kind that only a newer version of this program knows.
    """
    events: list[PendingEvent] = []
    unreadable: dict[EventKey, Exception] = {}
    for row in fetch_all(connection, _UNSETTLED, {"limit": limit, "now": now}):
        try:
            events.append(_pending(row))
        except (ValueError, TypeError, KeyError) as error:
            unreadable[EventKey(row["period"], row["provider"], row["id"])] = error
    found = _find(connection, [event for event in events if event.state is None and event.address_key and event.receipt])
    return [found.get(event.key, event) for event in events], unreadable


# The message of an event that does not name it: of all who have the address, the newest message on this channel with this receipt.
# One receipt may be of many messages, because SendGrid gives one for a request.
_FIND = f"""
    SELECT e.place, m.*, {ENTITY} AS entity, {FALLBACK_SPEC} AS spec, {TRACE} AS trace
    FROM unnest(%(place)s::int[], %(channel)s::text[], %(address_key)s::bytea[], %(receipt)s::text[])
         AS e (place, channel, address_key, receipt)
    CROSS JOIN LATERAL (
        SELECT {key_of("m")}, m.state, m.recipient_id, m.campaign_no
        FROM (SELECT id FROM recipients WHERE email_key = e.address_key
              UNION SELECT id FROM recipients WHERE phone_key = e.address_key
              UNION SELECT id FROM recipients WHERE whatsapp_key = e.address_key) r
        JOIN messages m ON m.recipient_id = r.id
        WHERE m.channel = e.channel AND (m.receipt = e.receipt OR e.receipt = ANY (m.returned))
        ORDER BY m.accepted_at DESC NULLS LAST, {key_of("m")} LIMIT 1
    ) m
    {join_origin("m")}
"""


def _find(connection: Connection, events: Sequence[PendingEvent]) -> dict[EventKey, PendingEvent]:
    """These events with the messages that their receipt and address lead to, where there is one."""
    if not events:
        return {}
    rows = fetch_all(
        connection,
        _FIND,
        {
            "place": list(range(len(events))),
            "channel": [event.channel for event in events],
            "address_key": [event.address_key for event in events],
            "receipt": [event.receipt for event in events],
        },
    )
    return {
        events[row["place"]].key: replace(
            events[row["place"]],
            ref=message_id(row),
            state=State(row["state"]),
            recipient_id=row["recipient_id"],
            entity=row["entity"],
            spec=spec_from_json(row["spec"]) if row["spec"] else None,
            is_found=True,
            trace=row["trace"],
            campaign_no=row["campaign_no"],
        )
        for row in rows
    }


def any_unapplied(connection: Connection, now: datetime) -> bool:
    """Whether an event waits to be applied and is due."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM provider_events WHERE settled_at IS NULL AND (next_try_at IS NULL OR next_try_at <= %s))",
        (now,),
    ).fetchone()
    return bool(row and row[0])


def _pending(row: Mapping[str, Any]) -> PendingEvent:
    return PendingEvent(
        key=EventKey(row["period"], row["provider"], row["id"]),
        ref=message_id(row),
        provider=row["provider"],
        id=row["id"],
        kind=EventKind(row["kind"]),
        channel=Channel(row["channel"]),
        code=row["code"],
        receipt=row["receipt"],
        retry_hint=RetryHint(row["again_seconds"], row["again_max"]) if row["again_seconds"] is not None else None,
        soft_bounce_limit=row["strikes"],
        state=State(row["state"]) if row["state"] else None,
        recipient_id=row["recipient_id"],
        entity=row["entity"],
        spec=spec_from_json(row["spec"]) if row["spec"] else None,
        at=row["at"],
        address_key=bytes(row["address_key"]) if row["address_key"] else None,
        trace=row["trace"],
        campaign_no=row["campaign_no"],
    )


def lock(connection: Connection, refs: Sequence[MessageId]) -> dict[MessageId, MessageStatus]:
    """The status of these messages, locked in the order of their keys, so that a settle and an event cannot deadlock."""
    rows = fetch_all(
        connection,
        f"""
        SELECT {key_of("m")}, m.state, m.attempts, coalesce(m.returned, '{{}}') AS returned, {IS_CANCELLED} AS cancelled
        FROM messages m JOIN unnest({KEY_ARRAYS}) AS r ({KEY}) ON {same_message("m", "r")} {join_origin("m")}
        ORDER BY {key_of("m")} FOR UPDATE OF m
        """,
        key_arrays(refs),
    )
    return {
        message_id(row): MessageStatus(State(row["state"]), row["attempts"], tuple(row["returned"]), row["cancelled"])
        for row in rows
    }


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What an event does to a message. `until` is when it is sent again or when the next leg is due, if any.

    `receipt` and `provider` name the attempt that the event is about; `returned` is its receipt where it reached nobody.
    """

    ref: MessageId
    state: State
    reason: str | None
    until: datetime | None = None
    receipt: str | None = None
    provider: str | None = None
    returned: str | None = None


def apply(connection: Connection, moves: Sequence[StatusChange], now: datetime) -> None:
    """Move messages to the states that events brought, in the caller's transaction.

    A message that reached nobody counts towards no cap. A finished campaign runs again where one of its messages waits again.
    """
    connection.execute(
        f"""
        WITH moved AS (
            UPDATE messages m SET state = s.state, until = s.until, updated_at = %(now)s,
                   reason = CASE WHEN s.state IN ('accepted', 'delivered', 'read') THEN s.reason
                                 ELSE coalesce(s.reason, m.reason) END,
                   receipt = CASE WHEN m.receipt IS NULL OR m.receipt = ANY(m.returned) THEN coalesce(s.receipt, m.receipt)
                                  ELSE m.receipt END,
                   accepted_at = CASE WHEN s.receipt IS NULL THEN m.accepted_at ELSE coalesce(m.accepted_at, %(now)s) END,
                   provider = coalesce(m.provider, s.provider),
                   returned = CASE WHEN s.returned IS NULL THEN m.returned ELSE array_append(m.returned, s.returned) END
            FROM unnest({KEY_ARRAYS}, %(state)s::text[], %(reason)s::text[], %(until)s::timestamptz[], %(receipt)s::text[],
                        %(provider)s::text[], %(returned)s::text[])
                 AS s ({KEY}, state, reason, until, receipt, provider, returned)
            WHERE {same_message("m", "s")}
            RETURNING {outbox.changed("m")}
        )
        {outbox.enter("moved")}
        """,
        {
            "now": now,
            **key_arrays(move.ref for move in moves),
            "state": [move.state for move in moves],
            "reason": [move.reason for move in moves],
            "until": [move.until for move in moves],
            "receipt": [move.receipt for move in moves],
            "provider": [move.provider for move in moves],
            "returned": [move.returned for move in moves],
        },
    )
    if not_gone := [move.ref for move in moves if move.state in {State.WAITING, State.FAILED}]:
        cap_reservations.release(connection, not_gone)
    if parked := [move.ref for move in moves if move.until is not None]:
        _reopen(connection, parked)


def _reopen(connection: Connection, refs: Sequence[MessageId]) -> None:
    connection.execute(
        f"""
        UPDATE campaigns c SET state = 'running', finished_at = NULL
        FROM messages m JOIN unnest({KEY_ARRAYS}) AS r ({KEY}) ON {same_message("m", "r")}
        WHERE c.no = m.campaign_no AND c.state = 'finished'
        """,
        key_arrays(refs),
    )


def mark_applied(connection: Connection, events: Sequence[PendingEvent], unmatched: Collection[EventKey], now: datetime) -> None:
    """Mark events as applied, and those that found nothing as unmatched. The keys of addresses are not needed any more."""
    if found := [event for event in events if event.is_found]:
        _attach(connection, found, now)
    connection.execute(
        """
        UPDATE provider_events e SET settled_at = %(now)s, unmatched = s.unmatched, address_key = NULL
        FROM unnest(%(period)s::int[], %(provider)s::text[], %(id)s::text[], %(unmatched)s::bool[])
             AS s (period, provider, id, unmatched)
        WHERE e.period = s.period AND e.provider = s.provider AND e.id = s.id
        """,
        {"now": now, **_keys(event.key for event in events), "unmatched": [event.key in unmatched for event in events]},
    )


def _keys(keys: Iterable[EventKey]) -> dict[str, list[Any]]:
    keys = tuple(keys)
    return {
        "period": [key.period for key in keys],
        "provider": [key.provider for key in keys],
        "id": [key.id for key in keys],
    }


# The month of an event is that of its message, or of its arrival. It cannot move to another month: a replay would not be noticed.
# So the message gets a copy, and the original keeps only what tells that it was taken.
_ATTACH = f"""
    WITH s AS (
        SELECT * FROM unnest(%(event_period)s::int[], %(provider)s::text[], %(id)s::text[], {KEY_ARRAYS})
                      AS s (event_period, provider, id, {KEY})
    ), copied AS (
        INSERT INTO provider_events ({KEY}, provider, id, kind, channel, code, receipt, at,
                                     again_seconds, again_max, strikes, extra, received_at, settled_at)
        SELECT {key_of("s")}, e.provider, e.id, e.kind, e.channel, e.code, e.receipt, e.at, e.again_seconds, e.again_max, e.strikes,
               e.extra, e.received_at, %(now)s
        FROM s JOIN provider_events e ON (e.period, e.provider, e.id) = (s.event_period, s.provider, s.id)
        WHERE s.period <> e.period ON CONFLICT DO NOTHING
    )
    UPDATE provider_events e
    SET chunk = CASE WHEN s.period = e.period THEN s.chunk END, row = CASE WHEN s.period = e.period THEN s.row END,
        leg = CASE WHEN s.period = e.period THEN s.leg END, extra = CASE WHEN s.period = e.period THEN e.extra END
    FROM s WHERE (e.period, e.provider, e.id) = (s.event_period, s.provider, s.id)
"""


def _attach(connection: Connection, found: Sequence[PendingEvent], now: datetime) -> None:
    """Give these events to the messages that were found, so that explanations, exports and the complaint brake see them there."""
    keys = _keys(event.key for event in found)
    connection.execute(
        _ATTACH,
        {"now": now, "event_period": keys["period"], **keys, **key_arrays(event.ref for event in found)},
    )


RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 60, 6 * 3_600  # between two attempts; doubled each time


def defer(connection: Connection, failed: Mapping[EventKey, str], now: datetime) -> None:
    """Count a failed attempt of these events, with its error, and let them wait before the next one."""
    connection.execute(
        """
        UPDATE provider_events e
        SET attempts = least(e.attempts + 1, 32767), error = s.error,
            next_try_at = %(now)s + interval '1 second' * least(%(min)s::float8 * 2 ^ least(e.attempts, 30), %(max)s)
        FROM unnest(%(period)s::int[], %(provider)s::text[], %(id)s::text[], %(error)s::text[]) AS s (period, provider, id, error)
        WHERE e.period = s.period AND e.provider = s.provider AND e.id = s.id AND e.settled_at IS NULL
        """,
        {
            "now": now,
            "min": RETRY_SECONDS_MIN,
            "max": RETRY_SECONDS_MAX,
            **_keys(failed),
            "error": list(failed.values()),
        },
    )
