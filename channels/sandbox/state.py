"""The state of a running sandbox. Each handler gets it as its first argument."""

from __future__ import annotations

import os
import random
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from channels.sandbox.arrivals import Arrival, ArrivalLog
from channels.sandbox.contents import ContentStore
from channels.sandbox.events import EventQueue
from channels.sandbox.faults import FaultRules
from channels.sandbox.keys import SendGridSigner

STORED_MESSAGES_MAX = 20_000
STORED_BYTES_MAX = 64_000_000


class StoredRequest(NamedTuple):
    """An accepted request as received, with the messages numbered `first` to `first + size - 1`."""

    first: int
    size: int
    provider: str
    body: bytes


class RequestStore:
    """The bodies of the newest requests. Nothing is parsed or copied here: they are read only when somebody looks."""

    def __init__(self, messages_max: int = STORED_MESSAGES_MAX, bytes_max: int = STORED_BYTES_MAX) -> None:
        self._requests: deque[StoredRequest] = deque()
        self._messages_max, self._bytes_max = messages_max, bytes_max
        self._messages = self._bytes = 0

    def add(self, request: StoredRequest) -> None:
        self._requests.append(request)
        self._messages += request.size
        self._bytes += len(request.body)
        while len(self._requests) > 1 and (self._messages > self._messages_max or self._bytes > self._bytes_max):
            oldest = self._requests.popleft()
            self._messages -= oldest.size
            self._bytes -= len(oldest.body)

    def find(self, seq: int) -> StoredRequest | None:
        """Return the request that contains message `seq`, or None if it is no longer stored."""
        for request in reversed(self._requests):
            if request.first <= seq:
                return request if seq < request.first + request.size else None
        return None

    def clear(self) -> None:
        self._requests.clear()
        self._messages = self._bytes = 0


@dataclass(slots=True)
class SandboxState:
    """State of one sandbox. `nonce` makes the ids of this process different from those of any other run."""

    log: ArrivalLog
    events: EventQueue
    faults: FaultRules
    signer: SendGridSigner
    clock: Callable[[], float] = time.time
    nonce: str = field(default_factory=lambda: os.urandom(8).hex())
    requests: RequestStore = field(default_factory=RequestStore)
    refused_keys: set[str] = field(default_factory=set)  # API keys, auth tokens and access tokens that get a 401
    auth_tokens: dict[str, str] = field(default_factory=dict)  # Twilio account -> the auth token that its client uses
    stopped: set[str] = field(default_factory=set)  # numbers that replied STOP
    contents: ContentStore = field(default_factory=ContentStore)  # WhatsApp templates
    contents_created: int = 0
    failed: dict[str, int] = field(default_factory=dict)  # Twilio message -> the code with which it failed after it was accepted
    tokens_issued: int = 0
    replies: int = 0

    def record(self, body: bytes, arrivals: Sequence[Arrival]) -> int:
        """Record the messages of one request and store its body. Returns the number of the first message."""
        first, _ = self.log.append(arrivals)
        self.requests.add(StoredRequest(first, len(arrivals), arrivals[0].provider, body))
        return first

    def unique_id(self, seq: int) -> str:
        """Return 32 hexadecimal digits, unique across runs; the last sixteen are the message's number."""
        return f"{self.nonce}{seq:016x}"


def make_state(state_folder: Path | None = None, *, seed: int = 0, clock: Callable[[], float] = time.time) -> SandboxState:
    """Create the state. With a `state_folder`, arrivals and the event key are kept over restarts."""
    if state_folder:
        state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_folder.chmod(0o700)
    signer = SendGridSigner(state_folder / "event-key.pem" if state_folder else None)
    rng = random.Random(seed)  # noqa: S311  for faults, not for secrets
    return SandboxState(
        log=ArrivalLog(state_folder / "arrivals.jsonl" if state_folder else None, clock),
        events=EventQueue(signer, rng, clock),
        faults=FaultRules(rng),
        signer=signer,
        clock=clock,
        contents=ContentStore(state_folder / "contents.json" if state_folder else None),
    )


def digest(body: bytes) -> str:
    """Return a checksum that identifies a request in the log. It is not a cryptographic hash."""
    return f"{zlib.crc32(body):08x}"
