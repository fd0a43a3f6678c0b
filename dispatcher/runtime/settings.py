"""From the environment to one frozen `Settings`; everything that is wrong is named at once, before anything starts.

Secrets are in no `repr` and in no error text: of a value that is or may contain one, only the name is shown.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from channels.base import Channel
from channels.registry import Pattern, PluginFault, plugin_faults, plugins
from dispatcher.content import default_folder
from dispatcher.domain.audience_urls import HTTPS, AudienceUrl, BadAudienceUrl, parse_prefix
from dispatcher.policy.contracts import SHIPPED_CONTRACTS
from dispatcher.runtime.broker_settings import read_broker_urls
from dispatcher.runtime.canary_settings import CanarySettings, read_canaries
from dispatcher.runtime.environment import SECRETS, EnvironmentReader, EnvironmentVariable, spelling_warnings
from dispatcher.runtime.event_settings import EventFileSettings, KafkaSettings, read_event_files, read_kafka
from dispatcher.runtime.notifications import read_alert_targets
from dispatcher.runtime.oidc_settings import OidcSettings, read_oidc
from dispatcher.runtime.services import IN_FLIGHT_MAX
from dispatcher.runtime.trace_settings import TraceSettings, read_traces

SECRET_KEY_LENGTH_MIN = 32
SEND_DEADLINE_SECONDS = 10.0
LEASE_PARTS = 3  # of the lease: until the send deadline, for the longest provider call, to settle
SANDBOX_URL = "http://127.0.0.1:8025"
ACCESS = ("open", "key")
SANDBOX = "sandbox"  # in place of a provider's name: the local doubles
CHANNELS = (Channel.EMAIL, Channel.SMS, Channel.WHATSAPP, Channel.PUSH)


class InvalidSettings(Exception):
    """What is wrong in the environment: one sentence per error, without secrets."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class SecondProvider:
    """The provider that gets what a channel's first one did not accept; `share` (0 to 1) of the messages go there at once."""

    provider: str
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Empty strings and None mean "not set"; a URL of None means the embedded engine."""

    home: Path
    database_url: str | None = field(repr=False)
    broker_url: str | None = field(repr=False)
    templates: Path
    audiences: Path  # where Celery tasks may read audience files
    policy: Path | None  # None: the shipped one
    public_url: str
    secret_key: str = field(repr=False)  # or several, newest first, with commas between them
    api_key: str = field(repr=False)
    oidc: OidcSettings | None
    api_keys: Path | None
    providers: Mapping[Channel, str]
    seconds: Mapping[Channel, SecondProvider]
    accounts: Mapping[str, Any]  # by the provider's name, each as its plugin reads it
    rates: Mapping[Channel, float]  # messages (SMS: segments) a second; a channel that is missing has no rate limit
    sandbox_url: str
    specialise: bool  # render along compiled paths; off: run the template for each message
    send_deadline_seconds: float  # the longest time from claim to hand-off
    webhook_hosts: frozenset[str]  # of event endpoints that may be private or http
    audience_urls: tuple[AudienceUrl, ...]  # audiences are fetched from under these, and from nowhere else
    in_flight: int  # messages that one worker process may have claimed and not settled
    lease_seconds: float  # how long a worker may take from claim to settlement before its claims count as lost
    contracts: Path = SHIPPED_CONTRACTS  # the texts of the contract for tailored messages
    compact_records: bool = True  # decisions are written without what many have in common
    seal_required: bool = False  # the public Celery tasks refuse plain arguments
    upload_bytes_max: int = 4_000_000_000  # of an uploaded audience, as sent and as unpacked
    upload_ratio_max: float = 200.0  # unpacked bytes for each byte sent
    database_role: str = "dispatcher_worker"
    kafka: KafkaSettings | None = None
    event_files: EventFileSettings | None = None
    log_format: str = "auto"
    traces: TraceSettings = field(default_factory=TraceSettings)
    canaries: CanarySettings | None = None
    alert_targets: tuple[str, ...] = field(default=(), repr=False)  # they hold passwords
    metrics_access: str = "open"  # or "key"
    metrics_port: int = 0  # of a worker or beat; 0: not served
    metrics_host: str = "127.0.0.1"
    store_url: str | None = field(default=None, repr=False)  # a Valkey or Redis beside the broker; None: the broker is one
    certificates: tuple[Path, ...] = ()  # files whose end of validity is a metric
    openapi_access: str = "open"
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read `environ`, and the files that it names. Raises `InvalidSettings` with everything that is wrong.

        `secret_key` is empty where it is not set and the database is the embedded one; `load` then stores one in `home`.
        """
        read = EnvironmentReader(environ)
        settings = _settings(read)
        unusable = [str(fault) for fault in plugin_faults()]
        if read.faults or any(_is_meant(fault, read.environ) for fault in plugin_faults()):
            raise InvalidSettings([*read.faults, *unusable])
        return replace(settings, warnings=(*unusable, *spelling_warnings(read.environ, read.known), *_warnings(settings)))


