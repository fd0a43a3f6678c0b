"""`dispatcher check`: configuration, database, broker, policy, templates, providers. A stopped channel that passes sends again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from channels.base import ChannelError, Unavailable
from dispatcher.campaigns import whatsapp_templates
from dispatcher.campaigns.template_approval import NOT_APPROVED, template_versions
from dispatcher.client.jobs import BrokerUnavailable
from dispatcher.content import InvalidTemplates
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable, PolicyNotInForce
from dispatcher.embedded import EngineError
from dispatcher.events import event_files, kafka_delivery
from dispatcher.ledger import partitions
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import contract_texts, policies, stopped_channels
from dispatcher.maintenance.lane_backlog import backlog, ping
from dispatcher.maintenance.standstills import Standstill, examine
from dispatcher.policy import InvalidPolicy
from dispatcher.policy.contracts import shipped
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import InvalidSettings, Settings


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was checked. `detail` holds no secret and no personal data."""

    what: str
    ok: bool
    detail: str


def check_all() -> list[CheckResult]:
    """Check everything, in the order of dependencies; stop at an error that makes the rest impossible."""
    try:
        settings = bootstrap.settings()
    except InvalidSettings as error:
        return [CheckResult("configuration", ok=False, detail=fault) for fault in error.faults]
    results = [CheckResult("configuration", ok=True, detail=f"home {settings.home}")]
    results += [CheckResult("configuration", ok=True, detail=f"note: {warning}") for warning in settings.warnings]
    bound = f"nothing leaves later than {settings.send_deadline_seconds:g} s after its claim; a claim is lost after"
    results.append(CheckResult("claims", ok=True, detail=f"{bound} {settings.lease_seconds:g} s"))
    try:
        services = bootstrap.services()
    except InvalidPolicy as error:
        return [*results, *(CheckResult("policy", ok=False, detail=str(fault)) for fault in error.faults)]
    except InvalidTemplates as error:
        return [*results, *(CheckResult("templates", ok=False, detail=str(fault)) for fault in error.faults)]
    except KeyMismatch as error:
        return [*results, CheckResult("secret key", ok=False, detail=str(error))]
    except EngineError as error:
        return [*results, CheckResult("engines", ok=False, detail=str(error))]
    except LedgerUnavailable as error:
        return [*results, CheckResult("database", ok=False, detail=str(error))]
    return [
        *results,
        _database(services),
        *_broker(settings),
        _policy(services),
        _contract(services),
        CheckResult("templates", ok=True, detail=_templates(services)),
        *_whatsapp_templates(services),
        *_event_sinks(services),
        *_providers(services, settings),
        *_standstills(services),
    ]


def _policy(services: Services) -> CheckResult:
    policy = services.policy
    try:
        with lend(services.pool) as connection:
            policies.require_in_force(connection, policy.digest)
    except PolicyNotInForce as error:
        return CheckResult("policy", ok=False, detail=str(error))
    return CheckResult("policy", ok=True, detail=f"signed by {policy.signed_by}, {policy.signed_on}; digest {policy.digest[:12]}")


def _contract(services: Services) -> CheckResult:
    """The version of the contract in force. A text that was changed in place is an error: what did customers accept?"""
    version = services.policy.contract.version
    with lend(services.pool) as connection:
        changed = contract_texts.rewritten(connection)
    if changed:
        names = ", ".join(" ".join(filter(None, name)) for name in changed)
        return CheckResult("contract", ok=False, detail=f"changed after it was in use, without a new version: {names}")
    example = " (the shipped example)" if services.contracts == shipped() else ""
    return CheckResult("contract", ok=True, detail=f"version {version} is in force{example}")


def _database(services: Services) -> CheckResult:
    """The last month that has partitions: the maintenance clock creates them two months ahead."""
    with lend(services.pool) as connection:
        last = partitions.create_ahead(connection, services.clock())
    return CheckResult("database", ok=True, detail=f"reachable, schema up to date, partitions until {last // 100}-{last % 100:02}")


