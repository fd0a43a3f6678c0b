"""The client of the API: asynchronous in `async_client.py`, synchronous in `sync_client.py`, which is generated from it."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from urllib.parse import quote
from uuid import uuid4

import httpx

from dispatcher.client.api_errors import ApiRefusal, ApiUnavailable
from dispatcher.client.async_operations import AsyncOperations
from dispatcher.client.calls import Call, encode_line
from dispatcher.client.documents import (
    Campaign,
    CampaignAccepted,
    DryRunBody,
    ExportSuppressionsOptions,
    ImportSuppressionsOptions,
    ListMessagesOptions,
    Message,
    MessageAccepted,
    MessageLine,
    PreferencesLine,
    PreferencesLineResult,
    Recipient,
    RecipientLineResult,
    SendMessageOptions,
    SubmitCampaignOptions,
    SuppressionImportBody,
    UploadBody,
)
from dispatcher.client.event_chain import FeedBatch, FeedPosition, check_page
from dispatcher.client.retries import CallRetries, is_repeated

NDJSON = "application/x-ndjson"
# The server answers a batch of a thousand lines at once. A client that has more under way than that must read while it sends.
LINES_PER_CALL = 1_000
UPLOAD_PART_BYTES = 1024 * 1024
FEED_WAIT_SECONDS = 30
TIMEOUT_SECONDS = 120.0  # a dry run of a large campaign takes this long
START = FeedPosition()
NEVER_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class AsyncClient(AsyncOperations):
    """The API, for one program with one key. Use it as a context manager, or close it.

    A call is repeated where the server asks for it (429, 503) and where the connection fails, as `retries` says. A call that may
    have been done already is repeated only if that is safe; see `Call`. Every method raises `ApiRefusal` and `ApiUnavailable`.
    `transport` replaces the connection, for tests and proxies.
    """

    def __init__(
        self,
        url: str,
        key: str,
        retries: CallRetries | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: Any = None,
    ) -> None:
        self._retries = retries or CallRetries()
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {key}"}, timeout=timeout_seconds, transport=transport
        )

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, call: Call) -> Any:
        """The JSON that answers a call; None where there is none."""
        response = await self._send(call)
        return response.json() if response.content else None

    async def _send(self, call: Call) -> httpx.Response:
        attempt = 0
        while True:
            attempt += 1
            retry_after, reason, cause = None, "", None
            try:
                response = await self._http.request(
                    call.method, call.path, params=call.query, headers=call.headers, content=call.payload
                )
            except httpx.TransportError as error:
                if not call.is_repeatable and not isinstance(error, NEVER_REACHED):
                    raise ApiUnavailable(f"the outcome is not known ({type(error).__name__})") from error
                reason, cause = type(error).__name__, error
            else:
                if response.is_success:
                    return response
                if not is_repeated(response.status_code, call.is_repeatable):
                    raise _error(response)
                reason, retry_after = f"status {response.status_code}", response.headers.get("retry-after")
            wait = self._retries.wait_seconds(attempt, retry_after)
            if wait is None:
                raise ApiUnavailable(f"no answer after {attempt} attempts ({reason}); repeat the call") from cause
            await asyncio.sleep(wait)

    # -- campaigns -----------------------------------------------------------------------------------------------------

    async def submit_campaign(self, body: Campaign, **options: Unpack[SubmitCampaignOptions]) -> CampaignAccepted:
        """Submit a campaign, and wait until its audience is loaded. The same id with the same content is accepted once."""
        while True:
            answer: CampaignAccepted = await super().submit_campaign(body, **options)  # type: ignore[assignment]
            if not answer.get("loading"):
                return answer
            await asyncio.sleep(self._retries.first_wait_seconds)

    async def dry_run_campaign(self, body: Campaign, as_of: str | None = None) -> DryRunBody:
        """What a campaign would do, now or at a moment. Nothing is sent or kept."""
        options: SubmitCampaignOptions = {"dry_run": True, "as_of": as_of}
        answer: DryRunBody = await super().submit_campaign(body, **options)  # type: ignore[assignment]
        return answer

    async def upload_audience_file(self, upload_id: str, file: Path, pack: bool = False) -> UploadBody:
        """Upload an audience from a file of any size, in parts; an upload that was interrupted goes on where it was.

        The id ends as the file's name does, such as `spring.csv`. With `pack`, a packed copy is made beside the file first.
        """
        source = _packed(file) if pack else file
        path, size = f"/v1/audiences/{quote(upload_id, safe='')}", source.stat().st_size
        encoding = {"Content-Encoding": "gzip"} if pack or file.suffix == ".gz" else {}
        known = await self._upload_state(upload_id)
        if known and known["complete"]:
            return _same(known, source)
        received, attempt = known["received"] if known else 0, 0
        with source.open("rb") as stream:
            while True:
                stream.seek(received)
                part = stream.read(UPLOAD_PART_BYTES)
                place = f"bytes {received}-{received + len(part) - 1}/{size}" if part else f"bytes */{size}"
                headers = {**encoding, "Content-Range": place, "Content-Type": "application/octet-stream"}
                call = Call("PUT", path, content=part, content_headers=headers, is_repeatable=False)
                try:
                    state: UploadBody | None = await self.call(call)
                    attempt = 0
                except ApiUnavailable:
                    attempt += 1
                    wait = self._retries.wait_seconds(attempt)
                    if wait is None:
                        raise
                    await asyncio.sleep(wait)
                    state = await self._upload_state(upload_id)  # how much of the part arrived
                if state and state["complete"]:
                    return state
                received = state["received"] if state else 0

    async def _upload_state(self, upload_id: str) -> UploadBody | None:
        try:
            return await self.show_upload(upload_id)
        except ApiRefusal as error:
            if error.status == 404:
                return None
            raise

    # -- messages ------------------------------------------------------------------------------------------------------

    async def send_message(self, body: Message, **options: Unpack[SendMessageOptions]) -> MessageAccepted:
        """Accept one message. Without a `key` it gets a random one, so that a repetition by this client is accepted once."""
        keyed = body if "key" in body or options.get("idempotency_key") else Message(**{**body, "key": uuid4().hex})
        return await super().send_message(keyed, **options)

    async def all_messages(self, **options: Unpack[ListMessagesOptions]) -> AsyncIterator[MessageLine]:
        """The messages that match, newest first, page by page."""
        while True:
            page = await self.list_messages(**options)
            for message in page["messages"]:
                yield message
            if page["next"] is None:
                return
            options = {**options, "cursor": page["next"]}

    # -- recipients ----------------------------------------------------------------------------------------------------

    async def put_recipients(
        self, people: Iterable[Recipient], upload_id: str | None = None, resume: bool | int = False
    ) -> AsyncIterator[RecipientLineResult]:
        """Add or replace recipients, any number; the result of each, in their order.

        With an `upload_id` of its own, a program that was interrupted calls again with the same people. With `resume=True` those
        that the server took are left out, and results that were not read are lost, rejections too. With the line of the last
        result that was read, such as `resume=2000`, there is a result for each line after it.
        """
        async for result in self._put_lines("/v1/recipients/bulk", people, upload_id, resume):
            yield result

    async def record_preferences(
        self, statements: Iterable[PreferencesLine], upload_id: str | None = None, resume: bool | int = False
    ) -> AsyncIterator[PreferencesLineResult]:
        """Record what people said, any number; the result of each, in their order. `resume` as in `put_recipients`."""
        async for result in self._put_lines("/v1/preferences/bulk", statements, upload_id, resume):
            yield result

    async def _put_lines(
        self, path: str, documents: Iterable[Any], upload_id: str | None, resume: bool | int
    ) -> AsyncIterator[Any]:
        upload, rest = upload_id or uuid4().hex, iter(documents)
        line = 1
        if resume is True:
            taken = await self._send(_lines_call(path, upload, 1, ()))
            line += int(taken.headers["Upload-Taken"])
        else:
            line += resume
        next(islice(rest, line - 1, line - 1), None)
        while batch := list(islice(rest, LINES_PER_CALL)):
            response = await self._send(_lines_call(path, upload, line, batch))
            results = response.text.splitlines()
            if len(results) != len(batch):
                raise ApiUnavailable(f"the answers end at line {line + len(results) - 1}; call again with `resume`")
            for result in results:
                yield json.loads(result)
            line += len(batch)

    # -- suppressions --------------------------------------------------------------------------------------------------

    async def import_suppressions(self, file: Path, **options: Unpack[ImportSuppressionsOptions]) -> SuppressionImportBody:
        """Suppress the addresses of a list (`.csv` or `.jsonl`). The same list again changes nothing."""
        kind = {"Content-Type": NDJSON if file.suffix == ".jsonl" else "text/csv"}
        content = file.read_bytes()
        call = Call("POST", "/v1/suppressions/import", options=dict(options), content=content, content_headers=kind)
        answer: SuppressionImportBody = await self.call(call)
        return answer

    async def export_suppressions(self, **options: Unpack[ExportSuppressionsOptions]) -> AsyncIterator[str]:
        """Suppressions as lines of CSV."""
        call = Call("GET", "/v1/suppressions/export", options=dict(options))
        try:
            async with self._http.stream(call.method, call.path, params=call.query) as response:
                if not response.is_success:
                    await response.aread()
                    raise _error(response)
                async for line in response.aiter_lines():
                    yield line
        except httpx.TransportError as error:
            raise ApiUnavailable(f"the list is not complete ({type(error).__name__}); repeat the call") from error

    # -- events --------------------------------------------------------------------------------------------------------

    async def read_feed(
        self, position: FeedPosition = START, types: Sequence[str] = (), follow: bool = False
    ) -> AsyncIterator[FeedBatch]:
        """Events after a position, in batches, checked: raises `FeedBroken` where one is missing or changed. Store the position
        of a batch when its events are handled. With `follow` it goes on for ever, and waits for events; with `types` nothing is
        checked.
        """
        wait = FEED_WAIT_SECONDS if follow else 0
        while True:
            page = await self.read_events(after=position.after, types=",".join(types), wait=wait)
            batch = check_page(position, page)
            position = batch.position
            if batch.events:
                yield batch
            if not batch.more and not follow:
                return


def _error(response: httpx.Response) -> ApiRefusal | ApiUnavailable:
    try:
        problem = response.json()
    except ValueError:
        problem = None  # a proxy's answer
    shown: Mapping[str, Any] = problem if isinstance(problem, dict) else {"title": response.reason_phrase}
    if response.is_server_error:
        return ApiUnavailable(f"status {response.status_code}: {shown.get('detail', shown.get('title'))}")
    return ApiRefusal(response.status_code, shown)


def _lines_call(path: str, upload_id: str, line: int, documents: Sequence[Any]) -> Call:
    content = b"".join(map(encode_line, documents))
    headers = {"Content-Type": NDJSON, "Upload-Id": upload_id, "Upload-Line": str(line)}
    return Call("POST", path, content=content, content_headers=headers)


def _packed(file: Path) -> Path:
    packed = file.with_name(f"{file.name}.gz")
    with file.open("rb") as plain, packed.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as target:
        while part := plain.read(UPLOAD_PART_BYTES):
            target.write(part)
    return packed


def _same(known: UploadBody, file: Path) -> UploadBody:
    """The upload, if it has these bytes. Raises `ApiRefusal`."""
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != known["sha256"]:
            raise ApiRefusal(409, {"title": "Conflict", "detail": "this id was uploaded before, with other content"})
    return known
