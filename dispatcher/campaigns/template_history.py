"""The versions of a template: their history, what differs between two, and putting a former one back into the folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from dispatcher.campaigns.template_approval import Approval, TemplateVersion, template_version
from dispatcher.content import Catalog, InvalidTemplates, Template, TextDiff, differences, load, read_folder, shipped_folder
from dispatcher.delivery.approval_check import DIGEST_SHOWN
from dispatcher.domain.principal import Entities
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import template_approvals, template_sources
from dispatcher.ledger.campaigns.template_approvals import FirstApproval, VersionUse
from dispatcher.ledger.connection import lend
from dispatcher.runtime.entity_senders import senders_of
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateUnavailable

__all__ = ["FOLDER", "KnownVersion", "Restored", "VersionUse", "compare", "history_of", "put_back"]

FOLDER = "folder"  # in place of a digest: the template as it now is


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version of a template: its approvals and withdrawals, newest first, and the campaigns that name it."""

    digest: str
    is_present: bool  # the one in the folder
    stored_at: datetime | None
    approvals: tuple[Approval, ...]
    first: FirstApproval | None
    campaigns: tuple[VersionUse, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A former version that was put back into the folder. `is_exact`: it has the digest of that version, so its approval holds."""

    version: TemplateVersion
    is_exact: bool
    files: tuple[str, ...]  # that were changed, added or removed


def history_of(services: Services, name: str, entities: Entities = None) -> list[KnownVersion]:
    """Every version of a template that the ledger or the folder has, newest first, each with the campaigns of these entities.

    Raises `BadInput` for an unknown name.
    """
    present = services.catalog[name].digest if name in services.catalog else None
    with lend(services.pool) as connection:
        approvals = template_approvals.history(connection, name, 10_000)
        firsts = template_approvals.first_approvals(connection)
        stored = dict(template_sources.versions(connection, name))
        uses = template_approvals.uses(connection, name, entities)
    named = [*stored, *(each.digest for each in approvals), *(each.digest for each in uses)]
    digests = dict.fromkeys([present, *named] if present else named)
    if not digests:
        _refuse("name", f"there is no template {name!r}{did_you_mean(name, services.catalog)}")
    return [
        KnownVersion(
            digest,
            digest == present,
            stored.get(digest),
            tuple(each for each in approvals if each.digest == digest),
            firsts.get(digest),
            tuple(each for each in uses if each.digest == digest),
        )
        for digest in digests
    ]


def compare(services: Services, name: str, old: str, new: str = FOLDER) -> list[TextDiff]:
    """The texts that differ between two versions, named by a digest, its beginning, or `folder`. Raises `BadInput`."""
    before, after = _load(services, name, old), _load(services, name, new)
    return differences(before, after, senders_of(services.policy, after))


def put_back(services: Services, name: str, digest: str, folder: Path) -> Restored:
    """Put the files of a former version into the folder, in place of the present ones. Raises `BadInput`, and then changes nothing.

    The folder stays the source of what is submitted; running campaigns keep their versions. Shared files are not touched: other
    templates use them, too. Where they changed since, the result is a new version, which needs its own approval.
    """
    if not shipped_folder().is_symlink() and folder.resolve() == shipped_folder().resolve():
        _refuse("folder", "the shipped templates belong to the program: copy them, and set DISPATCHER_TEMPLATES to the copy")
    former = _own_files(name, _load(services, name, digest).source)
    present = read_folder(folder)[0]
    own = _own_files(name, present)
    changed = tuple(sorted(file for file in {*former, *own} if former.get(file) != own.get(file)))
    before = {file: text for file, text in present.items() if file not in own}
    with tempfile.TemporaryDirectory() as trial:  # the folder must be usable afterwards: running processes read it
        _write(Path(trial), {**before, **former})
        try:
            template = load(Path(trial))[name]
        except InvalidTemplates as error:
            _refuse("digest", f"with the present shared files, the former version has faults: {error.faults[0]}")
    try:
        _replace(folder, name, former, changed)
    except OSError as error:
        _refuse("folder", f"{folder / name} can't be written: {error.strerror}")
    version = template_version(_with(services, template), name)
    return Restored(version, template.digest.startswith(digest), changed)


def _with(services: Services, template: Template) -> Services:
    return replace(services, catalog=Catalog({**services.catalog, template.name: template}))


def _own_files(name: str, files: Mapping[str, str]) -> dict[str, str]:
    return {file: text for file, text in files.items() if file.startswith(f"{name}/")}


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for file, text in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def _replace(folder: Path, name: str, files: Mapping[str, str], changed: Collection[str]) -> None:
    """Replace the template's folder as a whole: running processes must not read files of two versions. Notes in it stay."""
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as work:  # a hidden name is read by no process
        draft, former = Path(work, name), Path(work, "former")
        if (folder / name).is_dir():
            shutil.copytree(folder / name, draft)
        for file in changed:
            (Path(work) / file).unlink(missing_ok=True)
        _write(Path(work), {file: files[file] for file in changed if file in files})
        if (folder / name).is_dir():
            (folder / name).rename(former)
        draft.rename(folder / name)


def _load(services: Services, name: str, which: str) -> Template:
    """A version by its digest, the beginning of one, or `folder`."""
    if which == FOLDER:
        return template_version(services, name).template
    known = [each.digest for each in history_of(services, name) if len(which) >= DIGEST_SHOWN and each.digest.startswith(which)]
    if not known:
        shown = f"{which!r} is the digest of no version of {name} (12 characters at least): `dispatcher templates history {name}`"
        _refuse("digest", shown)
    try:
        loaded = services.versions.load(services.pool, services.policy, services.catalog, {name: known[0]})
    except TemplateUnavailable as error:
        _refuse("digest", str(error))
    return loaded[known[0]]


def _refuse(field: str, message: str) -> NoReturn:
    raise BadInput(InputError("template", 0, field, message))
