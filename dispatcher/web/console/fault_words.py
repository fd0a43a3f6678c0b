"""What is wrong with a row of a file, and what a campaign needs, in the reader's language.

Readers of files and checks of campaigns say it in English, and the ledger keeps that. Here are their sentences, with a placeholder
for each part that differs; the catalogs of gettext translate these. A part with the name `what` is itself such a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from babel.dates import format_date

READINGS = "has two readings, %(one)s and %(other)s: write %(first)s or %(second)s"
FAULTS = (
    "must be text",
    "is longer than %(count)s characters",
    "must be a number",
    "must be a number such as 12.50",
    "must be a number such as 12.50 or 12,50",
    "must be a number written with ASCII digits",
    "is out of range",
    "has two readings: an amount in a text has two decimals or none",
    READINGS,
    "must be a day without a time",
    "must be a day written YYYY-MM-DD",
    "must be an https address",
    "must be an https address of plain ASCII",
    "is what a program writes for a missing value; leave the cell empty",
    "holds the mark of a template that was not filled in",
    "not declared by the template",
    "missing",
    "string should match pattern %(pattern)s",
    "input should be a valid string",
    "begins with %(prefix)s, which is reserved for canary recipients",
    "holds something that is not JSON text",
    "holds a null character",
    "is larger than %(count)s bytes",
    "is not UTF-8, perhaps Windows-1252; save the file as UTF-8",
    "holds a character that was lost (U+FFFD) when the file was saved in a wrong encoding; export it again as UTF-8",
    "is UTF-8 that was read as Windows-1252 and saved again; export it again as UTF-8",
    "is not JSON: %(error)s",
    "is not a JSON object",
    "occurs twice in one object",
    "has a value in a column without a name",
    "has %(count)s cells where the header has %(width)s",
    "has a quote that takes in the cells after it",
    "opens a quote that is not closed",
    "opens a quote that is not closed within %(count)s lines",
    "opens a quote that is not closed before the next row",
    "is not CSV: %(error)s",
    "should be a day such as 2026-12-31, or a time such as 2026-12-31T09:30:00+01:00",
    "lies in the future",
)
FAULTS_OF_FILES = (
    "The file %(what)s",
    "should be a .csv, .xlsx or .jsonl file; save the workbook as one of these",
    "is empty; the first line names the columns",
    "is not an .xlsx workbook",
    "is not a workbook that can be read; open it in a spreadsheet and save it again as .xlsx",
    "has formulas without their values; open it in a spreadsheet and save it again as .xlsx",
    "has %(count)s sheets with rows; keep the one that is meant",
    "has merged cells (%(cells)s): only the first of them has a value; unmerge them",
    "is too large for a workbook; save it as CSV (UTF-8)",
)
NEEDS = (
    "its audience has no rows: the campaign would reach nobody; as it is, it will be refused",
    "somebody other than its submitter has to release it, because %(count)s of its rows cannot be read",
    "somebody other than its submitter has to release it, because it has more than %(count)s recipients",
    "version %(version)s of %(name)s (%(digest)s) is not approved: an approver approves it on the page Templates",
    "WhatsApp has not approved %(count)s of the %(all)s WhatsApp texts of %(name)s: ask those who look after the templates",
    "%(count)s of its texts are still to be written, the first at %(place)s: ask those who look after the templates",
    "the file cannot be read: %(what)s",
    "no dry run can be made of a campaign that is %(state)s",
)
SENTENCES = (*FAULTS, *FAULTS_OF_FILES, *NEEDS)
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


def _pattern(sentence: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(sentence)  # text, name, text, name, …
    written = (f"(?P<{part}>.+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    return re.compile("".join(written), re.DOTALL)


_PATTERNS = [(_pattern(sentence), sentence) for sentence in SENTENCES]


def fault_parts(message: str) -> tuple[str, Mapping[str, str]] | None:
    """The sentence of a fault, and its parts that differ; None where it is none of these."""
    for pattern, sentence in _PATTERNS:
        if match := pattern.fullmatch(message):
            return sentence, match.groupdict()
    return None


def local_parts(sentence: str, parts: Mapping[str, str], locale: str) -> Mapping[str, str]:
    """The parts for readers of a language: the days of two readings with the names of its months."""
    if sentence != READINGS:
        return parts
    try:
        days = [date.fromisoformat(parts[name]) for name in ("first", "second")]
    except ValueError:  # two numbers
        return parts
    one, other = (format_date(day, "long", locale=locale) for day in days)
    return {**parts, "one": one, "other": other}
