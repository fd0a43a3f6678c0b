"""HTTP: the API, the webhooks, the pages for customers, the console for operations."""

from __future__ import annotations

from fastapi import FastAPI


def app() -> FastAPI:
    """The application that `uvicorn --factory dispatcher.web:app` serves."""
    from dispatcher import bootstrap, tasks  # noqa: PLC0415  uvicorn imports this module before anyone has read the settings
    from dispatcher.web.application import create  # noqa: PLC0415

    return create(bootstrap.house(), tasks)
