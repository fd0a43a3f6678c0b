"""Erasure of a recipient (GDPR art. 17). What is deleted: `ledger/consent/erasure.py`."""

from __future__ import annotations

from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure
from dispatcher.runtime.services import Services


def erase(services: Services, recipient_id: str, actor: str) -> bool:
    """Delete a person's addresses, profile and content; False where that was done before. Raises `UnknownRecipient`."""
    with lend(services.pool) as connection:
        return erasure.erase(connection, services.secret, recipient_id, actor, services.clock())
