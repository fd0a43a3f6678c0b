"""Delivery of events to event endpoints: one call at a time to each, many endpoints side by side.

An endpoint is a reader with a cursor. A batch is recorded before it is sent, and the cursor moves only after a success. So a batch
whose worker was lost is sent again, under the same webhook id; no event is left out, and the order is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

import structlog
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from dispatcher import __version__
from dispatcher.events.webhook_address import Resolve, system_addresses
from dispatcher.events.webhook_batches import WebhookBatch, next_batch
from dispatcher.events.webhook_request import TIMEOUT_SECONDS, WebhookAnswer, WebhookConnection
from dispatcher.events.webhook_signing import all_secrets, signed_headers
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import endpoint_cursors, event_endpoints, stream
from dispatcher.ledger.events.endpoint_cursors import CursorState, EndpointCursor
from dispatcher.ledger.events.event_endpoints import EventEndpoint
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services
from dispatcher.runtime.tracing import TraceSwitch, span

ENDPOINTS_AT_ONCE = 64  # in one process: a thread each
RUN_SECONDS = 30.0  # of one task; then it takes no more endpoints
SLICE_SECONDS = 10.0  # of one endpoint; then it is the turn of another
LOOK_EVERY_SECONDS = 0.5
LEASE_SECONDS = 45.0  # for one batch: DNS and the call. After a lost worker, so long until another takes over
CALL_SECONDS_MIN = TIMEOUT_SECONDS + 5.0  # what must be left of a lease when a call starts
GIVE_UP_AFTER = timedelta(hours=72)
BACKOFF_FIRST_SECONDS = 5.0
BACKOFF_SECONDS_MAX = 900.0
RETRY_AFTER_SECONDS_MAX = 3_600.0
GONE, DEAD = "gone", "dead"  # codes of alerts; the first one is also the reason why an endpoint is disabled
DELETED = "deleted"  # the error of a range that retention deleted before it was delivered

USER_AGENT = f"dispatcher/{__version__}"

log = structlog.get_logger()


class Progress(Enum):
    """How a step of an endpoint ended."""

    MOVED = auto()
    FAILED = auto()
    NOTHING_DUE = auto()
    LEASE_LOST = auto()


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """A batch that is recorded as in flight."""

    cursor: EndpointCursor
    batch: WebhookBatch
    webhook_id: str


def is_due(services: Services) -> bool:
    """Whether an endpoint that no worker has is to get something now."""
    with lend(services.pool) as connection:
        return endpoint_cursors.is_due(connection, services.clock())


def deliver(services: Services, seconds_max: float = RUN_SECONDS, resolve: Resolve = system_addresses) -> int:
    """Deliver what is due, until nothing is or the time is over; returns the number of calls that succeeded.

    A thread per endpoint: a name that DNS resolves slowly, and a receiver that answers slowly, delay only their own events.
    """
    end = services.monotonic_clock() + seconds_max
    delivered = 0
    running: set[Future[int]] = set()
    with ThreadPoolExecutor(ENDPOINTS_AT_ONCE, thread_name_prefix="webhook") as threads:
        while True:
            if services.monotonic_clock() < end:
                taken_at = services.monotonic_clock()
                leased = _lease(services, ENDPOINTS_AT_ONCE - len(running))
                running |= {threads.submit(EndpointSlice(services, each, resolve, taken_at).run) for each in leased}
            if not running:
                return delivered
            done, running = wait(running, LOOK_EVERY_SECONDS, FIRST_COMPLETED)
            delivered += sum(each.result() for each in done)


def _lease(services: Services, limit: int) -> list[EventEndpoint]:
    with lend(services.pool) as connection:
        return endpoint_cursors.lease(connection, limit, LEASE_SECONDS, services.clock())


class EndpointSlice:
    """The work on one leased endpoint: batch after batch, until nothing is due, an attempt fails or its time is over."""

    def __init__(self, services: Services, endpoint: EventEndpoint, resolve: Resolve, leased_at: float) -> None:
        self._services = services
        self._endpoint = endpoint
        self._leased_at = leased_at  # monotonic, from before the lease began
        self._http = WebhookConnection(services.webhook_hosts, resolve)

    def run(self) -> int:
        """Deliver; returns the number of calls that succeeded."""
        end = self._services.monotonic_clock() + SLICE_SECONDS
        succeeded = 0
        try:
            while self._services.monotonic_clock() < end:
                progress, is_call = self.step()
                succeeded += progress is Progress.MOVED and is_call
                if progress is not Progress.MOVED:
                    break
        finally:
            self._http.close()
        with lend(self._services.pool) as connection:
            endpoint_cursors.release(connection, self._endpoint)
        return succeeded

    def step(self) -> tuple[Progress, bool]:
        """One batch: record it, send it, record what came of it. Also returns whether there was anything to send."""
        prepared = self._prepare()
        if isinstance(prepared, Progress):
            return prepared, False
        traces = prepared.batch.traces() if TraceSwitch.is_on else ()
        attributes: dict[str, AttributeValue] = {
            "dispatcher.endpoint": self._endpoint.id,
            "http.request.method": "POST",
            "messaging.batch.message_count": len(prepared.batch.lines),
            "messaging.message.id": prepared.webhook_id,
        }
        # In the trace of its events where they have one; else in none, with links to theirs.
        parent = traces[0] if len(traces) == 1 else None
        with span("deliver events", attributes, SpanKind.CLIENT, parent, linked=traces):
            answer = self._call(prepared)
        return self._settle(prepared, answer), True

    def _prepare(self) -> WebhookCall | Progress:
        now = self._services.clock()
        with lend(self._services.pool) as connection:
            cursor = endpoint_cursors.due(connection, self._endpoint.no, now)
            if cursor is None:
                return Progress.NOTHING_DUE
            is_gap = (oldest := stream.oldest(connection)) > cursor.cursor + 1
            batch = WebhookBatch((), oldest - 1) if is_gap else next_batch(connection, self._endpoint.target, cursor)
            leased_at = self._services.monotonic_clock()
            with connection.transaction():
                if not endpoint_cursors.renew(connection, self._endpoint, LEASE_SECONDS):
                    return Progress.LEASE_LOST
                if is_gap:
                    endpoint_cursors.give_up(connection, cursor, min(batch.last, cursor.last or batch.last), DELETED, now)
                    _alert(connection, self._endpoint, DELETED, now)
                elif batch.lines:
                    endpoint_cursors.begin(connection, cursor, batch.last, now)
                else:
                    endpoint_cursors.move(connection, cursor, batch.last, now)
        self._leased_at = leased_at
        return WebhookCall(cursor, batch, self._webhook_id(cursor, batch)) if batch.lines else Progress.MOVED

    def _webhook_id(self, cursor: EndpointCursor, batch: WebhookBatch) -> str:
        return f"msg_{cursor.no}_{self._endpoint.revision}_{cursor.cursor + 1}_{batch.last}"

    def _call(self, call: WebhookCall) -> WebhookAnswer:
        media_type, body = call.batch.content(self._endpoint.target.batch_max)
        return send(self._services, self._endpoint, self._http, (call.webhook_id, media_type, body), self._may_start)

    def _may_start(self) -> bool:
        return self._services.monotonic_clock() < self._leased_at + LEASE_SECONDS - CALL_SECONDS_MIN

    def _settle(self, call: WebhookCall, answer: WebhookAnswer) -> Progress:
        now = self._services.clock()
        if answer.error is not None:
            log.warning(
                "webhook failed",
                endpoint=self._endpoint.id,
                webhook_id=call.webhook_id,
                error=answer.error,
                milliseconds=round(answer.seconds * 1000),
            )
        with lend(self._services.pool) as connection, connection.transaction():
            if not endpoint_cursors.holds(connection, self._endpoint):
                return Progress.LEASE_LOST
            if answer.error is None:
                endpoint_cursors.move(connection, call.cursor, call.batch.last, now)
                endpoint_cursors.mark_delivered(connection, self._endpoint, now)
                return Progress.MOVED
            self._settle_failure(connection, call, answer, now)
        return Progress.FAILED

    def _settle_failure(self, connection: Connection, call: WebhookCall, answer: WebhookAnswer, now: datetime) -> None:
        error = answer.error or ""
        if answer.is_gone:
            event_endpoints.disable(connection, self._endpoint.id, GONE)
            endpoint_cursors.fail(connection, call.cursor, error, now, now)
            _alert(connection, self._endpoint, GONE, now)
        elif is_over(connection, call.cursor, now):
            endpoint_cursors.give_up(connection, call.cursor, _over_until(connection, call, now), error, now)
            _alert(connection, self._endpoint, DEAD, now)
        else:
            pause = backoff_seconds(call.cursor.attempts, answer.retry_after_seconds, self._services.random())
            endpoint_cursors.fail(connection, call.cursor, error, now, now + timedelta(seconds=pause))


def send(
    services: Services,
    endpoint: EventEndpoint,
    http: WebhookConnection,
    content: tuple[str, str, bytes],
    may_start: Callable[[], bool],
) -> WebhookAnswer:
    """Sign and send: `content` is the webhook id, the media type and the body."""
    webhook_id, media_type, body = content
    now = services.clock()
    secrets = all_secrets(services.secret, endpoint.no, endpoint.secret_versions(now))
    headers = {"content-type": media_type, "user-agent": USER_AGENT, **signed_headers(secrets, webhook_id, now, body)}
    return http.post(endpoint.target.url, headers, body, may_start)


def is_over(connection: Connection, cursor: EndpointCursor, now: datetime) -> bool:
    """Whether the time for retries is over: 72 hours from the publication of the first event.

    Of a replay, and after an endpoint was enabled, the time counts from then: its events can be older.
    """
    published = stream.published_at(connection, cursor.cursor + 1)
    start = cursor.since if published is None or cursor.state is CursorState.REPLAY else max(published, cursor.since)
    return now - start >= GIVE_UP_AFTER


def _over_until(connection: Connection, call: WebhookCall, now: datetime) -> int:
    """The last of the events whose time is over, too: each of them would only fail once more, and delay the ones that are not."""
    if call.cursor.last is not None:
        return call.cursor.last
    return max(call.batch.last, stream.last_published_before(connection, now - GIVE_UP_AFTER))


def backoff_seconds(attempts: int, retry_after: float | None, random: float) -> float:
    """The pause before the next attempt: what the receiver asked for, an hour at most; else 5 s, twice as long each time, 15
    minutes at most, of which a random half at most is left out. `attempts` have failed before this one."""
    if retry_after is not None:
        return min(max(retry_after, 1.0), RETRY_AFTER_SECONDS_MAX)
    pause = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(attempts, 16), BACKOFF_SECONDS_MAX)
    return pause * (1.0 - random / 2)


def _alert(connection: Connection, endpoint: EventEndpoint, code: str, now: datetime) -> None:
    """Tell a person, in the transaction of what happened."""
    log.warning("webhook needs a person", endpoint=endpoint.id, code=code)
    alerts.note(connection, f"webhook:{endpoint.id}", code, True, now)
