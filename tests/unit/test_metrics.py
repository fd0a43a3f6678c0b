"""Metrics of several processes: one target adds them up, and what ends leaves its counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GROUP = """
import os, sys
from pathlib import Path
import prometheus_client  # as Celery's command line does, before the mode is chosen
from dispatcher.runtime.metrics import RECORDER, exposition, record_pool, start_group

folder = Path(sys.argv[1])
registry = start_group(folder)

def child(number):
    from dispatcher.runtime.metric_families import HAND_OFF, MESSAGES
    RECORDER.count(MESSAGES, number, ("accepted", "email", "smtp", "service", ""))
    RECORDER.observe(HAND_OFF, [0.001, 0.2, 90.0], ("service",))
    record_pool({"pool_size": 2, "requests_num": 3, "requests_wait_ms": 500})
    RECORDER.flush(now=True)

def start(number):
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        child(number)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    return pid, done[1]

children = [start(2), start(5)]
print(exposition(registry))
print("ENDED")
for pid, pipe in children:
    os.write(pipe, b"x")
    os.waitpid(pid, 0)
print(exposition(registry))
"""


def test_a_worker_adds_up_its_processes_living_and_dead(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "counter_1.db").write_text("of an earlier run")
    program = (sys.executable, "-c", GROUP, str(tmp_path / "group"))
    living, _, ended = subprocess.run(program, capture_output=True, text=True, check=True).stdout.partition("ENDED")
    accepted = 'dispatcher_messages_total{channel="email",kind="service",provider="smtp",reason="",state="accepted"} 7.0\n'
    for text in (living, ended):
        assert accepted in text
        assert 'dispatcher_hand_off_seconds_bucket{kind="service",le="0.25"} 4.0\n' in text
        assert 'dispatcher_hand_off_seconds_bucket{kind="service",le="+Inf"} 6.0\n' in text
        assert "dispatcher_pool_wait_seconds_total 1.0\n" in text
    assert "dispatcher_pool_connections 4.0\n" in living
    assert "dispatcher_pool_connections 4.0\n" not in ended


IMPORTS = """
import sys
from dispatcher.cli.command_groups import command_line
command_line()
from dispatcher.runtime import metrics
print('prometheus_client' in sys.modules)
"""


def test_a_command_does_not_load_the_metrics_library() -> None:
    assert subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True).stdout == "False\n"
