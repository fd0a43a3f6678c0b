"""From the text of a policy file to a `Policy`, or to a list of everything that is wrong with it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from importlib import resources
from typing import TypeVar
from zoneinfo import ZoneInfo

from channels.base import Channel
from dispatcher.model import GROUP_OF, ChannelGroup, Mode, OfferType, Source
from dispatcher.policy.calendar import PUBLIC_HOLIDAY, WEEKDAYS, public_holidays
from dispatcher.policy.data import (
    SERVICE,
    Brake,
    Cap,
    Entity,
    Permission,
    Policy,
    Product,
    Quiet,
    Rests,
    Retention,
    Retry,
    Row,
    SoftOptIn,
    Term,
)
from dispatcher.policy.section import Fault, PolicyFaults, Section

T = TypeVar("T")
OFFERS = tuple(offer.value for offer in OfferType)
CHANNELS = tuple(channel.value for channel in Channel)
# What a link, a reply or a provider tells us is never a yes.
NOT_A_YES = {Source.UNSUBSCRIBE, Source.INBOUND, Source.PROVIDER, Source.ERASURE}
YES_SOURCES = [source.value for source in Source if source not in NOT_A_YES]
CHOICES = (Mode.TAILORED.value, Mode.STANDARD.value)

# Which bases make sense where: a contract only for who accepted it, the soft opt-in only for own offers.
BASES: Mapping[tuple[str, str], tuple[str, ...]] = {
    **{(offer, Mode.TAILORED.value): ("contract", "consent") for offer in OFFERS},
    **{(offer, Mode.STANDARD.value): ("legitimate_interest", "consent") for offer in OFFERS},
    (OfferType.OWN.value, Mode.STANDARD.value): ("legitimate_interest", "soft_opt_in", "consent"),
    (SERVICE, Mode.STANDARD.value): ("service",),
}

NUMBER_OR_SERVICE = r"\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32}"
SENDERS = {
    "sms": re.compile(NUMBER_OR_SERVICE + "|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}"),
    "whatsapp": re.compile(NUMBER_OR_SERVICE),
}
SENDER_RIGHT = {
    "sms": "a number such as +32470000000, a messaging service, or a name of at most 11 letters, digits and spaces",
    "whatsapp": "a number such as +32470000000, or a messaging service",
}

UNITS = {"minutes": 60, "hours": 3_600, "days": 86_400}
WINDOW_SECONDS_MAX = 366 * 86_400
TERM_DAYS_MAX = 36_500
DECISIONS_DAYS_MIN = 365  # the ledger gives no younger month away, whatever it is asked

Tables = dict[str, dict[str, Row]]  # offer type or "service" -> choice -> row


def shipped() -> str:
    """The text of the policy that comes with the program."""
    return resources.files("dispatcher.policy").joinpath("policy.toml").read_text(encoding="utf-8")


def parse(text: str, file: str = "policy.toml") -> Policy:
    """Read a policy. Raises `PolicyFaults` with every fault at once; `file` is only a name for them."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyFaults((Fault(file, "the file", None, f"is not TOML: {error}"),)) from None
    top = Section(data, file)
    with top:
        policy = _policy(top, hashlib.sha256(text.encode()).hexdigest())
    if top.faults:
        raise PolicyFaults(tuple(top.faults))
    return policy


def recall(text: str, present: Policy) -> Policy:
    """A policy of the past, for telling what was decided under it; raises nothing.

    Where later versions of the program ask more of the file than it says, what explanations need is still read from it, and the
    rest is the present one's.
    """
    try:
        return parse(text)
    except PolicyFaults:
        pass
    try:
        kept = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return present
    return replace(
        present,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        entities=_recalled(kept.get("entities"), _entities, present.entities),
        default_zone=_recalled(kept, _zone, present.default_zone),
        adult_years=_recalled(kept.get("ages"), lambda ages: ages.whole("adult_years", 1, 120), present.adult_years),
    )


def _recalled(data: object, read: Callable[[Section], T], otherwise: T) -> T:
    """What is read from a table, where it can be read without a fault."""
    section = Section(data, "kept")
    found = read(section)
    return otherwise if section.faults else found


def _policy(top: Section, digest: str) -> Policy:
    with top.section("signed") as signed, top.section("consent") as consent, top.section("ages") as ages:
        signed_by, signed_on = signed.text("by"), signed.day("on")
        sources = consent.words("sources", YES_SOURCES)
        adult_years = ages.whole("adult_years", 1, 120)
    with top.section("coins") as coins, top.section("holdout") as holdout, top.section("four_eyes") as four_eyes:
        needs_account, salt = coins.flag("needs_current_account"), holdout.text("salt")
        audience_min, templates = four_eyes.whole("audience_min", 0, 1_000_000_000), four_eyes.flag("templates")
    entities = _entities(top.section("entities"))
    soft_opt_in = _soft_opt_in(top.section("soft_opt_in"), entities)
    return Policy(
        digest=digest,
        signed_by=signed_by,
        signed_on=signed_on,
        default_zone=_zone(top),
        adult_years=adult_years,
        entities=entities,
        offer_types=OFFERS,
        basis=_basis(top, entities),
        categories=_categories(top.section("categories")),
        household_categories=_household(top.section("household")),
        consent_sources=frozenset(sources),
        soft_opt_in=soft_opt_in,
        coins_need_current_account=needs_account,
        holdout_salt=salt,
        groups=_groups(top.section("channel_groups")),
        quiet_hours=_quiet_hours(top.section("quiet_hours"), _country(top)),
        caps=tuple(_caps(top)),
        rests=_rests(top.section("rests")),
        retry=_retry(top.section("retry")),
        brake=_brake(top.section("brake")),
        four_eyes_audience_min=audience_min,
        four_eyes_templates=templates,
        retention=_retention(top.section("retention")),
        topics=_topics(top.section("topics"), soft_opt_in.products),
    )


