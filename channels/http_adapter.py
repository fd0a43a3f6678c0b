"""What adapters over HTTP share: the send loop, what an HTTP status means, Retry-After."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

from channels.alerts import alert
from channels.base import ChannelError, Misconfigured, Outbound, Receipt, Rejected, Result, StaleClaim, Throttled, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.send_window import SendWindow

T = TypeVar("T")

Clock: TypeAlias = Callable[[], datetime]
ErrorCodes: TypeAlias = Mapping[str, tuple[type[ChannelError], str]]  # a provider's code -> the error, and a hint in our own words

RETRY_AFTER_SECONDS_MAX = 24 * 3600.0

# What odd data can raise in code that builds or reads a message. A time limit, a full disk or an interrupt is none of these.
DATA_ERRORS = (ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, RuntimeError, TypeError, ValueError)

_RECEIPT = re.compile(r"[!-~]{1,512}")


def utc_now() -> datetime:
    """Return the current time; the default clock of the adapters."""
    return datetime.now(UTC)


def send_all(
    http: HttpTransport,
    batch: Iterable[T],
    build: Callable[[T], HttpRequest],
    parse: Callable[[HttpResponse], Result],
    window: SendWindow,
    ids: Callable[[T], Sequence[str]],
) -> Iterator[tuple[T, Result]]:
    """Build, send and parse a batch of outbounds or mail batches. Yield exactly one result for each item.

    An error in `build` becomes `Rejected` for that item; one in `parse` becomes `Uncertain`. Later requests are built while
    earlier ones are in flight. Once `window` has closed nothing more is built or sent: `StaleClaim`. `ids` returns the message ids
    of an item. Errors that do not come from the data, such as a time limit, end the whole call.
    """
    unbuilt: list[tuple[T, Result]] = []

    def built() -> Iterator[tuple[T, HttpRequest]]:
        for item in batch:
            if not window.is_open():
                unbuilt.append((item, StaleClaim()))
                continue
            try:
                request = build(item)
            except ChannelError as refusal:
                unbuilt.append((item, refusal.with_traceback(None)))  # its stack frames hold the message
            except DATA_ERRORS as error:
                unbuilt.append((item, Rejected("unbuildable", type(error).__name__)))
            else:
                yield item, request

    for item, answer in http.exchange(built(), lambda item: window.may_start_sending(ids(item))):
        yield item, _parse_response(parse, answer) if isinstance(answer, HttpResponse) else answer
    yield from unbuilt


def message_ids(outbound: Outbound) -> tuple[str]:
    """Return the ids in a request that carries one message."""
    return (outbound.id,)


def _parse_response(parse: Callable[[HttpResponse], Result], answer: HttpResponse) -> Result:
    try:
        return parse(answer)
    except DATA_ERRORS as error:
        return Uncertain("unreadable", type(error).__name__)


# -- after sending -----------------------------------------------------------------------------------------------------


def parse_receipt(name: object) -> Result:
    """Return a receipt if `name` can be a provider's message id; success without an id is `Uncertain`."""
    if isinstance(name, str) and _RECEIPT.fullmatch(name):
        return Receipt(name)
    return Uncertain("no_name", "success, but without a message id")


def error_from_status(answer: HttpResponse, now: datetime) -> ChannelError:
    """Return what a status means if the body has no known code. Everything but a refusal (4xx) is `Uncertain`."""
    code = f"http_{answer.status}"
    if answer.status == 429:
        return Throttled(code, retry_after_seconds=retry_after_seconds(answer, now))
    if answer.status in {401, 403, 404, 405, 407}:
        return Misconfigured(code, "the key, its rights or the base URL")
    if 400 <= answer.status < 500:
        if answer.status != 413:
            alert("http", code, known=False)
        return Rejected(code)
    return Uncertain(code)


def retry_after_seconds(answer: HttpResponse, now: datetime) -> float | None:
    """Return the wait that `Retry-After` asks for, in either of its forms, at most a day. None if it is absent or unreadable."""
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
    """Send a GET, for `check` and look-ups. Return the answer if its status is 200, else the error that the status means."""
    answer = http.request(request)
    if not isinstance(answer, HttpResponse) or answer.status == 200:
        return answer
    return error_from_status(answer, now())
