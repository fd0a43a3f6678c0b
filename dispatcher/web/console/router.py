"""The router of `/console`."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from dispatcher.web.console import campaigns, inbound_messages, login, messages, overview, search, templates, unresolved

router = APIRouter(prefix="/console", include_in_schema=False, default_response_class=HTMLResponse)
for pages in (login, overview, search, campaigns, messages, inbound_messages, unresolved, templates):
    router.include_router(pages.router)
