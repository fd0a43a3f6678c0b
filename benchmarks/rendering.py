"""Mails written along known paths against the same mails written by their template, byte for byte equal; and what a mail in a
batch costs on its way to the wire. `python -m benchmarks.rendering`; CPU time of this process, medians.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from channels.base import Channel, Email, Outbound, Receipt
from channels.http import Fault, Http, Request, Response
from channels.sendgrid import SendGrid
from dispatcher.content import Catalog, Letter, Links, Template, example_letter, load
from dispatcher.model import Language, Mode
from dispatcher.tokens import PREFERENCES, UNSUBSCRIBE, message_token

T = TypeVar("T")

LANGUAGES: Sequence[Language] = ("nl", "fr", "en", "nl")
_SECRET = b"for measuring only, sixty-four letters long, and known to everybody"


@dataclass(frozen=True, slots=True)
class Rendering:
    """CPU microseconds per mail. "texts" is rendering alone, from a reader's values to subject, HTML and text; "message" is all that
    a worker does: read the values, write, guard."""

    bytes: float  # of HTML and text
    plain_texts_us: float
    specialised_texts_us: float
    plain_message_us: float
    specialised_message_us: float
    tokens_us: float
    requests_us: float  # of a specialised mail in a batch: checked, joined with others, its request built
    plain_requests_us: float  # the same where mails bring no pieces and have to be compared

    @property
    def times_texts(self) -> float:
        """How many times as fast the texts are written."""
        return self.plain_texts_us / self.specialised_texts_us

    @property
    def times_message(self) -> float:
        """How many times as fast a whole message is made."""
        return self.plain_message_us / self.specialised_message_us

    @property
    def batched_us(self) -> float:
        """A whole mail of a batch, from its letter to the wire."""
        return self.specialised_message_us + self.requests_us


class _Swallow(Http):
    """A transport that costs nothing and takes everything."""

    def exchange(self, calls: Iterable[tuple[T, Request]]) -> Generator[tuple[T, Response | Fault]]:
        for tag, _ in calls:
            yield tag, Response(202, (b"HTTP/1.1 202 Accepted", b"X-Message-Id: swallowed"))


def measure(templates: Path = Path("templates"), people: int = 400, rounds: int = 7) -> Rendering:
    """Loan offers to so many people, in LANGUAGES, tailored, each with a name, a project and an amount of their own."""
    plain, quick = (_loan_offer(load(templates, dice)) for dice in (None, random.random))
    letters = [_letter(plain, number) for number in range(people)]
    for letter in letters:
        assert quick.render(letter) == plain.render(letter), "byte for byte"
    values = [plain.values(letter) for letter in letters]

    def texts(template: Template) -> Callable[[], object]:
        return lambda: [template.written(*each) for each in zip(letters, values, strict=True)]

    def messages(template: Template) -> Callable[[], object]:
        return lambda: [template.render(letter) for letter in letters]

    def requests(template: Template) -> Callable[[], object]:
        sendgrid, mails = SendGrid("SG.none", _Swallow()), _mails(template, letters)
        assert all(isinstance(result, Receipt) for _, result in sendgrid.send(mails))
        return lambda: [list(sendgrid.send(mails[first : first + 100])) for first in range(0, people, 100)]

    timed = _medians(
        rounds,
        [texts(plain), texts(quick), messages(plain), messages(quick), lambda: [*map(_links, range(people))]]
        + [requests(quick), requests(plain)],
    )
    size = sum(len(part.encode()) for mail in _mails(plain, letters) for part in _parts(mail))
    return Rendering(size / people, *(seconds / people * 1e6 for seconds in timed))


def _loan_offer(catalog: Catalog) -> Template:
    return catalog["loan_offer"]


def _letter(template: Template, number: int) -> Letter:
    data = {"first_name": f"Reader{number}", "project": f"project number {number % 97}", "amount": 5_000 + 500 * (number % 40)}
    language = LANGUAGES[number % len(LANGUAGES)]
    return example_letter(template, Channel.EMAIL, language, Mode.TAILORED, data, links=_links(number))


def _links(number: int) -> Links:
    id_ = f"202611-17-{number}-0"
    unsubscribe, preferences = (message_token(_SECRET, purpose, id_) for purpose in (UNSUBSCRIBE, PREFERENCES))
    return Links(f"https://messages.bank.example/u/{unsubscribe}", f"https://messages.bank.example/p/{preferences}")


def _mails(template: Template, letters: Sequence[Letter]) -> list[Outbound]:
    return [
        Outbound(f"202611-17-{number}-0", Channel.EMAIL, f"reader-{number}@home.example", template.render(letter))
        for number, letter in enumerate(letters)
    ]


def _parts(mail: Outbound) -> Sequence[str]:
    assert isinstance(mail.content, Email)
    return mail.content.html, mail.content.text


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
    return "\n".join(
        (
            f"specialised vs plain rendering, byte-equal, of a mail of {found.bytes / 1024:.1f} KB:",
            f"  texts from values        {found.plain_texts_us:6.1f} -> {found.specialised_texts_us:5.1f} µs   {found.times_texts:5.1f} x",
            f"  message, read and guarded{found.plain_message_us:6.1f} -> {found.specialised_message_us:5.1f} µs   {found.times_message:5.1f} x",
            f"  its share of a batch     {found.plain_requests_us:6.1f} -> {found.requests_us:5.1f} µs   "
            f"{found.plain_requests_us / found.requests_us:5.1f} x",
            f"a mail of a batch, letter to request: {found.batched_us:.1f} µs, and its two tokens {found.tokens_us:.1f} µs",
        )
    )


if __name__ == "__main__":
    print(report(measure()))