def _is_meant(fault: PluginFault, environ: Mapping[str, str]) -> bool:
    """Whether variables of a plugin that cannot be used are set: its channel must not go silently through another provider."""
    return any(name.startswith(f"{fault.name.upper()}_") and value for name, value in environ.items())


def _settings(read: EnvironmentReader) -> Settings:
    home = Path(read.text("DISPATCHER_HOME", "var", about="where data, keys and logs are kept")).expanduser().absolute()
    read.text(
        SECRETS,
        about="a folder of files, each of which has the name and the value of a variable of this page; the environment goes first",
        values="a folder, such as `/run/secrets`",
    )
    database_url = read.url_with_password(
        "DISPATCHER_DATABASE_URL",
        ("postgresql", "postgres"),
        about="your own PostgreSQL; without it an embedded one is started",
    )
    broker_url, store_url = read_broker_urls(read)
    secret_key = _secret_key(read, required=bool(database_url))
    public_url = read.url(
        "DISPATCHER_PUBLIC_URL", "http://127.0.0.1:8000", about="where customers and providers reach the web application"
    )
    providers = _providers(read)
    lease_seconds, send_deadline_seconds = _lease(read)
    sandbox_url = read.url("DISPATCHER_SANDBOX_URL", SANDBOX_URL, in_the_clear=True, about="where the sandbox is")
    return Settings(
        home=home,
        database_url=database_url or None,
        broker_url=broker_url or None,
        store_url=store_url or None,
        templates=read.folder(
            "DISPATCHER_TEMPLATES",
            default_folder(Path.cwd()),
            shown="templates",
            about="the folder of message templates; without it the shipped ones, or `templates` in the working directory",
        ),
        audiences=Path(
            read.text(
                "DISPATCHER_AUDIENCES",
                about="the only folder from which Celery tasks read audience files; by default `audiences` in DISPATCHER_HOME",
            )
            or home / "audiences"
        )
        .expanduser()
        .absolute(),
        policy=read.file("DISPATCHER_POLICY", about="your policy; without it the shipped `policy.toml`"),
        contracts=read.folder(
            "DISPATCHER_CONTRACTS",
            SHIPPED_CONTRACTS,
            shown="",
            about="the folder with the texts of your contract for tailored messages; without it the shipped examples",
        ),
        public_url=public_url,
        secret_key=secret_key,
        oidc=read_oidc(read),
        api_key=read.secret("DISPATCHER_API_KEY", about="the key of a service account: commands act as this account"),
        api_keys=read.file(
            "DISPATCHER_API_KEYS", about="file of hashed API keys with names and rights; without it the API answers nobody"
        ),
        providers=providers,
        seconds=_seconds(read, providers),
        rates=_rates(read),
        webhook_hosts=_webhook_hosts(read),
        audience_urls=_audience_urls(read),
        kafka=read_kafka(read),
        event_files=read_event_files(read),
        alert_targets=read_alert_targets(read),
        send_deadline_seconds=send_deadline_seconds,
        in_flight=int(
            read.number(
                "DISPATCHER_IN_FLIGHT",
                default=IN_FLIGHT_MAX,
                least=1,
                most=10_000,
                about="how many messages one worker process may have on their way: so many are unresolved after a `kill -9` of it",
            )
        ),
        lease_seconds=lease_seconds,
        specialise=read.choice(
            "DISPATCHER_SPECIALISE", ("on", "off"), "on", about="render along compiled paths; `off` runs the template each time"
        )
        == "on",
        compact_records=read.choice(
            "DISPATCHER_COMPACT_RECORDS",
            ("on", "off"),
            "on",
            about="store once what the decisions of many messages have in common; `off`: each decision is a complete document",
        )
        == "on",
        seal_required=read.choice(
            "DISPATCHER_SEALED_JOBS",
            ("optional", "required"),
            "optional",
            about="`required`: the public Celery tasks refuse plain arguments, which the broker keeps readable for a while",
        )
        == "required",
        database_role=read.choice(
            "DISPATCHER_DATABASE_ROLE",
            ("dispatcher_worker", "dispatcher_tasks", "pooler"),
            "dispatcher_worker",
            about="the role in which this process works in the database; `dispatcher_tasks`, for Celery workers, has fewer rights; "
            "`pooler`: DISPATCHER_DATABASE_URL is a PgBouncer in transaction mode, which sets the role",
        ),
        metrics_access=read.choice(
            "DISPATCHER_METRICS_ACCESS", ACCESS, "open", about="`key`: `/metrics` needs an API key with the right `metrics`"
        ),
        metrics_port=int(
            read.number(
                "DISPATCHER_METRICS_PORT",
                0,
                least=1,
                most=65_535,
                about="the port on which a worker or beat serves `/metrics`; `dispatcher up` gives each of them one, from here "
                "on; not served if not set",
            )
        ),
        metrics_host=read.matching(
            "DISPATCHER_METRICS_HOST",
            Pattern(re.compile(r"[0-9A-Fa-f:.]+"), "an IP address of this machine"),
            about="the address on which workers and beat serve `/metrics`; without it `127.0.0.1`. Nobody is asked for a key there",
        )
        or "127.0.0.1",
        certificates=_certificates(read),
        traces=read_traces(read),
        canaries=read_canaries(read, frozenset(channel for channel, name in providers.items() if name == SANDBOX), sandbox_url),
        log_format=read.choice(
            "DISPATCHER_LOG_FORMAT",
            ("auto", "json", "text"),
            "auto",
            about="`json`: one object a line; `text`: for people; `auto`: text in a terminal, else JSON",
        ),
        openapi_access=read.choice(
            "DISPATCHER_OPENAPI_ACCESS",
            ACCESS,
            "open",
            about="`key`: `/openapi.json` needs an API key, with any right, and `/docs` asks for it",
        ),
        upload_bytes_max=int(
            read.number(
                "DISPATCHER_UPLOAD_BYTES_MAX",
                4_000_000_000,
                least=1_000,
                most=1e12,
                about="the largest audience that `PUT /v1/audiences/{id}` takes, in bytes, as sent and as unpacked",
            )
        ),
        upload_ratio_max=read.number(
            "DISPATCHER_UPLOAD_RATIO_MAX",
            200,
            least=1,
            most=1_000,
            about="how many times larger than its gzip data an uploaded audience may be",
        ),
        sandbox_url=sandbox_url,
        accounts=dict(_accounts(read, providers)),
    )


