"""What is due: start scheduled campaigns, release held and waiting messages, choose the chunks for the broker."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import scheduling
from dispatcher.ledger.delivery.claims import Chunk
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime.services import Services

__all__ = ["Chunk", "DueChunk", "due_chunks", "next_chunk"]

RELEASE_BATCH = 5_000


def due_chunks(services: Services) -> list[DueChunk]:
    """Start scheduled campaigns and release held and waiting messages. Returns the chunks to put on the broker now."""
    now = services.clock()
    stale = now - timedelta(seconds=services.engine.lease_seconds)
    with lend(services.pool) as connection:
        lifecycle.start_due(connection, now)
        scheduling.release_parked(connection, now, RELEASE_BATCH)
        return scheduling.take_due(connection, now, stale, services.engine.window_chunks)


def next_chunk(services: Services, chunk: Chunk) -> list[DueChunk]:
    """The campaign's next chunk, in place of one that is done; where there is none, finish the campaign if nothing is left."""
    if chunk.campaign_no is None:
        return []
    with lend(services.pool) as connection:
        following = scheduling.take_next(connection, chunk, services.clock())
        if not following:
            lifecycle.finish_ended(connection, services.clock(), chunk.campaign_no)
        return following
