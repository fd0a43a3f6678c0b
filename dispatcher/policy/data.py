"""The parsed policy: frozen and complete. Decisions look values up and build nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from channels.base import Channel
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.recipient import Language
from dispatcher.policy.frequency_caps import FrequencyCap
from dispatcher.policy.quiet_hours import QuietHours

SERVICE = "service"  # the row for service messages in tables by offer type or mode


@dataclass(frozen=True, slots=True)
class CampaignSender:
    """A sender that a campaign may choose in place of its entity's; what is empty stays the entity's."""

    name: str = ""  # in the From header of e-mails
    address: str = ""
    senders: Mapping[Channel, str] = field(default_factory=dict)  # of text messages


@dataclass(frozen=True, slots=True)
class ContractRules:
    """Which version of the contract is accepted by choosing "tailored", and what acceptances of other versions are worth."""

    version: str = "1"
    renewal: str = "kept"  # "kept": they stay valid | "required": without an acceptance of `version`, no basis `contract`


DEFAULT_CONTRACT_RULES = ContractRules()


@dataclass(frozen=True, slots=True)
class Entity:
    """A company in whose name messages are sent."""

    id: str
    names: Mapping[Language, str]
    sender_name: str  # of its e-mails
    sender_address: str
    senders: Mapping[Channel, str]  # of its text messages, if not the provider account's own
    controllers: tuple[str, ...]  # data controllers, GDPR art. 4(7)
    processor: str  # data processor: sends on their behalf
    contact: str  # where recipients can reach a person
    hosts: frozenset[str] = frozenset()  # of its links, besides those of the two addresses above; subdomains included
    partners: Mapping[str, frozenset[str]] = field(default_factory=dict)  # hosts of other companies -> parameters that may differ
    campaign_senders: Mapping[str, CampaignSender] = field(default_factory=dict)  # that a campaign may name
    reply_to: tuple[str, ...] = ()  # addresses that a campaign may choose for replies to its e-mails
    privacy: Mapping[Language, str] = field(default_factory=dict)  # links to the privacy statement


@dataclass(frozen=True, slots=True)
class BasisGrant:
    """A basis that one cell of the file's tables allows. `key` names the cell, as evidence."""

    basis: str
    key: str


@dataclass(frozen=True, slots=True)
class Tester:
    """A member of staff who gets test sends. `recipient` is their own id where they are a customer with the same addresses, too."""

    name: str
    language: Language
    addresses: Mapping[Channel, str] = field(repr=False)  # in normal form; a device's token for push
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """The template of canary jobs, and the addresses of the canary of each way; where none are given, those of the sandbox."""

    template: str = "loan_offer"
    addresses: Mapping[OptOutWay, Mapping[Channel, str]] = field(default_factory=dict, repr=False)


DEFAULT_CANARY_RULES = CanaryRules()


# channel -> the bases to try, in order; one such row per entity, offer type (or "service") and choice
Row = Mapping[Channel, tuple[BasisGrant, ...]]


@dataclass(frozen=True, slots=True)
class Product:
    """For the soft opt-in: which entities sell a product, and which earlier purchases count as analogous."""

    sold_by: frozenset[str]
    analogous: frozenset[str]


@dataclass(frozen=True, slots=True)
class SoftOptIn:
    """The conditions of the Royal Decree of 4 April 2003, art. 1."""

    objection_offered: bool  # the bank states that customers could object at the time of the sale
    products: Mapping[str, Product]


