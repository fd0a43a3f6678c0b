"""The one place that chooses implementations: from the environment to ready services."""

from __future__ import annotations

import atexit
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from redis import Redis

from channels.alerts import set_alert_sink
from channels.base import Channel, Provider
from channels.http import HttpTransport
from channels.http_adapter import utc_now
from channels.registry import AdapterContext, plugins
from channels.resilience.circuit_breaker import CircuitBreaker
from channels.resilience.failover import Failover, WeightedProvider
from channels.resilience.observed import Observed
from channels.resilience.rate_limiter import Rate, RateLimited, SharedBucket, TokenBucket
from channels.sandbox.doubles import double_for
from channels.whatsapp_templates import TemplateClient
from dispatcher import __version__, content
from dispatcher.content import Catalog, InvalidTemplates, TemplateError
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable
from dispatcher.embedded import EngineError, Engines, engines
from dispatcher.ledger import decision_skeletons, partitions, roles, secret_keys
from dispatcher.ledger.connection import POOLER, Connection, PoolOptions, connect_once, lend, open_pool
from dispatcher.ledger.maintenance import contract_texts, policies
from dispatcher.ledger.maintenance.heartbeats import forget_heartbeats
from dispatcher.ledger.maintenance.upgrade_state import program_mark
from dispatcher.ledger.migrations import HEAD, migrate, refuse_older_programs
from dispatcher.policy import InvalidPolicy, Policy, parse, shipped
from dispatcher.policy.contracts import Contracts, read_contracts, with_contracts
from dispatcher.runtime import drain
from dispatcher.runtime.alert_sink import alert_sink
from dispatcher.runtime.broker_store import connect_store
from dispatcher.runtime.consistency import disagreements
from dispatcher.runtime.ledger_watch import LedgerWatch
from dispatcher.runtime.services import BATCH_MESSAGES_MAX, DeliveryLimits, Services, UploadLimits, Watched
from dispatcher.runtime.settings import LEASE_PARTS, SANDBOX, InvalidSettings, Settings, load
from dispatcher.runtime.template_folder import TemplateFolder, file_stamps, load_sound
from dispatcher.runtime.template_versions import TemplateVersions, name_open_versions

CONFIGURATION_ERRORS = (InvalidSettings, InvalidPolicy, InvalidTemplates, KeyMismatch)
SHIPPED_POLICY = "policy.toml"  # its name in errors
CONNECTIONS_MAX = 2  # per process: one for the work, one for alerts at the same time


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings. Raises `InvalidSettings`."""
    return load(os.environ)


def file_settings() -> Settings:
    """The same for commands that only read and write templates: no secret key is stored in the working directory, which may be the
    folder of templates."""
    return Settings.from_environment(os.environ)


@lru_cache(maxsize=1)
def joined_engines() -> Engines:
    """The engines, used as long as this process lives; forked children share them."""
    stack = ExitStack()
    joined = stack.enter_context(engines(settings().home, settings().database_url, settings().broker_url))
    atexit.register(stack.close)
    return joined


def broker_url() -> str:
    """Where Celery finds its broker."""
    return joined_engines().broker_url


@lru_cache(maxsize=1)
def migrate_once(database_url: str, role: str = roles.FULL) -> None:
    """Migrate the ledger's schema, once per process, and check that this process may work in its role."""
    migrate(database_url, role=role)


def policy(config: Settings) -> tuple[Policy, str]:
    """The policy in force, and its text. Raises `InvalidPolicy`, also where the contract that it names has no text."""
    text = _policy_text(config)
    return _parsed(text, str(config.policy or SHIPPED_POLICY), config.contracts), text


def _parsed(text: str, file: str, contracts_folder: Path) -> Policy:
    return with_contracts(parse(text, file), contracts(contracts_folder), file)


@lru_cache(maxsize=1)
def contracts(folder: Path) -> Contracts:
    """The texts of the contract for tailored messages, read once per process. Raises `InvalidPolicy`."""
    return read_contracts(folder)


def _policy_text(config: Settings) -> str:
    return config.policy.read_text(encoding="utf-8") if config.policy else shipped()


def examine() -> tuple[Settings, Policy, Catalog, str]:
    """Settings, policy, templates and the policy's text. Raises one of `CONFIGURATION_ERRORS` with every error of its part."""
    config = settings()
    text, file = _policy_text(config), str(config.policy or SHIPPED_POLICY)
    rules, catalog = _examined(text, file, config.contracts, config.templates, config.specialise)
    return config, rules, catalog, text


