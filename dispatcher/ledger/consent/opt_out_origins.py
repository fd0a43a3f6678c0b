"""Which message of a campaign an opt-out came from, for the results of campaigns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import GROUP_OF, Source
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.ledger.message_key import KEY, KEY_ARRAYS, SPEC, join_origin, key_of, same_message
from dispatcher.ledger.partitions import period_of

NOT_ANSWERS = frozenset({Source.IMPORT, Source.ERASURE})  # sources that answer no message
BY_CHANNEL = frozenset({Source.INBOUND, Source.PROVIDER})  # an opt-out that came by a channel answers a message on it
DAYS_MAX = timedelta(days=60)  # after a message; the results of its campaign count opt-outs for a week after its end

# The named message, else the last one before the opt-out that can have caused it: advertising that the provider accepted.
_RECORD = f"""
INSERT INTO opt_out_origins (event_no, campaign_no, {KEY}, recorded_at)
SELECT o.event_no, m.campaign_no, {key_of("m")}, o.recorded_at
FROM unnest(%(event_no)s::bigint[], %(recipient_id)s::text[], %(said_at)s::timestamptz[], %(recorded_at)s::timestamptz[],
            %(channels)s::text[], {KEY_ARRAYS})
     AS o (event_no, recipient_id, said_at, recorded_at, channels, {KEY})
CROSS JOIN LATERAL (
    SELECT {key_of("m")}, m.campaign_no FROM messages m {join_origin("m")}
    WHERE m.recipient_id = o.recipient_id
      AND CASE WHEN o.chunk IS NOT NULL THEN {same_message("m", "o")}
          ELSE m.period >= %(first)s AND m.accepted_at BETWEEN o.said_at - %(longest)s AND o.said_at
               AND {SPEC}->>'kind' IS DISTINCT FROM 'service'
               AND (o.channels IS NULL OR m.channel = ANY (o.channels::text[])) END
    ORDER BY m.accepted_at DESC NULLS LAST, {key_of("m")} LIMIT 1
) m
WHERE m.campaign_no IS NOT NULL
ON CONFLICT DO NOTHING
"""


def record(connection: Connection, events: Iterable[ConsentEvent], messages: Mapping[str, MessageId | None]) -> None:
    """Record the origin of the opt-outs among these events. `messages`: the message that a person answers, where it is known."""
    opt_outs = [event for event in events if event.source not in NOT_ANSWERS and event.is_opt_out]
    if not opt_outs:
        return
    named = [messages.get(event.recipient_id) for event in opt_outs]
    parameters: dict[str, Any] = {
        "event_no": [event.no for event in opt_outs],
        "recipient_id": [event.recipient_id for event in opt_outs],
        "said_at": [event.said_at for event in opt_outs],
        "recorded_at": [event.recorded_at for event in opt_outs],
        "channels": [_channels(event) for event in opt_outs],
        "first": min(period_of(event.said_at - DAYS_MAX) for event in opt_outs),
        "longest": DAYS_MAX,
    }
    key = {name: [getattr(ref, name) if ref else None for ref in named] for name in ("period", "chunk", "row", "leg")}
    connection.execute(_RECORD, parameters | key)


def _channels(event: ConsentEvent) -> str | None:
    """The channels on which the answered message was sent, as an array of PostgreSQL; None for any."""
    kind, _, group = event.subject.partition(":")
    if event.source not in BY_CHANNEL or kind != "channel":
        return None
    return f"{{{','.join(channel for channel, each in GROUP_OF.items() if each == group)}}}"
