"""Scenarios for the policy: each starts from facts that allow a message, and then changes a few of them near their limits.

Random facts would be refused for ten reasons at once, and a missing rule would not be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from msgspec import structs

from channels.base import Channel
from dispatcher.domain.message import Job, Kind, Mode, OfferType, TemplateInfo
from dispatcher.domain.recipient import LANGUAGES, ChannelGroup, Choice, CoolDown, Device, Facts, SentMessage

NOON = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)  # 12:00 in Brussels
LONG_AGO = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)
BOTH = frozenset({Mode.TAILORED, Mode.STANDARD})
ALL_TEXTS = frozenset((language, mode) for language in LANGUAGES for mode in BOTH)
SERVICE_TEMPLATE = TemplateInfo("opt-out-acknowledgement", Kind.SERVICE, None, frozenset({Mode.STANDARD}))


@dataclass(frozen=True)
class PolicyScenario:
    """The three inputs of a decision, besides the policy."""

    job: Job
    facts: Facts
    now: datetime = NOON

    def with_job(self, **changes: Any) -> PolicyScenario:
        """The same scenario with another job."""
        return replace(self, job=replace(self.job, **changes))

    def with_template(self, **changes: Any) -> PolicyScenario:
        """The same scenario with another template."""
        return self.with_job(info=replace(self.job.info, **changes))

    def with_facts(self, **changes: Any) -> PolicyScenario:
        """The same scenario with another recipient."""
        return replace(self, facts=structs.replace(self.facts, **changes))


def recorded_choice(value: str, number: int, source: str = "mobile") -> Choice:
    """A choice as the ledger returns it."""
    return Choice(value, f"consent:{number}", source, LONG_AGO)


def sendable(
    offer: OfferType | None = OfferType.OWN,
    choice: str = "tailored",
    channels: tuple[Channel, ...] = tuple(Channel),
    route: str = "first",
) -> PolicyScenario:
    """A scenario in which every requested channel is allowed. With `offer` None it is a service message."""
    coins = offer is OfferType.KATE and choice == "tailored"
    info = SERVICE_TEMPLATE if offer is None else TemplateInfo("spring", Kind.COMMERCIAL, offer, BOTH, coins=coins, product="loan")
    job = Job("m-1", "c-1", "kbc-bank", info, channels, route, campaign_id="spring-2026", approval=7, whatsapp_texts=ALL_TEXTS)
    facts = Facts(
        recipient_id="c-1",
        version=7,
        language="fr",
        timezone="Europe/Brussels",
        birth_date=date(1980, 1, 31),
        entities=frozenset({"kbc-bank"}),
        has_current_account=True,
        email="someone@example.org",
        phone="+32470000001",
        whatsapp="+32470000001",
        devices=(Device("old", "ios", False), Device("new", "android", True)),
        purchased=frozenset({"mortgage"}),
        offers={name.value: recorded_choice(choice, number) for number, name in enumerate(OfferType, 1)},
        switches={name.value: recorded_choice("on", number) for number, name in enumerate(ChannelGroup, 11)},
    )
    return PolicyScenario(job, facts)


Disturbance = Callable[[PolicyScenario], PolicyScenario]


def _offer(value: str, source: str = "mobile") -> Disturbance:
    return lambda s: s.with_facts(offers={**s.facts.offers, (s.job.info.offer_type or "own"): recorded_choice(value, 31, source)})


def _switch(group: str, value: str | None) -> Disturbance:
    def disturb(scenario: PolicyScenario) -> PolicyScenario:
        rest = {name: choice for name, choice in scenario.facts.switches.items() if name != group}
        return scenario.with_facts(switches=rest if value is None else {**rest, group: recorded_choice(value, 32)})

    return disturb


def _suppress(channel: Channel) -> Disturbance:
    return lambda s: s.with_facts(suppressions={**s.facts.suppressions, channel.value: f"suppression:{channel}"})


def unread(channel: Channel) -> Disturbance:
    """A reply from the number waits to be read."""
    return lambda s: s.with_facts(unread_replies={**s.facts.unread_replies, channel.value: "inbound:SM1"})


def received(
    count: int, channel: Channel = Channel.EMAIL, offer: str = "own", seconds_ago: float = 60, own: bool = True
) -> Disturbance:
    """`count` more messages that the person received; not `own`: that somebody else with the same address received."""
    return lambda s: s.with_facts(
        sent=s.facts.sent
        + tuple(SentMessage(no, s.now - timedelta(seconds=seconds_ago), channel, offer, own) for no in range(1, count + 1))
    )


def cooling_down(channel: Channel, seconds: float) -> Disturbance:
    """The provider takes no advertising for the person on this channel for so many seconds."""
    return lambda s: s.with_facts(
        cool_downs={**s.facts.cool_downs, channel.value: CoolDown(s.now + timedelta(seconds=seconds), "63049")}
    )


def _adult_in(days: int) -> Disturbance:
    def disturb(scenario: PolicyScenario) -> PolicyScenario:
        here = scenario.now.astimezone(ZoneInfo("Europe/Brussels")).date() + timedelta(days=days)
        return scenario.with_facts(birth_date=here.replace(year=here.year - 18))

    return disturb


def _expires_in(seconds: float) -> Disturbance:
    return lambda s: s.with_job(expires_at=s.now + timedelta(seconds=seconds))


def _at(hour: int, minute: int, second: int = 0) -> Disturbance:
    return lambda s: replace(s, now=s.now.replace(hour=hour, minute=minute, second=second))


def _on(moment: datetime) -> Disturbance:
    return lambda s: replace(s, now=moment)


def _facts(**changes: Any) -> Disturbance:
    return lambda s: s.with_facts(**changes)


def _job(**changes: Any) -> Disturbance:
    return lambda s: s.with_job(**changes)


IN_GLOBAL_GROUP = "c-33"  # of a tenth, with the shipped salt


def other_person(recipient_id: str, scenario: PolicyScenario | None = None) -> PolicyScenario:
    """The scenario for somebody else."""
    return (scenario or sendable()).with_facts(recipient_id=recipient_id).with_job(recipient_id=recipient_id)


def _template(**changes: Any) -> Disturbance:
    return lambda s: s.with_template(**changes)


DISTURBANCES: tuple[Disturbance, ...] = (
    _facts(known=False),
    _facts(erased=True),
    _facts(recipient_id="c-2"),
    lambda scenario: other_person(IN_GLOBAL_GROUP, scenario),
    _facts(repeat_of="m-0"),
    _facts(partner_message="m-2"),
    *(_expires_in(seconds) for seconds in (-1, 0, 1, 300, 301, 5 * 3600, 12 * 3600, 15 * 3600)),
    _facts(object_marketing=recorded_choice("on", 33)),
    _facts(object_marketing=recorded_choice("off", 33)),
    _facts(object_marketing=recorded_choice("perhaps", 33)),
    _facts(object_profiling=recorded_choice("on", 34)),
    _facts(object_profiling=recorded_choice("off", 34)),
    *(_offer(value) for value in ("none", "standard", "tailored", "", "yes")),
    *(_offer("standard", source) for source in ("provider", "import", "unsubscribe")),
    _facts(offers={}),
    _template(modes=frozenset({Mode.TAILORED})),
    _template(modes=frozenset({Mode.STANDARD})),
    _template(modes=frozenset()),
    _template(offer_type=None),
    _template(coins=True),
    _template(coins=False),
    *(_template(product=product) for product in (None, "insurance", "loan", "train_ticket")),
    *(_switch(group.value, value) for group in ChannelGroup for value in ("off", "maybe", None)),
    *(_suppress(channel) for channel in Channel),
    *(unread(channel) for channel in (Channel.SMS, Channel.WHATSAPP)),
    _facts(email=None),
    _facts(phone=None),
    _facts(whatsapp=""),
    _facts(devices=()),
    _facts(devices=(Device("only", "ios", False),)),
    *(received(count) for count in (1, 3, 6, 7)),
    *(received(7, offer="kate", seconds_ago=ago) for ago in (7 * 86_400 - 1, 7 * 86_400)),
    *(received(1, channel) for channel in (Channel.SMS, Channel.WHATSAPP)),
    *(received(2, Channel.SMS, seconds_ago=ago) for ago in (60, 12 * 3600, 12 * 3600 + 1)),
    *(received(7, channel, own=False) for channel in (Channel.EMAIL, Channel.SMS)),
    *(received(count, Channel.WHATSAPP, own=False) for count in (1, 2)),
    *(_facts(address_messages={channel.value: "m-3"}) for channel in (Channel.EMAIL, Channel.SMS)),
    *(cooling_down(Channel.WHATSAPP, seconds) for seconds in (0, 1)),
    cooling_down(Channel.EMAIL, 60),
    *(_adult_in(days) for days in (-1, 0, 1)),
    _facts(birth_date=None),
    _facts(birth_date=date(2008, 2, 29)),
    _facts(has_current_account=False),
    *(_job(holdout_percent=percent) for percent in (0.0, 50.0, 100.0)),
    _job(campaign_id=None),
    _job(approval=None),
    _job(approval=0),
    _job(whatsapp_texts=frozenset()),
    _job(whatsapp_texts=frozenset({("fr", Mode.STANDARD)})),
    _job(campaign_id="summer", holdout_percent=50.0),
    _job(entity="kbc-insurance"),
    _job(entity="another-bank"),
    _facts(purchased=frozenset()),
    _facts(purchased=frozenset({"loan", "insurance"})),
    _facts(purchased=frozenset({"insurance"})),
    _facts(entities=frozenset({"kbc-bank", "cbc-banque"})),
    _facts(entities=frozenset({"kbc-bank", "kbc-insurance"})),
    _facts(entities=frozenset()),
    *(_facts(timezone=zone) for zone in (None, "", "Mars/Olympus", "America/New_York", "Pacific/Auckland")),
    *(_at(*clock) for clock in ((18, 59, 59), (19, 0), (19, 59, 59), (20, 0), (6, 59, 59), (7, 0), (7, 59), (8, 0), (23, 0))),
    lambda s: replace(s, job=replace(s.job, info=SERVICE_TEMPLATE)),
    lambda s: replace(s, now=datetime(2026, 3, 1, 11, 0, tzinfo=UTC)),
    lambda s: replace(s, now=datetime(2026, 10, 24, 21, 30, tzinfo=UTC)),
    *(
        _on(datetime(2026, *moment, tzinfo=UTC))
        for moment in ((3, 28, 19, 30), (5, 23, 21, 59), (5, 24, 22, 30), (11, 11, 11, 0), (11, 21, 23, 0), (12, 24, 20, 0))
    ),
)

starts = st.builds(
    sendable,
    offer=st.sampled_from([*OfferType, None]),
    choice=st.sampled_from(["tailored", "standard"]),
    channels=st.permutations(list(Channel)).flatmap(
        lambda order: st.integers(1, len(order)).map(lambda count: tuple(order[:count]))
    ),
    route=st.sampled_from(["first", "all"]),
)


@st.composite
def scenarios(draw: st.DrawFn, disturbances_max: int = 3) -> PolicyScenario:
    """A sendable scenario with a few disturbances."""
    scenario = draw(starts)
    for disturb in draw(st.lists(st.sampled_from(DISTURBANCES), max_size=disturbances_max)):
        scenario = disturb(scenario)
    return scenario