@lru_cache(maxsize=1)
def _examined(text: str, file: str, contracts_folder: Path, folder: Path, specialise: bool) -> tuple[Policy, Catalog]:
    """Policy and templates that agree. Checked once: a worker's parent does it, and its child processes inherit the result."""
    rules = _parsed(text, file, contracts_folder)
    catalog = templates(folder, specialise)
    if faults := disagreements(rules, catalog.values()):
        raise InvalidTemplates(faults)
    return rules, catalog


def _examine_sound(on_faults: Callable[[Sequence[TemplateError]], None]) -> tuple[Settings, Policy, Catalog, str]:
    """As `examine`, without the templates that have faults."""
    config = settings()
    rules, text = policy(config)
    catalog = _sound_templates(config, rules)
    if catalog.faults:
        on_faults(catalog.faults)
    return config, rules, catalog, text


_sound: dict[object, Catalog] = {}


def _sound_templates(config: Settings, rules: Policy) -> Catalog:
    """The templates without faults, read once per process while neither their files nor the policy change: to check them takes
    one to two seconds."""
    key = (config.templates, tuple(file_stamps(config.templates)), rules.digest, config.specialise)
    if key not in _sound:
        _sound.clear()
        _sound[key] = load_sound(config.templates, rules, _random(config.specialise))
    return _sound[key]


@lru_cache(maxsize=1)
def templates(folder: Path, specialise: bool) -> Catalog:
    """The templates of a folder, compiled once per process. Raises `InvalidTemplates`."""
    return content.load(folder, _random(specialise))


def _random(specialise: bool) -> Callable[[], float] | None:
    return random.random if specialise else None


def check_ledger_keys(config: Settings) -> str:
    """Check that the ledger was written with this process's secret keys; returns the URL of the ledger, migrated.

    Raises `KeyMismatch`, `LedgerUnavailable`.
    """
    database_url = joined_engines().database_url
    migrate_once(database_url, config.database_role)
    with connect_once(database_url, config.database_role) as connection:
        secret_keys.check_keys(connection, KeyRing.parse(config.secret_key))
    return database_url


def introduce_key() -> int:
    """Make the newest secret key of this process the one that writes. Returns how many connections of others were cut off for that.

    Raises `InvalidSettings`, `KeyMismatch`, `LedgerUnavailable`.
    """
    ring = KeyRing.parse(settings().secret_key)
    database_url = joined_engines().database_url
    if settings().database_role == POOLER:  # a pooler keeps the connections of processes without the new key
        raise LedgerUnavailable("a key is introduced over a direct connection, while no other process runs")
    migrate_once(database_url)
    with connect_once(database_url) as connection:
        connection.execute("RESET ROLE")
        connection.execute("SET ROLE NONE")  # only the login's own role may end its sessions
        return secret_keys.introduce(connection, ring)


def end_upgrade() -> None:
    """Let no program before this version use the ledger any more. Raises `KeyMismatch`, `LedgerUnavailable`."""
    refuse_older_programs(check_ledger_keys(settings()))


def create_roles() -> Mapping[str, str]:
    """Create the database roles with fewer rights, and grant these; returns what each is for. Raises `LedgerUnavailable`."""
    database_url = joined_engines().database_url
    migrate_once(database_url)
    roles.create(database_url)
    return roles.ROLES


def _role_of_people(config: Settings) -> str:
    """The role for what people do: all rights, also where this process is configured as a worker."""
    return POOLER if config.database_role == POOLER else roles.FULL


def adopt_policy(actor: str) -> tuple[str | None, str]:
    """Put this process's policy in force. Returns the digest of the one before, None at the first start, and its own.

    Raises one of `CONFIGURATION_ERRORS`, and `LedgerUnavailable`.
    """
    config, rules, _, text = examine()
    with connect_once(check_ledger_keys(config), _role_of_people(config)) as connection:
        policies.store_policy(connection, rules.digest, text)
        before = policies.adopt(connection, rules.digest, actor, utc_now())
    return before.digest if before else None, rules.digest


