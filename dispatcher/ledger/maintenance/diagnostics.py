"""Small questions about the whole ledger."""

from __future__ import annotations

from datetime import datetime

from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection


def handed_over(connection: Connection) -> int:
    """Messages that a provider took, whatever became of them."""
    row = connection.execute("SELECT count(*) FROM messages WHERE receipt IS NOT NULL").fetchone()
    return int(row[0]) if row else 0


def one_message(connection: Connection, campaign_id: str, state: State) -> MessageId | None:
    """The first message of a campaign in this state."""
    row = connection.execute(
        """
        SELECT m.period, m.chunk, m.row, m.leg FROM messages m JOIN campaigns c ON c.no = m.campaign_no
        WHERE c.id = %s AND m.state = %s ORDER BY 1, 2, 3, 4 LIMIT 1
        """,
        (campaign_id, state),
    ).fetchone()
    return MessageId(*row) if row else None


def claims(connection: Connection) -> list[tuple[str, str, str | None, State, datetime | None]]:
    """Every message's id, recipient, channel, state and time of claim: for proofs over small ledgers."""
    rows = connection.execute("SELECT period, chunk, row, leg, recipient_id, channel, state, claimed_at FROM messages")
    return [(str(MessageId(period, chunk, row, leg)), who, *rest) for period, chunk, row, leg, who, *rest in rows]
