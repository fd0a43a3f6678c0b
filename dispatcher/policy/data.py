"""What a policy file says, once read: frozen, complete, looked up without building anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from channels.base import Channel
from dispatcher.domain.recipient import Language
from dispatcher.policy.calendar import public_holidays

CALENDAR_DAY_SECONDS_MAX = 2 * 86_400.0
SERVICE = "service"  # where tables go by offer type or mode, the row for service messages


@dataclass(frozen=True, slots=True)
class Entity:
    """A company in whose name a message goes out."""

    id: str
    names: Mapping[Language, str]
    sender_name: str  # of its e-mails
    sender_address: str
    senders: Mapping[Channel, str]  # of its text messages, where not the provider account's own
    controllers: tuple[str, ...]  # who answers for the personal data
    processor: str  # who sends on their behalf
    contact: str  # where a person can be asked


@dataclass(frozen=True, slots=True)
class BasisGrant:
    """A basis that the file allows in one place of its tables. `key` is that place, as evidence."""

    basis: str
    key: str


# channel -> the bases to try, in order; one such row per entity, offer type (or "service") and choice
Row = Mapping[Channel, tuple[BasisGrant, ...]]


@dataclass(frozen=True, slots=True)
class Product:
    """For the soft opt-in: who sells a product, and which earlier purchases count as analogous to it."""

    sold_by: frozenset[str]
    analogous: frozenset[str]


@dataclass(frozen=True, slots=True)
class SoftOptIn:
    """The conditions of the Royal Decree of 4 April 2003, art. 1."""

    objection_offered: bool  # the bank states that the sale's paperwork offered the objection
    products: Mapping[str, Product]


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When a channel stays silent, by the recipient's wall clock: from `start` until just before `end`, and on whole days.

    `weekdays` are counted from Monday, which is 0; `holidays_of` is the country whose public holidays are silent, if any.
    """

    start: time
    end: time
    weekdays: frozenset[int] = frozenset()
    holidays_of: str | None = None

    def covers(self, clock: time) -> bool:
        """Whether the wall clock shows a quiet time; the hours may run over midnight."""
        if self.start < self.end:
            return self.start <= clock < self.end
        return clock >= self.start or clock < self.end

    def silent_on(self, day: date) -> bool:
        """Whether the whole day is silent."""
        if day.weekday() in self.weekdays:
            return True
        return self.holidays_of is not None and day in public_holidays(self.holidays_of, day.year)

    def at(self, local: datetime) -> bool:
        """Whether a moment, in the recipient's zone, is silent."""
        return self.covers(local.time()) or self.silent_on(local.date())


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most so many commercial messages to one person, of some types on some channels, within a window.

    The window rolls (`rolling_seconds`), or is the calendar day in the person's zone where that is None.
    """

    name: str
    most: int
    channels: frozenset[Channel]
    offer_types: frozenset[str]
    rolling_seconds: float | None

    @property
    def reach_seconds(self) -> float:
        """How far back a message may count, whatever the zone: a calendar day can have 25 hours, two days are surely enough."""
        return CALENDAR_DAY_SECONDS_MAX if self.rolling_seconds is None else self.rolling_seconds


@dataclass(frozen=True, slots=True)
class CoolDownRules:
    """The codes by which a provider says that a person has had enough advertising there, and for how long it then rests."""

    codes: frozenset[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class ComplaintBrake:
    """When a campaign stops itself: rates are shares of the messages that providers took, from `minimum` of them on."""

    complaint_rate_warn: float
    complaint_rate_pause: float
    bounce_rate_pause: float
    minimum: int


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Numbers for what follows a failed attempt."""

    attempts_max: int
    base_seconds: float
    cap_seconds: float
    throttle_seconds: float  # when the provider does not say how long
    stopped_seconds: float  # how long a stopped channel's messages rest before they are looked at again


@dataclass(frozen=True, slots=True)
class Term:
    """A length of time as people agree on it: so many calendar days or years."""

    count: int
    unit: str  # "days" | "years"

    def __str__(self) -> str:
        return f"{self.count} {self.unit}"

    @property
    def days(self) -> int:
        """About how long, to tell the longer of two."""
        return self.count * (365 if self.unit == "years" else 1)

    def before(self, now: datetime) -> datetime:
        """The moment that lies so far back; for 29 February, in other years, the 28th."""
        if self.unit == "days":
            return now - timedelta(days=self.count)
        day = 28 if (now.month, now.day) == (2, 29) else now.day
        return now.replace(year=now.year - self.count, day=day)


@dataclass(frozen=True, slots=True)
class RetentionTerms:
    """How long each class of data is kept."""

    decisions: Term
    consent: Term
    content: Term
    news: Term
    answers: Term
    prospects: Term


@dataclass(frozen=True, slots=True)
class Policy:
    """The whole policy. `digest` is the SHA-256 of the file's text: each decision names it."""

    digest: str
    signed_by: str
    signed_on: date
    default_zone: str
    adult_years: int
    entities: Mapping[str, Entity]
    offer_types: tuple[str, ...]
    basis: Mapping[str, Mapping[str, Mapping[str, Row]]]  # entity -> offer type or "service" -> choice -> row
    categories: Mapping[str, frozenset[str]]  # mode or "service" -> data categories
    household_categories: frozenset[str]  # of these, only what a registered partner's household tells
    consent_sources: frozenset[str]
    soft_opt_in: SoftOptIn
    coins_need_current_account: bool
    holdout_salt: str
    groups: Mapping[Channel, str]  # the switch that rules a channel
    quiet_hours: Mapping[Channel, QuietHours]
    caps: tuple[FrequencyCap, ...]
    cool_downs: Mapping[Channel, CoolDownRules]
    retry: RetryPolicy
    brake: ComplaintBrake
    four_eyes_audience_min: int  # a campaign with more recipients waits for a second person
    four_eyes_templates: bool  # a commercial text leaves only in a wording that somebody approved
    retention: RetentionTerms
    topics: Mapping[str, frozenset[str]]  # regulated topic -> the products whose offers fall under it

    def caps_since(self, now: datetime) -> datetime | None:
        """How far back messages already sent matter; None without any cap."""
        return now - timedelta(seconds=max(cap.reach_seconds for cap in self.caps)) if self.caps else None
