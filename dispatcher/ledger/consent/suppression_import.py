"""Import of suppressed addresses in batches. Only their keyed hashes reach the database.

A batch goes by COPY into a temporary table, and from there in statements for all of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import Source
from dispatcher.ledger.connection import Connection, allow_idle_minute
from dispatcher.ledger.consent import address_keys, events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.suppressions import refuse_pending


@dataclass(frozen=True, slots=True)
class ListedAddress:
    """An address of a list on one channel: the address in normal form, or only its keyed hash.

    `since` is the moment that the list gives. `opt_out`: the suppression is the person's own refusal.
    """

    channel: Channel
    address: str | None
    address_key: bytes | None
    reason: str
    source: str
    since: datetime | None
    opt_out: bool


@dataclass(frozen=True, slots=True)
class ListCounts:
    """What a batch, or a whole list, changes: `new` suppressions, those `in_force` already, those that somebody `lifted` after the
    date in the list; the `opt_outs` recorded for known people, and the `refused` messages.
    """

    new: int = 0
    in_force: int = 0
    lifted: int = 0
    opt_outs: int = 0
    refused: int = 0

    def __add__(self, other: ListCounts) -> ListCounts:
        """The counts of both."""
        return ListCounts(
            self.new + other.new,
            self.in_force + other.in_force,
            self.lifted + other.lifted,
            self.opt_outs + other.opt_outs,
            self.refused + other.refused,
        )


_CREATE = """
CREATE TEMPORARY TABLE IF NOT EXISTS listed_addresses (
    channel text NOT NULL, address_key bytea NOT NULL, reason text NOT NULL, source text NOT NULL, since timestamptz,
    opt_out boolean NOT NULL)
"""
_COPY = "COPY listed_addresses (channel, address_key, reason, source, since, opt_out) FROM STDIN"

# A hash of the list may be one under a former secret key.
_NEWEST_KEYS = "UPDATE listed_addresses l SET address_key = a.new_key FROM address_aliases a WHERE a.old_key = l.address_key"

# A lift that came after the row's date is the newer decision. A row without a date counts as older than the lift of its own list.
_LIFTED = """
EXISTS (SELECT FROM suppressions s
        WHERE s.address_key = l.address_key AND s.channel = l.channel AND s.reason = l.reason AND s.lifted_at IS NOT NULL
          AND CASE WHEN l.since IS NULL THEN s.source = l.source ELSE l.since < s.lifted_at END)
"""
_IN_FORCE = """
EXISTS (SELECT FROM suppressions s WHERE s.address_key = l.address_key AND s.channel = l.channel AND s.lifted_at IS NULL)
"""
# Of several rows for an address one that START does not lift comes first, then the earliest.
_DISTINCT = f"""
SELECT DISTINCT ON (l.address_key, l.channel) l.channel, l.address_key, l.reason, l.source, l.since
FROM listed_addresses l WHERE NOT {_LIFTED}
ORDER BY l.address_key, l.channel, l.opt_out, l.since NULLS LAST
"""
_INSERT = f"""
INSERT INTO suppressions (channel, address_key, reason, source, since, created_by, created_at)
SELECT channel, address_key, reason, source, since, %(actor)s, %(now)s FROM ({_DISTINCT}) l
ON CONFLICT (address_key, channel) WHERE lifted_at IS NULL DO NOTHING
RETURNING no
"""
_COUNTS = f"""
SELECT count(*) FILTER (WHERE is_in_force), count(*) FILTER (WHERE NOT is_in_force AND is_lifted),
       count(*) FILTER (WHERE NOT is_in_force AND NOT is_lifted)
FROM (SELECT {_IN_FORCE} AS is_in_force, bool_and({_LIFTED}) AS is_lifted
      FROM listed_addresses l GROUP BY l.address_key, l.channel) listed
"""

# The owners of addresses whose rows are opt-outs, unless their switch is off already, or they chose later themselves. Of an opt-out
# without a date, and of a choice, nobody knows which came first: it counts as the later one when the suppression is new.
_OWNERS = f"""
WITH opt_outs AS (
    SELECT l.address_key, l.channel, max(l.since) AS since, bool_or(s.no = ANY(%(new)s::bigint[])) AS is_new
    FROM listed_addresses l LEFT JOIN suppressions s
        ON s.address_key = l.address_key AND s.channel = l.channel AND s.lifted_at IS NULL
    WHERE l.opt_out AND (s.no IS NOT NULL OR %(preview)s AND NOT {_LIFTED})
    GROUP BY l.address_key, l.channel
), owners AS (
    SELECT r.id, o.channel, o.since, o.is_new FROM opt_outs o JOIN recipients r ON r.email_key = o.address_key
    WHERE o.channel = 'email'
    UNION
    SELECT r.id, o.channel, o.since, o.is_new FROM opt_outs o JOIN recipients r ON r.phone_key = o.address_key
    WHERE o.channel IN ('sms', 'whatsapp')
    UNION
    SELECT r.id, o.channel, o.since, o.is_new FROM opt_outs o JOIN recipients r ON r.whatsapp_key = o.address_key
    WHERE o.channel IN ('sms', 'whatsapp')
), subjects AS (
    SELECT id, CASE channel WHEN 'email' THEN 'channel:email' ELSE 'channel:sms_whatsapp' END AS subject, since,
           coalesce(is_new, true) AS is_new
    FROM owners
)
SELECT o.id, o.subject, max(o.since) FROM subjects o JOIN recipients r ON r.id = o.id
WHERE r.choices -> o.subject ->> 'value' IS DISTINCT FROM 'off'
  AND NOT (r.choices ? o.subject AND r.choices -> o.subject ->> 'source' <> 'import'
           AND CASE WHEN o.since IS NULL THEN NOT o.is_new
                    ELSE (r.choices -> o.subject ->> 'at')::timestamptz > o.since END)
