"""Accept campaigns and triggers: completely or not at all, and only once per id or key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from dispatcher.campaigns import audience_loading
from dispatcher.campaigns.audience_loading import LoadResult, LoadStatus, Progress, no_progress
from dispatcher.campaigns.template_approval import NotApproved, approval_errors
from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.intake.campaign import FORM_BYTES, CampaignRequest, Submission, ValidationContext, check_campaign
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.trigger import Trigger, check_trigger, read_trigger
from dispatcher.ledger.campaigns import audience, lifecycle, loads
from dispatcher.ledger.campaigns.audience import TriggerPlace
from dispatcher.ledger.campaigns.lifecycle import StoredSubmission
from dispatcher.ledger.campaigns.loads import AudienceLoad
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.spec_codec import spec_to_json
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import digests_of
from dispatcher.runtime.tracing import current_traceparent, span


class KeyConflict(BadInput):
    """A trigger's key was used before, with other content."""


class SubmitStatus(StrEnum):
    """The result of a submission."""

    NEW = "new"
    KNOWN = "known"  # the same id with the same content: nothing was done again
    CONFLICT = "conflict"  # the same id with other content: refused
    LOADING = "loading"  # the audience is not complete: another step, or another process, goes on with it


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The answer to a submission: how many rows were accepted, and how many could not be read.

    `load` is the campaign's number where the audience is loading from a file: `load_some` goes on with it.
    """

    status: SubmitStatus
    audience: int = 0
    invalid: int = 0
    load: int | None = None


def validation_context(services: Services, as_of: datetime | None = None) -> ValidationContext:
    """What submissions are checked against, as of now or of another moment."""
    return ValidationContext(services.catalog, services.policy, as_of or services.clock())


def accept(
    services: Services,
    request: CampaignRequest,
    progress: Progress = no_progress,
    by: str = "",
    seconds_max: float | None = None,
    is_redelivered: bool = False,
) -> SubmitResult:
    """Accept a campaign as `submit` does. One that was submitted before gets its answer whatever the clock, the templates and the
    policy say by now. One whose audience is not complete is loaded on, unless another process is at work on it; of that one,
    `is_redelivered` says that it was lost. Raises as `submit` does.
    """
    with lend(services.pool) as connection:
        load = loads.of_campaign(connection, request.id)
        stored = lifecycle.submission_of(connection, request.id)
    if load is not None and load.ended == "complete" and _is_same_file(request, load):
        return SubmitResult(SubmitStatus.KNOWN)  # ten million rows take minutes to read, and a broker delivers twice
    if load is not None and load.ended == "refused":
        audience_loading.discard(services, load.campaign_no, load.spec)
        load = stored = None
    if stored is None:
        return submit(services, check_campaign(request, validation_context(services)), progress, by, seconds_max)
    at_that_time = ValidationContext(services.catalog, services.policy, stored.created_at)
    if load is not None and not load.ended:
        return _join(services, load, check_campaign(request, at_that_time), progress, seconds_max, is_redelivered)
    if stored.version == 1 or request.rows is None or stored.has_no_rows:
        return _compare(stored, check_campaign(request, at_that_time))
    for row in request.rows:
        request.digest.add(row)
    if request.digest.matches(stored.digest, stored.version):
        return SubmitResult(SubmitStatus.KNOWN)
    if not request.digest.has_same_rows(stored.digest, stored.version):
        return SubmitResult(SubmitStatus.CONFLICT)
    return _result(check_campaign(request, at_that_time).spec == stored.spec)  # a default that is written out is the same


def _is_same_file(request: CampaignRequest, load: AudienceLoad) -> bool:
    """Whether the same form names the same file, unchanged."""
    return load.file is not None and request.source == load.file and request.digest.has_same_form(load.digest)


def submit(
    services: Services, submission: Submission, progress: Progress = no_progress, by: str = "", seconds_max: float | None = None
) -> SubmitResult:
    """Accept a campaign with its whole audience, or nothing of it. It starts when its time comes.

    `by` names the submitter. A campaign with a large audience waits until somebody else releases it. After `seconds_max` the answer
    is `loading`, and `load_some`, or the same submission again, goes on.
    Raises `BadInput`, also for a template without approval and for a file of which a later part cannot be read, and
    `LedgerUnavailable`; then a large audience may be loaded in part, and the same submission again goes on.
    """
    with span("submit campaign", {"dispatcher.campaign": submission.id}):
        result = audience_loading.start(services, submission, progress, by, seconds_max, services.clock())
    if result.status is not LoadStatus.ID_IN_USE:
        return _submit_result(result)
    with lend(services.pool) as connection:
        load = loads.of_campaign(connection, submission.id)
        stored = lifecycle.submission_of(connection, submission.id)
    if load is not None and not load.ended:
        return SubmitResult(
            SubmitStatus.LOADING, load.rows_written, load.rows_read - load.rows_written, load.campaign_no if load.file else None
        )
    return _compare(stored, submission) if stored else SubmitResult(SubmitStatus.CONFLICT)


def load_some(services: Services, no: int, seconds_max: float | None = None, is_redelivered: bool = False) -> SubmitResult:
    """Go on with the load of a campaign's audience from its file, unless another process does; `is_redelivered` says that that one
    was lost. Raises as `submit` does."""
    return _submit_result(audience_loading.load_some(services, no, seconds_max, is_redelivered))


def id_of_load(services: Services, no: int) -> str | None:
    """The id of the campaign that is loading under this number; None where there is none."""
    with lend(services.pool) as connection:
        load = loads.find(connection, no)
    return load.campaign_id if load else None


def take_stalled(services: Services) -> list[int]:
    """Campaign numbers of loads from files on which nobody works: `load_some` is to be called for each."""
    return audience_loading.take_stalled(services)


def _submit_result(result: LoadResult) -> SubmitResult:
    status = SubmitStatus.NEW if result.status is LoadStatus.COMPLETE else SubmitStatus.LOADING
    return SubmitResult(status, result.audience, result.invalid, result.no)


def _join(
    services: Services,
    load: AudienceLoad,
    submission: Submission,
    progress: Progress,
    seconds_max: float | None,
    is_redelivered: bool,
) -> SubmitResult:
    """Go on with a load where the same campaign is submitted again, or answer that another process does."""
    digest, rows = submission.digest, iter(submission.audience)
    if not digest.has_same_form(load.digest) and submission.spec != load.spec:
        return SubmitResult(SubmitStatus.CONFLICT)
    if load.file is not None and submission.source == load.file:
        after, digest = audience_loading.rows_after(services, load, load.file)
        rows = iter(after)
    else:
        for _ in islice(rows, load.rows_read):  # reading adds them to the digest
            pass
        if not digest.has_same_rows(load.digest, 3):
            return SubmitResult(SubmitStatus.CONFLICT)
        digest.form = load.digest[:FORM_BYTES]
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        is_ours = loads.acquire(connection, load.campaign_no, now, now if is_redelivered else now - audience_loading.LEASE)
        if is_ours and submission.source != load.file:
            loads.replace_file(connection, load.campaign_no, submission.source)
    if not is_ours:
        no = load.campaign_no if load.file else None
        return SubmitResult(SubmitStatus.LOADING, load.rows_written, load.rows_read - load.rows_written, no)
    load = replace(load, file=submission.source)
    return _submit_result(audience_loading.resume(services, load, rows, digest, progress, seconds_max))


def _compare(stored: StoredSubmission, submission: Submission) -> SubmitResult:
    """Whether it is what was submitted before. A digest of version 1 counts the order of keys, and how numbers are written.

    Of a campaign that ended while it was loaded, only the form is known.
    """
    if stored.has_no_rows:
        return _result(submission.digest.form == stored.digest or submission.spec == stored.spec)
    first = hashlib.sha256(spec_to_json(submission.spec).encode())
    for row in submission.audience:
        first.update(repr(row).encode())
    if stored.version == 1:
        return _result(stored.digest == first.digest())
    digest = submission.digest
    has_same_form = digest.has_same_form(stored.digest) or submission.spec == stored.spec
    return _result(has_same_form and digest.has_same_rows(stored.digest, stored.version))


def _result(is_same: bool) -> SubmitResult:
    return SubmitResult(SubmitStatus.KNOWN if is_same else SubmitStatus.CONFLICT)


def accept_trigger(services: Services, form: Mapping[str, Any], entities: Entities = None) -> TriggerPlace:
    """Accept a trigger from JSON as `take_trigger` does. One that was accepted before gets its answer whatever the templates say by
    now. Raises as `take_trigger` does, `BadInput`, and `NotAllowed` for a template of other entities than these.
    """
    request = read_trigger(form)
    try:
        trigger = check_trigger(request, validation_context(services))
    except BadInput:
        with lend(services.pool) as connection:
            place = audience.known_trigger(connection, request.form.key, request.digests)
        if place is None or entities is not None:
            raise
        return place
    if entities is not None and trigger.spec.entity not in entities:
        raise NotAllowed(f"the template is one of the entity {trigger.spec.entity!r}")
    return take_trigger(services, trigger)


def take_trigger(services: Services, trigger: Trigger) -> TriggerPlace:
    """Accept a trigger, once per key. Raises `KeyConflict`, `BadInput` for a template without approval, and `LedgerUnavailable`."""
    with span("submit trigger"):
        return _take_trigger(services, trigger)


def _take_trigger(services: Services, trigger: Trigger) -> TriggerPlace:
    templates = (trigger.template,)
    traced = replace(trigger.spec, trace=current_traceparent())
    spec = audience.VersionedSpec(spec_to_json(traced), digests_of(templates), trigger.spec.send_at)
    with lend(services.pool) as connection:
        if errors := approval_errors(connection, services.policy, templates):
            place = audience.known_trigger(connection, trigger.key, trigger.digests)  # what was accepted before stays accepted
            if place is None:
                raise NotApproved(*errors)
        else:
            services.versions.store(connection, templates)
            place = audience.take_trigger(connection, trigger.key, trigger.digests, spec, trigger.row, services.clock())
    if place is None:
        raise KeyConflict(InputError("job", 0, "key", "was used before with other content; the same key is the same job"))
    return place


def is_due(services: Services, place: TriggerPlace) -> bool:
    """Whether a trigger is to be sent now; the clock's task publishes others when they are due."""
    return place.due_at <= services.clock()


def chunk_of(place: TriggerPlace) -> DueChunk:
    """The trigger's chunk, to be put on the broker."""
    return DueChunk(place.period, place.chunk, None)


def message_id_of(place: TriggerPlace) -> MessageId:
    """The id of the trigger's first message."""
    return MessageId(place.period, place.chunk, 0, 0)
