"""Refused jobs: calls of the public tasks, and broker messages, that were not accepted. Pure. Holds no value of the arguments."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CAMPAIGN_TASK = "dispatcher.submit_campaign"
TRIGGER_TASK = "dispatcher.trigger"


class RefusalReason(StrEnum):
    """Why a job was refused. The values are public."""

    UNKNOWN_TASK = "unknown_task"  # no task has this name
    UNREADABLE_MESSAGE = "unreadable_message"  # not a message of Celery's protocol in JSON
    BAD_ARGUMENTS = "bad_arguments"  # too many, none, a mixture, or no object
    NOT_SEALED = "not_sealed"  # plain arguments, and the setting requires sealed ones
    CANNOT_UNSEAL = "cannot_unseal"  # unknown key, other task, or damaged
    INVALID_FIELDS = "invalid_fields"  # missing, unknown, or with a value that is not allowed
    UNKNOWN_TEMPLATE = "unknown_template"
    NOT_APPROVED = "not_approved"  # the template's present version
    KEY_CONFLICT = "key_conflict"  # the id or key was used before with other content
    EXPIRED = "expired"  # no worker took the message in time
    FAULT = "fault"  # an error of the program


@dataclass(frozen=True, slots=True)
class JobError:
    """One error of a refused job. `field` is empty where the job as a whole is wrong."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True, slots=True)
class RefusedJob:
    """A refused job. `key` is a campaign's id or a trigger's key; None where it could not be read.

    `digest` is a keyed hash of task and arguments: the same call again has the same digest.
    """

    task: str
    key: str | None
    reason: RefusalReason
    errors: tuple[JobError, ...]
    digest: bytes
