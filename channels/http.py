"""HTTP transport: pooled, concurrent requests over libcurl's multi interface. All HTTP requests to providers use it.

Each request ends in an `HttpResponse`, whatever its status, or in an error. The error depends on what libcurl did with the
body: it reads the body from us only when the connection is open and it is about to write. No byte read -> `Unavailable`,
certainly not sent; some bytes read -> `Uncertain`.

By itself, libcurl sends a request again (POST too) if a reused connection closes before the first byte of the response: it
assumes that the connection was idle and had died. But the provider may have read the request, so this could send a message
twice. We therefore give libcurl the body through a reader that cannot seek back: libcurl then fails with
CURLE_SEND_FAIL_REWIND, which is `Uncertain`. A connection that died while idle is detected before it is used again.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import takewhile
from typing import Any, TypeAlias, TypeVar

import certifi
import pycurl
from pydantic_core import from_json

from channels.base import StaleClaim, Unavailable, Uncertain
from channels.connection_gate import ConnectionGate
from channels.overlap import WAIT_SECONDS_MAX, wait_for

T = TypeVar("T")

UPLOAD_PART_BYTES = 32_768  # per request in flight, of which there are hundreds; libcurl's 64 KB are more than any single mail
RESPONSE_BYTES_MAX = 1_000_000
IDLE_SECONDS_MAX = (
    20  # less than the keep-alive of common front ends, so that we rarely write to a connection that is about to close
)
LOOPBACK = "localhost,127.0.0.1,::1"

ERROR_CODES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "unresolved_host",
    pycurl.E_COULDNT_CONNECT: "refused",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "certificate",
    pycurl.E_GOT_NOTHING: "no_answer",
    pycurl.E_SEND_FAIL_REWIND: "no_answer",
    pycurl.E_SEND_ERROR: "send_broken",
    pycurl.E_RECV_ERROR: "answer_broken",
    pycurl.E_PARTIAL_FILE: "answer_cut",
    pycurl.E_FILESIZE_EXCEEDED: "answer_too_long",
}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A POST of `body`, or a GET if that is empty. `headers` are complete lines, made once by `header_lines`."""

    url: str
    headers: tuple[str, ...]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete response. `head` holds the raw header lines, including those of informational responses (1xx)."""

    status: int
    head: tuple[bytes, ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return a header of the final response; the case of the name does not matter."""
        wanted = name.lower().encode() + b":"
        for line in reversed(self.head):
            if line.startswith(_STATUS_LINE):
                return None
            if line[: len(wanted)].lower() == wanted:
                return line[len(wanted) :].strip().decode("latin-1")
        return None

    def fields(self) -> dict[str, Any]:
        """Return the body's JSON object; empty if it is anything else."""
        try:
            parsed = from_json(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


TransportError: TypeAlias = Unavailable | Uncertain

_MULTIPLEXES = {  # by the version of the response
    pycurl.CURL_HTTP_VERSION_1_0: False,
    pycurl.CURL_HTTP_VERSION_1_1: False,
    pycurl.CURL_HTTP_VERSION_2_0: True,
}
_BLANK = (b"\r\n", b"\n")
_STATUS_LINE = b"HTTP/"  # lines above it belong to an informational response


def _final_head(head: tuple[bytes, ...] | list[bytes]) -> Iterator[bytes]:
    """Yield the lines below the last status line, last first. Informational responses (1xx) have their own heads before it."""
    return takewhile(lambda line: not line.startswith(_STATUS_LINE), reversed(head))


def is_complete(head: list[bytes]) -> bool:
    """Tell whether the final head ends with its blank line; trailers may follow."""
    return bool(head) and (head[-1] in _BLANK or any(line in _BLANK for line in _final_head(head)))


def header_lines(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return lines for `HttpRequest.headers`. Raises ValueError if a value, such as a key from a file, would break its line."""
    for name, value in fields.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value for {name} contains characters that are not allowed in a header")
    return (*(f"{name}: {value}" for name, value in fields.items()), "Expect:")  # no 100-continue round trip


# -- the transport -----------------------------------------------------------------------------------------------------


def _always(_tag: object) -> bool:
    return True


class _Slot:
    """One reusable libcurl handle, and what its current request has received."""

    def __init__(self, options: Mapping[int, Any]) -> None:
        self.handle = pycurl.Curl()
        self.head: list[bytes] = []
        self.body: list[bytes] = []
        self.upload = BytesIO()
        self.url = ""
        self.headers: tuple[str, ...] | None = None
        self.finished: deque[_Slot] = deque()
        self.tag: Any = None
        self.result: HttpResponse | TransportError = Unavailable("unsent")
        self.may_send: Callable[[Any], bool] = _always
        self.refused = False
        self.origin = ""
        self.gate: ConnectionGate | None = None
        self.shares = False
        for option, value in options.items():
            self.handle.setopt(option, value)
        self.handle.setopt(pycurl.PREREQFUNCTION, self._on_open)

    def load(self, tag: Any, request: HttpRequest, finished: deque[_Slot], may_send: Callable[[Any], bool]) -> None:
        self.tag, self.finished, self.may_send, self.refused = tag, finished, may_send, False
        self.head, self.body, self.upload = [], [], BytesIO(request.body)
        set_option = self.handle.setopt
        if self.url != request.url:
            set_option(pycurl.URL, request.url)
            self.url, self.origin = request.url, "/".join(request.url.split("/", 3)[:3])
        if self.headers is not request.headers:
            set_option(pycurl.HTTPHEADER, list(request.headers))
            self.headers = request.headers
        set_option(pycurl.HEADERFUNCTION, self.head.append)
        set_option(pycurl.WRITEFUNCTION, self.body.append)
        if request.body:
            set_option(pycurl.POST, 1)
            set_option(pycurl.POSTFIELDSIZE_LARGE, len(request.body))
            set_option(pycurl.READFUNCTION, self._read)  # no SEEKFUNCTION: see the module docstring
        else:
            set_option(pycurl.HTTPGET, 1)

    def share(self, shares: bool) -> None:
        """Whether to wait for a connection that is being opened, instead of opening one."""
        if shares != self.shares:
            self.handle.setopt(pycurl.PIPEWAIT, int(shares))
            self.shares = shares

    def _on_open(self, *_addresses: object) -> int:
        """libcurl calls this when it has a connection, before it sends the request."""
        if self.gate is not None:
            self.gate.is_open = True
        return int(pycurl.PREREQFUNC_OK)

    def _read(self, size: int) -> bytes | int:
        """A part of the body. libcurl calls this when it is ready to write. Last check of the deadline before data is sent."""
        if not self.may_send(self.tag):
            self.refused = True
            return int(pycurl.READFUNC_ABORT)
        part: bytes = self.upload.read(size)
        return part

    def finish(self, curl_code: int) -> None:
        if curl_code == pycurl.E_OK and not is_complete(self.head):
            curl_code = pycurl.E_PARTIAL_FILE  # libcurl accepts a head that was cut after any line as complete
        if curl_code == pycurl.E_OK:
            self.result = HttpResponse(self.handle.getinfo(pycurl.RESPONSE_CODE), tuple(self.head), b"".join(self.body))
        else:
            self.result = self._error(ERROR_CODES.get(curl_code, f"curl_{curl_code}"))
        self.finished.append(self)

    def _error(self, code: str) -> TransportError:
        if self.upload.tell():
            return Uncertain(code)
        if self.refused:
            return StaleClaim()
        return Unavailable(code)


class _Engine:
    """libcurl's multi handle, driven by a selector: any number of sockets, and work only for those with activity."""

    def __init__(self, open_seconds_max: float) -> None:
        self.multi = pycurl.CurlMulti()
        self._open_seconds_max = open_seconds_max
        self._gates: dict[str, ConnectionGate] = {}  # by scheme, host and port: as many as there are providers
        self._in_flight: dict[pycurl.Curl, _Slot] = {}
        self._selector = selectors.DefaultSelector()
        self._watched: set[int] = set()
        self._due: float | None = None
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def start(self, slot: _Slot) -> None:
        slot.gate = self._gates.get(slot.origin) or self._gates.setdefault(slot.origin, ConnectionGate(self._open_seconds_max))
        slot.gate.wait(slot, time.monotonic())
        self._admit(slot.gate)

    def _admit(self, gate: ConnectionGate) -> None:
        while gate.waiting and gate.admits(time.monotonic()):
            slot: _Slot = gate.waiting.popleft()
            slot.share(gate.may_share)
            gate.in_flight += 1
            self._in_flight[slot.handle] = slot
            self.multi.add_handle(slot.handle)

    def drop(self, slot: _Slot, http_version: int = 0) -> None:
        """Forget a request. If it is in flight, it is aborted. `http_version` is libcurl's number of its response's, if any."""
        if slot.gate is None:
            return
        if self._in_flight.pop(slot.handle, None):
            self.multi.remove_handle(slot.handle)
            slot.gate.end(_MULTIPLEXES.get(http_version))
        else:
            slot.gate.waiting.remove(slot)
        slot.gate = None

    def poll(self, seconds_max: float) -> bool:
        """Wait at most so long for socket activity, let libcurl handle it, and put each finished slot in its exchange's queue.

        Returns whether there was any.
        """
        active = self._selector.select(min(self._wait_seconds(), seconds_max))
        for key, events in active:
            readable = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
            writable = pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
            self.multi.socket_action(key.fd, readable | writable)
        is_due = self._due is not None and time.monotonic() >= self._due
        if is_due or not self._watched:
            self._due = None
            self.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()
        for gate in self._gates.values():
            if gate.waiting:
                self._admit(gate)
        return bool(active) or is_due

    def close(self) -> None:
        for slot in list(self._in_flight.values()):
            self.drop(slot)
        self.multi.close()
        self._selector.close()

    def _collect(self) -> None:
        remaining = 1
        while remaining:
            remaining, succeeded, failed = self.multi.info_read()
            for handle, code in [(h, pycurl.E_OK) for h in succeeded] + [(h, code) for h, code, _ in failed]:
                slot = self._in_flight[handle]
                self.drop(slot, handle.getinfo(pycurl.INFO_HTTP_VERSION))
                slot.finish(code)

    def _wait_seconds(self) -> float:
        until = self._due
        for gate in self._gates.values():
            if gate.waiting and (until is None or gate.waits_until < until):
                until = gate.waits_until
        return WAIT_SECONDS_MAX if until is None else max(0.0, until - time.monotonic())

    def _set_timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _watch(self, wanted: int, descriptor: int, _multi: Any, _data: Any) -> None:
        events = (selectors.EVENT_READ if wanted & pycurl.POLL_IN else 0) | (
            selectors.EVENT_WRITE if wanted & pycurl.POLL_OUT else 0
        )
        if wanted == pycurl.POLL_REMOVE:
            if descriptor in self._watched:
                self._watched.remove(descriptor)
                self._selector.unregister(descriptor)
        elif descriptor in self._watched:
            self._selector.modify(descriptor, events)
        else:
            self._watched.add(descriptor)
            self._selector.register(descriptor, events)


class HttpTransport:
    """A connection pool for one process, used by one thread at a time. Cheap to create: it connects on first use.

    Each exchange has at most `concurrency` requests in flight. `timeout_seconds` limits a request from its start to the last
    byte. `ca_file`, or else SSL_CERT_FILE, replaces the bundle of public certificate authorities. A forked child opens its own
    connections and does not touch its parent's. To a server without an open connection goes one request at first; the others wait
    until it has a connection, at most `open_seconds_max`: with HTTP/2 that one may carry them all.
    """

    def __init__(
        self,
        *,
        concurrency: int = 32,
        connect_timeout_seconds: float = 5.0,
        timeout_seconds: float = 30.0,
        open_seconds_max: float = 1.0,
        ca_file: str | None = None,
    ) -> None:
        self._concurrency, self._open_seconds_max = concurrency, open_seconds_max
        self._options: dict[int, Any] = {
            pycurl.NOSIGNAL: 1,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.CONNECTTIMEOUT_MS: int(connect_timeout_seconds * 1000),
            pycurl.TIMEOUT_MS: int(timeout_seconds * 1000),
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
            pycurl.UPLOAD_BUFFERSIZE: UPLOAD_PART_BYTES,
            pycurl.MAXFILESIZE: RESPONSE_BYTES_MAX,
            pycurl.MAXAGE_CONN: IDLE_SECONDS_MAX,
            pycurl.CAINFO: ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where(),
            pycurl.NOPROXY: ",".join(filter(None, (*map(os.environ.get, ("no_proxy", "NO_PROXY")), LOOPBACK))),
        }
        self._engines: dict[int, _Engine] = {}  # by process id: an inherited engine must be neither used nor closed
        self._idle: list[_Slot] = []  # usable after a fork: the engine owns the connections, an idle handle has none

    def exchange(
        self, calls: Iterable[tuple[T, HttpRequest]], may_send: Callable[[T], bool] = _always
    ) -> Generator[tuple[T, HttpResponse | TransportError]]:
        """Send all requests concurrently, and yield each tag with its response or error, in the order in which they end.

        `may_send` is called with the tag before each part of a body is sent. If it returns False, the request is aborted:
        `StaleClaim` if nothing of the body was sent.

        Takes from `calls` when a slot is free. Exchanges may overlap: see `channels.overlap`. The caller must not pause long:
        nothing is sent or received meanwhile, but the time of `timeout_seconds` runs. If the caller stops iterating, requests in
        flight are aborted.
        """
        engine = self._engine()
        waiting, finished, in_flight = iter(calls), deque[_Slot](), set[_Slot]()
        try:
            while True:
                while len(in_flight) < self._concurrency and (call := next(waiting, None)):
                    slot = self._idle.pop() if self._idle else _Slot(self._options)
                    slot.load(*call, finished, may_send)
                    engine.start(slot)
                    in_flight.add(slot)
                if not in_flight:
                    return
                while not finished:
                    wait_for(engine)
                slot = finished.popleft()
                in_flight.remove(slot)
                tag, result = slot.tag, slot.result
                self._idle.append(slot)
                yield tag, result
        finally:
            for slot in in_flight:
                engine.drop(slot)

    def request(self, request: HttpRequest) -> HttpResponse | TransportError:
        """Send one request and return its response or error."""
        return next(result for _, result in self.exchange([(None, request)]))

    def close(self) -> None:
        """Close the connections of this process."""
        if engine := self._engines.pop(os.getpid(), None):
            engine.close()
        self._idle.clear()

    def _engine(self) -> _Engine:
        return self._engines.get(os.getpid()) or self._engines.setdefault(os.getpid(), _Engine(self._open_seconds_max))
