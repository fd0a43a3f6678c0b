"""What is due: start scheduled campaigns, reopen held and waiting messages, choose the chunks for the broker."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.delivery.retries import STALE_SECONDS
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import scheduling
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.delivery.scheduling import CHUNKS_TOGETHER_MAX, UNKNOWN_DEPTHS, DueChunk, LaneDepths
from dispatcher.ledger.maintenance import generations
from dispatcher.runtime.services import Services

__all__ = ["CHUNKS_TOGETHER_MAX", "Chunk", "DueChunk", "LaneDepths", "due_chunks", "needs_no_work", "next_chunk"]

REOPEN_BATCH = 5_000


def due_chunks(services: Services, depths: LaneDepths = UNKNOWN_DEPTHS) -> list[DueChunk]:
    """Start scheduled campaigns and reopen held and waiting messages. Returns the chunks to put on the broker now.

    None while a restore of the ledger is not released. `depths`: how many broker messages wait in each lane. What waits there is
    not put there again.
    """
    now = services.clock()
    lease = timedelta(seconds=services.limits.lease_seconds)
    with lend(services.pool) as connection:
        if generations.is_held(connection):
            return []
        lifecycle.start_due(connection, now)
        scheduling.reopen_due_messages(connection, now, REOPEN_BATCH)
        return scheduling.take_due(connection, now, lease, services.limits.window_chunks, depths)


def give_back(services: Services) -> None:
    """Make pending again what a stopping worker had claimed and not started, before another one takes the rest of the chunk.

    What becomes due while that one works on the chunk would wait for a lease. Other messages may become due up to two seconds
    early, and are decided again.
    """
    with lend(services.pool) as connection:
        scheduling.reopen_due_messages(connection, services.clock() + timedelta(seconds=STALE_SECONDS), REOPEN_BATCH)


def needs_no_work(services: Services, period: int, number: int) -> bool:
    """Whether a broker message of this chunk needs no work: the chunk is done, or another worker is at work on it."""
    since = services.clock() - timedelta(seconds=services.limits.lease_seconds)
    with lend(services.pool) as connection:
        return scheduling.needs_no_work(connection, period, number, since)


def next_chunk(services: Services, chunk: Chunk, chunks_max: int = 1) -> list[DueChunk]:
    """The campaign's next chunks, in place of as many just done; where there is none, finish the campaign if nothing is left."""
    if chunk.campaign_no is None:
        return []
    with lend(services.pool) as connection:
        following = scheduling.take_next(connection, chunk, services.clock(), chunks_max)
        if not following:
            lifecycle.finish_completed(connection, services.clock(), chunk.campaign_no)
        return following
