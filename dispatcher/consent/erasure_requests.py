"""Erasure by two people: one requests it and says why, another one approves it, and then `erasure.erase` runs."""

from __future__ import annotations

from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import is_same_principal
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, erasure_requests
from dispatcher.ledger.consent.erasure_requests import ErasureRequest
from dispatcher.runtime.services import Services

__all__ = ["ErasureRequest", "approve", "open_of", "reject", "request", "waiting"]

REASON_LENGTH_MAX = 200
REQUESTS_SHOWN = 100


def request(services: Services, recipient_id: str, reason: str, by: str) -> bool:
    """Ask for an erasure; False where it was asked for before. Raises `BadInput` where no reason is given."""
    with lend(services.pool) as connection:
        return erasure_requests.add(connection, recipient_id, checked_reason(reason), by, services.clock())


def checked_reason(text: str) -> str:
    """The reason that a person gives. Raises `BadInput` for none, and for one that is too long."""
    reason = " ".join(text.replace("\0", "").split())
    if not 0 < len(reason) <= REASON_LENGTH_MAX:
        raise BadInput(InputError("form", 0, "reason", f"should say why, in at most {REASON_LENGTH_MAX} characters"))
    return reason


def open_of(services: Services, recipient_id: str) -> ErasureRequest | None:
    """The request for this person that waits for a second person."""
    with lend(services.pool) as connection:
        return erasure_requests.open_of(connection, recipient_id)


def waiting(services: Services) -> list[ErasureRequest]:
    """The requests that wait for a second person, oldest first."""
    with lend(services.pool) as connection:
        return erasure_requests.waiting(connection, REQUESTS_SHOWN)


def approve(services: Services, recipient_id: str, by: str) -> bool:
    """Erase the person as requested, in one transaction; False where no request is open.

    Raises `NotAllowed` for whoever requested it.
    """
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        pending = erasure_requests.open_of(connection, recipient_id)
        if pending is None:
            return False
        if is_same_principal(pending.requested_by, by):
            raise NotAllowed("you requested this erasure; another person has to approve it")
        erasure_requests.decide(connection, pending.no, by, True, now)
        erasure.erase(connection, services.secret, recipient_id, by, now)
    return True


def reject(services: Services, recipient_id: str, by: str) -> bool:
    """Close a request without erasing; who requested it may do that too. False where none is open."""
    with lend(services.pool) as connection, connection.transaction():
        pending = erasure_requests.open_of(connection, recipient_id)
        if pending is None:
            return False
        erasure_requests.decide(connection, pending.no, by, False, services.clock())
    return True
