"""What providers tell us. Signed, or refused; kept in the ledger, and answered at once: applying it is the inbound lane's work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus

import structlog
from fastapi import APIRouter, HTTPException, Request, Response

from channels.base import BadPayload, BadSignature, Event, InboundText
from channels.registry import WebhookEndpoint, WebhookItem, WebhookRequest, plugins
from dispatcher.inbound import customer_replies, provider_events
from dispatcher.runtime.services import Services
from dispatcher.web.dependencies import PublisherHere, RawBody, ServicesHere, TaskPublisher, publish_or_leave
from dispatcher.web.errors import answers

log = structlog.get_logger()

router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=answers(400, 403, 413, 503))
TEXT_LENGTH_MAX = 300
WORDS_LENGTH_MAX = 4_096  # the longest WhatsApp message
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL keeps neither


def _opened(provider: str, door: WebhookEndpoint) -> Callable[..., Response]:
    """The handler of one door."""

    def handle(request: Request, body: RawBody, services: ServicesHere, broker: PublisherHere) -> Response:
        call = WebhookRequest(_public_url(services, request), body, dict(request.headers.items()), services.clock())
        news = _read(door, call, services.webhook_keys.get(provider, ""))
        events = [each for each in news if isinstance(each, Event)]
        if events:
            _keep(services, broker, events)
        answers = [_hear(services, broker, each) for each in news if isinstance(each, InboundText)]
        if door.answer is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        content, media_type = door.answer(next(filter(None, answers), None))
        return Response(content, media_type=media_type)

    return handle


for _plug in plugins().values():
    for _path, _door in _plug.endpoints.items():
        _place = "/".join(filter(None, (_plug.name, _path)))
        router.add_api_route(
            f"/{_place}",
            _opened(_plug.name, _door),
            methods=["POST"],
            name=_place,
            summary=f"What {_plug.name} tells: {_path or 'events'}, signed",
            status_code=HTTPStatus.NO_CONTENT if _door.answer is None else HTTPStatus.OK,
            response_class=Response,
        )


def _read(door: WebhookEndpoint, call: WebhookRequest, key: str) -> Sequence[WebhookItem]:
    """What a signed call says. Without a key of ours nothing can be verified, and what is not verified is refused."""
    try:
        if not key:
            raise BadSignature("unconfigured")
        return door.read(call, key)
    except BadSignature as error:
        log.warning("webhook refused", why=error.reason)
        raise HTTPException(HTTPStatus.FORBIDDEN, "not signed by the provider") from None
    except BadPayload as error:
        log.warning("webhook unreadable", why=str(error))
        raise HTTPException(HTTPStatus.BAD_REQUEST, "signed, but can't be read") from None


def _hear(services: Services, broker: TaskPublisher, said: InboundText) -> str | None:
    """A text from a person: STOP and START are obeyed at once, HELP is answered where the door can carry an answer."""
    kept = replace(said, id=_word(said.id), text=_word(said.text, WORDS_LENGTH_MAX))
    return customer_replies.handle_reply(services, broker.publish, kept).answer


def _keep(services: Services, broker: TaskPublisher, news: Sequence[Event]) -> None:
    provider_events.keep(services, [_keepable(event) for event in news])
    publish_or_leave(broker.publish_events)


def _keepable(event: Event) -> Event:
    """The event as the ledger can keep it: one odd or endless word must not cost a whole call its answer."""
    return replace(
        event,
        id=_word(event.id),
        receipt=event.receipt and _word(event.receipt),
        code=event.code and _word(event.code),
    )


def _word(text: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    return _UNKEEPABLE.sub("\ufffd", text)[:length_max]


def _public_url(services: Services, request: Request) -> str:
    """The URL that the provider called and signed: our public one, with path and query as they came."""
    query = request.scope["query_string"].decode("latin-1")
    return services.public_url + request.url.path + (f"?{query}" if query else "")
