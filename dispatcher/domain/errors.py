"""Errors that cross layers: the ledger raises them, and web, command line and tasks handle them. Pure: standard library only."""

from __future__ import annotations


class LedgerUnavailable(Exception):
    """The database cannot be reached. Nothing was decided and nothing is lost; try again later."""


class UnknownRecipient(LookupError):
    """No recipient has this id."""

    def __init__(self, recipient_id: str) -> None:
        super().__init__(f"there is no recipient {recipient_id}")
        self.recipient_id = recipient_id


class UnknownEndpoint(LookupError):
    """No event endpoint has this id."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"there is no event endpoint {endpoint_id}")
        self.endpoint_id = endpoint_id


class EndpointConflict(Exception):
    """The event endpoint is in a state that does not allow this."""


class UnknownSchedule(LookupError):
    """No recurring campaign has this id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"there is no recurring campaign {schedule_id}")


class ScheduleConflict(Exception):
    """The recurring campaign is in a state that does not allow this; the message says why."""


class DraftConflict(Exception):
    """Another call changed the draft of a campaign since it was read."""


class VersionConflict(Exception):
    """The recipient or campaign changed since the caller read it. `current` is the version now."""

    def __init__(self, current: int) -> None:
        super().__init__(f"changed by somebody else in the meantime; the version is now {current}")
        self.current = current


class KeyMismatch(LedgerUnavailable):
    """The secret keys of this process are not those that the ledger was written with: it must not work on it."""


class NotAllowed(Exception):
    """Who asks lacks the right; the message names it, and the roles that have it."""


class SignInNeeded(Exception):
    """Nobody is signed in, or too long ago; the message says what to do."""


class PolicyNotInForce(Exception):
    """The policy of this process is not the one in force."""


class WorkerDraining(Exception):
    """The worker was asked to stop. What it has not handed to a provider goes back; another worker goes on with it."""


class TaskTimeLimit(BaseException):
    """The soft time limit of a task. Not an `Exception`: the limit can hit at any line, and code that expects any error of a rule
    or of a template would take it for one, and refuse a message for good."""
