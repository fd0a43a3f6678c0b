"""What a no does to messages that have not left: those parked in its scope become `refused`, in its own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.domain.decision import ReasonCode
from dispatcher.ledger.connection import Connection

_RANK = {code: rank for rank, code in enumerate(ReasonCode)}


@dataclass(frozen=True, slots=True)
class OptOut:
    """One person's no and its scope: channels (None: all), offer type (None: all), service messages too or not.

    `no_channel_left`: the no leaves the person no channel at all, so messages that have none yet fall under it too.
    """

    recipient_id: str
    code: ReasonCode
    evidence: str
    channels: tuple[str, ...] | None = None
    no_channel_left: bool = False
    offer_type: str | None = None
    service_too: bool = False


_REFUSE = """
WITH said AS (
    SELECT * FROM jsonb_to_recordset(%(said)s) AS said (
        recipient_id text, code text, rank integer, evidence text, channels text[], no_channel_left boolean,
        offer_type text, service_too boolean)
), hit AS (
    SELECT DISTINCT ON (m.period, m.chunk, m.row, m.leg) m.period, m.chunk, m.row, m.leg, said.code, said.evidence
    FROM said
    JOIN messages m ON m.recipient_id = said.recipient_id AND m.state IN ('pending', 'held', 'waiting')
    LEFT JOIN campaigns ON campaigns.no = m.campaign_no
    LEFT JOIN triggers ON m.campaign_no IS NULL AND triggers.chunk = m.chunk
    CROSS JOIN LATERAL (SELECT coalesce(campaigns.spec, triggers.spec) AS spec) asked
    WHERE (said.channels IS NULL OR m.channel = ANY (said.channels) OR m.channel IS NULL AND said.no_channel_left)
      AND (said.service_too OR asked.spec ->> 'kind' IS DISTINCT FROM 'service')
      AND (said.offer_type IS NULL OR said.offer_type = asked.spec ->> 'offer_type')
    ORDER BY m.period, m.chunk, m.row, m.leg, said.rank
)
UPDATE messages m
SET state = 'refused', reason = hit.code, until = NULL, updated_at = %(now)s,
    decision = m.decision || jsonb_build_object(
        'stopped', jsonb_build_object('code', hit.code, 'evidence', hit.evidence, 'at', %(at)s::text))
FROM hit
WHERE (m.period, m.chunk, m.row, m.leg) = (hit.period, hit.chunk, hit.row, hit.leg)
  AND m.state IN ('pending', 'held', 'waiting')
"""


def revoke_pending(connection: Connection, said: Sequence[OptOut], now: datetime) -> int:
    """Refuse the parked messages that these fall upon; the strongest no of a person gives the reason. Returns how many.

    The caller holds the recipients' rows FOR UPDATE, so no claim runs beside it. What was already stored in `decision`
    stays; `decision.stopped` = {code, evidence, at} tells what came after it.
    """
    if not said:
        return 0
    rows = [asdict(no) | {"rank": _RANK[no.code]} for no in said]
    return connection.execute(_REFUSE, {"said": Jsonb(rows), "now": now, "at": now.isoformat()}).rowcount
