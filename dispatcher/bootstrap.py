"""The one place that chooses implementations: from the environment to a house that is ready to work in."""

from __future__ import annotations

import atexit
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from redis import Redis

from channels.alerts import listen
from channels.base import Channel, Provider
from channels.fcm import Fcm
from channels.handover import utc_now
from channels.http import Http
from channels.limits import Breaker, Bucket, Failover, Limited, LocalBucket, Rate, Route, SharedBucket
from channels.outbox import Outbox
from channels.sandbox.keys import EventSigner, write_service_account
from channels.sendgrid import SendGrid
from channels.smtp import Smtp
from channels.twilio import Twilio
from dispatcher import content
from dispatcher.content import Catalog, TemplateFaults
from dispatcher.embedded import Engines, engines
from dispatcher.house import BATCH_MESSAGES_MAX, House, Limits, WebhookKeys
from dispatcher.ledger import stops
from dispatcher.ledger.migrations import migrate
from dispatcher.ledger.pool import lend, open_pool
from dispatcher.listening import listener
from dispatcher.policy import Policy, PolicyFaults, parse, shipped
from dispatcher.settings import Settings, SettingsFaults, load

UNFIT = (SettingsFaults, PolicyFaults, TemplateFaults)
# Credentials that the sandbox takes and no real provider would: nothing can leave by mistake.
SANDBOX_API_KEY = "SG.sandbox"
SANDBOX_ACCOUNT_SID = "AC" + "5" * 32
SANDBOX_AUTH_TOKEN = "sandbox"  # noqa: S105  public on purpose
SANDBOX_SENDER = "+32460000000"
CONNECTIONS_MAX = 2  # per process: one works, one may be asked beside it


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings. Raises `SettingsFaults`."""
    return load(os.environ)


@lru_cache(maxsize=1)
def joined_engines() -> Engines:
    """The engines, joined for as long as this process lives; forked children share them."""
    stack = ExitStack()
    joined = stack.enter_context(engines(settings().home, settings().database_url, settings().broker_url))
    atexit.register(stack.close)
    return joined


def broker_url() -> str:
    """Where Celery finds its broker."""
    return joined_engines().broker_url


@lru_cache(maxsize=1)
def migrated(database_url: str) -> None:
    """Bring the ledger's schema up to date, once per process."""
    migrate(database_url)


def policy(chosen: Settings) -> tuple[Policy, str]:
    """The policy in force, and its text. Raises `PolicyFaults`."""
    text = chosen.policy.read_text(encoding="utf-8") if chosen.policy else shipped()
    return parse(text, str(chosen.policy or "policy.toml")), text


def examine() -> tuple[Settings, Policy, Catalog, str]:
    """Settings, policy, templates and the policy's text, each read completely. Raises one of `UNFIT`, with all that is wrong."""
    chosen = settings()
    rules, text = policy(chosen)
    return chosen, rules, templates(chosen.templates), text


@lru_cache(maxsize=1)
def templates(folder: Path) -> Catalog:
    """The templates of a folder, compiled once per process. Raises `TemplateFaults`."""
    return content.load(folder)


def house(connections_max: int = CONNECTIONS_MAX) -> House:
    """A house of this process's own.

    Raises `SettingsFaults`, `PolicyFaults`, `TemplateFaults`, `EngineError`, `LedgerUnavailable`.
    """
    chosen, rules, catalog, text = examine()
    database_url = joined_engines().database_url
    migrated(database_url)
    pool = open_pool(database_url, connections_max)
    with lend(pool) as connection:
        stops.keep_policy(connection, rules.digest, text)
    listen(listener(pool, utc_now))
    return House(
        pool=pool,
        policy=rules,
        catalog=catalog,
        providers=providers(chosen),
        webhook_keys=webhook_keys(chosen),
        secret=chosen.secret_key.encode(),
        public_url=chosen.public_url.rstrip("/"),
        clock=lambda: datetime.now(UTC),
        dice=random.SystemRandom().random,
        pause=time.sleep,
        limits=Limits(lease_seconds=chosen.lease_seconds),
    )


def providers(chosen: Settings) -> Mapping[Channel, Provider]:
    """One adapter per channel, by its written name, behind its brakes; all of a process share one transport."""
    # A batch is in flight at once, so that a call's time limit bounds the batch; it must end well within the lease.
    http = Http(concurrency=2 * BATCH_MESSAGES_MAX, timeout_seconds=min(20.0, chosen.lease_seconds / 3))
    return {channel: _braked(chosen, channel, _ADAPTERS[name](chosen, channel, http)) for channel, name in chosen.providers.items()}