def check_keys_and_policy(config: Settings, database_url: str, say: Callable[[str], None]) -> None:
    """What `dispatcher up` checks before it starts anything. With an embedded database, it puts its policy in force: it starts all
    processes that use it. With a database of your own there may be others, so somebody has to adopt the policy.

    Raises `InvalidPolicy`, `KeyMismatch`, `LedgerUnavailable`, `PolicyNotInForce`.
    """
    rules, text = policy(config)
    with connect_once(database_url, _role_of_people(config)) as connection:
        secret_keys.check_keys(connection, KeyRing.parse(config.secret_key))
        policies.store_policy(connection, rules.digest, text)
        is_alone = config.database_url is None
        before = policies.adopt(connection, rules.digest, "dispatcher up", utc_now(), only_first=not is_alone)
        if not is_alone:
            policies.require_in_force(connection, rules.digest)
    if is_alone and before is not None and before.digest != rules.digest:
        say(f"the policy has changed: {rules.digest[:12]} is in force now, instead of {before.digest[:12]}")


def end_heartbeats(components: Sequence[str]) -> None:
    """Forget the heartbeats of these components: they stop on purpose. While the ledger is away, the heartbeats stay."""
    config = settings()
    with suppress(LedgerUnavailable, EngineError), connect_once(check_ledger_keys(config), config.database_role) as connection:
        forget_heartbeats(connection, components)


@lru_cache(maxsize=1)
def start_traces() -> None:
    """Export traces from this process, where they are on; not in a process that forks workers."""
    if settings().traces.is_on:
        import_module("dispatcher.runtime.trace_export").start()  # needs the extra `traces`


def services(
    connections_max: int = CONNECTIONS_MAX,
    on_faults: Callable[[Sequence[TemplateError]], None] | None = None,
    patient: bool = False,
) -> Services:
    """The services of this process. Its policy need not be the one in force: what decides by it looks for itself, and an opt-out is
    recorded under any policy.

    With `on_faults`, templates that have faults are left out, and the faults are given to it: a fault of one template must not
    keep anybody from the others. Workers are `patient`: they wait for a frozen database, everybody else gets an error.

    Raises `InvalidSettings`, `InvalidPolicy`, `InvalidTemplates`, `EngineError`, `KeyMismatch`, `LedgerUnavailable`.
    """
    config, rules, catalog, text = examine() if on_faults is None else _examine_sound(on_faults)
    start_traces()  # before the first connection: it is traced from its start
    database_url = check_ledger_keys(config)
    ring = KeyRing.parse(config.secret_key)
    watch = LedgerWatch(config.home, _shared_store())

    def check_new(connection: Connection) -> None:
        secret_keys.check_keys(connection, ring)
        watch.check(connection, utc_now())

    pool = open_pool(
        database_url,
        PoolOptions(
            connections_max,
            name=secret_keys.connection_name(ring, program_mark(__version__, HEAD)),
            role=config.database_role,
            patient=patient,
        ),
        check_new=check_new,
    )
    with lend(pool) as connection:
        policies.store_policy(connection, rules.digest, text)
        policies.adopt(connection, rules.digest, policies.FIRST_START, utc_now(), only_first=True)
        contract_texts.store(connection, contracts(config.contracts).rows(), utc_now())
        partitions.create_ahead(connection, utc_now())
        name_open_versions(connection, rules, catalog)
        has_compact_records = decision_skeletons.are_allowed(connection)
    set_alert_sink(alert_sink(pool, utc_now))
    return Services(
        pool=pool,
        policy=rules,
        contracts=contracts(config.contracts),
        catalog=catalog,
        providers=providers(config),
        webhook_keys=webhook_keys(config),
        secret=ring,
        public_url=config.public_url.rstrip("/"),
        audiences=config.audiences,
        webhook_hosts=config.webhook_hosts,
        audience_urls=config.audience_urls,
        kafka=config.kafka,
        event_files=config.event_files,
        canaries=config.canaries,
        oidc=config.oidc,
        trace_page=config.traces.page,
        clock=lambda: datetime.now(UTC),
        random=random.SystemRandom().random,
        sleep=time.sleep,
        is_draining=drain.is_draining,
        compact_records=config.compact_records and has_compact_records,
        seal_required=config.seal_required,
        template_client=template_client(config),
        whatsapp_is_sandbox=config.providers[Channel.WHATSAPP] == SANDBOX,
        limits=DeliveryLimits(
            in_flight_max=config.in_flight,
            send_deadline_seconds=config.send_deadline_seconds,
            lease_seconds=config.lease_seconds,
            together=messages_per_request(config),
        ),
        upload_limits=UploadLimits(config.upload_bytes_max, config.upload_ratio_max),
        watched=Watched(config.home, broker_url(), config.store_url or "", config.certificates),
        ledger_watch=watch,
        versions=TemplateVersions(_random(config.specialise)),
        folder=TemplateFolder(config.templates, rules, catalog, _random(config.specialise)),
    )


