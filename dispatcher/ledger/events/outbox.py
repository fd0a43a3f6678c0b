"""The transactional outbox: what the outside may hear is written in the transaction that makes it.

One row holds the changes of one statement, as a JSON array: a batch of messages costs one row, 2 microseconds a message.
Statements that change the state of messages carry the fragments below; a trigger would cost five times that, because it compares
all rows before and after. Triggers write all other kinds, see migration 0013.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.domain.message import INTERNAL_STATES
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.connection import Connection

_COLUMNS = ("period", "chunk", "row", "leg", "campaign_no", "recipient_id", "channel", "state", "reason", "attempts", "provider")
_INTERNAL = ", ".join(f"'{state}'" for state in sorted(INTERNAL_STATES))


def changed(alias: str) -> str:
    """The columns that a statement on messages has to return for `enter`; a decision names the template of its message."""
    return f"{', '.join(f'{alias}.{name}' for name in _COLUMNS)}, {alias}.decision, {alias}.updated_at"


def enter(source: str, condition: str = "true") -> str:
    """The statement that writes the changed messages which `source` returns, one row for each chunk.

    One row for all would be too large where a campaign of millions is cancelled.
    """
    return f"""
        INSERT INTO outbox (kind, at, changes)
        SELECT 'message', max(updated_at),
               jsonb_agg(jsonb_build_array({", ".join(_COLUMNS)}, {decision_skeletons.template_in(source)})) FROM {source}
        WHERE state NOT IN ({_INTERNAL}) AND {condition} GROUP BY period, chunk
    """


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """The changes of one kind that one statement made, as it wrote them."""

    no: int
    kind: str
    at: datetime
    changes: Sequence[Any]


def take(connection: Connection, limit: int) -> list[OutboxRow]:
    """Remove the oldest rows, in the caller's transaction; in the order in which they were written.

    A number is drawn while the statement holds the locks on what it changed. So of two changes to one person or message, the later
    has the higher number, and is visible only when the earlier is.
    """
    rows = connection.execute(
        """
        DELETE FROM outbox WHERE no IN (SELECT no FROM outbox ORDER BY no LIMIT %s) RETURNING no, kind, at, changes
        """,
        (limit,),
    )
    return sorted((OutboxRow(*row) for row in rows), key=lambda row: row.no)


def backlog(connection: Connection) -> tuple[int, datetime | None]:
    """The number of rows that wait, and the time of the oldest."""
    row = connection.execute("SELECT count(*), min(at) FROM outbox").fetchone()
    return (int(row[0]), row[1]) if row else (0, None)
