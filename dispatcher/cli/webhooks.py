"""`dispatcher webhooks …`: deliver events to other systems' URLs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dispatcher.cli.identity import open_for, services_for_all
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, fail, out, pairs, plural, print_json, rows
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.principal import Right
from dispatcher.events import event_endpoints
from dispatcher.events.event_endpoints import EndpointStatus
from dispatcher.web.serializers.event_endpoints import endpoint_change_view, endpoint_view, webhook_range_view, webhook_test_view

app = typer.Typer(help="Event endpoints: events delivered to other systems' URLs.", no_args_is_help=True)

Endpoint = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only this type, such as message.failed or consent; may be repeated."),
]
Entities = Annotated[
    list[str] | None,
    typer.Option("--entity", help="Only events that name this entity; may be repeated."),
]
Campaigns = Annotated[
    list[str] | None,
    typer.Option("--campaign", help="Only events of this campaign; * stands for any text; may be repeated."),
]


@app.command()
def add(
    endpoint_id: Annotated[str, typer.Argument(metavar="ID", help="A name for it: small letters, digits, - and _.")],
    url: Annotated[str, typer.Argument(help="Where events are sent: https, and a public address.")],
    types: Types = None,
    entities: Entities = None,
    campaigns: Campaigns = None,
    batch: Annotated[int, typer.Option(help="Events in one call at most; 1: one event, not an array.")] = 1,
    after: Annotated[int | None, typer.Option(help="Begin after the event with this number. Default: only new events.")] = None,
    as_json: Json = False,
) -> None:
    """Add an endpoint, and print its secret."""
    values = {"id": endpoint_id, "url": url, "batch_max": batch, "after": after, **_lists(types, entities, campaigns)}
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.ADD, "webhook", endpoint_id))
    status = event_endpoints.add(services, event_endpoints.parse_form(values), who)
    secret = event_endpoints.secret(services, endpoint_id)
    if as_json:
        print_json({**endpoint_view(status), "secret": secret})
    else:
        out.print(f"{endpoint_id} is added; the receiver needs this secret: {secret}", markup=False)


def _lists(types: list[str] | None, entities: list[str] | None, campaigns: list[str] | None) -> dict[str, Any]:
    values = {"types": types, "entities": entities, "campaigns": campaigns}
    return {name: value for name, value in values.items() if value is not None}


@app.command()
def change(
    endpoint_id: Endpoint,
    url: Annotated[str | None, typer.Option(help="Where events are sent.")] = None,
    types: Types = None,
    entities: Entities = None,
    campaigns: Campaigns = None,
    batch: Annotated[int | None, typer.Option(help="Events in one call at most.")] = None,
    as_json: Json = False,
) -> None:
    """Change an endpoint; what is not named stays. A list that is given replaces the old one; an empty text empties it."""
    lists = {name: [each for each in value if each] for name, value in _lists(types, entities, campaigns).items()}
    form = event_endpoints.parse_change({"url": url, "batch_max": batch, **lists})
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.CHANGE, "webhook", endpoint_id))
    _print(event_endpoints.change(services, endpoint_id, form, who), as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the endpoints with their state and how far behind they are."""
    statuses = event_endpoints.statuses(services_for_all())
    if as_json:
        print_json([endpoint_view(status) for status in statuses])
        return
    if not statuses:
        out.print("no event endpoint")
        return
    names = ("endpoint", "url", "state", "lag (events)", "lag (s)", "last error", "dead ranges")
    rows("", names, [_cells(status) for status in statuses])


def _cells(status: EndpointStatus) -> tuple[Any, ...]:
    endpoint = status.endpoint
    state = f"disabled: {endpoint.disabled_reason}" if endpoint.disabled_reason else endpoint.state.value
    return (endpoint.id, status.shown_url, state, status.lag_events, round(status.lag_seconds), status.error, len(status.dead))


