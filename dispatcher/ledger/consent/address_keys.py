"""Addresses after a rotation of the secret key. At any moment all rows about one address have the same key, so statements compare
keys as they are.

Who knows the address itself asks for its key here (`in_use`). Where the ledger has it under a former key, all its rows are moved
to the newest one first, in the same transaction: recipients, suppressions, soft bounces, WhatsApp windows, inbound messages, cap
reservations. So a ban whose owner was erased, and whose address nobody knows, meets the address when it comes again.
`dispatcher keys rotate` does the same for all recipients. With a ring of one key, nothing of this costs a statement.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TypeAlias

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.keyed_hash import address_hash, address_key

Address: TypeAlias = tuple[str, str]  # its kind, see `keyed_hash.address_key`, and the address in normal form


def lock_owners(connection: Connection, ids: Collection[str], keys: Collection[bytes]) -> None:
    """Lock these people and all owners of these addresses, in the order of ids, in the caller's transaction."""
    connection.execute(
        "SELECT FROM recipients WHERE id = ANY(%(ids)s) OR email_key = ANY(%(keys)s) OR phone_key = ANY(%(keys)s)"
        " OR whatsapp_key = ANY(%(keys)s) ORDER BY id FOR UPDATE",
        {"ids": list(ids), "keys": list(keys)},
    )


def in_use(connection: Connection, secret: KeyRing, addresses: Collection[Address]) -> dict[Address, bytes]:
    """The key of each address, under which everything about it is in the ledger from now on.

    To be called first in a transaction, before it locks any recipient: all code locks aliases before people.
    """
    if len(secret) == 1:
        return {address: address_key(secret, *address) for address in addresses}
    ring = secret_keys.in_order(connection, secret)
    keys = {address: address_key(ring, *address) for address in addresses}
    _move(connection, _former_keys(ring, keys))
    return keys


def _former_keys(ring: KeyRing, keys: Mapping[Address, bytes]) -> dict[bytes, bytes]:
    """The keys of these addresses under all former secret keys, each with the one in use."""
    return {address_hash(former, *address): key for former in ring.keys[1:] for address, key in keys.items()}


def newest_key_of(connection: Connection, secret: KeyRing, key: bytes) -> bytes:
    """The newest key of an address of which only a key is known. Locks the owners, so that it is not moved until the caller's
    transaction ends.
    """
    if len(secret) == 1:
        return key
    lock_owners(connection, [], [key])
    row = connection.execute("SELECT new_key FROM address_aliases WHERE old_key = %s", (key,)).fetchone()
    return bytes(row[0]) if row else key


# An alias that stands was moved before, and nobody writes the old key any more. The insert comes first: two transactions that move
# the same address wait for each other here.
_ALIASES = """
INSERT INTO address_aliases AS a (old_key, new_key)
SELECT old, new FROM unnest(%(old)s::bytea[], %(new)s::bytea[]) AS m (old, new)
WHERE NOT EXISTS (SELECT FROM address_aliases s WHERE s.old_key = m.old AND s.new_key = m.new) ORDER BY old
ON CONFLICT (old_key) DO UPDATE SET new_key = excluded.new_key
RETURNING old_key, new_key
"""
_MOVED = "unnest(%(old)s::bytea[], %(new)s::bytea[]) AS m (old, new)"
_OWNERS_AND_BANS = "SELECT move_address_keys(%(old)s::bytea[], %(new)s::bytea[])"  # a function: not every role may do it
_SOFT_BOUNCES = f"""
WITH gone AS (DELETE FROM misses s USING {_MOVED} WHERE s.address_key = m.old RETURNING m.new, s.channel, s.code, s.message, s.at)
INSERT INTO misses (address_key, channel, code, message, at) SELECT * FROM gone ON CONFLICT DO NOTHING
"""
_WHATSAPP_WINDOWS = f"""
WITH gone AS (DELETE FROM conversations s USING {_MOVED} WHERE s.address_key = m.old RETURNING m.new, s.heard_at)
INSERT INTO conversations AS c (address_key, heard_at) SELECT new, max(heard_at) FROM gone GROUP BY new
ON CONFLICT (address_key) DO UPDATE SET heard_at = greatest(c.heard_at, excluded.heard_at)
"""
_INBOUND = f"UPDATE inbound_texts s SET address_key = m.new FROM {_MOVED} WHERE s.address_key = m.old"
# A campaign has one reservation of an address and channel; of two under two keys, the newer key's stays the one.
_CAP_RESERVATIONS = f"""
UPDATE cap_reservations s
SET address_key = m.new,
    once_in = CASE WHEN EXISTS (
        SELECT FROM cap_reservations n WHERE n.address_key = m.new AND n.once_in = s.once_in AND n.channel = s.channel)
        THEN NULL ELSE s.once_in END
FROM {_MOVED} WHERE s.address_key = m.old
"""
_MESSAGES = f"""
UPDATE messages s SET address_key = m.new FROM {_MOVED} WHERE s.recipient_id = ANY(%(ids)s) AND s.address_key = m.old
"""


