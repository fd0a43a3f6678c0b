"""HTTP: the API, the webhooks, the pages for customers, the console for operations."""

from __future__ import annotations

from fastapi import FastAPI


def app() -> FastAPI:
    """The application that `uvicorn --factory dispatcher.web:app` serves."""
    from dispatcher import bootstrap, tasks
    from dispatcher.web.application import create

    return create(bootstrap.house(), tasks)
