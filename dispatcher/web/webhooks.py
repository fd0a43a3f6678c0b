"""Webhooks of the providers. A call is verified by its signature, stored, and answered at once; the inbound lane applies it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus

import structlog
from fastapi import APIRouter, HTTPException, Request, Response

from channels.base import BadPayload, BadSignature, Event, InboundText
from channels.registry import WebhookEndpoint, WebhookItem, WebhookRequest, plugins
from dispatcher.campaigns import tester_sends
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.intake.json_limits import check_json_size
from dispatcher.runtime.metric_families import WEBHOOK_CALLS
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services
from dispatcher.web.dependencies import PublisherDependency, RawBody, ServicesDependency, TaskPublisher, publish_or_defer
from dispatcher.web.errors import problem_responses

log = structlog.get_logger()

router = APIRouter(prefix="/webhooks", tags=["provider webhooks"], responses=problem_responses(400, 403, 413, 503))
VALUES_MAX = 200_000  # of a JSON body: a thousand events have less
FIELD_LENGTH_MAX = 300
TEXT_LENGTH_MAX = 4_096  # the longest WhatsApp message
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL stores neither


def _handler(provider: str, endpoint: WebhookEndpoint) -> Callable[..., Response]:
    """The handler of one endpoint."""

    def handle(request: Request, body: RawBody, services: ServicesDependency, broker: PublisherDependency) -> Response:
        call = WebhookRequest(_public_url(services.public_url, request), body, dict(request.headers.items()), services.clock())
        check_json_size(body, VALUES_MAX)
        items = _read(provider, endpoint, call, services.webhook_keys.get(provider, ""))
        reports = [_storable_event(item) for item in items if isinstance(item, Event)]
        if events := tester_sends.record_reports(services, reports):
            provider_events.store_events(services, events)
            if provider_events.should_publish_apply_task(services):
                publish_or_defer(broker.publish_events)
        answers = [_reply(services, broker, item) for item in items if isinstance(item, InboundText)]
        if endpoint.answer is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        content, media_type = endpoint.answer(next(filter(None, answers), None))
        return Response(content, media_type=media_type)

    return handle


def _add_routes() -> None:
    for plugin in plugins().values():
        for path, endpoint in plugin.endpoints.items():
            name = "/".join(filter(None, (plugin.name, path)))
            router.add_api_route(
                f"/{name}",
                _handler(plugin.name, endpoint),
                methods=["POST"],
                name=f"receive_{plugin.name}_{path or 'events'}",  # the operation id
                summary=f"Signed reports of {plugin.name}: {path or 'events'}",
                status_code=HTTPStatus.NO_CONTENT if endpoint.answer is None else HTTPStatus.OK,
                response_class=Response,
                response_description="The reports are stored",
            )


_add_routes()


def _read(provider: str, endpoint: WebhookEndpoint, call: WebhookRequest, key: str) -> Sequence[WebhookItem]:
    """What a signed call says. Without a key nothing can be verified, and what is not verified is refused."""
    try:
        if not key:
            raise BadSignature("unconfigured")
        items = endpoint.read(call, key)
    except BadSignature as error:
        RECORDER.count(WEBHOOK_CALLS, labels=(provider, "unsigned"))
        log.warning("webhook refused", provider=provider, why=error.reason)
        raise HTTPException(HTTPStatus.FORBIDDEN, "not signed by the provider") from None
    except BadPayload as error:
        RECORDER.count(WEBHOOK_CALLS, labels=(provider, "unreadable"))
        log.warning("webhook unreadable", provider=provider, why=str(error))
        raise HTTPException(HTTPStatus.BAD_REQUEST, "signed, but cannot be read") from None
    RECORDER.count(WEBHOOK_CALLS, labels=(provider, "accepted"))
    return items


def _reply(services: Services, broker: TaskPublisher, message: InboundText) -> str | None:
    """Handle a message from a customer at once. Returns the answer, where the endpoint can carry one."""
    storable = replace(message, id=_storable(message.id), text=_storable(message.text, TEXT_LENGTH_MAX))
    return customer_replies.handle_reply(services, broker.publish, storable).answer


def _storable_event(event: Event) -> Event:
    """The event with texts that the ledger can store: one bad or endless text must not make the whole call fail."""
    return replace(
        event,
        id=_storable(event.id),
        receipt=event.receipt and _storable(event.receipt),
        code=event.code and _storable(event.code),
    )


def _storable(text: str, length_max: int = FIELD_LENGTH_MAX) -> str:
    return _UNSTORABLE.sub("\ufffd", text)[:length_max]


def _public_url(base: str, request: Request) -> str:
    """The URL that the provider called and signed: our public one, with path and query as they came."""
    query = request.scope["query_string"].decode("latin-1")
    return base + request.url.path + (f"?{query}" if query else "")
