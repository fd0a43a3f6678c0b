"""The key of a message in SQL, and the join from a message to its origin. Written once, used by every query.

A message has a key of four columns: period, chunk, row, leg. The first three name its job, the first two its chunk. Its origin
is a campaign, or a trigger where `campaign_no` is NULL: a query that joins only `campaigns` misses the triggers.

These are texts and functions that return SQL. They contain aliases of tables and names of parameters, never a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import asdict

from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.pg_arrays import int_array

_COLUMNS = ("period", "chunk", "row", "leg")

KEY = ", ".join(_COLUMNS)

# For `unnest`, with the parameters of `key_arrays`. More arrays may follow, in the same order in the list of columns.
KEY_ARRAYS = "%(period)s::int[], %(chunk)s::bigint[], %(row)s::int[], %(leg)s::smallint[]"


def key_arrays(refs: Iterable[MessageId]) -> dict[str, str]:
    """The parameters of `KEY_ARRAYS`: a batch of messages, column by column."""
    refs = tuple(refs)
    return {name: int_array(getattr(ref, name) for ref in refs) for name in _COLUMNS}


def key_values(ref: MessageId) -> dict[str, int]:
    """The parameters of `is_message`."""
    return asdict(ref)


def message_id(row: Mapping[str, Any]) -> MessageId:
    """The id of a message from a row that has the key columns."""
    return MessageId(row["period"], row["chunk"], row["row"], row["leg"])


def key_of(alias: str) -> str:
    """The key columns of one table: `m.period, m.chunk, m.row, m.leg`."""
    return _columns(alias, 4)


def is_message(alias: str) -> str:
    """The condition that a row has the key of `key_values`."""
    return f"({key_of(alias)}) = (%(period)s, %(chunk)s, %(row)s, %(leg)s)"


def same_message(left: str, right: str) -> str:
    """The condition that rows of two tables have the key of one message. PostgreSQL reads it as four equalities."""
    return _same(left, right, 4)


def same_job(left: str, right: str) -> str:
    """The condition that rows of two tables belong to one job, whatever the leg."""
    return _same(left, right, 3)


def same_chunk(left: str, right: str) -> str:
    """The condition that rows of two tables belong to one chunk."""
    return _same(left, right, 2)


def _columns(alias: str, count: int) -> str:
    return ", ".join(f"{alias}.{name}" for name in _COLUMNS[:count])


def _same(left: str, right: str, count: int) -> str:
    return f"({_columns(left, count)}) = ({_columns(right, count)})"


# -- the origin of a message --------------------------------------------------------------------------------------------


def join_origin(alias: str) -> str:
    """The join from a message, job or chunk to its campaign `c` or its trigger `t`. The expressions below need it."""
    return f"""
    LEFT JOIN campaigns c ON c.no = {alias}.campaign_no
    LEFT JOIN triggers t ON t.chunk = {alias}.chunk AND {alias}.campaign_no IS NULL
    """


SPEC = "coalesce(c.spec, t.spec)"
FALLBACK_SPEC = f"CASE WHEN {SPEC}->'fallback_after_seconds' <> 'null' THEN {SPEC} END"  # NULL where no other channel follows
ENTITY = f"{SPEC}->>'entity'"
TRACE = f"{SPEC}->>'trace'"
IS_CANCELLED = "coalesce(c.state = 'cancelled', false)"


def in_cancelled_campaign(alias: str) -> str:
    """The condition that a message's campaign is cancelled, without that join: for statements that lock or update messages."""
    return f"EXISTS (SELECT FROM campaigns c WHERE c.no = {alias}.campaign_no AND c.state = 'cancelled')"
