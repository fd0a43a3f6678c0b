"""What the audit log records: who did or looked at what, on whom, from where and why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class AuditAction(StrEnum):
    """What somebody did. The list is closed, so that a search by action finds all."""

    LOOK = "look"  # at personal data
    EXPORT = "export"
    SEARCH = "search"  # by address
    IMPORT = "import"
    CHANGE = "change"
    ERASE = "erase"
    REQUEST = "request"  # an act that a second person has to approve
    SUBMIT = "submit"
    ADD_ROWS = "add_rows"
    COPY = "copy"
    DRY_RUN = "dry_run"
    RELEASE = "release"
    APPROVE = "approve"
    WITHDRAW = "withdraw"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    END = "end"
    TEST = "test"
    SETTLE = "settle"
    REPLAY = "replay"
    CLOSE = "close"
    ANSWER = "answer"
    LIFT = "lift"
    ADD = "add"
    REMOVE = "remove"
    ENABLE = "enable"
    DISABLE = "disable"
    ROTATE = "rotate"
    SKIP = "skip"
    ACKNOWLEDGE = "acknowledge"
    ADOPT = "adopt"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"
    ROLES = "roles"
    PASSWORD = "password"  # noqa: S105  the name of an action
    SECOND_FACTOR = "second_factor"


LOOKS = frozenset({AuditAction.LOOK, AuditAction.SEARCH, AuditAction.EXPORT})  # they change nothing, and have no outcome


class AuditOutcome(StrEnum):
    """An act is recorded before it happens, and a second row says what came of it. An act without a second row was interrupted: a
    process ended, or the ledger was lost, and only its object says whether it was done.
    """

    BEGUN = "begun"
    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class AuditNote:
    """One act. It names ids only: no address, no text of a customer. `recipient` is on whom, where that is one person."""

    action: AuditAction
    object_type: str
    object_id: str = ""
    recipient: str | None = None
    entity: str | None = None
    reason: str = ""
    outcome: AuditOutcome = AuditOutcome.BEGUN
    detail: Mapping[str, Any] = field(default_factory=dict)
