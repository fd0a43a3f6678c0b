"""Which events an endpoint gets, and the next batch of them."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic_core import from_json

from dispatcher.events.catalog import DATA, EventFamily
from dispatcher.events.feed import types_chosen
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.events import stream
from dispatcher.ledger.events.endpoint_cursors import EndpointCursor
from dispatcher.ledger.events.event_endpoints import EndpointTarget

SCAN_MAX = 5_000  # events that are looked at for one batch: far less than a second, because threads share a processor


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Chooses events. An event without an entity is no event of a chosen entity; the same holds for campaigns."""

    types: frozenset[str] | None
    entities: frozenset[str]
    campaigns: tuple[str, ...]

    @classmethod
    def of(cls, target: EndpointTarget) -> EventFilter:
        """The filter of an endpoint. Raises `BadInput` for a pattern that no type matches."""
        return cls(types_chosen(target.types), frozenset(target.entities), target.campaigns)

    @property
    def kinds(self) -> list[str]:
        """The kinds of events that can be chosen."""
        wanted = {kind for kind in EventFamily if self.types is None or any(each.split(".")[1] == kind for each in self.types)}
        if self.entities:
            wanted = {kind for kind in wanted if "entity" in DATA[kind].model_fields}
        if self.campaigns:
            wanted = {kind for kind in wanted if "campaign" in DATA[kind].model_fields}
        return sorted(wanted)

    @property
    def is_open(self) -> bool:
        """Whether it chooses every event."""
        return self.types is None and not self.entities and not self.campaigns

    def chooses(self, line: bytes) -> bool:
        """Whether it chooses this event, as the stream has it."""
        if self.is_open:
            return True
        event = from_json(line)
        data = event["data"]
        return (
            (self.types is None or event["type"] in self.types)
            and (not self.entities or data.get("entity") in self.entities)
            and (not self.campaigns or _matches(data.get("campaign"), self.campaigns))
        )


def _matches(campaign: str | None, patterns: Collection[str]) -> bool:
    return campaign is not None and any(fnmatchcase(campaign, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class WebhookBatch:
    """The events of one call, and the number up to which all are done with them. There can be none that were chosen."""

    lines: tuple[bytes, ...]
    last: int

    def traces(self) -> tuple[str, ...]:
        """The traces of the events, each once, as `traceparent`."""
        found = (from_json(line).get("traceparent") for line in self.lines)
        return tuple(dict.fromkeys(each for each in found if each))

    def content(self, batch_max: int) -> tuple[str, bytes]:
        """The media type and the body: one event by itself where an endpoint takes only one at a time, else an array."""
        if batch_max == 1:
            return "application/cloudevents+json", self.lines[0]
        return "application/cloudevents-batch+json", b"[" + b",".join(self.lines) + b"]"


def next_batch(connection: Connection, target: EndpointTarget, cursor: EndpointCursor) -> WebhookBatch:
    """The batch in flight, if there is one, or else the next one."""
    chosen = EventFilter.of(target)
    end = min(cursor.in_flight or cursor.last or 2**63 - 1, stream.head(connection).last)
    lines: list[bytes] = []
    with closing(_numbered(connection, cursor.cursor, chosen)) as events:
        for scanned, (number, line) in enumerate(events, start=1):
            if number > end:
                break
            if chosen.chooses(line):
                lines.append(line)
            if len(lines) == target.batch_max or scanned == SCAN_MAX:
                return WebhookBatch(tuple(lines), number)
    return WebhookBatch(tuple(lines), end)


def _numbered(connection: Connection, after: int, chosen: EventFilter) -> Generator[tuple[int, bytes]]:
    with closing(stream.read(connection, after, None if chosen.is_open else chosen.kinds)) as rows:
        for row in rows:
            for number, line in enumerate(row.lines, start=row.first):
                if number > after:
                    yield number, line
