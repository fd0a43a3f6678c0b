"""Scripted servers for answers that the sandbox never gives: those of `channels.testing`, raw bytes, and HTTP/2."""

from __future__ import annotations

import socketserver
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from channels.testing.servers import LOST, Answer, ReceivedRequest, ServerLog, http_answer, http_server, serving, smtp_server

__all__ = [
    "LOST",
    "Answer",
    "ReceivedRequest",
    "ServerLog",
    "http2_server",
    "http_answer",
    "http_server",
    "raw_server",
    "smtp_server",
]

# The next bytes, and the delay before them in seconds; None closes the connection.
Line = tuple[bytes, float] | None


@contextmanager
def raw_server(lines: Callable[[], Line], listens: bool = True) -> Iterator[ServerLog]:
    """Send the first bytes, and more after anything received (or without reading), whatever the protocol."""
    server = ServerLog()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while line := lines():
                data, seconds = line
                time.sleep(seconds)
                self.request.sendall(data)
                if listens and not self.request.recv(65_536):
                    return

    with serving(server, Handler):
        yield server


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _ACK, _END = 0, 1, 4, 6, 1, 1
_STATUS_200 = b"\x88"  # HPACK's name for ":status: 200"


@contextmanager
def http2_server(tls: ssl.SSLContext) -> Iterator[ServerLog]:
    """Serve the part of HTTP/2 (RFC 9113) that is needed to answer 200 to everything."""
    server = ServerLog()

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def handle(self) -> None:
            assert self.rfile.read(len(_PREFACE)) == _PREFACE
            server.connections += 1
            self.say(_SETTINGS)
            while head := self.rfile.read(9):
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                payload = self.rfile.read(int.from_bytes(head[:3]))
                if kind in {_SETTINGS, _PING} and not flags & _ACK:
                    self.say(kind, _ACK, payload=payload if kind == _PING else b"")
                if kind in {_DATA, _HEADERS} and flags & _END:
                    server.note(stream)
                    self.say(_HEADERS, _END | 4, stream, _STATUS_200)  # 4: no more headers follow

        def say(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> None:
            self.wfile.write(len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload)

    with serving(server, Handler):
        yield server
