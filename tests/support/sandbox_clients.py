"""Official clients, a webhook server and messages for tests of the sandbox."""

from __future__ import annotations

import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from firebase_admin import messaging
from python_http_client.exceptions import HTTPError
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail
from twilio.rest import Client

from channels.sandbox import SandboxClient

ACCOUNT, AUTH_TOKEN = "AC" + "1" * 32, "token-of-the-account"
SENDER = "+3225550100"


@dataclass
class Webhook:
    """A web server that records calls, and answers with the given statuses and then with 200."""

    url: str = ""
    calls: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


def twilio_client(sandbox: SandboxClient, token: str = AUTH_TOKEN) -> Client:
    client = Client(ACCOUNT, token)
    client.api.base_url = sandbox.url
    return client


def sendgrid_client(sandbox: SandboxClient, key: str = "SG.key") -> SendGridAPIClient:
    return SendGridAPIClient(key, host=sandbox.url)


def make_mail(to: str = "anne@example.com", **changes: Any) -> dict[str, Any]:
    mail: dict[str, Any] = Mail("bank@example.com", to, "Subject", "text", "<p>html</p>").get()
    return mail | changes


def make_push(token: str, **changes: Any) -> messaging.Message:
    """Make a message for a `token`, which servers still use; the SDK's newer `fid` means the same and warns about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return messaging.Message(token=token, **changes)


def post_mail(sandbox: SandboxClient, mail: object) -> tuple[int, Any]:
    """Send any JSON as a mail. Returns status and parsed answer."""
    try:
        return sendgrid_client(sandbox).client.mail.send.post(request_body=mail).status_code, None
    except HTTPError as refused:
        return refused.status_code, refused.to_dict


def get(sandbox: SandboxClient, path: str, form: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})) -> str:
    request = urllib.request.Request(sandbox.url + path, form, dict(headers))  # noqa: S310  our own sandbox
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        page: str = answer.read().decode()
        return page
