"""Retention: what is older than the periods in `[retention]` of `policy.toml`, and its deletion in steps.

A worker may be killed between two steps. So each step is complete in itself, and the next run continues with what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.events import event_files
from dispatcher.events.file_stores import StoreError
from dispatcher.inbound import customer_replies
from dispatcher.intake import audience_uploads
from dispatcher.intake.audience_uploads import UploadConflict
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.campaigns import drafts, refused_jobs, schedules
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import erasure, erasure_requests, line_uploads
from dispatcher.ledger.events import endpoint_cursors, stream
from dispatcher.ledger.identity import audit_log
from dispatcher.ledger.inbound import inbound_messages
from dispatcher.ledger.maintenance import alerts, canaries, canary_lags, policies, retention
from dispatcher.maintenance.canaries.recipients import DETAILS_KEPT
from dispatcher.policy import Policy, RetentionPeriod
from dispatcher.runtime.event_settings import EventFileSettings
from dispatcher.runtime.services import Services

ACTOR = "retention"
STEPS_MAX = 100  # of one class in one run; the next run continues
PROSPECTS_PER_STEP = 100
REPLIES_PER_STEP = 100
PERIODS_PER_STEP = 100
DELETED_UNREAD = "deleted_unread"  # the code of the alert


@dataclass(frozen=True, slots=True)
class RetentionStep:
    """One step's input: clear what is older than `before`."""

    connection: Connection
    secret: KeyRing
    before: datetime
    context: ValidationContext
    audiences: Path  # the folder of audience files
    event_files: EventFileSettings | None

    @property
    def now(self) -> datetime:
        """The time."""
        return self.context.now


CountOverdue = Callable[[RetentionStep], int]
Clear = Callable[[RetentionStep], int]  # clears some of what is overdue; returns how much, 0 when nothing is left


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """One class of data: its retention period in the policy, what it is, and how it is counted and cleared."""

    policy_key: str  # in [retention]
    what: str
    count_overdue: CountOverdue
    clear: Clear

    def kept_for(self, policy: Policy) -> RetentionPeriod:
        """How long the policy keeps this class."""
        period: RetentionPeriod = getattr(policy.retention, self.policy_key)
        return period


@dataclass(frozen=True, slots=True)
class RetentionBacklog:
    """How much of a class is older than the policy allows."""

    data: RetentionClass
    kept_for: RetentionPeriod
    before: datetime
    overdue: int


@dataclass(frozen=True, slots=True)
class ClearResult:
    """How much of a class one run cleared."""

    data: RetentionClass
    cleared: int


def _by_ledger(clear: Callable[[Connection, datetime, datetime], int]) -> Clear:
    return lambda step: clear(step.connection, step.before, step.now)


def _counted(count: Callable[[Connection, datetime], int]) -> CountOverdue:
    return lambda step: count(step.connection, step.before)


def _uploads_overdue(step: RetentionStep) -> int:
    return len(audience_uploads.overdue(step.audiences, step.before))


def _delete_uploads(step: RetentionStep) -> int:
    deleted = 0
    for upload_id in audience_uploads.overdue(step.audiences, step.before):
        with suppress(UploadConflict):  # a call is writing it
            deleted += audience_uploads.delete(step.audiences, upload_id)
    return deleted


def _clear_answers(step: RetentionStep) -> int:
    """A text that was never read may be an opt-out. So it counts as one, or it still holds advertising to its number: as the policy
    says. Either way a person is told.
    """
    unread = len(inbound_messages.overdue_unread(step.connection, step.before, REPLIES_PER_STEP))
    if unread:
        alerts.note(step.connection, "replies", DELETED_UNREAD, True, step.now)
    stopped = 0
    if step.context.policy.deleted_unread == "stop":
        stopped = customer_replies.stop_unread(step.connection, step.secret, step.context, step.before, REPLIES_PER_STEP)
    return max(stopped, inbound_messages.delete_texts(step.connection, step.before, step.now))


def _erase_prospects(step: RetentionStep) -> int:
    ids = retention.inactive_prospects(step.connection, step.before, PROSPECTS_PER_STEP)
    erased = 0
    for recipient_id in ids:
        with step.connection.transaction():
            # A second check, under the lock: the person may have become a customer, or contacted the bank, in the meantime.
            if retention.lock_inactive_prospect(step.connection, recipient_id, step.before):
                erased += erasure.erase(step.connection, step.secret, recipient_id, ACTOR, step.now, only_prospect=True)
    return erased


def _canaries_overdue(step: RetentionStep) -> int:
    return canaries.overdue(step.connection, step.now - DETAILS_KEPT)


