"""A fast server in place of all providers' send endpoints: one process, TLS, HTTP/1.1 with persistent connections.

It reads only the path and the length of a request. It must cost so little that the senders are measured, not the sink.

    python -m benchmarks.sink PORT CERTIFICATE KEY [ANSWER_MILLISECONDS]

With the last argument each answer waits for so long, as that of a distant provider does.
`GET /count` returns what was received, and the processor time for it: {"requests", "bytes", "cpu_seconds"}.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

READ_BYTES = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_QUIET = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


@dataclass(slots=True)
class SinkCounts:
    """What was received so far."""

    requests: int = 0
    bytes: int = 0


@dataclass(slots=True)
class SinkConnection:
    """One connection, with what is read of the current request."""

    socket: ssl.SSLSocket
    handshake_done: bool = False
    parts: list[bytes] = field(default_factory=list)
    missing_bytes: int = 0  # of the body, once the head is read


def answer(head: bytes, counts: SinkCounts) -> bytes:
    """The answer of the provider that the path belongs to."""
    path = head.split(b" ", 2)[1]
    if path == b"/count":
        totals = {"requests": counts.requests, "bytes": counts.bytes, "cpu_seconds": time.process_time()}
        return _response(b"200 OK", json.dumps(totals).encode())
    if path == b"/token":
        return _response(b"200 OK", b'{"access_token": "sink", "expires_in": 3600, "token_type": "Bearer"}')
    counts.requests += 1
    if path == b"/v3/mail/send":
        return b"HTTP/1.1 202 Accepted\r\nX-Message-Id: mail%d\r\nContent-Length: 0\r\n\r\n" % counts.requests
    if path.startswith(b"/v1/projects/"):
        return _response(b"200 OK", b'{"name": "projects/sink/messages/%d"}' % counts.requests)
    return _response(b"201 Created", b'{"sid": "SM%032x", "status": "queued"}' % counts.requests)


def _response(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def read_requests(connection: SinkConnection, counts: SinkCounts, send: Callable[[SinkConnection, bytes], None]) -> bool:
    """Read available data and answer each complete request. False if the client closed the connection."""
    while True:
        try:
            data = connection.socket.recv(READ_BYTES)
        except _QUIET:
            return True
        except OSError:
            return False
        if not data:
            return False
        counts.bytes += len(data)
        _process(connection, data, counts, send)


def _process(connection: SinkConnection, data: bytes, counts: SinkCounts, send: Callable[[SinkConnection, bytes], None]) -> None:
    if connection.missing_bytes:
        connection.missing_bytes -= len(data)  # the clients do not pipeline requests
        if connection.missing_bytes > 0:
            return
    else:
        connection.parts.append(data)
        whole = b"".join(connection.parts)
        end = whole.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(whole, 0, end)
        connection.parts = [whole[:end]]
        connection.missing_bytes = (int(length[1]) if length else 0) - (len(whole) - end - 4)
        if connection.missing_bytes > 0:
            return
    head, connection.parts, connection.missing_bytes = connection.parts[0], [], 0
    send(connection, answer(head, counts))


def send_now(connection: SinkConnection, response: bytes) -> None:
    """Send an answer: a few hundred bytes always fit into the socket's buffer."""
    connection.socket.sendall(response)


class DelayedAnswers:
    """Answers that wait for a fixed time, in the order in which they are due."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, SinkConnection, bytes]] = deque()

    def add(self, connection: SinkConnection, response: bytes) -> None:
        """Send this answer later."""
        self._waiting.append((time.monotonic() + self._seconds, connection, response))

    def send_due(self) -> float | None:
        """Send what is due. Returns the seconds until the next answer is, or None where none waits."""
        while self._waiting:
            wait = self._waiting[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, connection, response = self._waiting.popleft()
            with suppress(OSError):  # the client has closed the connection
                send_now(connection, response)
        return None


def serve(port: int, certificate: str, key: str, answer_seconds: float = 0.0) -> None:
    """Serve until killed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    counts, selector = SinkCounts(), selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", port), backlog=1_024)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, None)
    delayed = DelayedAnswers(answer_seconds)
    send = delayed.add if answer_seconds else send_now
    while True:
        for ready, _ in selector.select(delayed.send_due()):
            if ready.data is None:
                _accept(listener, context, selector)
            elif not _serve_connection(ready.data, counts, send):
                selector.unregister(ready.data.socket)
                ready.data.socket.close()


def _accept(listener: socket.socket, context: ssl.SSLContext, selector: selectors.BaseSelector) -> None:
    connection, _ = listener.accept()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    selector.register(wrapped, selectors.EVENT_READ, SinkConnection(wrapped))


def _serve_connection(connection: SinkConnection, counts: SinkCounts, send: Callable[[SinkConnection, bytes], None]) -> bool:
    if not connection.handshake_done:
        try:
            connection.socket.do_handshake()
        except _QUIET:
            return True
        except OSError:
            return False
        connection.handshake_done = True
    return read_requests(connection, counts, send)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], sum(map(int, sys.argv[4:])) / 1_000)
