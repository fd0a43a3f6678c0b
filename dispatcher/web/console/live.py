"""Pages that keep themselves up to date by a small script."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from dispatcher.web.pages.console import SCRIPT

AUTOMATIC = "X-Automatic"  # a header of the script's own requests: they are no use of the session
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

router = APIRouter()


def _allow_script(response: Response) -> None:
    response.headers["Content-Security-Policy"] = POLICY


LIVE = Depends(_allow_script)  # a dependency of the pages that have the script


@router.get("/live.js")
def live_script() -> Response:
    """The script."""
    return Response(SCRIPT, media_type="text/javascript")
