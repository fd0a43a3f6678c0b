"""The folder that an author edits: read anew when a file changed. Each template is checked by itself."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from dispatcher.content import SHARED, Template, read_folder
from dispatcher.content.catalog import inspect_files
from dispatcher.content.lint.findings import LintFinding, LintRule, lint_rule
from dispatcher.intake.json_limits import is_utf8
from dispatcher.policy import Policy
from dispatcher.runtime.template_folder import file_stamps
from dispatcher.runtime.template_lint import lint_report

LINES_AROUND = 2  # of a finding


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """A template with its findings. `faults` is the number of errors of loading. Where it cannot be compiled, `template` is the
    last version that could be, and `is_former` is true; None if there was none."""

    name: str
    template: Template | None
    faults: int
    files: Mapping[str, str]
    findings: tuple[LintFinding, ...] = ()
    is_former: bool = False


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of a source with what was found in it; number 0 stands for lines that are left out."""

    number: int
    text: str = ""
    findings: tuple[tuple[LintFinding, LintRule], ...] = ()


@dataclass(frozen=True, slots=True)
class SourceExcerpt:
    """The lines of a file around its findings."""

    file: str
    lines: tuple[SourceLine, ...]


@dataclass(slots=True)
class WorkbenchFolder:
    """A folder of templates under a policy. `data_file` holds values for previews."""

    policy: Policy
    folder: Path
    data_file: Path | None = None
    _reports: dict[str, tuple[str, TemplateReport]] = field(default_factory=dict)
    _all: tuple[str, list[TemplateReport]] = ("", [])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def version(self) -> str:
        """Another text after each change of a file."""
        stamps: list[Any] = list(file_stamps(self.folder))
        if self.data_file is not None and self.data_file.exists():
            stamps.append(self.data_file.stat().st_mtime_ns)
        return _hash(repr(stamps))

    def names(self) -> list[str]:
        """The templates, also those with faults."""
        found = (path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else ()
        return sorted(name for name in found if not name.startswith((".", "_")))

    def reports(self) -> list[TemplateReport]:
        """All templates as their files now are, without findings of the linter: those take seconds."""
        with self._lock:
            files, faults = read_folder(self.folder)
            digest = _hash(repr((sorted(files.items()), faults)))
            if digest != self._all[0]:
                report = inspect_files(files, faults)
                errors = {*report.reading, *report.sources, *report.renderings}
                counts = Counter(error.file.split("/")[0] for error in errors)
                self._all = (
                    digest,
                    [TemplateReport(name, report.templates.get(name), counts[name] + counts[SHARED], {}) for name in self.names()],
                )
            return self._all[1]

    def report(self, name: str) -> TemplateReport:
        """A template as its files now are, with all findings."""
        with self._lock:  # two requests for one page would check it twice
            files, faults = read_folder(self.folder)
            own = {file: text for file, text in files.items() if file.split("/")[0] in (name, SHARED)}
            reading = [each for each in faults if each.file.split("/")[0] in (name, SHARED)]
            digest = _hash(repr((sorted(own.items()), reading)))
            known = self._reports.get(name)
            if known and known[0] == digest:
                return known[1]
            report = inspect_files(own, reading)
            count = len({*report.reading, *report.sources, *report.renderings})
            findings = tuple(lint_report(self.policy, report))
            former = known[1].template if known else None
            template = report.templates.get(name)
            result = TemplateReport(name, template or former, count, own, findings, is_former=template is None)
            self._reports[name] = digest, result
            return result

    def data(self) -> tuple[dict[str, Any], list[str]]:
        """The values of the file, and what is wrong with it."""
        if self.data_file is None:
            return {}, []
        try:
            text = self.data_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return {}, [f"{self.data_file.name}: cannot be read as UTF-8 text"]
        return read_values(text, self.data_file.name)


def read_values(text: str, where: str) -> tuple[dict[str, Any], list[str]]:
    """Values for variables from JSON, and what is wrong with it."""
    if not text.strip():
        return {}, []
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        return {}, [f"{where}: line {error.lineno}, column {error.colno}: {error.msg}"]
    except RecursionError:
        return {}, [f"{where}: is nested too deeply"]
    except ValueError:  # Python converts no number of more than 4,300 digits
        return {}, [f"{where}: has a number of too many digits"]
    if not isinstance(values, dict):
        return {}, [f'{where}: must be an object, such as {{"first_name": "Ann"}}']
    if not is_utf8(values):
        return {}, [f"{where}: has half a surrogate pair, such as \\ud800, which is no Unicode character"]
    return values, []


def excerpts(report: TemplateReport) -> list[SourceExcerpt]:
    """The findings beside the lines of their files."""
    by_file = groupby(sorted(report.findings), lambda each: each.file)
    return [SourceExcerpt(file, tuple(_lines(report.files.get(file, ""), list(found)))) for file, found in by_file]


def _lines(text: str, findings: Sequence[LintFinding]) -> Iterator[SourceLine]:
    lines = text.split("\n")
    last = 0
    at = {line: tuple(each for each in findings if each.line == line) for line in sorted({each.line for each in findings})}
    shown = sorted({line + step for line in at for step in range(-LINES_AROUND, LINES_AROUND + 1)} | set(at))
    for number in shown:
        if not (0 < number <= len(lines) or number in at):
            continue
        if number > last + 1:
            yield SourceLine(0)
        content = lines[number - 1] if 0 < number <= len(lines) else ""
        yield SourceLine(number, content, tuple((each, lint_rule(each.code)) for each in at.get(number, ())))
        last = number


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
