"""How many tasks wait in each lane of the broker, and for how long the oldest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis import RedisError

import celeryconfig
from dispatcher.client import rabbitmq
from dispatcher.client.jobs import BrokerUnavailable
from dispatcher.domain.broker_url import is_rabbitmq
from dispatcher.runtime.broker_store import connect_store

ANSWER_SECONDS, CONNECT_SECONDS = 2.0, 1.0

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
    """The tasks that wait in a lane. `oldest_at`: a Unix time; None where nothing waits, or the broker does not say."""

    tasks: int
    oldest_at: float | None


def backlog(broker_url: str) -> Mapping[str, LaneBacklog]:
    """The backlog of each lane. Raises `BrokerUnavailable`."""
    try:
        return _rabbitmq(broker_url) if is_rabbitmq(broker_url) else _valkey(broker_url)
    except (RedisError, ValueError, TypeError) as error:  # the last two: an option that only Celery knows
        raise BrokerUnavailable(type(error).__name__) from error


def ping(store_url: str) -> None:
    """See whether the store answers. Raises `BrokerUnavailable`."""
    try:
        with connect_store(store_url, ANSWER_SECONDS, CONNECT_SECONDS) as client:
            client.ping()
    except (RedisError, ValueError, TypeError) as error:
        raise BrokerUnavailable(type(error).__name__) from error


def _rabbitmq(broker_url: str) -> Mapping[str, LaneBacklog]:
    """Without ages: RabbitMQ shows a waiting message only by delivering it."""
    second = {"campaign": celeryconfig.CAMPAIGN_FIRST}
    tasks = rabbitmq.waiting(broker_url, (*celeryconfig.LANES, *second.values()), ANSWER_SECONDS)
    return {lane: LaneBacklog(tasks[lane] + tasks.get(second.get(lane, ""), 0), None) for lane in celeryconfig.LANES}


def _valkey(broker_url: str) -> Mapping[str, LaneBacklog]:
    priorities = celeryconfig.broker_transport_options["priority_steps"]
    lanes = {}
    with connect_store(broker_url, ANSWER_SECONDS, CONNECT_SECONDS) as client:
        script = client.register_script(_SCRIPT)
        for lane in celeryconfig.LANES:
            tasks, oldest = script(keys=[lane if step == 0 else f"{lane}{_SEPARATOR}{step}" for step in priorities])
            lanes[lane] = LaneBacklog(int(tasks), float(oldest) if oldest else None)
    return lanes
