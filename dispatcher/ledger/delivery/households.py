"""One message per household: of two people registered as each other's partner, the first who may have it gets it."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import key_of

# In these states a person has the message, or may have it: the partner gets none.
_HOLDS = ("claimed", "accepted", "delivered", "read", "complained", "unresolved")

# The partner of a recipient `r`, where both registered each other; a one-sided registration makes no household.
PARTNER_ID = """
    CASE WHEN r.partner_id IS NOT NULL THEN (SELECT q.id FROM recipients q WHERE q.id = r.partner_id AND q.partner_id = r.id) END
"""

# In `gather`, for a job `j` of a recipient `r`: the registered partner, and the id of the campaign's message to that partner.
PARTNER = f"""
    CASE WHEN %(household)s AND r.partner_id IS NOT NULL THEN (
        SELECT jsonb_build_array(q.id, (
            SELECT concat_ws('-', {key_of("o")}) FROM messages o
            WHERE o.recipient_id = q.id AND o.period = j.period AND o.campaign_no = j.campaign_no AND o.state IN {_HOLDS} LIMIT 1))
        FROM recipients q WHERE q.id = r.partner_id AND q.partner_id = r.id) END
"""


def served(connection: Connection, period: int, campaign_no: int, partners: Sequence[str]) -> set[str]:
    """Those of these people who have a message of the campaign, or may have it. Exact while a claim locks their rows."""
    rows = connection.execute(
        f"""
        SELECT DISTINCT o.recipient_id FROM messages o
        WHERE o.recipient_id = ANY(%s) AND o.period = %s AND o.campaign_no = %s AND o.state IN {_HOLDS}
        """,
        (list(partners), period, campaign_no),
    )
    return {recipient_id for (recipient_id,) in rows}
