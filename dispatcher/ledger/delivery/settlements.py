"""SQL of settling, one statement for a batch. Caps and unresolved messages need more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.delivery import cap_reservations, dead_letters, unresolved
from dispatcher.ledger.events import outbox
from dispatcher.ledger.message_key import (
    KEY,
    KEY_ARRAYS,
    in_cancelled_campaign,
    key_arrays,
    same_message,
)
from dispatcher.ledger.pg_arrays import text_array


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of one hand-off, to be written."""

    ref: MessageId
    state: State
    reason: str | None
    until: datetime | None
    receipt: str | None
    provider: str
    attempt_spent: bool


NOT_SENT_AFTER_ATTEMPT = frozenset({State.FAILED, State.WAITING, State.DEAD})


def settle(connection: Connection, number: int, settlements: Sequence[Settlement], now: datetime) -> None:
    """Write the outcomes of the messages that claim `number` still holds; a repetition, or a settle after another claim, changes
    nothing. A state that an event already moved forward stays; only the receipt is added.

    If the campaign was cancelled, a message that would wait becomes `cancelled`, and no fallback leg follows.

    A message that was certainly not sent no longer counts towards the recipient's caps. An unresolved message is added to the
    look-up list, a dead one to the dead letters.
    """
    not_sent = [item.ref for item in settlements if item.state in NOT_SENT_AFTER_ATTEMPT]
    unknown = [item.ref for item in settlements if item.state is State.UNRESOLVED]
    dead = [item.ref for item in settlements if item.state is State.DEAD]
    with connection.transaction() if not_sent or unknown else nullcontext():
        _write(connection, number, settlements, now)
        if not_sent:
            cap_reservations.release(connection, not_sent)
        if dead:
            dead_letters.add(connection, dead, now)
        if unknown:
            unresolved.add(connection, unknown, now)


def _write(connection: Connection, number: int, settlements: Sequence[Settlement], now: datetime) -> None:
    connection.execute(
        f"""
        WITH settled AS (
            DELETE FROM claim_starts WHERE claim_no = %(number)s
        ), written AS (
            UPDATE messages m
            SET claim_no = NULL,
                state = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.state
                             WHEN s.state = 'waiting' AND {in_cancelled_campaign("m")} THEN 'cancelled' ELSE s.state END,
                reason = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.reason
                              WHEN s.state = 'waiting' AND {in_cancelled_campaign("m")} THEN 'cancelled' ELSE s.reason END,
                until = CASE WHEN m.state NOT IN ('claimed', 'unresolved') THEN m.until
                             WHEN s.until IS NOT NULL AND {in_cancelled_campaign("m")} THEN NULL ELSE s.until END,
                attempts = m.attempts + s.spent::int, receipt = coalesce(s.receipt, m.receipt), provider = s.provider,
                accepted_at = CASE WHEN s.receipt IS NOT NULL THEN %(now)s ELSE m.accepted_at END, updated_at = %(now)s
            FROM unnest({KEY_ARRAYS}, %(state)s::text[], %(reason)s::text[], %(until)s::timestamptz[], %(receipt)s::text[],
                        %(provider)s::text[], %(spent)s::bool[])
                 AS s ({KEY}, state, reason, until, receipt, provider, spent)
            WHERE {same_message("m", "s")} AND m.claim_no = %(number)s
            RETURNING {outbox.changed("m")}, m.state = s.state OR m.state = 'cancelled' AS is_new
        )
        {outbox.enter("written", "is_new")}
        """,
        {
            "now": now,
            "number": number,
            **key_arrays(item.ref for item in settlements),
            "state": text_array(item.state for item in settlements),
            "reason": text_array(item.reason for item in settlements),
            "until": [item.until for item in settlements],
            "receipt": text_array(item.receipt for item in settlements),
            "provider": text_array(item.provider for item in settlements),
            "spent": [item.attempt_spent for item in settlements],
        },
    )
