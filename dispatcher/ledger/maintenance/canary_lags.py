"""How long after an opt-out a canary's messages were still under way: measured per round, and summed up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from psycopg.rows import class_row

from dispatcher.domain.canaries import OptOutLags, OptOutWay
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import same_chunk, same_message

# The hand-off is before the provider's answer is settled, so this is an upper limit of it. A push has no delivery report: its
# arrival is the provider's answer.
_MEASURE = f"""
    WITH sent AS (
        SELECT r.no, r.answered_at, m.claimed_at, m.accepted_at, m.state,
               CASE WHEN m.channel = 'push' THEN m.accepted_at ELSE (
                   SELECT min(e.at) FROM provider_events e
                   WHERE {same_message("e", "m")} AND e.kind IN ('delivered', 'read')) END AS arrived_at
        FROM canary_rounds r JOIN canary_jobs j ON j.round_no = r.no
        JOIN messages m ON {same_chunk("m", "j")} AND m.row = 0
        WHERE r.no = %(no)s AND m.claimed_at IS NOT NULL
    ), lags AS (
        SELECT coalesce(max(extract(epoch FROM claimed_at - answered_at)), 0)::float8 AS claim,
               coalesce(max(extract(epoch FROM accepted_at - answered_at)), 0)::float8 AS hand_off,
               coalesce(max(extract(epoch FROM arrived_at - answered_at)), 0)::float8 AS arrival,
               coalesce(bool_or(accepted_at IS NOT NULL AND arrived_at IS NULL AND state = 'accepted'), false) AS awaits_arrivals
        FROM sent
    )
    SELECT greatest(claim, 0) AS claim, greatest(hand_off, 0) AS hand_off, greatest(arrival, 0) AS arrival, awaits_arrivals
    FROM lags
