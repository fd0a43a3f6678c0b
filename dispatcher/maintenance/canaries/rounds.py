"""The rounds: switch a canary on, send it jobs, opt out, send it more jobs, measure. One step at a time, so that no task is long.

A step is taken before it is done, and of several processes one takes it: what a lost worker had begun is never repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

import structlog

from dispatcher.consent.acknowledgement import Publish
from dispatcher.domain.canaries import LagStage, OptOutLags, OptOutWay, RoundOutcome
from dispatcher.domain.errors import UnknownRecipient
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import canaries, canary_lags, generations
from dispatcher.ledger.maintenance.canaries import CanaryJob, CanaryRound
from dispatcher.ledger.maintenance.canary_lags import RoundResult
from dispatcher.maintenance.canaries import jobs, recipients, ways_out
from dispatcher.maintenance.canaries.errors import CannotMeasure
from dispatcher.maintenance.canaries.ways_out import Visit
from dispatcher.runtime.metric_families import CANARY_BOUND_BROKEN, CANARY_OPT_OUT
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services

__all__ = ["AT_ONCE", "EVERY_MINUTE", "Pace", "RoundResult", "run", "run_once"]

log = structlog.get_logger()

ARRIVALS_AWAITED = timedelta(hours=1)  # then the delivery reports of a round that are missing are not waited for any more


class RoundStep(IntEnum):
    """The steps of a round."""

    SWITCH_ON = 0
    FIRST_JOBS = 1
    OPT_OUT = 2  # with jobs right before it and right after it
    JOBS_AFTER = 3
    LAST_JOBS = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Between two steps, between the starts of two rounds of a way, and how long a canary may wait for its first message."""

    step: timedelta = timedelta(seconds=8)  # beat looks every 10 s
    start: timedelta = timedelta(seconds=55)
    first_message: timedelta = timedelta(seconds=60)


EVERY_MINUTE = Pace()
AT_ONCE = Pace(step=timedelta(seconds=1), start=timedelta(0), first_message=timedelta(seconds=30))
LOOK_SECONDS = 0.5


def run(services: Services, publish: Publish, pace: Pace = EVERY_MINUTE, ways: Collection[OptOutWay] = tuple(OptOutWay)) -> None:
    """Take the steps of these ways that are due.

    Does nothing where canaries are off, and while a restored ledger is not released.
    """
    if services.canaries is None:
        return
    with lend(services.pool) as connection:
        if generations.is_held(connection):
            return
        present = canaries.open_rounds(connection)
    _measure_arrivals(services)
    for way in ways_out.usable(services):
        if services.is_draining():
            return
        if way not in ways:
            continue
        _advance(services, publish, way, present.get(way), pace)


def run_once(services: Services, publish: Publish, seconds_max: float) -> list[RoundResult]:
    """Run a new round of each way, step by step, and wait for the arrivals; returns those that ended in this time."""
    end = services.monotonic_clock() + seconds_max
    open_ways = set(ways_out.usable(services))
    with lend(services.pool) as connection:
        last_no = canary_lags.newest_no(connection)
    while True:
        run(services, publish, AT_ONCE, open_ways)
        with lend(services.pool) as connection:
            results = canary_lags.results_after(connection, last_no)
        open_ways -= {OptOutWay(each.way) for each in results}
        if not (open_ways or any(each.awaits_arrivals for each in results)) or services.monotonic_clock() > end:
            return results
        services.sleep(LOOK_SECONDS)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, CannotMeasure) else "canary_unknown"


def _advance(services: Services, publish: Publish, way: OptOutWay, present: CanaryRound | None, pace: Pace) -> None:
    if present is None:
        _start(services, publish, way, pace)
        return
    if present.waited < pace.step:
        return
    try:
        _STEPS[RoundStep(present.step)](services, publish, present, pace)
    except (CannotMeasure, UnknownRecipient) as error:
        _give_up(services, present, _reason(error))


def _start(services: Services, publish: Publish, way: OptOutWay, pace: Pace) -> None:
    """Start a round. Where there can be no canary, the round says why, so that somebody sees it."""
    recipient_id, obstacle = "", ""
    try:
        recipient_id = recipients.ensure(services, way)
    except CannotMeasure as error:
        obstacle = error.reason
    with lend(services.pool) as connection:
        started = canaries.start(connection, way, recipient_id, services.limits.lease_seconds, pace.start)
    if started is None:
        return
    try:
        if obstacle:
            raise CannotMeasure(obstacle)
        ways_out.switch_on(way, _visit(services, publish, started, ""))
    except (CannotMeasure, UnknownRecipient) as error:
        _give_up(services, started, _reason(error))


def _visit(services: Services, publish: Publish, canary: CanaryRound, message_id: str) -> Visit:
    return Visit(services, publish, canary.recipient_id, message_id, str(canary.no))


def _take(services: Services, canary: CanaryRound, step: RoundStep) -> bool:
    with lend(services.pool) as connection:
        return canaries.take_step(connection, canary.no, step)


def _jobs(services: Services, canary: CanaryRound) -> Sequence[CanaryJob]:
    with lend(services.pool) as connection:
        return canaries.jobs(connection, canary.no)


def _first_jobs(services: Services, publish: Publish, canary: CanaryRound, _pace: Pace) -> None:
    if _take(services, canary, RoundStep.FIRST_JOBS):
        jobs.submit(services, publish, canary, RoundStep.FIRST_JOBS)


