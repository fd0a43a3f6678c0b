"""The proof of the feed of events: numbers without gaps, and a hash over each event and all before it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.client.api_errors import FeedBroken
from dispatcher.client.documents import EventBody, EventPage


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """The last event that was read, and its hash. Store both: the next reader then notices if the past was changed."""

    after: int = 0
    hash: str | None = None


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """Events in their order, and the position after them."""

    events: Sequence[EventBody]
    position: FeedPosition
    more: bool


def check_page(position: FeedPosition, page: EventPage) -> FeedBatch:
    """The events of a page that follow this position. Raises `FeedBroken`. A page of chosen types has no hash to check."""
    if page["previous_hash"] is None or page["hash"] is None:
        return FeedBatch(page["events"], FeedPosition(page["next"]), page["more"])
    if position.hash not in (None, page["previous_hash"]):
        raise FeedBroken(f"event {position.after} is not the one that was read before")
    digest = bytes.fromhex(page["previous_hash"])
    for number, event in enumerate(page["events"], start=position.after + 1):
        if int(event["sequence"]) != number:
            raise FeedBroken(f"event {number} is missing")
        line = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(digest + line.encode()).digest()
    if digest.hex() != page["hash"]:
        raise FeedBroken(f"an event after {position.after} was changed")
    return FeedBatch(page["events"], FeedPosition(page["next"], page["hash"]), page["more"])