GROUP BY o.id, o.subject
"""


@contextmanager
def previewing(connection: Connection) -> Iterator[None]:
    """One transaction for all rows of a preview: behind a pooler, the next one may get another session, without the staged rows."""
    with connection.transaction():
        allow_idle_minute(connection)
        yield


def add_listed(connection: Connection, secret: KeyRing, rows: Sequence[ListedAddress], actor: str, now: datetime) -> ListCounts:
    """Suppress these addresses in one transaction: refuse the messages that wait for them, and switch the channel group off for
    known people whose own refusal it is, as if they had said so then.

    Idempotent. A suppression in force keeps its number, reason and date, and one that was lifted later stays lifted.
    """
    with connection.transaction():
        _stage(connection, secret, rows)
        keys = [key for (key,) in connection.execute("SELECT DISTINCT address_key FROM listed_addresses")]
        address_keys.lock_owners(connection, [], keys)  # people before suppressions, as when a send result is settled
        in_force, lifted, _ = _counts(connection)
        new = [no for (no,) in connection.execute(_INSERT, {"actor": actor, "now": now})]
        refused = refuse_pending(connection, new, now) if new else 0
        statements = _statements(connection, new)
        recorded = events.record_all(connection, secret, statements, Provenance(Source.IMPORT, actor), now) if statements else {}
        connection.execute("TRUNCATE listed_addresses")
    return ListCounts(len(new), in_force, lifted, sum(len(each.events) for each in recorded.values()), refused)


def preview_rows(connection: Connection, secret: KeyRing, rows: Sequence[ListedAddress]) -> None:
    """Add rows to the temporary table, for `preview` in the same transaction; nothing else changes."""
    with connection.transaction():
        _stage(connection, secret, rows)


# Messages that the suppressions would refuse, as in `revoke_pending`; those that only the opt-outs refuse are not counted.
_WAITING = f"""
SELECT count(*) FROM messages m JOIN recipients r ON r.id = m.recipient_id
WHERE m.state IN ('pending', 'held', 'waiting') AND EXISTS (
    SELECT FROM listed_addresses l
    WHERE l.channel = m.channel AND NOT {_IN_FORCE} AND NOT {_LIFTED}
      AND l.address_key = CASE m.channel WHEN 'email' THEN r.email_key WHEN 'sms' THEN r.phone_key ELSE r.whatsapp_key END)
"""


def preview(connection: Connection) -> ListCounts:
    """What `add_listed` would do with all rows staged. `refused` counts only the messages to suppressed addresses."""
    connection.execute(_CREATE)
    in_force, lifted, new = _counts(connection)
    owners = connection.execute(f"SELECT count(*) FROM ({_OWNERS}) o", {"new": [], "preview": True}).fetchone()
    waiting = connection.execute(_WAITING).fetchone()
    connection.execute("TRUNCATE listed_addresses")
    return ListCounts(new, in_force, lifted, owners[0] if owners else 0, waiting[0] if waiting else 0)


def _stage(connection: Connection, secret: KeyRing, rows: Sequence[ListedAddress]) -> None:
    connection.execute(_CREATE)
    key_of = address_keys.in_use(connection, secret, {(row.channel, row.address) for row in rows if row.address is not None})
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for row in rows:
            key = key_of[row.channel, row.address] if row.address is not None else row.address_key
            copy.write_row((row.channel, key, row.reason, row.source, row.since, row.opt_out))
    if len(secret) > 1 and any(row.address is None for row in rows):
        connection.execute(_NEWEST_KEYS)
    connection.execute("ANALYZE listed_addresses")


def _counts(connection: Connection) -> tuple[int, int, int]:
    row = connection.execute(_COUNTS).fetchone()
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


def _statements(connection: Connection, new: Sequence[int]) -> list[ConsentStatement]:
    """What the owners of listed addresses said, one statement each."""
    said: dict[str, list[tuple[str, datetime | None]]] = {}
    for recipient_id, subject, since in connection.execute(_OWNERS, {"new": list(new), "preview": False}):
        said.setdefault(recipient_id, []).append((subject, since))
    return [
        ConsentStatement(
            recipient_id,
            tuple(Change(subject, "off") for subject, _ in changes),
            max((since for _, since in changes if since is not None), default=None),
        )
        for recipient_id, changes in said.items()
    ]
