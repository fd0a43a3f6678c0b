"""Provider cases for the conformance suite: how to make each adapter, a valid and invalid messages, and situations to handle."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from channels.base import (
    Channel,
    ChannelError,
    Content,
    Email,
    Misconfigured,
    Outbound,
    Provider,
    Push,
    Rejected,
    Sms,
    Throttled,
    Unavailable,
    Uncertain,
    WhatsApp,
)
from channels.http import HttpTransport
from channels.providers.fcm import Fcm
from channels.providers.outbox import Outbox
from channels.providers.sendgrid import SendGrid
from channels.providers.smtp import Smtp
from channels.providers.telnyx import Telnyx, TelnyxAccount
from channels.providers.twilio import API, TwilioAccount, TwilioSms, TwilioWhatsApp
from tests.support.http_servers import LOST, Answer, ReceivedRequest, http_answer, http_server, smtp_server

ACCOUNT = "AC" + "1" * 32
SENDER = "+32460000000"
CALLBACK = "https://bank.example/webhooks/twilio/status"
SECRET_TEXT = "Bonjour Margaux"

Situation = Literal["fine", "refused", "second_answer_lost", "garbage", "throttled", "wrong_key", "echo"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """An adapter in a situation, and the number of messages that reached the server so far."""

    provider: Provider
    arrived: Callable[[], int]


@dataclass(frozen=True, slots=True)
class ProviderCase:
    """One adapter in the conformance suite."""

    name: str
    channel: Channel
    content: Content
    address: Callable[[int], str]
    scenario: Callable[[Situation], Any]  # -> context manager of a Scenario
    invalid_content: Content
    gives_wait: bool = True  # the provider says how long to wait

    def outbound(self, number: int) -> Outbound:
        """Return a valid message."""
        return Outbound(f"m-{number}", self.channel, self.address(number), self.content, ttl_seconds=3600)


EMAIL = Email(
    sender_name="KBC",
    sender_address="news@bank.example",
    subject="Pour vous",
    html=f"<p>{SECRET_TEXT}</p>",
    text=SECRET_TEXT,
    headers=(("List-Unsubscribe", "<https://bank.example/u/x>"), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")),
)
SMS = Sms(SECRET_TEXT)
WHATSAPP = WhatsApp("HX" + "2" * 32, {"1": SECRET_TEXT})
PUSH = Push("KBC", SECRET_TEXT, link="https://bank.example/o/1", data={"offer": "1"})


def mailbox(number: int) -> str:
    """Return an invented e-mail address."""
    return f"margaux.{number}@home.example"


def phone(number: int) -> str:
    """Return an invented telephone number."""
    return f"+3247{number:07}"


def token(number: int) -> str:
    """Return an invented registration token."""
    return f"token-{number}:" + "A" * 120


@cache
def service_account() -> Mapping[str, str]:
    """Return a temporary service account without `token_uri`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    return {
        "type": "service_account",
        "project_id": "bank",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "dispatcher@bank.example",
    }


# -- adapters for a local port -----------------------------------------------------------------------------------


def sendgrid(port: int, http: HttpTransport) -> SendGrid:
    """Return an adapter for a local server, with one mail per request (for more: tests/channels/test_mail_batching.py)."""
    return SendGrid("SG.key", http, base_url=f"http://127.0.0.1:{port}", mails_per_request=1)


def twilio_account(base_url: str = API, sender: str = SENDER) -> TwilioAccount:
    """A Twilio account with one sender for both channels."""
    return TwilioAccount(ACCOUNT, "token", sender, sender, base_url)


def sms(port: int, http: HttpTransport) -> Provider:
    """Return an adapter for a local server."""
    return TwilioSms(twilio_account(f"http://127.0.0.1:{port}"), http, CALLBACK)


def whatsapp(port: int, http: HttpTransport) -> Provider:
    """Return an adapter for a local server."""
    return TwilioWhatsApp(twilio_account(f"http://127.0.0.1:{port}"), http, CALLBACK)


