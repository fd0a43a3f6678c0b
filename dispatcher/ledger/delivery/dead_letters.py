"""Dead letters: messages whose attempts are spent, their list, and their replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection, fetch_all
from dispatcher.ledger.entity_scope import entity_parameter, has_entity
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import (
    ENTITY,
    IS_CANCELLED,
    KEY,
    KEY_ARRAYS,
    SPEC,
    join_origin,
    key_arrays,
    key_of,
    message_id,
    same_job,
    same_message,
)


def add(connection: Connection, refs: Sequence[MessageId], now: datetime) -> None:
    """Add those of these messages that are dead, in the transaction that marks them so."""
    connection.execute(
        f"""
        INSERT INTO dead_letters ({KEY}, since)
        SELECT {key_of("m")}, %(now)s FROM unnest({KEY_ARRAYS}) AS r ({KEY}) JOIN messages m ON {same_message("m", "r")}
        WHERE m.state = 'dead' ON CONFLICT ({KEY}) DO UPDATE SET since = excluded.since
        """,
        {"now": now, **key_arrays(refs)},
    )


def newest(
    connection: Connection, campaign_id: str | None, limit: int, entities: Entities = None
) -> list[tuple[MessageId, str | None, str | None, datetime]]:
    """Dead messages of these entities: (message id, campaign id, reason, since), newest first."""
    rows = fetch_all(
        connection,
        f"""
        SELECT {key_of("m")}, c.id AS campaign_id, m.reason, d.since
        FROM dead_letters d JOIN messages m ON {same_message("m", "d")} {join_origin("m")}
        WHERE m.state = 'dead' AND (%(id)s::text IS NULL OR c.id = %(id)s) AND {has_entity(ENTITY)}
        ORDER BY d.since DESC LIMIT %(limit)s
        """,
        {"id": campaign_id, "limit": limit, **entity_parameter(entities)},
    )
    return [(message_id(row), row["campaign_id"], row["reason"], row["since"]) for row in rows]


# -- replay ------------------------------------------------------------------------------------------------------------


class ReplayRefusal(StrEnum):
    """Why a message is not replayed."""

    NOT_FOUND = "not_found"
    NOT_DEAD = "not_dead"
    CANCELLED = "cancelled"  # its campaign
    NEXT_LEG_STARTED = "next_leg_started"  # with route "first" the person would get the message twice


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How many messages were given new attempts, and why the others were not."""

    replayed: int
    refused: Mapping[MessageId, ReplayRefusal]


_LOCK = f"""
    SELECT FROM messages m JOIN unnest({KEY_ARRAYS}) AS r ({KEY}) ON {same_message("m", "r")}
    ORDER BY {key_of("m")} FOR UPDATE OF m
"""
_REPLAY = f"""
    WITH requested AS MATERIALIZED (
        SELECT {key_of("r")},
               CASE WHEN m.state IS NULL OR NOT {has_entity(ENTITY)} THEN 'not_found'
                    WHEN m.state <> 'dead' THEN 'not_dead'
                    WHEN {IS_CANCELLED} THEN 'cancelled'
                    WHEN {SPEC}->>'route' = 'first' AND EXISTS (
                        SELECT FROM messages o WHERE {same_job("o", "m")} AND o.leg > m.leg) THEN 'next_leg_started' END AS refusal
        FROM (SELECT DISTINCT * FROM unnest({KEY_ARRAYS}) AS k ({KEY})) r
        LEFT JOIN messages m ON {same_message("m", "r")}
        {join_origin("m")}
    ), replayed AS (
        UPDATE messages m SET state = 'waiting', until = %(now)s, attempts = 0, updated_at = %(now)s
        FROM requested a WHERE {same_message("m", "a")} AND a.refusal IS NULL
        RETURNING {outbox.changed("m")}
    ), to_outbox AS ({outbox.enter("replayed")}
    ), removed AS (
        DELETE FROM dead_letters d USING replayed r WHERE {same_message("d", "r")}
    ), reopened AS (
        UPDATE campaigns SET state = 'running', finished_at = NULL
        WHERE no IN (SELECT campaign_no FROM replayed) AND state = 'finished'
    )
    SELECT * FROM requested
"""


def replay(connection: Connection, refs: Sequence[MessageId], now: datetime, entities: Entities = None) -> ReplayResult:
    """Give dead messages of these entities new attempts, through every check again.

    The messages are locked first, in a statement of its own: the next then sees a leg that was added while this one waited.
    """
    parameters = {"now": now, **key_arrays(refs), **entity_parameter(entities)}
    with connection.transaction():
        connection.execute(_LOCK, parameters)
        rows = fetch_all(connection, _REPLAY, parameters)
    refused = {message_id(row): ReplayRefusal(row["refusal"]) for row in rows if row["refusal"]}
    return ReplayResult(len(rows) - len(refused), refused)
