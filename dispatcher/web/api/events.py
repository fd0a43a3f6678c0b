"""`/v1/events`: the feed of events, and the schemas of their data."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from dispatcher.events import feed
from dispatcher.events.catalog import EventFamily, asyncapi, schema_of
from dispatcher.events.feed import CursorGone, FeedPage
from dispatcher.web.api.authorization import needs
from dispatcher.web.api.schemas.events import EventPage
from dispatcher.web.api_keys import Right
from dispatcher.web.dependencies import ServicesDependency
from dispatcher.web.errors import problem_responses

WAIT_SECONDS_MAX = 30
LOOK_EVERY_SECONDS = 0.5

router = APIRouter(prefix="/events", tags=["events"], dependencies=[Depends(needs(Right.EVENTS))])

After = Annotated[int, Query(ge=0, lt=2**63, description="The number of the last event that you have; 0 for the oldest.")]
Limit = Annotated[int, Query(ge=1, le=feed.PAGE_MAX, description="At most so many events.")]
Types = Annotated[
    str, Query(max_length=2_000, description="Only these types, separated by commas: `message.failed,consent`. Default: all.")
]
Wait = Annotated[int, Query(ge=0, le=WAIT_SECONDS_MAX, description="Seconds to wait for an event where there is none yet.")]


@router.get("", response_class=JSONResponse, response_model=EventPage, responses=problem_responses(410))
async def read_events(
    request: Request, services: ServicesDependency, after: After = 0, limit: Limit = 1_000, types: Types = "", wait: Wait = 0
) -> Response:
    """Events after a cursor, oldest first. `next` is the cursor of the next page.

    Without `types`, each page proves that nothing is missing or changed: numbers have no gap, and `hash` is made from
    `previous_hash` and the events, each as SHA-256(hash before + its canonical JSON). 410 where retention deleted the next event.
    """
    chosen = feed.types_chosen([each.strip() for each in types.split(",") if each.strip()])
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    try:
        while True:
            page = await run_in_threadpool(feed.read, services, after, limit, chosen)
            if page.lines or loop.time() >= end or await request.is_disconnected():
                return Response(_body(page), media_type="application/json")
            await asyncio.sleep(LOOK_EVERY_SECONDS)
    except CursorGone as error:
        raise HTTPException(HTTPStatus.GONE, str(error)) from None


def _body(page: FeedPage) -> bytes:
    """The page as JSON. The events are put in as they are stored, so that their bytes are those that the hash is made from."""
    rest = to_json({"next": page.next, "more": page.more, "previous_hash": page.previous_hash, "hash": page.hash})
    return b'{"events":[' + b",".join(page.lines) + b"]," + rest[1:]


@router.get("/asyncapi.json", response_description="The AsyncAPI document")
def show_asyncapi(services: ServicesDependency) -> dict[str, Any]:
    """All events as an AsyncAPI document."""
    return asyncapi(services.public_url)


@router.get("/schemas/{kind}.v1.json", response_description="The JSON schema", responses=problem_responses(404))
def show_event_schema(kind: Annotated[EventFamily, Path(description="The kind of event.")]) -> dict[str, Any]:
    """The JSON schema of the data of one kind of event."""
    return schema_of(kind)
