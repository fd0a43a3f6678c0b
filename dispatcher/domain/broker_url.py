"""The URL of a broker, in one spelling that Celery, redis-py and py-amqp all read."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

TLS = ("rediss://", "amqps://")
RABBITMQ = ("amqp://", "amqps://")
CERT_REQS = "ssl_cert_reqs"
# Celery's documentation has the names of Python's ssl module; redis-py knows only the others.
SPELLINGS = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}


class BadBrokerUrl(ValueError):
    """The option of the URL that cannot be read; the message says what would be right. It shows no part of the URL."""


def common_spelling(url: str) -> str:
    """The URL, or several with semicolons between them, with `ssl_cert_reqs` as both read it.

    A URL with TLS that does not have it gets `required`: kombu would check no certificate. Raises `BadBrokerUrl`.
    """
    return ";".join(_common_spelling(part) for part in url.split(";"))


def is_rabbitmq(url: str) -> bool:
    """Whether the broker is RabbitMQ."""
    return url.startswith(RABBITMQ)


def _common_spelling(url: str) -> str:
    if not url.startswith(TLS):
        return url
    place, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    given = options.get(CERT_REQS, "required")
    options[CERT_REQS] = SPELLINGS.get(given, given)
    if options[CERT_REQS] not in SPELLINGS.values():
        raise BadBrokerUrl(f"{CERT_REQS} must be one of {', '.join((*SPELLINGS.values(), *SPELLINGS))}")
    return f"{place}?{urlencode(options, safe='/')}"
