"""Event endpoints for those who run the program: add, change, test, rotate secrets, look at the dead list, replay."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any

import structlog
from pydantic import Field, StringConstraints
from pydantic_core import to_json

from dispatcher.domain.errors import EndpointConflict, UnknownEndpoint
from dispatcher.events.catalog import PREFIX
from dispatcher.events.webhook_address import (
    AddressRefused,
    BadWebhookUrl,
    Resolve,
    addresses,
    parse_url,
    shown_url,
    system_addresses,
)
from dispatcher.events.webhook_batches import EventFilter, next_batch
from dispatcher.events.webhook_delivery import send
from dispatcher.events.webhook_request import WebhookAnswer, WebhookConnection
from dispatcher.events.webhook_signing import secret_text
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.events import endpoint_changes, endpoint_cursors, event_endpoints, stream
from dispatcher.ledger.events.endpoint_changes import EndpointAct, RecordedAct
from dispatcher.ledger.events.endpoint_cursors import CursorState, EndpointCursor
from dispatcher.ledger.events.event_endpoints import EndpointTarget, EventEndpoint
from dispatcher.runtime.services import Services

__all__ = [
    "EndpointChange",
    "EndpointCursor",
    "EndpointForm",
    "EndpointStatus",
    "RecordedAct",
    "WebhookTestResult",
]

FILE = "event endpoint"  # how errors name the input
BATCH_MAX = 1_000
BOTH_SECRETS_FOR = timedelta(hours=24)
REASON_OPERATOR = "by_hand"
REASON_LENGTH_MAX = 500
SKIPPED = "skipped"  # the error of a range that somebody skipped
CHANGES_SHOWN = 20
TEST_TYPE = f"{PREFIX}.test"

log = structlog.get_logger()

EndpointId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Patterns = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=100)]


class EndpointForm(StrictModel):
    """A new endpoint. An empty list chooses all. `after`: the first event is the one after this number; default: only new ones."""

    id: EndpointId = Field(description="a name for it: small letters, digits, - and _")
    url: str = Field(description="where events are sent; https, and a public address")
    types: Patterns = Field(default=[], description="only these types: message.failed, consent, message.*")
    entities: Patterns = Field(default=[], description="only events that name one of these entities")
    campaigns: Patterns = Field(default=[], description="only events of these campaigns; * stands for any text")
    batch_max: int = Field(default=1, ge=1, le=BATCH_MAX, description="events in one call at most; 1: one event, not an array")
    after: int | None = Field(default=None, ge=0, lt=2**63, description="the number of the event before the first one")


class EndpointChange(StrictModel):
    """Other values for an endpoint; what is left out stays as it is."""

    url: str | None = None
    types: Patterns | None = None
    entities: Patterns | None = None
    campaigns: Patterns | None = None
    batch_max: int | None = Field(default=None, ge=1, le=BATCH_MAX)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint and how far its deliveries are. `lag_events` are numbers in the stream: not all of them may be chosen."""

    endpoint: EventEndpoint
    shown_url: str
    live: EndpointCursor
    replays: tuple[EndpointCursor, ...]
    dead: tuple[EndpointCursor, ...]
    lag_events: int
    lag_seconds: float
    changes: tuple[RecordedAct, ...]

    @property
    def is_failing(self) -> bool:
        """Whether its last attempt failed."""
        return any(cursor.failing_since is not None for cursor in (self.live, *self.replays))

    @property
    def error(self) -> str | None:
        """The code of the last attempt, if that failed."""
        return next((cursor.error for cursor in (self.live, *self.replays) if cursor.error), None)


@dataclass(frozen=True, slots=True)
class WebhookTestResult:
    """What a receiver answered to a test event."""

    webhook_id: str
    answer: WebhookAnswer = field(repr=False)


# -- read --------------------------------------------------------------------------------------------------------------


def statuses(services: Services) -> list[EndpointStatus]:
    """All endpoints, by id, each with its latest changes."""
    with lend(services.pool) as connection:
        last, now = stream.head(connection).last, services.clock()
        cursors = endpoint_cursors.cursors(connection)
        return [
            _status(connection, endpoint, [each for each in cursors if each.endpoint_no == endpoint.no], last, now)
            for endpoint in event_endpoints.endpoints(connection)
        ]


