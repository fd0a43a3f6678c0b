"""Provider cases: how to make an adapter, a valid and an invalid message, and the situations that every adapter handles."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from channels.base import Channel, Content, Email, Outbound, Provider, Push, Result, Sms, WhatsApp
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.testing.servers import LOST, Answer, ReceivedRequest, http_answer, http_server

SECRET_TEXT = "Bonjour Margaux"  # in each message, and never in an error
NOT_TEXT: Any = object()  # what a bug elsewhere could pass instead of a text

Situation = Literal["fine", "refused", "second_answer_lost", "garbage", "throttled", "wrong_key", "echo"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """An adapter in a situation, and the number of messages that reached the server so far."""

    provider: Provider
    arrived: Callable[[], int]


@dataclass(frozen=True, slots=True, eq=False)
class ProviderCase:
    """One adapter in the conformance suite. Compared by identity."""

    name: str
    channel: Channel
    content: Content
    address: Callable[[int], str]
    scenario: Callable[[Situation], Any]  # -> context manager of a Scenario
    invalid_content: Content
    gives_wait: bool = True  # the provider says how long to wait
    make: Callable[[int, HttpTransport], HttpAdapter] | None = None  # of an HTTP adapter: for a local port
    answers: ProviderAnswers | None = None

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


# -- HTTP adapters -----------------------------------------------------------------------------------------------------------


class HttpAdapter(Provider, Protocol):
    """An adapter over `channels.http_adapter`: with `build` and `parse`."""

    def build(self, outbound: Outbound) -> HttpRequest:
        """Return the request of one message."""
        ...

    def parse(self, answer: HttpResponse) -> Result:
        """Return what an answer means."""
        ...


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


TOKEN_PATH = "/token"  # where an adapter that needs one fetches an access token; such a request is not counted as a message
ACCESS_TOKEN = as_json(200, {"access_token": "ya29.x", "expires_in": 3600, "token_type": "Bearer"})


def closed_port() -> int:
    """Return a port that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _script(situation: Situation, answers: ProviderAnswers) -> Callable[[ReceivedRequest, int], Answer]:
    def script(request: ReceivedRequest, number: int) -> Answer:
        if request.path == TOKEN_PATH:
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
        yield Scenario(provider, lambda: sum(1 for request in server.arrived if request.path != TOKEN_PATH))
        provider.close()


CHANNEL_OF: Mapping[type, Channel] = {
    Email: Channel.EMAIL,
    Sms: Channel.SMS,
    WhatsApp: Channel.WHATSAPP,
    Push: Channel.PUSH,
}


def http_case(
    name: str,
    make: Callable[[int, HttpTransport], HttpAdapter],
    answers: ProviderAnswers,
    message: tuple[Content, Callable[[int], str]],
    invalid_content: Content,
) -> ProviderCase:
    """The case of an HTTP adapter. `make` makes it for a local port; `message` is a valid content and the addresses by number."""
    content, address = message
    scenario = partial(http_scenario, make, answers)
    return ProviderCase(name, CHANNEL_OF[type(content)], content, address, scenario, invalid_content, make=make, answers=answers)
