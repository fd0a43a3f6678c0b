"""Services for tests: a real ledger, the shipped policy and templates, outboxes for providers, a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from channels.base import Channel
from channels.providers.outbox import Outbox
from dispatcher import content
from dispatcher.campaigns import scheduler
from dispatcher.campaigns.template_approval import approve_waiting
from dispatcher.content import Catalog
from dispatcher.content.specialiser.decision_tree import Specialiser
from dispatcher.content.template import LocalizedTemplate
from dispatcher.delivery.pipeline import prepare_all, run_chunks, send_limits
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import Kind
from dispatcher.intake.recipient_import import parse as parse_recipient
from dispatcher.ledger.campaigns import balance as balance_module
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.balance import Balance
from dispatcher.ledger.connection import PoolOptions, lend, open_pool
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.delivery.candidates import gather
from dispatcher.ledger.delivery.chunks import Chunk, find_chunk
from dispatcher.ledger.delivery.claims import ClaimEntry
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.maintenance import policies
from dispatcher.ledger.roles import FULL
from dispatcher.maintenance import sweep
from dispatcher.policy import parse, shipped
from dispatcher.runtime.services import Services
from tests.support.feed import message_states, untold

TEMPLATES = Path(__file__).parents[2] / "templates"
NOON = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)  # a Monday, 12:00 in Brussels
NO_WEBHOOKS: Mapping[str, str] = {}


@dataclass
class Clock:
    """A clock that moves only when it is set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        """The time."""
        return self.now

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass
class Broker:
    """Takes work like the broker; `away` makes it refuse, as a client does that can't reach it."""

    dues: list[DueChunk] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    told_of_events: int = 0
    away: bool = False

    def publish(self, dues: Iterable[DueChunk]) -> None:
        """See `dispatcher.tasks`."""
        if self.away:
            raise ConnectionError("away")
        self.dues += dues

    def publish_load(self, number: int) -> None:
        """See `dispatcher.tasks`."""
        if self.away:
            raise ConnectionError("away")
        self.loads.append(number)

    def publish_events(self) -> None:
        """See `dispatcher.tasks`."""
        if self.away:
            raise ConnectionError("away")
        self.told_of_events += 1

    def work(self, services: Services) -> None:
        """Do what the workers would do with the messages on the broker."""
        while self.dues:
            due = self.dues.pop(0)
            run_chunks(services, due.period, due.numbers)


@lru_cache(maxsize=1)
def shipped_templates() -> Catalog:
    """The shipped templates, rendered by Jinja. Loaded once per process, which takes a second; no test changes them."""
    return content.load(TEMPLATES)


def specialised_templates(random: Callable[[], float]) -> Catalog:
    """The shipped templates with new compiled paths, as `content.load` makes them with `random`."""
    loaded = shipped_templates()
    return Catalog({name: replace(each, specialiser=Specialiser(name, each.digest, random)) for name, each in loaded.items()})


@lru_cache(maxsize=1)
def templates() -> Catalog:
    """The shipped templates, loaded once, and written along known paths as in production."""
    return specialised_templates(lambda: 0.5)


def load_edited(folder: Path) -> Catalog:
    """The templates of a folder. Those that are as shipped are not loaded again: so a process follows its folder, too."""
    return content.load(folder, previous=shipped_templates())


def with_content_sids(catalog: Catalog) -> Catalog:
    """The same templates with an id in each WhatsApp text: the texts of an account where all are approved."""

    def with_ids(localized: LocalizedTemplate) -> LocalizedTemplate:
        texts = {
            mode: replace(text, content_sid=f"HX{text.digest(Kind.COMMERCIAL)[:32]}") for mode, text in localized.whatsapp.items()
        }
        return replace(localized, whatsapp=texts)

    return Catalog(
        {
            name: replace(template, languages={language: with_ids(each) for language, each in template.languages.items()})
            for name, template in catalog.items()
        }
    )


