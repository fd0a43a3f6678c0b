"""`--wait` and `--timeout`: wait for the work of other processes, and say why there is no progress."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.output import REFUSED, err, fail
from dispatcher.maintenance.standstills import examine
from dispatcher.runtime.services import Services

PATIENCE_SECONDS = 10.0  # without any progress: then the command says why
NO_CAUSE = "is a worker running? (`dispatcher up`, or `celery -A dispatcher worker`)"

Timeout = Annotated[
    float | None,
    typer.Option(min=1, metavar="SECONDS", help="With --wait: end with an error after this time. The work goes on."),
]


class Patience:
    """The wait for one piece of work. `subject` names it in messages."""

    def __init__(self, services: Services, subject: str, timeout: float | None) -> None:
        self._services, self._subject, self._timeout = services, subject, timeout
        self._began = self._moved = services.monotonic_clock()
        self._last: object = None
        self._has_warned = False

    def pause(self, progress: object, state: str, seconds: float) -> None:
        """Sleep until the next look. `progress` is compared with that of the last look; `state` says what is open."""
        now = self._services.monotonic_clock()
        if progress != self._last:
            self._last, self._moved = progress, now
        elif not self._has_warned and now - self._moved >= PATIENCE_SECONDS:
            self._has_warned = True
            err.print(f"no progress of {self._subject} ({state}): {causes(self._services)}", markup=False)
        if self._timeout is not None and now - self._began >= self._timeout:
            message = f"{self._subject} has not ended after {self._timeout:g} s ({state}), and goes on without this command"
            fail(f"{message}: {causes(self._services)}", REFUSED)
        self._services.sleep(seconds)


def causes(services: Services) -> str:
    """What stands still, or a question where nothing does."""
    return " ".join(each.text for each in examine(services).findings) or NO_CAUSE
