"""Taking away what has been kept long enough: of each kind how much is due, and a bounded step that clears some.

A step says how much it cleared; 0 says that nothing is left to do. Each may be cut off and begun anew at any moment.
"""

from __future__ import annotations

from datetime import datetime

from psycopg.errors import LockNotAvailable

from dispatcher.domain.recipient import Source
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.partitions import over_by, periods

CHUNKS_A_STEP = 20  # of a campaign: some ten thousand jobs in one statement
ROWS_A_STEP = 5_000
NOT_THEIRS = [Source.IMPORT, Source.PROVIDER, Source.ERASURE]  # what a person didn't say is no sign of life

# -- variables of campaigns --------------------------------------------------------------------------------------------

_ENDED = "FROM campaigns WHERE finished_at < %s AND cleared_at IS NULL"


def campaigns_due(connection: Connection, before: datetime) -> int:
    """Campaigns that had ended by then and still have their variables."""
    return _count(connection, f"SELECT count(*) {_ENDED}", before)


def clear_campaign(connection: Connection, before: datetime, now: datetime) -> int:
    """Empty the variables of the one that has waited longest."""
    row = connection.execute(f"SELECT no, period {_ENDED} ORDER BY finished_at LIMIT 1", (before,)).fetchone()
    if row is None:
        return 0
    no, period = row
    numbers = connection.execute("SELECT chunk FROM chunks WHERE period = %s AND campaign_no = %s ORDER BY chunk", (period, no))
    chunks = [number for (number,) in numbers]
    for start in range(0, len(chunks), CHUNKS_A_STEP):
        connection.execute(
            "UPDATE jobs SET data = '{}' WHERE period = %s AND chunk = ANY(%s) AND data <> '{}'",
            (period, chunks[start : start + CHUNKS_A_STEP]),
        )
    connection.execute("UPDATE campaigns SET cleared_at = %s WHERE no = %s", (now, no))
    return 1


# -- variables of triggers ---------------------------------------------------------------------------------------------

_SPENT = """
    FROM (SELECT period, chunk, row FROM jobs WHERE campaign_no IS NULL AND data <> '{{}}' {first}) j
    JOIN chunks k ON k.period = j.period AND k.chunk = j.chunk WHERE k.done_at < %s
"""


def triggers_due(connection: Connection, before: datetime) -> int:
    """Triggers that were done by then and still have their variables."""
    return _count(connection, f"SELECT count(*) {_SPENT.format(first='')}", before)


def clear_triggers(connection: Connection, before: datetime, _: datetime) -> int:
    """Empty the variables of the oldest ones."""
    first = f"ORDER BY period, chunk LIMIT {ROWS_A_STEP}"
    return connection.execute(
        f"""
        UPDATE jobs SET data = '{{}}' FROM (SELECT j.* {_SPENT.format(first=first)}) spent
        WHERE (jobs.period, jobs.chunk, jobs.row) = (spent.period, spent.chunk, spent.row)
        """,
        (before,),
    ).rowcount


# -- providers' further words ------------------------------------------------------------------------------------------

_TOLD = "FROM provider_events WHERE extra IS NOT NULL AND received_at < %s"


def provider_events_due(connection: Connection, before: datetime) -> int:
    """Events that came in before then and still have what nothing acts on."""
    return _count(connection, f"SELECT count(*) {_TOLD}", before)


def clear_provider_events(connection: Connection, before: datetime, _: datetime) -> int:
    """Drop that of some of them."""
    return connection.execute(
        f"""
        UPDATE provider_events SET extra = NULL
        WHERE (period, provider, id) IN (SELECT period, provider, id {_TOLD} LIMIT {ROWS_A_STEP})
        """,
        (before,),
    ).rowcount


# -- prospects ---------------------------------------------------------------------------------------------------------

_SILENT = """
    FROM recipients r WHERE r.person = 'prospect' AND r.erased_at IS NULL AND r.created_at < %(before)s
    AND NOT EXISTS (SELECT FROM consent_events e
                    WHERE e.recipient_id = r.id AND e.said_at >= %(before)s AND e.source <> ALL (%(not_theirs)s))
"""


def prospects_due(connection: Connection, before: datetime) -> int:
    """Prospects known since before then, who themselves have said nothing since."""
    row = connection.execute(f"SELECT count(*) {_SILENT}", {"before": before, "not_theirs": NOT_THEIRS}).fetchone()
    return int(row[0]) if row else 0


def silent_prospects(connection: Connection, before: datetime, limit: int) -> list[str]:
    """The ids of some of them."""
    names = {"before": before, "not_theirs": NOT_THEIRS, "limit": limit}
    return [row[0] for row in connection.execute(f"SELECT r.id {_SILENT} ORDER BY r.created_at LIMIT %(limit)s", names)]


# -- decisions, by the month -------------------------------------------------------------------------------------------


def past_months(connection: Connection, before: datetime) -> list[int]:
    """Months in which all had ended by then, oldest first."""
    return [period for period in periods(connection) if over_by(before, period) and not _unended(connection, period, before)]


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


def months_due(connection: Connection, before: datetime) -> int:
    """How many such months there are."""
    return len(past_months(connection, before))


def drop_month(connection: Connection, before: datetime, _: datetime) -> int:
    """Drop the oldest of them, with its campaigns, triggers, messages and news; not now where somebody is reading there."""
    for period in past_months(connection, before)[:1]:
        try:
            connection.execute("SELECT forget_month(%s)", (period,))
        except LockNotAvailable:
            return 0
        return 1
    return 0


# -- what erased people had said ---------------------------------------------------------------------------------------


def erased_due(connection: Connection, before: datetime) -> int:
    """People erased before then whose chain of consent events is still there."""
    return _count(connection, "SELECT count(*) FROM recipients WHERE erased_at < %s", before)


def forget_erased(connection: Connection, before: datetime, _: datetime) -> int:
    """Take some of them away whole."""
    return _count(connection, f"SELECT forget_erased(%s, {ROWS_A_STEP})", before)


def _count(connection: Connection, statement: str, before: datetime) -> int:
    row = connection.execute(statement, (before,)).fetchone()
    return int(row[0]) if row else 0
