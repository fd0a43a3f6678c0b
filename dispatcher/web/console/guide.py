"""The guide inside the console, in the reader's language."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from dispatcher.web.console.login import Operator
from dispatcher.web.pages.console import GUIDES, page

router = APIRouter(prefix="/help", default_response_class=HTMLResponse)


@router.get("")
def help_page(operator: Operator) -> str:
    """From a spreadsheet to a campaign, and what to do if something does not work."""
    return page("help.html", operator=operator, guide=GUIDES[operator.viewer.language])