def telnyx(port: int, http: HttpTransport) -> Telnyx:
    """Return an adapter for a local server."""
    return Telnyx(TelnyxAccount("KEY0", SENDER, f"http://127.0.0.1:{port}"), http, "https://bank.example/webhooks/telnyx")


def fcm(port: int, http: HttpTransport) -> Fcm:
    """Return an adapter for a local server."""
    account = {**service_account(), "token_uri": f"http://127.0.0.1:{port}/token"}
    return Fcm(account, http, base_url=f"http://127.0.0.1:{port}")


# -- answers of the providers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderAnswers:
    """One provider's answers: success, rate limit, wrong key, and a refusal that repeats our text."""

    fine: Callable[[int], Answer]
    throttled: Answer
    wrong_key: Answer
    echo: Callable[[str], Answer]


def as_json(status: int, value: Any, *headers: str) -> Answer:
    """Return an answer with a JSON body."""
    return http_answer(status, json.dumps(value).encode(), "Content-Type: application/json", *headers)


def _google(status: int, word: str, message: str, *headers: str) -> Answer:
    return as_json(status, {"error": {"code": status, "status": word, "message": message}}, *headers)


SENDGRID = ProviderAnswers(
    fine=lambda number: http_answer(202, b"", f"X-Message-Id: sg-{number}"),
    throttled=as_json(429, {"errors": [{"message": "too many requests"}]}, "X-RateLimit-Reset: 99999999999"),
    wrong_key=as_json(401, {"errors": [{"message": "authorization grant is invalid"}]}),
    echo=lambda words: as_json(400, {"errors": [{"message": words, "field": words}]}),
)
TWILIO = ProviderAnswers(
    fine=lambda number: as_json(201, {"sid": f"SM{number:032x}"}),
    throttled=as_json(429, {"code": 20429, "message": "Too many requests", "status": 429}, "Retry-After: 2"),
    wrong_key=as_json(401, {"code": 20003, "message": "Authenticate", "status": 401}),
    echo=lambda words: as_json(400, {"code": 21211, "message": words, "more_info": words, "status": 400}),
)
FCM = ProviderAnswers(
    fine=lambda number: as_json(200, {"name": f"projects/bank/messages/{number}"}),
    throttled=_google(429, "RESOURCE_EXHAUSTED", "quota", "Retry-After: 2"),
    wrong_key=_google(401, "UNAUTHENTICATED", "credential"),
    echo=lambda words: _google(400, "INVALID_ARGUMENT", words),
)
TELNYX = ProviderAnswers(
    fine=lambda number: as_json(200, {"data": {"id": f"{number:08}-5717-4562-b3fc-2c963f66afa6", "record_type": "message"}}),
    throttled=as_json(429, {"errors": [{"code": "10011", "title": "Too many requests"}]}, "Retry-After: 2"),
    wrong_key=as_json(401, {"errors": [{"code": "10009", "title": "Authentication failed"}]}),
    echo=lambda words: as_json(400, {"errors": [{"code": "40310", "title": words, "detail": words}]}),
)
ACCESS_TOKEN = as_json(200, {"access_token": "ya29.x", "expires_in": 3600, "token_type": "Bearer"})