def _zone(top: Section) -> str:
    name = top.text("default_zone")
    try:
        if name:
            ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        top.fault("default_zone", "a time zone such as Europe/Brussels", name)
    return name


def _entities(table: Section) -> dict[str, Entity]:
    entities = {}
    with table:
        for name in table.each():
            with table.section(name) as entity:
                entity.section("basis", needed=False)  # read with the tables that it changes
                entities[name] = Entity(
                    id=name,
                    names=entity.section("names").languages(),
                    sender_name=entity.text("sender_name"),
                    sender_address=entity.text("sender_address"),
                    senders=_senders(entity.section("senders", needed=False)),
                    controllers=entity.words("controllers"),
                    processor=entity.text("processor"),
                    contact=entity.text("contact"),
                )
                if "@" not in entities[name].sender_address:
                    entity.fault("sender_address", "an e-mail address", entities[name].sender_address)
                if not entities[name].controllers:
                    entity.fault("controllers", "at least one company that answers for the personal data")
        if not entities:
            table.fault("", "at least one entity")
    return entities


def _senders(table: Section) -> dict[Channel, str]:
    senders = {}
    with table:
        for channel in table.each(SENDERS):
            senders[Channel(channel)] = table.text(channel)
            if not SENDERS[channel].fullmatch(senders[Channel(channel)]):
                table.fault(channel, SENDER_RIGHT[channel], senders[Channel(channel)])
    return senders


def _basis(top: Section, entities: Mapping[str, Entity]) -> dict[str, Tables]:
    common = _tables(top.section("basis"))
    basis = {}
    for name in entities:
        own = top.section("entities").section(name).section("basis", needed=False)
        basis[name] = _merged(common, _tables(own))
    return basis


def _tables(table: Section) -> Tables:
    tables: Tables = {}
    with table:
        for offer in table.each(OFFERS):
            with table.section(offer) as choices:
                tables[offer] = {choice: _row(choices.section(choice), BASES[offer, choice]) for choice in choices.each(CHOICES)}
        for service in table.each((SERVICE,)):
            standard = Mode.STANDARD.value
            tables[service] = {standard: _row(table.section(service), BASES[service, standard])}
    return tables


def _row(table: Section, bases: tuple[str, ...]) -> Row:
    with table:
        return {
            Channel(channel): tuple(Permission(basis, f"policy:{table.place(channel)}") for basis in table.words(channel, bases))
            for channel in table.each(CHANNELS)
        }


def _merged(common: Tables, own: Tables) -> Tables:
    merged: Tables = {}
    for offer in common.keys() | own.keys():
        ours, theirs = common.get(offer, {}), own.get(offer, {})
        merged[offer] = {choice: {**ours.get(choice, {}), **theirs.get(choice, {})} for choice in ours.keys() | theirs.keys()}
    return merged


def _categories(table: Section) -> dict[str, frozenset[str]]:
    with table:
        categories = {row: frozenset(table.words(row)) for row in (*CHOICES, SERVICE)}
    surplus = categories["standard"] - categories["tailored"]
    if surplus:
        table.fault("standard", "standard may not use more than tailored does", sorted(surplus))
    return categories


def _household(table: Section) -> frozenset[str]:
    with table:
        return frozenset(table.words("categories"))


def _soft_opt_in(table: Section, entities: Mapping[str, Entity]) -> SoftOptIn:
    products = {}
    with table, table.section("products") as listed:
        for name in listed.each():
            with listed.section(name) as product:
                products[name] = Product(
                    sold_by=frozenset(product.words("sold_by", entities)),
                    analogous=frozenset(product.words("analogous", listed.data)),
                )
        return SoftOptIn(objection_offered=table.flag("objection_offered"), products=products)


def _groups(table: Section) -> dict[Channel, str]:
    groups: dict[Channel, str] = {}
    with table:
        for group in ChannelGroup:
            groups |= {Channel(channel): group.value for channel in table.words(group.value, CHANNELS)}
    for channel, group in GROUP_OF.items():
        # Opt-outs close groups by the same map; a file that told another story would leave a door open.
        if groups.get(channel) != group:
            table.fault(group.value, f"must hold {channel.value!r}: this is the switch that customers see for it")
    return groups


