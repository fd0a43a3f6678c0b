"""Streams of JSON lines in both directions: results go out while the body comes in, so neither side holds more than a batch."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "application/x-ndjson"
LINE_BYTES_MAX = 256 * 1024
BATCH_LINES = 1_000

Line = TypeVar("Line")


class DuplexResponse(StreamingResponse):
    """A response that begins before the request has ended. Starlette's own reads the rest of the body while it waits for the end of
    the connection, so lines would be lost.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  the interface of ASGI
        """ASGI interface."""
        await self.stream_response(send)


async def lines_of(request: Request, first_line: int = 1) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a body with their numbers, without the blank ones. Of a longer one LINE_BYTES_MAX and one byte.

    A byte order mark before the first line is left out: some Windows programs write one.
    """
    number, rest, begin, is_begun = first_line - 1, b"", b"", False
    async for part in request.stream():
        if not is_begun:
            rest, part = b"", rest + part  # noqa: PLW2901  the mark can come in pieces
            if len(part) < len(BOM_UTF8) and BOM_UTF8.startswith(part):
                rest = part
                continue
            is_begun, part = True, part.removeprefix(BOM_UTF8)  # noqa: PLW2901
        *complete, rest = (rest + part).split(b"\n")
        for line in complete:
            number += 1
            if line.strip() or begin:
                yield number, (begin or line)[: LINE_BYTES_MAX + 1]
            begin = b""
        if len(rest) > LINE_BYTES_MAX:
            rest, begin = b"", begin or rest
    if rest.strip() or begin:
        yield number + 1, (begin or rest)[: LINE_BYTES_MAX + 1]


def answer(
    request: Request,
    read: Callable[[int, bytes], Line],
    apply: Callable[[Sequence[Line]], Iterable[dict[str, Any]]],
    first_line: int = 1,
    headers: Mapping[str, str] | None = None,
) -> DuplexResponse:
    """Answer each line of the body by a line. `read` makes a line of bytes, `apply` the results of a batch, in a thread.

    Raises `HTTPException` for a body of another type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"should be {MEDIA_TYPE}")

    def answers(batch: Sequence[Line]) -> bytes:
        return b"".join(to_json(document) + b"\n" for document in apply(batch))

    async def results() -> AsyncIterator[bytes]:
        batch: list[Line] = []
        async for number, text in lines_of(request, first_line):
            batch.append(read(number, text))
            if len(batch) == BATCH_LINES:
                yield await run_in_threadpool(answers, batch)
                batch = []
        if batch:
            yield await run_in_threadpool(answers, batch)

    return DuplexResponse(results(), headers=headers, media_type=MEDIA_TYPE)
