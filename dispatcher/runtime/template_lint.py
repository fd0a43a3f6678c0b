"""The linter with what the policy says of templates: hosts, senders, data categories, what blocks an approval. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from dispatcher.content import FolderReport, Template, TemplateError, inspect, toml
from dispatcher.content.lint.findings import LintFinding, Severity, lint_rules, merged
from dispatcher.content.lint.linter import lint_template, loading_findings, unused_shared_files, without_duplicates
from dispatcher.content.lint.samples import LintContext
from dispatcher.content.shipped import SHARED
from dispatcher.policy import Policy
from dispatcher.runtime.consistency import declaration_errors
from dispatcher.runtime.entity_senders import senders_of


def lint_folder(policy: Policy, folder: Path, name: str | None = None) -> list[LintFinding]:
    """All findings in a folder of templates, errors of loading included; of the template `name` and its shared files if given."""
    report = inspect(folder)
    if name is None:
        return without_duplicates(_lint(policy, report))
    own = FolderReport(
        {key: template for key, template in report.templates.items() if key == name},
        *(
            tuple(each for each in errors if each.file.startswith((f"{name}/", f"{SHARED}/")))
            for errors in (report.reading, report.sources, report.renderings)
        ),
    )
    return lint_report(policy, own)


def lint_report(policy: Policy, report: FolderReport) -> list[LintFinding]:
    """All findings in templates that were inspected. Shared files are not expected to be used: others may use them."""
    return [each for each in without_duplicates(_lint(policy, report)) if each.code != "T604"]


@dataclass(frozen=True, slots=True)
class _LintInput:
    """A template version under a policy. Equal for equal digests, so that a cache finds it."""

    policy_digest: str
    template_digest: str
    policy: Policy = field(compare=False)
    template: Template = field(compare=False)


def lint_version(policy: Policy, template: Template) -> tuple[LintFinding, ...]:
    """The findings in one template that is loaded. Kept by digest: the console shows them on each view of the template."""
    return _lint_version(_LintInput(policy.digest, template.digest, policy, template))


@lru_cache(maxsize=64)
def _lint_version(version: _LintInput) -> tuple[LintFinding, ...]:
    report = FolderReport({version.template.name: version.template}, (), (), ())
    return tuple(lint_report(version.policy, report))


def _lint(policy: Policy, report: FolderReport) -> list[LintFinding]:
    found: list[LintFinding] = []
    faulty = {error.file for error in report.reading}
    for template in report.templates.values():
        found += lint_template(template, lint_context(policy, template))
        if f"{template.name}/template.toml" not in faulty:
            found += (_disagreement(error, template) for error in declaration_errors(policy, template))
    found += unused_shared_files(report)
    return merged([*found, *loading_findings(report, found)])


def lint_context(policy: Policy, template: Template) -> LintContext:
    """What the policy says of the senders, links and data of a template."""
    rules = policy.text_rules
    return LintContext(
        senders=senders_of(policy, template),
        categories=policy.categories,
        push_title_max=rules.push_title_max,
        push_body_max=rules.push_body_max,
        avoided_address=rules.avoided_address,
    )


def _disagreement(error: TemplateError, template: Template) -> LintFinding:
    document = toml.read(error.file, template.source.get(error.file, ""))
    line = error.line
    if isinstance(document, toml.Document):
        path = tuple(error.field.split("."))
        line = document.line(*(("product",) if path == ("topic",) and path not in document.lines else path))  # which demands it
    return LintFinding(error.file, line, "T007", lint_rules()["T007"].severity, error.field, error.value, error.message)


def blocking(policy: Policy, findings: Iterable[LintFinding]) -> list[LintFinding]:
    """The findings that block an approval."""
    return [each for each in findings if each.code in policy.lint_blocking or each.severity in policy.lint_blocking]


def errors(findings: Iterable[LintFinding]) -> list[LintFinding]:
    """The findings that are errors."""
    return [each for each in findings if each.severity is Severity.ERROR]