def _certificates(read: EnvironmentReader) -> tuple[Path, ...]:
    """The certificate files to watch. Each is read when metrics are collected, so that a renewed one counts at once."""
    value = read.text(
        "DISPATCHER_CERTIFICATES",
        about="PEM files of certificates, separated by commas, such as that of the public address: metrics show when each ends",
        values="files",
    )
    files = tuple(Path(part.strip()).expanduser().absolute() for part in value.split(",") if part.strip())
    for file in files:
        if not file.is_file():
            read.fault(f"DISPATCHER_CERTIFICATES names {str(file)!r}: there is no such file.")
    return files


def _webhook_hosts(read: EnvironmentReader) -> frozenset[str]:
    """The hosts, in lower case."""
    value = read.text(
        "DISPATCHER_WEBHOOK_HOSTS",
        about="hosts of event endpoints, separated by commas, that may have private addresses and http; no others may",
        values="host names or addresses",
    )
    hosts = [part.strip().lower() for part in value.split(",") if part.strip()]
    for host in hosts:
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:]*:[0-9a-f:.]*:[0-9a-f:.]*", host):
            read.fault(f"DISPATCHER_WEBHOOK_HOSTS has {host!r}: it must be host names or addresses, without https:// and port.")
    return frozenset(hosts)


def _audience_urls(read: EnvironmentReader) -> tuple[AudienceUrl, ...]:
    """The prefixes of URLs from which audiences may be fetched."""
    value = read.text(
        "DISPATCHER_AUDIENCE_URLS",
        about="from where campaigns may fetch audiences by URL, separated by commas: each allows the URLs under it. Object storage "
        "needs the extra `files`; without it no audience is fetched",
        values="such as `https://crm.example.com/exports/`, `s3://bucket/audiences/`",
    )
    prefixes = []
    for number, part in enumerate((part.strip() for part in value.split(",") if part.strip()), start=1):
        try:
            prefixes.append(parse_prefix(part))
        except BadAudienceUrl as error:  # the URL is not shown: it may hold a password
            read.fault(f"DISPATCHER_AUDIENCE_URLS, URL {number} (not shown) {error}.")
    if any(prefix.scheme != HTTPS for prefix in prefixes) and find_spec("fsspec") is None:
        read.fault("DISPATCHER_AUDIENCE_URLS names object storage, but fsspec is not installed: it is the extra `files`.")
    return tuple(prefixes)


