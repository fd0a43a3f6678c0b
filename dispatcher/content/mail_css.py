"""What the CSS of a mail may hold: allow-lists of at-rules and functions, and the addresses that it loads. Pure.

The text is split into tokens as browsers do it (tinycss2, CSS Syntax Level 3): "/*" begins no comment in a string or an address.
Some mail clients clean CSS with simple patterns that do not know that, so a string or an address with "/*" or "*/" is refused too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import tinycss2

_AT_RULES = frozenset({"media", "supports", "font-face", "keyframes", "-webkit-keyframes", "charset", "page", "-ms-viewport"})
_FUNCTION_NAMES = """
    calc clamp cubic-bezier format hsl hsla lang linear-gradient local max min not is where nth-child nth-of-type
    radial-gradient repeat rgb rgba rotate scale steps translate translatex translatey url var and or screen
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_FORBIDDEN = re.compile(r"\\|<|-moz-binding|(?<![\w-])behaviou?r\s*:|javascript\s*:|vbscript\s*:", re.IGNORECASE)
_IN_STRING = re.compile(r"/\*|\*/|url\(|@import", re.IGNORECASE)
_LINE_ENDS = re.compile("\r\n|[\r\f]")
_NOT_ALLOWED = "has no place in the style of a mail"

Fault = tuple[int, str, str]  # the line from 0, what is refused, and why


@lru_cache(maxsize=1_024)  # a layout has some forty styles, the same in all mails
def read_css(css: str, gap_edges: str) -> tuple[tuple[Fault, ...], tuple[tuple[int, str], ...]]:
    """The faults and the addresses of a style sheet or a style attribute, each with its line from 0.

    Functions and at-rules must be on the list: several can load a file. `gap_edges` are the characters around a place for a value.
    """
    css = _LINE_ENDS.sub("\n", css)  # as the tokenizer does, which counts lines and columns afterwards
    tokens = list(_all_tokens(tinycss2.parse_component_value_list(css)))
    faults = [fault for token in tokens if (fault := _fault(token))]
    words = _without_comments(css, tokens)
    faults += [(words.count("\n", 0, found.start()), found[0], _NOT_ALLOWED) for found in _FORBIDDEN.finditer(words)]
    if any(edge in css for edge in gap_edges):  # in a comment too: the value could end it
        faults.append((0, "", "a style can't hold a variable"))
    return tuple(sorted(faults)), tuple(_addresses(tokens))


def _all_tokens(tokens: Iterable[Any]) -> Iterator[Any]:
    """The tokens, with those inside blocks and functions. Not recursive: nesting has no limit."""
    waiting = [iter(tokens)]
    while waiting:
        token = next(waiting[-1], None)
        if token is None:
            waiting.pop()
        else:
            yield token
            waiting.append(iter(getattr(token, "content", None) or getattr(token, "arguments", None) or ()))


def _fault(token: Any) -> Fault | None:
    line, kind = token.source_line - 1, token.type
    if kind == "error":
        is_open = token.kind.startswith("eof-in")
        return line, "", "is not closed" if is_open else f"is not CSS: {token.message}"
    if kind == "at-keyword" and token.lower_value not in _AT_RULES:
        return line, f"@{token.value}", _NOT_ALLOWED
    if kind == "function" and token.lower_name not in _FUNCTIONS:
        return line, f"{token.name}(", _NOT_ALLOWED
    if kind == "function" and token.lower_name == "url" and _quoted_address(token) is None:
        return line, "url(", "must hold one address in quotation marks, and nothing else"
    if kind in ("string", "url") and (part := _IN_STRING.search(token.value)):
        return line, part[0], "must not stand in a string or an address"
    return None


def _quoted_address(function: Any) -> str | None:
    arguments = [each for each in function.arguments if each.type not in ("whitespace", "comment")]
    return arguments[0].value if len(arguments) == 1 and arguments[0].type == "string" else None


def _addresses(tokens: Iterable[Any]) -> Iterator[tuple[int, str]]:
    for token in tokens:
        if token.type == "url":
            yield token.source_line - 1, token.value.strip()
        elif token.type == "function" and token.lower_name == "url":
            yield token.source_line - 1, (_quoted_address(token) or "").strip()


def _without_comments(css: str, tokens: Iterable[Any]) -> str:
    """The text with nothing but line ends in place of its comments. A comment inside a word joins its halves."""
    comments = [token for token in tokens if token.type == "comment"]
    starts = [0, *(match.end() for match in re.finditer("\n", css))] if comments else []
    pieces, end = [], 0
    for comment in comments:
        start = starts[comment.source_line - 1] + comment.source_column - 1
        pieces += [css[end:start], "\n" * comment.value.count("\n")]
        end = start + len(comment.value) + 4
    return "".join((*pieces, css[end:]))
