"""Write the skeleton of a new template: complete and without faults, with a mark at each text that is still to be written."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dispatcher.content import (
    SHARED,
    InvalidTemplates,
    NewTemplate,
    load_version,
    read_folder,
    shipped_folder,
    skeleton,
    texts_to_write,
)
from dispatcher.domain.message import Kind
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError

SOURCES: Mapping[Kind, str] = {Kind.COMMERCIAL: "loan_offer", Kind.SERVICE: "cashback_paid"}  # where no source is named
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


@dataclass(frozen=True, slots=True)
class WrittenSkeleton:
    """What was written: the template's folder, its files, and how many texts are to be written."""

    folder: Path
    files: tuple[str, ...]
    to_write: int


def write_skeleton(folder: Path, new: NewTemplate, kind: Kind) -> WrittenSkeleton:
    """Write the skeleton into a folder of templates; a new folder gets the shared files, too. The source comes from the folder, or
    else from the shipped templates.

    Raises `BadInput`, and then writes nothing.
    """
    folder = folder.expanduser().absolute()
    _check_place(folder, new.name)
    own, shipped = _files(folder), _files(shipped_folder())
    shared = {file: text for file, text in own.items() if file.startswith(f"{SHARED}/")}
    files = {**shipped, **own} if shared else {**own, **shipped}
    names = {file.partition("/")[0] for file in files} - {SHARED}
    if new.source not in names:
        _refuse("--from", f"there is no template {new.source!r}{did_you_mean(new.source, names)}")
    added = skeleton(new, files)
    used = shared or {file: text for file, text in shipped.items() if file.startswith(f"{SHARED}/")}
    try:
        template = load_version({**used, **added})
    except InvalidTemplates as error:
        _refuse("--from", f"{new.source} gives no template without faults: {error.faults[0]}")
    if template.info.kind is not kind:
        others = sorted(name for name in names if f'kind = "{kind}"' in files.get(f"{name}/template.toml", ""))
        _refuse("--from", f"{new.source} is no {kind} message; these are: {', '.join(others)}")
    if not shared:
        _write(folder, SHARED, used)
    _write(folder, new.name, added)
    return WrittenSkeleton(folder / new.name, tuple(sorted(added)), len(texts_to_write(template)))


def _check_place(folder: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        _refuse("NAME", f"{name!r} must be lower-case letters, digits and _, beginning with a letter, such as spring_offer")
    if (folder / name).exists():
        _refuse("NAME", f"{folder / name} is there already")
    shipped = shipped_folder()
    if not shipped.is_symlink() and folder.resolve() == shipped.resolve():  # an upgrade of the package would delete it
        _refuse(
            "--into", "the shipped templates belong to the program: name a folder of your own, and set DISPATCHER_TEMPLATES to it"
        )


def _files(folder: Path) -> dict[str, str]:
    return read_folder(folder)[0] if folder.is_dir() else {}


def _write(folder: Path, name: str, files: Mapping[str, str]) -> None:
    """Write one folder completely or not at all: running processes read new templates within seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder))  # of a hidden name, which no process reads
    try:
        draft.chmod(0o755)
        for file, text in files.items():
            path = draft / file.partition("/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        draft.rename(folder / name)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        _refuse("--into", f"{folder / name} can't be written: {error.strerror}")


def _refuse(field: str, message: str) -> NoReturn:
    raise BadInput(InputError(field, 0, "", message))
