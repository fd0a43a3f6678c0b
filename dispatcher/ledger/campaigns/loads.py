"""Loads: audiences that are being written, part by part. Each part is committed together with the position after it.

Until its audience is complete a campaign is `scheduled` and not `fanned_out`: it does not start, and none of its jobs is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dispatcher.domain.campaign import Spec
from dispatcher.ledger.campaigns.audience import AudienceFile
from dispatcher.ledger.connection import Connection, fetch_one
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class AudienceLoad:
    """How far a load is. `digest` is that of the form and of the rows read so far.

    `worked_at` is when somebody last worked on it, None where nobody does. `ended` is `complete`, `refused` or `abandoned`.
    """

    campaign_no: int
    campaign_id: str
    period: int
    spec: Spec
    template_digests: Mapping[str, str]
    created_at: datetime
    digest: bytes
    rows_read: int
    rows_written: int
    file: AudienceFile | None
    worked_at: datetime | None
    ended: str | None


_SELECT = """
    SELECT l.campaign_no, c.id AS campaign_id, c.period, c.spec, c.template_digests, c.created_at, l.digest, l.rows_read, l.taken,
           l.path, l.size, l.modified_ns, l.worked_at, l.ended
    FROM audience_loads l JOIN campaigns c ON c.no = l.campaign_no
