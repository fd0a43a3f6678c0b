"""Where webhooks may go: https to public addresses, unless the setting `DISPATCHER_WEBHOOK_HOSTS` names the host. Pure but for DNS.

Otherwise whoever may add an endpoint could make this program call what only this program can reach (server-side request forgery):
the metadata service of a cloud, a database, a router.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import urlsplit

URL_LENGTH_MAX = 2_000
URL_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]!$&'()*+,;=%]+")  # RFC 3986, without @ and #
HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
UNICAST = IPv6Network("2000::/3")  # what is allocated of IPv6; the rest holds mapped, translated and local addresses
PROTOCOL_ASSIGNMENTS = IPv4Network("192.0.0.0/24")  # RFC 6890; Python calls 192.0.0.9 and 192.0.0.10 global
SIX_TO_FOUR = IPv6Network("2002::/16")  # carries an IPv4 address, which can be a private one
DEFAULT_PORTS = {"https": 443, "http": 80}

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]  # host and port -> addresses; raises OSError


class BadWebhookUrl(ValueError):
    """The URL cannot be used; the text says what is wrong and continues the words "the URL"."""


class AddressRefused(Exception):
    """The host has an address that is not public."""


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """A URL that was checked, in its parts."""

    text: str
    host: str  # in lower case; an IPv6 address without brackets
    port: int
    is_listed: bool  # in DISPATCHER_WEBHOOK_HOSTS: may be http, and private


def shown_url(text: str) -> str:
    """A URL without its query, which can hold a token."""
    path, mark, _ = text.partition("?")
    return f"{path}{mark}…" if mark else path


def parse_url(text: str, hosts: Collection[str] = ()) -> WebhookUrl:
    """Check the form of a URL; `hosts` are those that may be private or http. Raises `BadWebhookUrl`."""
    if len(text) > URL_LENGTH_MAX:
        raise BadWebhookUrl(f"has {len(text)} characters: {URL_LENGTH_MAX} are allowed")
    if "@" in text:
        raise BadWebhookUrl("must not hold a user or password, nor an @ anywhere")
    if not URL_CHARACTERS.fullmatch(text):
        raise BadWebhookUrl(
            "holds characters that a URL cannot have, or a fragment (#); a name with other letters is written xn--…"
        )
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise BadWebhookUrl("can't be read: it must be like https://events.example.com/hook") from None
    if parts.scheme not in DEFAULT_PORTS or not host or port == 0:
        raise BadWebhookUrl("must be like https://events.example.com/hook")
    is_listed = host in hosts
    if parts.scheme != "https" and not is_listed:
        raise BadWebhookUrl(f"must begin with https://, or DISPATCHER_WEBHOOK_HOSTS must name {host}")
    _check_host(host, is_listed)
    return WebhookUrl(text, host, port or DEFAULT_PORTS[parts.scheme], is_listed)


def _check_host(host: str, is_listed: bool) -> None:
    """Numbers such as 2130706433, 0x7f.1 and 0177.0.0.1 are addresses to some programs and names to others: neither is allowed."""
    if is_host_name(host):
        if not HOST_NAME.fullmatch(host):
            raise BadWebhookUrl(f"has {host!r} as its host, which is neither a host name nor an address")
    elif not is_listed and not is_public(host):
        raise BadWebhookUrl(f"names {host}, which is not a public address; DISPATCHER_WEBHOOK_HOSTS can allow it")


def is_host_name(host: str) -> bool:
    """Whether it is a name and not an address."""
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def is_public(address: str) -> bool:
    """Whether an address belongs to a machine on the public internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        return ip.is_global and ip in UNICAST and ip not in SIX_TO_FOUR
    return ip.is_global and not ip.is_multicast and ip not in PROTOCOL_ASSIGNMENTS


def system_addresses(host: str, port: int) -> Sequence[str]:
    """All addresses that the machine's resolver has for a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses(url: WebhookUrl, resolve: Resolve = system_addresses) -> list[str]:
    """The addresses that a connection may go to. The name is resolved once: a later answer of DNS cannot replace this one.

    Raises `AddressRefused` where one of them is not public and the host is not listed; `OSError` where there is none.
    """
    resolved = list(resolve(url.host, url.port))
    if not resolved:
        raise OSError("no address")
    if not url.is_listed and not all(map(is_public, resolved)):
        raise AddressRefused
    return resolved