def status(services: Services, endpoint_id: str) -> EndpointStatus:
    """One endpoint, with its latest changes. Raises `UnknownEndpoint`."""
    with lend(services.pool) as connection:
        endpoint = _find(connection, endpoint_id)
        cursors = endpoint_cursors.cursors(connection, endpoint.no)
        return _status(connection, endpoint, cursors, stream.head(connection).last, services.clock())


def history(services: Services, limit: int) -> list[RecordedAct]:
    """Who changed which endpoint, newest first; also those that were removed."""
    with lend(services.pool) as connection:
        return endpoint_changes.newest(connection, limit)


def _status(
    connection: Connection, endpoint: EventEndpoint, cursors: Sequence[EndpointCursor], last: int, now: datetime
) -> EndpointStatus:
    of = {state: tuple(each for each in cursors if each.state is state) for state in CursorState}
    (live,) = of[CursorState.LIVE]
    lag = max(last - live.cursor, 0)
    at = stream.published_at(connection, live.cursor + 1) if lag else None
    seconds = max((now - at).total_seconds(), 0.0) if at else 0.0
    return EndpointStatus(
        endpoint,
        shown_url(endpoint.target.url),
        live,
        of[CursorState.REPLAY],
        of[CursorState.DEAD],
        lag,
        seconds,
        tuple(endpoint_changes.newest(connection, CHANGES_SHOWN, endpoint.no)),
    )


def _find(connection: Connection, endpoint_id: str, lock: bool = False) -> EventEndpoint:
    endpoint = event_endpoints.find(connection, endpoint_id, lock)
    if endpoint is None:
        raise UnknownEndpoint(endpoint_id)
    return endpoint


def secret(services: Services, endpoint_id: str) -> str:
    """The newest secret of an endpoint, for its receiver. Raises `UnknownEndpoint`."""
    with lend(services.pool) as connection:
        endpoint = _find(connection, endpoint_id)
    return secret_text(services.secret.newest, endpoint.no, endpoint.secret_version)


# -- change ------------------------------------------------------------------------------------------------------------


def add(services: Services, form: EndpointForm, actor: str, resolve: Resolve = system_addresses) -> EndpointStatus:
    """Add an endpoint. Raises `BadInput` for a bad URL, an address that is not public, unknown types, and an id that is taken."""
    target = EndpointTarget(form.url, tuple(form.types), tuple(form.entities), tuple(form.campaigns), form.batch_max)
    _check(services, target, resolve)
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        head = stream.head(connection).last
        after = head if form.after is None else form.after
        if after > head:
            raise _bad("after", f"is higher than {head}, the number of the last event")
        if after < head and after + 1 < (oldest := stream.oldest(connection)):
            raise _bad("after", f"event {after + 1} was deleted by retention; the oldest that is kept is {oldest}")
        number = event_endpoints.add(connection, form.id, target, actor, now)
        if number is None:
            raise _bad("id", f"{form.id} is the id of another endpoint")
        endpoint_cursors.add(connection, number, after, None, now)
        act = EndpointAct(actor, "add", detail={"after": after})
        endpoint_changes.note(connection, number, form.id, act, now)
    _log("add", form.id, actor)
    return status(services, form.id)


def change(
    services: Services, endpoint_id: str, form: EndpointChange, actor: str, resolve: Resolve = system_addresses
) -> EndpointStatus:
    """Give an endpoint other values. Raises `UnknownEndpoint`, and `BadInput` as `add` does."""
    with lend(services.pool) as connection:
        old = _find(connection, endpoint_id).target
    new = {name: tuple(value) if isinstance(value, list) else value for name, value in form.model_dump(exclude_none=True).items()}
    target = EndpointTarget(**asdict(old) | new)
    _check(services, target, resolve)
    fields = sorted(name for name in new if getattr(target, name) != getattr(old, name))
    with _act(services, endpoint_id, EndpointAct(actor, "change", detail={"fields": fields})) as (connection, _):
        event_endpoints.change(connection, endpoint_id, target)
    return status(services, endpoint_id)


