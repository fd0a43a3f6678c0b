"""Mails rendered along compiled paths, compared with the same mails rendered by Jinja, and the cost of a mail in a batch.

The mails are equal byte for byte. `python -m benchmarks.rendering`; CPU time of this process, medians.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from channels.base import Channel, Outbound, Receipt, assemble
from channels.http import HttpRequest, HttpResponse, HttpTransport, TransportError
from channels.providers.sendgrid import SendGrid
from channels.send_window import window_of
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_id_token
from dispatcher.content import Catalog, MessageLinks, RenderRequest, Template, example_request, load
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import Language

T = TypeVar("T")

LANGUAGES: Sequence[Language] = ("nl", "fr", "en", "nl")
_SECRET = KeyRing.of(b"for measuring only, sixty-four letters long, and known to everybody")


@dataclass(frozen=True, slots=True)
class Rendering:
    """CPU microseconds per mail.

    "texts" is rendering alone, from the values to subject, HTML and text. "message" is all that a worker does before it
    claims: read the values, render, run the content guard. "request" is all that a worker does to send a hundred mails in one
    request: check them, find their common parts, build the request; nothing is posted.
    """

    bytes: float  # of HTML and text
    plain_texts_us: float
    texts_us: float
    plain_message_us: float
    message_us: float
    plain_request_us: float
    request_us: float
    tokens_us: float  # for the reader's two links

    @property
    def times_texts(self) -> float:
        """The speed-up of rendering: the main result."""
        return self.plain_texts_us / self.texts_us

    @property
    def batched_us(self) -> float:
        """A mail of a batch, from its render request to the HTTP request, with its tokens."""
        return self.tokens_us + self.message_us + self.request_us


class _NullTransport(HttpTransport):
    """A transport that costs nothing and accepts everything."""

    def exchange(
        self, calls: Iterable[tuple[T, HttpRequest]], may_send: Callable[[T], bool] = lambda _: True
    ) -> Generator[tuple[T, HttpResponse | TransportError]]:
        for tag, _ in calls:
            may_send(tag)
            yield tag, HttpResponse(202, (b"HTTP/1.1 202 Accepted", b"X-Message-Id: discarded"))


def measure(templates: Path = Path("templates"), people: int = 400, rounds: int = 7) -> Rendering:
    """Measure loan offers to `people` readers, in LANGUAGES, tailored, each with its own name, project and amount."""
    plain, specialised = (_loan_offer(load(templates, rng)) for rng in (None, random.random))
    render_requests = [_render_request(plain, number) for number in range(people)]
    for request in render_requests:
        assert assemble(specialised.render(request)) == plain.render(request), "byte for byte"
    values = [plain.values(request) for request in render_requests]

    def texts(template: Template) -> Callable[[], None]:
        return lambda: _consume(template.render_parts(*each).texts() for each in zip(render_requests, values, strict=True))

    def messages(template: Template) -> Callable[[], None]:
        return lambda: _consume(
            [template.render(request) for request in render_requests[first : first + 100]] for first in range(0, people, 100)
        )

    def requests(template: Template) -> Callable[[], None]:
        sendgrid, mails = SendGrid("SG.none", _NullTransport()), _mails(template, render_requests)
        assert all(isinstance(result, Receipt) for _, result in sendgrid.send(mails, window_of(30)))
        return lambda: _consume(list(sendgrid.send(mails[first : first + 100], window_of(30))) for first in range(0, people, 100))

    makers = (texts, messages, requests)
    works = [
        *(make(template) for make in makers for template in (plain, specialised)),
        lambda: _consume(map(_links, range(people))),
    ]
    size = sum(
        len(part.encode()) for request, each in zip(render_requests, values, strict=True) for part in _bodies(plain, request, each)
    )
    return Rendering(size / people, *(seconds / people * 1e6 for seconds in _medians(rounds, works)))


def _consume(items: Iterable[object]) -> None:
    """Create all items and keep none, so that memory does not affect the measurement."""
    deque(items, maxlen=0)


def _loan_offer(catalog: Catalog) -> Template:
    return catalog["loan_offer"]


def _render_request(template: Template, number: int) -> RenderRequest:
    data = {"first_name": f"Reader{number}", "project": f"project number {number % 97}", "amount": 5_000 + 500 * (number % 40)}
    language = LANGUAGES[number % len(LANGUAGES)]
    return replace(example_request(template, Channel.EMAIL, language, Mode.TAILORED, data), links=_links(number))


def _links(number: int) -> MessageLinks:
    ref = MessageId(202611, 17, number)
    unsubscribe, preferences = (message_id_token(_SECRET, purpose, ref) for purpose in (UNSUBSCRIBE, PREFERENCES))
    return MessageLinks(f"https://messages.bank.example/u/{unsubscribe}", f"https://messages.bank.example/p/{preferences}")


def _mails(template: Template, render_requests: Sequence[RenderRequest]) -> list[Outbound]:
    return [
        Outbound(f"202611-17-{number}-0", Channel.EMAIL, f"reader-{number}@home.example", template.render(request))
        for number, request in enumerate(render_requests)
    ]


def _bodies(template: Template, request: RenderRequest, values: dict[str, Any]) -> Sequence[str]:
    texts = template.render_parts(request, values).texts()
    return texts["email.html"], texts["email.text"]


def _medians(rounds: int, works: Sequence[Callable[[], Any]]) -> list[float]:
    """CPU seconds of each work. The works alternate, so that other load on the machine affects all of them."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, seconds in zip(works, taken, strict=True):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
    return [statistics.median(seconds) for seconds in taken]


def report(rendering: Rendering) -> str:
    """The measurement in a few lines."""
    rows = (
        ("rendering: values to texts", rendering.plain_texts_us, rendering.texts_us),
        ("message: read, write, guard", rendering.plain_message_us, rendering.message_us),
        ("its share of a batch's request", rendering.plain_request_us, rendering.request_us),
    )
    return "\n".join(
        (
            f"compiled paths vs Jinja, byte-equal, mails of {rendering.bytes / 1024:.1f} KB, CPU µs per mail:",
            *(f"  {name:<32}{plain:7.1f} -> {specialised:5.1f} {plain / specialised:6.1f} x" for name, plain, specialised in rows),
            f"  a mail of a batch, to its HTTP request, with its tokens ({rendering.tokens_us:.1f}): {rendering.batched_us:.1f}",
        )
    )


if __name__ == "__main__":
    print(report(measure()))
