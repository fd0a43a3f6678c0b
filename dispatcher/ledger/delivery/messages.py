"""Single messages as people look them up, and the replay of dead ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.connection import Connection, fetch_all, fetch_one
from dispatcher.ledger.message_key import (
    SPEC,
    is_message,
    join_origin,
    key_of,
    key_values,
    message_id,
    same_chunk,
    same_job,
)
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """One provider event of a message."""

    provider: str
    kind: str
    code: str | None
    at: datetime
    extra: Mapping[str, str]  # fields that no rule uses


@dataclass(frozen=True, slots=True)
class Message:
    """A message's row. A job that is not decided yet has none: it is shown as pending, with an empty decision."""

    ref: MessageId
    campaign_id: str | None
    spec: Spec
    recipient_id: str
    channel: Channel | None
    state: State
    reason: str | None
    until: datetime | None
    attempts: int
    provider: str | None
    receipt: str | None
    claimed_at: datetime | None
    accepted_at: datetime | None
    updated_at: datetime | None
    decision: Mapping[str, Any]
    reports: tuple[DeliveryReport, ...]


# Retention deletes the job of a message long before the message.
_JOB = "period, chunk, row, campaign_no, recipient_id"


def _select(jobs: str) -> str:
    return f"""
    SELECT j.period, j.chunk, j.row, coalesce(m.leg, 0) AS leg, c.id AS campaign_id, {SPEC} AS spec, j.recipient_id, m.channel,
           coalesce(m.state, 'pending') AS state, m.reason, m.until, coalesce(m.attempts, 0) AS attempts, m.provider, m.receipt,
           m.claimed_at, m.accepted_at, m.updated_at, coalesce(m.decision, '{{}}') AS decision
    FROM ({jobs}) j
    LEFT JOIN messages m ON {same_job("m", "j")}
    {join_origin("j")}
"""


_BY_ID = (
    _select(f"SELECT {_JOB} FROM jobs UNION SELECT {_JOB} FROM messages")
    + "WHERE (j.period, j.chunk, j.row, coalesce(m.leg, 0)) = (%(period)s, %(chunk)s, %(row)s, %(leg)s)"
)
# Each part has an index of its own: most jobs are in `jobs_once`, the few that repeat a person in `jobs_by_recipient`.
_WANTED = "period = %(period)s AND campaign_no = %(no)s AND recipient_id = %(recipient)s"
_OF_CAMPAIGN = (
    _select(
        f"SELECT {_JOB} FROM jobs WHERE {_WANTED} AND repeat_of IS NULL"
        f" UNION SELECT {_JOB} FROM jobs WHERE {_WANTED} AND repeat_of IS NOT NULL"
        f" UNION SELECT {_JOB} FROM messages WHERE {_WANTED}"
    )
    + "ORDER BY j.chunk, j.row, m.leg"
)


def find(connection: Connection, ref: MessageId) -> Message | None:
    """The message of this id; None where there is neither a message nor a job that may become it."""
    rows = fetch_all(connection, _BY_ID, key_values(ref))
    return _message(connection, rows[0]) if rows else None


def of_campaign(connection: Connection, campaign_id: str, recipient_id: str) -> list[Message]:
    """A campaign's messages to one recipient, by leg."""
    campaign = fetch_one(connection, "SELECT no, period FROM campaigns WHERE id = %(id)s", {"id": campaign_id})
    if campaign is None:
        return []
    return [_message(connection, row) for row in fetch_all(connection, _OF_CAMPAIGN, {**campaign, "recipient": recipient_id})]


def _message(connection: Connection, row: Mapping[str, Any]) -> Message:
    ref = message_id(row)
    (decision,) = decision_skeletons.expand_all(connection, [row["decision"]])
    reports = fetch_all(
        connection,
        f"SELECT provider, kind, code, at, coalesce(extra, '{{}}') AS extra FROM provider_events e WHERE {is_message('e')}"
        " ORDER BY at, kind",
        key_values(ref),
    )
    return Message(
        ref=ref,
        campaign_id=row["campaign_id"],
        spec=spec_from_json(row["spec"]),
        recipient_id=row["recipient_id"],
        channel=Channel(row["channel"]) if row["channel"] else None,
        state=State(row["state"]),
        reason=row["reason"],
        until=row["until"],
        attempts=row["attempts"],
        provider=row["provider"],
        receipt=row["receipt"],
        claimed_at=row["claimed_at"],
        accepted_at=row["accepted_at"],
        updated_at=row["updated_at"],
        decision=decision,
        reports=tuple(DeliveryReport(**report) for report in reports),
    )


def decided_triggers(connection: Connection, keys: Sequence[str]) -> dict[str, MessageId]:
    """Those of these triggers that are decided and handed off, or never will be, by their keys."""
    rows = fetch_all(
        connection,
        f"""
        SELECT t.key, {key_of("m")} FROM triggers t JOIN messages m ON {same_chunk("m", "t")}
        WHERE t.key = ANY(%(keys)s) AND m.state NOT IN ('pending', 'claimed')
        """,
        {"keys": list(keys)},
    )
    return {row["key"]: message_id(row) for row in rows}
