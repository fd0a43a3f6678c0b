"""The doctor: is everything there, and does it work? Channels that were stopped and pass may send again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from redis import Redis, RedisError

from dispatcher.campaigns.template_approval import Standing, wordings
from dispatcher.content import TemplateFaults
from dispatcher.embedded import EngineError
from dispatcher.ledger.connection import LedgerUnavailable, lend
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.policy import PolicyFaults
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import House
from dispatcher.runtime.settings import SettingsFaults


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `says` holds no secret and no personal data."""

    what: str
    ok: bool
    says: str


def check_all() -> list[Finding]:
    """Everything, in the order in which one rests on the other; stops where going on makes no sense."""
    try:
        settings = bootstrap.settings()
    except SettingsFaults as error:
        return [Finding("configuration", ok=False, says=fault) for fault in error.faults]
    findings = [Finding("configuration", ok=True, says=f"home {settings.home}")]
    findings += [Finding("configuration", ok=True, says=f"note: {warning}") for warning in settings.warnings]
    try:
        house = bootstrap.house()
    except PolicyFaults as error:
        return [*findings, *(Finding("policy", ok=False, says=str(fault)) for fault in error.faults)]
    except TemplateFaults as error:
        return [*findings, *(Finding("templates", ok=False, says=str(fault)) for fault in error.faults)]
    except (EngineError, LedgerUnavailable) as error:
        return [*findings, Finding("database", ok=False, says=str(error))]
    findings += [
        Finding("database", ok=True, says="reachable, schema up to date"),
        _broker(),
        Finding(
            "policy",
            ok=True,
            says=f"signed by {house.policy.signed_by}, {house.policy.signed_on}; digest {house.policy.digest[:12]}",
        ),
        Finding("templates", ok=True, says=_templates(house)),
    ]
    return [*findings, *_providers(house)]


def _templates(house: House) -> str:
    """All by name, and which of them nobody approved as they now are."""
    found = wordings(house)
    waiting = [each.template.name for each in found if each.standing in (Standing.WAITING, Standing.WITHDRAWN)]
    names = ", ".join(each.template.name for each in found)
    return f"{names}; not approved as they now are: {', '.join(waiting)}" if waiting else names


def _broker() -> Finding:
    url = bootstrap.broker_url().replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    try:
        with Redis.from_url(url, socket_connect_timeout=5) as client:
            client.ping()
    except (RedisError, ValueError, TypeError) as error:  # the last for an option that only Celery knows
        return Finding("broker", ok=False, says=f"can't be reached ({type(error).__name__})")
    return Finding("broker", ok=True, says="reachable")


def _providers(house: House) -> Iterator[Finding]:
    """Ask each provider, without sending; lift the stop of a channel that passes."""
    with lend(house.pool) as connection:
        for channel, provider in house.providers.items():
            name = f"{channel} through {bootstrap.settings().providers[channel]}"
            fault = provider.check()
            if fault is not None:
                yield Finding(name, ok=False, says=f"{fault.code} {fault.hint}".strip())
            else:
                lifted = stopped_channels.lift(connection, channel)
                yield Finding(name, ok=True, says="keys work; the channel was stopped and sends again" if lifted else "keys work")
