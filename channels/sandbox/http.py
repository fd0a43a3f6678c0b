"""A minimal, fast HTTP/1.1 server: one `asyncio.Protocol` per connection, and plain functions as handlers.

A web framework takes ten times the processor time of the work done here. This server is cheap for two reasons: clients send the
same head again and again on a connection, so parsed heads are cached by their bytes; and an answer is one `write`.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, TypeAlias, cast

BODY_BYTES_MAX = 30_000_000  # SendGrid's limit; the other providers' limits are far lower
HEAD_BYTES_MAX = 65_536
BUFFER_BYTES = 131_072
READ_BYTES_MIN = 16_384
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class RequestError(Exception):
    """The bytes are not an HTTP request."""


class RequestHead(NamedTuple):
    """The parsed request line and headers; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    length: int
    chunked: bool
    closes: bool


class SandboxRequest(NamedTuple):
    """A request as handlers see it."""

    head: RequestHead
    body: bytes


class SandboxResponse(NamedTuple):
    """An answer. The last three fields make it fail: late by `delay_seconds`, `cut` after so many bytes, or `lost`."""

    status: int
    body: bytes | Iterator[bytes] = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay_seconds: float = 0.0
    cut: int | None = None
    lost: bool = False


Handler: TypeAlias = Callable[[SandboxRequest], SandboxResponse]


@lru_cache(maxsize=4096)
def parse_head(raw: bytes) -> RequestHead:
    """Parse a request line and headers, with the empty line that ends them. Raises RequestError."""
    lines = raw.decode("latin-1")[:-4].split("\r\n")
    try:
        method, target, version = lines[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise RequestError("request line or headers") from None
    if not version.startswith("HTTP/1.") or length < 0:
        raise RequestError("version or length")
    path, _, query = target.partition("?")
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    connection = headers.get("connection", "").lower()
    closes = connection == "close" or (version == "HTTP/1.0" and connection != "keep-alive")
    return RequestHead(method, path, query, headers, length, chunked, closes)


def decode_body(head: RequestHead, raw: bytes) -> bytes:
    """Decompress a gzip body, up to the size limit of a plain body. Raises RequestError."""
    if head.headers.get("content-encoding", "").lower() != "gzip":
        return raw
    try:
        plain = zlib.decompressobj(wbits=31).decompress(raw, BODY_BYTES_MAX + 1)
    except (zlib.error, gzip.BadGzipFile):
        raise RequestError("gzip") from None
    if len(plain) > BODY_BYTES_MAX:
        raise RequestError("gzip size")
    return plain


def encode(response: SandboxResponse, *, head_only: bool = False) -> bytes:
    """Return the bytes of an answer that is not streamed."""
    body = response.body if isinstance(response.body, bytes) else b""
    text = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}\r\nContent-Length: {len(body)}\r\n"
    if body:
        text += f"Content-Type: {response.content_type}\r\n"
    for name, value in response.headers:
        text += f"{name}: {value}\r\n"
    return (text + "\r\n").encode("latin-1") + (b"" if head_only else body)


def is_cross_origin(request: SandboxRequest) -> bool:
    """Tell whether a page of another origin caused this request; such pages may change nothing here."""
    origin = request.head.headers.get("origin")
    return origin is not None and origin.partition("://")[2] != request.head.headers.get("host", "")


def payload_too_large() -> SandboxResponse:
    """Return a 413. SendGrid's front end answers it in HTML and not JSON; so does the sandbox for all providers."""
    page = b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
    return SandboxResponse(413, page, "text/html", (("Connection", "close"),))