def _move(connection: Connection, keys: Mapping[bytes, bytes]) -> None:
    """Move everything from these keys to others, in the caller's transaction; what was moved before costs one look."""
    written = connection.execute(_ALIASES, {"old": list(keys), "new": list(keys.values())}).fetchall()
    if not written:
        return
    values = {"old": [old for old, _ in written], "new": [new for _, new in written]}
    lock_owners(connection, [], values["old"])
    for former in _by_former(written):  # one key of each address at a time: two could meet in a unique index
        for statement in (_OWNERS_AND_BANS, _SOFT_BOUNCES, _WHATSAPP_WINDOWS, _INBOUND, _CAP_RESERVATIONS):
            connection.execute(statement, {"old": list(former), "new": list(former.values())})


def _by_former(pairs: Collection[tuple[bytes, bytes]]) -> list[dict[bytes, bytes]]:
    """The pairs in groups, in each of which a new key comes up once."""
    groups: list[dict[bytes, bytes]] = []
    times: dict[bytes, int] = {}
    for old, new in pairs:
        place = times[new] = times.get(new, -1) + 1
        if place == len(groups):
            groups.append({})
        groups[place][old] = new
    return groups


_NEXT = """
SELECT id, email, phone, whatsapp FROM recipients
WHERE id > coalesce((SELECT rekeyed_to FROM secret_keys ORDER BY no DESC LIMIT 1), '') ORDER BY id LIMIT %s
"""
_PROGRESS = """
UPDATE secret_keys SET rekeyed_to = %(last)s, rekeyed = rekeyed + %(count)s
WHERE no = (SELECT max(no) FROM secret_keys) AND coalesce(rekeyed_to, '') < %(last)s
"""
_END = "UPDATE secret_keys SET rekeyed_at = %s WHERE no = (SELECT max(no) FROM secret_keys) AND rekeyed_at IS NULL"


def rekey_some(connection: Connection, secret: KeyRing, limit: int, now: datetime) -> int:
    """Move the addresses of the next recipients to the newest key, and then their messages. Returns the number of these recipients;
    0 at the end. Where it is cut off, the next call goes on with the same recipients.
    """
    with connection.transaction():
        ring = secret_keys.in_order(connection, secret)
        rows = connection.execute(_NEXT, (limit,)).fetchall()
        addresses = {
            (kind, address)
            for _, email, phone, whatsapp in rows
            for kind, address in (("email", email), ("sms", phone), ("whatsapp", whatsapp))
            if address
        }
        keys = _former_keys(ring, {address: address_key(ring, *address) for address in addresses})
        _move(connection, keys)
    with connection.transaction():  # of its own: nobody's opt-out waits for it. Until then, the aliases lead to the new keys
        if not rows:
            connection.execute(_END, (now,))
            return 0
        ids = [row[0] for row in rows]
        connection.execute(_MESSAGES, {"ids": ids, "old": list(keys), "new": list(keys.values())})
        connection.execute(_PROGRESS, {"last": ids[-1], "count": len(ids)})
    return len(rows)


def recipients_total(connection: Connection) -> int:
    """How many recipients there are."""
    row = connection.execute("SELECT count(*) FROM recipients").fetchone()
    return int(row[0]) if row else 0


def suppressions_of_unknown(connection: Connection) -> int:
    """How many suppressions in force may still be under a former key, because nobody has their address."""
    row = connection.execute(
        """
        SELECT count(*) FROM suppressions s
        WHERE s.lifted_at IS NULL AND s.created_at < (SELECT introduced_at FROM secret_keys ORDER BY no DESC LIMIT 1)
          AND NOT EXISTS (SELECT FROM address_aliases a WHERE a.new_key = s.address_key)
          AND NOT EXISTS (SELECT FROM recipients r WHERE r.email_key = s.address_key)
          AND NOT EXISTS (SELECT FROM recipients r WHERE r.phone_key = s.address_key)
          AND NOT EXISTS (SELECT FROM recipients r WHERE r.whatsapp_key = s.address_key)
        """
    ).fetchone()
    return int(row[0]) if row else 0
