"""The doctor: is everything there, and does it work? Channels that were stopped and pass may send again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from redis import Redis, RedisError

from dispatcher.campaigns.template_approval import ApprovalStatus, template_versions
from dispatcher.content import InvalidTemplates
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.embedded import EngineError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.policy import InvalidPolicy
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import InvalidSettings


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing looked at. `says` holds no secret and no personal data."""

    what: str
    ok: bool
    says: str


def check_all() -> list[CheckResult]:
    """Everything, in the order in which one rests on the other; stops where going on makes no sense."""
    try:
        settings = bootstrap.settings()
    except InvalidSettings as error:
        return [CheckResult("configuration", ok=False, says=fault) for fault in error.faults]
    findings = [CheckResult("configuration", ok=True, says=f"home {settings.home}")]
    findings += [CheckResult("configuration", ok=True, says=f"note: {warning}") for warning in settings.warnings]
    try:
        services = bootstrap.services()
    except InvalidPolicy as error:
        return [*findings, *(CheckResult("policy", ok=False, says=str(fault)) for fault in error.faults)]
    except InvalidTemplates as error:
        return [*findings, *(CheckResult("templates", ok=False, says=str(fault)) for fault in error.faults)]
    except (EngineError, LedgerUnavailable) as error:
        return [*findings, CheckResult("database", ok=False, says=str(error))]
    findings += [
        CheckResult("database", ok=True, says="reachable, schema up to date"),
        _broker(),
        CheckResult(
            "policy",
            ok=True,
            says=f"signed by {services.policy.signed_by}, {services.policy.signed_on}; digest {services.policy.digest[:12]}",
        ),
        CheckResult("templates", ok=True, says=_templates(services)),
    ]
    return [*findings, *_providers(services)]


def _templates(services: Services) -> str:
    """All by name, and which of them nobody approved as they now are."""
    found = template_versions(services)
    waiting = [each.template.name for each in found if each.standing in (ApprovalStatus.WAITING, ApprovalStatus.WITHDRAWN)]
    names = ", ".join(each.template.name for each in found)
    return f"{names}; not approved as they now are: {', '.join(waiting)}" if waiting else names


def _broker() -> CheckResult:
    url = bootstrap.broker_url().replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    try:
        with Redis.from_url(url, socket_connect_timeout=5) as client:
            client.ping()
    except (RedisError, ValueError, TypeError) as error:  # the last for an option that only Celery knows
        return CheckResult("broker", ok=False, says=f"can't be reached ({type(error).__name__})")
    return CheckResult("broker", ok=True, says="reachable")


def _providers(services: Services) -> Iterator[CheckResult]:
    """Ask each provider, without sending; lift the stop of a channel that passes."""
    with lend(services.pool) as connection:
        for channel, provider in services.providers.items():
            name = f"{channel} through {bootstrap.settings().providers[channel]}"
            fault = provider.check()
            if fault is not None:
                yield CheckResult(name, ok=False, says=f"{fault.code} {fault.hint}".strip())
            else:
                lifted = stopped_channels.lift(connection, channel)
                yield CheckResult(
                    name, ok=True, says="keys work; the channel was stopped and sends again" if lifted else "keys work"
                )
