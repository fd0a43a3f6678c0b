"""Load audiences in parts, each committed with the position after it, so that a load continues after a lost
worker or a database outage.

Either the whole audience is loaded or nothing. Until it is complete, its campaign does not start. If a later part cannot be read,
everything is deleted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path

from dispatcher.campaigns.template_approval import NotApproved, approval_errors
from dispatcher.domain.campaign import Spec
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.notation import READINGS
from dispatcher.intake.audience import audience_file, read_audience
from dispatcher.intake.campaign import Submission, SubmissionDigest, checked_rows
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.partner_links import PartnerLinks
from dispatcher.ledger.campaigns import lifecycle, loads
from dispatcher.ledger.campaigns.audience import (
    ERRORS_STORED_MAX,
    AudienceError,
    AudienceFile,
    AudienceLoader,
    AudienceRow,
    chunk_size,
    values_with_links,
)
from dispatcher.ledger.campaigns.lifecycle import NewCampaign
from dispatcher.ledger.campaigns.loads import AudienceLoad, LoadPosition
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.maintenance import policies
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable, digests_of
from dispatcher.runtime.tracing import current_traceparent

# A part takes about a second. A process that wrote nothing for this long is dead; if it is not, `loads.lock` stops it at its next
# part.
LEASE = timedelta(seconds=15)
ABANDONED_AFTER = timedelta(hours=6)  # without a new part: its file is gone, or its submitter did not come back
NO_ROWS = "has no rows: the campaign would reach nobody"
UNLOAD_ROWS = 20_000  # deleted in one transaction

Progress = Callable[[int], None]


def no_progress(_: int) -> None:
    """Show no progress."""


class LoadStatus(StrEnum):
    """How far a load got."""

    COMPLETE = "complete"
    UNFINISHED = "unfinished"  # its time is up: another step goes on
    ELSEWHERE = "elsewhere"  # another process works on it, or it was cancelled
    ID_IN_USE = "id_in_use"  # nothing was written: the id is in use


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a step: how far it got, and how many rows are written so far."""

    status: LoadStatus
    audience: int = 0
    invalid: int = 0
    no: int | None = None  # the campaign's number, where a later step can go on with a file


@dataclass(slots=True)
class LoadRun:
    """A load in this process: where the rows come from, and how far it is. `seconds_max` bounds a step; None loads to the end."""

    services: Services
    spec: Spec
    rows: Iterable[AudienceRow | AudienceError]
    digest: SubmissionDigest
    file: AudienceFile | None
    period: int
    created_at: datetime
    no: int | None = None
    rows_read: int = 0
    rows_written: int = 0
    progress: Progress = no_progress
    seconds_max: float | None = None


def start(
    services: Services, submission: Submission, progress: Progress, by: str, seconds_max: float | None, now: datetime
) -> LoadResult:
    """Load an audience from its first row. One that fits into a part is written together with its campaign, in one transaction.

    Raises `BadInput`, also for a template without approval, and `LedgerUnavailable`.
    """
    run = LoadRun(
        services,
        replace(submission.spec, trace=current_traceparent()),
        submission.audience,
        submission.digest,
        submission.source,
        period_of(now),
        now,
        progress=progress,
        seconds_max=seconds_max,
    )
    with lend(services.pool) as connection:
        policies.require_in_force(connection, services.policy.digest)
        ensure_period(connection, run.period)
        services.versions.store(connection, submission.templates)
    rows = iter(run.rows)
    run.rows = rows
    first = list(islice(rows, services.limits.part_rows))  # a file that cannot be read is refused before anything is written
    if not first:
        raise BadInput(InputError(run.file.path if run.file else "campaign", 0, "audience", NO_ROWS))
    with lend(services.pool) as connection, connection.transaction():
        campaign = NewCampaign(submission.id, run.spec, run.period, digests_of(submission.templates), by)
        run.no = lifecycle.create(connection, campaign, now)
        if run.no is None:
            return LoadResult(LoadStatus.ID_IN_USE)
        if errors := approval_errors(connection, services.policy, submission.templates):
            raise NotApproved(*errors)
        is_last = _write(run, connection, run.no, first)
        if not is_last:
            position = LoadPosition(run.digest.value, run.rows_read, run.rows_written)
            loads.start(connection, run.no, position, run.file, now)
    return _result(run, LoadStatus.COMPLETE) if is_last else _guarded(run, run.no)


