"""Event files: each event is in exactly one period, whatever happens to workers, stores and files; and no address is in any."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import parquet

from dispatcher.campaigns import balance_events
from dispatcher.events import event_files, event_sinks, publication
from dispatcher.events.catalog import DATA
from dispatcher.events.event_sinks import SinkId
from dispatcher.events.file_columns import BY_FAMILY, DATASETS
from dispatcher.events.file_writers import WRITERS
from dispatcher.ledger.connection import lend
from dispatcher.ledger.events import stream
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import metrics, retention
from dispatcher.runtime.event_settings import EventFileSettings
from dispatcher.runtime.services import Services
from tests.integration.test_events import everything_once, say
from tests.support.command import run_command
from tests.support.feed import all_events
from tests.support.services import Clock, add_people, balance, make_services, person

HOUR = 3_600.0
FAMILIES = {"messages": "message", "consent": "consent", "campaigns": "balance"}
# A worker that is killed when it looks at the clock for the nth time: between any two steps. It has neither pyarrow nor fsspec.
WORKER = """
import os, signal, sys
sys.modules["pyarrow"] = sys.modules["fsspec"] = None
from dataclasses import replace
from datetime import datetime
from dispatcher.events import event_files
from dispatcher.runtime.event_settings import EventFileSettings
from tests.support.services import make_services
url, folder, now, left = sys.argv[1], sys.argv[2], datetime.fromisoformat(sys.argv[3]), int(sys.argv[4])
event_files.PART_EVENTS = 5
def clock():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return now
with make_services(url, lambda: now) as services:
    event_files.write(replace(services, clock=clock, event_files=EventFileSettings(folder, "hour")))
