"""Unresolved messages: whether a provider can still be asked about each, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection, fetch_all, fetch_one
from dispatcher.ledger.entity_scope import entity_parameter, has_entity
from dispatcher.ledger.message_key import (
    ENTITY,
    FALLBACK_SPEC,
    KEY,
    KEY_ARRAYS,
    is_message,
    join_origin,
    key_arrays,
    key_of,
    key_values,
    message_id,
    same_message,
)
from dispatcher.ledger.spec_codec import spec_from_json

RESTORED = "ledger_restored"  # the reason of what may have been sent in the time that a restore of the ledger lost
FIRST_SECONDS = 120.0  # wait this long for events that come by themselves; a caller of `next_to_look_up` has as long to ask


@dataclass(frozen=True, slots=True)
class UnresolvedSend:
    """An unresolved message, and what is needed to ask about it. `lookups` counts those that resolved nothing.

    `address` is the current one, None where there is none. `changed`: the recipient's record has changed since the claim, so the
    address may be another one. `receipts` are those of earlier attempts. `spec` is set where another channel may follow.
    `is_restored`: it may have been sent at any time between `claimed_at` and the notice of a restore.
    """

    ref: MessageId
    channel: Channel
    recipient_id: str
    lookups: int
    claimed_at: datetime
    address: str | None
    changed: bool
    receipts: tuple[str, ...] = ()
    spec: Spec | None = None
    is_restored: bool = False


@dataclass(frozen=True, slots=True)
class UnresolvedRow:
    """An unresolved message in a list for people. `ask_at` is None where no provider can be asked any more."""

    ref: MessageId
    campaign_id: str | None
    recipient_id: str
    channel: Channel | None
    provider: str | None
    reason: str | None
    claimed_at: datetime | None
    since: datetime
    ask_at: datetime | None


def add(connection: Connection, refs: Sequence[MessageId], now: datetime) -> None:
    """Add those of these messages that are unresolved to those to ask about, in the transaction that marks them so."""
    connection.execute(
        f"""
        INSERT INTO doubts ({KEY}, since, ask_at)
        SELECT {key_of("m")}, %(now)s::timestamptz, %(ask_at)s::timestamptz
        FROM unnest({KEY_ARRAYS}) AS r ({KEY}) JOIN messages m ON {same_message("m", "r")} AND m.state = 'unresolved'
        ON CONFLICT ({KEY}) DO UPDATE SET since = excluded.since, ask_at = excluded.ask_at, asked = 0
        """,
        {"now": now, "ask_at": now + timedelta(seconds=FIRST_SECONDS), **key_arrays(refs)},
    )


def remove(connection: Connection, refs: Sequence[MessageId]) -> None:
    """Remove messages that are no longer unresolved."""
    connection.execute(
        f"DELETE FROM doubts d USING unnest({KEY_ARRAYS}) AS r ({KEY}) WHERE {same_message('d', 'r')}", key_arrays(refs)
    )


def next_to_look_up(connection: Connection, now: datetime) -> UnresolvedSend | None:
    """The next message to look up, reserved for this caller for a while; None where none is due."""
    row = fetch_one(
        connection,
        f"""
        WITH next AS (
            SELECT * FROM doubts WHERE ask_at <= %(now)s ORDER BY ask_at LIMIT 1 FOR UPDATE SKIP LOCKED
        ), postponed AS (
            UPDATE doubts d SET ask_at = %(again)s FROM next n WHERE {same_message("d", "n")}
        )
        SELECT {key_of("n")}, n.asked, m.state, m.reason, m.channel, m.recipient_id, m.claimed_at,
               CASE m.channel WHEN 'email' THEN r.email WHEN 'sms' THEN r.phone WHEN 'whatsapp' THEN r.whatsapp END AS address,
               coalesce(r.updated_at > m.claimed_at, true) AS changed,
               coalesce(array_remove(m.returned || m.receipt, NULL), '{{}}') AS receipts, {FALLBACK_SPEC} AS spec
        FROM next n
        LEFT JOIN messages m ON {same_message("m", "n")}
        LEFT JOIN recipients r ON r.id = m.recipient_id
        {join_origin("m")}
        """,
        {"now": now, "again": now + timedelta(seconds=FIRST_SECONDS)},
    )
    if row is None:
        return None
    ref = message_id(row)
    if row["state"] != State.UNRESOLVED:
        remove(connection, [ref])
        return next_to_look_up(connection, now)
    return UnresolvedSend(
        ref=ref,
        channel=Channel(row["channel"]),
        recipient_id=row["recipient_id"],
        lookups=row["asked"],
        claimed_at=row["claimed_at"],
        address=row["address"],
        changed=row["changed"],
        receipts=tuple(row["receipts"]),
        spec=spec_from_json(row["spec"]) if row["spec"] else None,
        is_restored=row["reason"] == RESTORED,
    )


def find(connection: Connection, ref: MessageId, entities: Entities = None) -> tuple[Channel, Spec | None] | None:
    """The channel of an unresolved message of these entities, and its spec where another channel may follow; None for any other."""
    row = connection.execute(
        f"""
        SELECT m.channel, {FALLBACK_SPEC} FROM messages m {join_origin("m")}
        WHERE {is_message("m")} AND m.state = 'unresolved' AND {has_entity(ENTITY)}
        """,
        {**key_values(ref), **entity_parameter(entities)},
    ).fetchone()
    if row is None:
        return None
    channel, spec = row
    return Channel(channel), spec_from_json(spec) if spec else None


def postpone(connection: Connection, ref: MessageId, ask_at: datetime | None) -> None:
    """Ask again then, or never, after an answer that resolved nothing."""
    connection.execute(
        f"UPDATE doubts d SET ask_at = %(ask_at)s, asked = asked + 1 WHERE {is_message('d')}", {"ask_at": ask_at, **key_values(ref)}
    )


UNKNOWN_PROVIDER = "unknown"  # in a filter: of a worker that was lost before it had an answer, no provider is on record


@dataclass(frozen=True, slots=True)
class UnresolvedFilter:
    """Which unresolved messages are meant: all that match every given part. `since` and `until` bound the time of the claim, which
    is when the message may have been sent; `until` itself is not included. `entities` are those that the caller may see."""

    campaign_id: str | None = None
    channel: Channel | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    entities: Entities = None

    @property
    def is_empty(self) -> bool:
        """Whether it excludes nothing of what the caller may see."""
        return self == UnresolvedFilter(entities=self.entities)

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters of `_MATCHES`."""
        provider = "" if self.provider == UNKNOWN_PROVIDER else self.provider
        return {
            "id": self.campaign_id,
            "channel": self.channel,
            "provider": provider,
            "since": self.since,
            "until": self.until,
            **entity_parameter(self.entities),
        }


