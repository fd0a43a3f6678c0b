"""Legs of one message in a fallback order: the next is sent only while the ones before may be taken for not arrived."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection

# Of these nobody can say that the person did not get it, or wants another.
_ARRIVED = ("claimed", "unresolved", "delivered", "read", "complained")
_SAME_JOB = "o.period = m.period AND o.chunk = m.chunk AND o.row = m.row AND o.leg < m.leg"

# In `gather`, for a message `m`: the channels of the legs before it, and the id of one that arrived.
TRIED = f"""
    CASE WHEN %(first)s AND m.leg > 0 THEN (
        SELECT jsonb_agg(o.channel ORDER BY o.leg) FROM messages o WHERE {_SAME_JOB} AND o.channel IS NOT NULL) END
"""
ARRIVED = f"""
    CASE WHEN %(first)s AND m.leg > 0 THEN (
        SELECT concat_ws('-', o.period, o.chunk, o.row, o.leg) FROM messages o
        WHERE {_SAME_JOB} AND o.state IN {_ARRIVED} ORDER BY o.leg LIMIT 1) END
"""


def arrived(connection: Connection, refs: Sequence[MessageId]) -> set[int]:
    """The rows of these later legs before which a leg arrived after all. News of the others waits until the claim is done."""
    rows = connection.execute(
        """
        SELECT o.row, o.state FROM messages o
        JOIN unnest(%s::int[], %s::bigint[], %s::int[], %s::smallint[]) AS m (period, chunk, row, leg)
          ON o.period = m.period AND o.chunk = m.chunk AND o.row = m.row AND o.leg < m.leg
        ORDER BY o.period, o.chunk, o.row, o.leg FOR SHARE OF o
        """,
        ([ref.period for ref in refs], [ref.chunk for ref in refs], [ref.row for ref in refs], [ref.leg for ref in refs]),
    )
    return {row for row, state in rows if state in _ARRIVED}
