"""Start the runs of recurring campaigns: each is a campaign of its own, with a fresh audience, or says why not.

A run's id follows from its time, and its audience is recorded before its campaign is submitted. So two processes, or one that
starts again after a crash, make one campaign.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from dispatcher.campaigns import audience_fetch, audience_uploads, submission
from dispatcher.campaigns.schedules import times_after
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.campaigns.template_approval import NotApproved
from dispatcher.domain.run_times import run_id
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.audience_uploads import Upload
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.schedule import DATE, AudienceUrlPattern, Schedule, run_form, stored_schedule
from dispatcher.ledger.campaigns import lifecycle, schedules
from dispatcher.ledger.campaigns.schedules import RunState, ScheduleRun, StoredSchedule
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery.unresolved import RESTORED
from dispatcher.ledger.maintenance import alerts, generations
from dispatcher.policy import ScheduleRules
from dispatcher.runtime.services import Services
from dispatcher.runtime.tracing import in_new_trace

PUNCTUAL = timedelta(minutes=5)  # a run that starts so late was not missed: beat or a worker was being restarted
TAKEN = timedelta(minutes=2)  # a process that took a run and did not settle it by then is lost
FETCH_SECONDS_MAX = 100.0  # for an audience by URL; less than TAKEN, so that no other process takes the run meanwhile
RELEASE_WITHIN = timedelta(days=2)  # an audience is loaded by then, or given up
RUNS_PLANNED_MAX = 1_000  # of one schedule in one transaction; the next call goes on
MISSED, NOT_APPROVED, AUDIENCE_MISSING = "missed", "not_approved", "audience_missing"
AUDIENCE_UNCHANGED, INVALID, ID_IN_USE = "audience_unchanged", "invalid", "id_in_use"
FAULTS_SHOWN = 3

log = structlog.get_logger()


class RunImpossible(Exception):
    """A run cannot start. `reason` is a code, the message is for people and has no personal data."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def start_due(services: Services) -> list[int]:
    """Start the runs that are due. Returns the numbers of campaigns whose audience is to be loaded on: `load_some` does it.

    What cannot start gives an alert, and nothing is sent. Raises `LedgerUnavailable`; then the next call goes on.
    """
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        if generations.is_held(connection):
            return []
        restore = generations.last_restore(connection)
        for stored in schedules.lock_due(connection, now):
            _plan(connection, stored, services.policy.schedules, now)
        if restore is not None and schedules.skip_lost(connection, restore.began_at, RESTORED, now):
            alerts.note(connection, "schedules", RESTORED, True, now)
    with lend(services.pool) as connection:
        taken = schedules.take_pending(connection, now, now - TAKEN)
    loads = [_start(services, stored, run) for stored, run in taken]
    _release_approved(services)
    return [load for load in loads if load is not None]


# -- plan: which runs are due -------------------------------------------------------------------------------------------


def _plan(connection: Connection, stored: StoredSchedule, rules: ScheduleRules, now: datetime) -> None:
    """Write the runs that are due, and when the next one is. Of several, the system was down: only the newest can start."""
    if stored.next_at is None:
        return
    schedule = stored_schedule(stored.definition)
    following = times_after(schedule, stored.next_at, RUNS_PLANNED_MAX)
    due = [stored.next_at, *(at for at in following if at <= now)]
    next_at = next((at for at in following if at > now), None)
    if next_at is None and len(following) == RUNS_PLANNED_MAX:
        next_at = due.pop()
    runs = [ScheduleRun(at, run_id(stored.id, at, schedule.form.zone), RunState.SKIPPED, MISSED, _missed(at, now)) for at in due]
    if runs and not _is_too_late(rules, runs[-1].due_at, now):
        runs[-1] = replace(runs[-1], state=RunState.PENDING, reason=None, message="")
        if rules.approval == "definition" and stored.approved_by is None:
            message = "the policy wants the definition to be approved by a second person"
            runs[-1] = replace(runs[-1], state=RunState.FAILED, reason=NOT_APPROVED, message=message)
    schedules.plan(connection, stored.no, runs, next_at, now)
    for run in runs:
        if run.reason is not None:
            _alert(connection, stored, run, now)


def _is_too_late(rules: ScheduleRules, at: datetime, now: datetime) -> bool:
    late_max = timedelta(minutes=rules.late_minutes_max) if rules.missed == "late" else PUNCTUAL
    return now - at > max(late_max, PUNCTUAL)


def _missed(at: datetime, now: datetime) -> str:
    return f"it was due {round((now - at).total_seconds() / 60):,} minutes ago, and nothing ran then"


# -- start: one run -----------------------------------------------------------------------------------------------------


def _start(services: Services, stored: StoredSchedule, run: ScheduleRun) -> int | None:
    """Submit the campaign of a run, and record what became of it; returns its number where its audience is to be loaded on."""
    load, now = None, services.clock()
    try:
        _check_time(services, run, now)
        run, load = _submit(services, stored, run)
        run = replace(run, state=RunState.STARTED)
        log.info("scheduled run started", schedule=stored.id, campaign=run.campaign_id)
    except RunImpossible as error:
        state = RunState.SKIPPED if error.reason == MISSED else RunState.FAILED
        run = replace(run, state=state, reason=error.reason, message=str(error))
    with lend(services.pool) as connection, connection.transaction():
        schedules.settle(connection, stored.no, run, now)
        if run.reason is not None:
            _alert(connection, stored, run, now)
    return load


