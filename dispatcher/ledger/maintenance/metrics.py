"""Counts for monitoring: each from a small index, none about a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.refused_job import RefusalReason
from dispatcher.ledger import partitions
from dispatcher.ledger.campaigns import refused_jobs
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.events import endpoint_cursors, outbox, sink_cursors
from dispatcher.ledger.events.endpoint_cursors import EndpointCounts
from dispatcher.ledger.events.sink_cursors import EventSinkCounts
from dispatcher.ledger.maintenance.alerts import Alert, newest
from dispatcher.ledger.maintenance.progress import idle_campaigns


@dataclass(frozen=True, slots=True)
class ChannelStop:
    """A channel that sends nothing until a check passes."""

    channel: Channel
    provider: str
    code: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Metrics:
    """The state of the system. `oldest_unsettled_at`: when the oldest event that is not applied yet came in.
    `campaign_idle_since`: of the running campaign that has waited longest, see `progress`. `partitions_until`: the last month that
    has partitions, as 202611.
    """

    campaigns: dict[CampaignState, int]
    chunks_open: int
    messages_parked: int
    messages_overdue: int
    events_unsettled: int
    oldest_unsettled_at: datetime | None
    outbox_rows: int
    outbox_oldest_at: datetime | None
    endpoints: tuple[EndpointCounts, ...]
    sinks: tuple[EventSinkCounts, ...]
    texts_waiting: int
    stops: tuple[ChannelStop, ...]
    unresolved: int
    jobs_refused: dict[RefusalReason, int]
    alerts: tuple[Alert, ...]
    counted_at: datetime
    campaign_idle_since: datetime | None = None
    partitions_until: int | None = None


def ping(connection: Connection) -> None:
    """Check that the database answers."""
    connection.execute("SELECT 1")


def metrics(connection: Connection, now: datetime) -> Metrics:
    """Count what the fields of `Metrics` say."""
    states = dict.fromkeys(CampaignState, 0)
    for state, count in connection.execute("SELECT state, count(*) FROM campaigns GROUP BY 1"):
        states[CampaignState(state)] = count
    (chunks_open,) = _one(connection, "SELECT count(*) FROM chunks WHERE done_at IS NULL")
    parked, overdue = _one(
        connection, "SELECT count(*), count(*) FILTER (WHERE until < %s) FROM messages WHERE until IS NOT NULL", now
    )
    unsettled, oldest = _one(connection, "SELECT count(*), min(received_at) FROM provider_events WHERE settled_at IS NULL")
    (texts,) = _one(
        connection, "SELECT count(*) FROM inbound_texts WHERE (words IS NOT NULL OR may_be_opt_out) AND closed_at IS NULL"
    )
    (unresolved,) = _one(connection, "SELECT count(*) FROM doubts")
    outbox_rows, outbox_oldest_at = outbox.backlog(connection)
    return Metrics(
        campaigns=states,
        chunks_open=chunks_open,
        messages_parked=parked,
        messages_overdue=overdue,
        events_unsettled=unsettled,
        oldest_unsettled_at=oldest,
        outbox_rows=outbox_rows,
        outbox_oldest_at=outbox_oldest_at,
        endpoints=endpoint_cursors.counts(connection),
        sinks=sink_cursors.counts(connection),
        texts_waiting=texts,
        stops=stops(connection),
        unresolved=unresolved,
        jobs_refused=refused_jobs.count_open(connection),
        alerts=newest(connection),
        counted_at=now,
        campaign_idle_since=next((campaign.since for campaign in idle_campaigns(connection, now)), None),
        partitions_until=max(partitions.periods(connection), default=None),
    )


def stops(connection: Connection) -> tuple[ChannelStop, ...]:
    """The stopped channels, each with the code that stopped it."""
    rows = connection.execute("SELECT channel, provider, code, stopped_at FROM channel_stops ORDER BY stopped_at")
    return tuple(ChannelStop(Channel(channel), provider, code, since) for channel, provider, code, since in rows)


def _one(connection: Connection, statement: str, *values: object) -> tuple[Any, ...]:
    row = connection.execute(statement, values).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    return row
