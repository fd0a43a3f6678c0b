"""Checks of the ledger: balances, lost claims, the consent chain, decision skeletons."""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.balance import balance
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import hash_chain
from dispatcher.ledger.identity import audit_log
from dispatcher.ledger.message_key import KEY


def verify(connection: Connection, secret: KeyRing, now: datetime, lease_seconds: float) -> list[str]:
    """Every fault found, as sentences with ids; empty where there is none."""
    return [
        *_balances(connection),
        *_lost_claims(connection, now - timedelta(seconds=2 * lease_seconds)),
        *(_chain_fault(broken) for broken in hash_chain.verify(connection, secret)),
        *audit_log.verify(connection, secret),
        *decision_skeletons.verify(connection),
    ]


def _balances(connection: Connection) -> list[str]:
    """Of each campaign, the rows of its audience, the sizes of its chunks and its balance must add up to the same number."""
    faults = []
    for campaign in lifecycle.newest(connection, 1_000_000):
        states = balance(connection, campaign).states
        counted = sum(states.values())
        if counted != campaign.audience or states[State.PENDING] < 0:
            faults.append(f"campaign {campaign.id}: the balance counts {counted} of {campaign.audience} recipients")
        if campaign.state == "finished" and states[State.PENDING]:
            faults.append(f"campaign {campaign.id} is finished with {states[State.PENDING]} recipients pending")
    return faults


def _lost_claims(connection: Connection, before: datetime) -> list[str]:
    rows = connection.execute(f"SELECT {KEY} FROM messages WHERE state = 'claimed' AND claimed_at < %s LIMIT 1000", (before,))
    return [f"message {MessageId(*key)} is claimed, and its worker never came back" for key in rows]


def _chain_fault(broken: hash_chain.ChainBreak) -> str:
    place = f", event {broken.seq}" if broken.seq else ""
    return f"consent chain of {broken.recipient_id}{place}: {broken.fault}"