def _check_time(services: Services, run: ScheduleRun, now: datetime) -> None:
    """A run that a lost process had taken, or that was paused meanwhile, can be too late by now. Raises `RunImpossible`."""
    if _is_too_late(services.policy.schedules, run.due_at, now - TAKEN):
        with lend(services.pool) as connection:
            is_known = lifecycle.submission_of(connection, run.campaign_id) is not None
        if not is_known:
            raise RunImpossible(MISSED, _missed(run.due_at, now))


def _submit(services: Services, stored: StoredSchedule, run: ScheduleRun) -> tuple[ScheduleRun, int | None]:
    """The run with its audience, and the number of a load to go on with. Raises `RunImpossible`."""
    schedule = stored_schedule(stored.definition)
    if run.upload is None:
        run = _with_audience(services, stored, schedule, run)
    form = run_form(schedule, run.campaign_id, run.upload or "", run.due_at)
    try:
        sources = AudienceSources(services.audiences, stored.submitted_by)
        request = parse_request(form, sources, services.policy.files, uploads_only=True)
        with in_new_trace():
            result = submission.accept(services, request, by=stored.submitted_by, seconds_max=0.0)
    except NotApproved as error:
        raise RunImpossible(NOT_APPROVED, _sentence(error)) from None
    except BadInput as error:
        is_missing = any(fault.field.startswith("audience") for fault in error.faults)
        raise RunImpossible(AUDIENCE_MISSING if is_missing else INVALID, _sentence(error)) from None
    if result.status is SubmitStatus.CONFLICT:
        raise RunImpossible(ID_IN_USE, f"another campaign has the id {run.campaign_id}")
    return run, result.load


def _with_audience(services: Services, stored: StoredSchedule, schedule: Schedule, run: ScheduleRun) -> ScheduleRun:
    """The run with the newest upload that fits, or with what its URL has now. Raises `RunImpossible`."""
    pattern, day = schedule.audience, run.due_at.astimezone(ZoneInfo(schedule.form.zone)).date()
    upload: Upload | None
    if isinstance(pattern, AudienceUrlPattern):
        upload, missing = _fetched(services, stored, run, pattern.at(day)), "what was fetched is gone"
    else:
        upload = _newest_upload(services, stored, pattern.regex(day))
        missing = f"there is no complete upload {pattern.upload.replace(DATE, day.isoformat())} of {stored.submitted_by}"
    if upload is None:
        raise RunImpossible(AUDIENCE_MISSING, missing)
    with lend(services.pool) as connection:
        if upload.sha256 == schedules.last_sha256(connection, stored.no):
            named = "what its URL has" if isinstance(pattern, AudienceUrlPattern) else f"the newest upload, {upload.id},"
            message = f"{named} is the audience of the run before"
            raise RunImpossible(AUDIENCE_UNCHANGED, message)
        run = replace(run, upload=upload.id, sha256=upload.sha256)
        schedules.choose(connection, stored.no, run)
    return run


def _newest_upload(services: Services, stored: StoredSchedule, pattern: re.Pattern[str]) -> Upload | None:
    """The upload that a run takes: of the complete ones that fit and that its submitter may use, the one completed last."""
    fits = [
        each
        for each in audience_uploads.every(services)
        if each.is_complete and each.is_open_to(stored.submitted_by) and pattern.fullmatch(each.id)
    ]
    return max(fits, key=lambda each: (each.at or datetime.min.replace(tzinfo=UTC), each.id), default=None)


def _fetched(services: Services, stored: StoredSchedule, run: ScheduleRun, url: str) -> Upload | None:
    """The upload with what a URL has now. Raises `RunImpossible`."""
    try:
        upload_id = audience_fetch.fetch(services, stored.submitted_by, run.campaign_id, url, FETCH_SECONDS_MAX)
    except BadInput as error:
        raise RunImpossible(AUDIENCE_MISSING, _sentence(error)) from None
    return audience_uploads.find(services, upload_id)


def _sentence(error: BadInput) -> str:
    """What is wrong with the form. Of a file only its line and field: what stands there may be personal data."""
    return "; ".join(map(_fault, error.faults[:FAULTS_SHOWN]))


def _fault(fault: InputError) -> str:
    if fault.file == "campaign":
        return f"{fault.field}: {fault.message}" if fault.field else fault.message
    return f"its audience cannot be read, line {fault.line}" if fault.line else "its audience cannot be read"


def _release_approved(services: Services) -> None:
    """Release the campaigns of approved definitions: their approver has released all runs, up to `audience_max` recipients."""
    if services.policy.schedules.approval != "definition":
        return
    with lend(services.pool) as connection:
        for campaign_id, approver in schedules.to_release(connection, services.clock() - RELEASE_WITHIN):
            lifecycle.release(connection, campaign_id, approver)


def _alert(connection: Connection, stored: StoredSchedule, run: ScheduleRun, now: datetime) -> None:
    """Tell a person, in the transaction of what happened."""
    log.warning("scheduled run did not start", schedule=stored.id, campaign=run.campaign_id, reason=run.reason)
    alerts.note(connection, f"schedule:{stored.id}", run.reason or "", True, now)
