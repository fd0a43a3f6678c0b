"""Dependencies of all routers: the services, the broker, the body of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Protocol

import structlog
from fastapi import Depends, Request

from dispatcher.campaigns.scheduler import DueChunk
from dispatcher.intake.json_limits import CAMPAIGN_VALUES_MAX
from dispatcher.runtime.services import Services
from dispatcher.web.api.strict_json import read_object

log = structlog.get_logger()


class TaskPublisher(Protocol):
    """Puts work on the broker; the module `dispatcher.tasks` is one."""

    def publish(self, dues: Iterable[DueChunk]) -> None:
        """Put chunks on their lanes."""
        ...

    def publish_load(self, number: int) -> None:
        """Put a task on the broker that goes on with the audience of this campaign number."""
        ...

    def publish_events(self) -> None:
        """Put a task on the inbound lane that applies provider events."""
        ...


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    if services.folder is not None and services.folder.is_due:  # compiling a changed template takes longer than the loop may wait
        return await asyncio.to_thread(services.current)
    return services.current()


async def _broker(request: Request) -> TaskPublisher:
    broker: TaskPublisher = request.app.state.broker
    return broker


async def _raw_body(request: Request) -> bytes:
    return await request.body()


ServicesDependency = Annotated[Services, Depends(_services)]
PublisherDependency = Annotated[TaskPublisher, Depends(_broker)]
RawBody = Annotated[bytes, Depends(_raw_body)]


def _json_object(body: RawBody) -> dict[str, Any]:
    return read_object(body)


def _campaign_object(body: RawBody) -> dict[str, Any]:
    return read_object(body, CAMPAIGN_VALUES_MAX)


JsonObject = Annotated[dict[str, Any], Depends(_json_object)]
CampaignObject = Annotated[dict[str, Any], Depends(_campaign_object)]


def publish_or_defer(publish: Callable[..., None], *arguments: Any) -> None:
    """Put work on the broker. If that fails, the work starts a little later, because the ledger has it.

    So an error of the broker's client, of any kind, is no reason to answer that a job was not accepted.
    """
    try:
        publish(*arguments)
    except Exception as error:
        log.warning("the broker cannot be reached; the work starts later", fault=type(error).__name__)
