"""Faults: what is done to the running program, when each ended, and how many messages it may leave unresolved."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Any

import psutil
import psycopg

from channels.sandbox.events import MailEvents, mail_event
from channels.sandbox.keys import SendGridSigner
from dispatcher.devserver import supervisor
from tests.chaos.load import KINDS, OFFER, Load
from tests.chaos.program import (
    BROKERS,
    CAMPAIGN_CHILDREN,
    FIRST,
    IN_FLIGHT_MAX,
    LEASE_SECONDS,
    RABBITMQ,
    SECOND,
    TRANSACTIONAL_CHILDREN,
    VALKEY,
    Program,
    Topology,
    repeat,
)
from tests.support.rabbitmq import purge

FREEZE_SECONDS = LEASE_SECONDS + 2.0
ROWS = 5_000  # of an import that is killed in the middle
AUDIENCE = 25_000  # of a submit that is killed in the middle: three parts
THREADS = 20
BATCH_PEOPLE = 200
STARTS_SECONDS_MAX = 20.0
OPT_OUTS = 20  # the last of a batch: they are sent last
ANNOUNCE_STARTS = """
    CREATE OR REPLACE FUNCTION chaos_start() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF (SELECT count(*) FROM messages WHERE claim_no = NEW.claim_no) >= 50 THEN -- half a batch
            PERFORM pg_notify('chaos', NEW.claim_no::text);
        END IF;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER chaos AFTER INSERT ON claim_starts FOR EACH ROW EXECUTE FUNCTION chaos_start();
    LISTEN chaos
