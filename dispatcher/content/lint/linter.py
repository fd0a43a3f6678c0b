"""Run all checks of the linter over templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from dispatcher.content.catalog import FolderReport
from dispatcher.content.declaration import IN_A_LINK
from dispatcher.content.errors import TemplateError
from dispatcher.content.lint.accessibility import accessibility
from dispatcher.content.lint.address_forms import avoided_address
from dispatcher.content.lint.consistency import consistency
from dispatcher.content.lint.contact_links import contact_links
from dispatcher.content.lint.dates import dates
from dispatcher.content.lint.deliverability import deliverability
from dispatcher.content.lint.facts import example_facts, facts
from dispatcher.content.lint.findings import LintFinding, lint_rules
from dispatcher.content.lint.law import law
from dispatcher.content.lint.link_texts import link_texts
from dispatcher.content.lint.links import links
from dispatcher.content.lint.phrases import phrases
from dispatcher.content.lint.placeholders import placeholders
from dispatcher.content.lint.plain_values import plain_values
from dispatcher.content.lint.push_lengths import push_lengths
from dispatcher.content.lint.rendering import chosen_links, declared_categories, withheld
from dispatcher.content.lint.reply_buttons import buttons
from dispatcher.content.lint.samples import LintContext, read_samples
from dispatcher.content.lint.segments import segments
from dispatcher.content.lint.service_texts import service_texts
from dispatcher.content.lint.tag_pairs import tag_pairs
from dispatcher.content.lint.unreached import unreached
from dispatcher.content.lint.wording import wording
from dispatcher.content.mail_html import LINK_SCHEME, MAIL_HTML
from dispatcher.content.shipped import SHARED
from dispatcher.content.template import Template
from dispatcher.domain.recipient import LANGUAGES

# The content guard's checks -> the codes that say the same, the code of the error itself first.
_GUARD_CODES: Mapping[str, tuple[str, ...]] = {
    MAIL_HTML: ("T004",),
    LINK_SCHEME: ("T301", "T303"),
    "link_host": ("T302", "T203", "T204"),
    "link_leak": ("T306",),
    "credit_warning": ("T404",),
    "sender_named": ("T401",),
    "advertising_mark": ("T402",),
    "way_out": ("T403", "T305"),
}
_REFERENCE = re.compile(r"""(?:extends|from|import|include)\s+["']([^"']+)["']""")
_OF_ONE_MESSAGE = (
    *(accessibility, link_texts, deliverability, links, contact_links),
    *(law, service_texts, phrases, dates, placeholders, tag_pairs),
)
_OF_MESSAGES = ("", " without its optional variables")  # the sets of values with which whole messages are read


def lint_template(template: Template, context: LintContext) -> list[LintFinding]:
    """All findings in one template that can be compiled."""
    samples = read_samples(template, context)
    found: list[LintFinding] = []
    for sample in samples:
        if sample.data_set in _OF_MESSAGES:
            for check in _OF_ONE_MESSAGE:
                found += check(sample)
    plain = list(plain_values(samples))
    found += plain
    found += _without_consequences(consistency(samples), plain, template)
    found += wording(samples)
    found += avoided_address(samples, context.avoided_address)
    found += push_lengths(samples, context)
    found += segments(samples)
    found += unreached(samples)
    found += buttons(samples)
    found += chosen_links(samples)
    found += [_finding("T511", fault) for fault in template.translation_faults]
    found += withheld(template, context)
    if samples:
        found += declared_categories(template, context, samples[0].sources)
    return found


def _without_consequences(found: Iterable[LintFinding], plain: Iterable[LintFinding], template: Template) -> Iterator[LintFinding]:
    """The findings of `consistency`, without amounts and dates that another text shows without a filter, and so not as such."""
    names = {each.field.rpartition(" ")[2] for each in plain}
    shown = {key for name in names for language in LANGUAGES for key in example_facts(template.variables[name], language)}
    for each in found:
        keys = {key for language in LANGUAGES for key in facts(each.value, language)} if shown else set()
        if each.code not in ("T502", "T503", "T510") or not keys & shown:
            yield each


def loading_findings(report: FolderReport, found: Iterable[LintFinding]) -> Iterator[LintFinding]:
    """The errors of loading as findings, without those that `found` reports already, at a better place."""
    found = list(found)
    reported = {(each.code, _folder(each.file)) for each in found}
    names = report.templates
    shared = [each for each in found if each.file.startswith(f"{SHARED}/")]
    reported |= {(each.code, f"{name}/{language}") for each in shared for language in each.languages for name in names}
    links = {(each.file, each.line) for each in found if each.code in ("T301", "T303")}
    plain = {(each.file, each.line) for each in found if each.code == "T608"}
    for error in report.reading:
        yield _finding("T001" if error.field in ("file", "folder") else "T002", error)
    for error in report.sources:
        code = _source_code(error)
        if code != "T301" or (error.file, error.line) not in links:
            yield _finding(code, error)
    static = {(error.file, error.line) for error in (*report.reading, *report.sources)}
    broken = {_folder(error.file) for error in (*report.reading, *report.sources)}
    modeless = {_template(error.file) for error in report.reading if error.field == "modes"}
    in_shared = {SHARED} if static else set()  # a call of a macro may fail there, and the error is in the call
    seen: set[tuple[str, ...]] = set()
    for error in report.renderings:
        codes = _GUARD_CODES.get(error.field, ("T006" if error.message.startswith(IN_A_LINK) else "T005",))
        if any((code, _folder(error.file)) in reported for code in codes) or (error.file, error.line) in static:
            continue
        if codes[0] == "T005" and (_folder(error.file) in broken or _template(error.file) in (*modeless, *in_shared)):
            continue  # an error of the sources, which is reported, makes rendering fail
        which = (error.file, str(error.line), error.field, error.message.partition(", from the examples")[0])
        if which not in seen and not (codes[0] == "T005" and (error.file, error.line) in plain):
            yield _finding(codes[0], error)
        seen.add(which)  # the same with other values says nothing new


def _finding(code: str, error: TemplateError) -> LintFinding:
    language = next((part for part in error.file.split("/") if part in LANGUAGES), "")
    severity = lint_rules()[code].severity
    languages = (language,) if language else ()
    return LintFinding(error.file, error.line, code, severity, error.field, error.value, error.message, languages)


def _folder(file: str) -> str:
    """The language folder of a file, or the template's for its declaration."""
    return "/".join(file.split("/")[:2])


