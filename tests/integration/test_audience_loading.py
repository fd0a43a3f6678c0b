"""Audiences are loaded in parts: an interrupted load goes on, nothing starts before the last row, and all rows are in once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from channels.send_window import boot_seconds
from dispatcher import celery_app, tasks
from dispatcher.campaigns import actions, overview, scheduler, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import CampaignRequest, parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import audit
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import DeliveryLimits, Services
from tests.support.services import TEMPLATES, Clock, add_people, balance, make_services, person, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
ROWS = 95
PART = 10


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield replace(made, limits=DeliveryLimits(part_rows=PART), monotonic_clock=Ticks())


class Ticks:
    """A clock for steps: each look at it takes a second."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        self.now += 1
        return self.now


def row(number: int, **data: Any) -> dict[str, Any]:
    return {"recipient": f"c-{number}", "data": {**OFFER, **data}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "audience.jsonl"
    write(path, ROWS)
    return path


def write(path: Path, count: int, more: str = "") -> None:
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(count)) + more)


def request(audience: Any, **changes: Any) -> CampaignRequest:
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": audience, **changes}
    if isinstance(audience, Path):
        return parse_request({**form, "audience": str(audience)}, AudienceSources(audience.parent))
    return parse_request(form)


def campaign(services: Services, campaign_id: str = "spring") -> Campaign:
    found = overview.find(services, campaign_id)
    assert found is not None
    return found


def rows_in(services: Services) -> list[tuple[str, int]]:
    """Recipient and line of each job that is the first for its recipient."""
    with lend(services.pool) as connection:
        found = connection.execute("SELECT recipient_id, line FROM jobs WHERE repeat_of IS NULL ORDER BY line").fetchall()
    return [(recipient_id, line) for recipient_id, line in found]


def left_behind(services: Services) -> int:
    """Rows of everything that a submission writes."""
    with lend(services.pool) as connection:
        tables = ("campaigns", "chunks", "jobs", "audience_faults", "audience_loads")
        return sum(connection.execute(f"SELECT FROM {table}").rowcount for table in tables)


ALL = [(f"c-{number}", number + 1) for number in range(ROWS)]


def die(done_rows: int) -> Callable[[int], None]:
    """A process that is killed once so many rows are in."""

    def check(taken: int) -> None:
        if taken >= done_rows:
            raise SystemExit

    return check


def test_a_load_that_takes_many_steps_goes_in(services: Services, file: Path) -> None:
    """Each step commits what it has read; none is longer than its limit."""
    add_people(services, *(person(f"c-{number}") for number in range(ROWS)))
    result = submission.accept(services, request(file), seconds_max=2.5)
    steps, sizes = 1, [result.audience]
    while result.status is SubmitStatus.LOADING:
        assert campaign(services).is_loading
        assert scheduler.due_chunks(services) == []  # nothing starts before all rows are in
        assert result.load is not None
        result = submission.load_some(services, result.load, seconds_max=2.5)
        steps, sizes = steps + 1, [*sizes, result.audience]
    assert result.status is SubmitStatus.NEW
    assert steps > 2
    assert sizes == sorted(sizes)
    assert rows_in(services) == ALL
    assert campaign(services).fanned_out
    work(replace(services, monotonic_clock=boot_seconds))
    assert balance(services).states[State.ACCEPTED] == ROWS


def test_only_the_first_thousand_unreadable_rows_are_kept(services: Services) -> None:
    submission.accept(services, request([1] * 2_500))
    assert campaign(services).invalid == 2_500
    assert [line for line, _, _ in overview.unreadable_rows(services, campaign(services), 5_000)] == list(range(1, 1_001))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("where", [9, 50, 80])
