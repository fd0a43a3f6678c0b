"""Erasure by two people: one requests it and says why, another one approves it, and then `erasure.erase` runs.

`[four_eyes] erasure = false` in the policy lets one person do it: for an installation that has only one.
"""

from __future__ import annotations

from enum import StrEnum

from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import is_same_principal
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, erasure_requests, recipients
from dispatcher.ledger.consent.erasure_requests import ErasureRequest
from dispatcher.runtime.services import Services

__all__ = ["ErasureRequest", "ErasureResult", "act_of", "approve", "open_of", "reject", "request", "request_or_approve", "waiting"]

REASON_LENGTH_MAX = 200
REQUESTS_SHOWN = 100


class ErasureResult(StrEnum):
    """What came of one person's call to erase a customer."""

    WAITING = "waiting"  # for a second person
    ERASED = "erased"
    ERASED_BEFORE = "erased_before"


def act_of(services: Services, recipient_id: str, reason: str, by: str) -> AuditNote:
    """What `request_or_approve` is about to do: erase, or only request it."""
    pending = open_of(services, recipient_id)
    erases = not services.policy.four_eyes_erasure or (pending is not None and not is_same_principal(pending.requested_by, by))
    if erases:
        return AuditNote(AuditAction.ERASE, "recipient", recipient_id, recipient=recipient_id)
    return AuditNote(AuditAction.REQUEST, "erasure", recipient_id, recipient=recipient_id, reason=reason)


def request_or_approve(services: Services, recipient_id: str, reason: str, by: str) -> ErasureResult:
    """Erase a person as another one requested, or else request it: the same call by two people erases. In one transaction.

    Raises `UnknownRecipient`, and `BadInput` where no reason is given.
    """
    why, now = checked_reason(reason), services.clock()
    with lend(services.pool) as connection, connection.transaction():
        if recipients.show(connection, recipient_id).get("erased_at"):
            return ErasureResult.ERASED_BEFORE
        pending = erasure_requests.open_of(connection, recipient_id)
        if services.policy.four_eyes_erasure and (pending is None or is_same_principal(pending.requested_by, by)):
            erasure_requests.add(connection, recipient_id, why, by, now)
            return ErasureResult.WAITING
        if pending is not None:
            erasure_requests.decide(connection, pending.no, by, True, now)
        erased = erasure.erase(connection, services.secret, recipient_id, by, now)
    return ErasureResult.ERASED if erased else ErasureResult.ERASED_BEFORE


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
        if services.policy.four_eyes_erasure and is_same_principal(pending.requested_by, by):
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
