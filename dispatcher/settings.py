"""From the environment to one frozen `Settings`; every fault is named, all at once, before anything starts.

Secrets are in no `repr` and in no sentence about a fault: of a value that is or may hold one, only the name is said.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from channels.base import Channel
from dispatcher.environment import KEY, SENDER, SID, WHATSAPP_SENDER, Reader, spelling_warnings

SECRET_KEY_LENGTH_MIN = 32
SANDBOX_URL = "http://127.0.0.1:8025"
PROVIDERS: Mapping[Channel, tuple[str, ...]] = {
    Channel.EMAIL: ("sendgrid", "smtp", "outbox", "sandbox"),
    Channel.SMS: ("twilio", "outbox", "sandbox"),
    Channel.WHATSAPP: ("twilio", "outbox", "sandbox"),
    Channel.PUSH: ("fcm", "outbox", "sandbox"),
}
REAL = frozenset({"sendgrid", "smtp", "twilio", "fcm"})
TWILIO_ACCOUNT = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")
NEEDS: Mapping[tuple[Channel, str], tuple[str, ...]] = {
    (Channel.EMAIL, "sendgrid"): ("SENDGRID_API_KEY",),
    (Channel.EMAIL, "smtp"): ("SMTP_URL",),
    (Channel.SMS, "twilio"): (*TWILIO_ACCOUNT, "TWILIO_SMS_SENDER"),
    (Channel.WHATSAPP, "twilio"): (*TWILIO_ACCOUNT, "TWILIO_WHATSAPP_SENDER"),
    (Channel.PUSH, "fcm"): ("GOOGLE_APPLICATION_CREDENTIALS",),
}


class SettingsFaults(Exception):
    """What is wrong in the environment: one whole sentence per fault, none with a secret in it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class SendGrid:
    """SendGrid's API, and the public key (base64 DER) that its event webhook's signatures are checked with."""

    api_key: str = field(repr=False)
    base_url: str
    webhook_public_key: str
    mails_per_request: int


@dataclass(frozen=True, slots=True)
class Twilio:
    """Twilio's APIs. A sender is a number, an alphanumeric name (SMS only) or a messaging service (MG…)."""

    account_sid: str
    auth_token: str = field(repr=False)
    base_url: str
    content_base_url: str
    sms_sender: str
    whatsapp_sender: str


@dataclass(frozen=True, slots=True)
class Fcm:
    """Firebase Cloud Messaging; `credentials` is a service account's JSON file."""

    credentials: Path | None
    base_url: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the environment says. Empty strings and None mean "not given"; a URL of None means the embedded engine."""

    home: Path
    database_url: str | None = field(repr=False)
    broker_url: str | None = field(repr=False)
    templates: Path
    policy: Path | None  # None: the shipped one
    public_url: str
    secret_key: str = field(repr=False)
    api_keys: Path | None
    providers: Mapping[Channel, str]
    sandbox_url: str
    sendgrid: SendGrid
    twilio: Twilio
    fcm: Fcm
    smtp_url: str = field(repr=False)
    rates: Mapping[Channel, float]  # messages a second that an account may take; a channel that is not named has no limit of ours
    failover_email: str  # the provider that takes what the first one surely did not, or ""
    specialise: bool  # write messages along known paths through their templates; off: run the template for each
    lease_seconds: float  # how long a worker may take from claim to settle before its claims count as lost
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read `environ` and nothing else, but for the files it names. Raises `SettingsFaults` with everything that is wrong in it.

        `secret_key` stays empty where it is not given and the database is the embedded one: `load` then keeps one at home.
        """
        read = Reader(environ)
        database_url = read.url_with_password("DISPATCHER_DATABASE_URL", ("postgresql", "postgres")) or None
        settings = cls(
            home=Path(read.text("DISPATCHER_HOME", "var")).expanduser().absolute(),
            database_url=database_url,
            broker_url=read.url_with_password("DISPATCHER_BROKER_URL", ("redis", "rediss", "redis+socket", "sentinel")) or None,
            templates=read.folder("DISPATCHER_TEMPLATES", "templates"),
            policy=read.file("DISPATCHER_POLICY"),
            public_url=read.url("DISPATCHER_PUBLIC_URL", "http://127.0.0.1:8000"),
            secret_key=_secret_key(read, required=database_url is not None),
            api_keys=read.file("DISPATCHER_API_KEYS"),
            providers=_providers(read),
            sandbox_url=read.url("DISPATCHER_SANDBOX_URL", SANDBOX_URL, in_the_clear=True),
            sendgrid=SendGrid(
                api_key=read.secret("SENDGRID_API_KEY"),
                base_url=read.url("SENDGRID_BASE_URL", "https://api.sendgrid.com"),
                webhook_public_key=read.matching("SENDGRID_WEBHOOK_PUBLIC_KEY", KEY),
                mails_per_request=int(read.number("SENDGRID_MAILS_PER_REQUEST", 100, least=1, most=1000)),
            ),
            twilio=Twilio(
                account_sid=read.matching("TWILIO_ACCOUNT_SID", SID),
                auth_token=read.secret("TWILIO_AUTH_TOKEN"),
                base_url=read.url("TWILIO_BASE_URL", "https://api.twilio.com"),
                content_base_url=read.url("TWILIO_CONTENT_BASE_URL", "https://content.twilio.com"),
                sms_sender=read.matching("TWILIO_SMS_SENDER", SENDER),
                whatsapp_sender=read.matching("TWILIO_WHATSAPP_SENDER", WHATSAPP_SENDER).removeprefix("whatsapp:"),
            ),
            fcm=Fcm(credentials=_service_account(read), base_url=read.url("FCM_BASE_URL", "https://fcm.googleapis.com")),
            smtp_url=read.url_with_password("SMTP_URL", ("smtp", "smtps")),
            rates=_rates(read),
            failover_email=_failover(read),
            specialise=(read.choice("DISPATCHER_SPECIALISE", ("on", "off")) or "on") == "on",
            lease_seconds=read.seconds("DISPATCHER_LEASE_SECONDS", default=60.0, least=3.0, most=540.0),
        )
        if read.faults:
            raise SettingsFaults(read.faults)
        return replace(settings, warnings=(*spelling_warnings(environ, read.known), *_doubts(settings)))


