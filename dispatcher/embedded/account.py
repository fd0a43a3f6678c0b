"""The operating system account that the engines run as, and the owner of their files.

An ordinary user's engines run as that user. PostgreSQL refuses to run as root, so root's engines run as an account
without password or shell, created on first use. If the data already belongs to an ordinary user, they run as that user.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dispatcher.embedded.daemon import EngineError

ENGINE_ACCOUNT = "dispatcher-engines"
SOCKET_FOLDER_LENGTH_MAX = 80  # a socket's whole path may have 107 bytes on Linux, 103 on macOS; its name takes up to 20
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # other characters need quoting, by different rules in two config files and two URLs

log = logging.getLogger("dispatcher.embedded")


def make_home(home: Path) -> Path:
    """Create the home folder, readable by its owner only; root's engine account may traverse it. Raises `EngineError`."""
    try:
        home.mkdir(mode=0o700 if os.geteuid() else 0o711, parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        raise EngineError(
            f"DISPATCHER_HOME is {home}, where {user_name(os.geteuid())} may not write; choose another folder"
        ) from error
    return home


def owner(folder: Path) -> pwd.struct_passwd:
    """The account that the engine in `folder` runs as: the owner of the folder or its parent; for root, ENGINE_ACCOUNT."""
    uid = (folder if folder.exists() else folder.parent).stat().st_uid
    return _engine_account() if uid == 0 else pwd.getpwuid(uid)


def user_name(uid: int) -> str:
    """A user's name, or the number of a user without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def make_folder(folder: Path, account: pwd.struct_passwd) -> None:
    """Create a folder of mode 0700 that belongs to `account` and that it can reach."""
    folder.mkdir(mode=0o700, exist_ok=True)
    change_owner(folder, account)
    allow_traversal(folder.parent)


def change_owner(path: Path, account: pwd.struct_passwd) -> None:
    """As root: make `account` the owner of a file."""
    if os.geteuid() == 0:
        os.chown(path, account.pw_uid, account.pw_gid)


def allow_traversal(folder: Path) -> None:
    """As root: let other accounts traverse `folder` and its parents (mode o+x), but not list them.

    Each changed folder is logged.
    """
    if os.geteuid() != 0:
        return
    for each in (folder, *folder.parents):
        mode = stat.S_IMODE(each.stat().st_mode)
        if not mode & stat.S_IXOTH:
            log.warning("other accounts may now traverse %s (mode %o, was %o)", each, mode | stat.S_IXOTH, mode)
            each.chmod(mode | stat.S_IXOTH)


def allow_reading(*folders: Path) -> None:
    """As root: let other accounts read and execute the files in `folders`, which may be installed with a strict umask."""
    if os.geteuid() != 0:
        return
    for folder in folders:
        allow_traversal(folder)
        for path in (folder, *folder.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if wanted != mode:
                path.chmod(wanted)


def run(command: Sequence[str | Path | float], account: pwd.struct_passwd, folder: Path, stdin: str = "") -> None:
    """Run a program as `account`, in its own session, so that Ctrl-C does not reach it.

    `stdin` is its input. Raises `EngineError` with its output if it fails.
    """
    as_other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryFile("w+") as output:  # not a pipe: the engine would inherit it, and the read would never end
        done = subprocess.run(  # noqa: S603 - programs from our own wheels
            [str(part) for part in command],
            input=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=folder,
            env={
                "PATH": os.defpath,
                "LC_ALL": "C",
                "TZ": "UTC",
            },  # nothing from our environment: a PGPORT would change the engine's port
            start_new_session=True,
            **as_other,  # type: ignore[call-overload]
        )
        output.seek(0)
        if done.returncode:
            raise EngineError(f"{Path(str(command[0])).name} ended with {done.returncode}: {output.read().strip()[-2000:]}")


def socket_folder(folder: Path, account: pwd.struct_passwd) -> Path:
    """The folder for the engine's socket: `folder` itself, or, if that path is too long or not plain, a private temporary
    folder, whose path is stored in `socket-folder`."""
    if len(str(folder)) <= SOCKET_FOLDER_LENGTH_MAX and PLAIN_PATH.fullmatch(str(folder)):
        return folder
    stored = folder / "socket-folder"
    if stored.exists() and _is_private(existing := Path(stored.read_text()), account):
        return existing
    created = Path(tempfile.mkdtemp(prefix="dispatcher-"))
    change_owner(created, account)
    stored.write_text(str(created))
    return created


def _is_private(folder: Path, account: pwd.struct_passwd) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == account.pw_uid and stat.S_IMODE(status.st_mode) == 0o700


def _engine_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ENGINE_ACCOUNT)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    command = [
        useradd or "",
        "--system",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        ENGINE_ACCOUNT,
    ]
    result = useradd and subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    try:
        return pwd.getpwnam(ENGINE_ACCOUNT)
    except KeyError as error:
        why = result.stderr.strip() if result else "there is no useradd on this system"
        raise EngineError(
            f"PostgreSQL does not run as root, and its account {ENGINE_ACCOUNT} can't be created ({why}): "
            "create it, work as an ordinary user, or set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL"
        ) from error
