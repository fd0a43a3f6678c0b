"""People who follow the links of a message: services with their web application, and messages that were sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from channels.base import Channel, Email, Outbound
from channels.providers.outbox import Outbox
from dispatcher.campaigns import submission
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns.audience import TriggerPlace
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.services import Broker, Clock, make_services

LOAN = {"project": "a bathroom", "amount": 9000, "offer_url": "https://www.bank.example/loan"}
TRAIN = {"partner": "Train Shop", "discount": 40, "offer_url": "https://tickets.train.example/weekend"}
DATA: Mapping[str, Mapping[str, Any]] = {"loan_offer": LOAN, "train_ticket": TRAIN}


@dataclass(frozen=True)
class Links:
    """The paths of a received message's two links."""

    unsubscribe: str
    preferences: str


@dataclass
class Visits:
    """Services and their web application."""

    services: Services
    broker: Broker
    clock: Clock
    client: TestClient

    def sent(self, channel: Channel = Channel.EMAIL) -> list[Outbound]:
        """The messages sent on a channel."""
        return cast(Outbox, self.services.providers[channel]).sent

    def prepare(
        self, recipient_id: str, template: str = "loan_offer", channel: Channel = Channel.EMAIL, entity: str = "kbc-bank"
    ) -> TriggerPlace:
        """Put an offer for a person on the broker."""
        job = {
            "key": f"{template}:{recipient_id}:{channel}",
            "recipient": recipient_id,
            "template": template,
            "data": DATA[template],
        }
        trigger = parse_trigger(job, submission.validation_context(self.services))
        return submission.take_trigger(
            self.services, replace(trigger, spec=replace(trigger.spec, channels=(channel,), entity=entity))
        )

    def write(
        self, recipient_id: str, template: str = "loan_offer", channel: Channel = Channel.EMAIL, entity: str = "kbc-bank"
    ) -> Links:
        """Send a person an offer; the links in it."""
        place = self.prepare(recipient_id, template, channel, entity)
        run_chunk(self.services, place.period, place.chunk)
        return links(self.sent(channel)[-1])

    def values(self, recipient_id: str) -> dict[str, str]:
        """A person's choices now."""
        with lend(self.services.pool) as connection:
            found = events.preferences(connection, recipient_id).choices
        return {subject: choice.value for subject, choice in found.items()}

    def said(self, recipient_id: str) -> Sequence[ConsentEvent]:
        """A person's choices after the import, oldest first."""
        with lend(self.services.pool) as connection:
            return [event for event in events.history(connection, recipient_id) if event.source != "import"]


def links(outbound: Outbound) -> Links:
    """The links in a message, wherever its channel has them."""
    content = outbound.content
    text = f"{content.html} {dict(content.headers).get('List-Unsubscribe', '')}" if isinstance(content, Email) else repr(content)
    found = {path[:3]: path for path in (urlsplit(url).path for url in re.findall(r"https?://[^\s\"'<>]+/[up]/[\w-]+", text))}
    return Links(found.get("/u/", ""), found.get("/p/", ""))


@contextmanager
def open_visits(database: str, wait_seconds_max: float = 10.0) -> Iterator[Visits]:
    """Services with their web application, called without a network."""
    clock, broker = Clock(), Broker()
    with make_services(database, clock, wait_seconds_max=wait_seconds_max) as services:
        client = TestClient(create(services, broker), follow_redirects=False)
        yield Visits(services, broker, clock, client)