def test_a_killed_load_goes_on_after_the_last_part(services: Services, tmp_path: Path, suffix: str, where: int) -> None:
    """The sweep finds it, and invalid, blank and many-line rows keep their lines."""
    clock = services.clock
    assert isinstance(clock, Clock)
    path = tmp_path / f"audience{suffix}"
    if suffix == ".csv":
        lines = [f'"c-{n}","solar\npanels",9000,{OFFER["offer_url"]}\n' + "\n" * (n % 3) for n in range(ROWS)]
        lines[7] = "c-7,short\n"
        path.write_text("recipient,data.project,data.amount,data.offer_url\n" + "".join(lines))
    else:
        lines = [json.dumps(row(n)) + "\n" + "\n" * (n % 3) for n in range(ROWS)]
        lines[7] = '{"recipient": \n'
        path.write_text("".join(lines))
    reference = submission.accept(services, request(path, id="whole"))
    with lend(services.pool) as connection:
        expected = rows_in(services), connection.execute("SELECT line, field, message FROM audience_faults").fetchall()
        digest = connection.execute("SELECT digest FROM campaigns").fetchone()

    with pytest.raises(SystemExit):
        submission.accept(services, request(path), die(where))
    assert campaign(services).is_loading
    assert submission.take_stalled(services) == []  # it may still be at work
    clock.pass_(20)
    [number] = submission.take_stalled(services)
    assert submission.take_stalled(services) == []
    clock.pass_(20)
    result = submission.load_some(services, number)
    assert (result.status, result.audience, result.invalid) == (SubmitStatus.NEW, reference.audience, reference.invalid)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET state = 'cancelled' WHERE id = 'whole'")
        of_it = connection.execute(
            "SELECT recipient_id, line FROM jobs JOIN campaigns c ON c.no = campaign_no WHERE c.id = 'spring' ORDER BY line"
        ).fetchall()
        errors = connection.execute(
            "SELECT line, field, message FROM audience_faults JOIN campaigns c ON c.no = campaign_no WHERE c.id = 'spring'"
        ).fetchall()
        assert connection.execute("SELECT digest FROM campaigns WHERE id = 'spring'").fetchone() == digest
    assert (of_it, errors) == expected
    assert submission.accept(services, request(path)).status is SubmitStatus.KNOWN


def test_a_stalled_load_goes_on_as_soon_as_the_sweep_finds_it(services: Services, file: Path) -> None:
    write(file, ROWS)
    with pytest.raises(SystemExit):
        submission.accept(services, request(file, send_at="2027-06-01T11:00:00Z"), die(40))
    services.clock.pass_(20)  # type: ignore[attr-defined]
    [number] = submission.take_stalled(services)
    services.clock.pass_(0.1)  # type: ignore[attr-defined]
    celery_app._per_thread.services = services
    try:
        tasks.load_audience.apply(args=(number, True), throw=True)
    finally:
        del celery_app._per_thread.services
    assert rows_in(services) == ALL


def test_a_recipient_who_is_named_in_two_parts_is_a_duplicate(services: Services, file: Path) -> None:
    write(file, ROWS, json.dumps(row(3)) + "\n")
    result = submission.accept(services, request(file), seconds_max=0)
    while result.load is not None:
        result = submission.load_some(services, result.load, seconds_max=0)
    assert (result.status, result.audience) == (SubmitStatus.NEW, ROWS + 1)
    assert rows_in(services) == ALL


def test_the_submitter_comes_back_and_goes_on(services: Services) -> None:
    """Rows that only the submitter has: the same submission again is the next step."""
    clock = services.clock
    assert isinstance(clock, Clock)
    rows = [row(number) for number in range(ROWS)]
    with pytest.raises(SystemExit):
        submission.accept(services, request(rows), die(40))
    assert submission.accept(services, request(rows)).status is SubmitStatus.LOADING  # the first may still be at work
    assert submission.accept(services, request(rows, priority=9)).status is SubmitStatus.CONFLICT
    assert submission.accept(services, request([row(1), *rows[1:]])).status is SubmitStatus.CONFLICT
    assert submission.accept(services, request(rows[:30])).status is SubmitStatus.CONFLICT
    clock.pass_(20)
    assert submission.take_stalled(services) == []  # no worker has its rows
    assert submission.accept(services, request(rows, priority=5)).status is SubmitStatus.NEW
    assert rows_in(services) == ALL
    assert submission.accept(services, request(rows)).status is SubmitStatus.KNOWN
    assert submission.accept(services, request([*rows, row(1)])).status is SubmitStatus.CONFLICT