def providers(config: Settings) -> Mapping[Channel, Provider]:
    """One adapter per channel, behind circuit breaker and rate limiter; all of a process share one transport."""
    http = _transport(config)
    return {
        channel: _protected(config, channel, adapter(config, channel, name, http)) for channel, name in config.providers.items()
    }


def _transport(config: Settings) -> HttpTransport:
    """A transport for one provider or several. A batch is sent concurrently, so the time limit of a call bounds the batch: what is
    handed off before the send deadline is answered well within the lease.
    """
    return HttpTransport(concurrency=2 * BATCH_MESSAGES_MAX, timeout_seconds=min(20.0, config.lease_seconds / LEASE_PARTS))


def adapter(config: Settings, channel: Channel, name: str, http: HttpTransport) -> Provider:
    """The adapter of this name; for "sandbox" the real one that speaks to the local double."""
    found, account = account_of(config, channel, name)
    plugin = plugins()[found]
    return plugin.make_adapter(account, AdapterContext(channel, http, f"{config.public_url.rstrip('/')}/webhooks/{found}"))


def template_client(config: Settings) -> TemplateClient | None:
    """The client for the WhatsApp templates of the channel's provider; None for a provider that needs none."""
    name, account = account_of(config, Channel.WHATSAPP, config.providers[Channel.WHATSAPP])
    make = plugins()[name].make_template_client
    return make(account, _transport(config)) if make is not None else None


def messages_per_request(config: Settings) -> Mapping[Channel, int]:
    """How many messages one request carries, by channel."""
    found = {channel: account_of(config, channel, name) for channel, name in config.providers.items()}
    return {channel: plugins()[name].messages_per_request(account) for channel, (name, account) in found.items()}


def account_of(config: Settings, channel: Channel, name: str) -> tuple[str, Any]:
    """The provider that a name stands for on a channel, and its account."""
    if name != SANDBOX:
        return name, config.accounts[name]
    double = double_for(channel)
    return double.name, replace(config.accounts[double.name], **double.credentials(config.sandbox_url, sandbox_folder(config)))


def _protected(config: Settings, channel: Channel, first: Provider) -> Provider:
    """The adapter, measured, with a circuit breaker, a second provider where one is configured, and around both the rate limit, if
    any: the rate of a channel, over all workers and both its providers."""
    provider: Provider = CircuitBreaker(Observed(first), utc_now)
    if second := config.seconds.get(channel):
        other = CircuitBreaker(Observed(adapter(config, channel, second.provider, _transport(config))), utc_now)
        provider = Failover(
            [WeightedProvider(provider, 1.0 - second.share), WeightedProvider(other, second.share)], random.SystemRandom().random
        )
    if channel not in config.rates:
        return provider
    per_second = config.rates[channel]
    rate = Rate(per_second, burst=max(10, round(per_second)))
    return RateLimited(provider, _bucket(f"{first.name}:{channel}", rate))


def _bucket(name: str, rate: Rate) -> TokenBucket:
    """The bucket in the store that all processes share."""
    return SharedBucket(_shared_store(), name, rate, utc_now)


def store_url() -> str:
    """Where the store is that all processes share: the broker, or a Valkey or Redis beside RabbitMQ."""
    return settings().store_url or broker_url()


def _shared_store() -> Redis:
    return connect_store(store_url(), 0.5, 0.5)


def sandbox_folder(config: Settings) -> Path:
    """Where the sandbox stores its arrivals and keys."""
    return config.home / "sandbox"


def webhook_keys(config: Settings) -> Mapping[str, str]:
    """The keys that verify webhook calls, by provider: those of the real accounts, or else those of the sandbox."""
    keys = {}
    for channel, name in config.providers.items():
        if name == SANDBOX:
            found, account = account_of(config, channel, name)
            keys[found] = plugins()[found].webhook_key(account)
    real = {name: plugin.webhook_key(config.accounts[name]) for name, plugin in plugins().items()}
    return keys | {name: key for name, key in real.items() if key}
