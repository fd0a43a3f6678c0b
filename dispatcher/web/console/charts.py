"""The files of charts: our script, and the library that draws (`pages/vendor`)."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dispatcher.web.pages.console import CHARTS
from dispatcher.web.pages.vendor import read

router = APIRouter()

CACHE = {"Cache-Control": "private, max-age=3600"}  # they hold no data, and the library has 50 kB


@router.get("/charts.js")
def charts_script() -> Response:
    """The script that draws the charts of a page from their tables."""
    return Response(CHARTS, media_type="text/javascript")


@router.get("/uplot.js")
def uplot_script() -> Response:
    """The library."""
    return Response(read("uplot.js"), media_type="text/javascript", headers=CACHE)


@router.get("/uplot.css")
def uplot_style() -> Response:
    """The library's style sheet."""
    return Response(read("uplot.css"), media_type="text/css", headers=CACHE)
