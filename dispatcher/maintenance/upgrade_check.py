"""`dispatcher check --before-upgrade`: whether this version may take over the ledger. Changes nothing and migrates nothing.

Run it with the new version installed, while the previous one still runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from dispatcher import __version__
from dispatcher.client.jobs import BrokerUnavailable
from dispatcher.domain.errors import KeyMismatch, LedgerUnavailable
from dispatcher.embedded import EngineError
from dispatcher.ledger.connection import POOLER, connect_once
from dispatcher.ledger.maintenance import policies
from dispatcher.ledger.maintenance.upgrade_state import UpgradeState, program_mark, read_upgrade_state
from dispatcher.ledger.migrations import HEAD, Schema, pending_files, read_schema
from dispatcher.ledger.migrations.effects import Lock, Migration, read_migration
from dispatcher.maintenance.health_check import CheckResult
from dispatcher.maintenance.lane_backlog import backlog
from dispatcher.runtime import bootstrap
from dispatcher.runtime.settings import InvalidSettings, Settings

LOGIN = "none"  # the login's own role: others may not see how long its transactions last
FREE_BYTES_MIN = 1_000_000_000
FREE_SHARE_MIN = 0.2  # of the size of the database: a migration writes the rows that it changes a second time


def check_before_upgrade() -> list[CheckResult]:
    """Check everything, in the order of dependencies; stop at an error that makes the rest impossible."""
    try:
        settings = bootstrap.settings()
    except InvalidSettings as error:
        return [CheckResult("configuration", ok=False, detail=fault) for fault in error.faults]
    results = [CheckResult("configuration", ok=True, detail=f"home {settings.home}")]
    try:
        _, policy, catalog, _ = bootstrap.examine()
    except bootstrap.CONFIGURATION_ERRORS as error:
        return [*results, CheckResult("policy and templates", ok=False, detail=str(error))]
    results.append(CheckResult("policy and templates", ok=True, detail=f"{len(catalog)} templates fit this version"))
    try:
        url = bootstrap.joined_engines().database_url
        schema, _ = read_schema(url)
        results.append(_schema(schema))
        if schema.revision is None or schema.is_newer:
            return results
        with connect_once(url, POOLER if settings.database_role == POOLER else LOGIN) as connection:
            state, current = read_upgrade_state(connection), policies.in_force(connection)
    except EngineError as error:
        return [*results, CheckResult("engines", ok=False, detail=str(error))]
    except (LedgerUnavailable, KeyMismatch) as error:
        return [*results, CheckResult("database", ok=False, detail=str(error))]
    if current is not None and current.digest != policy.digest:
        detail = (
            f"another policy is in force: workers of this version wait until `dispatcher policy adopt` adopts {policy.digest[:12]}"
        )
        results.append(CheckResult("policy", ok=True, detail=detail))
    migrations = [read_migration(file) for file in pending_files(schema.revision)]
    return [
        *results,
        *(_migration(migration, state) for migration in migrations),
        _programs(state, migrations),
        *_open_work(state),
        *_disk(settings, state),
        _broker(),
        CheckResult("backup", ok=True, detail="make one before you migrate: there is no downgrade"),
    ]


def _schema(schema: Schema) -> CheckResult:
    if schema.revision is None:
        return CheckResult("schema", ok=True, detail="the database is empty: there is nothing to upgrade")
    if schema.is_newer:
        detail = f"the database has {schema.revision}, which a newer version made; this one knows {HEAD}"
        return CheckResult("schema", ok=schema.oldest_program <= HEAD, detail=detail)
    files = pending_files(schema.revision)
    detail = f"{len(files)} migrations follow, up to {HEAD}" if files else "no migration follows"
    return CheckResult("schema", ok=True, detail=f"the database has {schema.revision}; {detail}")


def _migration(migration: Migration, state: UpgradeState) -> CheckResult:
    """What one migration locks. A long lock is an error while campaigns run."""
    what = f"migration {migration.revision}"
    if not migration.effects:
        return CheckResult(what, ok=True, detail=f"{migration.about} Locks no table that is in use.")
    locks: dict[str, set[str]] = {}
    for effect in migration.effects:
        locks.setdefault(f"{effect.lock} of {effect.table}", set()).update(["for long: it is large"] if effect.is_long else [])
    texts = ", ".join(f"{name}{' ' + ' '.join(notes) if notes else ''}" for name, notes in locks.items())
    is_long = any(effect.is_long and effect.lock is not Lock.ROWS for effect in migration.effects)
    hint = "; pause the running campaigns first" if is_long and state.campaigns.get("running") else ""
    return CheckResult(what, ok=not hint, detail=f"{migration.about} Stops {texts}{hint}")


def _programs(state: UpgradeState, migrations: list[Migration]) -> CheckResult:
    """The programs that are connected, and whether they can go on beside the new schema."""
    ours = program_mark(__version__, HEAD)[1:]
    others = {program: count for program, count in state.programs.items() if program != ours}
    names = ", ".join(f"{program or 'an older version'} ({count} connections)" for program, count in sorted(state.programs.items()))
    barred = [each.revision for each in migrations if any(_is_barred(program, each) for program in others)]
    if barred:
        detail = f"connected: {names}. Stop them first: migration {', '.join(barred)} changes what they use"
        return CheckResult("running programs", ok=False, detail=detail)
    return CheckResult("running programs", ok=True, detail=f"connected: {names}" if names else "none is connected")


def _is_barred(program: str, migration: Migration) -> bool:
    """Whether a program could fail after this migration. One that names no version is older than all that do."""
    if not migration.breaks:
        return False
    return program.partition("/")[2] < migration.oldest_program or not migration.oldest_program


def _open_work(state: UpgradeState) -> Iterator[CheckResult]:
    campaigns = ", ".join(f"{count} {name}" for name, count in state.campaigns.items()) or "none"
    yield CheckResult("open campaigns", ok=True, detail=f"{campaigns}; they go on during and after the upgrade")
    yield CheckResult(
        "claims", ok=True, detail=f"{state.claimed} messages are being sent; a worker that gets SIGTERM finishes them"
    )
    for each in state.long_transactions:
        seconds = each.open_for.total_seconds()
        detail = f"process {each.pid} of PostgreSQL has had a transaction open for {seconds:.0f} s: a migration waits for it"
        yield CheckResult("long transaction", ok=False, detail=detail)


def _disk(settings: Settings, state: UpgradeState) -> Iterator[CheckResult]:
    size = f"the database has {state.database_bytes / 1e9:.1f} GB"
    if settings.database_url is not None:
        yield CheckResult("disk", ok=True, detail=f"{size}; see yourself that its server has a fifth of that free")
        return
    free, needed = shutil.disk_usage(settings.home).free, max(FREE_BYTES_MIN, FREE_SHARE_MIN * state.database_bytes)
    detail = f"{size}, and {free / 1e9:.1f} GB are free; at least {needed / 1e9:.1f} GB should be"
    yield CheckResult("disk", ok=free >= needed, detail=detail)


def _broker() -> CheckResult:
    """Tasks that wait are no obstacle: a version refuses only what it does not know, and keeps it."""
    try:
        lanes = backlog(bootstrap.broker_url())
    except BrokerUnavailable as error:
        return CheckResult("broker", ok=False, detail=f"cannot be reached ({error})")
    waiting = ", ".join(f"{lane} {each.tasks}" for lane, each in lanes.items() if each.tasks) or "none"
    return CheckResult("broker", ok=True, detail=f"tasks that wait: {waiting}")