def parse_form(value: Any) -> EndpointForm:
    """The form of plain data. Raises `BadInput` with every error."""
    return validate(EndpointForm, value, FILE)


def parse_change(value: Any) -> EndpointChange:
    """The change of plain data. Raises `BadInput` with every error."""
    return validate(EndpointChange, value, FILE)


def _check(services: Services, target: EndpointTarget, resolve: Resolve) -> None:
    """A name that cannot be resolved now is no error: each call resolves it again."""
    try:
        EventFilter.of(target)
    except BadInput as error:
        raise _bad("types", error.faults[0].message) from None
    if unknown := sorted(set(target.entities) - services.policy.entities.keys()):
        raise _bad("entities", f"{', '.join(unknown)}: not in the policy, which has {', '.join(sorted(services.policy.entities))}")
    try:
        addresses(parse_url(target.url, services.webhook_hosts), resolve)
    except BadWebhookUrl as error:
        raise _bad("url", str(error)) from None
    except AddressRefused:
        raise _bad("url", "leads to an address that is not public; DISPATCHER_WEBHOOK_HOSTS can allow its host") from None
    except (OSError, UnicodeError):
        pass


def _bad(name: str, message: str) -> BadInput:
    return BadInput(InputError(FILE, 0, name, message))


@contextmanager
def _act(services: Services, endpoint_id: str, act: EndpointAct) -> Iterator[tuple[Connection, EventEndpoint]]:
    """A transaction with the endpoint, locked, in which an act is done and recorded. Raises `UnknownEndpoint`."""
    with lend(services.pool) as connection, connection.transaction():
        endpoint = _find(connection, endpoint_id, lock=True)
        yield connection, endpoint
        endpoint_changes.note(connection, endpoint.no, endpoint.id, act, services.clock())
    _log(act.action, endpoint_id, act.actor)


def remove(services: Services, endpoint_id: str, actor: str) -> None:
    """Delete an endpoint with its dead list. Raises `UnknownEndpoint`."""
    with _act(services, endpoint_id, EndpointAct(actor, "remove")) as (connection, _):
        event_endpoints.remove(connection, endpoint_id)


def disable(services: Services, endpoint_id: str, actor: str) -> EndpointStatus:
    """Stop deliveries. Raises `UnknownEndpoint`."""
    with _act(services, endpoint_id, EndpointAct(actor, "disable")) as (connection, _):
        event_endpoints.disable(connection, endpoint_id, REASON_OPERATOR)
    return status(services, endpoint_id)


def enable(services: Services, endpoint_id: str, actor: str) -> EndpointStatus:
    """Start deliveries where they stopped; of an endpoint that is failing, try again at once. Raises `UnknownEndpoint`."""
    with _act(services, endpoint_id, EndpointAct(actor, "enable")) as (connection, _):
        event_endpoints.enable(connection, endpoint_id, services.clock())
    return status(services, endpoint_id)


def rotate(services: Services, endpoint_id: str, actor: str, at_once: bool = False) -> str:
    """Make a new secret, and return it. The old one signs too for 24 hours, or not at all with `at_once`.

    Raises `UnknownEndpoint`, and `EndpointConflict` while the secret before the newest still signs: a third one would end it for
    a receiver that still has it.
    """
    now = services.clock()
    act = EndpointAct(actor, "rotate", detail={"at_once": at_once})
    with _act(services, endpoint_id, act) as (connection, endpoint):
        old_until = endpoint.old_secret_until
        if not at_once and old_until is not None and now < old_until:
            raise EndpointConflict(f"the secret before this one signs until {old_until.isoformat()}; a rotation at once ends both")
        event_endpoints.rotate(connection, endpoint_id, None if at_once else now + BOTH_SECRETS_FOR)
    return secret(services, endpoint_id)


# -- test and replay ---------------------------------------------------------------------------------------------------


