"""The canary recipients: one for each way out, with addresses of the sandbox or from the policy. The real rules apply to them.

A canary lives for some hours. The next one gets its addresses, and its consent events and messages are deleted a day later: they
are evidence about nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from channels.base import Channel
from dispatcher.domain.canaries import CHANNELS, OptOutWay, canary_id
from dispatcher.domain.preferences import SWITCHES, Change
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys
from dispatcher.ledger.consent.hash_chain import seal
from dispatcher.ledger.maintenance import canaries
from dispatcher.ledger.maintenance.canaries import Canary
from dispatcher.maintenance.canaries.errors import CannotMeasure
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services

LIFE = timedelta(hours=6)
DETAILS_KEPT = timedelta(days=1)  # a late message can be looked at for so long
QUIET = "quiet_hours"  # the reason of a round that the rules forbid now: nothing is wrong
MORNING = 10  # a canary lives where it is about this hour, so that quiet hours leave it alone for its life
ZONES = tuple(f"Etc/GMT{offset:+d}" for offset in range(-14, 13))
_COLUMNS: Mapping[Channel, str] = {Channel.EMAIL: "email", Channel.SMS: "phone", Channel.WHATSAPP: "whatsapp"}


def addresses_of(services: Services, way: OptOutWay) -> Mapping[Channel, str]:
    """The addresses of a way's canary: those of the policy, and made-up ones on the channels of the sandbox."""
    named = services.policy.canaries.addresses.get(way, {})
    sandbox = services.canaries.sandbox_channels if services.canaries else frozenset[Channel]()
    return {
        channel: named.get(channel) or _made_up(channel, way) for channel in CHANNELS[way] if channel in named or channel in sandbox
    }


def _made_up(channel: Channel, way: OptOutWay) -> str:
    """An address that nobody has. Numbers are in +32 450, from which libphonenumber takes its Belgian example."""
    if channel is Channel.EMAIL:
        return f"canary-{way.replace('_', '-')}@canary.example"
    return f"device-of-canary-{way}" if channel is Channel.PUSH else f"+3245099999{list(OptOutWay).index(way)}"


def choices_on(services: Services) -> tuple[Change, ...]:
    """The choices with which a canary gets every canary job."""
    template = services.catalog.get(services.policy.canaries.template)
    if template is None or template.info.offer_type is None:
        raise CannotMeasure("template_not_usable")
    switches = (Change(subject, "on") for subject in SWITCHES)
    return (Change(f"offer:{template.info.offer_type}", "tailored"), *switches, Change("objection:marketing", "off"))


def ensure(services: Services, way: OptOutWay) -> str:
    """The id of the way's canary; a new one where there is none, it is old, or it is quiet where it lives.

    Raises `CannotMeasure` where one of its addresses belongs to somebody, and where all its channels are quiet everywhere.
    """
    now, channels = services.clock(), list(addresses_of(services, way))
    zone = _zone(services.policy, now, channels)
    if _quiet(services.policy, zone, now, channels) == len(channels):
        raise CannotMeasure(QUIET)
    with lend(services.pool) as connection, connection.transaction():
        canaries.lock(connection)
        present = canaries.in_use(connection).get(way)
        if present is not None and not _must_be_replaced(services.policy, present, zone, now, channels):
            return present.recipient_id
        person = _person(services, connection, way, zone)
        canaries.replace(connection, way, person, now)
    return str(person["id"])


def _must_be_replaced(policy: Policy, canary: Canary, zone: str, now: datetime, channels: Sequence[Channel]) -> bool:
    if now - canary.made_at > LIFE:
        return True
    return _quiet(policy, canary.timezone or policy.default_zone, now, channels) > _quiet(policy, zone, now, channels)


def _zone(policy: Policy, now: datetime, channels: Sequence[Channel]) -> str:
    """Where fewest channels are quiet now and at the end of a canary's life, and it is morning."""

    def rank(zone: str) -> tuple[int, int]:
        quiet = _quiet(policy, zone, now, channels) + _quiet(policy, zone, now + LIFE, channels)
        return quiet, abs(now.astimezone(ZoneInfo(zone)).hour - MORNING)

    return min(ZONES, key=rank)


def _quiet(policy: Policy, zone: str, at: datetime, channels: Sequence[Channel]) -> int:
    """How many of these channels are silent then and there."""
    local = at.astimezone(ZoneInfo(zone))
    return sum(policy.quiet_hours[channel].at(local) for channel in channels if channel in policy.quiet_hours)


def _person(services: Services, connection: Connection, way: OptOutWay, zone: str) -> dict[str, Any]:
    """The columns of the recipient. Raises `CannotMeasure`."""
    template = services.catalog.get(services.policy.canaries.template)
    if template is None:
        raise CannotMeasure("template_not_usable")
    addresses = dict(addresses_of(services, way))
    device = addresses.pop(Channel.PUSH, "")
    keys = address_keys.in_use(connection, services.secret, [(channel.value, text) for channel, text in addresses.items()])
    if canaries.owners_elsewhere(connection, list(keys.values()), device):
        raise CannotMeasure("address_in_use")
    new_id = canary_id(way, services.clock().astimezone(UTC))
    columns: dict[str, Any] = {
        "id": new_id,
        "person": "customer",
        "language": "en",
        "timezone": zone,
        "birth_date": "1980-01-31",
        "entities": [template.entity],
        "has_current_account": True,
        "devices": [{"token": device, "platform": "android", "permission": True}] if device else [],
        "purchased": [],
        "profile": {},
        "consent_seal": _hex(seal(services.secret.newest, new_id, 0, None)),
    }
    for channel, text in addresses.items():
        columns |= {_COLUMNS[channel]: text, f"{_COLUMNS[channel]}_key": _hex(keys[channel.value, text])}
    return columns


def _hex(value: bytes) -> str:
    return f"\\x{value.hex()}"