"""
FLOOD_EVENTS = 100_000
FLOOD_BATCH = 1_000  # the most that SendGrid posts at once
HOUR = 3600
COMMAND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that ended at `ended`. While `blind`, the sandbox did not read what reached it, so its times mean nothing."""

    ended: float
    blind: tuple[float, float] | None = None
    errors: tuple[str, ...] = ()  # of faults that check something of their own


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `unresolved_max`: one batch for each worker child that it kills, freezes or leaves without an answer.
    `brokers`: those with which it can happen."""

    name: str
    strike: Callable[[Program, Load, Random], Struck]
    unresolved_max: int = 0
    brokers: tuple[str, ...] = BROKERS
    machines: int = 1  # the fewest

    def is_possible(self, topology: Topology) -> bool:
        """Whether it can happen there."""
        return topology.broker in self.brokers and topology.machines >= self.machines


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


def _freeze_sender(targets: Targets) -> Callable[[Program, Load, Random], Struck]:
    """Freeze a worker just when a batch starts to leave. While it is frozen, some recipients of the batch opt out."""

    def strike(program: Program, load: Load, rng: Random) -> Struck:
        frozen = targets(program, rng)
        with psycopg.connect(program.database, autocommit=True) as connection:
            connection.execute(ANNOUNCE_STARTS.encode())
            load.submit(WHATSAPP, load.people(BATCH_PEOPLE))
            started = next(iter(connection.notifies(timeout=STARTS_SECONDS_MAX, stop_after=1)), None)
            _signal(frozen, signal.SIGSTOP)
            continued_at = time.monotonic() + FREEZE_SECONDS
            connection.execute("DROP TRIGGER chaos ON claim_starts")
        if started is None:
            _signal(reversed(frozen), signal.SIGCONT)
            return Struck(time.time(), errors=("no batch started",))
        claimed = program.sql("SELECT recipient_id FROM messages WHERE claim_no = %(no)s", {"no": int(started.payload)})
        for (recipient,) in claimed[-OPT_OUTS:]:
            load.opt_out(recipient)
        time.sleep(max(0.0, continued_at - time.monotonic()))
        _signal(reversed(frozen), signal.SIGCONT)
        return Struck(time.time())

    return strike


def _signal(targets: Iterable[psutil.Process], number: int) -> None:
    for process in targets:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _empty_broker(program: Program, _: Load, __: Random) -> Struck:
    repeat(lambda: program.redis().flushall(), "FLUSHALL")
    return Struck(time.time())


def _kill_rabbitmq(program: Program, _: Load, __: Random) -> Struck:
    """It ends when the node is back: Erlang takes seconds to start."""
    node = program.node
    assert node is not None
    node.kill()
    node.await_ready()
    return Struck(time.time())


def _empty_rabbitmq(program: Program, _: Load, __: Random) -> Struck:
    node = program.node
    assert node is not None
    repeat(lambda: purge(node.url), "purge")
    return Struck(time.time())


def _cut_off(name: str, *, forget: bool | None = None) -> Callable[[Program, Load, Random], Struck]:
    """`forget`: whether what was on its way is lost; None: one time in two."""

    def strike(program: Program, _: Load, rng: Random) -> Struck:
        program.proxies[name].cut()
        time.sleep(FREEZE_SECONDS)
        program.proxies[name].heal(forget=rng.random() < 0.5 if forget is None else forget)
        return Struck(time.time())

    return strike


def _cut_off_machine(name: str) -> Callable[[Program, Load, Random], Struck]:
    """What was on its way to a provider is lost, as behind a firewall; it would only arrive late."""

    def strike(program: Program, _: Load, __: Random) -> Struck:
        for proxy in program.machines[name]:
            proxy.cut()
        time.sleep(FREEZE_SECONDS)
        for proxy in program.machines[name]:
            proxy.heal(forget=True)
        return Struck(time.time())

    return strike


def _kill_second_machine(program: Program, _: Load, __: Random) -> Struck:
    for name in program.children.children:
        if name.endswith(SECOND):
            _signal(program.family(name), signal.SIGKILL)
    return Struck(time.time())


def _move_clock(name: str, seconds: int) -> Callable[[Program, Load, Random], Struck]:
    def strike(program: Program, _: Load, __: Random) -> Struck:
        if name not in program.clocks:
            return Struck(time.time(), errors=("not tried: clocks cannot be moved here",))
        program.clocks[name].move(seconds)
        time.sleep(FREEZE_SECONDS)
        program.clocks[name].move(0)
        return Struck(time.time())

    return strike


def _fill_disk(program: Program, _: Load, __: Random) -> Struck:
    if program.disk is None:
        return Struck(time.time(), errors=("not tried: no disk can be mounted here",))
    program.disk.fill()
    time.sleep(FREEZE_SECONDS)
    program.disk.empty()
    return Struck(time.time())


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


def _flood_of_events(program: Program, _: Load, rng: Random) -> Struck:
    """Events of all mails so far, each many times and in any order, as fast as the web application takes them."""
    rows = program.sql(
        "SELECT concat_ws('-', period, chunk, row, leg), receipt FROM messages"
        " WHERE channel = 'email' AND state IN ('accepted', 'delivered', 'read') AND receipt IS NOT NULL LIMIT 2000"
    )
    if not rows:
        return Struck(time.time(), errors=("no mail was accepted yet",))
    mails = [MailEvents(n, "", receipt, {"message_id": ref}, (), None) for n, (ref, receipt) in enumerate(rows)]
    now, signer = int(time.time()), SendGridSigner(program.home / "sandbox" / "event-key.pem")
    events = [mail_event(mail, kind, now) for mail in mails for kind in ("processed", "deferred", "delivered", "open")]
    many = list(islice(cycle(events), FLOOD_EVENTS))
    rng.shuffle(many)

    def post(batch: list[dict[str, Any]]) -> int:
        body, stamp = json.dumps(batch).encode(), str(int(time.time()))
        return program.post("/webhooks/sendgrid", body, {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": signer.sign(stamp, body),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        })  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        answers = Counter(pool.map(post, [many[n : n + FLOOD_BATCH] for n in range(0, len(many), FLOOD_BATCH)]))
    errors = tuple(f"{count} posts of events were answered with {status}" for status, count in answers.items() if status >= 300)
    return Struck(time.time(), errors=errors)


# -- commands that are killed in the middle ----------------------------------------------------------------------------


def _command(program: Program, *words: str) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-c", "from dispatcher.cli import main; main()", *words)
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(program.environ))


_IS_IMPORTING = (  # and has written; the load's own imports have the name "ledger"
    "SELECT 1 FROM pg_stat_activity WHERE application_name <> 'ledger' AND backend_xid IS NOT NULL AND query ~ 'incoming'"
)
_IS_LOADING = "SELECT 1 FROM audience_loads WHERE ended IS NULL"  # a part of an audience is in, and not all


def _kill_when(met: str, program: Program, command: subprocess.Popen[bytes], rng: Random) -> str:
    """Kill a command once a statement has rows. Returns what went wrong, or ""."""
    deadline = time.monotonic() + COMMAND_SECONDS
    with psycopg.connect(program.database, autocommit=True) as connection:
        while connection.execute(met.encode()).fetchone() is None:
            if command.poll() is not None or time.monotonic() > deadline:
                command.kill()
                _, text = command.communicate()
                return f"the command ended with {command.returncode} before it could be killed: {text.decode()[-300:]}"
    time.sleep(rng.uniform(0.0, 0.1))
    command.kill()
    command.communicate()
    return ""


def _finish(command: subprocess.Popen[bytes]) -> str:
    _, errors = command.communicate(timeout=COMMAND_SECONDS)
    return f"the repeated command ended with {command.returncode}: {errors.decode()[-300:]}" if command.returncode else ""


def _kill_submit(program: Program, _: Load, rng: Random) -> Struck:
    """A submission is complete or does not start, and its repetition completes it. All its people are in the control group."""
    name = f"killed-{rng.randrange(10**9)}"
    folder = program.home / "submissions"
    folder.mkdir(exist_ok=True)
    audience = folder / f"{name}.jsonl"
    audience.write_text("".join(json.dumps({"recipient": f"nobody-{n}", "data": OFFER}) + "\n" for n in range(AUDIENCE)))
    form = {"id": name, "template": "loan_offer", "channels": ["email"], "holdout_percent": 100, "audience": str(audience)}
    file = folder / f"{name}.json"
    file.write_text(json.dumps(form))
    errors = [_kill_when(_IS_LOADING, program, _command(program, "campaign", "submit", str(file)), rng)]
    rows = program.sql("SELECT fanned_out, (SELECT sum(size) FROM chunks k WHERE k.campaign_no = c.no) FROM campaigns c"
                       " WHERE id = %(id)s", {"id": name})  # fmt: skip
    if any(is_complete and count != AUDIENCE for is_complete, count in rows):
        errors.append(f"a part of the campaign was accepted: {rows}")
    errors.append(_finish(_command(program, "campaign", "submit", str(file))))
    jobs = program.sql("SELECT c.fanned_out, count(*), count(DISTINCT j.recipient_id) FROM campaigns c"
                       " JOIN jobs j ON j.campaign_no = c.no WHERE c.id = %(id)s GROUP BY 1", {"id": name})  # fmt: skip
    if jobs != [(True, AUDIENCE, AUDIENCE)]:
        errors.append(f"after the repetition the campaign has not each row once: {jobs}")
    return Struck(time.time(), errors=tuple(filter(None, errors)))


def _kill_import(program: Program, load: Load, rng: Random) -> Struck:
    """An import that was killed is complete after its repetition."""
    first = rng.randrange(10**6, 10**8)
    file = program.home / f"import-{first}.jsonl"
    people = [{"id": f"i-{first + n}", "person": "customer", "language": "nl", "offers": {"own": "standard"}} for n in range(ROWS)]
    file.write_text("".join(json.dumps(each) + "\n" for each in people))
    errors = [_kill_when(_IS_IMPORTING, program, _command(program, "recipients", "import", str(file)), rng)]
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


_FIRST, WHATSAPP = KINDS[0], KINDS[-1]
_ALL_CHILDREN = (CAMPAIGN_CHILDREN + TRANSACTIONAL_CHILDREN) * IN_FLIGHT_MAX
_CAMPAIGN_CHILDREN = CAMPAIGN_CHILDREN * IN_FLIGHT_MAX

FAULTS: tuple[Fault, ...] = (
    Fault("campaign child: kill -9", _kill(_campaign_child), IN_FLIGHT_MAX),
    Fault("campaign child: frozen", _freeze(_campaign_child), IN_FLIGHT_MAX),
    Fault("campaign worker: kill -9 of the parent", _kill(_only("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: kill -9 of all", _kill(_of("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: frozen", _freeze(_of("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: frozen while it sends", _freeze_sender(_of("campaign")), _CAMPAIGN_CHILDREN),
    Fault("campaign worker: cut off from PostgreSQL", _cut_off("campaign"), _CAMPAIGN_CHILDREN),
    Fault("transactional worker: kill -9", _kill(_of("transactional")), IN_FLIGHT_MAX),
    Fault("transactional worker: frozen", _freeze(_of("transactional")), IN_FLIGHT_MAX),
    Fault("transactional worker: cut off from PostgreSQL", _cut_off("transactional"), IN_FLIGHT_MAX),
    Fault("campaign worker: clock an hour ahead", _move_clock("campaign", HOUR)),
    Fault("campaign worker: clock an hour behind", _move_clock("campaign", -HOUR)),
    Fault("clock worker: kill -9", _kill(_of("clock"))),
    Fault("clock worker: clock an hour ahead", _move_clock("clock", HOUR)),
    Fault("maintenance worker: clock an hour ahead", _move_clock("maintenance", HOUR)),
    Fault("maintenance worker: cut off from PostgreSQL", _cut_off("maintenance")),
    Fault("beat: kill -9", _kill(_of("beat"))),
    Fault("beat: frozen", _freeze(_of("beat"))),
    Fault("beat: two at once", _two_beats),
    Fault("web: kill -9", _kill(_of("web"))),
    Fault("web: frozen", _freeze(_of("web"))),
    Fault("web: cut off from PostgreSQL", _cut_off("web")),
    Fault("Valkey: kill -9", _kill(lambda program, _: program.valkey())),
    Fault("Valkey: frozen", _freeze(lambda program, _: program.valkey())),
    Fault("Valkey: emptied", _empty_broker),
    Fault("RabbitMQ: kill -9", _kill_rabbitmq, brokers=(RABBITMQ,)),
    Fault("RabbitMQ: frozen", _freeze(lambda program, _: program.rabbitmq()), brokers=(RABBITMQ,)),
    Fault("RabbitMQ: emptied", _empty_rabbitmq, brokers=(RABBITMQ,)),
    Fault("RabbitMQ: cut off from all", _cut_off("broker"), brokers=(RABBITMQ,)),
    Fault("Valkey: cut off from all", _cut_off("broker"), brokers=(VALKEY,)),
    Fault("PostgreSQL: disk full", _fill_disk, _ALL_CHILDREN),
    Fault("PostgreSQL: kill -9 of the postmaster", _kill(_postmaster), _ALL_CHILDREN),
    Fault("PostgreSQL: frozen", _freeze(lambda program, _: program.postgres()), _ALL_CHILDREN),
    Fault("sandbox: kill -9", _kill_sandbox, _ALL_CHILDREN),
    Fault("sandbox: frozen", _freeze(_of("sandbox"), blind=True), _ALL_CHILDREN),
    Fault("sandbox: cut off from all", _cut_off("provider", forget=True), _ALL_CHILDREN),
    Fault("sandbox: slow", _slow_provider),
    Fault("webhooks: repeated, out of order", _repeated_events),
    Fault("webhooks: 100,000, repeated, out of order", _flood_of_events),
    Fault("submit: kill -9 in the middle", _kill_submit),
    Fault("import: kill -9 in the middle", _kill_import),
    Fault("same keys from 20 threads", _same_keys),
    Fault(f"{FIRST}: cut off from all", _cut_off_machine(FIRST), _ALL_CHILDREN, machines=2),
    Fault(f"{SECOND}: cut off from all", _cut_off_machine(SECOND), _ALL_CHILDREN, machines=2),
    Fault(f"{SECOND}: kill -9 of all", _kill_second_machine, _ALL_CHILDREN, machines=2),
)