def closed_port() -> int:
    """Return a port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _script(situation: Situation, answers: ProviderAnswers) -> Callable[[ReceivedRequest, int], Answer]:
    def script(request: ReceivedRequest, number: int) -> Answer:
        if request.path == "/token":
            return ACCESS_TOKEN
        if situation == "garbage":
            return Answer(b"\x16\x03garbage\r\n\r\n<html>", close=True)
        if situation == "echo":
            return answers.echo(request.body.decode())
        if situation == "throttled":
            return answers.throttled
        if situation == "wrong_key":
            return answers.wrong_key
        lost = situation == "second_answer_lost" and b"m-2" in request.body + request.path.encode()
        return LOST if lost else answers.fine(number)

    return script


@contextmanager
def http_scenario(
    make: Callable[[int, HttpTransport], Provider], answers: ProviderAnswers, situation: Situation
) -> Iterator[Scenario]:
    """Start a scripted server, and yield an HTTP adapter for it."""
    http = HttpTransport(connect_timeout_seconds=5, timeout_seconds=5)
    with http_server(_script(situation, answers)) as server:
        port = closed_port() if situation == "refused" else server.port
        provider = make(port, http)
        yield Scenario(provider, lambda: sum(1 for request in server.arrived if request.path != "/token"))
        provider.close()


@contextmanager
def smtp_scenario(situation: Situation) -> Iterator[Scenario]:
    """Start a scripted relay, and yield the SMTP adapter for it."""

    def script(line: str, mail: bytes) -> str | None:
        verb = line.upper().split()[0]
        if verb == "AUTH":
            return "535 5.7.8 no" if situation == "wrong_key" else "235 ok"
        if verb == "RCPT" and situation == "throttled":
            return "450 4.2.1 later"
        if verb == "RCPT" and situation == "echo":
            return f"550 5.1.1 {line}"
        if verb == "." and situation == "second_answer_lost" and b"<m-2@" in mail:
            return None
        if verb == "." and situation == "garbage":
            return "hello?"
        return "354 go" if verb == "DATA" else "250 ok"

    with smtp_server(script) as server:
        port = closed_port() if situation == "refused" else server.port
        provider = Smtp(f"smtp://user:pass@127.0.0.1:{port}?starttls=no", timeout_seconds=5)
        yield Scenario(provider, lambda: len(server.arrived))


@contextmanager
def outbox_scenario(situation: Situation) -> Iterator[Scenario]:
    """Yield the outbox, set to answer as a provider would in the situation."""
    outbox = Outbox(Channel.EMAIL)
    scripted: Mapping[str, dict[str, ChannelError]] = {
        "refused": {"": Unavailable("refused")},
        "second_answer_lost": {mailbox(2): Uncertain("no_answer")},
        "garbage": {"": Uncertain("unreadable")},
        "throttled": {"": Throttled("http_429", retry_after_seconds=2.0)},
        "wrong_key": {"": Misconfigured("http_401")},
        "echo": {"": Rejected("http_400")},
    }
    outbox.answers.update(scripted.get(situation, {}))
    yield Scenario(outbox, lambda: len(outbox.sent))


NOT_TEXT: Any = object()  # what a bug elsewhere could pass instead of a text

HTTP_ADAPTERS: Mapping[str, tuple[Callable[[int, HttpTransport], Any], ProviderAnswers]] = {
    "sendgrid": (sendgrid, SENDGRID),
    "sms": (sms, TWILIO),
    "whatsapp": (whatsapp, TWILIO),
    "fcm": (fcm, FCM),
    "telnyx": (telnyx, TELNYX),
}
BROKEN_EMAIL = replace(EMAIL, text=NOT_TEXT)

PROVIDER_CASES = (
    ProviderCase("sendgrid", Channel.EMAIL, EMAIL, mailbox, partial(http_scenario, sendgrid, SENDGRID), BROKEN_EMAIL),
    ProviderCase("sms", Channel.SMS, SMS, phone, partial(http_scenario, sms, TWILIO), Sms(NOT_TEXT)),
    ProviderCase("whatsapp", Channel.WHATSAPP, WHATSAPP, phone, partial(http_scenario, whatsapp, TWILIO), WhatsApp("HX", NOT_TEXT)),
    ProviderCase("fcm", Channel.PUSH, PUSH, token, partial(http_scenario, fcm, FCM), Push("KBC", NOT_TEXT)),
    ProviderCase("telnyx", Channel.SMS, SMS, phone, partial(http_scenario, telnyx, TELNYX), Sms(NOT_TEXT)),
    ProviderCase("smtp", Channel.EMAIL, EMAIL, mailbox, smtp_scenario, BROKEN_EMAIL, gives_wait=False),
    ProviderCase("outbox", Channel.EMAIL, EMAIL, mailbox, outbox_scenario, Sms("not a mail")),
)
