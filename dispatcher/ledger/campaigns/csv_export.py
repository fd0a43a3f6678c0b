"""Campaigns as CSV, streamed."""

from __future__ import annotations

from collections.abc import Callable

from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk, same_job

# A spreadsheet would run a cell that starts like this as a formula, and ids come from outside: an apostrophe makes it text.
_SAFE_ID = "CASE WHEN j.recipient_id ~ '^[=+@\t-]' THEN '''' || j.recipient_id ELSE j.recipient_id END"


def campaign_csv(
    connection: Connection, campaign: Campaign, write: Callable[[bytes], object], for_spreadsheets: bool = True
) -> None:
    """Each job of a campaign with its messages, in the order of the audience, as CSV."""
    recipient = _SAFE_ID if for_spreadsheets else "j.recipient_id"
    statement = f"""
        COPY (
            SELECT j.line, {recipient} AS recipient, concat_ws('-', j.period, j.chunk, j.row, coalesce(m.leg, 0)) AS message,
                   m.channel, coalesce(m.state, 'pending') AS state, m.reason, m.attempts, m.updated_at
            FROM chunks k
            JOIN jobs j ON {same_chunk("j", "k")}
            LEFT JOIN messages m ON {same_job("m", "j")}
            WHERE k.period = {int(campaign.period)} AND k.campaign_no = {int(campaign.no)}
            ORDER BY j.chunk, j.row, m.leg
        ) TO STDOUT (FORMAT csv, HEADER)
    """
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for block in copy:
            write(bytes(block))
