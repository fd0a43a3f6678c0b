"""What providers tell us. Signed, or refused; kept in the ledger, and answered at once: applying it is the inbound lane's work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Header, HTTPException, Request, Response

from channels import sendgrid, twilio
from channels.base import BadPayload, BadSignature, Event
from channels.twilio import twiml
from dispatcher import inbound
from dispatcher.house import House
from dispatcher.web.context import Broker, BrokerHere, HouseHere, RawBody, tell
from dispatcher.web.problems import answers

log = structlog.get_logger()
Read = TypeVar("Read")

router = APIRouter(prefix="/webhooks", tags=["webhooks"], responses=answers(400, 403, 413, 503))
TEXT_LENGTH_MAX = 300
WORDS_LENGTH_MAX = 4_096  # the longest WhatsApp message
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")  # PostgreSQL keeps neither

SendGridSignature = Annotated[str, Header(alias="X-Twilio-Email-Event-Webhook-Signature")]
SendGridTimestamp = Annotated[str, Header(alias="X-Twilio-Email-Event-Webhook-Timestamp")]
TwilioSignature = Annotated[str, Header(alias="X-Twilio-Signature")]


@router.post("/sendgrid", status_code=204)
def sendgrid_events(
    body: RawBody, house: HouseHere, broker: BrokerHere, signature: SendGridSignature = "", timestamp: SendGridTimestamp = ""
) -> None:
    """SendGrid's event webhook."""
    key = house.webhook_keys.sendgrid_public_key
    _keep(house, broker, _read(key, lambda: sendgrid.parse_events(body, signature, timestamp, key, house.clock())))


@router.post("/twilio/status", status_code=204)
def twilio_status(request: Request, body: RawBody, house: HouseHere, broker: BrokerHere, signature: TwilioSignature = "") -> None:
    """Twilio's status callback, for SMS and WhatsApp."""
    token, url = house.webhook_keys.twilio_auth_token, _public_url(house, request)
    _keep(house, broker, _read(token, lambda: twilio.parse_events(url, body, signature, token, house.clock())))


@router.post("/twilio/inbound", response_class=Response)
def twilio_inbound(
    request: Request, body: RawBody, house: HouseHere, broker: BrokerHere, signature: TwilioSignature = ""
) -> Response:
    """A text from a person, by SMS or WhatsApp: STOP and START are obeyed at once, HELP is answered."""
    token, url = house.webhook_keys.twilio_auth_token, _public_url(house, request)
    said = _read(token, lambda: twilio.parse_inbound(url, body, signature, token))
    kept = replace(said, id=_word(said.id), text=_word(said.text, WORDS_LENGTH_MAX))
    return Response(twiml(inbound.hear(house, broker.publish, kept).answer), media_type="text/xml")


def _read(key: str, parse: Callable[[], Read]) -> Read:
    """What a signed call says. Without a key of ours nothing can be verified, and what is not verified is refused."""
    try:
        if not key:
            raise BadSignature("unconfigured")
        return parse()
    except BadSignature as error:
        log.warning("webhook refused", why=error.why)
        raise HTTPException(HTTPStatus.FORBIDDEN, "not signed by the provider") from None
    except BadPayload as error:
        log.warning("webhook unreadable", why=str(error))
        raise HTTPException(HTTPStatus.BAD_REQUEST, "signed, but can't be read") from None


def _keep(house: House, broker: Broker, news: Sequence[Event]) -> None:
    inbound.keep(house, [_keepable(event) for event in news])
    tell(broker.publish_events)


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


def _public_url(house: House, request: Request) -> str:
    """The URL that the provider called and signed: our public one, with path and query as they came."""
    query = request.scope["query_string"].decode("latin-1")
    return house.public_url + request.url.path + (f"?{query}" if query else "")
