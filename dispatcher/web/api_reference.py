"""`/docs`: the API reference as a page that loads nothing from other sites.

Where `/openapi.json` needs a key (`DISPATCHER_OPENAPI_ACCESS`), the page asks for it: the page itself says nothing of the API.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

# That of all pages, with scripts of this site, which read the document from this site; see `middleware.HEADERS`.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
OURS, SWAGGER_UI = "dispatcher.web.pages.api_reference", "fastapi_swagger.resources"
FILES = {
    "swagger-ui-bundle.js": (SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (SWAGGER_UI, "text/css"),
    "reference.js": (OURS, "text/javascript"),
    "reference.css": (OURS, "text/css"),
}
CACHE = {"Cache-Control": "public, max-age=3600"}  # the bundle has 1.7 MB

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def show_reference(request: Request) -> HTMLResponse:
    """The page."""
    needs_key = "/openapi.json" in request.app.state.keyed
    html = _file(OURS, "page.html").read_text(encoding="utf-8")
    marked = html.replace('<html lang="en">', f'<html lang="en" data-needs-key="{str(needs_key).lower()}">')
    return HTMLResponse(marked, headers={"Content-Security-Policy": POLICY})


@router.get("/docs/{name}")
def send_file(name: str) -> Response:
    """A script or a style sheet of the page."""
    if name not in FILES:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    package, kind = FILES[name]
    return Response(_file(package, name).read_bytes(), media_type=kind, headers=CACHE)


def _file(package: str, name: str) -> Traversable:
    return files(package) / name
