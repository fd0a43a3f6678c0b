"""Provider cases for the conformance suite: how to make each adapter, a valid and invalid messages, and situations to handle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from channels.base import (
    Channel,
    ChannelError,
    Misconfigured,
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
from channels.testing.cases import (
    ACCESS_TOKEN,
    EMAIL,
    NOT_TEXT,
    PUSH,
    SECRET_TEXT,
    SMS,
    WHATSAPP,
    HttpAdapter,
    ProviderAnswers,
    ProviderCase,
    Scenario,
    Situation,
    as_json,
    closed_port,
    http_case,
    mailbox,
    phone,
    token,
)
from tests.support.http_servers import Answer, http_answer, smtp_server

__all__ = [
    "ACCESS_TOKEN",
    "ACCOUNT",
    "CALLBACK",
    "EMAIL",
    "HTTP_ADAPTERS",
    "PROVIDER_CASES",
    "PUSH",
    "SECRET_TEXT",
    "SENDER",
    "SMS",
    "WHATSAPP",
    "ProviderCase",
    "as_json",
    "closed_port",
    "mailbox",
    "phone",
    "service_account",
    "token",
    "twilio_account",
]

ACCOUNT = "AC" + "1" * 32
SENDER = "+32460000000"
CALLBACK = "https://bank.example/webhooks/twilio/status"


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


def sms(port: int, http: HttpTransport) -> HttpAdapter:
    """Return an adapter for a local server."""
    return TwilioSms(twilio_account(f"http://127.0.0.1:{port}"), http, CALLBACK)


def whatsapp(port: int, http: HttpTransport) -> HttpAdapter:
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


BROKEN_EMAIL = replace(EMAIL, text=NOT_TEXT)

PROVIDER_CASES = (
    http_case("sendgrid", sendgrid, SENDGRID, (EMAIL, mailbox), BROKEN_EMAIL),
    http_case("sms", sms, TWILIO, (SMS, phone), Sms(NOT_TEXT)),
    http_case("whatsapp", whatsapp, TWILIO, (WHATSAPP, phone), WhatsApp("HX", NOT_TEXT)),
    http_case("fcm", fcm, FCM, (PUSH, token), Push("KBC", NOT_TEXT)),
    http_case("telnyx", telnyx, TELNYX, (SMS, phone), Sms(NOT_TEXT)),
    ProviderCase("smtp", Channel.EMAIL, EMAIL, mailbox, smtp_scenario, BROKEN_EMAIL, gives_wait=False),
    ProviderCase("outbox", Channel.EMAIL, EMAIL, mailbox, outbox_scenario, Sms("not a mail")),
)
HTTP_ADAPTERS = {case.name: (case.make, case.answers) for case in PROVIDER_CASES if case.make and case.answers}
