"""Small scripted servers on real sockets, for answers that a faithful provider would never give."""

from __future__ import annotations

import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that was read to its last byte."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Raw bytes, and whether the connection closes after them. `Answer(b"", True)` is an answer that got lost."""

    raw: bytes
    close: bool = False
    seconds: float = 0.0  # late by so much


LOST = Answer(b"", close=True)


def http_answer(status: int, body: bytes = b"", *headers: str) -> Answer:
    """A whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", ""]
    return Answer("\r\n".join(lines).encode() + body)


@dataclass(slots=True)
class ServerLog:
    """What a running scripted server has seen."""

    port: int = 0
    arrived: list[Any] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, thing: Any) -> int:
        """Record an arrival; its number, from 1."""
        with self.lock:
            self.arrived.append(thing)
            return len(self.arrived)


HttpScript = Callable[[ReceivedRequest, int], Answer]


@contextmanager
def http_server(script: HttpScript, tls: ssl.SSLContext | None = None) -> Iterator[ServerLog]:
    """A server that answers each whole request as the script says; the script hears the request and its number."""
    server = ServerLog()

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if tls:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def handle(self) -> None:
            with server.lock:
                server.connections += 1
            while arrived := _read_request(self.rfile):
                answer = script(arrived, server.note(arrived))
                time.sleep(answer.seconds)
                self.wfile.write(answer.raw)
                if answer.close:
                    return

    with _serving(server, Handler):
        yield server


def _read_request(stream: Any) -> ReceivedRequest | None:
    method, path = [*stream.readline().decode().split(), "", ""][:2]
    headers: dict[str, str] = {}
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return ReceivedRequest(method, path, headers, body) if method else None


# A relay's reply to a command, or to a mail where the command is "."; None closes the connection instead.
SmtpScript = Callable[[str, bytes], str | None]


@contextmanager
def smtp_server(script: SmtpScript) -> Iterator[ServerLog]:
    """A relay that replies to each command as the script says; the script hears the line, and the mail after DATA."""
    server = ServerLog()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with server.lock:
                server.connections += 1
            self.reply("220 relay")
            while line := self.rfile.readline().decode().strip():
                answer = "250-relay\r\n250 AUTH PLAIN" if line.startswith("ehlo") else script(line, b"")
                if not self.reply(answer) or (answer and answer.startswith("354") and not self.take_mail()):
                    break

        def take_mail(self) -> bool:
            mail = b"".join(iter(self.rfile.readline, b".\r\n"))
            server.note(mail)
            return self.reply(script(".", mail))

        def reply(self, text: str | None) -> bool:
            if text is not None:
                self.wfile.write(text.encode() + b"\r\n")
            return text is not None

    with _serving(server, Handler):
        yield server


# What is said next, and after how many seconds; None closes the connection.
Line = tuple[bytes, float] | None


@contextmanager
def raw_server(lines: Callable[[], Line], listens: bool = True) -> Iterator[ServerLog]:
    """Speaks first, and again after whatever it hears (or without listening), and understands nothing."""
    server = ServerLog()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while line := lines():
                said, seconds = line
                time.sleep(seconds)
                self.request.sendall(said)
                if listens and not self.request.recv(65_536):
                    return

    with _serving(server, Handler):
        yield server


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _ACK, _END = 0, 1, 4, 6, 1, 1
_STATUS_200 = b"\x88"  # HPACK's name for ":status: 200"


@contextmanager
def http2_server(tls: ssl.SSLContext) -> Iterator[ServerLog]:
    """As much of HTTP/2 (RFC 9113) as it takes to say 200 to everything."""
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

    with _serving(server, Handler):
        yield server


@contextmanager
def _serving(server: ServerLog, handler: type[socketserver.BaseRequestHandler]) -> Iterator[None]:
    class Quiet(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up is part of the play."""

    with Quiet(("127.0.0.1", 0), handler) as listener:
        server.port = listener.server_address[1]
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown()
