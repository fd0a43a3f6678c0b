"""Small queries over the whole ledger."""

from __future__ import annotations

from datetime import datetime

from dispatcher.domain.canaries import PREFIX
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import KEY, join_origin, key_of


def handed_over(connection: Connection) -> int:
    """The number of customers' messages that a provider accepted, whatever their state is now."""
    row = connection.execute(
        "SELECT count(*) FROM messages WHERE receipt IS NOT NULL AND NOT starts_with(recipient_id, %s)", (PREFIX,)
    ).fetchone()
    return int(row[0]) if row else 0


def one_message(connection: Connection, campaign_id: str, state: State) -> MessageId | None:
    """The first message of a campaign in this state."""
    row = connection.execute(
        f"""
        SELECT {key_of("m")} FROM messages m {join_origin("m")}
        WHERE c.id = %s AND m.state = %s ORDER BY {key_of("m")} LIMIT 1
        """,
        (campaign_id, state),
    ).fetchone()
    return MessageId(*row) if row else None


def claims(connection: Connection) -> list[tuple[str, str, str | None, State, datetime | None]]:
    """Every message's id, recipient, channel, state and time of claim: for checks over small ledgers."""
    rows = connection.execute(f"SELECT {KEY}, recipient_id, channel, state, claimed_at FROM messages")
    return [(str(MessageId(*row[:4])), *row[4:]) for row in rows]