def _templates(services: Services) -> str:
    """The names of all templates, and of those without approval."""
    versions = template_versions(services)
    waiting = [version.template.name for version in versions if version.status in NOT_APPROVED]
    names = ", ".join(version.template.name for version in versions)
    return f"{names}; not approved in their current version: {', '.join(waiting)}" if waiting else names


def _whatsapp_templates(services: Services) -> Iterator[CheckResult]:
    """How many WhatsApp texts are approved, as the ledger knows. No error: the others go out on another channel, or not at all."""
    if services.template_client is not None:
        texts = whatsapp_templates.statuses(services)
        detail = f"{sum(text.is_approved for text in texts)} of {len(texts)} texts are approved"
        yield CheckResult("WhatsApp templates", ok=True, detail=detail)


def _event_sinks(services: Services) -> Iterator[CheckResult]:
    """Kafka and event files, where they are configured: whether they can be reached, how far behind they are."""
    checks = (("Kafka", services.kafka, kafka_delivery.check), ("event files", services.event_files, event_files.check))
    for name, settings, check in checks:
        if settings is not None:
            status, error = check(services)
            detail = f"{status.lag_events:,} events behind"
            if code := error or status.error:
                detail = f"{'cannot be reached' if error else 'the last attempt failed'} ({code}); {detail}"
            elif status.overdue:
                detail = f"period {status.overdue} is overdue; {detail}"
            yield CheckResult(name, ok=code is None and status.overdue is None, detail=detail)


def _broker(settings: Settings) -> Iterator[CheckResult]:
    """The broker and, beside RabbitMQ, the store."""
    parts: list[tuple[str, Callable[[], object]]] = [("broker", partial(backlog, bootstrap.broker_url()))]
    if settings.store_url:
        parts.append(("store", partial(ping, settings.store_url)))
    for name, reach in parts:
        try:
            reach()
        except BrokerUnavailable as error:
            yield CheckResult(name, ok=False, detail=f"cannot be reached ({error})")
        else:
            yield CheckResult(name, ok=True, detail="reachable")


def _standstills(services: Services) -> Iterator[CheckResult]:
    """Parts that stand still. Stopped channels and engines have lines of their own."""
    condition = examine(services)
    others = [each for each in condition.findings if each.kind not in _SHOWN_ABOVE]
    for finding in others:
        since = f" Since {finding.since:%Y-%m-%d %H:%M:%S} UTC." if finding.since else ""
        yield CheckResult("standstill", ok=False, detail=f"{finding.text}{since}")
    if not others:
        yield CheckResult("work", ok=True, detail="nothing stands still" if condition.heartbeats else "no worker has run yet")


_SHOWN_ABOVE = (Standstill.DATABASE, Standstill.BROKER, Standstill.CHANNEL_STOPPED)


def _providers(services: Services, settings: Settings) -> Iterator[CheckResult]:
    """Call each provider without sending anything; let a stopped channel that passes send again."""
    with lend(services.pool) as connection:
        for channel, provider in services.providers.items():
            chosen = settings.providers[channel]
            name = f"{channel} through {chosen}" if chosen == provider.name else f"{channel} through {chosen} ({provider.name})"
            error = provider.check()
            if error is not None:
                yield CheckResult(name, ok=False, detail=_failure(error, chosen))
            else:
                lifted = stopped_channels.lift(connection, channel, services.clock())
                detail = "keys work; the channel was stopped and sends again" if lifted else "keys work"
                yield CheckResult(name, ok=True, detail=detail)


def _failure(error: ChannelError, chosen: str) -> str:
    detail = ": ".join(filter(None, (error.code, error.hint)))
    if not isinstance(error, Unavailable):
        return detail
    hint = "; `dispatcher up` and `dispatcher sandbox` start the sandbox" if chosen == "sandbox" else ""
    return f"cannot be reached ({detail}){hint}"
