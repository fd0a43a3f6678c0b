"""The processes of an installation, each on its own: `dispatcher up` starts all of them, `dispatcher run` becomes one of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NoReturn

from celeryconfig import LANES
from dispatcher.devserver import supervisor
from dispatcher.devserver.supervisor import ChildCommand
from dispatcher.runtime.environment import with_secret_files
from dispatcher.runtime.settings import InvalidSettings, Settings

__all__ = ["CAMPAIGN", "CAMPAIGN_NICE", "LANES", "become", "default_workers", "flower_login", "lane_worker"]

CAMPAIGN = "campaign"
CAMPAIGN_NICE = 19  # lowest priority: a trigger must not wait for a large campaign where both need a processor
FLOWER_LOGIN = "FLOWER_BASIC_AUTH"  # Flower's own variable


def lane_worker(settings: Settings, lane: str, processes: int | None = None) -> ChildCommand:
    """The worker of a lane, with `processes` processes; by default as many as the lane needs on one machine."""
    usual = {
        CAMPAIGN: default_workers(),
        # While one task for webhooks waits for its last answers, the next one serves all others. Kafka and files take one each.
        "events": 2 + (settings.kafka is not None) + (settings.event_files is not None),
        "maintenance": 2,  # the sweep runs beside one long task, such as `retain`
    }
    return supervisor.worker(lane, [lane], processes or usual.get(lane, 1), nice=CAMPAIGN_NICE if lane == CAMPAIGN else 0)


def default_workers() -> int:
    """Campaign worker processes: one per processor."""
    return max(1, len(os.sched_getaffinity(0)))


def flower_login(environ: Mapping[str, str]) -> str:
    """Who may sign in to Flower, "user:password", also from the folder of secrets. Raises `InvalidSettings` where nobody is named:
    whoever gets in can stop tasks and workers."""
    found, faults = with_secret_files(environ)
    login = found.get(FLOWER_LOGIN, "").strip()
    if faults or ":" not in login:
        raise InvalidSettings([*faults, f"{FLOWER_LOGIN} (not shown) must be user:password, of those who may stop tasks."])
    return login


def become(command: ChildCommand, environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by `command`, as `dispatcher up` would start it: signals and the exit code are the command's own."""
    os.umask(0o077)  # what it writes, such as the schedule of beat, is for this account only
    os.nice(command.nice)
    os.execve(command.argv[0], command.argv, {**environ, **command.environ})  # noqa: S606 - our own commands, without a shell
