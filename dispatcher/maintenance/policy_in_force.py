"""Which policy is in force, and whether a process may decide by its own."""

from __future__ import annotations

from datetime import datetime, timedelta

from dispatcher.domain.errors import PolicyNotInForce
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.maintenance import alerts, policies
from dispatcher.ledger.maintenance.heartbeats import newest_heartbeats
from dispatcher.ledger.maintenance.policies import PolicyInForce
from dispatcher.runtime.services import Services

__all__ = ["RESTART", "PolicyInForce", "PolicyWatch", "find", "halted", "halted_text", "why_halted", "will_halt"]

RESTART = (
    "Restart `dispatcher up`, or the workers, with the policy in force (variable DISPATCHER_POLICY);"
    " or put theirs in force again: `dispatcher policy adopt`."
)
PROGRAM, NOT_IN_FORCE = "dispatcher", "policy_not_in_force"  # the alert
CHECK_SECONDS = 1.0  # a trigger must not pay a round trip for it each time
# A worker with another policy looks again at each task, and gives it back after at most 4 seconds.
HALTED_SECONDS = 20.0


def find(services: Services) -> PolicyInForce | None:
    """The policy in force."""
    with lend(services.pool) as connection:
        return policies.in_force(connection)


def halted(connection: Connection, now: datetime) -> PolicyInForce | None:
    """The policy in force, where a worker has met it in the last seconds and has another one: it decides and sends nothing."""
    noted_at, current = alerts.last_at(connection, PROGRAM, NOT_IN_FORCE), policies.in_force(connection)
    if noted_at is None or current is None or noted_at < max(current.at, now - timedelta(seconds=HALTED_SECONDS)):
        return None
    return current


def halted_text(current: PolicyInForce) -> str:
    """Why workers do nothing, and what to do about it."""
    return (
        f"Workers have halted: they were started with another policy than {current.digest[:12]}, which {current.actor} put in force"
        f" at {current.at:%Y-%m-%d %H:%M} UTC. {RESTART}"
    )


def why_halted(services: Services) -> str:
    """The same for workers that are halted now; "" where none is."""
    with lend(services.pool) as connection:
        current = halted(connection, services.clock())
    return halted_text(current) if current else ""


def will_halt(services: Services) -> bool:
    """Whether workers run: all that were started with another policy than the new one halt."""
    with lend(services.pool) as connection:
        newest = newest_heartbeats(connection).values()
    return any(services.clock() - each.seen_at < timedelta(seconds=HALTED_SECONDS) for each in newest)


class PolicyWatch:
    """Looks about once a second whether the policy of this process is still the one in force."""

    def __init__(self) -> None:
        self._next_check = 0.0

    def require(self, services: Services) -> None:
        """Raise `PolicyNotInForce`, and alert, where another policy is in force."""
        if services.monotonic_clock() < self._next_check:
            return
        with lend(services.pool) as connection:
            try:
                policies.require_in_force(connection, services.policy.digest)
            except PolicyNotInForce:
                alerts.note(connection, PROGRAM, NOT_IN_FORCE, True, services.clock())
                raise
        self._next_check = services.monotonic_clock() + CHECK_SECONDS