def _opt_out(services: Services, publish: Publish, canary: CanaryRound, pace: Pace) -> None:
    """Opt out while a job of each channel is on its way. Only who gets messages can prove that they end."""
    present = _jobs(services, canary)
    needs_mail = OptOutWay(canary.way) in (OptOutWay.ONE_CLICK, OptOutWay.PREFERENCE_CENTRE)
    mail = jobs.accepted_mail(present)
    if not any(job.state in jobs.TAKEN for job in present) or (needs_mail and mail is None):
        if canary.age > pace.first_message:
            raise CannotMeasure(_why_nothing_came(present))
        return
    if not _take(services, canary, RoundStep.OPT_OUT):
        return
    jobs.submit(services, publish, canary, RoundStep.OPT_OUT)
    ways_out.opt_out(OptOutWay(canary.way), _visit(services, publish, canary, mail or ""))
    with lend(services.pool) as connection:
        canaries.record_answer(connection, canary.no)
    jobs.submit(services, publish, canary, RoundStep.JOBS_AFTER)


def _why_nothing_came(present: Sequence[CanaryJob]) -> str:
    """The reason or state of most jobs."""
    reasons = Counter(job.reason or job.state for job in present)
    return reasons.most_common(1)[0][0] if reasons else "no_jobs"


def _jobs_after(services: Services, publish: Publish, canary: CanaryRound, _pace: Pace) -> None:
    if canary.answered is None:
        raise CannotMeasure("interrupted")
    if _take(services, canary, RoundStep.JOBS_AFTER):
        jobs.submit(services, publish, canary, RoundStep.JOBS_AFTER + 1)


def _last_jobs(services: Services, publish: Publish, canary: CanaryRound, _pace: Pace) -> None:
    if _take(services, canary, RoundStep.LAST_JOBS):
        jobs.submit(services, publish, canary, RoundStep.LAST_JOBS + 1)


def _end(services: Services, _publish: Publish, canary: CanaryRound, _pace: Pace) -> None:
    """Measure once every job is decided; else when nothing of the claims before the opt-out can be under way any more."""
    present = _jobs(services, canary)
    decided = [job for job in present if job.state not in jobs.UNDECIDED]
    limit = timedelta(seconds=canary.bound_seconds + services.limits.settle_patience_seconds)
    if len(decided) < len(present) and (canary.answered is None or canary.answered < limit):
        return
    if not any(job.step >= RoundStep.JOBS_AFTER for job in decided):
        raise CannotMeasure(_why_nothing_came([job for job in present if job.state in jobs.UNDECIDED]))
    with lend(services.pool) as connection:
        if not canaries.close(connection, canary.no, RoundOutcome.MEASURED, None):
            return
    lags = _measure(services, canary.no, OptOutWay(canary.way), canary.bound_seconds)
    _observe(canary.way, {LagStage.CLAIM: lags.claim, LagStage.HAND_OFF: lags.hand_off})
    if not lags.awaits_arrivals:
        _observe(canary.way, {LagStage.ARRIVAL: lags.arrival})


def _measure(services: Services, no: int, way: OptOutWay, bound_seconds: float, *, is_over: bool = False) -> OptOutLags:
    """Measure a round, and report it where it is late. With `is_over`, missing delivery reports are not waited for any more."""
    with lend(services.pool) as connection:
        lags = canary_lags.measure(connection, no)
        if is_over:
            lags = OptOutLags(lags.claim, lags.hand_off, lags.arrival)
        became_late = canary_lags.record(connection, no, lags, lags.is_late(way, bound_seconds))
    if became_late:
        RECORDER.count(CANARY_BOUND_BROKEN, labels=(way,))
        log.error(
            "a message was under way for too long after an opt-out",
            way=way,
            round=no,
            claim_seconds=lags.claim,
            hand_off_seconds=lags.hand_off,
            arrival_seconds=lags.arrival,
        )
    return lags


def _measure_arrivals(services: Services) -> None:
    """Measure again those rounds whose delivery reports were missing."""
    with lend(services.pool) as connection:
        waiting = canary_lags.awaiting_arrivals(connection, ARRIVALS_AWAITED)
    for no, way, bound_seconds, is_over in waiting:
        lags = _measure(services, no, way, bound_seconds, is_over=is_over)
        if not lags.awaits_arrivals:
            _observe(way, {LagStage.ARRIVAL: lags.arrival})


def _observe(way: str, lags: dict[LagStage, float]) -> None:
    for stage, seconds in lags.items():
        RECORDER.observe(CANARY_OPT_OUT, (seconds,), (way, stage))


def _give_up(services: Services, canary: CanaryRound, reason: str) -> None:
    with lend(services.pool) as connection:
        canaries.close(connection, canary.no, RoundOutcome.NOT_MEASURED, reason)
    log.warning("an opt-out is not measured", way=canary.way, round=canary.no, reason=reason)


_STEPS = {
    RoundStep.SWITCH_ON: _first_jobs,
    RoundStep.FIRST_JOBS: _opt_out,
    RoundStep.OPT_OUT: _jobs_after,
    RoundStep.JOBS_AFTER: _last_jobs,
    RoundStep.LAST_JOBS: _end,
}