def test_a_redelivered_message_goes_on_at_once(services: Services) -> None:
    rows = [row(number) for number in range(ROWS)]
    with pytest.raises(SystemExit):
        submission.accept(services, request(rows), die(40))
    services.clock.pass_(0.1)  # type: ignore[attr-defined]
    assert submission.accept(services, request(rows), is_redelivered=True).status is SubmitStatus.NEW
    assert rows_in(services) == ALL


def test_two_processes_at_once_write_each_row_once(services: Services, file: Path) -> None:
    """A process that was frozen finds at its next part that another one has gone on."""
    other: list[submission.SubmitResult] = []

    def overtake(taken: int) -> None:
        if taken == 40 and not other:
            services.clock.pass_(20)  # type: ignore[attr-defined]
            other.append(submission.accept(services, request(file), seconds_max=3))

    first = submission.accept(services, request(file), overtake)
    assert (first.status, other[0].status) == (SubmitStatus.LOADING, SubmitStatus.LOADING)
    assert other[0].load is not None
    while other[-1].load is not None:
        other.append(submission.load_some(services, other[-1].load))
    assert other[-1].status is SubmitStatus.NEW
    assert rows_in(services) == ALL


def test_what_cannot_be_read_at_the_end_leaves_nothing(services: Services, file: Path) -> None:
    def fail(taken: int) -> None:
        if taken == 90:
            raise BadInput

    with pytest.raises(BadInput):
        submission.accept(services, request(file), fail)
    assert left_behind(services) == 0
    assert submission.accept(services, request(file)).status is SubmitStatus.NEW
    assert rows_in(services) == ALL


def test_an_interrupted_command_leaves_nothing(services: Services, file: Path) -> None:
    def interrupt(taken: int) -> None:
        if taken == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submission.accept(services, request(file), interrupt)
    assert left_behind(services) == 0


def test_a_refused_load_that_was_killed_is_deleted_by_the_sweep(services: Services, file: Path) -> None:
    result = submission.accept(services, request(file), seconds_max=0)
    with lend(services.pool) as connection:
        connection.execute("UPDATE audience_loads SET ended = 'refused'")
        connection.execute("UPDATE campaigns SET state = 'cancelled'")
    assert result.load is not None
    assert submission.load_some(services, result.load).load is None
    sweep.sweep(services)
    assert left_behind(services) == 0


def test_a_file_that_changes_between_two_steps_is_refused(services: Services, file: Path) -> None:
    result = submission.accept(services, request(file), seconds_max=0)
    assert result.load is not None
    write(file, ROWS + 1)
    with pytest.raises(BadInput, match="was changed while it was being loaded"):
        submission.load_some(services, result.load)
    assert left_behind(services) == 0


def test_a_load_whose_file_is_gone_ends_with_a_note(services: Services, file: Path) -> None:
    clock = services.clock
    assert isinstance(clock, Clock)
    result = submission.accept(services, request(file), seconds_max=0)
    assert result.load is not None
    file.unlink()
    clock.pass_(20)
    assert submission.load_some(services, result.load).load is None
    sweep.sweep(services)
    assert campaign(services).is_loading  # its disk may come back
    clock.pass_(6 * 3_600)
    sweep.sweep(services)
    sweep.sweep(services)
    ended = campaign(services)
    assert (ended.state, ended.audience) == (CampaignState.CANCELLED, 0)
    assert "while its audience was loaded: after row 20" in ended.note
    assert rows_in(services) == []
    with lend(services.pool) as connection:
        assert audit.verify(connection, services.secret, clock(), 60) == []
    write(file, ROWS)
    assert submission.accept(services, request(file)).status is SubmitStatus.KNOWN  # as each cancelled campaign
    assert submission.accept(services, request(file, priority=9)).status is SubmitStatus.CONFLICT


