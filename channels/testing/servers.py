"""Small scripted servers on real sockets: HTTP and SMTP, for answers that a double never gives."""

from __future__ import annotations

import itertools
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
    """A request that was read completely."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Raw bytes, and whether the connection closes after them. `Answer(b"", True)` is a lost answer."""

    raw: bytes
    close: bool = False
    seconds: float = 0.0  # delay


LOST = Answer(b"", close=True)


def http_answer(status: int, body: bytes = b"", *headers: str) -> Answer:
    """Return a complete HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", ""]
    return Answer("\r\n".join(lines).encode() + body)


@dataclass(slots=True)
class ServerLog:
    """What a scripted server has received."""

    port: int = 0
    arrived: list[Any] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, thing: Any) -> int:
        """Record an item. Returns its number, from 1."""
        with self.lock:
            self.arrived.append(thing)
            return len(self.arrived)


HttpScript = Callable[[ReceivedRequest, int], Answer]


@contextmanager
def http_server(
    script: HttpScript, tls: ssl.SSLContext | None = None, before_handshake: Callable[[int], object] = bool
) -> Iterator[ServerLog]:
    """Serve HTTP; the script gets each complete request and its number, and returns the answer. `before_handshake` is called with
    the number of each connection, from 1."""
    server = ServerLog()
    accepted = itertools.count(1)

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if tls:
                before_handshake(next(accepted))
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

    with serving(server, Handler):
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
    """Serve SMTP; the script gets each command line, and the mail after DATA, and returns the reply."""
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
            lines: list[bytes] = []
            while (line := self.rfile.readline()) != b".\r\n":
                if not line:  # the client left in the middle: readline would return this for ever
                    return False
                lines.append(line)
            mail = b"".join(lines)
            server.note(mail)
            return self.reply(script(".", mail))

        def reply(self, text: str | None) -> bool:
            if text is not None:
                self.wfile.write(text.encode() + b"\r\n")
            return text is not None

    with serving(server, Handler):
        yield server


@contextmanager
def serving(server: ServerLog, handler: type[socketserver.BaseRequestHandler]) -> Iterator[None]:
    """Run a handler on a free port, which `server` gets, as long as the block lasts."""

    class _QuietServer(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore clients that close the connection; tests do so."""

    with _QuietServer(("127.0.0.1", 0), handler) as listener:
        server.port = listener.server_address[1]
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield
        finally:
            listener.shutdown()