def resume(
    services: Services,
    load: AudienceLoad,
    rows: Iterable[AudienceRow | AudienceError],
    digest: SubmissionDigest,
    progress: Progress = no_progress,
    seconds_max: float | None = None,
) -> LoadResult:
    """Go on with a load. `rows` are those after its position; `digest` is that of all rows before. Raises as `start` does."""
    run = LoadRun(
        services,
        load.spec,
        rows,
        digest,
        load.file,
        load.period,
        load.created_at,
        load.campaign_no,
        load.rows_read,
        load.rows_written,
        progress,
        seconds_max,
    )
    return _guarded(run, load.campaign_no)


def rows_after(
    services: Services, load: AudienceLoad, file: AudienceFile
) -> tuple[Iterable[AudienceRow | AudienceError], SubmissionDigest]:
    """The rows of its file after a load's position, checked as the first ones were, and the digest to go on with.

    Raises `TemplateUnavailable`.
    """
    digest = SubmissionDigest.resume(load.digest)
    versions = services.versions.load(services.pool, services.policy, services.catalog, load.template_digests)
    templates = [versions[load.template_digests[name]] for name in load.spec.templates]
    links = PartnerLinks(services.policy.entities.get(load.spec.entity), file.path)
    with lend(services.pool) as connection, connection.transaction():
        links.compare_with(values_with_links(connection, load.campaign_no, load.period))
    rows = read_audience(Path(file.path), services.policy.files, load.rows_read)
    return links.checked(checked_rows(rows, templates, digest)), digest


def load_some(services: Services, no: int, seconds_max: float | None, is_redelivered: bool) -> LoadResult:
    """Go on with the load of a file for some seconds, unless another process does. Raises as `start` does."""
    now = services.clock()
    idle_since = now if is_redelivered else now - LEASE
    with lend(services.pool) as connection:
        load = loads.find(connection, no)
        if load is None or load.ended or load.file is None or not loads.acquire(connection, no, now, idle_since):
            return LoadResult(LoadStatus.ELSEWHERE)
    if audience_file(Path(load.file.path)) is None:
        return LoadResult(LoadStatus.ELSEWHERE)  # another host may have it; after `ABANDONED_AFTER` the sweep ends it
    try:
        rows, digest = rows_after(services, load, load.file)
    except TemplateUnavailable:
        return LoadResult(LoadStatus.ELSEWHERE)
    return resume(services, load, rows, digest, seconds_max=seconds_max)


def take_stalled(services: Services) -> list[int]:
    """Campaign numbers of loads from files on which nobody works: a step of each is to be put on the broker."""
    now = services.clock()
    with lend(services.pool) as connection:
        return loads.take_stalled(connection, now, now - LEASE)


def end_loads(services: Services) -> None:
    """End loads that do not go on, and delete some rows of those that have ended."""
    now = services.clock()
    with lend(services.pool) as connection:
        loads.forget_cancelled(connection)
        while loads.abandon(connection, now, now - ABANDONED_AFTER):
            pass
        for no in loads.ended(connection):
            load = loads.find(connection, no)
            if load is not None:
                loads.unload(connection, no, _chunks(load.spec))


def discard(services: Services, no: int, spec: Spec) -> None:
    """Refuse a load, and delete its rows and its campaign."""
    with lend(services.pool) as connection:
        loads.refuse(connection, no, services.clock())
        while not loads.unload(connection, no, _chunks(spec)):
            pass


