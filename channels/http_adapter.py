"""What adapters over HTTP share: the way a batch goes through, and the plain meaning of a status."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Receipt, Rejected, Result, Throttled, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport

T = TypeVar("T")

Clock: TypeAlias = Callable[[], datetime]
ErrorCodes: TypeAlias = Mapping[str, tuple[type[ChannelError], str]]  # a provider's code -> the error, and a hint in our words

RETRY_AFTER_SECONDS_MAX = 24 * 3600.0

_RECEIPT = re.compile(r"[!-~]{1,512}")


def utc_now() -> datetime:
    """The default clock of the adapters."""
    return datetime.now(UTC)


def send_all(
    http: HttpTransport,
    batch: Iterable[T],
    build: Callable[[T], HttpRequest],
    parse: Callable[[HttpResponse], Result],
) -> Iterator[tuple[T, Result]]:
    """Build, send and read a batch, of outbounds mostly; each item ends in exactly one result.

    Whatever goes wrong in building one message is that message's `Rejected`; whatever goes wrong in reading an answer
    is `Uncertain`. Messages are built while earlier ones travel.
    """
    unbuilt: list[tuple[T, Result]] = []

    def built() -> Iterator[tuple[T, HttpRequest]]:
        for item in batch:
            try:
                request = build(item)
            except ChannelError as refusal:
                unbuilt.append((item, refusal.with_traceback(None)))  # its frames hold the message
            except Exception as error:
                unbuilt.append((item, Rejected("unbuildable", type(error).__name__)))
            else:
                yield item, request

    for item, answer in http.exchange(built()):
        yield item, _parse_response(parse, answer) if isinstance(answer, HttpResponse) else answer
    yield from unbuilt


def _parse_response(parse: Callable[[HttpResponse], Result], answer: HttpResponse) -> Result:
    try:
        return parse(answer)
    except Exception as error:
        return Uncertain("unreadable", type(error).__name__)


# -- after sending -----------------------------------------------------------------------------------------------------


def parse_receipt(name: object) -> Result:
    """A receipt, when the provider's name for the message can be one; a "yes" without a name is `Uncertain`."""
    if isinstance(name, str) and _RECEIPT.fullmatch(name):
        return Receipt(name)
    return Uncertain("no_name", "taken, it seems, but without a name")


def error_from_status(answer: HttpResponse, now: datetime) -> ChannelError:
    """What a status says where the body names no code that we know. Anything but a plain no (4xx) is `Uncertain`."""
    code = f"http_{answer.status}"
    if answer.status == 429:
        return Throttled(code, retry_after_seconds=retry_after_seconds(answer, now))
    if answer.status in {401, 403, 404, 405, 407}:
        return Misconfigured(code, "the key, its rights or the address of the provider")
    if 400 <= answer.status < 500:
        if answer.status != 413:
            alert("http", code, known=False)
        return Rejected(code)
    return Uncertain(code)


def retry_after_seconds(answer: HttpResponse, now: datetime) -> float | None:
    """The wait that a `Retry-After` asks for, in either of its forms; at most a day. None without a readable one."""
    value = answer.header("Retry-After") or ""
    if value.isascii() and value.isdigit():
        return min(float(value), RETRY_AFTER_SECONDS_MAX)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max(0.0, (until - now).total_seconds()), RETRY_AFTER_SECONDS_MAX)


def fetch(http: HttpTransport, request: HttpRequest, now: Clock) -> HttpResponse | ChannelError:
    """For `check`: a question's answer where it is a 200, else what its status says."""
    answer = http.request(request)
    if not isinstance(answer, HttpResponse) or answer.status == 200:
        return answer
    return error_from_status(answer, now())
