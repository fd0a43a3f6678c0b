"""Campaigns and triggers, from submission to the last leg: fan-out, dry runs, and what the clock sets going."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import scheduling
from dispatcher.ledger.delivery.claims import Chunk
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime.services import Services

RELEASE_BATCH = 5_000


# -- what the clock sets going -----------------------------------------------------------------------------------------


def due_chunks(services: Services) -> list[DueChunk]:
    """Start what is due: scheduled campaigns, held and waiting messages. Returns the chunks to put on the broker now."""
    now = services.clock()
    with lend(services.pool) as connection:
        lifecycle.start_due(connection, now)
        scheduling.release_parked(connection, now, RELEASE_BATCH)
        return scheduling.take_due(
            connection, now, now - timedelta(seconds=services.engine.lease_seconds), services.engine.window_chunks
        )


def next_chunk(services: Services, chunk: Chunk) -> list[DueChunk]:
    """What takes the place of a chunk just worked on; also notices a campaign's end."""
    if chunk.campaign_no is None:
        return []
    with lend(services.pool) as connection:
        following = scheduling.take_next(connection, chunk, services.clock())
        if not following:
            lifecycle.finish_ended(connection, services.clock(), chunk.campaign_no)
        return following
