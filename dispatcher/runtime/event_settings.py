"""The settings of Kafka and of event files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from dispatcher.runtime.environment import EnvironmentReader

TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")  # what Kafka allows
# The program sets these: the promise of order and of no loss depends on them.
RESERVED = frozenset({
    "bootstrap.servers", "metadata.broker.list", "enable.idempotence", "acks", "request.required.acks", "message.timeout.ms",
    "delivery.timeout.ms", "enable.gapless.guarantee", "transactional.id", "log_level",
})  # fmt: skip
PROTOCOLS = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
EVERY = ("hour", "day")
FORMATS = ("csv", "parquet")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where events are produced to. `properties` are those of librdkafka, for TLS and SASL."""

    brokers: str
    topic: str
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class EventFileSettings:
    """Where event files are written, for which periods, in which formats. `url` is a folder, or a URL that fsspec knows."""

    url: str = field(repr=False)  # can hold a key
    every: str = "day"
    formats: tuple[str, ...] = ("csv",)


def read_kafka(read: EnvironmentReader) -> KafkaSettings | None:
    """None where no broker is set."""
    brokers = read.text(
        "DISPATCHER_KAFKA_BROKERS",
        about="Kafka brokers that get every event, needs the extra `kafka`; without it there is no Kafka",
        values="`host:port`, separated by commas",
    )
    topic = read.text("DISPATCHER_KAFKA_TOPIC", "dispatcher.events", about="the topic of all events")
    path = read.file(
        "DISPATCHER_KAFKA_PROPERTIES", about="file of librdkafka properties, `name=value` in each line: TLS, SASL, compression"
    )
    if not brokers:
        return None
    if not all(re.fullmatch(r"\S+:[0-9]{1,5}", each.strip()) for each in brokers.split(",")):
        read.fault(f"DISPATCHER_KAFKA_BROKERS is {brokers!r}: it must be host:port, or several with commas between them.")
    if not TOPIC.fullmatch(topic):
        read.fault(f"DISPATCHER_KAFKA_TOPIC is {topic!r}: it must be letters, digits, dots, - and _, 249 at most.")
    if find_spec("confluent_kafka") is None:
        read.fault("DISPATCHER_KAFKA_BROKERS is set, but confluent-kafka is not installed: it is the extra `kafka`.")
    return KafkaSettings(brokers, topic, _properties(read, path) if path else {})


def _properties(read: EnvironmentReader, path: Path) -> dict[str, str]:
    """The properties of a file. Errors name the line and never its value, which may be a password."""
    found: dict[str, str] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith(("#", "!")):
            continue
        name, separator, value = (part.strip() for part in line.partition("="))
        if not separator or not re.fullmatch(r"[a-z][a-z0-9._-]*", name):
            read.fault(f"DISPATCHER_KAFKA_PROPERTIES: {path}:{number} (not shown) must be name=value.")
        elif name in RESERVED:
            read.fault(f"DISPATCHER_KAFKA_PROPERTIES: {path}:{number} sets {name}, which the program sets itself.")
        else:
            found[name] = value
    for problem in _unfit(found):
        read.fault(f"DISPATCHER_KAFKA_PROPERTIES: {path}: {problem}.")
    return found


def _unfit(properties: Mapping[str, str]) -> Iterator[str]:
    """What of TLS and SASL does not fit together: librdkafka would ignore it, or fail at each attempt. Without values."""
    protocol = properties.get("security.protocol", "plaintext").lower()
    if protocol not in PROTOCOLS:
        yield f"security.protocol must be one of {', '.join(PROTOCOLS)}"
        return
    yield from _unfit_tls(protocol, properties)
    yield from _unfit_sasl(protocol, properties)


def _unfit_tls(protocol: str, properties: Mapping[str, str]) -> Iterator[str]:
    names = [name for name in properties if name.startswith("ssl.")]
    if names and "ssl" not in protocol:
        yield f"{', '.join(names)} needs security.protocol=ssl or sasl_ssl"
    for name in ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location"):
        if (place := properties.get(name)) and place != "probe" and not Path(place).exists():
            yield f"{name} names no file of this machine"
    if ("ssl.certificate.location" in properties) != ("ssl.key.location" in properties) and "ssl.key.pem" not in properties:
        yield "ssl.certificate.location and ssl.key.location need each other"


def _unfit_sasl(protocol: str, properties: Mapping[str, str]) -> Iterator[str]:
    names = [name for name in properties if name.startswith("sasl.")]
    if "sasl" not in protocol:
        if names:
            yield f"{', '.join(names)} needs security.protocol=sasl_ssl or sasl_plaintext"
        return
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", "")).upper()
    if not mechanism:
        yield "security.protocol is one with SASL, which needs sasl.mechanism, such as SCRAM-SHA-512"
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM-"):
        for name in ("sasl.username", "sasl.password"):
            if not properties.get(name):
                yield f"{name} is missing: the sasl.mechanism needs it"


def read_event_files(read: EnvironmentReader) -> EventFileSettings | None:
    """None where no place is set."""
    url = read.text(
        "DISPATCHER_FILES_URL",
        about="folder for event files, or the URL of object storage, such as `s3://bucket/events`, which needs the extra `files`; "
        "without it no files are written",
    )
    every = read.choice("DISPATCHER_FILES_EVERY", EVERY, "day", about="the period of an event file, in UTC")
    text = read.text(
        "DISPATCHER_FILES_FORMATS",
        "csv",
        about="formats of event files, separated by commas; Parquet needs the extra `files`",
        values="`csv`, `parquet`",
    )
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not formats or not set(formats) <= set(FORMATS):
        read.fault(f"DISPATCHER_FILES_FORMATS is {text!r}: it must be {' or '.join(FORMATS)}, or both with a comma between them.")
    if not url:
        return None
    for needed, is_needed in (("pyarrow", "parquet" in formats), ("fsspec", "://" in url)):
        if is_needed and find_spec(needed) is None:
            read.fault(
                f"DISPATCHER_FILES_URL is set, and these files need {needed}, which is not installed: it is the extra `files`."
            )
    folder = url if "://" in url else str(Path(url).expanduser().absolute())
    return EventFileSettings(folder, every, formats)
