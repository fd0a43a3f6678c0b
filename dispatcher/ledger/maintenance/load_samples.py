"""Load by the minute: what providers did, and how many tasks waited in each lane. None of it is about a person or a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import datetime

from dispatcher.ledger.connection import Connection


@dataclass(slots=True)
class ProviderMinute:
    """What a provider did on a channel in the minute that begins at `minute`. `answers` counts answers by bucket of their time.

    `provider` is empty in the row of a channel's own rate limit, which holds over all its providers: that row has `put_back`, the
    messages that waited for the limit, and their longest wait. `open_until`: of the circuit breakers of all processes, the last
    one's end.
    """

    minute: datetime
    provider: str
    channel: str
    accepted: int = 0
    refused: int = 0
    throttled: int = 0
    unavailable: int = 0
    uncertain: int = 0
    answers: Sequence[int] = ()
    put_back: int = 0
    wait_seconds_max: float = 0.0
    openings: int = 0
    open_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class LaneMinute:
    """The most tasks that waited in a lane in one minute."""

    minute: datetime
    lane: str
    tasks_max: int


_COLUMNS = tuple(field.name for field in fields(ProviderMinute))
_SUMS = ("accepted", "refused", "throttled", "unavailable", "uncertain", "put_back", "openings")

# In one order, so that two processes that add to the same rows cannot deadlock.
_ADD = f"""
INSERT INTO provider_minutes AS p ({", ".join(_COLUMNS)})
SELECT (%(minute)s::timestamptz[])[n], (%(provider)s::text[])[n], (%(channel)s::text[])[n],
       (%(accepted)s::int[])[n], (%(refused)s::int[])[n], (%(throttled)s::int[])[n], (%(unavailable)s::int[])[n],
       (%(uncertain)s::int[])[n], (%(answers)s::text[])[n]::int[], (%(put_back)s::int[])[n],
       (%(wait_seconds_max)s::real[])[n], (%(openings)s::int[])[n], (%(open_until)s::timestamptz[])[n]
FROM generate_series(1, cardinality(%(minute)s::timestamptz[])) AS n ORDER BY 1, 2, 3
ON CONFLICT (minute, provider, channel) DO UPDATE SET
    {", ".join(f"{name} = p.{name} + excluded.{name}" for name in _SUMS)},
    answers = ARRAY(
        SELECT coalesce(old, 0) + coalesce(new, 0) FROM unnest(p.answers, excluded.answers) WITH ORDINALITY AS a (old, new, place)
        ORDER BY place),
    wait_seconds_max = greatest(p.wait_seconds_max, excluded.wait_seconds_max),
    open_until = greatest(p.open_until, excluded.open_until)
"""


def add(connection: Connection, minutes: Sequence[ProviderMinute]) -> None:
    """Add to what is stored of these minutes."""
    columns = dict(zip(_COLUMNS, map(list, zip(*map(astuple, minutes), strict=True)), strict=True))
    columns["answers"] = [f"{{{','.join(map(str, each))}}}" for each in columns["answers"]]
    connection.execute(_ADD, columns)


def providers_since(connection: Connection, since: datetime) -> list[ProviderMinute]:
    """All rows of the minutes since then."""
    rows = connection.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM provider_minutes WHERE minute >= %s ORDER BY channel, provider, minute", (since,)
    )
    return [ProviderMinute(*row) for row in rows]


def note_lanes(connection: Connection, minute: datetime, tasks: Mapping[str, int]) -> None:
    """Record how many tasks wait in each lane; the largest number of a minute stays."""
    connection.execute(
        """
        INSERT INTO lane_minutes AS l (minute, lane, tasks_max)
        SELECT %s, lane, tasks FROM unnest(%s::text[], %s::int[]) AS e (lane, tasks) ORDER BY lane
        ON CONFLICT (minute, lane) DO UPDATE SET tasks_max = excluded.tasks_max WHERE l.tasks_max < excluded.tasks_max
        """,
        (minute, list(tasks), list(tasks.values())),
    )


def lanes_since(connection: Connection, since: datetime) -> list[LaneMinute]:
    """All rows of the minutes since then."""
    rows = connection.execute("SELECT minute, lane, tasks_max FROM lane_minutes WHERE minute >= %s ORDER BY minute, lane", (since,))
    return [LaneMinute(*row) for row in rows]


def prune(connection: Connection, before: datetime) -> None:
    """Delete the minutes before that moment."""
    connection.execute("DELETE FROM provider_minutes WHERE minute < %s", (before,))
    connection.execute("DELETE FROM lane_minutes WHERE minute < %s", (before,))
