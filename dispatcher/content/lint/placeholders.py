"""What does not belong in a finished text: placeholders, markup that is shown as such, broken characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample

_PLACEHOLDERS = (
    re.compile(r"\blorem ipsum\b", re.IGNORECASE),
    re.compile(r"\b(?:TODO|TBD|TBC|FIXME|XXX+)\b"),
    re.compile(r"\[[A-ZÀ-Þ][A-ZÀ-Þ0-9_ -]{2,}\]"),  # [VOORNAAM]
    re.compile(r"%%\w+%%|\*\|\w+\|\*|\$\{\w+\}|<%.*?%>|\{\{\s*\w*\s*\}\}|(?<![\w{])\{[A-Za-z_]\w*\}"),  # of other mail programs
)
_CODE = (
    re.compile(r"&(?:[a-z]{2,8}|#[0-9]{2,5}|#x[0-9a-f]{2,4});", re.IGNORECASE),
    re.compile(r"</?(?:a|b|i|p|br|em|strong|span|div|u)\b[^<>]*>", re.IGNORECASE),
    re.compile(r"\*\*\w[^*\n]*\*\*|(?<!\w)\[[^\]\n]+\]\(https?:"),  # Markdown
    re.compile(r"Ã[\u0080-\u00bf]|â€[\u0099\u009c\u009d™œ\u02dc\u201c]|Â[\u00a0-\u00bf]|\ufffd"),  # UTF-8 that was read as Latin-1
)


def placeholders(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in one message: the first of each kind in each part."""
    for part, text in sample.texts:
        for code, patterns, message in (
            ("T609", _PLACEHOLDERS, "is a placeholder: write the text, or a variable"),
            ("T610", _CODE, "is shown to the reader as it stands here"),
        ):
            if found := next((match for pattern in patterns if (match := pattern.search(text))), None):
                yield sample.finding(code, sample.place_of(part, found[0]), part, message, found[0])
