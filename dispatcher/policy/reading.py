"""From the text of a policy file to a `Policy`, or to a list of everything that is wrong with it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib import resources
from typing import TypeVar
from zoneinfo import ZoneInfo

from channels.base import Channel
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Source
from dispatcher.policy import limits
from dispatcher.policy.data import SERVICE, Entity, Policy, Product, SoftOptIn
from dispatcher.policy.grants import CHANNELS, CHOICES, OFFERS, read_basis, read_entities
from dispatcher.policy.section import InvalidPolicy, PolicyError, Section

T = TypeVar("T")
# What a link, a reply or a provider tells us is never a yes.
NOT_CONSENT_SOURCES = {Source.UNSUBSCRIBE, Source.INBOUND, Source.PROVIDER, Source.ERASURE}
CONSENT_SOURCES = [source.value for source in Source if source not in NOT_CONSENT_SOURCES]


def shipped() -> str:
    """The text of the policy that comes with the program."""
    return resources.files("dispatcher.policy").joinpath("policy.toml").read_text(encoding="utf-8")


def parse(text: str, file: str = "policy.toml") -> Policy:
    """Read a policy. Raises `InvalidPolicy` with every fault at once; `file` is only a name for them."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicy((PolicyError(file, "the file", None, f"is not TOML: {error}"),)) from None
    top = Section(data, file)
    with top:
        policy = _policy(top, hashlib.sha256(text.encode()).hexdigest())
    if top.faults:
        raise InvalidPolicy(tuple(top.faults))
    return policy


def parse_former(text: str, present: Policy) -> Policy:
    """A policy of the past, for telling what was decided under it; raises nothing.

    Where later versions of the program ask more of the file than it says, what explanations need is still read from it, and the
    rest is the present one's.
    """
    try:
        return parse(text)
    except InvalidPolicy:
        pass
    try:
        kept = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return present
    return replace(
        present,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        entities=_read_or_default(kept.get("entities"), read_entities, present.entities),
        default_zone=_read_or_default(kept, _zone, present.default_zone),
        adult_years=_read_or_default(kept.get("ages"), lambda ages: ages.whole("adult_years", 1, 120), present.adult_years),
    )


def _read_or_default(data: object, read: Callable[[Section], T], otherwise: T) -> T:
    """What is read from a table, where it can be read without a fault."""
    section = Section(data, "kept")
    found = read(section)
    return otherwise if section.faults else found


def _policy(top: Section, digest: str) -> Policy:
    with top.section("signed") as signed, top.section("consent") as consent, top.section("ages") as ages:
        signed_by, signed_on = signed.text("by"), signed.day("on")
        sources = consent.words("sources", CONSENT_SOURCES)
        adult_years = ages.whole("adult_years", 1, 120)
    with top.section("coins") as coins, top.section("holdout") as holdout, top.section("four_eyes") as four_eyes:
        needs_account, salt = coins.flag("needs_current_account"), holdout.text("salt")
        audience_min, templates = four_eyes.whole("audience_min", 0, 1_000_000_000), four_eyes.flag("templates")
    entities = read_entities(top.section("entities"))
    soft_opt_in = _soft_opt_in(top.section("soft_opt_in"), entities)
    return Policy(
        digest=digest,
        signed_by=signed_by,
        signed_on=signed_on,
        default_zone=_zone(top),
        adult_years=adult_years,
        entities=entities,
        offer_types=OFFERS,
        basis=read_basis(top, entities),
        categories=_categories(top.section("categories")),
        household_categories=_household(top.section("household")),
        consent_sources=frozenset(sources),
        soft_opt_in=soft_opt_in,
        coins_need_current_account=needs_account,
        holdout_salt=salt,
        groups=_groups(top.section("channel_groups")),
        quiet_hours=limits.quiet_hours(top.section("quiet_hours"), limits.country(top)),
        caps=tuple(limits.caps(top)),
        cool_downs=limits.cool_downs(top.section("rests")),
        retry=limits.retry(top.section("retry")),
        brake=limits.complaint_brake(top.section("brake")),
        four_eyes_audience_min=audience_min,
        four_eyes_templates=templates,
        retention=limits.retention(top.section("retention")),
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


def _topics(table: Section, products: Collection[str]) -> dict[str, frozenset[str]]:
    topics = {}
    with table:
        for name in table.each():
            with table.section(name) as topic:
                topics[name] = frozenset(topic.words("products", products))
    return topics
