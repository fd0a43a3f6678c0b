"""The two tasks that other systems call: read their arguments, plain or sealed, and record what is refused.

An argument is given by position or by name, or its fields are the keyword arguments: these three mean the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from channels.base import Channel
from dispatcher.campaigns import audience_fetch, refused_jobs, submission
from dispatcher.campaigns.submission import KeyConflict, SubmitResult, SubmitStatus
from dispatcher.campaigns.template_approval import NotApproved
from dispatcher.domain.errors import LedgerUnavailable, PolicyNotInForce, TaskTimeLimit
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, JobError, RefusalReason
from dispatcher.domain.sealed_jobs import FIELD, CannotUnseal, unseal
from dispatcher.intake.audience_reference import UploadReference, UrlReference
from dispatcher.intake.campaign import CampaignForm, UnknownTemplate, parse_request
from dispatcher.intake.error_redaction import without_values
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.trigger import TriggerForm
from dispatcher.ledger.campaigns.audience import TriggerPlace
from dispatcher.runtime.services import Services

REASONS: Mapping[type[BadInput], RefusalReason] = {
    UnknownTemplate: RefusalReason.UNKNOWN_TEMPLATE,
    NotApproved: RefusalReason.NOT_APPROVED,
    KeyConflict: RefusalReason.KEY_CONFLICT,
}


CELERY = "celery"  # the submitter of campaigns that come by the broker: it does not say who sent them


class RefusedArguments(BadInput):
    """Arguments from which no campaign or trigger can be read."""

    def __init__(self, reason: RefusalReason, message: str, field: str = "") -> None:
        super().__init__(InputError("job", 0, field, message))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TaskCall:
    """The arguments of a public task as they came."""

    task: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]


def accept_campaign(services: Services, call: TaskCall, seconds_max: float, is_redelivered: bool) -> tuple[str, SubmitResult]:
    """Accept a campaign as `submission.accept` does; returns its id, too.

    What is refused is recorded. Raises `BadInput` without values for it, also where the id was used with other content, and what
    `submission.accept` raises.
    """
    with _refusals_recorded(services, call) as given:
        given.update(_read(services, call))
        sources = audience_fetch.sources(services, by=CELERY)  # who can write to the broker may use all uploads
        request = parse_request(given, sources, services.policy.files)
        result = submission.accept(services, request, by=CELERY, seconds_max=seconds_max, is_redelivered=is_redelivered)
        if result.status is SubmitStatus.CONFLICT:
            message = "was used before with other content; a changed campaign needs an id of its own"
            raise KeyConflict(InputError("campaign", 0, "id", message))
    return request.id, result


def accept_trigger(services: Services, call: TaskCall) -> TriggerPlace:
    """Accept a trigger as `submission.accept_trigger` does. What is refused is recorded, and raises `BadInput` without values."""
    with _refusals_recorded(services, call) as given:
        given.update(_read(services, call))
        return submission.accept_trigger(services, given)


def load_some(services: Services, no: int, seconds_max: float, is_redelivered: bool) -> SubmitResult:
    """Go on with a load as `submission.load_some` does. A campaign that a later part of its file makes impossible is recorded.

    A step that fails otherwise is not: the ledger has the load, and the sweep goes on with it.
    """
    campaign_id = submission.id_of_load(services, no)
    call = TaskCall(CAMPAIGN_TASK, (), {"id": campaign_id})
    with _refusals_recorded(services, call, or_lost=False):
        return submission.load_some(services, no, seconds_max, is_redelivered)


@contextmanager
def _refusals_recorded(services: Services, call: TaskCall, *, or_lost: bool = True) -> Iterator[dict[str, Any]]:
    """Record what the block refuses. It fills the dictionary with the job, once it has read it.

    With `or_lost`, an error of the program and a time limit are recorded too: Celery does not repeat a task that raised.
    """
    given: dict[str, Any] = {}
    pair = (call.positional, dict(call.named))
    try:
        yield given
    except BadInput as error:
        reason = error.reason if isinstance(error, RefusedArguments) else REASONS.get(type(error), RefusalReason.INVALID_FIELDS)
        errors = without_values(error.faults, given or pair, _known_words(services))
        refused_jobs.record(services, refused_jobs.describe(services.secret, call.task, pair, reason, errors))
        raise BadInput(*(InputError("job", 0, each.field, each.message) for each in errors)) from None
    except (LedgerUnavailable, PolicyNotInForce):
        raise  # the task goes back to the broker
    except (Exception, TaskTimeLimit) as error:
        if not or_lost:
            raise
        errors = (JobError("", f"the program failed with {type(error).__name__}; its log says more"),)
        refused_jobs.record(services, refused_jobs.describe(services.secret, call.task, pair, RefusalReason.FAULT, errors))
        raise


def _read(services: Services, call: TaskCall) -> Mapping[str, Any]:
    """The campaign or trigger in the arguments. Raises `RefusedArguments`."""
    job = _argument(call)
    if FIELD in job:
        if len(job) > 1 or not isinstance(job[FIELD], str):
            raise RefusedArguments(RefusalReason.BAD_ARGUMENTS, "should be a text, and the only field", FIELD)
        try:
            job = unseal(call.task, job[FIELD], services.secret)
        except CannotUnseal as error:
            raise RefusedArguments(RefusalReason.CANNOT_UNSEAL, str(error), FIELD) from None
        if not isinstance(job, dict):
            raise RefusedArguments(RefusalReason.CANNOT_UNSEAL, "should hold an object", FIELD)
    elif services.seal_required:
        message = "plain arguments are refused here (DISPATCHER_SEALED_JOBS=required); use dispatcher.client, or seal them"
        raise RefusedArguments(RefusalReason.NOT_SEALED, message)
    return job


def _argument(call: TaskCall) -> Mapping[str, Any]:
    name = refused_jobs.PARAMETERS[call.task]
    if call.positional and call.named:
        raise _bad_arguments(f"give `{name}` by position or by name, or its fields as keyword arguments, not a mixture")
    if len(call.positional) > 1:
        raise _bad_arguments(f"there are {len(call.positional)} arguments; the task takes one, `{name}`")
    if not call.positional and not call.named:
        raise _bad_arguments(f"the argument `{name}` is missing")
    if name in call.named and len(call.named) > 1:
        raise _bad_arguments(f"give `{name}` or its fields as keyword arguments, not both")
    job = call.positional[0] if call.positional else call.named.get(name, call.named)
    if not isinstance(job, dict):
        raise _bad_arguments(f"`{name}` should be an object with the fields that the reference lists")
    return job


def _bad_arguments(message: str) -> RefusedArguments:
    return RefusedArguments(RefusalReason.BAD_ARGUMENTS, message)


def _known_words(services: Services) -> Collection[str]:
    """Words that are no personal data wherever they stand: names of fields, templates, variables, channels and entities."""
    variables = (name for template in services.catalog.values() for name in template.variables)
    forms = (
        *CampaignForm.model_fields,
        *TriggerForm.model_fields,
        *UploadReference.model_fields,
        *UrlReference.model_fields,
        FIELD,
        *refused_jobs.PARAMETERS.values(),
    )
    return {*forms, *services.catalog, *variables, *Channel, *services.policy.entities, "first", "all", TRIGGER_TASK, CAMPAIGN_TASK}
