"""The pace of campaigns with a rate: whether a chunk may be worked on now, or only later.

One mechanism for all that could make messages due at one moment: quiet hours that end, retries, a pause, workers or a database that
were away. The chunk pays when it is worked on, so that it does not matter how long it was due, or on the broker.

It is the generic cell rate algorithm (ITU-T I.371): `next_send_at` is the moment until which the messages taken so far use up the
rate. A chunk may start when that moment has come, and moves it by its number of messages. Time in which nothing was sent earns
nothing. In any T seconds at most (T + 2.5) times the rate is sent: a chunk of a second, what may start early, what is made up
for. After an edit to a lower rate, chunks keep their size, and may have up to a minute's worth (`campaigns.editing`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.message_key import same_chunk

EARLY = timedelta(seconds=0.5)  # a chunk may start so early: the clock ticks each second, and a tick just missed would cost another
CATCH_UP = timedelta(seconds=1)  # so much lateness is made up for, since ticks come late; more than that is a standstill

# Of a campaign `c`. The first has a parameter `soon` = now + EARLY. The second is how many chunks to put on the broker at a tick of
# the clock: two seconds' worth (a chunk has a second's worth, 1,000 at most), since the rest would only be put back.
HAS_TURN = "NOT EXISTS (SELECT FROM campaign_paces p WHERE p.campaign_no = c.no AND p.next_send_at > %(soon)s)"
_RATE = "(c.spec->>'rate_per_second')::float8"  # NULL for a campaign without a rate
CHUNKS_A_TICK = f"CASE WHEN {_RATE} IS NOT NULL THEN greatest(2, ceil(2 * {_RATE} / 1000)) END"


def try_start(connection: Connection, chunk: Chunk, now: datetime) -> bool:
    """Try to start the chunk: True if its campaign's rate allows it now; then its undecided messages count towards the rate.

    Otherwise the chunk is put back, so that the clock publishes it when its campaign has its turn.
    """
    if chunk.campaign_no is None or chunk.spec.rate_per_second is None:
        return True
    row = connection.execute(
        f"""
        WITH undecided AS (
            SELECT (k.size - count(DISTINCT m.row)) * %(legs)s + count(*) FILTER (WHERE m.state = 'pending') AS messages
            FROM chunks k LEFT JOIN messages m ON {same_chunk("m", "k")} AND m.period = %(period)s AND m.chunk = %(chunk)s
            WHERE k.period = %(period)s AND k.chunk = %(chunk)s GROUP BY k.size
        ), cost AS (
            SELECT make_interval(secs => messages / %(rate)s::float8) AS time FROM undecided WHERE messages > 0
        ), taken AS (
            INSERT INTO campaign_paces AS p (campaign_no, next_send_at) SELECT %(no)s, %(now)s + time FROM cost
            ON CONFLICT (campaign_no) DO UPDATE
            SET next_send_at = CASE WHEN p.next_send_at < %(now)s - %(catch_up)s THEN %(now)s ELSE p.next_send_at END
                               + (SELECT time FROM cost)
            WHERE p.next_send_at <= %(now)s + %(early)s
            RETURNING 1
        ), put_back AS (
            UPDATE chunks SET touched_at = NULL
            WHERE period = %(period)s AND chunk = %(chunk)s AND EXISTS (SELECT FROM cost) AND NOT EXISTS (SELECT FROM taken)
            RETURNING 1
        )
        SELECT NOT EXISTS (SELECT FROM put_back)
        """,
        {
            "period": chunk.period,
            "chunk": chunk.number,
            "no": chunk.campaign_no,
            "rate": chunk.spec.rate_per_second,
            "legs": chunk.spec.messages_per_job,
            "now": now,
            "early": EARLY,
            "catch_up": CATCH_UP,
        },
    ).fetchone()
    return bool(row and row[0])