def _lease(read: EnvironmentReader) -> tuple[float, float]:
    """The lease, and the send deadline within it: deadline and longest provider call together end before the lease does."""
    lease = read.seconds(
        "DISPATCHER_LEASE_SECONDS", default=60.0, least=3.0, most=540.0, about="how long a worker may take from claim to settle"
    )
    most = lease / LEASE_PARTS
    deadline = read.seconds(
        "DISPATCHER_SEND_DEADLINE_SECONDS",
        default=min(SEND_DEADLINE_SECONDS, most),
        least=0.5,
        most=540.0 / LEASE_PARTS,
        about="the longest time from claim to hand-off: how long after an opt-out a message claimed before it may still leave",
    )
    if deadline > most:
        read.fault(
            f"DISPATCHER_SEND_DEADLINE_SECONDS is {deadline:g}: it can be at most {most:g}, a third of DISPATCHER_LEASE_SECONDS,"
            " so that a claim is settled before it counts as lost."
        )
    return lease, deadline


def variables() -> Sequence[EnvironmentVariable]:
    """The declaration of every variable, in the order of reading."""
    read = EnvironmentReader({})
    _settings(read)
    return tuple(read.known.values())


def load(environ: Mapping[str, str]) -> Settings:
    """`Settings.from_environment` with a secret key in any case: the one stored in `home` where the environment has none."""
    settings = Settings.from_environment(environ)
    return settings if settings.secret_key else replace(settings, secret_key=_stored_secret_key(settings.home))


def _providers(read: EnvironmentReader) -> dict[Channel, str]:
    """The provider of each channel: the one named, else by the credentials that are set, else the sandbox."""
    providers = {}
    for channel in CHANNELS:
        variable = f"DISPATCHER_PROVIDER_{channel.upper()}"
        about = f"the provider of channel `{channel}`; if not set: by credentials, else `{SANDBOX}`"
        named = read.choice(variable, (*_serving(channel), SANDBOX), about=about)
        chosen = providers[channel] = named or _by_credentials(read, channel)
        _ask_for_needs(read, channel, chosen, f"{channel} goes through {chosen}, which needs it. Or set {variable}=sandbox.")
    return providers


def _accounts(read: EnvironmentReader, providers: Mapping[Channel, str]) -> Iterator[tuple[str, Any]]:
    """The account of each provider. A plugin of another package that raises is an error, and not the end of the program."""
    for name, plugin in plugins().items():
        try:
            yield name, plugin.read_account(read)
        except Exception as error:  # its text may hold a secret
            is_used = " It is a channel's provider." if name in providers.values() else ""
            read.fault(f"The provider plugin {name} cannot read its variables: {type(error).__name__}.{is_used}")
            yield name, None


def _serving(channel: Channel) -> list[str]:
    return [name for name, plugin in plugins().items() if channel in plugin.needs]


def _by_credentials(read: EnvironmentReader, channel: Channel) -> str:
    """Half of a provider's credentials choose it too, so that the missing half is an error, not a silent use of the sandbox."""
    second = _second(read, channel)
    candidates = [name for name in _serving(channel) if any(map(read.text, plugins()[name].needs[channel]))]
    return next((name for name in candidates if second is None or name != second.provider), SANDBOX)


def _ask_for_needs(read: EnvironmentReader, channel: Channel, name: str, why: str) -> None:
    for need in plugins()[name].needs[channel] if name in plugins() else ():
        if not read.text(need):
            read.fault(f"{need} is missing: {why}")


