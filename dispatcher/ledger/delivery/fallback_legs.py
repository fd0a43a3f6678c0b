"""Legs of one job in a fallback order: the next leg is sent only while no earlier one may have arrived."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import KEY, KEY_ARRAYS, key_arrays, key_of, same_job

# In these states the person may have the message, or has complained about it: no other leg may follow.
_ARRIVED = ("claimed", "unresolved", "delivered", "read", "complained")
_EARLIER_LEG = f"{same_job('o', 'm')} AND o.leg < m.leg"

# In `gather`, for a message `m`: the channels of the legs before it, and the id of one that arrived.
TRIED = f"""
    CASE WHEN %(first)s AND m.leg > 0 THEN (
        SELECT jsonb_agg(o.channel ORDER BY o.leg) FROM messages o WHERE {_EARLIER_LEG} AND o.channel IS NOT NULL) END
"""
ARRIVED = f"""
    CASE WHEN %(first)s AND m.leg > 0 THEN (
        SELECT concat_ws('-', {key_of("o")}) FROM messages o
        WHERE {_EARLIER_LEG} AND o.state IN {_ARRIVED} ORDER BY o.leg LIMIT 1) END
"""

# In `scheduling.reopen_due_messages`, for the locked messages `due`: the next leg of each whose time for a fallback has come.
INSERT_NEXT = f"""
    INSERT INTO messages ({KEY}, campaign_no, updated_at, recipient_id, state, decision)
    SELECT d.period, d.chunk, d.row, d.leg + 1, d.campaign_no, %(now)s, d.recipient_id, 'pending', '{{}}' FROM due d
    WHERE d.state IN ('accepted', 'failed', 'dead', 'bounced') AND NOT d.is_cancelled ON CONFLICT DO NOTHING
"""


def arrived(connection: Connection, refs: Sequence[MessageId]) -> set[int]:
    """The rows of these later legs of which an earlier leg arrived. Locks the earlier legs: their events wait for the claim."""
    rows = connection.execute(
        f"""
        SELECT o.row, o.state FROM messages o JOIN unnest({KEY_ARRAYS}) AS m ({KEY}) ON {_EARLIER_LEG}
        ORDER BY {key_of("o")} FOR SHARE OF o
        """,
        key_arrays(refs),
    )
    return {row for row, state in rows if state in _ARRIVED}
