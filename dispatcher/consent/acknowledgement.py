"""Acknowledging a no: one service e-mail per request, whichever door it came in by (Royal Decree of 4 April 2003, art. 2).

The acknowledgement is written in the transaction that records the no. If the broker can't be told, the ledger still knows: what was
not put on a lane is found by the next sweep. And no fault of the acknowledgement may stand in the way of the no itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from channels.base import Channel
from dispatcher.domain.preferences import Change
from dispatcher.intake.campaign import ValidationContext
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import Trigger, parse_trigger
from dispatcher.ledger.campaigns import audience
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.consent.events import ConsentEvent, RecordResult
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.ledger.spec_codec import spec_to_json
from dispatcher.runtime.services import Services

Publish = Callable[[Iterable[DueChunk]], None]

TEMPLATE = "optout_acknowledgement"
ALL = "objection:marketing"
SEVERAL = "several"  # the scope of a request that says no to more than one thing, but not to all

log = structlog.get_logger()


def record(
    services: Services,
    publish: Publish,
    recipient_id: str,
    changes: Sequence[Change],
    source: str,
    actor: str,
    wording: str,
    said_at: datetime | None = None,
    expected_version: int | None = None,
    entity: str | None = None,
) -> RecordResult:
    """Record what one person said just now (or at `said_at`) and have a no acknowledged, in the name of `entity` where given.

    Raises what `ledger.consent.record` raises, and `LedgerUnavailable`; then nothing is recorded and nothing acknowledged.
    """
    now = services.clock()
    with lend(services.pool) as connection:
        ensure_period(connection, period_of(now))  # before the person's row is locked: new partitions lock whole tables
        with connection.transaction():
            recorded = consent.record(
                connection, services.secret, recipient_id, changes, source, actor, wording, said_at or now, now, expected_version
            )
            due = acknowledge(services, connection, recipient_id, recorded.events, entity)
    publish_acknowledgements(publish, due)
    return recorded


def acknowledge(
    services: Services, connection: Connection, recipient_id: str, events: Sequence[ConsentEvent], entity: str | None = None
) -> DueChunk | None:
    """Write the acknowledgement of one request's events, in the caller's transaction, once. Publish the result after the commit.

    None where no no is among them, or there is no e-mail address. A suppressed address is left to the policy, which refuses.
    Nobody need be told at once: what is not on a lane is put there by the clock once the lease of its chunk is over. Call
    `ensure_period` before the transaction.
    """
    noes = [event for event in events if is_no(event)]
    if not noes or not recipients.has_email(connection, recipient_id):
        return None
    trigger = _trigger(services, recipient_id, noes, entity)
    if trigger is None:
        return None
    spec = spec_to_json(trigger.spec)
    place = audience.take_trigger(connection, trigger.key, trigger.digest, spec, trigger.row, services.clock())
    return DueChunk(place.period, place.chunk, None) if place and place.fresh else None


def publish_acknowledgements(publish: Publish, *dues: DueChunk | None) -> None:
    """Put acknowledgements on the broker. A broker that is away costs a minute, not the acknowledgement."""
    for due in dues:
        if due is None:
            continue
        try:
            publish([due])
        except Exception as error:  # whatever a broker's client may raise: the no is recorded, and its caller must hear so
            log.warning("acknowledgement waits for the sweep", chunk=due.number, error=type(error).__name__)


def is_no(event: ConsentEvent) -> bool:
    """Whether the event opts out: an offer type none, a channel off, an objection to marketing."""
    about = event.subject.partition(":")[0]
    return (about, event.new_value) in {("offer", "none"), ("channel", "off")} or (event.subject, event.new_value) == (ALL, "on")


def _scope(noes: Sequence[ConsentEvent]) -> str | None:
    """What the no is about, in the template's words; None stands for all commercial messages."""
    if any(event.subject == ALL for event in noes):
        return None
    return noes[0].subject.partition(":")[2] if len(noes) == 1 else SEVERAL


def _trigger(services: Services, recipient_id: str, noes: Sequence[ConsentEvent], entity: str | None) -> Trigger | None:
    first = noes[0]
    day = first.said_at.astimezone(ZoneInfo(services.policy.default_zone)).date()
    data = {"received_on": day.isoformat(), "scope": _scope(noes)}
    said = {name: value for name, value in data.items() if value is not None}
    job = {"key": f"ack:{first.no}", "recipient": recipient_id, "template": TEMPLATE, "data": said}
    try:
        trigger = parse_trigger(job, ValidationContext(services.catalog, services.policy, services.clock()))
    except BadInput as error:  # templates of one's own, without this one or with other variables
        log.error("an opt-out can't be acknowledged", consent_event=first.no, faults=[fault.field for fault in error.faults])
        return None
    known = entity if entity and entity in services.policy.entities else trigger.spec.entity
    return replace(trigger, spec=replace(trigger.spec, channels=(Channel.EMAIL,), entity=known))
