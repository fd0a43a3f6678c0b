"""The feed: events after a cursor, in pages that prove that nothing is missing or changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic_core import from_json

from dispatcher.events.catalog import ALL_TYPES, PREFIX
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import stream
from dispatcher.ledger.events.stream import PublishedRow
from dispatcher.runtime.services import Services

PAGE_MAX = 10_000


class CursorGone(Exception):
    """Events after this cursor were deleted: their retention period is over. `oldest` is the oldest number that is kept."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(f"event {after + 1} was deleted by retention; the oldest that is kept is {oldest}")
        self.oldest = oldest


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events as canonical JSON lines, and the cursor of the next page.

    `previous_hash` is the hash of the event `after`, `hash` that of the last one here. Both are None where types were chosen: a
    chain with left-out events proves nothing.
    """

    lines: tuple[bytes, ...]
    next: int
    more: bool
    previous_hash: str | None = None
    hash: str | None = None


def types_chosen(patterns: Sequence[str]) -> frozenset[str] | None:
    """The types that these patterns name, such as `dispatcher.message.failed`, `message.failed` or `consent`; None without any.

    Raises `BadInput` for a pattern that no type matches.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        full = pattern if pattern.startswith(f"{PREFIX}.") else f"{PREFIX}.{pattern}"
        found = {each for each in ALL_TYPES if fnmatchcase(each, full) or fnmatchcase(each, f"{full}.*")}
        if not found:
            raise BadInput(InputError("query", 0, "types", f"names no type of event; types are {', '.join(ALL_TYPES)}"))
        chosen |= found
    return frozenset(chosen) or None


def read(services: Services, after: int, limit: int, types: frozenset[str] | None = None) -> FeedPage:
    """The next events after this number, of these types; at most so many. Raises `CursorGone`, and `BadInput` for a cursor that
    no event has had yet."""
    with lend(services.pool) as connection:
        head = stream.head(connection)
        if after > head.last:
            raise BadInput(InputError("query", 0, "after", f"is higher than {head.last}, the number of the last event"))
        if after < head.last and after + 1 < (oldest := stream.oldest(connection)):
            raise CursorGone(after, oldest)
        if types is None:
            return _whole_page(connection, after, limit, head)
        return _chosen_page(connection, after, limit, types, head.last)


def _whole_page(connection: Connection, after: int, limit: int, head: stream.Head) -> FeedPage:
    lines: list[bytes] = []
    previous = None
    for row in stream.read(connection, after):
        skipped = max(after + 1 - row.first, 0)
        if previous is None:
            previous = _hash(row.previous_hash, row.lines[:skipped])
        lines += row.lines[skipped:]
        if len(lines) >= limit:
            break
    del lines[limit:]
    previous = head.hash if previous is None else previous
    end = after + len(lines)
    return FeedPage(tuple(lines), end, end < head.last, previous.hex(), _hash(previous, lines).hex())


def _hash(previous: bytes, lines: Iterable[bytes]) -> bytes:
    for each in lines:
        previous = stream.chain(previous, each)
    return previous


def _chosen_page(connection: Connection, after: int, limit: int, types: frozenset[str], end: int) -> FeedPage:
    """Where the page is not full, the cursor moves to the end of the stream, so that no event is looked at twice."""
    lines: list[bytes] = []
    kinds = sorted({each.split(".")[1] for each in types})
    for number, each in _numbered(stream.read(connection, after, kinds), after):
        if from_json(each)["type"] in types:
            lines.append(each)
            if len(lines) == limit:
                return FeedPage(tuple(lines), number, number < end)
    return FeedPage(tuple(lines), end, False)


def _numbered(rows: Iterable[PublishedRow], after: int) -> Iterator[tuple[int, bytes]]:
    for row in rows:
        for number, each in enumerate(row.lines, start=row.first):
            if number > after:
                yield number, each


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the stream found: how many events, from which number on, and the first fault, if any."""

    events: int
    first: int
    last: int
    fault: str | None = None


def verify(services: Services, after: int | None = None) -> Verification:
    """Check the numbers and the hashes of all events that are kept, or of those after this one."""
    with lend(services.pool) as connection:
        head, oldest = stream.head(connection), stream.oldest(connection)
        first = expected = max(oldest, (after or 0) + 1)
        hash_: bytes | None = None
        for row in stream.read(connection, expected - 1):
            if hash_ is None:
                expected, first = row.first, row.first
            elif row.previous_hash != hash_:
                return Verification(row.first - first, first, row.first, f"event {row.first} does not continue the chain of hashes")
            if row.first != expected:
                return Verification(expected - first, first, expected, f"event {expected} is missing; the next is {row.first}")
            if fault := _row_fault(row):
                return Verification(row.first - first, first, row.first, fault)
            hash_, expected = row.hash, row.last + 1
    if expected <= head.last:
        return Verification(expected - first, first, expected, f"event {expected} is missing; the stream ends at {head.last}")
    if hash_ is not None and expected == head.last + 1 and hash_ != head.hash:
        return Verification(expected - first, first, head.last, f"the hash of event {head.last} is not that of the stream's end")
    return Verification(expected - first, first, head.last)


def _row_fault(row: PublishedRow) -> str | None:
    for number, each in enumerate(row.lines, start=row.first):
        if int(from_json(each)["sequence"]) != number:
            return f"event {number} has another number in its content"
    if _hash(row.previous_hash, row.lines) != row.hash:
        return f"the content of events {row.first} to {row.last} does not have their hash"
    return None


def oldest(services: Services) -> int:
    """The number of the oldest event that is kept."""
    with lend(services.pool) as connection:
        return stream.oldest(connection)


def newest(services: Services) -> int:
    """The number of the last event; 0 where there is none."""
    with lend(services.pool) as connection:
        return stream.head(connection).last
