"""Acknowledge an opt-out: one service e-mail per request, however the request came in (Royal Decree of 4 April 2003, art. 2).

The acknowledgement is written in the transaction that records the opt-out. If the broker cannot be reached, the ledger still has
it, and it is published later. No error of the acknowledgement may prevent the opt-out itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from zoneinfo import ZoneInfo

import structlog

from channels.base import Channel
from dispatcher.domain.canaries import is_canary
from dispatcher.intake.campaign import ValidationContext
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import Trigger, parse_trigger
from dispatcher.ledger.campaigns import audience
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.consent.events import ConsentEvent
from dispatcher.ledger.consent.hash_chain import MARKETING_OBJECTION
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.spec_codec import spec_to_json
from dispatcher.runtime.template_versions import digests_of, store_sources

Publish = Callable[[Iterable[DueChunk]], None]

TEMPLATE = "optout_acknowledgement"
SEVERAL = "several"  # the scope of a request that refuses more than one thing, but not all

log = structlog.get_logger()


def acknowledge(
    connection: Connection,
    context: ValidationContext,
    recipient_id: str,
    events: Sequence[ConsentEvent],
    entity: str | None = None,
) -> DueChunk | None:
    """Write the acknowledgement of one request's events, once, in the caller's transaction. Publish the result after the commit.

    Returns None where none of the events is an opt-out, where there is no e-mail address, and for a canary, who is nobody. The
    policy refuses a suppressed address. A chunk that is not published is published once its lease is over. Call `ensure_period`
    before the transaction.
    """
    opt_outs = [event for event in events if is_opt_out(event)]
    if not opt_outs or is_canary(recipient_id) or not recipients.has_email(connection, recipient_id):
        return None
    trigger = _trigger(context, recipient_id, opt_outs, entity)
    if trigger is None:
        return None
    templates = (trigger.template,)
    spec = audience.VersionedSpec(spec_to_json(trigger.spec), digests_of(templates))
    store_sources(connection, templates)
    place = audience.take_trigger(connection, trigger.key, trigger.digests, spec, trigger.row, context.now)
    return DueChunk(place.period, place.chunk, None) if place and place.fresh else None


def publish_acknowledgements(publish: Publish, *chunks: DueChunk | None) -> None:
    """Put acknowledgements on the broker. If the broker cannot be reached, they are sent about a minute later."""
    for chunk in chunks:
        if chunk is None:
            continue
        try:
            publish([chunk])
        except Exception as error:  # any error of a broker's client: the opt-out is recorded, and the caller must learn that
            log.warning("acknowledgement waits for the sweep", chunk=chunk.number, error=type(error).__name__)


def is_opt_out(event: ConsentEvent) -> bool:
    """Whether the event is an opt-out: an offer type set to none, a channel to off, or an objection to marketing."""
    return event.is_opt_out


def _scope(opt_outs: Sequence[ConsentEvent]) -> str | None:
    """What is refused, as the template's variable `scope`; None stands for all commercial messages."""
    if any(event.subject == MARKETING_OBJECTION for event in opt_outs):
        return None
    return opt_outs[0].subject.partition(":")[2] if len(opt_outs) == 1 else SEVERAL


def _trigger(context: ValidationContext, recipient_id: str, opt_outs: Sequence[ConsentEvent], entity: str | None) -> Trigger | None:
    first = opt_outs[0]
    day = first.said_at.astimezone(ZoneInfo(context.policy.default_zone)).date()
    data = {"received_on": day.isoformat(), "scope": _scope(opt_outs)}
    variables = {name: value for name, value in data.items() if value is not None}
    job = {"key": f"ack:{first.no}", "recipient": recipient_id, "template": TEMPLATE, "data": variables}
    try:
        trigger = parse_trigger(job, context)
    except BadInput as error:  # a template folder without this template, or with other variables in it
        log.error("an opt-out cannot be acknowledged", consent_event=first.no, faults=[fault.field for fault in error.faults])
        return None
    known = entity if entity and entity in context.policy.entities else trigger.spec.entity
    return replace(trigger, spec=replace(trigger.spec, channels=(Channel.EMAIL,), entity=known))
