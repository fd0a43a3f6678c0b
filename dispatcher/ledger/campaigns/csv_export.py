"""Whole campaigns, streamed out."""

from __future__ import annotations

from collections.abc import Callable

from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection

# A cell that a spreadsheet would take for a formula is quoted with an apostrophe: ids come from outside.
_SAFE_ID = "CASE WHEN j.recipient_id ~ '^[=+@\t-]' THEN '''' || j.recipient_id ELSE j.recipient_id END"


def campaign_csv(connection: Connection, campaign: Campaign, write: Callable[[bytes], object]) -> None:
    """Each job of a campaign with its messages, in the order of the audience, as CSV."""
    statement = f"""
        COPY (
            SELECT j.line, {_SAFE_ID} AS recipient, concat_ws('-', j.period, j.chunk, j.row, coalesce(m.leg, 0)) AS message,
                   m.channel, coalesce(m.state, 'pending') AS state, m.reason, m.attempts, m.updated_at
            FROM chunks k
            JOIN jobs j ON j.period = k.period AND j.chunk = k.chunk
            LEFT JOIN messages m ON m.period = j.period AND m.chunk = j.chunk AND m.row = j.row
            WHERE k.period = {int(campaign.period)} AND k.campaign_no = {int(campaign.no)}
            ORDER BY j.chunk, j.row, m.leg
        ) TO STDOUT (FORMAT csv, HEADER)
    """
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for block in copy:
            write(bytes(block))