"""


def measure(connection: Connection, no: int) -> OptOutLags:
    """The lags of a round whose way out has answered."""
    with connection.cursor(row_factory=class_row(OptOutLags)) as cursor:
        lags = cursor.execute(_MEASURE, {"no": no}).fetchone()
    assert lags is not None  # noqa: S101  an aggregate has one row
    return lags


def record(connection: Connection, no: int, lags: OptOutLags, is_late: bool) -> bool:
    """Write the measurement of a round; whether it became late by that."""
    row = connection.execute(
        """
        WITH before AS (SELECT no, is_late FROM canary_rounds WHERE no = %(no)s FOR UPDATE)
        UPDATE canary_rounds r
        SET claim_seconds = %(claim)s, hand_off_seconds = %(hand_off)s, arrival_seconds = %(arrival)s,
            awaits_arrivals = %(awaits)s, is_late = r.is_late OR %(late)s,
            jobs = (SELECT count(*) FROM canary_jobs j WHERE j.round_no = r.no)
        FROM before WHERE r.no = before.no
        RETURNING r.is_late AND NOT before.is_late
        """,
        {
            "no": no,
            "claim": lags.claim,
            "hand_off": lags.hand_off,
            "arrival": lags.arrival,
            "awaits": lags.awaits_arrivals,
            "late": is_late,
        },
    ).fetchone()
    return bool(row and row[0])


def awaiting_arrivals(connection: Connection, most: timedelta) -> list[tuple[int, OptOutWay, float, bool]]:
    """Measured rounds with messages that have no delivery report yet: number, way, bound, and whether they waited so long."""
    rows = connection.execute(
        "SELECT no, way, bound_seconds, closed_at < clock_timestamp() - %s FROM canary_rounds"
        " WHERE awaits_arrivals AND outcome = 'measured' AND started_at > clock_timestamp() - interval '1 day' ORDER BY no",
        (most,),
    )
    return [(no, OptOutWay(way), bound, is_over) for no, way, bound, is_over in rows]


# -- sums --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LagSummary:
    """The measurements of some time (days are those of UTC): numbers, and percentiles in seconds; None without measurements."""

    at: datetime
    way: str
    rounds: int
    measured: int
    late: int
    claim_max: float | None
    hand_off_p50: float | None
    hand_off_p95: float | None
    hand_off_p99: float | None
    hand_off_max: float | None
    arrival_p50: float | None
    arrival_p95: float | None
    arrival_p99: float | None
    arrival_max: float | None


def _percentiles(column: str) -> str:
    parts = [
        f"percentile_disc({share}) WITHIN GROUP (ORDER BY {column}_seconds) AS {column}_{name}"
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    ]
    return ", ".join([*parts, f"max({column}_seconds) AS {column}_max"])


@dataclass(frozen=True, slots=True)
class Measured:
    """Which rounds are summed up: from when on, before when, and of which way; None: of all."""

    since: datetime
    until: datetime
    way: OptOutWay | None = None


def by_day(connection: Connection, wanted: Measured) -> list[LagSummary]:
    """The measurements by day and way, newest day first."""
    return _summaries(connection, wanted, "date_trunc('day', started_at, 'UTC')", "way", "1, 2")


def by_way(connection: Connection, wanted: Measured) -> list[LagSummary]:
    """The measurements by way; their time is the beginning."""
    return _summaries(connection, wanted, "%(since)s::timestamptz", "way", "2")


def series(connection: Connection, wanted: Measured, step: Literal["hour", "day"]) -> list[LagSummary]:
    """The measurements by hour or day, oldest first; their way is empty."""
    return _summaries(connection, wanted, f"date_trunc('{step}', started_at, 'UTC')", "''", "1")[::-1]


def _summaries(connection: Connection, wanted: Measured, at: str, way: str, groups: str) -> list[LagSummary]:
    statement = f"""
        SELECT {at} AS at, {way} AS way, count(*) AS rounds, count(*) FILTER (WHERE outcome = 'measured') AS measured,
               count(*) FILTER (WHERE is_late) AS late, max(claim_seconds) AS claim_max,
               {_percentiles("hand_off")}, {_percentiles("arrival")}
        FROM canary_rounds
        WHERE started_at >= %(since)s AND started_at < %(until)s AND closed_at IS NOT NULL
          AND (%(way)s::text IS NULL OR way = %(way)s)
        GROUP BY {groups} ORDER BY 1 DESC, 2
    """
    with connection.cursor(row_factory=class_row(LagSummary)) as cursor:
        return cursor.execute(statement.encode(), {"since": wanted.since, "until": wanted.until, "way": wanted.way}).fetchall()


@dataclass(frozen=True, slots=True)
class LateOptOut:
    """An opt-out after which a message was under way for too long."""

    no: int
    way: str
    answered_at: datetime
    bound_seconds: float
    claim_seconds: float
    hand_off_seconds: float
    arrival_seconds: float


def late(connection: Connection, since: datetime, until: datetime, most: int = 1_000) -> list[LateOptOut]:
    """The late ones of this time, newest first."""
    with connection.cursor(row_factory=class_row(LateOptOut)) as cursor:
        return cursor.execute(
            "SELECT no, way, answered_at, bound_seconds, claim_seconds, hand_off_seconds, arrival_seconds FROM canary_rounds"
            " WHERE is_late AND started_at >= %s AND started_at < %s ORDER BY no DESC LIMIT %s",
            (since, until, most),
        ).fetchall()


def reasons(connection: Connection, since: datetime, until: datetime) -> dict[str, int]:
    """Why rounds of this time were not measured, and how often."""
    rows = connection.execute(
        "SELECT coalesce(reason, ''), count(*) FROM canary_rounds WHERE outcome = 'not_measured' AND started_at >= %s"
        " AND started_at < %s GROUP BY 1 ORDER BY 2 DESC, 1",
        (since, until),
    )
    return dict(rows.fetchall())


@dataclass(frozen=True, slots=True)
class WayState:
    """The last rounds of a way: when it was first started, last measured, and how the newest ended."""

    way: str
    first_at: datetime
    measured_at: datetime | None
    newest_at: datetime
    outcome: str | None
    reason: str | None


def way_states(connection: Connection, since: datetime) -> list[WayState]:
    """The state of each way that has a round since then."""
    with connection.cursor(row_factory=class_row(WayState)) as cursor:
        return cursor.execute(
            """
            SELECT way, min(started_at) AS first_at, max(closed_at) FILTER (WHERE outcome = 'measured') AS measured_at,
                   max(started_at) AS newest_at,
                   (array_agg(outcome ORDER BY no DESC) FILTER (WHERE closed_at IS NOT NULL))[1] AS outcome,
                   (array_agg(reason ORDER BY no DESC) FILTER (WHERE closed_at IS NOT NULL))[1] AS reason
            FROM canary_rounds WHERE started_at >= %s GROUP BY way ORDER BY way
            """,
            (since,),
        ).fetchall()


def overdue(connection: Connection, before: datetime) -> int:
    """The number of rounds that began before then."""
    row = connection.execute("SELECT count(*) FROM canary_rounds WHERE started_at < %s", (before,)).fetchone()
    return int(row[0]) if row else 0


def delete(connection: Connection, before: datetime, _now: datetime) -> int:
    """Delete some of them."""
    return connection.execute(
        "DELETE FROM canary_rounds WHERE no IN (SELECT no FROM canary_rounds WHERE started_at < %s LIMIT 10000)", (before,)
    ).rowcount


@dataclass(frozen=True, slots=True)
class RoundResult:
    """How a round ended; times in seconds, None where it was not measured."""

    no: int
    way: str
    outcome: str
    reason: str | None
    is_late: bool
    awaits_arrivals: bool
    claim_seconds: float | None
    hand_off_seconds: float | None
    arrival_seconds: float | None


def newest_no(connection: Connection) -> int:
    """The number of the newest round; 0 where there is none."""
    row = connection.execute("SELECT coalesce(max(no), 0) FROM canary_rounds").fetchone()
    return int(row[0]) if row else 0


def results_after(connection: Connection, no: int) -> list[RoundResult]:
    """The rounds with higher numbers that have ended, oldest first."""
    with connection.cursor(row_factory=class_row(RoundResult)) as cursor:
        return cursor.execute(
            "SELECT no, way, outcome, reason, is_late, awaits_arrivals, claim_seconds, hand_off_seconds, arrival_seconds"
            " FROM canary_rounds WHERE no > %s AND closed_at IS NOT NULL ORDER BY no",
            (no,),
        ).fetchall()
