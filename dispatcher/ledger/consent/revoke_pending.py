"""What an opt-out does to messages that are not sent yet: those in its scope become `refused`, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from dispatcher.domain.decision import ReasonCode
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import SPEC, join_origin, key_of, same_message

_RANK = {code: rank for rank, code in enumerate(ReasonCode)}


@dataclass(frozen=True, slots=True)
class OptOut:
    """One person's opt-out and its scope: channels (None: all), offer type (None: all), service messages too or not.

    `no_channel_left`: the person has no channel left, so messages without a channel are in its scope too.
    """

    recipient_id: str
    code: ReasonCode
    evidence: str
    channels: tuple[str, ...] | None = None
    no_channel_left: bool = False
    offer_type: str | None = None
    service_too: bool = False


_REFUSE = f"""
WITH opt_out AS (
    SELECT * FROM jsonb_to_recordset(%(opt_outs)s) AS opt_out (
        recipient_id text, code text, rank integer, evidence text, channels text[], no_channel_left boolean,
        offer_type text, service_too boolean)
), revoked AS (
    SELECT DISTINCT ON ({key_of("m")}) {key_of("m")}, o.code, o.evidence
    FROM opt_out o
    JOIN messages m ON m.recipient_id = o.recipient_id AND m.state IN ('pending', 'held', 'waiting')
    {join_origin("m")}
    WHERE (o.channels IS NULL OR m.channel = ANY (o.channels) OR m.channel IS NULL AND o.no_channel_left)
      AND (o.service_too OR {SPEC} ->> 'kind' IS DISTINCT FROM 'service')
      AND (o.offer_type IS NULL OR o.offer_type = {SPEC} ->> 'offer_type')
    ORDER BY {key_of("m")}, o.rank
), refused AS (
    UPDATE messages m
    SET state = 'refused', reason = revoked.code, until = NULL, updated_at = %(now)s,
        decision = m.decision || jsonb_build_object(
            'stopped', jsonb_build_object('code', revoked.code, 'evidence', revoked.evidence, 'at', %(at)s::text))
    FROM revoked
    WHERE {same_message("m", "revoked")} AND m.state IN ('pending', 'held', 'waiting')
    RETURNING {outbox.changed("m")}
), to_outbox AS ({outbox.enter("refused")}
)
SELECT count(*) FROM refused
"""


def revoke_pending(connection: Connection, opt_outs: Sequence[OptOut], now: datetime) -> int:
    """Refuse the unsent messages in the scope of these opt-outs; a person's strongest one gives the reason. Returns their number.

    The caller holds the recipients' rows FOR UPDATE, so no claim runs at the same time. What is stored in `decision` stays;
    `decision.stopped` = {code, evidence, at} is added to it.
    """
    if not opt_outs:
        return 0
    names = OptOut.__slots__
    rows = [{**{name: getattr(each, name) for name in names}, "rank": _RANK[each.code]} for each in opt_outs]
    refused = connection.execute(_REFUSE, {"opt_outs": Jsonb(rows), "now": now, "at": now.isoformat()}).fetchone()
    return int(refused[0]) if refused else 0