"""


def _load(row: Mapping[str, Any]) -> AudienceLoad:
    return AudienceLoad(
        campaign_no=row["campaign_no"],
        campaign_id=row["campaign_id"],
        period=row["period"],
        spec=spec_from_json(row["spec"]),
        template_digests=row["template_digests"],
        created_at=row["created_at"],
        digest=bytes(row["digest"]),
        rows_read=row["rows_read"],
        rows_written=row["taken"],
        file=AudienceFile(row["path"], row["size"], row["modified_ns"]) if row["path"] is not None else None,
        worked_at=row["worked_at"],
        ended=row["ended"],
    )


def find(connection: Connection, no: int) -> AudienceLoad | None:
    """The load of this campaign number; None where its audience fits into one part."""
    row = fetch_one(connection, _SELECT + "WHERE l.campaign_no = %(no)s", {"no": no})
    return _load(row) if row else None


def of_campaign(connection: Connection, campaign_id: str) -> AudienceLoad | None:
    """The load of the campaign with this id; None where its audience fits into one part."""
    row = fetch_one(connection, _SELECT + "WHERE c.id = %(id)s", {"id": campaign_id})
    return _load(row) if row else None


def loading_from(connection: Connection, path: str) -> str | None:
    """The id of a campaign that is loading from this file; None where none is."""
    row = connection.execute(
        "SELECT c.id FROM audience_loads l JOIN campaigns c ON c.no = l.campaign_no"
        " WHERE l.path = %s AND l.ended IS NULL AND c.state = 'scheduled' LIMIT 1",
        (path,),
    ).fetchone()
    return str(row[0]) if row else None


# -- the parts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadPosition:
    """How far a load is: the digest of the form and of the rows read, their number, and how many of them are jobs."""

    digest: bytes
    rows_read: int
    rows_written: int


def start(connection: Connection, no: int, position: LoadPosition, file: AudienceFile | None, now: datetime) -> None:
    """Note the first part of an audience, in the transaction that writes it. The campaign gets the digest of its form."""
    connection.execute(
        """
        WITH form AS (
            UPDATE campaigns SET digest = substring(%(digest)s::bytea FOR 32) WHERE no = %(no)s
        )
        INSERT INTO audience_loads (campaign_no, digest, rows_read, taken, path, size, modified_ns, worked_at, progress_at)
        VALUES (%(no)s, %(digest)s, %(rows_read)s, %(taken)s, %(path)s, %(size)s, %(modified_ns)s, %(now)s, %(now)s)
        """,
        {
            "no": no,
            "digest": position.digest,
            "rows_read": position.rows_read,
            "taken": position.rows_written,
            "path": file and file.path,
            "size": file and file.size,
            "modified_ns": file and file.modified_ns,
            "now": now,
        },
    )


def lock(connection: Connection, no: int, rows_read: int) -> bool:
    """Lock a load for its next part. False where it does not go on from this position: another process has committed a part, or
    the campaign was cancelled or refused meanwhile.

    A cancel waits for the part, so that it finds its jobs.
    """
    row = connection.execute(
        """
        SELECT FROM audience_loads l JOIN campaigns c ON c.no = l.campaign_no
        WHERE l.campaign_no = %s AND l.rows_read = %s AND l.ended IS NULL AND c.state = 'scheduled'
        FOR UPDATE OF l FOR NO KEY UPDATE OF c
        """,
        (no, rows_read),
    ).fetchone()
    return row is not None


def advance(connection: Connection, no: int, digest: bytes, rows_read: int, rows_written: int, now: datetime) -> None:
    """Note a part, in the transaction that writes it. The load is locked."""
    connection.execute(
        "UPDATE audience_loads SET digest = %s, rows_read = %s, taken = %s, worked_at = %s, progress_at = %s"
        " WHERE campaign_no = %s",
        (digest, rows_read, rows_written, now, now, no),
    )


def acquire(connection: Connection, no: int, now: datetime, idle_since: datetime) -> bool:
    """Acquire a load for the caller if nobody has worked on it since `idle_since`; False where somebody has.

    This is no fence: `lock` compares the position at each part, and so stops the slower of two processes. It only saves the work of
    the second.
    """
    return bool(
        connection.execute(
            "UPDATE audience_loads SET worked_at = %s WHERE campaign_no = %s AND ended IS NULL"
            " AND (worked_at IS NULL OR worked_at < %s)",
            (now, no, idle_since),
        ).rowcount
    )


def replace_file(connection: Connection, no: int, file: AudienceFile | None) -> None:
    """Note that the rows come from another file, or from nowhere that can be read again. Those read so far are the same."""
    connection.execute(
        "UPDATE audience_loads SET path = %s, size = %s, modified_ns = %s WHERE campaign_no = %s",
        (file and file.path, file and file.size, file and file.modified_ns, no),
    )


def release(connection: Connection, no: int) -> None:
    """Note that the caller works on it no longer: the next step goes on at once."""
    connection.execute("UPDATE audience_loads SET worked_at = NULL WHERE campaign_no = %s", (no,))


def finish(connection: Connection, no: int, digest: bytes, rows_read: int, rows_written: int) -> None:
    """Note that the audience is complete, in the transaction that completes the campaign. The same file needs no second reading."""
    connection.execute(
        "UPDATE audience_loads SET ended = 'complete', digest = %s, rows_read = %s, taken = %s WHERE campaign_no = %s",
        (digest, rows_read, rows_written, no),
    )


# -- the ends ----------------------------------------------------------------------------------------------------------


def refuse(connection: Connection, no: int, now: datetime) -> bool:
    """Give up a load, whole: `unload` deletes it and its campaign. False where it has ended, or its audience is complete."""
    return _end(connection, "refused", "refused: its audience cannot be read", now, no=no) is not None


def abandon(connection: Connection, now: datetime, before: datetime) -> str | None:
    """End one load of which no part was committed since `before`; the id of its campaign, which stays, `cancelled` with a note."""
    note = "ended while its audience was loaded: after row {rows}, nothing came for too long"
    return _end(connection, "abandoned", note, now, before=before)


def _end(
    connection: Connection, ended: str, note: str, now: datetime, no: int | None = None, before: datetime | None = None
) -> str | None:
    """End the load of this campaign, or one without progress. One whose campaign was cancelled stays: it has messages."""
    row = connection.execute(
        """
        WITH l AS (
            SELECT l.campaign_no, l.rows_read FROM audience_loads l JOIN campaigns c ON c.no = l.campaign_no
            WHERE l.ended IS NULL AND c.state = 'scheduled' AND NOT c.fanned_out
              AND (%(no)s::bigint IS NULL OR l.campaign_no = %(no)s)
              AND (%(before)s::timestamptz IS NULL OR l.progress_at < %(before)s)
            LIMIT 1 FOR UPDATE
        ), ended AS (
            UPDATE audience_loads SET ended = %(ended)s WHERE campaign_no = (SELECT campaign_no FROM l)
        )
        UPDATE campaigns c SET state = 'cancelled', finished_at = %(now)s, note = replace(%(note)s, '{rows}', l.rows_read::text)
        FROM l WHERE c.no = l.campaign_no RETURNING c.id
        """,
        {"no": no, "before": before, "ended": ended, "now": now, "note": note},
    ).fetchone()
    return str(row[0]) if row else None


def unload(connection: Connection, no: int, chunks_max: int) -> bool:
    """Delete some chunks of a load that has ended; True once nothing of it is left."""
    row = connection.execute("SELECT unload_audience(%s, %s)", (no, chunks_max)).fetchone()
    return bool(row and row[0])


def ended(connection: Connection) -> list[int]:
    """The campaign numbers of the loads that have ended and are to be deleted."""
    return [no for (no,) in connection.execute("SELECT campaign_no FROM audience_loads WHERE ended <> 'complete' ORDER BY 1")]


def take_stalled(connection: Connection, now: datetime, idle_since: datetime) -> list[int]:
    """The campaign numbers of loads from files on which nobody has worked since `idle_since`. They count as worked on from now."""
    rows = connection.execute(
        "UPDATE audience_loads SET worked_at = %s WHERE ended IS NULL AND path IS NOT NULL"
        " AND (worked_at IS NULL OR worked_at < %s) AND progress_at < %s RETURNING campaign_no",
        (now, idle_since, idle_since),
    )
    return [no for (no,) in rows]


def forget_cancelled(connection: Connection) -> int:
    """Delete the loads of campaigns that were cancelled by a person: their jobs stay, as cancelled messages."""
    return connection.execute(
        "DELETE FROM audience_loads l USING campaigns c WHERE c.no = l.campaign_no AND l.ended IS NULL AND c.state = 'cancelled'"
    ).rowcount
