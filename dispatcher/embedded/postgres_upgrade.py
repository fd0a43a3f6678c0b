"""Major upgrade of the embedded PostgreSQL: dump with the server of the old version, restore into a new data folder, then swap.

A data folder belongs to one major version, and each version of this program brings one. The old server's programs must be on the
machine. The old folder stays until somebody deletes it. Until the swap nothing has changed, and a run that was interrupted is
repeated from the start; after it, the next run finishes the swap.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatcher.embedded import account, postgres
from dispatcher.embedded.daemon import EngineError, tail
from dispatcher.embedded.postgres import BIN, DATABASE, MAJOR, ROLE, UPGRADED
from dispatcher.embedded.refcount_lock import without_users

DRAFT = "postgres.upgrade"  # the new data folder until it is complete
WORK = "postgres.dump"
# Where packages put the programs of a major version: Debian and Ubuntu, Red Hat, Homebrew on both kinds of machines.
PLACES = (
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
    "/usr/local/opt/postgresql@{}/bin",
)
START_SECONDS = 600  # recovery after a crash of the old server

# One line for each table: its name and its number of rows.
_COUNT = r"""
SELECT format('SELECT %L, count(*) FROM ONLY %I.%I', c.oid::regclass, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY c.relname \gexec
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EngineUpgrade:
    """What an upgrade did. `old_folder` holds the data as it was before."""

    old_major: int
    new_major: int
    tables: int
    rows: int
    old_folder: Path


def major_of(data: Path) -> int | None:
    """The major version of a data folder; None where there is none."""
    file = data / "PG_VERSION"
    return int(file.read_text().strip()) if file.exists() else None


def upgrade(home: Path, programs: Path | None, say: Say) -> EngineUpgrade | None:
    """Upgrade the data folder in `home`; returns None where it has this version already.

    `programs`: the folder of the old version's programs. Raises `EngineError`.
    """
    data = home / "postgres"
    with _stopped(home):
        if (home / UPGRADED).exists():
            return _swap(home)
        old = major_of(data)
        if old is None or old == MAJOR:
            return None
        if old > MAJOR:
            raise EngineError(
                f"{data} is of PostgreSQL {old}, and this version of the program brings {MAJOR}: install the newer one"
            )
        source = _programs(old, programs)
        _require_space(data)
        for leftover in (DRAFT, WORK):
            shutil.rmtree(home / leftover, ignore_errors=True)
        try:
            counts = _copy(home, source, say)
        except BaseException:
            for leftover in (DRAFT, WORK):
                shutil.rmtree(home / leftover, ignore_errors=True)
            raise
        (home / DRAFT / "upgraded-from").write_text(f"{old} {len(counts)} {sum(counts)}")
        (home / DRAFT).rename(home / UPGRADED)
        shutil.rmtree(home / WORK)
        return _swap(home)


def delete_old(home: Path) -> list[Path]:
    """Delete the data folders of before upgrades; returns them. Raises `EngineError` while there is no other one."""
    if major_of(home / "postgres") != MAJOR:
        raise EngineError(f"{home / 'postgres'} is not of PostgreSQL {MAJOR}: there is nothing that replaces the old data")
    folders = sorted(home.glob("postgres.old-*"))
    for folder in folders:
        shutil.rmtree(folder)
    return folders


@contextmanager
def _stopped(home: Path) -> Iterator[None]:
    with without_users(home / "postgres.lock") as is_unused:
        if not is_unused or postgres.server(home / "postgres") is not None:
            raise EngineError(f"PostgreSQL in {home} is in use: stop `dispatcher up` and all other commands on this folder first")
        yield


def _programs(major: int, given: Path | None) -> Path:
    """The folder of the old version's programs, which must have that version."""
    folders = [given] if given else [Path(place.format(major)) for place in PLACES]
    for folder in folders:
        if (folder / "pg_ctl").exists() and (folder / "postgres").exists():
            return folder
    places = " or ".join(map(str, folders))
    raise EngineError(
        f"the data is of PostgreSQL {major}, and its programs are not in {places}. Install PostgreSQL {major} (Debian:"
        f" apt-get install postgresql-{major}) and repeat this, or name the folder of its pg_ctl with --programs. Or go back to the"
        f" version of this program that brought PostgreSQL {major}: the data is unchanged"
    )


def _require_space(data: Path) -> None:
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    free = shutil.disk_usage(data.parent).free
    if free < 2 * size:
        raise EngineError(
            f"{data} has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: the new data and the dump need up to"
            f" {2 * size / 1e9:.1f} GB"
        )


# -- the copy ----------------------------------------------------------------------------------------------------------


def _copy(home: Path, programs: Path, say: Say) -> list[int]:
    """Dump the old data and restore it into a draft; returns the number of rows of each table, which both have."""
    data, draft = home / "postgres", home / DRAFT
    owner = account.owner(data)
    work = home / WORK
    account.make_folder(work, owner)
    dump, roles = work / "ledger.dump", work / "roles.sql"
    with _old_server(data, work, programs, owner) as sockets:
        say("dumping …")
        old = ("-h", sockets, "-U", ROLE)
        account.run([BIN / "pg_dumpall", *old, "-l", DATABASE, "--roles-only", "-f", roles], owner, work)
        account.run([_pg_dump(programs), *old, "-Fc", "-Z1", "-f", dump, DATABASE], owner, work)
        before = _counts(old, work, owner)
    roles.write_text(re.sub(rf'^CREATE ROLE "?{ROLE}"?;\n', "", roles.read_text(), flags=re.MULTILINE))  # initdb creates it
    say("restoring …")
    url_folder = Path(postgres.start(draft).partition("?host=")[2])
    try:
        new = ("-h", url_folder, "-U", ROLE)
        account.run([BIN / "psql", *new, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f", roles], owner, work)
        account.run([BIN / "pg_restore", *new, "--exit-on-error", "-d", DATABASE, dump], owner, work)
        account.run([BIN / "vacuumdb", *new, "-q", "--analyze-only", "-d", DATABASE], owner, work)
        after = _counts(new, work, owner)
    finally:
        postgres.stop(draft)
    if before != after:
        raise EngineError(f"the copy differs from the original, and was deleted: {_difference(before, after)}")
    return [int(line.rpartition("|")[2]) for line in after]


def _pg_dump(programs: Path) -> Path:
    """The old server's own, where it came with it. A minor release can be younger than ours and keep something for itself in the
    catalogue: PostgreSQL 15.20 adds the column option `pg_attver`, which its pg_dump leaves out and ours would hand to a server
    that refuses it."""
    own = programs / "pg_dump"
    return own if own.exists() else BIN / "pg_dump"


def _counts(place: Sequence[str | Path], work: Path, owner: pwd.struct_passwd) -> list[str]:
    script, output = work / "count.sql", work / "counts"
    script.write_text(_COUNT)
    account.change_owner(script, owner)
    options = ("-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f", script, "-o", output)
    account.run([BIN / "psql", *place, *options], owner, work)
    return output.read_text().splitlines()


def _difference(before: Sequence[str], after: Sequence[str]) -> str:
    return ", ".join(sorted(set(before) ^ set(after))[:4])


@contextmanager
def _old_server(data: Path, work: Path, programs: Path, owner: pwd.struct_passwd) -> Iterator[Path]:
    """The old server while the block runs, without a network, and with settings that every version knows: those in the folder are
    of the version that wrote them. Its socket is in `work`."""
    names = sorted({owner.pw_name, account.user_name(os.geteuid())})
    files = {
        "postgresql.conf": f"listen_addresses = ''\nunix_socket_directories = '{work}'\nhba_file = '{work}/hba'\n"
        f"ident_file = '{work}/ident'\nfsync = on\n",
        "hba": "local all all peer map=dispatcher\n",
        "ident": "".join(f'dispatcher "{name}" {ROLE}\n' for name in names),  # "all" has a meaning from 16 on,
    }
    for name, text in files.items():
        (work / name).write_text(text)
        account.change_owner(work / name, owner)
    control: list[str | Path | float] = [programs / "pg_ctl", "-D", data, "-w", "-s"]
    options = f"-c config_file={work}/postgresql.conf"
    log = work / "log"
    (data / "postmaster.pid").unlink(missing_ok=True)  # no server runs: `_stopped` has looked
    try:
        account.run([*control, "-t", START_SECONDS, "-l", log, "-o", options, "start"], owner, work)
    except EngineError as error:
        raise EngineError(f"the old PostgreSQL can't start: {error}; its log ends:\n{tail(log)}") from error
    try:
        yield work
    finally:
        account.run([*control, "-t", postgres.STOP_SECONDS, "-m", "fast", "stop"], owner, work)


# -- the swap ----------------------------------------------------------------------------------------------------------


def _swap(home: Path) -> EngineUpgrade:
    """Put the new data in place of the old: two renames. After an interruption between them, `postgres.start` refuses to begin with
    an empty folder, and the next upgrade comes here again."""
    data, ready = home / "postgres", home / UPGRADED
    note = ready / "upgraded-from"
    old, tables, rows = (int(part) for part in note.read_text().split())
    aside = home / f"postgres.old-{old}"
    if data.exists():
        if aside.exists():
            raise EngineError(f"{aside} is there already, from an earlier upgrade: delete it, and repeat this")
        data.rename(aside)
    ready.rename(data)
    return EngineUpgrade(old, MAJOR, tables, rows, aside)