def _seconds(read: EnvironmentReader, providers: Mapping[Channel, str]) -> dict[Channel, SecondProvider]:
    """The second providers that are configured."""
    found = {}
    for channel in CHANNELS:
        if second := _second(read, channel):
            found[channel] = second
            variable = f"DISPATCHER_FAILOVER_{channel.upper()}"
            _ask_for_needs(read, channel, second.provider, f"{variable}={second.provider} needs it.")
            if second.provider == providers[channel]:
                read.fault(f"{variable} is {second.provider!r}, and so is the first provider: that is no failover.")
    return found


def _second(read: EnvironmentReader, channel: Channel) -> SecondProvider | None:
    """`name`, or `name:percent` of the messages that go there at once."""
    variable = f"DISPATCHER_FAILOVER_{channel.upper()}"
    about = f"second provider of `{channel}`, for what the first certainly did not accept; `name:20` gives it 20 % at once"
    value = read.text(variable, about=about)
    name, _, percent = value.partition(":")
    choices = [name for name in _serving(channel) if plugins()[name].real]
    if value and (name not in choices or not re.fullmatch(r"[0-9]{1,2}", percent or "0")):
        read.fault(
            f"{variable} is {value!r}: it must be one of {', '.join(choices)}, or one with a share in percent: {choices[-1]}:10."
        )
        return None
    return SecondProvider(name, int(percent or 0) / 100) if value else None


def _rates(read: EnvironmentReader) -> dict[Channel, float]:
    rates = {
        channel: read.number(
            f"DISPATCHER_RATE_{channel.upper()}",
            0.0,
            least=0.01,
            most=1_000_000,
            about=f"{'SMS segments' if channel is Channel.SMS else 'messages'} a second, over all workers; no limit if not set",
        )
        for channel in Channel
    }
    return {channel: rate for channel, rate in rates.items() if rate}


def _secret_key(read: EnvironmentReader, required: bool) -> str:
    key = read.secret(
        "DISPATCHER_SECRET_KEY",
        about="signs links and keys hashes; needed with your own database, the same on all machines; else made once, in "
        "`DISPATCHER_HOME`. Several, newest first, separated by commas: the newest writes, all read",
    )
    make = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    ring = [part.strip() for part in key.split(",")] if key else []
    for place, part in enumerate(ring, start=1):
        if len(part) < SECRET_KEY_LENGTH_MIN:
            which = f"key {place} of DISPATCHER_SECRET_KEY" if len(ring) > 1 else "DISPATCHER_SECRET_KEY"
            read.fault(f"{which} has {len(part)} characters: it needs {SECRET_KEY_LENGTH_MIN} or more; {make}")
    if len(set(ring)) < len(ring):
        read.fault("DISPATCHER_SECRET_KEY has the same key twice")
    if required and not key:
        read.fault(f"DISPATCHER_SECRET_KEY is missing: with a database of your own, all machines must share one key; {make}")
    return ",".join(ring)


def _stored_secret_key(home: Path) -> str:
    """The keys in the file `secret.key`, one per line, newest first. The first process makes it, in one step; all others read the
    same.
    """
    path = home / "secret.key"
    if not path.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=home, prefix="secret.key.") as draft:  # of mode 0600
            draft.write(secrets.token_urlsafe(48))
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InvalidSettings(
            [f"{path} can be read by others, and whoever has it can sign unsubscribe links: chmod 600 it, or make a new one."]
        )
    keys = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not keys or min(map(len, keys)) < SECRET_KEY_LENGTH_MIN or len(set(keys)) < len(keys):
        raise InvalidSettings(
            [f"{path} needs a key on each line, newest first, each once, of {SECRET_KEY_LENGTH_MIN} characters or more."]
        )
    return ",".join(keys)


def _warnings(settings: Settings) -> Iterator[str]:
    """Warnings about settings that are valid but may be mistakes."""
    real = sorted(channel for channel, provider in settings.providers.items() if provider in plugins() and plugins()[provider].real)
    simulated = sorted(settings.providers.keys() - set(real))
    if real and simulated:
        yield f"messages by {' and '.join(real)} reach people, those by {' and '.join(simulated)} end in the sandbox or outbox."
    if real and settings.public_url.startswith("http://"):
        yield f"DISPATCHER_PUBLIC_URL is {settings.public_url!r}: its links lead to this machine, where nobody can unsubscribe."
    in_use = {*settings.providers.values(), *(second.provider for second in settings.seconds.values())}
    for name, plugin in plugins().items():
        if name in in_use:
            yield from plugin.warnings(settings.accounts[name])