EVERYTHING = UnresolvedFilter()
_MATCHES = f"""
    FROM doubts d JOIN messages m ON {same_message("m", "d")} {join_origin("m")}
    WHERE m.state = 'unresolved' AND (%(id)s::text IS NULL OR c.id = %(id)s)
      AND (%(channel)s::text IS NULL OR m.channel = %(channel)s)
      AND (%(provider)s::text IS NULL OR coalesce(m.provider, '') = %(provider)s)
      AND (%(since)s::timestamptz IS NULL OR m.claimed_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR m.claimed_at < %(until)s)
      AND {has_entity(ENTITY)}
"""


@dataclass(frozen=True, slots=True)
class UnresolvedGroup:
    """How many unresolved messages there are of a campaign, a channel and a provider, and when the first and last were claimed."""

    campaign_id: str | None
    channel: Channel
    provider: str | None
    count: int
    first_at: datetime | None
    last_at: datetime | None


def count(connection: Connection, wanted: UnresolvedFilter) -> list[UnresolvedGroup]:
    """The unresolved messages that match, counted by campaign, channel and provider."""
    rows = connection.execute(
        f"""
        SELECT c.id, m.channel, m.provider, count(*), min(m.claimed_at), max(m.claimed_at) {_MATCHES}
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """,
        wanted.parameters,
    )
    return [UnresolvedGroup(row[0], Channel(row[1]), *row[2:]) for row in rows]


def lock_matching(connection: Connection, wanted: UnresolvedFilter, limit: int) -> list[tuple[MessageId, Channel, Spec | None]]:
    """Some unresolved messages that match, locked, each as `find` returns it. One that an event is being applied to is left out."""
    rows = connection.execute(
        f"""
        SELECT {key_of("m")}, m.channel, {FALLBACK_SPEC} {_MATCHES}
        ORDER BY {key_of("m")} LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
        """,
        {**wanted.parameters, "limit": limit},
    )
    return [(MessageId(*row[:4]), Channel(row[4]), spec_from_json(row[5]) if row[5] else None) for row in rows]


def list_unresolved(connection: Connection, wanted: UnresolvedFilter, limit: int) -> list[UnresolvedRow]:
    """The unresolved messages that match, oldest first."""
    rows = fetch_all(
        connection,
        f"""
        SELECT {key_of("d")}, c.id AS campaign_id, m.recipient_id, m.channel, m.provider, m.reason, m.claimed_at, d.since, d.ask_at
        {_MATCHES} ORDER BY d.since, {key_of("d")} LIMIT %(limit)s
        """,
        {**wanted.parameters, "limit": limit},
    )
    return [
        UnresolvedRow(
            ref=message_id(row),
            campaign_id=row["campaign_id"],
            recipient_id=row["recipient_id"],
            channel=Channel(row["channel"]) if row["channel"] else None,
            provider=row["provider"],
            reason=row["reason"],
            claimed_at=row["claimed_at"],
            since=row["since"],
            ask_at=row["ask_at"],
        )
        for row in rows
    ]
