"""Mails written along known paths against the same mails written by their template, byte for byte equal; and what a mail of a
batch costs on its way to the wire. `python -m benchmarks.rendering`; CPU time of this process, medians.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from channels.base import Channel, Outbound, Receipt, assemble
from channels.http import HttpRequest, HttpResponse, HttpTransport, TransportError
from channels.providers.sendgrid import SendGrid
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_id_token
from dispatcher.content import Catalog, MessageLinks, RenderRequest, Template, example_request, load
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import Language

T = TypeVar("T")

LANGUAGES: Sequence[Language] = ("nl", "fr", "en", "nl")
_SECRET = b"for measuring only, sixty-four letters long, and known to everybody"


@dataclass(frozen=True, slots=True)
class Rendering:
    """CPU microseconds per mail.

    "texts" is rendering alone, from a reader's values to subject, HTML and text. "message" is all that a worker does before it
    claims: read the values, write, guard. "request" is all that a worker does to have a hundred mails leave in one request: check
    them, find what they share, build it; nothing is posted.
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
        """How many times as fast the texts are written: the figure of merit."""
        return self.plain_texts_us / self.texts_us

    @property
    def batched_us(self) -> float:
        """A mail of a batch, from its letter to the request, tokens included."""
        return self.tokens_us + self.message_us + self.request_us


class _NullTransport(HttpTransport):
    """A transport that costs nothing and takes everything."""

    def exchange(self, calls: Iterable[tuple[T, HttpRequest]]) -> Generator[tuple[T, HttpResponse | TransportError]]:
        for tag, _ in calls:
            yield tag, HttpResponse(202, (b"HTTP/1.1 202 Accepted", b"X-Message-Id: swallowed"))


def measure(templates: Path = Path("templates"), people: int = 400, rounds: int = 7) -> Rendering:
    """Loan offers to so many people, in LANGUAGES, tailored, each with a name, a project and an amount of their own."""
    plain, quick = (_loan_offer(load(templates, rng)) for rng in (None, random.random))
    letters = [_letter(plain, number) for number in range(people)]
    for letter in letters:
        assert assemble(quick.render(letter)) == plain.render(letter), "byte for byte"
    values = [plain.values(letter) for letter in letters]

    def texts(template: Template) -> Callable[[], None]:
        return lambda: _each(template.written(*each).texts() for each in zip(letters, values, strict=True))

    def messages(template: Template) -> Callable[[], None]:
        return lambda: _each(
            [template.render(letter) for letter in letters[first : first + 100]] for first in range(0, people, 100)
        )

    def requests(template: Template) -> Callable[[], None]:
        sendgrid, mails = SendGrid("SG.none", _NullTransport()), _mails(template, letters)
        assert all(isinstance(result, Receipt) for _, result in sendgrid.send(mails))
        return lambda: _each(list(sendgrid.send(mails[first : first + 100])) for first in range(0, people, 100))

    makers = (texts, messages, requests)
    works = [*(make(template) for make in makers for template in (plain, quick)), lambda: _each(map(_links, range(people)))]
    size = sum(len(part.encode()) for letter, each in zip(letters, values, strict=True) for part in _bodies(plain, letter, each))
    return Rendering(size / people, *(seconds / people * 1e6 for seconds in _medians(rounds, works)))


def _each(made: Iterable[object]) -> None:
    """Make one after the other; keep none: what memory costs is another measurement."""
    deque(made, maxlen=0)


def _loan_offer(catalog: Catalog) -> Template:
    return catalog["loan_offer"]


def _letter(template: Template, number: int) -> RenderRequest:
    data = {"first_name": f"Reader{number}", "project": f"project number {number % 97}", "amount": 5_000 + 500 * (number % 40)}
    language = LANGUAGES[number % len(LANGUAGES)]
    return example_request(template, Channel.EMAIL, language, Mode.TAILORED, data, links=_links(number))


def _links(number: int) -> MessageLinks:
    ref = MessageId(202611, 17, number)
    unsubscribe, preferences = (message_id_token(_SECRET, purpose, ref) for purpose in (UNSUBSCRIBE, PREFERENCES))
    return MessageLinks(f"https://messages.bank.example/u/{unsubscribe}", f"https://messages.bank.example/p/{preferences}")


def _mails(template: Template, letters: Sequence[RenderRequest]) -> list[Outbound]:
    return [
        Outbound(f"202611-17-{number}-0", Channel.EMAIL, f"reader-{number}@home.example", template.render(letter))
        for number, letter in enumerate(letters)
    ]


def _bodies(template: Template, letter: RenderRequest, values: dict[str, Any]) -> Sequence[str]:
    texts = template.written(letter, values).texts()
    return texts["email.html"], texts["email.text"]


def _medians(rounds: int, works: Sequence[Callable[[], Any]]) -> list[float]:
    """Seconds of CPU that each work takes; the works take turns, so that a busy machine is busy for all of them."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, seconds in zip(works, taken, strict=True):
            started = time.process_time()
            work()
            seconds.append(time.process_time() - started)
    return [statistics.median(seconds) for seconds in taken]


def report(found: Rendering) -> str:
    """The measurement in a few lines."""
    rows = (
        ("rendering: values to texts", found.plain_texts_us, found.texts_us),
        ("message: read, write, guard", found.plain_message_us, found.message_us),
        ("its share of a batch's request", found.plain_request_us, found.request_us),
    )
    return "\n".join(
        (
            f"specialised vs plain rendering, byte-equal, mails of {found.bytes / 1024:.1f} KB, CPU µs per mail:",
            *(f"  {name:<32}{plain:7.1f} -> {quick:5.1f} {plain / quick:6.1f} x" for name, plain, quick in rows),
            f"  a mail of a batch, letter to request, with its tokens ({found.tokens_us:.1f}): {found.batched_us:.1f}",
        )
    )


if __name__ == "__main__":
    print(report(measure()))
