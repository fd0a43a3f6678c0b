"""Suppressions: bans on addresses after hard bounces, complaints and STOP at the provider.

They hold the keyed hash of an address only. So they stay after an erasure, and match the same address again for any recipient.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import revoke_pending
from dispatcher.ledger.consent.revoke_pending import OptOut


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address (see `keyed_hash.address_key`) that is banned on one channel."""

    channel: Channel
    address_key: bytes
    reason: str
    source: str


# Who has the address: three columns may hold it, each with its own index.
_OWNERS = """
SELECT r.id, s.no, s.channel FROM suppressions s JOIN recipients r ON r.email_key = s.address_key
WHERE s.no = ANY (%(nos)s) AND s.channel = 'email'
UNION ALL
SELECT r.id, s.no, s.channel FROM suppressions s JOIN recipients r ON r.phone_key = s.address_key
WHERE s.no = ANY (%(nos)s) AND s.channel = 'sms'
UNION ALL
SELECT r.id, s.no, s.channel FROM suppressions s JOIN recipients r ON r.whatsapp_key = s.address_key
WHERE s.no = ANY (%(nos)s) AND s.channel = 'whatsapp'
"""


def suppress(connection: Connection, channel: Channel, address_key: bytes, reason: str, source: str, now: datetime) -> int:
    """Ban one address on one channel; see `suppress_all`. Returns the number of the suppression, new or already in force."""
    return suppress_all(connection, [Suppression(channel, address_key, reason, source)], now)[0]


def suppress_all(connection: Connection, bans: Sequence[Suppression], now: datetime) -> list[int]:
    """Ban addresses and, in the same transaction, refuse what waits for them. Returns the numbers in the order of `bans`.

    Idempotent: a suppression in force keeps its number, reason and date. There is none for push: a dead token is removed from the
    person's devices (`drop_device`).
    """
    first = {(ban.channel, ban.address_key): ban for ban in bans}
    ordered = sorted(first.values(), key=lambda ban: (ban.address_key, ban.channel))  # one order: no deadlocks
    with connection.transaction():
        new = connection.execute(
            "INSERT INTO suppressions (channel, address_key, reason, source, created_at)"
            " SELECT *, %s FROM unnest(%s::text[], %s::bytea[], %s::text[], %s::text[])"
            " ON CONFLICT (address_key, channel) WHERE lifted_at IS NULL DO NOTHING RETURNING no",
            (
                now,
                [ban.channel for ban in ordered],
                [ban.address_key for ban in ordered],
                [ban.reason for ban in ordered],
                [ban.source for ban in ordered],
            ),
        ).fetchall()
        if new:
            refuse_pending(connection, [no for (no,) in new], now)
        in_force = connection.execute(
            "SELECT s.no FROM unnest(%s::text[], %s::bytea[]) WITH ORDINALITY AS b (channel, address_key, place)"
            " JOIN suppressions s USING (channel, address_key) WHERE s.lifted_at IS NULL ORDER BY b.place",
            ([ban.channel for ban in bans], [ban.address_key for ban in bans]),
        ).fetchall()
    return [no for (no,) in in_force]


def refuse_pending(connection: Connection, nos: list[int], now: datetime) -> int:
    """Refuse what waits for the addresses of these suppressions, in the caller's transaction. Returns the number of messages."""
    owners = raise_versions(connection, nos, now)
    return revoke_pending.revoke_pending(
        connection,
        [OptOut(owner, ReasonCode.SUPPRESSED, f"suppression:{no}", (channel,), service_too=True) for owner, no, channel in owners],
        now,
    )


def raise_versions(connection: Connection, nos: list[int], now: datetime) -> list[tuple[str, int, str]]:
    """Lock those who have these addresses, so that no claim runs at the same time, and raise their versions.

    Returns (recipient id, number of the suppression, channel) for each.
    """
    owners = connection.execute(_OWNERS, {"nos": nos}).fetchall()
    ids = sorted({owner for owner, _, _ in owners})
    connection.execute("SELECT FROM recipients WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (ids,))
    connection.execute("UPDATE recipients SET version = version + 1, updated_at = %s WHERE id = ANY(%s)", (now, ids))
    return [(owner, no, channel) for owner, no, channel in owners]


def in_force(connection: Connection, channel: Channel, address_key: bytes) -> bool:
    """Whether this address is banned on this channel now."""
    row = connection.execute(
        "SELECT FROM suppressions WHERE channel = %s AND address_key = %s AND lifted_at IS NULL", (channel, address_key)
    )
    return row.fetchone() is not None


_LIFT = """
UPDATE suppressions SET lifted_at = %(now)s
WHERE channel = %(channel)s AND address_key = %(key)s AND lifted_at IS NULL AND reason = ANY(%(reasons)s)
  AND coalesce(since, created_at) <= %(said_at)s
RETURNING no
"""
_LIFT_BY_REPORT = "SELECT * FROM lift_by_report(%(channel)s, %(key)s, %(reasons)s::text[], %(said_at)s, %(now)s)"


def lift(
    connection: Connection,
    suppressed: tuple[Channel, bytes],
    reasons: Collection[str],
    said_at: datetime,
    now: datetime,
    *,
    by_report: bool = False,
) -> bool:
    """End a suppression that was made for one of `reasons`, not after `said_at`; False where none was in force.

    `suppressed` is a channel and the key of an address. It permits nothing by itself: the person's own opt-outs stay. A ban on a
    dead address stays too. `by_report`: a provider reported it at that time; a worker may lift no other.
    """
    channel, address_key = suppressed
    parameters = {"channel": channel, "key": address_key, "reasons": list(reasons), "said_at": said_at, "now": now}
    with connection.transaction():
        row = connection.execute(_LIFT_BY_REPORT if by_report else _LIFT, parameters).fetchone()
        if row:
            raise_versions(connection, [row[0]], now)
    return row is not None


def drop_device(connection: Connection, recipient_id: str, token: str, now: datetime) -> bool:
    """Remove one device, whose token the provider declared dead; the others stay. False where the person does not have it."""
    with connection.transaction():
        dropped = connection.execute(
            "UPDATE recipients SET version = version + 1, updated_at = %(now)s, devices = (SELECT"
            " coalesce(jsonb_agg(device ORDER BY place) FILTER (WHERE device ->> 'token' <> %(token)s), '[]')"
            " FROM jsonb_array_elements(devices) WITH ORDINALITY AS d (device, place))"
            " WHERE id = %(id)s AND devices @> jsonb_build_array(jsonb_build_object('token', %(token)s::text))",
            {"now": now, "token": token, "id": recipient_id},
        )
    return dropped.rowcount > 0
