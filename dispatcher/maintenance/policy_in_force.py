"""Which policy is in force, and whether a process may decide by its own."""

from __future__ import annotations

from dispatcher.domain.errors import PolicyNotInForce
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts, policies
from dispatcher.ledger.maintenance.policies import PolicyInForce
from dispatcher.runtime.services import Services

__all__ = ["PolicyInForce", "PolicyWatch", "find"]

PROGRAM, NOT_IN_FORCE = "dispatcher", "policy_not_in_force"  # the alert
CHECK_SECONDS = 1.0  # a trigger must not pay a round trip for it each time


def find(services: Services) -> PolicyInForce | None:
    """The policy in force."""
    with lend(services.pool) as connection:
        return policies.in_force(connection)


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
