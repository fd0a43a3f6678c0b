"""Faults: what is done to the running program, when each ended, and how many messages it may leave unresolved."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psutil
import psycopg

from dispatcher.devserver import supervisor
from tests.chaos.load import KINDS, OFFER, Load
from tests.chaos.program import BATCH_MESSAGES_MAX, CAMPAIGN_CHILDREN, LEASE_SECONDS, TRANSACTIONAL_CHILDREN, Program, repeat

FREEZE_SECONDS = LEASE_SECONDS + 2.0
ROWS = 5_000  # of a submit or import that is killed in the middle
THREADS = 20
COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that ended at `ended`. While `blind`, the sandbox did not read what reached it, so its times say nothing."""

    ended: float
    blind: tuple[float, float] | None = None
    errors: tuple[str, ...] = ()  # of faults that check something of their own


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `unresolved_max`: one batch for each worker child that it kills, freezes or leaves without an answer."""

    name: str
    strike: Callable[[Program, Load, Random], Struck]
    unresolved_max: int = 0


Targets = Callable[[Program, Random], list[psutil.Process]]


def _campaign_child(program: Program, rng: Random) -> list[psutil.Process]:
    children = program.process("campaign").children()
    return [rng.choice(children)] if children else program.family("campaign")


def _of(name: str) -> Targets:
    return lambda program, _: program.family(name)


def _only(name: str) -> Targets:
    return lambda program, _: [program.process(name)]


def _postmaster(program: Program, _: Random) -> list[psutil.Process]:
    return program.postgres()[:1]


def _kill(targets: Targets) -> Callable[[Program, Load, Random], Struck]:
    def strike(program: Program, _: Load, rng: Random) -> Struck:
        _signal(targets(program, rng), signal.SIGKILL)
        return Struck(time.time())

    return strike


def _kill_sandbox(program: Program, load: Load, rng: Random) -> Struck:
    struck = _kill(_of("sandbox"))(program, load, rng)
    program.calm()  # it starts without rules
    return struck


def _freeze(targets: Targets, *, blind: bool = False) -> Callable[[Program, Load, Random], Struck]:
    def strike(program: Program, _: Load, rng: Random) -> Struck:
        frozen, started = targets(program, rng), time.time()
        _signal(frozen, signal.SIGSTOP)
        time.sleep(FREEZE_SECONDS)
        _signal(reversed(frozen), signal.SIGCONT)
        ended = time.time()
        return Struck(ended, (started, ended + 1.0) if blind else None)

    return strike


def _signal(targets: Iterable[psutil.Process], number: int) -> None:
    for process in targets:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _empty_broker(program: Program, _: Load, __: Random) -> Struck:
    repeat(lambda: program.redis().flushall(), "FLUSHALL")
    return Struck(time.time())


def _cut_off(name: str) -> Callable[[Program, Load, Random], Struck]:
    def strike(program: Program, _: Load, rng: Random) -> Struck:
        program.proxies[name].cut()
        time.sleep(FREEZE_SECONDS)
        program.proxies[name].heal(forget=rng.random() < 0.5)
        return Struck(time.time())

    return strike


def _two_beats(program: Program, _: Load, __: Random) -> Struck:
    command = supervisor.beat()
    schedule = ("--schedule", str(program.home / "second-beat"))
    log = program.home / "log" / "second-beat.log"
    with log.open("ab") as file:
        second = subprocess.Popen((*command.argv, *schedule), stdout=file, stderr=file, env=dict(program.environ))
        time.sleep(FREEZE_SECONDS)
        second.terminate()
        second.wait()
    return Struck(time.time())


def _slow_provider(program: Program, _: Load, rng: Random) -> Struck:
    program.sandbox.set_faults([{"delay_seconds": rng.uniform(0.8, 1.4), "share": 0.6}])
    time.sleep(5.0)
    program.calm()
    return Struck(time.time())


def _repeated_events(program: Program, _: Load, __: Random) -> Struck:
    program.sandbox.set_events(out_of_order=True, duplicate_share=0.8)
    time.sleep(5.0)
    program.calm()
    return Struck(time.time())


# -- commands that are killed in the middle ----------------------------------------------------------------------------


def _command(program: Program, *words: str) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-c", "from dispatcher.cli import main; main()", *words)
    environ: Mapping[str, str] = {**program.environ, "PGAPPNAME": "chaos-victim"}
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ)


_IS_WRITING = (
    "SELECT 1 FROM pg_stat_activity WHERE application_name = 'chaos-victim' AND backend_xid IS NOT NULL"
    " AND query ~ 'incoming|audience_stage|consent_events|INTO (jobs|chunks|recipients)'"
)


def _kill_while_writing(program: Program, command: subprocess.Popen[bytes], rng: Random) -> str:
    """Kill a command once its transaction has written. Returns what went wrong, or ""."""
    deadline = time.monotonic() + COMMAND_SECONDS
    with psycopg.connect(program.database, autocommit=True) as connection:
        while connection.execute(_IS_WRITING).fetchone() is None:
            if command.poll() is not None or time.monotonic() > deadline:
                command.kill()
                return "the command ended before it could be killed"
    time.sleep(rng.uniform(0.0, 0.1))
    command.kill()
    command.communicate()
    return ""


def _finish(command: subprocess.Popen[bytes]) -> str:
    _, errors = command.communicate(timeout=COMMAND_SECONDS)
    return f"the repeated command ended with {command.returncode}: {errors.decode()[-300:]}" if command.returncode else ""


def _kill_submit(program: Program, _: Load, rng: Random) -> Struck:
    """A submission is there whole or not at all, and its repetition succeeds. All its people are in the control group."""
    name = f"killed-{rng.randrange(10**9)}"
    folder = program.home / "submissions"
    folder.mkdir(exist_ok=True)
    audience = folder / f"{name}.jsonl"
    audience.write_text("".join(json.dumps({"recipient": f"nobody-{n}", "data": OFFER}) + "\n" for n in range(ROWS)))
    form = {"id": name, "template": "loan_offer", "channels": ["email"], "holdout_percent": 100, "audience": str(audience)}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(form))
    errors = [_kill_while_writing(program, _command(program, "campaign", "submit", str(file)), rng)]
    rows = program.sql("SELECT fanned_out, (SELECT sum(size) FROM chunks k WHERE k.campaign_no = c.no) FROM campaigns c"
                       " WHERE id = %(id)s", {"id": name})  # fmt: skip
    if rows and rows != [(True, ROWS)]:
        errors.append(f"a part of the campaign was accepted: {rows}")
    errors.append(_finish(_command(program, "campaign", "submit", str(file))))
    return Struck(time.time(), errors=tuple(filter(None, errors)))


def _kill_import(program: Program, load: Load, rng: Random) -> Struck:
    """An import that was killed is complete after its repetition."""
    first = rng.randrange(10**6, 10**8)
    file = program.home / f"import-{first}.jsonl"
    people = [{"id": f"i-{first + n}", "person": "customer", "language": "nl", "offers": {"own": "standard"}} for n in range(ROWS)]
    file.write_text("".join(json.dumps(each) + "\n" for each in people))
    errors = [_kill_while_writing(program, _command(program, "recipients", "import", str(file)), rng)]
    errors.append(_finish(_command(program, "recipients", "import", str(file))))
    ids = [each["id"] for each in people]
    (count,) = program.sql("SELECT count(*) FROM recipients WHERE id = ANY(%(ids)s) AND consent_seq = 1", {"ids": ids})[0]
    if count != ROWS:
        errors.append(f"{count} of {ROWS} people are there with one choice each")
    load.journal.imports += 1
    return Struck(time.time(), errors=tuple(filter(None, errors)))


def _same_keys(program: Program, load: Load, rng: Random) -> Struck:
    """One trigger and one campaign, submitted by 20 threads at once: each is taken once."""
    people = load.people(11)
    name = f"same-{rng.randrange(10**9)}"
    job = {"key": name, "recipient": people[0], "template": "loan_offer", "channels": ["email"], "data": OFFER}
    rows = [{"recipient": each, "data": OFFER} for each in people[1:]]
    form = {"id": name, "template": "loan_offer", "channels": ["email"], "audience": rows}
    with ThreadPoolExecutor(THREADS) as pool:
        triggers = [pool.submit(program.insist, "POST", "/v1/messages", job) for _ in range(THREADS)]
        answers = {json.dumps(each.result(), sort_keys=True) for each in triggers}
        campaigns = [pool.submit(program.insist, "POST", "/v1/campaigns", form) for _ in range(THREADS)]
        more = {json.dumps(each.result(), sort_keys=True) for each in campaigns}
    load.journal.triggers[name] = people[0]
    load.journal.campaigns[name] = _FIRST
    errors = []
    if len(answers) != 1:
        errors.append(f"the same trigger got {len(answers)} answers")
    if len(more) != 1:
        errors.append(f"the same campaign got {len(more)} answers")
    return Struck(time.time(), errors=tuple(errors))


_FIRST = KINDS[0]
_ALL_CHILDREN = (CAMPAIGN_CHILDREN + TRANSACTIONAL_CHILDREN) * BATCH_MESSAGES_MAX
_CAMPAIGN_CHILDREN = CAMPAIGN_CHILDREN * BATCH_MESSAGES_MAX

FAULTS: tuple[Fault, ...] = (
    Fault("campaign child: kill -9", _kill(_campaign_child), BATCH_MESSAGES_MAX),
    Fault("campaign child: frozen", _freeze(_campaign_child), BATCH_MESSAGES_MAX),
    Fault("campaign worker: kill -9 of the parent", _kill(_only("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: kill -9 of all", _kill(_of("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: frozen", _freeze(_of("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: cut off from PostgreSQL", _cut_off("campaign"), _CAMPAIGN_CHILDREN),
    Fault("transactional worker: kill -9", _kill(_of("transactional")), BATCH_MESSAGES_MAX),
    Fault("transactional worker: frozen", _freeze(_of("transactional")), BATCH_MESSAGES_MAX),
    Fault("transactional worker: cut off from PostgreSQL", _cut_off("transactional"), BATCH_MESSAGES_MAX),
    Fault("beat: kill -9", _kill(_of("beat"))),
    Fault("beat: frozen", _freeze(_of("beat"))),
    Fault("beat: two at once", _two_beats),
    Fault("web: kill -9", _kill(_of("web"))),
    Fault("web: frozen", _freeze(_of("web"))),
    Fault("Valkey: kill -9", _kill(lambda program, _: program.valkey())),
    Fault("Valkey: frozen", _freeze(lambda program, _: program.valkey())),
    Fault("Valkey: emptied", _empty_broker),
    Fault("PostgreSQL: kill -9 of the postmaster", _kill(_postmaster), _ALL_CHILDREN),
    Fault("PostgreSQL: frozen", _freeze(lambda program, _: program.postgres()), _ALL_CHILDREN),
    Fault("sandbox: kill -9", _kill_sandbox, _ALL_CHILDREN),
    Fault("sandbox: frozen", _freeze(_of("sandbox"), blind=True), _ALL_CHILDREN),
    Fault("sandbox: slow", _slow_provider),
    Fault("webhooks: repeated, out of order", _repeated_events),
    Fault("submit: kill -9 in the middle", _kill_submit),
    Fault("import: kill -9 in the middle", _kill_import),
    Fault("same keys from 20 threads", _same_keys),
)