@app.command()
def show(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Show an endpoint: its cursor, how far behind it is, its last error, its dead list."""
    _print(event_endpoints.status(services_for_all(), endpoint_id), as_json)


def _print(status: EndpointStatus, as_json: bool) -> None:
    view = endpoint_view(status)
    if as_json:
        print_json(view)
        return
    ranges = {name: view.pop(name) for name in ("replays", "dead", "changes")}
    pairs("", view)
    for name, lines in ranges.items():
        if lines:
            rows(f"\n{name}", tuple(lines[0]), [tuple(line.values()) for line in lines])


@app.command("test")
def send_test(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Send a test event now (type dispatcher.test), and print the answer's status and time."""
    result = event_endpoints.send_test(services_for_all(), endpoint_id)
    view = webhook_test_view(result)
    if as_json:
        print_json(view)
    elif result.answer.error is None:
        out.print(f"{view['status']}, in {view['milliseconds']} ms")
    if result.answer.error is None:
        return
    if as_json:
        raise typer.Exit(REFUSED)
    fail(f"{endpoint_id}: {result.answer.error}, in {view['milliseconds']} ms", REFUSED)


@app.command()
def secret(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Print the newest secret, which the receiver needs to check signatures."""
    text = event_endpoints.secret(services_for_all(), endpoint_id)
    if as_json:
        print_json({"id": endpoint_id, "secret": text})
    else:
        out.print(text, markup=False)


@app.command()
def rotate(
    endpoint_id: Endpoint,
    now: Annotated[bool, typer.Option("--now", help="The old secret signs no more. For a secret that others know.")] = False,
    as_json: Json = False,
) -> None:
    """Make a new secret, and print it. The old one signs too for 24 hours."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.ROTATE, "webhook", endpoint_id))
    text = event_endpoints.rotate(services, endpoint_id, who, now)
    if as_json:
        print_json({"id": endpoint_id, "secret": text})
    else:
        out.print(text, markup=False)


@app.command()
def disable(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Stop deliveries. The endpoint keeps its place in the stream."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.DISABLE, "webhook", endpoint_id))
    _print(event_endpoints.disable(services, endpoint_id, who), as_json)


@app.command()
def enable(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Start deliveries where they stopped; of an endpoint that is failing, try again at once."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.ENABLE, "webhook", endpoint_id))
    _print(event_endpoints.enable(services, endpoint_id, who), as_json)


@app.command()
def remove(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """Delete an endpoint and its dead list."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.REMOVE, "webhook", endpoint_id))
    event_endpoints.remove(services, endpoint_id, who)
    if as_json:
        print_json({"id": endpoint_id, "removed": True})
    else:
        out.print(f"{endpoint_id} is removed", markup=False)


@app.command()
def dead(endpoint_id: Endpoint, as_json: Json = False) -> None:
    """List the ranges of events that could not be delivered in 72 hours."""
    ranges = [webhook_range_view(each) for each in event_endpoints.status(services_for_all(), endpoint_id).dead]
    if as_json:
        print_json(ranges)
    elif ranges:
        rows("", tuple(ranges[0]), [tuple(each.values()) for each in ranges])
    else:
        out.print("nothing is dead")


@app.command()
def skip(
    endpoint_id: Endpoint,
    reason: Annotated[str, typer.Option(help="Why the receiver does not get these events.")],
    as_json: Json = False,
) -> None:
    """Move past the delivery that is failing, and go on with the next one. What is skipped is on the dead list."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.SKIP, "webhook", endpoint_id, reason=reason))
    _print(event_endpoints.skip(services, endpoint_id, who, reason), as_json)


@app.command()
def history(limit: Annotated[int, typer.Option(min=1)] = 50, as_json: Json = False) -> None:
    """List who changed which endpoint, newest first; also endpoints that were removed."""
    lines = [endpoint_change_view(each) for each in event_endpoints.history(services_for_all(), limit)]
    if as_json:
        print_json(lines)
    elif lines:
        rows("", tuple(lines[0]), [tuple(line.values()) for line in lines])
    else:
        out.print("nobody changed an endpoint")


@app.command()
def replay(
    endpoint_id: Endpoint,
    first: Annotated[int | None, typer.Option("--from", min=1, help="The number of the first event.")] = None,
    last: Annotated[int | None, typer.Option("--to", min=1, help="The number of the last event.")] = None,
    number: Annotated[int | None, typer.Option("--dead", help="The number of a range on the dead list.")] = None,
    as_json: Json = False,
) -> None:
    """Deliver again: events by number, a range of the dead list, or (without options) the whole dead list."""
    services, who = open_for(Right.WEBHOOKS, act=AuditNote(AuditAction.REPLAY, "webhook", endpoint_id))
    if (first is None) != (last is None) or (first is not None and number is not None):
        fail("give --from and --to, or --dead, or none of them", BAD_INPUT)
    if first is not None and last is not None:
        event_endpoints.replay_range(services, endpoint_id, first, last, who)
        count = 1
    else:
        count = event_endpoints.replay_dead(services, endpoint_id, who, number)
    if as_json:
        print_json({"id": endpoint_id, "replays": count})
    else:
        out.print(f"{plural(count, 'range')} will be delivered again")
