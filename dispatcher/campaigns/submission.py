"""Accept campaigns and triggers: completely or not at all, and only once per id or key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from dispatcher.campaigns.template_approval import approval_errors
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import Submission, ValidationContext
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.trigger import Trigger
from dispatcher.ledger.campaigns import audience, lifecycle
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceLoader, AudienceRow, TriggerPlace
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery.scheduling import DueChunk
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


def validation_context(services: Services, campaign_id: str = "") -> ValidationContext:
    """What submissions are checked against, as of now.

    With the id of a campaign that exists, as of its creation: a repeated submission gets the same answer after its expiry.
    """
    created_at = None
    if campaign_id:
        with lend(services.pool) as connection:
            campaign = lifecycle.find(connection, campaign_id)
        created_at = campaign.created_at if campaign else None
    return ValidationContext(services.catalog, services.policy, created_at or services.clock())


def submit(services: Services, submission: Submission, progress: Progress = lambda _: None, by: str = "") -> SubmitResult:
    """Accept a campaign with its whole audience, or nothing of it. It starts when its time comes.

    `by` names the submitter. A campaign with a large audience waits until somebody else releases it.
    Raises `BadInput`, also for a template without approval and for a file of which a later part cannot be read, and
    `LedgerUnavailable`.
    """
    now = services.clock()
    period = period_of(now)
    with lend(services.pool) as connection:
        ensure_period(connection, period)
        with connection.transaction():
            no = lifecycle.create(connection, submission.id, submission.spec, period, now, by)
            if no is None:
                return _compare(connection, submission)
            if errors := approval_errors(connection, services.catalog, services.policy, submission.spec.templates):
                raise BadInput(*errors)
            loader = AudienceLoader(connection, no, period, submission.spec, now)
            digest = load_audience(loader, submission, progress)
            lifecycle.complete(connection, no, digest, loader.invalid, loader.taken > services.policy.four_eyes_audience_min)
            return SubmitResult(SubmitStatus.NEW, loader.taken, loader.invalid)


def load_audience(loader: AudienceLoader, submission: Submission, progress: Progress) -> bytes:
    """Stream the audience into the ledger. Returns the digest of all that was submitted."""
    digest = hashlib.sha256(spec_to_json(submission.spec).encode())
    rows = iter(submission.audience)
    while batch := list(islice(rows, loader.batch_size)):
        for row in batch:
            digest.update(repr(row).encode())
        loader.take([row for row in batch if isinstance(row, AudienceRow)])
        loader.note(row for row in batch if isinstance(row, AudienceError))
        progress(loader.taken)
    return digest.digest()


def _compare(connection: Connection, submission: Submission) -> SubmitResult:
    digest = hashlib.sha256(spec_to_json(submission.spec).encode())
    for row in submission.audience:
        digest.update(repr(row).encode())
    same = lifecycle.digest_of(connection, submission.id) == digest.digest()
    return SubmitResult(SubmitStatus.KNOWN if same else SubmitStatus.CONFLICT)


def take_trigger(services: Services, trigger: Trigger) -> TriggerPlace:
    """Accept a trigger, once per key. Raises `KeyConflict`, `BadInput` for a template without approval, and `LedgerUnavailable`."""
    spec = spec_to_json(trigger.spec)
    with lend(services.pool) as connection:
        if errors := approval_errors(connection, services.catalog, services.policy, trigger.spec.templates):
            place = audience.known_trigger(connection, trigger.key, trigger.digest)  # what was accepted before stays accepted
            if place is None:
                raise BadInput(*errors)
        else:
            place = audience.take_trigger(connection, trigger.key, trigger.digest, spec, trigger.row, services.clock())
    if place is None:
        raise KeyConflict(InputError("job", 0, "key", "was used before with other content; the same key is the same job"))
    return place


def chunk_of(place: TriggerPlace) -> DueChunk:
    """The trigger's chunk, to be put on the broker."""
    return DueChunk(place.period, place.chunk, None)


def message_id_of(place: TriggerPlace) -> MessageId:
    """The id of the trigger's first message."""
    return MessageId(place.period, place.chunk, 0, 0)
