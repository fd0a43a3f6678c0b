"""Bodies of `/v1/audit`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class AuditRowBody(BaseModel):
    """One row of the audit log."""

    no: int
    at: datetime
    principal_id: str
    principal_name: str
    kind: str
    place: str
    address: str
    action: str
    outcome: str
    object_type: str
    object_id: str
    recipient: str | None
    entity: str | None
    reason: str
    detail: dict[str, Any]


class AuditList(BaseModel):
    """A page, newest first. `next` is the cursor of the next page, null on the last one."""

    rows: list[AuditRowBody]
    next: int | None
