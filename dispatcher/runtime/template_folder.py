"""The folder of templates, followed while a process runs: an edited or new template needs no restart."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from channels.alerts import alert
from dispatcher import content
from dispatcher.content import Catalog, InvalidTemplates
from dispatcher.content.shipped import SHARED
from dispatcher.policy import Policy
from dispatcher.runtime.consistency import disagreements

LOOK_SECONDS = 2.0

log = structlog.get_logger()
FileStamp = tuple[str, int, int]


class TemplateFolder:
    """A folder and its catalog, which `refresh` replaces when files changed. A template with faults stays as it was: somebody may
    be editing it."""

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        catalog: Catalog,
        random: Callable[[], float] | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self._folder, self._policy, self._random, self._seconds = folder, policy, random, seconds
        self._stamps: list[FileStamp] | None = None  # unknown: the first look compares the files
        self._looked_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def is_due(self) -> bool:
        """Whether `refresh` would look at the files now."""
        return self._seconds() - self._looked_at >= LOOK_SECONDS

    def refresh(self) -> Catalog:
        """The present catalog. Looks at the files at most every two seconds, in one thread; the others do not wait for it."""
        if self.is_due and self._lock.acquire(blocking=False):
            try:
                self._looked_at = self._seconds()
                self._reload()
            finally:
                self._lock.release()
        return self.catalog

    def _reload(self) -> None:
        stamps = file_stamps(self._folder)
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            catalog = content.load(self._folder, self._random, self.catalog)
            if faults := disagreements(self._policy, catalog.values()):
                raise InvalidTemplates(faults)
        except InvalidTemplates as error:
            log.warning("changed templates have faults; the former ones stay in use", faults=len(error.faults))
            alert("templates", "invalid")
            catalog = self._with_former(load_sound(self._folder, self._policy, self._random))
        self.catalog = catalog

    def _with_former(self, sound: Catalog) -> Catalog:
        """The sound templates, and the former versions of those that have faults now."""
        with_faults, former = {fault.file.split("/")[0] for fault in sound.faults}, dict(self.catalog)
        in_use = {name: each for name, each in former.items() if name in with_faults or SHARED in with_faults}
        for name, template in sound.items():
            is_same = name in former and (former[name].digest, former[name].translations) == (
                template.digest,
                template.translations,
            )
            in_use[name] = former[name] if is_same else template
        return self.catalog if in_use == former else Catalog(dict(sorted(in_use.items())), sound.faults)


def load_sound(folder: Path, policy: Policy, random: Callable[[], float] | None) -> Catalog:
    """The templates of a folder that have no fault and agree with the policy; the faults of the others are in the catalog."""
    catalog, faults = content.load_sound(folder, random)
    sound = {}
    for name, template in catalog.items():
        own = disagreements(policy, [template])
        faults += own
        if not own:
            sound[name] = template
    return Catalog(sound, faults)


def file_stamps(folder: Path) -> list[FileStamp]:
    """Path, time of change and size of every file: they differ when a file was edited, added or removed."""
    stamps = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(OSError):  # removed meanwhile
                status = path.stat()
                stamps.append((str(path), status.st_mtime_ns, status.st_size))
    return sorted(stamps)
