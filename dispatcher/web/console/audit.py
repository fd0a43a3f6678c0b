"""The console's page of the audit log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from dispatcher.domain.audit import AuditAction
from dispatcher.domain.principal import Entities, Right
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.web.console.login import operator_with
from dispatcher.web.console.session import ConsoleSession
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.pages.console import page

router = APIRouter(prefix="/audit", default_response_class=HTMLResponse)

ROWS_SHOWN = 100
Auditor = Annotated[ConsoleSession, Depends(operator_with(Right.AUDIT))]


@dataclass(frozen=True, slots=True)
class AuditFields:
    """The fields of the filter form as they were typed. An empty one excludes nothing; days are those of the reader."""

    who: str = ""
    action: str = ""
    recipient: str = ""
    object_id: str = ""
    since: str = ""
    until: str = ""

    def wanted(self, entities: Entities, zone: str) -> AuditFilter:
        """The filter, within the entities that the person may see. Raises BadInput."""
        try:
            first, last = (
                datetime.fromisoformat(each).replace(tzinfo=ZoneInfo(zone)) if each else None for each in (self.since, self.until)
            )
        except ValueError:
            raise BadInput(InputError("form", 0, "since", "should be a day, such as 2026-11-23")) from None
        after = last + timedelta(days=1) if last else None
        who, action, object_id, recipient = (
            text.strip() or None for text in (self.who, self.action, self.object_id, self.recipient)
        )
        return AuditFilter(who, action, None, object_id, recipient, first, after, entities)


def _fields(
    who: str = "", action: str = "", recipient: str = "", object_id: str = "", since: str = "", until: str = ""
) -> AuditFields:
    texts = (who, action, recipient, object_id, since, until)
    return AuditFields(*(text.replace("\0", "") for text in texts))


@router.get("")
def audit_page(
    operator: Auditor, services: ServicesDependency, fields: Annotated[AuditFields, Depends(_fields)], cursor: int | None = None
) -> str:
    """Who did or looked at what, newest first."""
    rows = audit.page(services, fields.wanted(operator.principal.entities, operator.viewer.zone), cursor, ROWS_SHOWN)
    older = urlencode({**{name: text for name, text in asdict(fields).items() if text}, "cursor": rows[-1].no}) if rows else ""
    return page(
        "audit.html",
        operator=operator,
        rows=rows,
        fields=asdict(fields),
        actions=list(AuditAction),
        older=older if len(rows) == ROWS_SHOWN else "",
    )
