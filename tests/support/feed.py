"""A consumer of the feed that knows nothing of this program but its documents: it rebuilds states and checks the hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dispatcher.events import feed, publication
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

NOTHING: Mapping[str, tuple[str, str | None]] = {}


def all_events(services: Services) -> list[dict[str, Any]]:
    """Publish what waits, and read the whole feed."""
    publication.publish(services, seconds_max=60.0)
    events: list[dict[str, Any]] = []
    cursor, more = feed.oldest(services) - 1, True
    while more:
        page = feed.read(services, cursor, 1_000)
        events += [json.loads(line) for line in page.lines]
        cursor, more = page.next, page.more
    return events


def chained(previous: str, events: list[dict[str, Any]]) -> str:
    """The hash of the last of these events, as a consumer computes it from the JSON that it got."""
    digest = bytes.fromhex(previous)
    for event in events:
        canonical = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(digest + canonical.encode()).digest()
    return digest.hex()


def message_states(services: Services) -> dict[str, tuple[str, str | None]]:
    """State and reason of every message that is not on the way to another state; other systems do not hear of canaries."""
    with lend(services.pool) as connection:
        rows = connection.execute(
            "SELECT concat_ws('-', period, chunk, row, leg), state, reason FROM messages WHERE state NOT IN ('pending', 'claimed')"
            " AND NOT starts_with(recipient_id, 'canary:')"
        )
        return {ref: (state, reason) for ref, state, reason in rows}


def untold(services: Services, before: Mapping[str, tuple[str, str | None]] = NOTHING) -> list[str]:
    """The messages whose state the feed does not tell, though it changed; empty as long as no statement forgets the outbox."""
    told: dict[str, tuple[str, str | None]] = dict(before)
    for event in all_events(services):
        if event["type"].startswith("dispatcher.message."):
            told[event["data"]["message"]] = (event["data"]["state"], event["data"]["reason"])
    return [
        f"{ref} is {state}, the feed says {told.get(ref)}"
        for ref, state in message_states(services).items()
        if told.get(ref) != state
    ]