class Connection(asyncio.BufferedProtocol):
    """One client connection. Pipelined requests are answered in order; a delayed answer delays those after it.

    Received bytes are in `_buffer` from `_start` to `_end`; only complete heads and bodies are copied out.
    """

    def __init__(self, handle: Handler, open_connections: set[asyncio.Transport]) -> None:
        self._handle = handle
        self._open = open_connections
        self._buffer = bytearray(BUFFER_BYTES)
        self._start = self._end = 0
        self._head: RequestHead | None = None
        self._busy = False  # an answer is delayed or streamed
        self._discard = 0  # bytes of a refused body that are still to be read and dropped
        self._stream: Iterator[bytes] | None = None
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio guarantees it for TCP and TLS servers
        self._open.add(self._transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._open.discard(self._transport)
        self._stream = None

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the free space after the received bytes. If it is short, move them to the front of a larger buffer."""
        if self._start == self._end:
            self._start = self._end = 0
        if len(self._buffer) - self._end < READ_BYTES_MIN:
            waiting = self._buffer[self._start : self._end]
            needed = self._head.length if self._head else 0
            self._buffer = bytearray(max(BUFFER_BYTES, 2 * len(waiting), needed + BUFFER_BYTES))
            self._buffer[: len(waiting)] = waiting
            self._start, self._end = 0, len(waiting)
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._discard:
            self._drop(nbytes)
            return
        self._end += nbytes
        self._advance()

    def _drop(self, received: int) -> None:
        self._discard -= received
        if self._discard <= 0:
            self._transport.close()

    def _cut(self, length: int) -> bytes:
        """Remove this many bytes from the front of the received bytes, and return them."""
        start = self._start
        self._start += length
        return bytes(memoryview(self._buffer)[start : start + length])

    def _advance(self) -> None:
        """Answer every complete request in the buffer."""
        try:
            while not self._busy and not self._transport.is_closing() and (request := self._next_request()) is not None:
                self._answer(request, self._handle(request))
        except RequestError as fault:
            self._transport.write(encode(SandboxResponse(400, str(fault).encode(), "text/plain", (("Connection", "close"),))))
            self._transport.close()

    def _next_request(self) -> SandboxRequest | None:
        head = self._head or self._next_head()
        if head is None:
            return None
        raw = self._next_chunked_body() if head.chunked else self._next_body(head.length)
        if raw is None:
            self._head = head
            return None
        self._head = None
        return SandboxRequest(head, decode_body(head, raw))

    def _next_head(self) -> RequestHead | None:
        end = self._buffer.find(b"\r\n\r\n", self._start, self._end)
        if end < 0:
            if self._end - self._start > HEAD_BYTES_MAX:
                raise RequestError("head too long")
            return None
        head = parse_head(self._cut(end + 4 - self._start))
        if head.length > BODY_BYTES_MAX:
            self._refuse_body(head.length)
            return None
        if head.headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head

    def _refuse_body(self, length: int) -> None:
        """Answer 413, then read the rest: closing at once would reset the connection, and the client might lose the answer."""
        self._transport.write(encode(payload_too_large()))
        self._discard = length
        waiting, self._start = self._end - self._start, self._end
        self._drop(waiting)

    def _next_body(self, length: int) -> bytes | None:
        return self._cut(length) if self._end - self._start >= length else None

    def _next_chunked_body(self) -> bytes | None:
        if self._end - self._start > 2 * BODY_BYTES_MAX:
            raise RequestError("chunked body too long")
        pieces, at = [], self._start
        while (line_end := self._buffer.find(b"\r\n", at, self._end)) >= 0:
            try:
                size = int(self._buffer[at:line_end].split(b";")[0], 16)
            except ValueError:
                raise RequestError("chunk size") from None
            begin, at = line_end + 2, line_end + 2 + size + 2
            if at > self._end:
                return None
            pieces.append(bytes(self._buffer[begin : begin + size]))
            if size == 0:
                self._start = at
                return b"".join(pieces)
        return None

    def _answer(self, request: SandboxRequest, response: SandboxResponse) -> None:
        if response.delay_seconds:
            self._busy = True
            loop = asyncio.get_running_loop()
            loop.call_later(response.delay_seconds, self._answer_late, request, response._replace(delay_seconds=0.0))
        elif response.lost:
            self._transport.close()
        elif response.cut is not None:
            self._transport.write(encode(response)[: response.cut])
            self._transport.close()
        elif isinstance(response.body, bytes):
            self._transport.write(encode(response, head_only=request.head.method == "HEAD"))
            if request.head.closes:
                self._transport.close()
        else:
            self._begin_stream(response, response.body)

    def _answer_late(self, request: SandboxRequest, response: SandboxResponse) -> None:
        self._busy = False
        if not self._transport.is_closing():
            self._answer(request, response)
            self._advance()

    def _begin_stream(self, response: SandboxResponse, pieces: Iterator[bytes]) -> None:
        """Answer in chunks, produced only as fast as the client reads them."""
        self._busy = True
        self._stream = pieces
        head = f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\nContent-Type: {response.content_type}\r\n"
        self._transport.write((head + "Transfer-Encoding: chunked\r\n\r\n").encode("latin-1"))
        self._pump()

    def _pump(self) -> None:
        if self._stream is None or self._paused:
            return
        piece = next(self._stream, b"")
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if piece:
            asyncio.get_running_loop().call_soon(self._pump)  # let other connections run
        else:
            self._stream, self._busy = None, False
            self._advance()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()
