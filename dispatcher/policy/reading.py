"""Parse the text of a policy file into a `Policy`, or list all its errors."""

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
from dispatcher.policy.canary_rules import canary_rules
from dispatcher.policy.data import SERVICE, Entity, Policy, Product, SoftOptIn
from dispatcher.policy.grants import CHANNELS, CHOICES, OFFERS, read_basis, read_entities
from dispatcher.policy.section import InvalidPolicy, PolicyError, Section

T = TypeVar("T")
# A link, a reply or a provider can report an opt-out, but never a consent.
NOT_CONSENT_SOURCES = {Source.UNSUBSCRIBE, Source.INBOUND, Source.PROVIDER, Source.ERASURE}
CONSENT_SOURCES = [source.value for source in Source if source not in NOT_CONSENT_SOURCES]


def shipped() -> str:
    """The text of the policy that comes with the program."""
    return resources.files("dispatcher.policy").joinpath("policy.toml").read_text(encoding="utf-8")


def parse(text: str, file: str = "policy.toml") -> Policy:
    """Parse a policy. Raises `InvalidPolicy` with all errors; `file` is only the name shown in them."""
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


def parse_former(text: str, current: Policy) -> Policy:
    """Parse a former policy, to explain decisions that were made under it. Raises nothing.

    If this version of the program needs more than the file says, read only what explanations need and use the
    current policy for all else.
    """
    try:
        return parse(text)
    except InvalidPolicy:
        pass
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return current
    return replace(
        current,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        entities=_read_or_default(data.get("entities"), read_entities, current.entities),
        default_zone=_read_or_default(data, _zone, current.default_zone),
        adult_years=_read_or_default(data.get("ages"), lambda ages: ages.integer("adult_years", 1, 120), current.adult_years),
    )


def _read_or_default(data: object, read: Callable[[Section], T], default: T) -> T:
    """What `read` returns for a table, or the default if the table has errors."""
    section = Section(data, "former")
    value = read(section)
    return default if section.faults else value


def _policy(top: Section, digest: str) -> Policy:
    with top.section("signed") as signed, top.section("consent") as consent, top.section("ages") as ages:
        signed_by, signed_on = signed.text("by"), signed.day("on")
        sources = consent.strings("sources", CONSENT_SOURCES)
        adult_years = ages.integer("adult_years", 1, 120)
    with top.section("coins") as coins, top.section("holdout") as holdout, top.section("four_eyes") as four_eyes:
        needs_account, salt = coins.boolean("needs_current_account"), holdout.text("salt")
        global_group = limits.global_control_group(holdout)
        audience_min, templates = four_eyes.integer("audience_min", 0, 1_000_000_000), four_eyes.boolean("templates")
        approval_days = four_eyes.integer("approval_days", 0, 3_650, default=0)
        four_eyes_erasure = four_eyes.boolean("erasure", default=True)
        topics = top.data.get("topics", {})
        second_approver = four_eyes.strings("second_approver", topics if isinstance(topics, dict) else {}, default=())
    with top.section("campaigns") as campaigns, top.section("files", required=False) as files:
        abandoned_after_days = campaigns.integer("abandoned_after_days", 1, 3_650)
        file_rules = limits.file_rules(top, campaigns, files)
        one_per_address = campaigns.boolean("one_per_address", default=True)
    lint_blocking, text_rules = limits.template_checks(top.section("template_checks", required=False))
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
        global_group=global_group,
        groups=_groups(top.section("channel_groups")),
        quiet_hours=limits.quiet_hours(top.section("quiet_hours"), limits.country(top)),
        caps=tuple(limits.caps(top)),
        cool_downs=limits.cool_downs(top.section("rests")),
        retry=limits.retry(top.section("retry")),
        brake=limits.complaint_brake(top.section("brake")),
        four_eyes_audience_min=audience_min,
        abandoned_after_days=abandoned_after_days,
        four_eyes_templates=templates,
        approval_days=approval_days,
        four_eyes_erasure=four_eyes_erasure,
        second_factor_roles=limits.second_factor_roles(top.section("sign_in", required=False)),
        second_approver_topics=frozenset(second_approver),
        retention=limits.retention(top.section("retention")),
        deleted_unread=limits.deleted_unread(top.section("replies", required=False)),
        topics=_topics(top.section("topics"), soft_opt_in.products),
        files=file_rules,
        testers=limits.testers(top.section("testers", required=False), file_rules.default_region),
        lint_blocking=lint_blocking,
        text_rules=text_rules,
        one_per_address=one_per_address,
        sms_prices=limits.sms_prices(top.section("sms_prices", required=False)),
        schedules=limits.schedule_rules(top.section("schedules", required=False)),
        canaries=canary_rules(top.section("canaries", required=False), file_rules.default_region),
        contract=limits.contract_rules(top.section("tailored_contract", required=False)),
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
        categories = {row: frozenset(table.strings(row)) for row in (*CHOICES, SERVICE)}
    surplus = categories["standard"] - categories["tailored"]
    if surplus:
        table.fault("standard", "standard may not use more than tailored does", sorted(surplus))
    return categories


def _household(table: Section) -> frozenset[str]:
    with table:
        return frozenset(table.strings("categories"))


def _soft_opt_in(table: Section, entities: Mapping[str, Entity]) -> SoftOptIn:
    products = {}
    with table, table.section("products") as products_table:
        for name in products_table.each():
            with products_table.section(name) as product:
                products[name] = Product(
                    sold_by=frozenset(product.strings("sold_by", entities)),
                    analogous=frozenset(product.strings("analogous", products_table.data)),
                )
        return SoftOptIn(objection_offered=table.boolean("objection_offered"), products=products)


def _groups(table: Section) -> dict[Channel, str]:
    groups: dict[Channel, str] = {}
    with table:
        for group in ChannelGroup:
            groups |= {Channel(channel): group.value for channel in table.strings(group.value, CHANNELS)}
    for channel, group in GROUP_OF.items():
        # Opt-outs switch groups off by GROUP_OF; with another mapping in the file, an opt-out would miss a channel.
        if groups.get(channel) != group:
            table.fault(group.value, f"must hold {channel.value!r}: customers switch it with this group")
    return groups


def _topics(table: Section, products: Collection[str]) -> dict[str, frozenset[str]]:
    topics = {}
    with table:
        for name in table.each():
            with table.section(name) as topic:
                topics[name] = frozenset(topic.strings("products", products))
    return topics
