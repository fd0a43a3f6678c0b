"""Two systems of the bank that follow the program from outside: one reads the feed, the other gets webhooks.

Both know nothing but the documents. What they were told is compared with the ledger: nothing missing, nothing changed, order kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.program import Program
from tests.support.feed import chained
from tests.support.webhook_receiver import Receiver

PAGE_SECONDS = 2  # how long the server waits for a new event
STATES_ON_THE_WAY = frozenset({"pending", "claimed"})  # not events: another state follows


@dataclass(slots=True)
class FeedReader:
    """Reads `GET /v1/events` page by page, and verifies numbers and hashes. A request without an answer is repeated."""

    program: Program
    cursor: int = 0
    hash: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    seen_at: list[float] = field(default_factory=list)  # of each event, in seconds since 1970
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Read from now on, in a thread."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                path = f"/v1/events?after={self.cursor}&wait={PAGE_SECONDS}"
                status, page = self.program.call("GET", path, seconds=PAGE_SECONDS + 8.0)
            except (OSError, ValueError):
                status, page = 0, None
            if status == 200:
                self._take(page)
            else:
                time.sleep(0.2)

    def _take(self, page: dict[str, Any]) -> None:
        if self.hash is not None and page["previous_hash"] != self.hash:
            self.errors.append(f"the event {self.cursor} is not the one that was read before")
        if [int(event["sequence"]) for event in page["events"]] != list(range(self.cursor + 1, page["next"] + 1)):
            self.errors.append(f"the page after {self.cursor} has a gap")
        if chained(page["previous_hash"], page["events"]) != page["hash"]:
            self.errors.append(f"an event after {self.cursor} does not fit its hash")
        self.seen_at += [time.time()] * len(page["events"])
        self.events += page["events"]
        self.cursor, self.hash = page["next"], page["hash"]

    def message_states(self) -> dict[str, dict[str, Any]]:
        """The data of the last event of each message, by message id."""
        return {event["data"]["message"]: event["data"] for event in self.events if event["type"].startswith("dispatcher.message.")}

    def seen(self, type_: str, **data: Any) -> float | None:
        """When the first event of this type with these data was read; None while it was not."""
        for event, at in zip(list(self.events), list(self.seen_at), strict=False):
            if event["type"] == type_ and data.items() <= event["data"].items():
                return at
        return None


@dataclass(slots=True)
class Consumers:
    """The reader of the feed and the receiver of webhooks, and what they miss."""

    program: Program
    reader: FeedReader
    receiver: Receiver
    begins: int  # webhooks are sent for the events after this one

    def is_up_to_date(self) -> bool:
        """Whether everything that happened so far was published, read and delivered."""
        ((waiting, last),) = self.program.sql("SELECT (SELECT count(*) FROM outbox), (SELECT last FROM event_stream)")
        return bool(waiting == 0 and self.reader.cursor == last and self._delivered() >= last)

    def _delivered(self) -> int:
        calls = self.receiver.calls
        return max((int(event["sequence"]) for call in calls[-3:] for event in call), default=0)

    def errors(self) -> Iterator[str]:
        """What the two systems were not told, or were told wrongly."""
        yield from self.reader.errors
        told = self.reader.message_states()
        for ref, state, reason in self.program.sql("SELECT concat_ws('-', period, chunk, row, leg), state, reason FROM messages"):
            event = told.get(ref)
            if state not in STATES_ON_THE_WAY and (event is None or (event["state"], event["reason"]) != (state, reason)):
                yield f"{ref} is {state} ({reason}), the feed says {event and (event['state'], event['reason'])}"
        delivered = [int(event["sequence"]) for event in self.receiver.events]
        if delivered != sorted(delivered):
            yield "webhooks came out of order"
        if missing := {number for event in self.reader.events if (number := int(event["sequence"])) > self.begins} - set(delivered):
            yield f"{len(missing)} events came by no webhook, the first is {min(missing)}"


def follow(program: Program, receiver: Receiver) -> Consumers:
    """Begin to follow the program."""
    status, answer = program.insist("POST", "/v1/webhooks", {"id": "crm", "url": receiver.url, "batch_max": 100})
    assert status == 201, (status, answer)
    reader = FeedReader(program)
    reader.start()
    return Consumers(program, reader, receiver, answer["cursor"])
