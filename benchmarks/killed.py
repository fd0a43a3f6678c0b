"""The effect of `kill -9`: kill a worker of one process at work, and count the claims that are not settled."""

from __future__ import annotations

import os
import signal
import time

import psutil

from benchmarks.environment import BenchEnvironment, campaign_worker, database, wait_for
from benchmarks.throughput import submit
from channels.base import Channel
from dispatcher.campaigns import scheduler
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend

ROUNDS = 3  # a kill between two batches leaves no open claim


def measure(bench: BenchEnvironment, people: int) -> int:
    """The largest number of messages that one killed worker process left unresolved."""
    return max(_kill_once(bench, people) for _ in range(ROUNDS))


def _kill_once(bench: BenchEnvironment, people: int) -> int:
    from dispatcher import celery_app, tasks

    name = submit(bench.services, bench, Channel.PUSH, people)
    bench.forget_caps()
    with bench.running(campaign_worker(1)) as worker:
        tasks.publish(scheduler.due_chunks(bench.services))
        wait_for("the campaign's start", lambda: _count(name, "accepted") > people // 10, 60)
        parent = psutil.Process(worker)
        for process in (parent, *parent.children(recursive=True)):  # the parent first: it must not hand out a chunk again
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.5)  # PostgreSQL finishes the statements that they sent
        unknown = _count(name, "claimed")
    with lend(bench.services.pool) as connection:
        lifecycle.cancel(connection, name, bench.services.clock())
    celery_app.app.control.purge()
    return unknown


def _count(name: str, state: str) -> int:
    with database() as connection:
        row = connection.execute(
            "SELECT count(*) FROM messages m JOIN campaigns c ON c.no = m.campaign_no WHERE c.id = %s AND m.state = %s",
            (name, state),
        ).fetchone()
    return int(row[0]) if row else 0
