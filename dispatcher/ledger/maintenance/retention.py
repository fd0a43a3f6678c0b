"""Deletion of data older than its retention period. For each class: how much is overdue, and a bounded step that clears some.

A step returns how much it cleared; 0 means that nothing is left. A step may be interrupted and repeated at any moment.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.errors import LockNotAvailable

from dispatcher.domain.recipient import Source
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk, same_job
from dispatcher.ledger.partitions import ended_before, periods

CHUNKS_PER_STEP = 20  # of a campaign: 20,000 jobs at most in one statement
ROWS_PER_STEP = 5_000
NOT_BY_PERSON = [Source.IMPORT, Source.PROVIDER, Source.ERASURE]  # not said by the person, so no contact

# -- variables of campaigns --------------------------------------------------------------------------------------------

_ENDED = "FROM campaigns WHERE finished_at < %s AND cleared_at IS NULL"


def campaigns_overdue(connection: Connection, before: datetime) -> int:
    """The number of campaigns that had ended by then and still have their variables."""
    return _count(connection, f"SELECT count(*) {_ENDED}", before)


def clear_campaign(connection: Connection, before: datetime, now: datetime) -> int:
    """Empty the variables of the campaign that ended first."""
    row = connection.execute(f"SELECT no, period {_ENDED} ORDER BY finished_at LIMIT 1", (before,)).fetchone()
    if row is None:
        return 0
    no, period = row
    numbers = connection.execute("SELECT chunk FROM chunks WHERE period = %s AND campaign_no = %s ORDER BY chunk", (period, no))
    chunks = [number for (number,) in numbers]
    for start in range(0, len(chunks), CHUNKS_PER_STEP):
        connection.execute(
            "UPDATE jobs SET data = '{}' WHERE period = %s AND chunk = ANY(%s) AND data <> '{}'",
            (period, chunks[start : start + CHUNKS_PER_STEP]),
        )
    connection.execute("UPDATE campaigns SET cleared_at = %s WHERE no = %s", (now, no))
    return 1


# -- variables of triggers ---------------------------------------------------------------------------------------------

# A trigger ends when its chunk is done and nothing of it is due any more: a held message or the next leg needs the variables.
_ENDED_TRIGGERS = f"""
    FROM (SELECT period, chunk, row FROM jobs j WHERE campaign_no IS NULL AND data <> '{{{{}}}}'
          AND NOT EXISTS (SELECT FROM messages m WHERE {same_job("m", "j")} AND m.until IS NOT NULL) {{first}}) j
    JOIN chunks k ON {same_chunk("k", "j")} WHERE k.done_at < %s
"""


def triggers_overdue(connection: Connection, before: datetime) -> int:
    """The number of triggers that had ended by then and still have their variables."""
    return _count(connection, f"SELECT count(*) {_ENDED_TRIGGERS.format(first='')}", before)


def clear_triggers(connection: Connection, before: datetime, _: datetime) -> int:
    """Empty the variables of the oldest of them."""
    first = f"ORDER BY period, chunk LIMIT {ROWS_PER_STEP}"
    return connection.execute(
        f"""
        UPDATE jobs SET data = '{{}}' FROM (SELECT j.* {_ENDED_TRIGGERS.format(first=first)}) ended
        WHERE {same_job("jobs", "ended")}
        """,
        (before,),
    ).rowcount


# -- unused fields of provider events ----------------------------------------------------------------------------------

_WITH_EXTRA = "FROM provider_events WHERE extra IS NOT NULL AND received_at < %s"


def provider_events_overdue(connection: Connection, before: datetime) -> int:
    """The number of events that came in before then and still have the fields that no rule uses."""
    return _count(connection, f"SELECT count(*) {_WITH_EXTRA}", before)


def clear_provider_events(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete these fields of some of them."""
    return connection.execute(
        f"""
        UPDATE provider_events SET extra = NULL
        WHERE (period, provider, id) IN (SELECT period, provider, id {_WITH_EXTRA} LIMIT {ROWS_PER_STEP})
        """,
        (before,),
    ).rowcount


