"""Lists of messages, page by page, newest first. A page looks at a bounded number of rows, so no filter makes a long query.

The order is that of the message ids, which does not change: a message that is written while somebody reads the pages does not move
another one to a page that was read before. A job that is not decided yet is listed as pending.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from channels.base import Channel
from dispatcher.domain.canaries import PREFIX
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection, fetch_all, fetch_one
from dispatcher.ledger.entity_scope import entity_parameter, has_entity
from dispatcher.ledger.message_key import ENTITY, KEY, SPEC, join_origin, key_of, key_values, message_id, same_chunk, same_job

SCAN_ROWS_MAX = 20_000  # of messages, and of jobs, for one page


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """What a list is limited to; None: any. The times are those of the last change, which a job that is not decided has not."""

    recipient: str | None = None
    campaign: str | None = None
    state: State | None = None
    channel: Channel | None = None
    since: datetime | None = None
    until: datetime | None = None  # excluded
    entities: Entities = None  # those that the caller may see


@dataclass(frozen=True, slots=True)
class ListedMessage:
    """A message in a list."""

    ref: MessageId
    campaign_id: str | None
    recipient_id: str
    channel: Channel | None
    state: State
    reason: str | None
    attempts: int
    updated_at: datetime | None
    entity: str
    template: str


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page, perhaps with fewer messages than asked for. The next one begins after `next`; None: there is none."""

    messages: tuple[ListedMessage, ...]
    next: MessageId | None


# What the scan reads; the filters by state, channel and time come after it. The bounds keep it from the rows of other campaigns of
# the month: numbers of a campaign's chunks are close together.
_CHUNKS = "FROM chunks WHERE period = %(of_period)s AND campaign_no = %(no)s"
_OF_CAMPAIGN = f"""
    {{a}}.period = %(of_period)s AND {{a}}.campaign_no = %(no)s
    AND {{a}}.chunk BETWEEN (SELECT min(chunk) {_CHUNKS}) AND (SELECT max(chunk) {_CHUNKS})
"""
_AFTER = "AND ({key}) < (%(period)s, %(chunk)s, %(row)s, %(leg)s)"
_MESSAGES = """
    SELECT {key}, campaign_no, recipient_id, channel, state, reason, attempts, updated_at FROM messages m
    WHERE {condition} {after} ORDER BY period DESC, chunk DESC, row DESC, leg DESC LIMIT %(scan)s
"""
_JOBS = f"""
    SELECT j.period, j.chunk, j.row, 0 AS leg, j.campaign_no, j.recipient_id, NULL AS channel, 'pending' AS state, NULL AS reason,
           0 AS attempts, NULL::timestamptz AS updated_at
    FROM chunks k JOIN jobs j ON {same_chunk("j", "k")}
    WHERE k.done_at IS NULL AND {{condition}} {{after}} AND NOT EXISTS (SELECT FROM messages m WHERE {same_job("m", "j")})
    ORDER BY j.period DESC, j.chunk DESC, j.row DESC LIMIT %(scan)s
"""
_IS_WANTED = """
    (%(state)s::text IS NULL OR state = %(state)s) AND (%(channel)s::text IS NULL OR channel = %(channel)s)
    AND (%(since)s::timestamptz IS NULL OR updated_at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR updated_at < %(until)s)
"""
_ENTITY = """coalesce(
    (SELECT spec FROM campaigns WHERE no = scanned.campaign_no),
    (SELECT spec FROM triggers t WHERE t.chunk = scanned.chunk AND scanned.campaign_no IS NULL))->>'entity'"""


def page(
    connection: Connection, wanted: MessageFilter, after: MessageId | None, limit: int, scan_rows: int = SCAN_ROWS_MAX
) -> MessagePage:
    """The messages that match, newest first, after one of the page before."""
    parameters: dict[str, Any] = {
        **asdict(wanted),
        **entity_parameter(wanted.entities),
        "scan": scan_rows,
        "canary_prefix": PREFIX,
        **(key_values(after) if after else {}),
    }
    if wanted.campaign is not None:
        row = fetch_one(connection, "SELECT no, period AS of_period FROM campaigns WHERE id = %(campaign)s", parameters)
        if row is None:
            return MessagePage((), None)
        parameters |= row
    found, ends = [], []
    for scan in _scans(wanted, after):
        rows, end = _scanned(connection, scan, parameters, limit)
        found += rows
        ends += [end] if end is not None else []
    end = max(ends, default=None)  # of the scans that stopped early, the one that stopped first
    found = sorted((each for each in found if end is None or each.ref >= end), key=lambda each: each.ref, reverse=True)
    if len(found) > limit:
        return MessagePage(tuple(found[:limit]), found[limit - 1].ref)
    return MessagePage(tuple(found), end)


def _scans(wanted: MessageFilter, after: MessageId | None) -> list[str]:
    by_campaign = wanted.campaign is not None

    def condition(alias: str) -> str:
        parts = [_OF_CAMPAIGN.format(a=alias)] if by_campaign else []
        no_canary = f"NOT starts_with({alias}.recipient_id, %(canary_prefix)s)"  # who looks for one names it
        parts += [f"{alias}.recipient_id = %(recipient)s" if wanted.recipient is not None else no_canary]
        return " AND ".join(parts)

    def behind(key: str) -> str:
        return _AFTER.format(key=key) if after is not None else ""

    scans = [_MESSAGES.format(key=KEY, condition=condition("m"), after=behind(key_of("m")))]
    is_undecided_wanted = wanted.state in (None, State.PENDING) and wanted.channel is None
    if is_undecided_wanted and wanted.since is None and wanted.until is None:
        scans.append(_JOBS.format(condition=condition("j"), after=behind("j.period, j.chunk, j.row, 0")))
    return scans


def _scanned(
    connection: Connection, scan: str, parameters: Mapping[str, Any], limit: int
) -> tuple[list[ListedMessage], MessageId | None]:
    """The wanted rows of a scan, one more than fit on a page, and where the scan stopped if it did before its end."""
    statement = f"""
        WITH scanned AS MATERIALIZED ({scan}), last AS (
            SELECT * FROM scanned ORDER BY {KEY} LIMIT 1
        )
        SELECT s.*, c.id AS campaign_id, {ENTITY} AS entity, {SPEC}->>'template' AS template, false AS is_end FROM (
            SELECT * FROM scanned WHERE {_IS_WANTED} AND {has_entity(_ENTITY)}
            ORDER BY period DESC, chunk DESC, row DESC, leg DESC LIMIT %(fetch)s
        ) s {join_origin("s")}
        UNION ALL
        SELECT last.*, NULL, NULL, NULL, true FROM last WHERE (SELECT count(*) FROM scanned) = %(scan)s
    """
    rows = fetch_all(connection, statement, {**parameters, "fetch": limit + 1})
    end = next((message_id(row) for row in rows if row["is_end"]), None)
    return [_listed(row) for row in rows if not row["is_end"]], end


def _listed(row: Mapping[str, Any]) -> ListedMessage:
    return ListedMessage(
        message_id(row),
        row["campaign_id"],
        row["recipient_id"],
        Channel(row["channel"]) if row["channel"] else None,
        State(row["state"]),
        row["reason"],
        row["attempts"],
        row["updated_at"],
        row["entity"] or "",
        row["template"] or "",
    )