@contextmanager
def make_services(
    database_url: str,
    clock: Clock | None = None,
    webhook_keys: Mapping[str, str] = NO_WEBHOOKS,
    wait_seconds_max: float = 10.0,
    approved: bool = True,
    role: str = FULL,
) -> Iterator[Services]:
    """Services on this database, as long as the block lasts; with `approved`, all templates have an approval.

    At the end, each state of a message has to be in the feed.
    """
    rules = parse(shipped())
    with open_pool(database_url, PoolOptions(wait_seconds_max=wait_seconds_max, role=role)) as pool:
        services = Services(
            pool=pool,
            policy=rules,
            catalog=templates(),
            providers={channel: Outbox(channel) for channel in Channel},
            webhook_keys=webhook_keys,
            secret=KeyRing.of(b"a-secret-of-the-tests-that-is-long-enough"),
            public_url="https://dispatcher.example",
            audiences=Path("/dev/null/nonexistent"),
            clock=clock or Clock(),
            random=lambda: 0.5,
            sleep=lambda _: None,
        )
        if wait_seconds_max >= 1:
            with lend(pool) as connection:
                policies.store_policy(connection, rules.digest, shipped())
            if approved:
                approve_waiting(services, "tests")
        before = message_states(services) if wait_seconds_max >= 1 else {}
        yield services
        if wait_seconds_max >= 1 and not services.pool.closed:
            assert not untold(services, before)  # whatever a test did: each state that it changed is in the feed


def policy_without_quiet_hours(folder: Path, changes: Mapping[str, str] | None = None) -> Path:
    """The shipped policy in a file of its own, for workers that can't wait for the morning. `changes`: old text -> new text."""
    text = "\n".join(line for line in shipped().splitlines() if "{ from = " not in line)
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def person(recipient_id: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    """A customer as in the import file, who may get own offers on every channel."""
    return {
        "id": recipient_id,
        "person": "customer",
        "language": "en",
        "birth_date": "1980-01-31",
        "entities": ["kbc-bank"],
        "has_current_account": True,
        "email": f"{recipient_id}@example.org",
        "phone": f"+324700000{number:02}",
        "whatsapp": f"+324700000{number:02}",
        "push": [{"token": f"device-{recipient_id}", "platform": "android", "permission": True}],
        "offers": {"own": "tailored", "partner": "none", "kate": "tailored"},
        "channels": {"email": True, "push": True, "sms_whatsapp": True},
        **changes,
    }


def add_people(services: Services, *people: Mapping[str, Any]) -> None:
    """Take recipients in, as an import does."""
    with lend(services.pool) as connection:
        batch = [parse_recipient(each, services.clock()) for each in people]
        recipients.upsert(connection, services.secret, batch, "tests", services.clock())


def work(services: Services) -> None:
    """What beat and workers do until nothing is due."""
    sweep.sweep(services)
    while dues := scheduler.due_chunks(services):
        for due in dues:
            chunk = run_chunks(services, due.period, due.numbers)
            assert chunk is not None
            dues += scheduler.next_chunk(services, chunk, len(due.numbers))


def up_to_the_claim(services: Services) -> tuple[Chunk, list[ClaimEntry]]:
    """The one chunk that is due, decided and rendered: what its claim would write."""
    (due,) = scheduler.due_chunks(services)
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        candidates = gather(connection, chunk, limits=send_limits(services, chunk))
    return chunk, [item.entry for item in prepare_all(services, chunk, candidates, {})]


def outbox(services: Services, channel: Channel = Channel.EMAIL) -> Outbox:
    provider = services.providers[channel]
    assert isinstance(provider, Outbox)
    return provider


def balance(services: Services, campaign_id: str = "spring") -> Balance:
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
        assert campaign is not None
        counted = balance_module.balance(connection, campaign)
    assert sum(counted.states.values()) == campaign.audience
    return counted


def states(services: Services, campaign_id: str = "spring") -> dict[str, int]:
    return {state.value: count for state, count in balance(services, campaign_id).states.items() if count}