def load(environ: Mapping[str, str]) -> Settings:
    """`Settings.from_environment`, and a secret key in any case: where the environment gives none, the one kept at home."""
    settings = Settings.from_environment(environ)
    return settings if settings.secret_key else replace(settings, secret_key=_kept_secret_key(settings.home))


def _providers(read: Reader) -> dict[Channel, str]:
    """The provider of each channel, by its name where one is given, else by the credentials that are there, else the sandbox."""
    providers = {}
    for channel, names in PROVIDERS.items():
        variable = f"DISPATCHER_PROVIDER_{channel.upper()}"
        chosen = providers[channel] = read.choice(variable, names) or _by_credentials(read, channel)
        for need in NEEDS.get((channel, chosen), ()):
            if not read.text(need):
                read.fault(f"{need} is missing: {channel} goes through {chosen}, which needs it. Or set {variable}=sandbox.")
    return providers


def _by_credentials(read: Reader, channel: Channel) -> str:
    """Half of a provider's credentials choose it too: then the missing half is a fault, not a silent turn to the sandbox."""
    candidates = ((name, needs) for (of, name), needs in NEEDS.items() if of is channel)
    return next((name for name, needs in candidates if any(read.text(need) for need in needs)), "sandbox")


def _rates(read: Reader) -> dict[Channel, float]:
    asked = {channel: read.number(f"DISPATCHER_RATE_{channel.upper()}", 0.0, least=0.01, most=1_000_000) for channel in Channel}
    return {channel: rate for channel, rate in asked.items() if rate}


def _failover(read: Reader) -> str:
    """The second provider of e-mail."""
    second = read.choice("DISPATCHER_FAILOVER_EMAIL", ("smtp",))
    if second and not read.text("SMTP_URL"):
        read.fault("SMTP_URL is missing: DISPATCHER_FAILOVER_EMAIL=smtp needs it.")
    return second


def _secret_key(read: Reader, required: bool) -> str:
    key = read.secret("DISPATCHER_SECRET_KEY")
    make = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if key and len(key) < SECRET_KEY_LENGTH_MIN:
        read.fault(f"DISPATCHER_SECRET_KEY has {len(key)} characters: it needs {SECRET_KEY_LENGTH_MIN} or more; {make}")
    if required and not key:
        read.fault(f"DISPATCHER_SECRET_KEY is missing: with a database of your own, all machines must share one key; {make}")
    return key


def _kept_secret_key(home: Path) -> str:
    """The key in `secret.key`; whoever comes first makes it, whole, and everybody reads the same."""
    kept = home / "secret.key"
    if not kept.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=home, prefix="secret.key.") as draft:  # of mode 0600
            draft.write(secrets.token_urlsafe(48))
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, kept)
    if stat.S_IMODE(kept.stat().st_mode) & 0o077:
        raise SettingsFaults(
            [f"{kept} can be read by others, and whoever has it can sign unsubscribe links: chmod 600 it, or make a new one."]
        )
    return kept.read_text().strip()


def _service_account(read: Reader) -> Path | None:
    """A path to what looks like a service account's key; its content is checked for shape, and never shown."""
    path = read.file("GOOGLE_APPLICATION_CREDENTIALS")
    if path is not None:
        try:
            content = json.loads(path.read_text())
            good = content["type"] == "service_account" and all(
                content[key] for key in ("project_id", "client_email", "private_key")
            )
        except (OSError, ValueError, KeyError, TypeError):
            good = False
        if not good:
            read.fault(f"GOOGLE_APPLICATION_CREDENTIALS is {str(path)!r}: that must be the JSON key file of a service account.")
    return path


def _doubts(settings: Settings) -> Iterator[str]:
    """What may be meant so, but is worth a word."""
    real = sorted(channel for channel, provider in settings.providers.items() if provider in REAL)
    pretended = sorted(settings.providers.keys() - set(real))
    if real and pretended:
        yield f"{' and '.join(real)} reach people, but {' and '.join(pretended)} end in the sandbox or outbox and reach nobody."
    if real and settings.public_url.startswith("http://"):
        yield f"DISPATCHER_PUBLIC_URL is {settings.public_url!r}: its links lead to this machine, where nobody can unsubscribe."
    if settings.providers[Channel.EMAIL] == "sendgrid" and not settings.sendgrid.webhook_public_key:
        yield "SENDGRID_WEBHOOK_PUBLIC_KEY is missing: SendGrid's news of bounces and complaints can't be verified and is refused."