def send_test(services: Services, endpoint_id: str, resolve: Resolve = system_addresses) -> WebhookTestResult:
    """Send a test event now, also to an endpoint that is disabled. It is not in the stream. Raises `UnknownEndpoint`."""
    with lend(services.pool) as connection:
        endpoint = _find(connection, endpoint_id)
    webhook_id = f"msg_test_{uuid.uuid4().hex}"
    event = to_json(
        {
            "data": {"endpoint": endpoint.id},
            "datacontenttype": "application/json",
            "id": webhook_id,
            "source": services.public_url,
            "specversion": "1.0",
            "subject": endpoint.id,
            "time": services.clock().isoformat(),
            "type": TEST_TYPE,
        }
    )
    media_type = "application/cloudevents+json" if endpoint.target.batch_max == 1 else "application/cloudevents-batch+json"
    http = WebhookConnection(services.webhook_hosts, resolve)
    try:
        body = event if endpoint.target.batch_max == 1 else b"[" + event + b"]"
        answer = send(services, endpoint, http, (webhook_id, media_type, body), lambda: True)
    finally:
        http.close()
    log.info("webhook test", endpoint=endpoint.id, status=answer.status, error=answer.error)
    return WebhookTestResult(webhook_id, answer)


def skip(services: Services, endpoint_id: str, actor: str, reason: str) -> EndpointStatus:
    """Move past the delivery that fails, and go on with the next one. What is skipped is on the dead list, and can be replayed.

    A call that is under way at this moment may still arrive. Raises `UnknownEndpoint`, `BadInput` without a reason, and
    `EndpointConflict` where no delivery fails.
    """
    if not reason.strip() or len(reason) > REASON_LENGTH_MAX:
        raise _bad("reason", f"is needed: why the receiver does not get these events; at most {REASON_LENGTH_MAX} characters")
    now, skipped = services.clock(), dict[str, int]()
    with _act(services, endpoint_id, EndpointAct(actor, "skip", reason.strip(), skipped)) as (connection, endpoint):
        failing = [each for each in endpoint_cursors.cursors(connection, endpoint.no) if _is_failing(each)]
        if not failing:
            raise EndpointConflict(f"no delivery to {endpoint_id} is failing: there is nothing to skip")
        cursor = min(failing, key=lambda each: each.failing_since or now)
        last = next_batch(connection, endpoint.target, cursor).last if cursor.in_flight is None else cursor.in_flight
        skipped |= {"first": cursor.cursor + 1, "last": last}
        endpoint_cursors.end_lease(connection, endpoint)
        endpoint_cursors.give_up(connection, cursor, last, SKIPPED, now)
    return status(services, endpoint_id)


def _is_failing(cursor: EndpointCursor) -> bool:
    return cursor.state is not CursorState.DEAD and cursor.failing_since is not None


def replay_dead(services: Services, endpoint_id: str, actor: str, number: int | None = None) -> int:
    """Deliver a range of the dead list again, or all of them; returns how many. Raises `UnknownEndpoint`, and `BadInput` for a
    number that is not on the list."""
    detail = {} if number is None else {"dead": number}
    with _act(services, endpoint_id, EndpointAct(actor, "replay", detail=detail)) as (connection, endpoint):
        count = endpoint_cursors.revive(connection, endpoint.no, number, services.clock())
        if number is not None and not count:
            raise _bad("dead", f"there is no range {number} on the dead list of {endpoint_id}")
    return count


def replay_range(services: Services, endpoint_id: str, first: int, last: int, actor: str) -> None:
    """Deliver the events with these numbers again, those that the endpoint chooses. Raises `UnknownEndpoint`, and `BadInput` for
    numbers that are not in the stream."""
    act = EndpointAct(actor, "replay", detail={"first": first, "last": last})
    with _act(services, endpoint_id, act) as (connection, endpoint):
        oldest, head = stream.oldest(connection), stream.head(connection).last
        if not oldest <= first <= last <= head:
            raise _bad("from", f"{first} to {last} is not a range of events: those that are kept are {oldest} to {head}")
        endpoint_cursors.add(connection, endpoint.no, first - 1, last, services.clock())


def _log(action: str, endpoint_id: str, actor: str) -> None:
    log.info("event endpoint", endpoint=endpoint_id, action=action, actor=actor)
