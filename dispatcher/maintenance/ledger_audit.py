"""Check the ledger: balances, lost claims, the chain of consent events."""

from __future__ import annotations

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import audit
from dispatcher.runtime.services import Services


def verify(services: Services) -> list[str]:
    """Everything that is wrong, in sentences with ids; empty where nothing is."""
    with lend(services.pool) as connection:
        return audit.verify(connection, services.secret, services.clock(), services.limits.lease_seconds)
