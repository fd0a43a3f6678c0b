"""One POST to a event endpoint: to the addresses that were checked, without redirects, without a proxy, within 15 seconds.

`channels/http.py` is for providers: many requests at once to hosts that we chose. Here the hosts are the operators' choice, each
call has its own addresses, and an endpoint must not share anything with another.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import certifi
import pycurl

from channels.http import ERROR_CODES, HttpResponse, header_lines, is_complete
from channels.http_adapter import retry_after_seconds, utc_now
from dispatcher.events.webhook_address import (
    AddressRefused,
    BadWebhookUrl,
    Resolve,
    WebhookUrl,
    addresses,
    is_host_name,
    parse_url,
    system_addresses,
)

TIMEOUT_SECONDS = 15.0
CONNECT_TIMEOUT_SECONDS = 5.0
ANSWER_BYTES_MAX = 64 * 1024  # more of an answer is not read; only the status counts
GONE = 410

PRIVATE_ADDRESS, BAD_URL, UNRESOLVED, TOO_LATE = "private_address", "bad_url", "unresolved_host", "lease_over"


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What came of a call: the status, or why there is none, and how long it took. `error` is None for a status of 2xx."""

    status: int | None
    error: str | None
    seconds: float
    retry_after_seconds: float | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no more calls: 410."""
        return self.status == GONE


class WebhookConnection:
    """For the calls to one endpoint, by one thread: keeps the connection from one call to the next.

    `hosts` may be private or http. A listed host is resolved and pinned like every other one.
    """

    def __init__(self, hosts: Collection[str], resolve: Resolve = system_addresses) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._curl = pycurl.Curl()

    def close(self) -> None:
        """Close the connection."""
        self._curl.close()

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, may_start: Callable[[], bool] = lambda: True
    ) -> WebhookAnswer:
        """POST once. `may_start` is asked after the name was resolved, which can take long, and before anything is sent."""
        start = time.monotonic()
        try:
            checked = parse_url(url, self._hosts)
            resolved = addresses(checked, self._resolve)
        except (BadWebhookUrl, AddressRefused, OSError, UnicodeError) as error:
            return WebhookAnswer(None, _code(error), time.monotonic() - start)
        if not may_start():
            return WebhookAnswer(None, TOO_LATE, time.monotonic() - start)
        status, head, error_code = self._perform(checked, resolved, headers, body)
        seconds = time.monotonic() - start
        if error_code is not None:
            return WebhookAnswer(None, error_code, seconds)
        if 200 <= status < 300:
            return WebhookAnswer(status, None, seconds)
        wait = retry_after_seconds(HttpResponse(status, tuple(head)), utc_now()) if status in (429, 503) else None
        return WebhookAnswer(status, f"http_{status}", seconds, wait)

    def _perform(
        self, url: WebhookUrl, resolved: list[str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[bytes], str | None]:
        head: list[bytes] = []
        received = 0

        def count(data: bytes) -> int:
            nonlocal received
            received += len(data)
            return len(data) if received <= ANSWER_BYTES_MAX else 0

        curl = self._curl
        for option, value in (
            pinned_options(url, resolved) | {pycurl.POST: 1, pycurl.TIMEOUT_MS: int(TIMEOUT_SECONDS * 1000)}
        ).items():
            curl.setopt(option, value)
        curl.setopt(pycurl.HTTPHEADER, list(header_lines(headers)))
        curl.setopt(pycurl.COPYPOSTFIELDS, body)
        curl.setopt(pycurl.HEADERFUNCTION, head.append)
        curl.setopt(pycurl.WRITEFUNCTION, count)
        try:
            curl.perform()
        except pycurl.error as error:
            code = error.args[0]
            if code != pycurl.E_WRITE_ERROR or received <= ANSWER_BYTES_MAX:
                return 0, head, ERROR_CODES.get(code, f"curl_{code}")
        if not is_complete(head):  # libcurl accepts a head that was cut after any line
            return 0, head, ERROR_CODES[pycurl.E_PARTIAL_FILE]
        return int(curl.getinfo(pycurl.RESPONSE_CODE)), head, None


def pinned_options(url: WebhookUrl, resolved: Sequence[str]) -> dict[int, Any]:
    """The options of libcurl for a call to a host of somebody's choice: to its addresses that were checked, and to no others."""
    allowed = frozenset(ip_address(each.partition("%")[0]) for each in resolved)
    pinned = ",".join(f"[{each}]" if ":" in each else each for each in resolved)

    def open_socket(_purpose: int, target: Any) -> socket.socket | int:
        """A socket to an address that was checked, whatever made libcurl try another one."""
        family, kind, protocol, address = target
        if ip_address(address[0]) not in allowed:
            return int(pycurl.SOCKET_BAD)
        return socket.socket(family, kind, protocol)

    return {
        pycurl.NOSIGNAL: 1,  # threads
        pycurl.URL: url.text,
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROXY: "",  # not from the environment: a proxy would resolve the name again
        **({pycurl.RESOLVE: [f"-{url.host}:{url.port}", f"{url.host}:{url.port}:{pinned}"]} if is_host_name(url.host) else {}),
        pycurl.OPENSOCKETFUNCTION: open_socket,
        pycurl.CONNECTTIMEOUT_MS: int(CONNECT_TIMEOUT_SECONDS * 1000),
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
        pycurl.CAINFO: os.environ.get("SSL_CERT_FILE") or certifi.where(),
    }


def _code(error: Exception) -> str:
    if isinstance(error, AddressRefused):
        return PRIVATE_ADDRESS
    return BAD_URL if isinstance(error, BadWebhookUrl) else UNRESOLVED
