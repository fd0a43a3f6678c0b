"""The audit log: note what somebody does or looks at, list it, check its chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import structlog

from dispatcher.domain.audit import AuditNote, AuditOutcome
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.principal import Principal
from dispatcher.identity.sessions import Origin
from dispatcher.ledger.connection import lend
from dispatcher.ledger.identity import audit_log
from dispatcher.ledger.identity.audit_log import AuditFilter, AuditRow
from dispatcher.runtime.services import Services

__all__ = ["AuditFilter", "AuditRow"]

PAGE_ROWS = 500

log = structlog.get_logger()


def note(services: Services, principal: Principal, origin: Origin, act: AuditNote) -> int:
    """Record an act, before it happens: what cannot be recorded does not happen. Returns the number of the row."""
    row = audit_log.row_of(act, principal, (origin.place, origin.address), services.clock())
    with lend(services.pool) as connection:
        return audit_log.append(connection, services.secret, row)


def conclude(services: Services, principal: Principal, origin: Origin, begun: tuple[int, AuditNote], outcome: AuditOutcome) -> None:
    """Record what came of an act, which `note` gave this number. The act cannot be taken back, so a failure is only logged."""
    number, act = begun
    try:
        note(services, principal, origin, replace(act, outcome=outcome, detail={**act.detail, "row": number}))
    except LedgerUnavailable:
        log.warning("the outcome of an act is not in the audit log", row=number, outcome=outcome.value)


def page(services: Services, wanted: AuditFilter, before: int | None, limit: int) -> list[AuditRow]:
    """The rows that match, newest first; read on with the number of the last one as `before`."""
    with lend(services.pool) as connection:
        return audit_log.newest(connection, wanted, before, limit)


def export(services: Services, wanted: AuditFilter) -> Iterator[AuditRow]:
    """All rows that match, newest first."""
    before = None
    while rows := page(services, wanted, before, PAGE_ROWS):
        yield from rows
        before = rows[-1].no


def verify(services: Services) -> list[str]:
    """Every fault of the chain."""
    with lend(services.pool) as connection:
        return list(audit_log.verify(connection, services.secret))