"""


@pytest.fixture
def services(database: str, tmp_path: Path) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, person("anna", 1), person("bert", 2), person("carl", 3, offers={"own": "none"}))
        yield replace(made, event_files=EventFileSettings(str(tmp_path / "lake"), "hour", ("csv", "parquet")))


def settings(services: Services) -> EventFileSettings:
    assert services.event_files is not None
    return services.event_files


def root(services: Services) -> Path:
    return Path(settings(services).url)


def clock(services: Services) -> Clock:
    assert isinstance(services.clock, Clock)
    return services.clock


def three_hours(services: Services) -> list[dict[str, Any]]:
    """Events of three hours, all over; the second hour has none. Returns the events."""
    everything_once(services)
    publication.publish(services)
    clock(services).pass_(2 * HOUR)
    for value in ("off", "on") * 6:
        say(services, "anna", "channel:push", value)
        publication.publish(services)
    balance_events.count_balances(services)
    found = all_events(services)
    clock(services).pass_(HOUR + 60)
    return found


def csv_rows(services: Services, dataset: str) -> list[dict[str, str]]:
    """The rows of the files that manifests name."""
    rows: list[dict[str, str]] = []
    for manifest in event_files.manifests(settings(services)):
        for file in manifest.files:
            if (file.dataset, file.format) == (dataset, "csv"):
                with (root(services) / file.name).open(encoding="utf-8", newline="") as lines:
                    rows += csv.DictReader(lines)
    return rows


def is_complete(services: Services, events: list[dict[str, Any]]) -> bool:
    """Whether each event is in one row."""
    return all(
        [int(row["sequence"]) for row in csv_rows(services, dataset)]
        == [int(event["sequence"]) for event in events if event["type"].split(".")[1] == family]
        for dataset, family in FAMILIES.items()
    )


def test_each_event_is_in_one_row_of_its_hour(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "PART_EVENTS", 5)
    events = three_hours(services)
    assert event_files.write(services) == ["2026-11-23T11", "2026-11-23T12", "2026-11-23T13"]
    assert is_complete(services, events)
    found = event_files.manifests(settings(services))
    assert [manifest.last_sequence + 1 for manifest in found[:-1]] == [manifest.first_sequence for manifest in found[1:]]
    assert (found[0].first_sequence, found[-1].last_sequence) == (1, len(events))
    assert (found[1].files, len(found[2].files) > 2) == ((), True)
    for manifest in found:  # published within
        with lend(services.pool) as connection:
            for number in {file.last_sequence for file in manifest.files}:
                at = stream.published_at(connection, number)
                assert at is not None
                assert datetime.fromisoformat(manifest.start) <= at < datetime.fromisoformat(manifest.end)
    assert event_files.verify(services, settings(services)).faults == ()
    assert event_files.write(services) == []


def test_rows_say_what_the_feed_says_in_both_formats(services: Services) -> None:
    events = three_hours(services)
    event_files.write(services)
    by_number = {int(event["sequence"]): event for event in events}
    for dataset in DATASETS:
        files = [file for each in event_files.manifests(settings(services)) for file in each.files if file.dataset == dataset.name]
        table = [
            row for file in files if file.format == "parquet" for row in parquet.read_table(root(services) / file.name).to_pylist()
        ]
        texts = csv_rows(services, dataset.name)
        assert table
        for row, text in zip(table, texts, strict=True):
            event = by_number[row["sequence"]]
            assert row["time"] == datetime.fromisoformat(event["time"])
            for name in row.keys() & event["data"].keys():
                wanted = event["data"][name]
                wanted = "|".join(wanted) if isinstance(wanted, list) else wanted
                assert (row[name].isoformat() if name == "said_at" else row[name]) == wanted
                assert text[name] == ("" if wanted is None else str(wanted))
    results = csv_rows(services, "campaigns")[-1]
    assert {state.value: int(results[state.value]) for state in balance(services).states} == balance(services).states


@pytest.mark.parametrize("looks", [4, 7, 9, 12])
def test_a_killed_worker_leaves_no_period_that_looks_whole(services: Services, database: str, looks: int) -> None:
    services = replace(services, event_files=replace(settings(services), formats=("csv",)))
    events = three_hours(services)
    command = (sys.executable, "-c", WORKER, database, str(root(services)), clock(services).now.isoformat(), str(looks))
    path = str(Path(__file__).parents[2])
    worker = subprocess.run(command, cwd=path, env={**os.environ, "PYTHONPATH": path}, check=False, timeout=300)
    assert worker.returncode == -signal.SIGKILL
    assert event_files.verify(services, settings(services)).faults == ()  # what has a manifest is whole
    assert len(event_files.manifests(settings(services))) < 3
    assert event_files.write(services) == []  # its lease has not ended
    with lend(services.pool) as connection:
        connection.execute("UPDATE event_sinks SET leased_until = '-infinity'")
    event_files.write(services)
    assert is_complete(services, events)
    assert event_files.verify(services, settings(services)).faults == ()


def test_verify_names_what_is_missing_or_changed(services: Services) -> None:
    three_hours(services)
    event_files.write(services)
    first, second, third = event_files.manifests(settings(services))
    (root(services) / first.files[0].name).unlink()
    with (root(services) / third.files[0].name).open("ab") as file:
        file.write(b"x")
    (root(services) / "manifests" / f"{second.period}.json").write_text(
        json.dumps({**second.view(), "first_sequence": second.first_sequence - 1})
    )
    faults = "\n".join(event_files.verify(services, settings(services)).faults)
    assert f"{first.files[0].name}: is missing" in faults
    assert f"{third.files[0].name}: was changed" in faults
    assert f"{second.period} begins with event" in faults
    assert "rows of" in faults
    assert event_files.verify(services, settings(services), third.period).periods == 1


def test_files_carry_no_address_and_no_text(services: Services) -> None:
    three_hours(services)
    event_files.write(services)
    files = [path.read_bytes() for path in root(services).rglob("*.csv")] + [
        path.read_bytes() for path in root(services).rglob("*.json")
    ]
    assert files
    for private in (b"example.org", b"Geheimtuin", b"32470", b"0815", b"wording-4711", b"device-"):
        assert not any(private in content for content in files)


def test_object_storage_gets_the_same_as_a_folder(services: Services, numbers: Iterator[int]) -> None:
    three_hours(services)
    event_files.write(services)
    place = f"/lake-{next(numbers)}/events"
    other = replace(services, event_files=replace(settings(services), url=f"memory:/{place}"))
    with lend(services.pool) as connection:
        connection.execute("DELETE FROM event_sinks")
    event_files.write(other)
    assert event_files.manifests(settings(other)) == event_files.manifests(settings(services))
    assert event_files.verify(other, settings(other)).faults == ()
    stored = {path.removeprefix(place) for path in MemoryFileSystem().find(place)}
    assert stored == {f"/{path.relative_to(root(services))}" for path in root(services).rglob("*.*") if path.is_file()}


def test_a_store_that_fails_is_shown_and_tried_again(services: Services) -> None:
    events = three_hours(services)
    root(services).write_text("a file where the folder should be")
    for _ in range(event_sinks.ALERT_AFTER_ATTEMPTS):
        assert event_files.write(services) == []
        clock(services).pass_(event_sinks.PAUSE_SECONDS_MAX)
    status, error = event_files.check(services)
    assert (status.error, error) == ("NotADirectoryError", "NotADirectoryError")
    (shown,) = metrics.collect(services).sinks
    assert (shown.id, shown.is_failing, shown.lag_events) == ("files", True, len(events))
    with lend(services.pool) as connection:
        assert ("files", "NotADirectoryError") in {(each.provider, each.code) for each in alerts.newest(connection)}
    root(services).unlink()
    assert len(event_files.write(services)) == 3
    assert is_complete(services, events)


def test_any_fault_of_a_step_is_a_failed_attempt(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    three_hours(services)
    with monkeypatch.context() as patch:
        patch.setitem(WRITERS, "csv", lambda _, __: dict[str, Any]()["anna@example.com"])
        assert event_files.write(services) == []
    status, _ = event_files.check(services)
    assert (status.error, status.sink and status.sink.attempts) == ("KeyError", 1)
    assert [each.is_failing for each in metrics.collect(services).sinks] == [True]
    clock(services).pass_(event_sinks.PAUSE_SECONDS_MAX)
    assert len(event_files.write(services)) == 3
    assert event_files.check(services)[0].overdue is None
    clock(services).pass_(2 * HOUR)
    assert event_files.check(services)[0].overdue is not None


@pytest.mark.parametrize("format_", WRITERS)
@pytest.mark.parametrize("family", BY_FAMILY)
def test_every_field_of_the_catalogue_can_be_written(tmp_path: Path, family: str, format_: str) -> None:
    """Also lists, objects, nulls, and events that are older than a field."""
    dataset = BY_FAMILY[family]
    model = DATA[dataset.family]
    event = {"sequence": "7", "time": "2026-11-29T03:00:00Z"}
    whole = {name: example(field.annotation) for name, field in model.model_fields.items()}
    empty = {name: None if type(None) in get_args(field.annotation) else whole[name] for name, field in model.model_fields.items()}
    old = {name: whole[name] for name, field in model.model_fields.items() if field.is_required()}
    writer = WRITERS[format_](tmp_path / "file", dataset.columns)
    for data in (whole, empty, old):
        writer.add(dataset.values({**event, "data": data}))
    writer.close()
    if format_ == "parquet":
        assert parquet.read_table(tmp_path / "file").num_rows == 3
    else:
        assert len((tmp_path / "file").read_text().splitlines()) == 4


def example(annotation: Any) -> Any:
    """A JSON value of a type."""
    if get_origin(annotation) in (Union, UnionType):
        return example(next(each for each in get_args(annotation) if each is not type(None)))
    type_ = get_origin(annotation) or annotation
    examples = {int: 5, float: 0.5, bool: True, datetime: "2026-11-29T03:00:00Z", list: ["a", "b"], dict: {"sent": 1}}
    return examples.get(type_, "text")


def test_days_follow_hours_without_a_gap(services: Services) -> None:
    events = three_hours(services)
    event_files.write(services)
    say(services, "anna", "channel:push", "off")
    daily = replace(services, event_files=replace(settings(services), every="day"))
    publication.publish(services)
    clock(services).pass_(86_400)
    assert event_files.write(daily) == ["2026-11-23"]
    last = event_files.manifests(settings(daily))[-1]
    assert datetime.fromisoformat(last.end) - datetime.fromisoformat(last.start) == timedelta(hours=10)
    assert event_files.verify(daily, settings(daily)).faults == ()
    assert is_complete(daily, [*events, *all_events(daily)[len(events) :]])


def test_events_that_retention_deleted_are_named_as_missing(services: Services) -> None:
    three_hours(services)
    assert event_sinks.take(services, SinkId.FILES) is not None
    with lend(services.pool) as connection:
        connection.execute("DELETE FROM published_events WHERE last = (SELECT min(last) FROM published_events)")
        connection.execute("UPDATE event_sinks SET leased_until = '-infinity'")
        oldest = stream.oldest(connection)
    event_files.write(services)
    assert event_files.manifests(settings(services))[0].missing == ((1, oldest - 1),)
    assert event_files.verify(services, settings(services)).faults == (
        f"2026-11-23T11: events 1 to {oldest - 1} were deleted before",
    )


def test_retention_deletes_whole_periods_and_no_younger_one(services: Services) -> None:
    three_hours(services)
    event_files.write(services)
    kept_for = services.policy.retention.event_files.days * 86_400
    clock(services).now = datetime.fromisoformat("2026-11-23T13:00:30+00:00") + timedelta(seconds=kept_for)
    due = {each.data.policy_key: each.overdue for each in retention.backlogs(services)}
    cleared = Counter({each.data.policy_key: each.cleared for each in retention.clear(services)})
    assert (due["event_files"], cleared["event_files"]) == (2, 2)
    assert [each.period for each in event_files.manifests(settings(services))] == ["2026-11-23T13"]
    assert {path.parent.name for path in root(services).rglob("*.csv")} == {"2026-11-23T13"}
    with lend(services.pool) as connection:
        connection.execute("UPDATE messages SET state = 'pending'")  # their events are gone, as they should be


def test_the_command_line_writes_lists_and_verifies(
    services: Services, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(services).now = datetime.now(clock(services).now.tzinfo) - timedelta(hours=5)
    three_hours(services)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(database, tmp_path, "events", "files", *arguments)

    unset = run("list")
    assert (unset.returncode, unset.stderr.startswith("DISPATCHER_FILES_URL is not set")) == (2, True)
    monkeypatch.setenv("DISPATCHER_FILES_URL", str(tmp_path / "lake"))
    monkeypatch.setenv("DISPATCHER_FILES_EVERY", "hour")
    assert len(json.loads(run("write", "--json").stdout)["periods"]) >= 3
    listed = json.loads(run("list", "--json").stdout)
    assert listed[0]["rows"]["messages"] > 0
    assert json.loads(run("verify", "--json").stdout)["faults"] == []
    (tmp_path / "lake" / listed[0]["files"][0]["name"]).unlink()
    broken = run("verify")
    assert (broken.returncode, "is missing" in broken.stderr) == (1, True)
    assert run("verify", "--period", "yesterday").returncode == 2
