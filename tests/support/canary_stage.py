"""Canaries with a real web application, the sandbox's signatures and outboxes for providers; the workers are the test itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from channels.base import Channel, Event, EventKind
from channels.sandbox import running
from dispatcher.domain.canaries import OptOutWay
from dispatcher.inbound import provider_events
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import canaries, canary_lags
from dispatcher.ledger.maintenance.canaries import CanaryRound
from dispatcher.maintenance.canaries import rounds
from dispatcher.maintenance.canaries.rounds import Pace
from dispatcher.runtime.canary_settings import CanarySettings
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import ApiKey, ApiKeyRing, Right, new_key
from dispatcher.web.app import create
from tests.support.services import Broker, Clock, make_services, outbox
from tests.support.web_server import serving

AT_ONCE = Pace(step=timedelta(0), start=timedelta(0))
TICKS_MAX = 30
AUTH_TOKEN = "token-of-the-account"


class RealClock(Clock):
    """The real time: the times of canaries are those of the database."""

    def __call__(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class CanaryStage:
    """Services with canaries on, and the broker."""

    services: Services
    broker: Broker

    def tick(self, *, work: bool = True) -> None:
        """What beat starts, and, with `work`, what the workers then do."""
        rounds.run(self.services, self.broker.publish, AT_ONCE)
        if work:
            self.work()

    def work(self) -> None:
        """What the workers do: send, and apply what providers report."""
        self.broker.work(self.services)
        while provider_events.apply_batch(self.services, self.broker.publish):
            pass
        self.broker.work(self.services)

    def open_rounds(self) -> dict[OptOutWay, CanaryRound]:
        with lend(self.services.pool) as connection:
            return canaries.open_rounds(connection)

    def run_rounds(self, count: int = 1) -> None:
        """Rounds of all ways, from their start to their end."""
        for _ in range(count):
            with lend(self.services.pool) as connection:
                last_no = canary_lags.newest_no(connection)
            open_ways = set(OptOutWay)
            for _ in range(TICKS_MAX):
                rounds.run(self.services, self.broker.publish, AT_ONCE, open_ways)
                self.work()
                with lend(self.services.pool) as connection:
                    open_ways -= {OptOutWay(each.way) for each in canary_lags.results_after(connection, last_no)}
                if not open_ways:
                    break
            assert not open_ways

    def report_arrivals(self, after: timedelta = timedelta(0)) -> None:
        """Report a delivery of everything that was sent and has a delivery report, `after` so long from now."""
        at = datetime.now(UTC) + after
        for channel in (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP):
            sent = outbox(self.services, channel).sent
            events = [Event("outbox", f"{each.id}:delivered", channel, EventKind.DELIVERED, at, each.id) for each in sent]
            provider_events.store_events(self.services, events)
        self.work()


@contextmanager
def canary_stage(database: str, *, web: bool = True, public_url: str = "") -> Iterator[CanaryStage]:
    """Canaries in all ways; without `web`, nothing listens at the web address. With `public_url`, they reach it by another one."""
    broker = Broker()
    with running() as sandbox, make_services(database, RealClock()) as plain:
        key, line = new_key("canary", [Right.PREFERENCES])
        settings = CanarySettings(key, sandbox.url, frozenset(Channel))
        services = replace(
            plain,
            canaries=settings,
            webhook_keys={"twilio": AUTH_TOKEN, "sendgrid": sandbox.sendgrid_webhook_public_key},
            policy=replace(plain.policy, quiet_hours={}),
            public_url="http://127.0.0.1:1",
        )
        if not web:
            yield CanaryStage(services, broker)
            return
        digest = bytes.fromhex(line.partition("sha256:")[2][:64])
        application = create(services, broker, ApiKeyRing((ApiKey("canary", digest, frozenset({Right.PREFERENCES})),)))
        with serving(application) as url:
            if public_url:
                services = replace(services, canaries=replace(settings, web_url=url))
            services = replace(services, public_url=public_url or url)
            application.state.services = services
            yield CanaryStage(services, broker)
