"""`/v1/audit`."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from dispatcher.domain.audit import AuditAction
from dispatcher.domain.principal import Right
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter
from dispatcher.web.api.authorization import CallerEntities, needs
from dispatcher.web.api.schemas.audit import AuditList
from dispatcher.web.dependencies import ServicesDependency

router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[Depends(needs(Right.AUDIT))])

ID = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$"


class AuditFilterParameters:
    """The query parameters of the audit log."""

    def __init__(
        self,
        principal: Annotated[str | None, Query(pattern=ID, description="Who, such as `user:jana` or `api:crm`.")] = None,
        action: Annotated[AuditAction | None, Query(description="What was done.")] = None,
        object_id: Annotated[str | None, Query(pattern=ID, description="On what: its id.")] = None,
        recipient: Annotated[str | None, Query(pattern=ID, description="On whom: the id of a recipient.")] = None,
        since: Annotated[AwareDatetime | None, Query(description="At this time or later.")] = None,
        until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
    ) -> None:
        self.filter = AuditFilter(principal, action, None, object_id, recipient, since, until)


@router.get("", response_model=AuditList)
def list_audit(
    services: ServicesDependency,
    entities: CallerEntities,
    parameters: Annotated[AuditFilterParameters, Depends()],
    cursor: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="At most so many rows.")] = 100,
) -> dict[str, Any]:
    """The audit log, newest first: who did or looked at what, when, from where, on whom. This call is recorded in it, too."""
    rows = audit.page(services, replace(parameters.filter, entities=entities), cursor, limit)
    return {"rows": [asdict(row) for row in rows], "next": rows[-1].no if len(rows) == limit else None}
