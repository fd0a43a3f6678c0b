"""Which Jinja statement has no end, or no beginning. Jinja names the line where it noticed, and not that of the statement. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jinja2 import TemplateSyntaxError

from dispatcher.content.environment import TemplateEnvironment

_PAIRED = frozenset({"if", "for", "block", "macro", "call", "filter", "set", "with"})
_MIDDLES = frozenset({"elif", "else"})


class _Statement(NamedTuple):
    """A statement: its line, its first word, what follows, and whether nothing else stands on its line."""

    line: int
    word: str
    rest: str
    is_alone: bool

    def __str__(self) -> str:
        return "{% " + f"{self.word} {self.rest}".strip() + " %}"


def unpaired(env: TemplateEnvironment, source: str) -> tuple[int, str] | None:
    """Line and message of the first statement without its partner; None if all have one, or the source cannot be read."""
    opened: list[_Statement] = []
    try:
        statements = list(_statements(env, source))
    except TemplateSyntaxError:
        return None
    for each in statements:
        begins = each.word.removeprefix("end")
        if each.word in _PAIRED and not (each.word == "set" and "=" in each.rest):
            opened.append(each)
        elif each.word in _MIDDLES and not opened:
            return each.line, f"{each} stands in no {{% if … %}}"
        elif each.word != begins and begins in _PAIRED:
            if not any(other.word == begins for other in opened):
                return each.line, f"{each} closes nothing: no {{% {begins} … %}} is open"
            top = opened[-1]
            # an end on a line of its own belongs to a beginning on a line of its own
            is_outer = each.is_alone and not top.is_alone and any(o.word == begins and o.is_alone for o in opened[:-1])
            if top.word != begins or (is_outer and top.line < each.line):
                return top.line, f"{top} is not closed: {{% end{top.word} %}} is missing before {each} in line {each.line}"
            opened.pop()
    if opened:
        return opened[-1].line, f"{opened[-1]} is not closed: {{% end{opened[-1].word} %}} is missing"
    return None


def _statements(env: TemplateEnvironment, source: str) -> Iterator[_Statement]:
    """All statements of a source, in order."""
    lines = source.split("\n")
    first, words = 0, list[str]()
    for line, kind, token in env.lex(source):
        if kind == "block_begin":
            first, words = line, []
        elif kind == "block_end" and words:
            text = lines[first - 1].strip()
            is_alone = text.startswith("{%") and text.count("{%") == 1 and text.endswith("%}")
            yield _Statement(first, words[0], "".join(words[1:]).strip(), is_alone)
            words = []
        elif first and kind not in ("data", "variable_begin", "variable_end") and (words or kind != "whitespace"):
            words.append(token)