# -- prospects ---------------------------------------------------------------------------------------------------------

# A contact is a choice that the person made, or an SMS or WhatsApp message from the person.
_INACTIVE = """
    FROM recipients r WHERE r.person = 'prospect' AND r.erased_at IS NULL AND r.created_at < %(before)s
    AND NOT EXISTS (SELECT FROM consent_events e
                    WHERE e.recipient_id = r.id AND e.said_at >= %(before)s AND e.source <> ALL (%(not_by_person)s))
    AND NOT EXISTS (SELECT FROM inbound_texts t WHERE t.recipients @> ARRAY[r.id] AND t.received_at >= %(before)s)
"""


def prospects_overdue(connection: Connection, before: datetime) -> int:
    """The number of prospects known since before then who have not contacted the bank since."""
    row = connection.execute(f"SELECT count(*) {_INACTIVE}", _inactive_since(before)).fetchone()
    return int(row[0]) if row else 0


def inactive_prospects(connection: Connection, before: datetime, limit: int) -> list[str]:
    """The ids of some of them, the oldest first."""
    statement = f"SELECT r.id {_INACTIVE} ORDER BY r.created_at LIMIT %(limit)s"
    return [row[0] for row in connection.execute(statement, {**_inactive_since(before), "limit": limit})]


def lock_inactive_prospect(connection: Connection, recipient_id: str, before: datetime) -> bool:
    """Lock a person in the caller's transaction; returns whether this is still an inactive prospect.

    Imports, choices and inbound messages lock the person too. The check is a statement of its own, so it sees what committed while
    this one waited for the lock.
    """
    connection.execute("SELECT FROM recipients WHERE id = %s FOR UPDATE", (recipient_id,))
    parameters = {**_inactive_since(before), "id": recipient_id}
    return connection.execute(f"SELECT {_INACTIVE} AND r.id = %(id)s", parameters).fetchone() is not None


def _inactive_since(before: datetime) -> dict[str, object]:
    return {"before": before, "not_by_person": NOT_BY_PERSON}


# -- decisions, by the month -------------------------------------------------------------------------------------------


def past_months(connection: Connection, before: datetime) -> list[int]:
    """The months in which everything had ended by then, oldest first."""
    return [period for period in periods(connection) if ended_before(before, period) and not _unended(connection, period, before)]


def _unended(connection: Connection, period: int, before: datetime) -> bool:
    row = connection.execute(
        """
        SELECT EXISTS (SELECT FROM campaigns WHERE period = %(period)s AND (finished_at IS NULL OR finished_at >= %(before)s))
            OR EXISTS (SELECT FROM chunks WHERE period = %(period)s AND (done_at IS NULL OR done_at >= %(before)s))
            OR EXISTS (SELECT FROM messages WHERE period = %(period)s AND until IS NOT NULL)
        """,
        {"period": period, "before": before},
    ).fetchone()
    return bool(row and row[0])


def months_overdue(connection: Connection, before: datetime) -> int:
    """The number of such months."""
    return len(past_months(connection, before))


def drop_month(connection: Connection, before: datetime, _: datetime) -> int:
    """Drop the oldest of them with its campaigns, triggers, messages and events; later, where somebody is reading it now."""
    for period in past_months(connection, before)[:1]:
        try:
            connection.execute("SELECT forget_month(%s)", (period,))
        except LockNotAvailable:
            return 0
        return 1
    return 0


# -- consent events of erased people ------------------------------------------------------------------------------------


def erased_overdue(connection: Connection, before: datetime) -> int:
    """The number of people erased before then whose consent events are still there."""
    return _count(connection, "SELECT count(*) FROM recipients WHERE erased_at < %s", before)


def delete_erased_consent(connection: Connection, before: datetime, _: datetime) -> int:
    """Delete some of them, with their whole chain of consent events."""
    return _count(connection, f"SELECT forget_erased(%s, {ROWS_PER_STEP})", before)


def _count(connection: Connection, statement: str, before: datetime) -> int:
    row = connection.execute(statement, (before,)).fetchone()
    return int(row[0]) if row else 0
