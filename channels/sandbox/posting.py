"""A small HTTP client for webhooks: one persistent connection, one request at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

ANSWER_SECONDS_MAX = 15.0  # as long as Twilio waits for a webhook


class Poster:
    """Posts to webhooks. The connection is reused while the URLs have the same origin."""

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._origin: tuple[str, str, int] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """POST and return the status, or 0 if there was no valid answer. Does not raise for errors of the other side."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._connect(parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
                self._writer.write(head.encode("latin-1") + b"\r\n" + body)
                return await self._read_answer()
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            self.close()
            return 0

    def close(self) -> None:
        if self._origin is not None:
            self._origin = None
            self._writer.close()

    async def _connect(self, scheme: str, host: str, port: int) -> None:
        if self._origin == (scheme, host, port) and not self._reader.at_eof():
            return
        self.close()
        trust = (self._trust or ssl.create_default_context()) if scheme == "https" else None
        self._reader, self._writer = await asyncio.open_connection(host, port, ssl=trust)
        self._origin = (scheme, host, port)

    async def _read_answer(self) -> int:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        fields = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        if "chunked" in fields.get("transfer-encoding", ""):
            await self._skip_chunks()
        elif status != 204:
            await self._reader.readexactly(int(fields.get("content-length", "0")))
        if "close" in fields.get("connection", "") or head.startswith("http/1.0"):
            self.close()
        return status

    async def _skip_chunks(self) -> None:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await self._reader.readexactly(size + 2)
        await self._reader.readuntil(b"\r\n")
