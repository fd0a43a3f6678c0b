"""The service container. `bootstrap` makes it once; entry functions take it as an argument and pass on the parts needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from channels.base import Channel, Provider
from channels.send_window import MonotonicClock, boot_seconds
from channels.whatsapp_templates import TemplateClient
from dispatcher.content import Catalog
from dispatcher.domain.audience_urls import AudienceUrl
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.ledger.connection import Pool
from dispatcher.policy import Policy
from dispatcher.policy.contracts import Contracts, shipped
from dispatcher.runtime.canary_settings import CanarySettings
from dispatcher.runtime.drain import never
from dispatcher.runtime.event_settings import EventFileSettings, KafkaSettings
from dispatcher.runtime.ledger_watch import LedgerWatch
from dispatcher.runtime.oidc_settings import OidcSettings
from dispatcher.runtime.template_folder import TemplateFolder
from dispatcher.runtime.template_versions import TemplateVersions

BATCH_MESSAGES_MAX = 200
IN_FLIGHT_MAX = 400  # with answers after 100 ms, at most 4,000 messages a second
COLLECT_AFTER = (50_000, 20, 100)  # thresholds of garbage collection; Python's defaults cost 8 µs a message


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """Limits of the work on messages: sizes and times.

    A batch is what is decided and claimed at once. `in_flight_max` bounds the messages that are claimed and not settled, and so how
    many a killed worker process leaves `unresolved`. `together` is how many messages one request carries, by channel; where that is
    more than a batch, it is the batch, and where it is more than `in_flight_max`, it is the bound. `send_deadline_seconds` is the
    longest time from claim to hand-off: what is not handed off by then is not sent under this claim. `lease_seconds` is how long a
    worker may take from claim to settlement before its claims count as lost; it exceeds that deadline and the longest provider call
    together.
    """

    batch_messages_max: int = BATCH_MESSAGES_MAX
    in_flight_max: int = IN_FLIGHT_MAX
    together: Mapping[Channel, int] = field(default_factory=dict)
    send_deadline_seconds: float = 10.0
    lease_seconds: float = 60.0
    chunk_seconds: float = 120.0  # after this time a worker leaves the rest of a chunk, far below the task limits
    window_chunks: int = 320  # chunks of one campaign on the broker at a time, in some 64 messages
    decide_rounds_max: int = (
        5  # how often a chunk is decided because choices changed meanwhile; then it is left, and published again after a lease
    )
    part_rows: int = 10_000  # of an audience, written in one transaction: less than a second, and some megabytes
    settle_patience_seconds: float = 20.0  # how long a worker with receipts waits for an unavailable ledger

    def batch(self, channels: Sequence[Channel]) -> int:
        """How many messages are claimed at once: a batch, or a whole request where the only channel carries more in one."""
        batch = min(self.batch_messages_max, self.in_flight_max)
        return max(batch, self.together.get(channels[0], 1) if len(channels) == 1 else 1)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of uploaded audiences: bytes as sent and as unpacked, and how many times larger the second may be than the first."""

    bytes_max: int = 4_000_000_000  # some 40 million rows
    ratio_max: float = 200.0  # rows that differ only in their recipient compress to a fiftieth


@dataclass(frozen=True, slots=True)
class Watched:
    """What metrics look at outside the ledger. Without a broker's URL, lanes are not looked at."""

    home: Path | None = None
    broker_url: str = field(default="", repr=False)  # may hold a password
    store_url: str = field(default="", repr=False)  # where it is not the broker
    certificates: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Services:
    """All implementations: ledger, policy, templates, providers, clock, randomness.

    `catalog` has the templates of the folder, by name: what is submitted, approved and previewed. `versions` has those that
    accepted campaigns and triggers named, by digest: what is sent.
    """

    pool: Pool
    policy: Policy
    catalog: Catalog
    providers: Mapping[Channel, Provider] = field(repr=False)
    webhook_keys: Mapping[str, str] = field(repr=False)  # by provider; without a key no webhook call is accepted
    secret: KeyRing  # shows no key in its repr
    public_url: str
    audiences: Path  # the only folder from which Celery tasks read audience files
    clock: Callable[[], datetime]
    random: Callable[[], float]
    sleep: Callable[[float], None]
    compact_records: bool = True  # decisions are written without what many have in common
    seal_required: bool = False  # the public tasks refuse plain arguments
    template_client: TemplateClient | None = field(default=None, repr=False)  # where WhatsApp needs approved templates
    whatsapp_is_sandbox: bool = False  # nobody is reached: templates are pushed without being asked
    monotonic_clock: MonotonicClock = boot_seconds  # for deadlines: never goes back, and counts the time that the machine sleeps
    is_draining: Callable[[], bool] = never  # whether this worker was asked to stop
    webhook_hosts: frozenset[str] = frozenset()  # hosts of event endpoints that may be private or http
    audience_urls: tuple[AudienceUrl, ...] = ()  # audiences are fetched from under these only
    kafka: KafkaSettings | None = None  # events are delivered to it, too
    trace_page: str = ""  # the URL of a trace in a viewer, with {trace_id}
    oidc: OidcSettings | None = None  # people sign in with it, too
    event_files: EventFileSettings | None = None  # events are written to files, too
    canaries: CanarySettings | None = None  # canary recipients opt out every minute
    limits: DeliveryLimits = field(default_factory=DeliveryLimits)
    upload_limits: UploadLimits = field(default_factory=UploadLimits)
    watched: Watched = field(default_factory=Watched)
    contracts: Contracts = field(default_factory=shipped, repr=False)  # what customers accept by choosing "tailored"
    versions: TemplateVersions = field(default_factory=TemplateVersions, repr=False)
    ledger_watch: LedgerWatch = field(default_factory=LedgerWatch, repr=False)
    folder: TemplateFolder | None = field(default=None, repr=False)  # of the catalog, where it is followed

    @property
    def whatsapp_account(self) -> str | None:
        """The account whose ContentSids count; None where messages go to no provider that needs approvals."""
        return self.template_client.account if self.template_client is not None else None

    def current(self) -> Services:
        """The same with the catalog that the folder of templates holds by now: one catalog for a whole task or request."""
        catalog = self.folder.refresh() if self.folder is not None else self.catalog
        return self if catalog is self.catalog else replace(self, catalog=catalog)
