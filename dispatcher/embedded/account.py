"""Whose processes and files the engines are.

An ordinary user's engines are his own. PostgreSQL refuses to run as root, rightly, so root's engines run as an account
without password or shell, made on first use; where the data already belong to an ordinary user, they run as that user.
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
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # the rest would need quoting, by different rules, in two configs and two URLs

log = logging.getLogger("dispatcher.embedded")


def make_home(home: Path) -> Path:
    """Make the home folder, for its owner's eyes only; root's account may pass. Raises `EngineError` where that can't be."""
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
    """Whom the engine in `folder` runs as: who owns the folder, or its parent; for root, the account above."""
    uid = (folder if folder.exists() else folder.parent).stat().st_uid
    return _engine_account() if uid == 0 else pwd.getpwuid(uid)


def user_name(uid: int) -> str:
    """A user's name, or the number of one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def make_folder(folder: Path, account: pwd.struct_passwd) -> None:
    """A folder of mode 0700 that belongs to `account` and that it can reach."""
    folder.mkdir(mode=0o700, exist_ok=True)
    change_owner(folder, account)
    allow_traversal(folder.parent)


def change_owner(path: Path, account: pwd.struct_passwd) -> None:
    """Give to `account` what root wrote for it."""
    if os.geteuid() == 0:
        os.chown(path, account.pw_uid, account.pw_gid)


def allow_traversal(folder: Path) -> None:
    """As root: let other accounts pass through `folder` and those above it, to reach what lies below.

    Mode o+x: pass, not look. Each folder so changed is named in the log.
    """
    if os.geteuid() != 0:
        return
    for each in (folder, *folder.parents):
        mode = stat.S_IMODE(each.stat().st_mode)
        if not mode & stat.S_IXOTH:
            log.warning("let other accounts pass through %s (mode %o, was %o)", each, mode | stat.S_IXOTH, mode)
            each.chmod(mode | stat.S_IXOTH)


def allow_reading(*folders: Path) -> None:
    """As root: let other accounts read and run what is in `folders`, even if it was installed under a strict umask."""
    if os.geteuid() != 0:
        return
    for folder in folders:
        allow_traversal(folder)
        for path in (folder, *folder.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
            if wanted != mode:
                path.chmod(wanted)


def run(command: Sequence[str | Path | float], account: pwd.struct_passwd, folder: Path, words: str = "") -> None:
    """Run a program as `account`, in its own session so that no Ctrl-C meant for us reaches it.

    `words` go to its input. Raises `EngineError` with its output when it fails.
    """
    as_other = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryFile("w+") as output:  # not a pipe: the engine would inherit it and we would wait for its end
        done = subprocess.run(  # noqa: S603 - programs from our own wheels
            [str(part) for part in command],
            input=words,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=folder,
            env={
                "PATH": os.defpath,
                "LC_ALL": "C",
                "TZ": "UTC",
            },  # nothing of ours: a stray PGPORT would move the engine
            start_new_session=True,
            **as_other,  # type: ignore[call-overload]
        )
        output.seek(0)
        if done.returncode:
            raise EngineError(f"{Path(str(command[0])).name} ended with {done.returncode}: {output.read().strip()[-2000:]}")


def socket_folder(folder: Path, account: pwd.struct_passwd) -> Path:
    """Where the engine of `folder` puts its socket: the folder itself, or, where that path is too long or odd for a
    socket, a private folder among the temporary files, remembered in `socket-folder`."""
    if len(str(folder)) <= SOCKET_FOLDER_LENGTH_MAX and PLAIN_PATH.fullmatch(str(folder)):
        return folder
    note = folder / "socket-folder"
    if note.exists() and _is_private(remembered := Path(note.read_text()), account):
        return remembered
    made = Path(tempfile.mkdtemp(prefix="dispatcher-"))
    change_owner(made, account)
    note.write_text(str(made))
    return made


def _is_private(folder: Path, account: pwd.struct_passwd) -> bool:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.pw_uid and stat.S_IMODE(found.st_mode) == 0o700


def _engine_account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(ENGINE_ACCOUNT)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    make = [
        useradd or "",
        "--system",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
        ENGINE_ACCOUNT,
    ]
    made = useradd and subprocess.run(make, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    try:
        return pwd.getpwnam(ENGINE_ACCOUNT)
    except KeyError as error:
        why = made.stderr.strip() if made else "there is no useradd here"
        raise EngineError(
            f"PostgreSQL does not run as root, and the account {ENGINE_ACCOUNT} can't be made for it ({why}): "
            "make it, work as an ordinary user, or set DISPATCHER_DATABASE_URL and DISPATCHER_BROKER_URL"
        ) from error