def _country(top: Section) -> str:
    country = top.text("public_holidays")
    try:
        if country:
            public_holidays(country, 2026)
    except NotImplementedError:
        top.fault("public_holidays", "a country such as BE, by its ISO 3166-1 code", country)
    return country


def _quiet_hours(table: Section, country: str) -> dict[Channel, Quiet]:
    quiet = {}
    with table:
        for channel in table.each(CHANNELS):
            with table.section(channel) as hours:
                days = hours.words("silent_days", (*WEEKDAYS, PUBLIC_HOLIDAY), otherwise=())
                weekdays = frozenset(WEEKDAYS.index(day) for day in days if day != PUBLIC_HOLIDAY)
                holidays_of = country if PUBLIC_HOLIDAY in days else None
                quiet[Channel(channel)] = Quiet(hours.clock("from"), hours.clock("to"), weekdays, holidays_of)
                if len(weekdays) == len(WEEKDAYS):
                    hours.fault("silent_days", "leaves no day; a channel that is never used has no basis instead")
            if {"from", "to"} <= hours.data.keys() and hours.data["from"] == hours.data["to"]:
                table.fault(channel, "from and to must differ; a channel that is never used has no basis instead")
    return quiet


def _caps(top: Section) -> Iterator[Cap]:
    names: set[str] = set()
    for table in top.sections("caps"):
        with table:
            cap = Cap(
                name=table.text("name"),
                most=table.whole("max", 1, 10_000),
                channels=frozenset(Channel(name) for name in table.words("channels", CHANNELS, otherwise=CHANNELS)),
                offer_types=frozenset(table.words("offer_types", OFFERS, otherwise=OFFERS)),
                rolling_seconds=_window(table),
            )
        if cap.name in names:
            table.fault("name", "another cap has this name; reasons go by it", cap.name)
        names.add(cap.name)
        yield cap


def _window(table: Section) -> float | None:
    """Seconds of a rolling window, or None for a calendar day."""
    window = table.text("window")
    if window == "calendar_day":
        return None
    number, _, unit = window.partition(" ")
    if unit in UNITS and number.isascii() and number.isdigit() and 0 < int(number) * UNITS[unit] <= WINDOW_SECONDS_MAX:
        return float(int(number) * UNITS[unit])
    if window:
        table.fault("window", 'calendar_day, or a length such as "90 minutes", "36 hours" or "7 days", a year at most', window)
    return 0.0


def _rests(table: Section) -> dict[Channel, Rests]:
    rests = {}
    with table:
        for channel in table.each(CHANNELS):
            with table.section(channel) as row:
                rests[Channel(channel)] = Rests(frozenset(row.words("codes")), 3_600 * row.number("hours", 1, 8_784))
    return rests


def _retry(table: Section) -> Retry:
    with table:
        retry = Retry(
            attempts_max=table.whole("attempts_max", 1, 100),
            base_seconds=table.number("base_seconds", 1, 86_400),
            cap_seconds=table.number("cap_seconds", 1, 604_800),
            throttle_seconds=table.number("throttle_seconds", 1, 86_400),
            stopped_seconds=table.number("stopped_seconds", 1, 86_400),
        )
    if retry.cap_seconds < retry.base_seconds:
        table.fault("cap_seconds", "not less than base_seconds", retry.cap_seconds)
    return retry


def _brake(table: Section) -> Brake:
    with table:
        brake = Brake(
            complaint_rate_warn=table.number("complaint_rate_warn", 0, 1),
            complaint_rate_pause=table.number("complaint_rate_pause", 0, 1),
            bounce_rate_pause=table.number("bounce_rate_pause", 0, 1),
            minimum=table.whole("minimum", 1, 10_000_000),
        )
    if brake.complaint_rate_pause < brake.complaint_rate_warn:
        table.fault("complaint_rate_pause", "not less than complaint_rate_warn", brake.complaint_rate_pause)
    return brake


def _retention(table: Section) -> Retention:
    with table:
        kept = Retention(**{field.name: _term(table, field.name) for field in fields(Retention)})
    if kept.decisions.days < DECISIONS_DAYS_MIN:
        table.fault("decisions", "a year at least", str(kept.decisions))
    if kept.consent.days < kept.decisions.days:
        table.fault("consent", "not shorter than decisions, which cite what people said", str(kept.consent))
    for name in ("content", "news", "answers"):
        if getattr(kept, name).days > kept.decisions.days:
            table.fault(name, "not longer than decisions", str(getattr(kept, name)))
    return kept


def _term(table: Section, key: str) -> Term:
    said = table.text(key)
    number, _, unit = said.partition(" ")
    if unit in ("days", "years") and number.isascii() and number.isdigit() and 0 < int(number) <= 36_525:
        term = Term(int(number), unit)
        if term.days <= TERM_DAYS_MAX:
            return term
    if said:
        table.fault(key, 'a length such as "30 days" or "10 years", a century at most', said)
    return Term(TERM_DAYS_MAX, "days")


def _topics(table: Section, products: Collection[str]) -> dict[str, frozenset[str]]:
    topics = {}
    with table:
        for name in table.each():
            with table.section(name) as topic:
                topics[name] = frozenset(topic.words("products", products))
    return topics
