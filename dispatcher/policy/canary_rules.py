"""Read `[canaries]`: the template of canary jobs, and the addresses of canary recipients."""

from __future__ import annotations

from collections.abc import Mapping

from channels.base import Channel
from dispatcher.domain import addresses
from dispatcher.domain.canaries import OptOutWay
from dispatcher.policy.data import DEFAULT_CANARY_RULES, CanaryRules
from dispatcher.policy.section import Section

_NAMES = tuple(channel.value for channel in Channel)


def canary_rules(table: Section, region: str) -> CanaryRules:
    """The rules. `region` is the country of numbers without a country code."""
    with table:
        template = table.text("template", DEFAULT_CANARY_RULES.template)
        known = ("template", *OptOutWay)
        ways = {OptOutWay(key): _addresses(table.section(key), region) for key in table.each(known) if key != "template"}
        owners: dict[str, OptOutWay] = {}
        for way, named in ways.items():
            for channel, address in named.items():
                if owners.setdefault(address, way) is not way:
                    table.fault(f"{way}.{channel}", "another address: an opt-out holds for all canaries that have it")
    return CanaryRules(template, ways)


def _addresses(row: Section, region: str) -> Mapping[Channel, str]:
    normal: dict[Channel, str] = {}
    with row:
        for name in row.each(_NAMES):
            text, channel = row.text(name), Channel(name)
            try:
                normal[channel] = _in_normal_form(channel, text, region) if text else ""
            except addresses.InvalidAddress as error:
                row.fault(name, f"an address: this one {error}")
    return normal


def _in_normal_form(channel: Channel, text: str, region: str) -> str:
    match channel:
        case Channel.EMAIL:
            return addresses.email(text)
        case Channel.SMS:
            return addresses.mobile_phone(text, region)
        case Channel.WHATSAPP:
            return addresses.phone(text, region)
        case Channel.PUSH:
            return text.strip()
