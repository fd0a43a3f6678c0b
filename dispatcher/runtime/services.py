"""What the rooms are given to work with. Chosen once, by `bootstrap`; everything below takes it as an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from channels.base import Channel, Provider
from dispatcher.content import Catalog
from dispatcher.ledger.connection import Pool
from dispatcher.policy import Policy

BATCH_MESSAGES_MAX = 100
COLLECT_AFTER = (50_000, 20, 100)  # objects, young and middle garbage collections; Python's own numbers cost 8 µs a message


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Numbers of the engine, each a promise to somebody.

    `batch_messages_max` is what one killed worker process leaves `unresolved` at most; `together` is what one request carries, by
    channel: who asks for more there than a batch accepts that loss. `lease_seconds` is how long a worker may take from claim to
    settle before its claims count as lost; it exceeds the longest provider call.
    """

    batch_messages_max: int = BATCH_MESSAGES_MAX
    together: Mapping[Channel, int] = field(default_factory=dict)
    lease_seconds: float = 60.0
    window_chunks: int = 64  # chunks of one campaign on the broker at a time
    decide_rounds_max: int = 5  # times a chunk is decided again because choices changed meanwhile; then it waits for its next turn
    settle_patience_seconds: float = 20.0  # how long receipts in hand wait for a ledger that went away

    def batch(self, channels: Sequence[Channel]) -> int:
        """How many messages are claimed at once: a batch, or a whole request's where all go by one channel that carries more."""
        return max(self.batch_messages_max, self.together.get(channels[0], 1) if len(channels) == 1 else 1)


@dataclass(frozen=True, slots=True)
class Services:
    """The implementations and the world: ledger, policy, templates, providers, clock and dice."""

    pool: Pool
    policy: Policy
    catalog: Catalog
    providers: Mapping[Channel, Provider] = field(repr=False)
    webhook_keys: Mapping[str, str] = field(repr=False)  # by provider; verify its webhook calls, an empty or missing one none
    secret: bytes = field(repr=False)
    public_url: str
    clock: Callable[[], datetime]
    random: Callable[[], float]
    sleep: Callable[[float], None]
    engine: EngineConfig = field(default_factory=EngineConfig)
