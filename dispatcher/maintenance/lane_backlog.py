"""How many tasks wait in each lane of a Valkey or Redis broker, and for how long the oldest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import celeryconfig
from dispatcher.runtime.broker_store import connect_store, is_store

# kombu has one list for each priority: `lane` for the first one, then `lane\x06\x16N`. The oldest message is at the right end. The
# script runs on the server, because a message may hold a whole audience. Its body is Base64, so only a header can match.
_SEPARATOR = "\x06\x16"
_SCRIPT = """
local tasks, oldest = 0, false
for _, key in ipairs(KEYS) do
  tasks = tasks + redis.call('LLEN', key)
  local message = redis.call('LINDEX', key, -1)
  local at = message and string.match(message, '"published_at": ?([%d%.]+)')
  if at and (not oldest or tonumber(at) < tonumber(oldest)) then oldest = at end
end
return {tasks, oldest or ''}
"""


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """The tasks that wait in a lane. `oldest_at`: a Unix time; None where nothing waits, or the publisher wrote no time."""

    tasks: int
    oldest_at: float | None


def backlog(broker_url: str) -> Mapping[str, LaneBacklog]:
    """The backlog of each lane; nothing for another broker. Raises `redis.RedisError`."""
    if not is_store(broker_url):
        return {}
    priorities = celeryconfig.broker_transport_options["priority_steps"]
    assert isinstance(priorities, list)  # noqa: S101  celeryconfig is typed as one dictionary
    lanes = {}
    with connect_store(broker_url, 2.0, 1.0) as client:
        script = client.register_script(_SCRIPT)
        for lane in celeryconfig.LANES:
            tasks, oldest = script(keys=[lane if step == 0 else f"{lane}{_SEPARATOR}{step}" for step in priorities])
            lanes[lane] = LaneBacklog(int(tasks), float(oldest) if oldest else None)
    return lanes