def test_people_can_cancel_a_load_and_nothing_else(services: Services, file: Path) -> None:
    result = submission.accept(services, request(file), seconds_max=0)
    assert result.load is not None
    for action in (CampaignAction.PAUSE, CampaignAction.RELEASE):
        refused = actions.apply(services, "spring", action, "Bea")
        assert refused is not None
        assert refused.refusal is not None
    cancelled = actions.apply(services, "spring", CampaignAction.CANCEL, "Bea")
    assert cancelled is not None
    assert cancelled.refusal is None
    assert submission.load_some(services, result.load).load is None
    sweep.sweep(services)
    services.clock.pass_(7 * 3_600)  # type: ignore[attr-defined]
    sweep.sweep(services)
    ended = campaign(services)
    assert (ended.state, ended.audience, ended.note) == (CampaignState.CANCELLED, 2 * PART, "")
    assert balance(services).states[State.CANCELLED] == 2 * PART


def test_a_large_audience_awaits_its_release_once_it_is_complete(services: Services, file: Path) -> None:
    strict = replace(services, policy=replace(services.policy, four_eyes_audience_min=50))
    result = submission.accept(strict, request(file), seconds_max=0)
    while result.load is not None:
        assert campaign(services).state is CampaignState.SCHEDULED
        result = submission.load_some(strict, result.load, seconds_max=0)
    assert campaign(services).state is CampaignState.AWAITING_RELEASE


def test_workers_cannot_delete_a_complete_audience(services: Services, file: Path) -> None:
    submission.accept(services, request(file))
    with lend(services.pool) as connection:
        no = campaign(services).no
        connection.execute("UPDATE campaigns SET state = 'cancelled'")
        connection.execute("UPDATE audience_loads SET ended = 'refused'")
        connection.execute("SELECT unload_audience(%s, 100)", (no,))
    assert rows_in(services) == ALL


PROGRAM = """
import sys
from pathlib import Path
from dispatcher.campaigns import submission
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import parse_request
from dispatcher.runtime import bootstrap

form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": sys.argv[1]}
services = bootstrap.services()
submission.accept(services, parse_request(form, AudienceSources(services.audiences)), by="celery")
"""


def test_a_killed_process_leaves_a_load_that_goes_on(database: str, tmp_path: Path) -> None:
    """A real process and a real kill, in the middle of a part or between two."""
    path = tmp_path / "audiences" / "audience.jsonl"
    path.parent.mkdir()
    count = 60_000
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(count)))
    environ = {
        **os.environ,
        "DISPATCHER_HOME": str(tmp_path),
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_SECRET_KEY": "a-secret-of-the-tests-that-is-long-enough",
        "DISPATCHER_TEMPLATES": str(TEMPLATES),
    }
    with make_services(database) as still:
        services = replace(still, clock=lambda: datetime.now(UTC))
        child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], env=environ)
        try:
            deadline = time.monotonic() + 60
            while not (found := overview.find(services, "spring")) or found.audience < 20_000:
                assert child.poll() is None and time.monotonic() < deadline  # noqa: PT018
                time.sleep(0.01)
            os.kill(child.pid, signal.SIGKILL)
        finally:
            child.wait(10)
        before = campaign(services).audience
        assert before % 10_000 == 0
        assert 0 < before < count
        later = replace(services, clock=lambda: datetime.now(UTC).replace(year=datetime.now(UTC).year + 1))
        [number] = submission.take_stalled(later)
        with suppress(BadInput):
            later = replace(later, clock=lambda: datetime.now(UTC).replace(year=datetime.now(UTC).year + 2))
            assert submission.load_some(later, number).status is SubmitStatus.NEW
        assert rows_in(services) == [(f"c-{number}", number + 1) for number in range(count)]
        assert submission.accept(services, request(path)).status is SubmitStatus.KNOWN
