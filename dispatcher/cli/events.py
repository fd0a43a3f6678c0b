"""`dispatcher events …`: what the outside can hear."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from dispatcher.cli.output import REFUSED, Json, JsonLines, err, fail, out, plural, print_json, print_json_line, rows
from dispatcher.events import feed
from dispatcher.events.feed import CursorGone, FeedPage
from dispatcher.runtime import bootstrap

app = typer.Typer(help="Events for other systems: what became of messages, choices, suppressions, campaigns.", no_args_is_help=True)

After = Annotated[int | None, typer.Option(min=0, help="Only events after the one with this number.")]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="Only this type, such as message.failed or consent; may be repeated."),
]
FIELDS = ("number", "time", "type", "subject", "data")
LOOK_EVERY_SECONDS = 0.5


@app.command("list")
def list_(
    after: After = None,
    types: Types = None,
    limit: Annotated[int, typer.Option(min=1, max=feed.PAGE_MAX, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List events, oldest first; without --after, from the oldest that is kept."""
    services = bootstrap.services()
    start = feed.oldest(services) - 1 if after is None else after
    page = _page(start, limit, types)
    if as_json:
        print_json({"events": [json.loads(each) for each in page.lines], "next": page.next, "more": page.more})
    elif page.lines:
        rows("", FIELDS, [_cells(json.loads(each)) for each in page.lines])
        if page.more:
            out.print(f"more: --after {page.next}")
    else:
        out.print("no event")


@app.command()
def tail(after: After = None, types: Types = None, as_json: JsonLines = False) -> None:
    """Print events as they are published, until Ctrl-C; without --after, only new ones."""
    cursor = feed.newest(bootstrap.services()) if after is None else after
    try:
        while True:
            page = _page(cursor, 1_000, types)
            for each in page.lines:
                if as_json:
                    print_json_line(json.loads(each))
                else:
                    out.print("  ".join(str(cell) for cell in _cells(json.loads(each))), markup=False)
            cursor = page.next
            if not page.lines:
                time.sleep(LOOK_EVERY_SECONDS)
    except KeyboardInterrupt:
        err.print(f"stopped after event {cursor}")


@app.command()
def verify(after: After = None, as_json: Json = False) -> None:
    """Check that no event is missing or changed: numbers without a gap, and the chain of hashes."""
    found = feed.verify(bootstrap.services(), after)
    if as_json:
        print_json({"events": found.events, "first": found.first, "last": found.last, "fault": found.fault})
    elif found.fault:
        err.print(found.fault, markup=False)
    else:
        out.print(f"{plural(found.events, 'event')}, from {found.first} to {found.last}: none is missing or changed")
    if found.fault:
        raise typer.Exit(REFUSED)


def _page(after: int, limit: int, types: list[str] | None) -> FeedPage:
    try:
        return feed.read(bootstrap.services(), after, limit, feed.types_chosen(types or ()))
    except CursorGone as error:
        fail(str(error), REFUSED)


def _cells(event: dict[str, Any]) -> tuple[int, str, str, str, str]:
    data = " ".join(f"{name}={value}" for name, value in event["data"].items() if value is not None)
    return int(event["sequence"]), event["time"], event["type"], event["subject"], data
