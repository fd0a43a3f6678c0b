"""The jobs of canaries: triggers with the examples of a template, through the real lanes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from channels.base import Channel
from dispatcher.campaigns import submission
from dispatcher.campaigns.template_approval import NotApproved
from dispatcher.consent.acknowledgement import Publish
from dispatcher.content import Template
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import Trigger, parse_trigger
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.maintenance import canaries
from dispatcher.ledger.maintenance.canaries import CanaryJob, CanaryRound
from dispatcher.maintenance.canaries.errors import CannotMeasure
from dispatcher.maintenance.canaries.recipients import addresses_of
from dispatcher.runtime.services import Services

LASTING = timedelta(minutes=5)  # a job that is held for longer is of no use
CAMPAIGN_PRIORITY = 9
UNDECIDED = frozenset({"pending", "claimed", "held", "waiting"})
TAKEN = frozenset({"accepted", "delivered", "read"})


def submit(services: Services, publish: Publish, canary: CanaryRound, step: int) -> None:
    """Put one job on each channel of a canary; those of even steps on the lane of triggers, the others on that of campaigns.

    Raises `CannotMeasure` where the template cannot be used, and what `publish` raises.
    """
    template = services.catalog.get(services.policy.canaries.template)
    if template is None:
        raise CannotMeasure("template_not_usable")
    channels = [channel for channel in addresses_of(services, OptOutWay(canary.way)) if channel in template.channels]
    try:
        places = [submission.take_trigger(services, _trigger(services, template, canary, step, channel)) for channel in channels]
    except NotApproved:
        raise CannotMeasure("template_not_approved") from None
    except BadInput:
        raise CannotMeasure("template_not_usable") from None
    with lend(services.pool) as connection, connection.transaction():
        canaries.uncount(connection, canary.recipient_id)
        canaries.add_jobs(
            connection,
            canary.no,
            step,
            [(place.period, place.chunk, channel) for place, channel in zip(places, channels, strict=True)],
        )
    publish(DueChunk(place.period, place.chunk, CAMPAIGN_PRIORITY if step % 2 else None) for place in places)


def _trigger(services: Services, template: Template, canary: CanaryRound, step: int, channel: Channel) -> Trigger:
    job = {
        "key": f"{canary.recipient_id}:{canary.no}:{step}:{channel}",
        "recipient": "canary",  # replaced below: no job from outside may name a canary
        "template": template.name,
        "data": _examples(template),
        "channels": [channel.value],
        "expires_at": (services.clock() + LASTING).isoformat(),
    }
    trigger = parse_trigger(job, submission.validation_context(services))
    return replace(trigger, row=replace(trigger.row, recipient_id=canary.recipient_id))


def _examples(template: Template) -> dict[str, Any]:
    """The examples of the variables that a job must have."""
    examples = {name: variable.example["en"] for name, variable in template.variables.items() if variable.required}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in examples.items()}


def accepted_mail(jobs: Sequence[CanaryJob]) -> str | None:
    """The id of a message by e-mail that was sent, whose links lead to the ways out; None where there is none."""
    sent = [job for job in jobs if job.channel == Channel.EMAIL and job.state in TAKEN]
    return str(MessageId(sent[-1].period, sent[-1].chunk, 0, 0)) if sent else None