def _forget_canaries(step: RetentionStep) -> int:
    """Canaries do not wait for the period of the measurements: they have thousands of consent events and messages a day."""
    return canaries.forget(step.connection, step.now - DETAILS_KEPT, 1)


def _forget_events(step: RetentionStep) -> int:
    """A dead range without its events cannot be delivered any more: nobody has to look at it."""
    count = stream.forget(step.connection, step.before)
    endpoint_cursors.forget_dead(step.connection, stream.oldest(step.connection))
    return count


def _event_files_overdue(step: RetentionStep) -> int:
    return len(event_files.overdue(step.event_files, step.before))


def _delete_event_files(step: RetentionStep) -> int:
    """Store errors end the step: the next run deletes the rest."""
    deleted = 0
    with suppress(StoreError):
        for period in event_files.overdue(step.event_files, step.before)[:PERIODS_PER_STEP]:
            if step.event_files is not None:
                event_files.delete(step.event_files, period)
                deleted += 1
    return deleted


CLASSES = (
    RetentionClass("content", "campaigns' variables", _counted(retention.campaigns_overdue), _by_ledger(retention.clear_campaign)),
    RetentionClass("content", "triggers' variables", _counted(retention.triggers_overdue), _by_ledger(retention.clear_triggers)),
    RetentionClass(
        "news",
        "additional fields of provider events",
        _counted(retention.provider_events_overdue),
        _by_ledger(retention.clear_provider_events),
    ),
    RetentionClass("answers", "texts of inbound messages", _counted(inbound_messages.count_texts), _clear_answers),
    RetentionClass("refused_jobs", "refused jobs", _counted(refused_jobs.overdue), _by_ledger(refused_jobs.delete)),
    RetentionClass("uploads", "uploaded audiences", _uploads_overdue, _delete_uploads),
    RetentionClass("uploads", "drafts of campaigns", _counted(drafts.overdue), _by_ledger(drafts.delete_overdue)),
    RetentionClass("event_files", "periods of event files", _event_files_overdue, _delete_event_files),
    RetentionClass("uploads", "positions of line uploads", _counted(line_uploads.overdue), _by_ledger(line_uploads.delete)),
    RetentionClass("prospects", "prospects without any contact", _counted(retention.prospects_overdue), _erase_prospects),
    RetentionClass("decisions", "months of decisions", _counted(retention.months_overdue), _by_ledger(retention.drop_month)),
    RetentionClass("decisions", "runs of recurring campaigns", _counted(schedules.overdue), _by_ledger(schedules.forget)),
    RetentionClass("audit", "rows of the audit log", _counted(audit_log.overdue), _by_ledger(audit_log.forget)),
    RetentionClass(
        "erasure_requests",
        "requests to erase a customer",
        _counted(erasure_requests.overdue),
        _by_ledger(erasure_requests.delete),
    ),
    RetentionClass(
        "canaries", "measured opt-outs of canary recipients", _counted(canary_lags.overdue), _by_ledger(canary_lags.delete)
    ),
    RetentionClass("canaries", "canary recipients of the days before", _canaries_overdue, _forget_canaries),
    RetentionClass("events", "published events", _counted(stream.overdue), _forget_events),
    RetentionClass(
        "consent",
        "consent events of erased people",
        _counted(retention.erased_overdue),
        _by_ledger(retention.delete_erased_consent),
    ),
)


def backlogs(services: Services) -> list[RetentionBacklog]:
    """For each class, how long it is kept and how much of it is due now. Changes nothing."""
    with lend(services.pool) as connection:
        return [_backlog(connection, services, data) for data in CLASSES]


def _backlog(connection: Connection, services: Services, data: RetentionClass) -> RetentionBacklog:
    step = _step(connection, services, data)
    return RetentionBacklog(data, data.kept_for(services.policy), step.before, data.count_overdue(step))


def _step(connection: Connection, services: Services, data: RetentionClass) -> RetentionStep:
    now = services.clock()
    context = ValidationContext(services.catalog, services.policy, now)
    before = data.kept_for(services.policy).before(now)
    return RetentionStep(connection, services.secret, before, context, services.audiences, services.event_files)


def clear(services: Services, steps_max: int = STEPS_MAX) -> Iterator[ClearResult]:
    """Clear what is overdue, class by class, with at most so many steps for each. Yields what was cleared.

    Raises `PolicyNotInForce` where this process was started with another policy, which may have other retention periods.
    """
    with lend(services.pool) as connection:
        policies.require_in_force(connection, services.policy.digest)
    for data in CLASSES:
        with lend(services.pool) as connection:
            cleared = 0
            for _ in range(steps_max):
                if services.is_draining():
                    break
                count = data.clear(_step(connection, services, data))
                cleared += count
                if not count:
                    break
            yield ClearResult(data, cleared)