def _chunks(spec: Spec) -> int:
    return max(1, UNLOAD_ROWS // chunk_size(spec))


def _guarded(run: LoadRun, no: int) -> LoadResult:
    """Load the rest, or the rest of this step. An error or Ctrl-C deletes the whole load.

    If the ledger is unavailable, the process is killed, or `seconds_max` is over, the load stays and can be resumed.
    """
    try:
        return _load(run, no)
    except (Exception, KeyboardInterrupt) as error:
        _give_up(run.services, no, run.spec, error)
        raise


def _give_up(services: Services, no: int, spec: Spec, error: BaseException) -> None:
    """Discard a load, unless only the ledger is unavailable: then it can be resumed."""
    if not isinstance(error, LedgerUnavailable):
        discard(services, no, spec)


def _load(run: LoadRun, no: int) -> LoadResult:
    services = run.services
    deadline = None if run.seconds_max is None else services.monotonic_clock() + run.seconds_max
    rows = iter(run.rows)
    while True:
        run.progress(run.rows_written)
        _check_unchanged(run.file)
        part = list(islice(rows, services.limits.part_rows))
        _check_unchanged(run.file)
        with lend(services.pool) as connection, connection.transaction():
            if not loads.lock(connection, no, run.rows_read):
                return _result(run, LoadStatus.ELSEWHERE)
            if _write(run, connection, no, part):
                loads.finish(connection, no, run.digest.value, run.rows_read, run.rows_written)
                break
            loads.advance(connection, no, run.digest.value, run.rows_read, run.rows_written, services.clock())
        if deadline is not None and services.monotonic_clock() >= deadline:  # after at least one part
            with lend(services.pool) as connection:
                loads.release(connection, no)
            return _result(run, LoadStatus.UNFINISHED)
    run.progress(run.rows_written)
    return _result(run, LoadStatus.COMPLETE)


def _write(run: LoadRun, connection: Connection, no: int, part: list[AudienceRow | AudienceError]) -> bool:
    """Write a part; True where it was the last one and the audience is complete."""
    loader = AudienceLoader(connection, no, run.period, run.spec, run.created_at, run.rows_written)
    loader.write(part)
    rows_read = run.rows_read + len(part)
    is_last = len(part) < run.services.limits.part_rows
    if is_last:
        policy, valid = run.services.policy, loader.rows_written
        invalid = rows_read - valid
        note = _note_on_invalid(connection, no, invalid, valid) if too_many_invalid(policy, invalid, valid) else ""
        awaits_release = bool(note or run.spec.seeds) or valid > policy.four_eyes_audience_min
        lifecycle.complete(connection, no, run.digest.value, invalid, awaits_release, note)
    run.rows_read, run.rows_written = rows_read, loader.rows_written
    return is_last


def too_many_invalid(policy: Policy, invalid: int, valid: int) -> bool:
    """Whether so many rows cannot be read that a person has to look at them before the others get their messages."""
    return invalid * 100 > policy.files.invalid_max_percent * (invalid + valid)


def _note_on_invalid(connection: Connection, no: int, invalid: int, valid: int) -> str:
    note = f"{invalid} of {invalid + valid} rows cannot be read"
    error = lifecycle.commonest_error(connection, no)
    if error is None or error[2] * 2 < min(invalid, ERRORS_STORED_MAX) or READINGS in error[1]:  # readings are values of one row
        return note
    field, message, _ = error
    return f"{note}; most often: {field}: {message}" if field else f"{note}; most often: {message}"


def _result(run: LoadRun, status: LoadStatus) -> LoadResult:
    can_go_on = status is LoadStatus.UNFINISHED and run.file is not None
    return LoadResult(status, run.rows_written, run.rows_read - run.rows_written, run.no if can_go_on else None)


def _check_unchanged(file: AudienceFile | None) -> None:
    """Raise BadInput where another file has taken the place of the one that was submitted."""
    current = audience_file(Path(file.path)) if file is not None else None
    if file is not None and current is not None and current != file:
        raise BadInput(InputError(file.path, 0, "", "was changed while it was being loaded; submit it again"))
