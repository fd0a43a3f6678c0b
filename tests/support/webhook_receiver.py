"""A receiver of webhooks that knows nothing of this program but its guide: it verifies with the public library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.http_servers import Answer, ReceivedRequest, ServerLog, http_answer, http_server

Script = Callable[[ReceivedRequest, int], Answer]


def accept(_: ReceivedRequest, __: int) -> Answer:
    """The answer of a receiver that works."""
    return http_answer(204)


@dataclass
class Receiver:
    """A receiver on a port of this machine, and the requests that it got."""

    server: ServerLog
    requests: list[ReceivedRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server.port}/hook"

    @property
    def ids(self) -> list[str]:
        """The webhook ids that came, in their order."""
        return [request.headers["webhook-id"] for request in self.requests]

    @property
    def calls(self) -> list[list[dict[str, Any]]]:
        """The events of each call."""
        bodies = [json.loads(request.body) for request in self.requests]
        return [body if isinstance(body, list) else [body] for body in bodies]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events, each once, in the order in which they came first."""
        return list({event["id"]: event for call in self.calls for event in call}.values())


@contextmanager
def receiver(script: Script = accept) -> Iterator[Receiver]:
    """A receiver that answers as the script says."""
    requests: list[ReceivedRequest] = []

    def note(request: ReceivedRequest, number: int) -> Answer:
        requests.append(request)
        return script(request, number)

    with http_server(note) as server:
        yield Receiver(server, requests)


def is_signed(secret: str, request: ReceivedRequest) -> bool:
    """Whether the public library accepts the request."""
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True
