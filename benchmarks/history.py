"""`make bench ARGS=--history`: look-ups and the cost of a message on a ledger with a year of campaigns, against an empty one.

A real campaign is sent first. SQL then copies its rows into the past, so that each old row is as large as a real one. Provider
events and the outbox are not copied: no measured statement scans them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from benchmarks import stage_costs
from benchmarks.environment import BenchEnvironment, database, log_progress
from benchmarks.stage_costs import SendSetup
from channels.base import Channel
from dispatcher.domain.message import State
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.balance import balance
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery import dead_letters, message_list, messages
from dispatcher.ledger.delivery.message_list import MessageFilter
from dispatcher.ledger.partitions import ensure_period, period_of

SAMPLE = 1_000  # messages of the real campaign
CAMPAIGN = 50_000  # messages of an old one
LARGE = 300_000  # of the one whose balance is counted
FIRST_OLD = 1_000_000  # the number of an old campaign, so that it is no real one's
MOMENTS = ("created_at", "started_at", "finished_at", "claimed_at", "accepted_at", "updated_at", "due_at", "done_at")
CAP_DAYS = 90
STRIDE = 7_919  # prime: campaigns address people in no order
REPEATS = 15  # of a look-up
STAGED = 3_000  # messages of a run
RUNS = 3
GOALS_MS: Mapping[str, float] = {
    "message of a campaign and a person": 5,
    "dead list": 20,
    f"balance of a campaign of {LARGE:,}": 50,
    "messages of a person": 50,
    "failed messages of a campaign": 50,
}


@dataclass(frozen=True, slots=True)
class HistorySize:
    """How much the ledger remembers."""

    messages: int
    people: int


FULL = HistorySize(5_000_000, 1_000_000)
SMALL = HistorySize(600_000, 400_000)


def measure(bench: BenchEnvironment, size: HistorySize) -> dict[str, Any]:
    """Milliseconds of each look-up, and the cost of a message on the old ledger relative to the empty one."""
    setup = SendSetup(Channel.PUSH)
    stage_costs.measure(bench, setup, SAMPLE)
    empty = _cost_us(bench, setup)
    with database() as connection:
        _build(connection, size)
    look_ups = {name: _median_ms(look_up) for name, look_up in _look_ups(bench).items()}
    for name, milliseconds in look_ups.items():
        log_progress(f"{name}: {milliseconds:.1f} ms, the goal is {GOALS_MS[name]:.0f}")
    old = _cost_us(bench, setup)
    log_progress(f"a push on the old ledger: {old:.0f} µs, {old / empty - 1:+.0%} against the empty one")
    return {"messages": size.messages, "people": size.people, "look_ups_ms": look_ups, "empty_us": empty, "old_us": old}


def _cost_us(bench: BenchEnvironment, setup: SendSetup) -> float:
    """The best of some runs: other load can only add time."""
    return min(stage_costs.measure(bench, setup, STAGED).total_us for _ in range(RUNS))


# -- the past ----------------------------------------------------------------------------------------------------------


def _build(connection: Connection, size: HistorySize) -> None:
    started = time.monotonic()
    connection.execute("SET session_replication_role = replica")  # without triggers: the past is published already
    ((sample,),) = connection.execute("SELECT min(no) FROM campaigns").fetchall()
    people = f"id IN (SELECT recipient_id FROM jobs WHERE campaign_no = {sample})"
    for table, condition in {"recipients": people, "campaigns": f"no = {sample}"}.items():
        connection.execute(f"CREATE TEMP TABLE sample_{table} AS SELECT * FROM {table} WHERE {condition}")
    for table in ("chunks", "jobs", "messages"):
        connection.execute(f"CREATE TEMP TABLE sample_{table} AS SELECT * FROM {table} WHERE campaign_no = {sample}")
    connection.execute("ALTER TABLE sample_recipients ADD COLUMN place serial")
    _copy_people(connection, size.people)
    sizes = [CAMPAIGN] * (max(0, size.messages - LARGE) // CAMPAIGN) + [LARGE]
    for number, rows in enumerate(sizes, start=1):
        day = datetime.now(UTC) - timedelta(days=365 * (len(sizes) - number) / len(sizes))
        ensure_period(connection, period_of(day))
        _copy_campaign(connection, OldCampaign(number, rows, size.people, day))
        if number % 10 == 0:
            log_progress(f"an old ledger: campaign {number} of {len(sizes)}")
    connection.execute("VACUUM ANALYZE")
    log_progress(f"an old ledger of {size.messages:,} messages: {time.monotonic() - started:.0f} s")


def _copy_people(connection: Connection, people: int) -> None:
    changed = {"id": "'c-' || n.number", "email": "n.number || '@example.org'"}
    for name in ("email", "phone", "whatsapp"):
        changed[f"{name}_key"] = f"sha256(convert_to(n.number::text || '{name}', 'utf8'))"
    source = f"generate_series(0, {people - 1}) AS n (number) JOIN sample_recipients s ON s.place = n.number % {SAMPLE} + 1"
    _copy(connection, "recipients", changed, f"{source} ON CONFLICT (id) DO NOTHING")


@dataclass(frozen=True, slots=True)
class OldCampaign:
    """The n-th campaign of the past: its size, the number of people there are, and its day."""

    number: int
    rows: int
    people: int
    day: datetime


def _copy_campaign(connection: Connection, old: OldCampaign) -> None:
    """The sample's rows, once for each thousand."""
    no, period, moment = FIRST_OLD + old.number, period_of(old.day), f"'{old.day.isoformat()}'::timestamptz"
    changed = {"period": str(period), "campaign_no": str(no), **dict.fromkeys(MOMENTS, moment)}
    campaign = {**changed, "no": str(no), "id": f"'old-{old.number}'"}
    _copy(connection, "campaigns", campaign, "sample_campaigns s")
    thousands = f"generate_series(1, {old.rows // SAMPLE}) AS n (number)"
    row = f"{old.number}::bigint * {CAMPAIGN} + n.number * {SAMPLE} + s.row"
    chunk = {"chunk": f"{no}::bigint * 1000 + n.number"}
    job = {**chunk, "recipient_id": f"'c-' || ({row}) * {STRIDE} % {old.people}"}
    state = f"CASE s.row % 100 WHEN 0 THEN '{State.FAILED}' WHEN 1 THEN '{State.BOUNCED}' ELSE '{State.DELIVERED}' END"
    for table, fields in {"chunks": chunk, "jobs": job, "messages": {**job, "state": state}}.items():
        _copy(connection, table, {**changed, **fields}, f"sample_{table} s, {thousands}")
    if datetime.now(UTC) - old.day < timedelta(days=CAP_DAYS):
        connection.execute(
            "INSERT INTO cap_reservations (recipient_id, at, channel, offer_type, chunk, row, leg)"
            f" SELECT recipient_id, {moment}, 'push', 'own', chunk, row, leg FROM messages"
            f" WHERE (period, campaign_no) = ({period}, {no})"
        )