@dataclass(frozen=True, slots=True)
class CoolDownRules:
    """The provider's codes for its own limit per person, and for how long the channel then gets no advertising."""

    codes: frozenset[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class ComplaintBrake:
    """When a campaign pauses itself. Rates are shares of the messages that providers took; they count from `minimum` on."""

    complaint_rate_warn: float
    complaint_rate_pause: float
    bounce_rate_pause: float
    minimum: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits and waits after a failed attempt."""

    attempts_max: int
    base_seconds: float
    cap_seconds: float
    throttle_seconds: float  # when the provider does not say how long
    stopped_seconds: float  # how long the messages of a stopped channel wait before the next attempt


@dataclass(frozen=True, slots=True)
class RetentionPeriod:
    """A length of time in calendar days or years."""

    count: int
    unit: str  # "days" | "years"

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"

    @property
    def days(self) -> int:
        """The approximate length, to compare two periods."""
        return self.count * (365 if self.unit == "years" else 1)

    def before(self, now: datetime) -> datetime:
        """The moment that lies one period before `now`. 29 February becomes the 28th in other years."""
        if self.unit == "days":
            return now - timedelta(days=self.count)
        day = 28 if (now.month, now.day) == (2, 29) else now.day
        return now.replace(year=now.year - self.count, day=day)


@dataclass(frozen=True, slots=True)
class RetentionPeriods:
    """How long each class of data is kept."""

    decisions: RetentionPeriod
    consent: RetentionPeriod
    content: RetentionPeriod
    news: RetentionPeriod
    answers: RetentionPeriod
    prospects: RetentionPeriod
    refused_jobs: RetentionPeriod
    events: RetentionPeriod
    uploads: RetentionPeriod
    event_files: RetentionPeriod
    audit: RetentionPeriod
    erasure_requests: RetentionPeriod
    canaries: RetentionPeriod


@dataclass(frozen=True, slots=True)
class FileRules:
    """How files, and campaigns that people submit, are read."""

    default_region: str = "BE"  # whose national telephone numbers are read; ISO 3166-1
    quoted_lines_max: int = 5  # lines of one quoted CSV cell
    invalid_max_percent: float = 50.0  # with more unreadable rows, a campaign waits for a person
    send_at_past_minutes: float = 15.0  # how late a campaign may be submitted
    contract_versions: tuple[str, ...] = ()  # that a recipient's row may name; none: each. See `contracts.with_contracts`


DEFAULT_FILE_RULES = FileRules()


@dataclass(frozen=True, slots=True)
class ScheduleRules:
    """How recurring campaigns are approved, and what becomes of a run that was missed because the system was down."""

    approval: str = "run"  # "run": each run as any campaign | "definition": once, by a second person; its runs need none
    missed: str = "skip"  # "skip" | "late": the newest missed run starts late
    late_minutes_max: float = 60.0  # later than that, it is skipped


DEFAULT_SCHEDULE_RULES = ScheduleRules()


@dataclass(frozen=True, slots=True)
class SmsPrices:
    """What one segment of an SMS costs, by the country of the number (ISO 3166-1). A dry run adds it up."""

    currency: str  # ISO 4217
    per_segment: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GlobalControlGroup:
    """The people whom no campaign reaches: so many percent of all; another salt, such as the quarter, selects others."""

    percent: float = 0.0
    salt: str = ""


@dataclass(frozen=True, slots=True)
class TextRules:
    """How texts are to be written. Lengths are in characters. `avoided_address` are the words, by language, that address readers in
    another form than the bank's: "u" where it says "je". A word that ends in * may go on."""

    push_title_max: int = 65
    push_body_max: int = 160
    avoided_address: Mapping[Language, tuple[str, ...]] = field(default_factory=dict)


DEFAULT_TEXT_RULES = TextRules()


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy. `digest` is the SHA-256 of the file's text; each decision records it."""

    digest: str
    signed_by: str
    signed_on: date
    default_zone: str
    adult_years: int
    entities: Mapping[str, Entity]
    offer_types: tuple[str, ...]
    basis: Mapping[str, Mapping[str, Mapping[str, Row]]]  # entity -> offer type or "service" -> choice -> row
    categories: Mapping[str, frozenset[str]]  # mode or "service" -> data categories
    household_categories: frozenset[str]  # of these, the ones used only for people with a registered partner
    consent_sources: frozenset[str]
    soft_opt_in: SoftOptIn
    coins_need_current_account: bool
    holdout_salt: str
    global_group: GlobalControlGroup
    groups: Mapping[Channel, str]  # the channel group that switches a channel
    quiet_hours: Mapping[Channel, QuietHours]
    caps: tuple[FrequencyCap, ...]
    cool_downs: Mapping[Channel, CoolDownRules]
    retry: RetryPolicy
    brake: ComplaintBrake
    four_eyes_audience_min: int  # a campaign with more recipients waits for a second person
    abandoned_after_days: int  # so long paused, or waiting for its release, and a campaign is cancelled
    four_eyes_templates: bool  # a commercial message is sent only in an approved template version
    retention: RetentionPeriods
    deleted_unread: str  # what a reply means whose text is deleted before anybody read it: "stop" | "hold"
    topics: Mapping[str, frozenset[str]]  # regulated topic -> the products that it covers
    files: FileRules = DEFAULT_FILE_RULES
    four_eyes_erasure: bool = True  # a second person approves the erasure of a customer
    second_factor_roles: frozenset[str] = frozenset()  # people with one of these need a second factor
    approval_days: int = 0  # how long an approval of a template is in force; 0: until it is withdrawn
    second_approver_topics: frozenset[str] = frozenset()  # regulated topics whose templates two people approve
    testers: Mapping[str, Tester] = field(default_factory=dict)  # by name
    lint_blocking: frozenset[str] = frozenset({"error"})  # severities and codes of the linter that block a template's approval
    text_rules: TextRules = DEFAULT_TEXT_RULES
    one_per_address: bool = True  # a campaign sends one commercial message to an address and channel
    sms_prices: SmsPrices | None = None
    schedules: ScheduleRules = DEFAULT_SCHEDULE_RULES
    contract: ContractRules = DEFAULT_CONTRACT_RULES
    canaries: CanaryRules = DEFAULT_CANARY_RULES

    def caps_since(self, now: datetime) -> datetime | None:
        """From which moment on sent messages count for some cap; None without caps."""
        return now - timedelta(seconds=max(cap.reach_seconds for cap in self.caps)) if self.caps else None
