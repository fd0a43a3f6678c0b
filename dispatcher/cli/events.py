"""`dispatcher events …`: what the outside can hear."""

from __future__ import annotations

import json
import time
from math import inf
from typing import Annotated, Any

import typer

from dispatcher.cli.identity import services_for_all
from dispatcher.cli.output import (
    BAD_INPUT,
    REFUSED,
    Json,
    JsonLines,
    err,
    fail,
    out,
    plural,
    print_json,
    print_json_line,
    rows,
)
from dispatcher.events import event_files, event_sinks, feed
from dispatcher.events.event_sinks import SinkId
from dispatcher.events.feed import CursorGone, FeedPage
from dispatcher.events.file_columns import DATASETS
from dispatcher.events.file_manifests import end_of
from dispatcher.events.file_stores import StoreError
from dispatcher.runtime.event_settings import EventFileSettings
from dispatcher.runtime.services import Services

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
    services = services_for_all()
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
    cursor = feed.newest(services_for_all()) if after is None else after
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
    found = feed.verify(services_for_all(), after)
    if as_json:
        print_json({"events": found.events, "first": found.first, "last": found.last, "fault": found.fault})
    elif found.fault:
        err.print(found.fault, markup=False)
    else:
        out.print(f"{plural(found.events, 'event')}, from {found.first} to {found.last}: none is missing or changed")
    if found.fault:
        raise typer.Exit(REFUSED)


# -- files -------------------------------------------------------------------------------------------------------------

files = typer.Typer(help="Event files: messages, consent and campaign results of each hour or day.", no_args_is_help=True)
app.add_typer(files, name="files")


def _file_settings(services: Services) -> EventFileSettings:
    if services.event_files is None:
        fail("DISPATCHER_FILES_URL is not set: it names the folder or object storage of event files", BAD_INPUT)
    return services.event_files


@files.command("write")
def write_files(as_json: Json = False) -> None:
    """Write the files of all periods that are over, now. A worker does the same every minute."""
    services = services_for_all()
    _file_settings(services)
    periods = event_files.write(services, seconds_max=inf)
    status = event_sinks.status(services, SinkId.FILES)
    if as_json:
        print_json({"periods": periods, "error": status.error})
    elif periods:
        out.print(f"{plural(len(periods), 'period')} written, from {periods[0]} to {periods[-1]}")
    elif status.error is None:
        out.print("nothing is due, or a worker is writing it")
    if status.error is not None:
        err.print(f"the attempt failed: {status.error}; the next attempt goes on where this one ended", markup=False)
        raise typer.Exit(REFUSED)


@files.command("list")
def list_files(as_json: Json = False) -> None:
    """List the periods that are complete, the oldest first."""
    try:
        manifests = event_files.manifests(_file_settings(services_for_all()))
    except StoreError as error:
        fail(f"the store failed: {error}", REFUSED)
    if as_json:
        print_json([manifest.view() for manifest in manifests])
    elif manifests:
        names = tuple(dataset.name for dataset in DATASETS)
        cells = [
            (each.period, each.first_sequence, each.last_sequence, len(each.files), *map(each.rows, names)) for each in manifests
        ]
        rows("", ("period", "first event", "last event", "files", *names), cells)
    else:
        out.print("no period is complete")


@files.command("verify")
def verify_files(
    period: Annotated[str | None, typer.Option(help="Only this one, such as 2026-11-29 or 2026-11-29T13.")] = None,
    as_json: Json = False,
) -> None:
    """Check that no file is missing or changed, and that no event is missing between two periods."""
    services = services_for_all()
    if period is not None and end_of(period) is None:
        fail(f"--period is {period!r}: it must be a day such as 2026-11-29, or an hour such as 2026-11-29T13", BAD_INPUT)
    try:
        found = event_files.verify(services, _file_settings(services), period)
    except StoreError as error:
        fail(f"the store failed: {error}", REFUSED)
    if period is not None and not found.periods:
        fail(f"there is no period {period}", REFUSED)
    if as_json:
        print_json({"periods": found.periods, "files": found.files, "faults": list(found.faults)})
    else:
        for fault in found.faults:
            err.print(fault, markup=False)
        if not found.faults:
            out.print(f"{plural(found.periods, 'period')} with {plural(found.files, 'file')}: nothing is missing or changed")
    if found.faults:
        raise typer.Exit(REFUSED)


def _page(after: int, limit: int, types: list[str] | None) -> FeedPage:
    try:
        return feed.read(services_for_all(), after, limit, feed.types_chosen(types or ()))
    except CursorGone as error:
        fail(str(error), REFUSED)


def _cells(event: dict[str, Any]) -> tuple[int, str, str, str, str]:
    data = " ".join(f"{name}={value}" for name, value in event["data"].items() if value is not None)
    return int(event["sequence"]), event["time"], event["type"], event["subject"], data