def _copy(connection: Connection, table: str, changed: Mapping[str, str], source: str) -> None:
    """Insert the rows of the source `s`, with other values for some columns."""
    names = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = current_schema()", (table,)
    ).fetchall()
    columns = {name: changed.get(name, f"s.{name}") for (name,) in names}
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE SELECT {', '.join(columns.values())} FROM {source}"
    )


# -- look-ups ----------------------------------------------------------------------------------------------------------


def _look_ups(bench: BenchEnvironment) -> dict[str, Callable[[], object]]:
    with lend(bench.services.pool) as connection:
        ((old, recipient),) = connection.execute(
            "SELECT c.id, j.recipient_id FROM campaigns c JOIN jobs j ON j.campaign_no = c.no WHERE c.id = 'old-2' LIMIT 1"
        ).fetchall()
        ((large,),) = connection.execute("SELECT id FROM campaigns WHERE no >= 1000000 ORDER BY no DESC LIMIT 1").fetchall()
        campaign = lifecycle.find(connection, large)
        assert campaign is not None

    def on_ledger(look_up: Callable[..., object], *arguments: object) -> object:
        with lend(bench.services.pool) as connection:
            return look_up(connection, *arguments)

    return dict(
        zip(
            GOALS_MS,
            (
                partial(on_ledger, messages.of_campaign, old, recipient),
                partial(on_ledger, dead_letters.newest, None, 50),
                partial(on_ledger, balance, campaign),
                partial(on_ledger, message_list.page, MessageFilter(recipient=recipient), None, 50),
                partial(on_ledger, message_list.page, MessageFilter(campaign=large, state=State.FAILED), None, 50),
            ),
            strict=True,
        )
    )


def _median_ms(look_up: Callable[[], object]) -> float:
    look_up()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        look_up()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
