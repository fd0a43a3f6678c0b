"""The folder of audience files: whoever can put a task on the broker must not make a worker read any other file."""

from __future__ import annotations

from pathlib import Path
from stat import S_ISREG

from dispatcher.intake.errors import BadInput, InputError


def allowed_file(folder: Path, name: str) -> Path:
    """The file of this name in `folder`, all links followed. Raises BadInput where it is not there, outside, or no ordinary file.

    `name` is relative to the folder, or a whole path in it. The error is the same whatever is wrong outside of the folder: it must
    not say which files a machine has.
    """
    try:
        path = (folder / name).resolve(strict=True)
        is_allowed = path.is_relative_to(folder.resolve()) and S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError):  # not there; a null character; a loop of links
        is_allowed = False
    if not is_allowed:
        raise BadInput(InputError("campaign", 0, "audience", f"should name a file in {folder} (DISPATCHER_AUDIENCES)"))
    return path
