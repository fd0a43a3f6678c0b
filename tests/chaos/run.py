"""A run: under a steady load, one fault after the other; after each, recovery, quiet and all checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance.metrics import metrics
from tests.chaos.checks import Checker
from tests.chaos.consumers import Consumers, follow
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.load import KINDS, Load
from tests.chaos.program import LEASE_SECONDS, ONE_MACHINE, Program, Topology, Unanswered, repeat, running_program
from tests.chaos.report import Report, Round
from tests.support.webhook_receiver import receiver

RECOVER_SECONDS_MAX = LEASE_SECONDS + 5.0
GIVE_UP_SECONDS = 60.0
LANES = ("transactional", "inbound", "campaign")
QUIET_SECONDS_MAX = 60.0
WARM_UP_SECONDS = (0.5, 2.5)  # of load before a fault


def chosen(rng: Random, count: int, faults: Sequence[Fault] = FAULTS) -> list[Fault]:
    """`count` faults in a random order; each kind comes again only after all others."""
    order: list[Fault] = []
    while len(order) < count:
        order += rng.sample(faults, len(faults))
    return order[:count]


def run(
    seed: int,
    faults: Sequence[Fault],
    progress: Callable[[str], None],
    group: int = 1,
    minutes: float = 60.0,
    recover_seconds_max: float = RECOVER_SECONDS_MAX,
    topology: Topology = ONE_MACHINE,
) -> Report:
    """Run these faults, `group` of them between two checks, until all are done or the time is over."""
    rng, report = Random(seed), Report(seed)
    end = time.monotonic() + 60 * minutes
    with receiver() as crm, running_program(topology) as program:
        program.calm()
        load = Load(program, Random(rng.random()))
        consumers = follow(program, crm)
        checker = Checker(program, load.journal, consumers)
        try:
            _recovery(program, load, time.time())  # all processes have started
            for start in range(0, len(faults), group):
                if time.monotonic() > end:
                    break
                one = _round(program, load, checker, rng, faults[start : start + group], recover_seconds_max)
                report.rounds.append(one)
                progress(_told(one, min(start + group, len(faults)), len(faults)))
        except KeyboardInterrupt:
            progress("stopped")
        finally:
            load.close()
            consumers.reader.close()
        report.measured = {
            "seconds from claim to arrival, at most": round(checker.hand_off_seconds_max, 3),
            "seconds from the answer to an opt-out to an arrival, at most": round(checker.after_opt_out_seconds_max, 3),
            "opt-outs and erasures": len(load.journal.opt_outs),
            "erasures": load.journal.erasures,
            "imports": load.journal.imports,
            "cancels": len(load.journal.cancels),
            "pauses": len(load.journal.pauses),
            "campaigns": len(load.journal.campaigns),
            "triggers": len(load.journal.triggers),
            "events": len(consumers.reader.events),
        }
        report.notes = program.notes
    return report


def _round(
    program: Program, load: Load, checker: Checker, rng: Random, faults: Sequence[Fault], recover_seconds_max: float
) -> Round:
    load.start()
    errors: list[str] = []
    recovery: list[float | None] = []
    for fault in faults:
        time.sleep(rng.uniform(*WARM_UP_SECONDS))
        struck = fault.strike(program, load, rng)
        errors += struck.errors
        if struck.blind is not None:
            checker.blind.append(struck.blind)
        recovery.append(_recovery(program, load, struck.ended))
    load.stop()
    wait_for_quiet(program, checker.consumers)
    return Round(
        faults=tuple(fault.name for fault in faults),
        recover_seconds=None if None in recovery else max(each for each in recovery if each is not None),
        recover_seconds_max=recover_seconds_max,
        unresolved_max=sum(fault.unresolved_max for fault in faults),
        errors=tuple(errors),
        findings=checker.check(),
    )


def _recovery(program: Program, load: Load, ended: float) -> float | None:
    """Seconds from the end of the fault until a new trigger and a new campaign have arrived and no claim from before is open."""
    try:
        people = load.people(3)
        key = load.trigger(people[0])
        campaign = load.submit(KINDS[0], people[1:])
    except Unanswered:
        return None
    while (waited := time.time() - ended) < GIVE_UP_SECONDS:
        if waited > RECOVER_SECONDS_MAX:
            load.hold()  # the promise is broken already; more work would only hide what follows
        _hasten(program)
        (rows,) = program.sql(
            "SELECT count(*) FILTER (WHERE state IN ('accepted', 'delivered', 'read', 'unresolved')"
            "   AND (campaign_no = (SELECT no FROM campaigns WHERE id = %(campaign)s)"
            "     OR chunk = (SELECT chunk FROM triggers WHERE key = %(key)s))),"
            " count(*) FILTER (WHERE state = 'claimed' AND claimed_at < to_timestamp(%(ended)s)) FROM messages",
            {"campaign": campaign, "key": key, "ended": ended},
        )
        if rows == (3, 0):
            return waited
        time.sleep(0.2)
    return None


def _hasten(program: Program) -> None:
    """What waits for its next attempt is tried soon: the run cannot wait for minutes. All attempts together outlast every fault."""
    program.sql(
        "UPDATE messages SET until = least(updated_at, now()) + interval '3 seconds'"
        " WHERE until > least(updated_at, now()) + interval '3 seconds'"
    )


def wait_for_quiet(program: Program, consumers: Consumers) -> None:
    """Until nothing is open any more and everything was told, or until the time is over: the checks name what is left."""
    deadline = time.monotonic() + QUIET_SECONDS_MAX
    while time.monotonic() < deadline:
        _hasten(program)
        if _is_quiet(program) and consumers.is_up_to_date():
            return
        time.sleep(0.3)


def _is_quiet(program: Program) -> bool:
    ((open_count,),) = program.sql(
        "SELECT (SELECT count(*) FROM campaigns WHERE state NOT IN ('finished', 'cancelled'))"
        " + (SELECT count(*) FROM chunks WHERE done_at IS NULL) + (SELECT count(*) FROM messages WHERE until IS NOT NULL)"
        " + (SELECT count(*) FROM messages WHERE state IN ('pending', 'claimed'))"
    )

    def unsettled() -> int:
        pending: int = program.sandbox.counts()["events"]["pending"]
        with lend(program.services.pool) as connection:
            waiting = program.waiting(LANES)
        return waiting + pending + metrics(connection, program.services.clock()).events_unsettled

    return not open_count and not repeat(unsettled, "events")


def _told(one: Round, number: int, count: int) -> str:
    found, broken = one.findings, one.broken()
    seconds = "never" if one.recover_seconds is None else f"{one.recover_seconds:.1f} s"
    line = (
        f"{number}/{count} {' + '.join(one.faults)}: {found.messages} messages, lost {len(found.lost)}, doubled"
        f" {len(found.doubled)}, late {len(found.late)}, unresolved {found.unresolved}, recovered after {seconds}"
    )
    return "\n".join([line, *(f"    {each}" for each in broken[:8])])
