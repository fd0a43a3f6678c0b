"""Send a customer a fresh link to the preference centre, on the channel that the customer names.

It is a service message, sent at the customer's request: no choice about advertising is asked, and its template offers nothing.
Suppressions hold all the same, and the preference centre's own rules for links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog

from channels.base import Channel
from dispatcher.campaigns import submission
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.runtime.services import Services

TEMPLATE = "preference_link"
Publish = Callable[[Iterable[DueChunk]], None]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A request for a link. The same `key` is the same request: the link is sent once."""

    key: str
    recipient_id: str
    channel: Channel
    entity: str


def send(services: Services, publish: Publish, request: LinkRequest) -> MessageId:
    """The id of the message with the link. If the broker cannot be reached, it is sent about a minute later.

    Raises `BadInput`, also for a folder of templates without this one, and `LedgerUnavailable`.
    """
    job = {
        "key": f"{TEMPLATE}:{request.recipient_id}:{request.channel}:{request.key}",
        "recipient": request.recipient_id,
        "template": TEMPLATE,
        "channels": [request.channel.value],
    }
    trigger = parse_trigger(job, submission.validation_context(services))
    known = request.entity if request.entity in services.policy.entities else trigger.spec.entity
    place = submission.take_trigger(services, replace(trigger, spec=replace(trigger.spec, entity=known)))
    if place.fresh:
        try:
            publish([submission.chunk_of(place)])
        except Exception as error:  # any error of a broker's client: the ledger has the message
            log.warning("a link waits for the sweep", chunk=place.chunk, error=type(error).__name__)
    return submission.message_id_of(place)
