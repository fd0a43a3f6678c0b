"""Put work on the broker. If the broker cannot be reached, the work is in the ledger and starts later.

`dispatcher.tasks` is imported late, because Celery takes long to import and most commands need none.
"""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.campaigns import scheduler
from dispatcher.campaigns.scheduler import DueChunk
from dispatcher.cli.output import err
from dispatcher.runtime.services import Services


def publish(dues: Iterable[DueChunk]) -> None:
    """Put chunks on the broker. Raises what its client raises."""
    from dispatcher import tasks

    tasks.publish(dues)


def publish_or_warn(dues: Iterable[DueChunk], what: str) -> None:
    """Put chunks on the broker; print a warning where it cannot be reached. `what` they are: "campaign" or "message"."""
    from dispatcher import tasks

    try:
        tasks.publish(dues)
    except tasks.BROKER_FAULTS:
        err.print(f"the broker cannot be reached; the {what} is in the ledger and starts when the broker is back")


def start_due(services: Services) -> None:
    """Put the campaigns' due chunks on the broker."""
    publish_or_warn(scheduler.due_chunks(services), "campaign")
