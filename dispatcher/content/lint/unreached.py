"""Mail texts that no message has: outside a layout's blocks, in a block that it does not have, in a macro that is not called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from jinja2 import TemplateSyntaxError, nodes

from dispatcher.content.environment import environment
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample, first_by_language

_BLOCK = re.compile(r"\{%-?\s*block\s+(\w+)")
_MAIL_PARTS = ("email.html", "email.text")
_WORDS = re.compile(r"[^\W\d_]{2}")


def unreached(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """The findings in the mail sources of one template."""
    for sample in first_by_language(samples):
        language = sample.request.language
        for part in _MAIL_PARTS:
            source = sample.sources.parts[language].get(part)
            if source is None or source.is_generated:
                continue
            for line, message, value in _texts(source.source, sample.template.source):
                finding = sample.finding("T606", source.place(line), part, message, value)
                yield replace(finding, channels=("email",), modes=())


def _texts(source: str, files: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Line, message and text of each."""
    try:
        tree = environment({}).parse(source)
    except TemplateSyntaxError:  # which loading reports
        return
    if (layout := next(tree.find_all(nodes.Extends), None)) is not None and isinstance(layout.template, nodes.Const):
        known = _blocks(str(layout.template.value), files)
        for node in tree.body if layout.template.value in files else ():  # loading reports a layout that is not there
            if isinstance(node, nodes.Block) and node.name not in known:
                yield node.lineno, "the layout does not have this block, so no message shows it", node.name
            elif isinstance(node, nodes.Output | nodes.If | nodes.CallBlock) and (words := _shown(node)):
                yield _line(node), "stands outside the blocks of the layout, so no message shows it", words
    called = {each.node.name for each in tree.find_all(nodes.Call) if isinstance(each.node, nodes.Name)}
    for macro in tree.find_all(nodes.Macro):
        if macro.name not in called:
            yield macro.lineno, "nothing calls this macro, so no message shows its text", macro.name


def _blocks(layout: str, files: Mapping[str, str]) -> frozenset[str]:
    """The blocks of a layout, and of those that it extends."""
    found: set[str] = set()
    seen: set[str] = set()
    while layout in files and layout not in seen:
        seen.add(layout)
        found |= set(_BLOCK.findall(files[layout]))
        extended = re.search(r"\{%-?\s*extends\s+[\"']([^\"']+)", files[layout])
        layout = extended[1] if extended else ""
    return frozenset(found)


def _shown(node: nodes.Node) -> str:
    """The text of a node, if it has words or a value; else ""."""
    texts = [each.data for each in node.find_all(nodes.TemplateData)]
    return next((text.strip() for text in texts if _WORDS.search(text)), "")


def _line(node: nodes.Node) -> int:
    """The line of the first word of a node."""
    for data in node.find_all(nodes.TemplateData):
        if _WORDS.search(data.data):
            return data.lineno + data.data[: len(data.data) - len(data.data.lstrip())].count("\n")
    return node.lineno
