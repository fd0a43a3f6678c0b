"""Refused jobs: record them without any value of their arguments, list and close them.

What a worker refuses is gone from the broker, and nobody waits for an answer. So each refusal is stored and counted, and raises an
alert.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping
from typing import Any

import structlog

from dispatcher.domain.canonical_json import canonical_json
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.principal import Entities
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, JobError, RefusalReason, RefusedJob
from dispatcher.domain.sealed_jobs import FIELD, CannotUnseal, unseal
from dispatcher.ledger.campaigns import refused_jobs
from dispatcher.ledger.campaigns.refused_jobs import RefusedJobEntry
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services

__all__ = ["ALERT", "ALERT_SOURCE", "RefusedJobEntry", "close", "describe", "from_json", "is_json", "newest", "record", "to_json"]

ALERT, ALERT_SOURCE = "refused_job:", "jobs"  # how the code of the alert begins, and who raises it
UNKNOWN = "unknown"  # the name of a task that cannot be read, or may be anything
PARAMETERS = {CAMPAIGN_TASK: "campaign", TRIGGER_TASK: "job"}  # the name of each public task's argument
DIGEST_BYTES = 16
# What may be stored: not an address, not a telephone number in international form, no text.
_TASK = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,199}")

log = structlog.get_logger()


def describe(
    ring: KeyRing, task: str, call: Any, reason: RefusalReason, errors: tuple[JobError, ...] = (), key: str | None = None
) -> RefusedJob:
    """A refused call of a task. `call` is the pair of its arguments and keyword arguments, or whatever came instead."""
    name = task if _TASK.fullmatch(task) else UNKNOWN
    arguments, job = _opened(ring, name, call)
    return RefusedJob(name, key or _key_of(job), reason, errors, _digest(ring, name, arguments))


def record(services: Services, job: RefusedJob) -> None:
    """Store a refusal, once per call, and raise its alert. Raises `LedgerUnavailable`."""
    now = services.clock()
    with lend(services.pool) as connection, connection.transaction():
        refused_jobs.record(connection, job, now)
        alerts.note(connection, ALERT_SOURCE, f"{ALERT}{job.reason}", True, now)
    log.warning("job refused", task=job.task, key=job.key, reason=job.reason.value, errors=[str(error) for error in job.errors])


def newest(services: Services, limit: int, only_open: bool = True, entities: Entities = None) -> list[RefusedJobEntry]:
    """Refused jobs, the one refused last first; with `only_open` those that were neither mended nor closed.

    None for somebody who is limited to entities: the arguments of a refused job are not stored, so its entity is not known.
    """
    if entities is not None:
        return []
    with lend(services.pool) as connection:
        return refused_jobs.newest(connection, limit, only_open)


def close(services: Services, no: int, actor: str) -> bool:
    """Close a refused job by hand. Returns whether there is one of this number."""
    with lend(services.pool) as connection:
        closed = refused_jobs.close(connection, no, actor, services.clock())
    if closed:
        log.info("refused job closed", number=no, actor=actor)
    return closed


def to_json(job: RefusedJob) -> dict[str, Any]:
    """A refused job as the argument of a task."""
    errors = [[error.field, error.message] for error in job.errors]
    return {"task": job.task, "key": job.key, "reason": job.reason.value, "errors": errors, "digest": job.digest.hex()}


def from_json(value: Mapping[str, Any]) -> RefusedJob:
    """The refused job of `to_json`."""
    errors = tuple(JobError(field, message) for field, message in value["errors"])
    return RefusedJob(value["task"], value["key"], RefusalReason(value["reason"]), errors, bytes.fromhex(value["digest"]))


def is_json(value: Any, texts: Collection[str]) -> bool:
    """Whether this can be the result of `to_json`, with none but these texts as errors. Anybody can write to the broker."""
    try:
        job = from_json(value)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    errors = ((error.field, error.message) for error in job.errors)
    is_task = isinstance(job.task, str) and _TASK.fullmatch(job.task) is not None
    is_key = job.key is None or (isinstance(job.key, str) and _KEY.fullmatch(job.key) is not None)
    return is_task and is_key and all(error in [("", text) for text in texts] for error in errors)


def _opened(ring: KeyRing, task: str, call: Any) -> tuple[Any, Any]:
    """The call with its seal opened, as repeats are sealed anew; and the job in it, as far as that can be read."""
    job = None
    if isinstance(call, list | tuple) and len(call) == 2:
        positional, named = call
        if isinstance(positional, list | tuple) and len(positional) == 1 and not named:
            job = positional[0]
        elif isinstance(named, dict) and not positional:
            job = named.get(PARAMETERS.get(task, ""), named)
    if isinstance(job, dict) and isinstance(job.get(FIELD), str):
        for sealed_for in (task,) if task in PARAMETERS else PARAMETERS:
            try:
                job = unseal(sealed_for, job[FIELD], ring)
            except CannotUnseal:
                continue
            break
    return (job if job is not None else call), job


def _key_of(job: Any) -> str | None:
    key = (job.get("key") or job.get("id")) if isinstance(job, dict) else None
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def _digest(ring: KeyRing, task: str, arguments: Any) -> bytes:
    if isinstance(arguments, bytes):
        text = arguments
    else:
        try:
            text = canonical_json(arguments)
        except (ValueError, RecursionError):
            text = b"?"
    return hmac.digest(derive(ring.newest, "refused-job"), task.encode() + b"\0" + text, "sha256")[:DIGEST_BYTES]
