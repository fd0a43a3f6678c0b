"""How long after an opt-out a message of the person was still under way. Each opt-out is measured once, whoever measures it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from dispatcher.domain.canaries import PREFIX
from dispatcher.ledger.connection import Connection

TASK = "opt_out_lag"  # a row of `published_tasks` holds the end of the last measured window
EVENTS_MAX = 20_000  # of a window, the newest: an import of choices may have millions


def take_window(connection: Connection, end: datetime, least: timedelta) -> tuple[datetime, datetime] | None:
    """The window to measure, from the end of the last one to `end`; None where that is shorter than `least`, and at the first time.

    Only one process gets it.
    """
    row = connection.execute(
        """
        WITH last AS (SELECT published_at FROM published_tasks WHERE task = %(task)s FOR UPDATE),
        taken AS (
            INSERT INTO published_tasks AS p (task, published_at) VALUES (%(task)s, %(end)s)
            ON CONFLICT (task) DO UPDATE SET published_at = excluded.published_at WHERE p.published_at <= %(before)s
            RETURNING 1
        )
        SELECT last.published_at FROM last, taken
        """,
        {"task": TASK, "end": end, "before": end - least},
    ).fetchone()
    return (row[0], end) if row is not None else None


def lags(connection: Connection, since: datetime, until: datetime) -> Sequence[float]:
    """For each opt-out recorded in this time: the seconds until the last message that was claimed before it was settled; 0 where
    there was none.

    The settlement follows the hand-off and the provider's answer, so each number is an upper limit. An opt-out of a channel counts
    that channel's messages; every other one counts all. Canaries are measured for themselves.
    """
    rows = connection.execute(
        """
        SELECT coalesce(max(extract(epoch FROM m.accepted_at - e.recorded_at)), 0)::float8
        FROM (SELECT no, recipient_id, subject, new_value, recorded_at FROM consent_events ORDER BY no DESC LIMIT %(most)s) e
        LEFT JOIN messages m ON m.recipient_id = e.recipient_id AND m.claimed_at <= e.recorded_at AND m.accepted_at > e.recorded_at
            AND CASE e.subject WHEN 'channel:email' THEN m.channel = 'email' WHEN 'channel:push' THEN m.channel = 'push'
                WHEN 'channel:sms_whatsapp' THEN m.channel IN ('sms', 'whatsapp') ELSE true END
        WHERE e.recorded_at > %(since)s AND e.recorded_at <= %(until)s AND NOT starts_with(e.recipient_id, %(canary)s)
            AND (e.new_value = 'none' OR (e.subject LIKE 'channel:%%' AND e.new_value = 'off')
                 OR (e.subject LIKE 'objection:%%' AND e.new_value = 'on'))
        GROUP BY e.no
        """,
        {"most": EVENTS_MAX, "since": since, "until": until, "canary": PREFIX},
    )
    return [seconds for (seconds,) in rows]