def _braked(chosen: Settings, channel: Channel, adapter: Provider) -> Provider:
    """The adapter with a breaker, a second provider where one is asked for, and the rate of its account where one is given."""
    provider: Provider = Breaker(adapter, utc_now)
    if channel is Channel.EMAIL and chosen.failover_email:
        second = Breaker(_smtp(chosen, channel, Http()), utc_now)
        provider = Failover([Route(provider, 1.0), Route(second, 0.0)], random.SystemRandom().random)
    if channel not in chosen.rates:
        return provider
    per_second = chosen.rates[channel]
    rate = Rate(per_second, burst=max(10, round(per_second)))
    return Limited(provider, _bucket(f"{adapter.name}:{channel}", rate), per_second)


def _bucket(name: str, rate: Rate) -> Bucket:
    """The bucket in the broker's store; one of this process's own where the broker is none that we can ask."""
    url = broker_url().replace("redis+socket://", "unix://").replace("?virtual_host=", "?db=")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return LocalBucket(rate.alone(), utc_now)
    return SharedBucket(Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5), name, rate, utc_now)


def _sendgrid(chosen: Settings, _: Channel, http: Http) -> Provider:
    return SendGrid(chosen.sendgrid.api_key, http, chosen.sendgrid.base_url, mails_per_request=chosen.sendgrid.mails_per_request)


def _twilio(chosen: Settings, channel: Channel, http: Http) -> Provider:
    account = chosen.twilio
    sender = account.sms_sender if channel is Channel.SMS else account.whatsapp_sender
    return Twilio(channel, account.account_sid, account.auth_token, sender, http, account.base_url, _status_callback(chosen))


def _fcm(chosen: Settings, _: Channel, http: Http) -> Provider:
    return Fcm(str(chosen.fcm.credentials), http, chosen.fcm.base_url)


def _smtp(chosen: Settings, _: Channel, __: Http) -> Provider:
    return Smtp(chosen.smtp_url)


def _outbox(_: Settings, channel: Channel, __: Http) -> Provider:
    return Outbox(channel)


def _sandbox(chosen: Settings, channel: Channel, http: Http) -> Provider:
    """The real adapters, pointed at the local double."""
    url = chosen.sandbox_url
    if channel is Channel.EMAIL:
        return SendGrid(SANDBOX_API_KEY, http, url, mails_per_request=chosen.sendgrid.mails_per_request)
    if channel is Channel.PUSH:
        return Fcm(str(_sandbox_account(chosen)), http, url)
    return Twilio(channel, SANDBOX_ACCOUNT_SID, SANDBOX_AUTH_TOKEN, SANDBOX_SENDER, http, url, _status_callback(chosen))


_ADAPTERS: Mapping[str, Callable[[Settings, Channel, Http], Provider]] = {
    "sendgrid": _sendgrid,
    "twilio": _twilio,
    "fcm": _fcm,
    "smtp": _smtp,
    "outbox": _outbox,
    "sandbox": _sandbox,
}


def _status_callback(chosen: Settings) -> str:
    return f"{chosen.public_url.rstrip('/')}/webhooks/twilio/status"


def sandbox_folder(chosen: Settings) -> Path:
    """Where the sandbox keeps its arrivals and keys."""
    return chosen.home / "sandbox"


def _sandbox_account(chosen: Settings) -> Path:
    """A throw-away service account for this sandbox, made at first need."""
    name = f"service-account-{chosen.sandbox_url.rpartition(':')[2].strip('/')}.json"
    path = sandbox_folder(chosen) / name
    return path if path.exists() else write_service_account(path, chosen.sandbox_url)


def webhook_keys(chosen: Settings) -> WebhookKeys:
    """What webhook calls are verified with: the real accounts' keys, or the sandbox's."""
    key, token = chosen.sendgrid.webhook_public_key, chosen.twilio.auth_token
    if chosen.providers[Channel.EMAIL] == "sandbox" and not key:
        key = EventSigner(sandbox_folder(chosen) / "event-key.pem").public_key
    if "sandbox" in (chosen.providers[Channel.SMS], chosen.providers[Channel.WHATSAPP]) and not token:
        token = SANDBOX_AUTH_TOKEN
    return WebhookKeys(key, token)