def _template(file: str) -> str:
    return file.partition("/")[0]


def _source_code(error: TemplateError) -> str:
    """The code of an error in a source."""
    if error.message.startswith("must be an https address") or error.message.startswith("must be https"):
        return "T301"
    if error.message == IN_A_LINK:
        return "T006"
    is_html = error.field.startswith("<") or error.field in ("attribute", "comment", "html") or "has no place in" in error.message
    return "T004" if is_html else "T003"


def unused_shared_files(report: FolderReport) -> Iterator[LintFinding]:
    """Layouts and macros that no template refers to."""
    files = {name: text for template in report.templates.values() for name, text in template.source.items()}
    shared = {name for name in files if name.startswith(f"{SHARED}/") and not name.endswith(".toml")}
    used = {target for name, text in files.items() for target in _REFERENCE.findall(text) if target != name}
    for name in sorted(shared - used) if not report.sources else ():
        yield LintFinding(name, 1, "T604", lint_rules()["T604"].severity, "file", "", "no template refers to it")


def without_duplicates(findings: Iterable[LintFinding]) -> list[LintFinding]:
    """The findings, without warnings about a place where a more specific code says the same."""
    found = list(findings)
    hidden = {(each.file, each.line) for each in found if each.code == "T405"}
    return [each for each in found if not (each.code in ("T104", "T108") and (each.file, each.line) in hidden)]
