"""Accept campaigns and triggers: completely or not at all, and only once per id or key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

from dispatcher.campaigns.template_approval import approval_errors
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import CampaignRequest, Submission, ValidationContext, check_campaign
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.trigger import Trigger, check_trigger, read_trigger
from dispatcher.ledger.campaigns import audience, lifecycle
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceLoader, AudienceRow, TriggerPlace
from dispatcher.ledger.campaigns.lifecycle import StoredSubmission
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.maintenance import policies
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.spec_codec import spec_to_json
from dispatcher.runtime.services import Services

Progress = Callable[[int], None]


class KeyConflict(BadInput):
    """A trigger's key was used before, with other content."""


class SubmitStatus(StrEnum):
    """The result of a submission."""

    NEW = "new"
    KNOWN = "known"  # the same id with the same content: nothing was done again
    CONFLICT = "conflict"  # the same id with other content: refused


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The answer to a submission: how many rows were accepted, and how many could not be read."""

    status: SubmitStatus
    audience: int = 0
    invalid: int = 0


def validation_context(services: Services) -> ValidationContext:
    """What submissions are checked against, as of now."""
    return ValidationContext(services.catalog, services.policy, services.clock())


def accept(services: Services, request: CampaignRequest, progress: Progress = lambda _: None, by: str = "") -> SubmitResult:
    """Accept a campaign as `submit` does. One that was submitted before gets its answer whatever the clock, the templates and the
    policy say by now. Raises as `submit` does.
    """
    with lend(services.pool) as connection:
        stored = lifecycle.submission_of(connection, request.id)
    if stored is None:
        return submit(services, check_campaign(request, validation_context(services)), progress, by)
    at_that_time = ValidationContext(services.catalog, services.policy, stored.created_at)
    if stored.version == 1 or request.rows is None:
        return _compare(stored, check_campaign(request, at_that_time))
    for row in request.rows:
        request.digest.add(row)
    if request.digest.value == stored.digest:
        return SubmitResult(SubmitStatus.KNOWN)
    if not request.digest.has_same_rows(stored.digest):
        return SubmitResult(SubmitStatus.CONFLICT)
    return _result(check_campaign(request, at_that_time).spec == stored.spec)  # a default that is written out is the same


def submit(services: Services, submission: Submission, progress: Progress = lambda _: None, by: str = "") -> SubmitResult:
    """Accept a campaign with its whole audience, or nothing of it. It starts when its time comes.

    `by` names the submitter. A campaign with a large audience waits until somebody else releases it.
    Raises `BadInput`, also for a template without approval and for a file of which a later part cannot be read,
    `LedgerUnavailable`, and `PolicyNotInForce` where this process was started with another policy.
    """
    now = services.clock()
    period = period_of(now)
    with lend(services.pool) as connection:
        policies.require_in_force(connection, services.policy.digest)
        ensure_period(connection, period)
        with connection.transaction():
            no = lifecycle.create(connection, submission.id, submission.spec, period, now, by)
            if no is None:
                stored = lifecycle.submission_of(connection, submission.id)
                return _compare(stored, submission) if stored else SubmitResult(SubmitStatus.CONFLICT)
            if errors := approval_errors(connection, services.catalog, services.policy, submission.spec.templates):
                raise BadInput(*errors)
            loader = AudienceLoader(connection, no, period, submission.spec, now)
            load_audience(loader, submission, progress)
            awaits_release = loader.taken > services.policy.four_eyes_audience_min
            lifecycle.complete(connection, no, submission.digest.value, loader.invalid, awaits_release)
            return SubmitResult(SubmitStatus.NEW, loader.taken, loader.invalid)


def load_audience(loader: AudienceLoader, submission: Submission, progress: Progress) -> None:
    """Stream the audience into the ledger."""
    rows = iter(submission.audience)
    while batch := list(islice(rows, loader.batch_size)):
        loader.take([row for row in batch if isinstance(row, AudienceRow)])
        loader.note(row for row in batch if isinstance(row, AudienceError))
        progress(loader.taken)


def _compare(stored: StoredSubmission, submission: Submission) -> SubmitResult:
    """Whether it is what was submitted before. A digest of version 1 counts the order of keys, and how numbers are written."""
    first = hashlib.sha256(spec_to_json(submission.spec).encode())
    for row in submission.audience:
        first.update(repr(row).encode())
    if stored.version == 1:
        return _result(stored.digest == first.digest())
    digest = submission.digest
    return _result(digest.value == stored.digest or (digest.has_same_rows(stored.digest) and submission.spec == stored.spec))


def _result(is_same: bool) -> SubmitResult:
    return SubmitResult(SubmitStatus.KNOWN if is_same else SubmitStatus.CONFLICT)


def accept_trigger(services: Services, form: Mapping[str, Any]) -> TriggerPlace:
    """Accept a trigger from JSON as `take_trigger` does. One that was accepted before gets its answer whatever the templates say by
    now. Raises as `take_trigger` does, and `BadInput`.
    """
    request = read_trigger(form)
    try:
        trigger = check_trigger(request, validation_context(services))
    except BadInput:
        with lend(services.pool) as connection:
            place = audience.known_trigger(connection, request.form.key, request.digests)
        if place is None:
            raise
        return place
    return take_trigger(services, trigger)


def take_trigger(services: Services, trigger: Trigger) -> TriggerPlace:
    """Accept a trigger, once per key. Raises `KeyConflict`, `BadInput` for a template without approval, and `LedgerUnavailable`."""
    spec = spec_to_json(trigger.spec)
    with lend(services.pool) as connection:
        if errors := approval_errors(connection, services.catalog, services.policy, trigger.spec.templates):
            place = audience.known_trigger(connection, trigger.key, trigger.digests)  # what was accepted before stays accepted
            if place is None:
                raise BadInput(*errors)
        else:
            place = audience.take_trigger(connection, trigger.key, trigger.digests, spec, trigger.row, services.clock())
    if place is None:
        raise KeyConflict(InputError("job", 0, "key", "was used before with other content; the same key is the same job"))
    return place


def chunk_of(place: TriggerPlace) -> DueChunk:
    """The trigger's chunk, to be put on the broker."""
    return DueChunk(place.period, place.chunk, None)


def message_id_of(place: TriggerPlace) -> MessageId:
    """The id of the trigger's first message."""
    return MessageId(place.period, place.chunk, 0, 0)
