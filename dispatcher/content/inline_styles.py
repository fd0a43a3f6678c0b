"""Write the rules of a `<style>` into the style attributes of the elements that they select. Pure, and done once, at loading.

Gmail drops a style sheet that it cannot read as a whole, and Outlook for Windows reads few selectors (caniemail.com, "style
element"). css-inline does the matching. It works on the template's source, so that a rendering takes no longer: expressions and
statements stand there as placeholders, which are identifiers for CSS and text for HTML. Only style attributes change; lines stay.

The style sheet stays in the mail for what no attribute can say (`@media`, `:hover`) and for the elements of macros. A style
attribute would win over a rule in `@media`, so the declarations there become `!important`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import unescape

from css_inline import CSSInliner, InlineError

from dispatcher.content.environment import TemplateEnvironment, environment

IGNORE = "data-css-inline"  # css-inline's attribute: `data-css-inline="ignore"` leaves a style sheet alone
_EDGES = "\ue0f8\ue0f9"  # of Unicode's private use area: they do not occur in texts
_PLACEHOLDER = re.compile(f"{_EDGES[0]}([0-9]+){_EDGES[1]}")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_STYLE = re.compile(r"<style\b(?P<attributes>[^>]*)>(?P<css>.*?)</style\s*>", re.DOTALL | re.IGNORECASE)
_IGNORED = re.compile(rf"\s*{IGNORE}\s*=\s*([\"']?)ignore\1", re.IGNORECASE)
_TAG = re.compile(
    r"<!--.*?-->|<style\b.*?</style\s*>|</(?P<end>[a-zA-Z][\w:-]*)[^>]*>"
    r"|<(?P<start>[a-zA-Z][\w:-]*)(?P<attributes>(?:[^>\"']|\"[^\"]*\"|'[^']*')*)>",
    re.DOTALL | re.IGNORECASE,
)
_NUMBER = "data-inline-number"
_NUMBERED = re.compile(rf"<[a-zA-Z](?:[^>\"']|\"[^\"]*\"|'[^']*')*?\s{_NUMBER}=\"([0-9]+)\"(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")
_STYLE_ATTRIBUTE = re.compile(r"\sstyle\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.IGNORECASE)
_EXTENDS = re.compile(r"\{%-?\s*extends\s+[\"']([^\"']+)[\"']")
_CSS_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CONDITIONAL_RULE = re.compile(r"@(?:media|supports)\b[^{;]*\{", re.IGNORECASE)
_INNER_BLOCK = re.compile(r"\{([^{}]*)\}")
_DECLARATION = re.compile(r"(?:[^;\"']|\"[^\"]*\"|'[^']*')+")
_TABLE_PARTS: Mapping[str, tuple[str, frozenset[str]]] = {  # what must stand around it, or a parser drops it
    "tr": ("<table>", frozenset({"table", "tbody", "thead", "tfoot"})),
    "td": ("<table><tr>", frozenset({"tr"})),
    "th": ("<table><tr>", frozenset({"tr"})),
    "tbody": ("<table>", frozenset({"table"})),
    "caption": ("<table>", frozenset({"table"})),
}


def inlined_sources(sources: Mapping[str, str]) -> dict[str, str]:
    """All sources of a folder by name, with the rules of their style sheets in style attributes.

    A rule reaches the elements of its own file and of the files that extend it. A source that cannot be read stays as it is:
    loading reports it.
    """
    env = environment({})
    with_rules = {name for name, source in sources.items() if name.endswith(".html") and "<style" in source}
    result = dict(sources)
    for name, source in sources.items():
        if name.endswith(".html") and with_rules.intersection((name, *_layouts(name, sources))):
            css = "\n".join(_rules(env, sources[each]) for each in (*reversed(_layouts(name, sources)), name))
            if css.strip() or IGNORE in source:
                result[name] = _inlined(env, source, css)
    return result


def style_faults(env: TemplateEnvironment, source: str) -> Iterator[tuple[int, str, str]]:
    """Style sheets that cannot be inlined, or that no message would hold: (line, name, message)."""
    flat, chunks = _flat(env, source)
    masked = _COMMENT.sub(lambda comment: " " * len(comment[0]), flat)
    for sheet in _STYLE.finditer(masked):
        line = _restored(flat[: sheet.start()], chunks).count("\n") + 1
        if not _IGNORED.search(sheet["attributes"]):
            inside = (chunks[int(found[1])] for found in _PLACEHOLDER.finditer(sheet["css"]))
            if any(chunk.startswith("{%") for chunk in inside):
                yield line, "<style", "may hold no statement: its rules are written into the elements before a message is rendered"
        before = [chunks[int(found[1])] for found in _PLACEHOLDER.finditer(flat[: sheet.start()])]
        words = [found[1] for chunk in before if (found := re.match(r"\{%[-+]?\s*(\w+)", chunk))]
        if "extends" in words and words.count("block") == words.count("endblock"):
            yield line, "<style", "stands outside a block, so that no message holds it: write it in {% block style %}"


def _layouts(name: str, sources: Mapping[str, str]) -> list[str]:
    """The layouts that a source extends, the nearest first."""
    found: list[str] = []
    while (extended := _EXTENDS.search(sources[name])) and extended[1] in sources and extended[1] not in found:
        name = extended[1]
        found.append(name)
    return found


def _rules(env: TemplateEnvironment, source: str) -> str:
    """The rules of a source that are to be inlined, without Jinja's placeholders: theme values are put back."""
    if "<style" not in source:
        return ""
    try:
        flat, chunks = _flat(env, source)
    except Exception:  # a syntax error, which loading reports
        return ""
    flat = _COMMENT.sub("", flat)
    sheets = (sheet["css"] for sheet in _STYLE.finditer(flat) if not _IGNORED.search(sheet["attributes"]))
    return _restored("\n".join(sheets), chunks)


def _inlined(env: TemplateEnvironment, source: str, css: str) -> str:
    try:
        flat, chunks = _flat(env, source)
    except Exception:  # as above
        return source
    rules, chunks = _protected(css, chunks)
    if css.strip():
        try:
            flat = _with_attributes(flat, rules)
        except InlineError:
            return source
    return _restored(_with_sheets(flat), chunks)


def _flat(env: TemplateEnvironment, source: str) -> tuple[str, list[str]]:
    """The source with a placeholder for each expression, statement and comment; and those."""
    pieces: list[str] = []
    chunks: list[str] = []
    chunk = ""
    for _, kind, token in env.lex(source):
        if kind == "data" and not chunk:
            pieces.append(token)
            continue
        chunk += token
        if kind.endswith("_end") or kind == "raw_begin":
            pieces.append(f"{_EDGES[0]}{len(chunks)}{_EDGES[1]}")
            chunks.append(chunk)
            chunk = ""
    return "".join(pieces), chunks


def _protected(css: str, chunks: list[str]) -> tuple[str, list[str]]:
    """The rules with placeholders for their expressions, which follow the others."""
    found: list[str] = []

    def placeholder(expression: re.Match[str]) -> str:
        found.append(expression[0])
        return f"{_EDGES[0]}{len(chunks) + len(found) - 1}{_EDGES[1]}"

    return re.sub(r"\{\{.*?\}\}", placeholder, css, flags=re.DOTALL), [*chunks, *found]


def _restored(flat: str, chunks: list[str]) -> str:
    return _PLACEHOLDER.sub(lambda found: chunks[int(found[1])], flat)


def _with_attributes(flat: str, css: str) -> str:
    """The HTML with the rules in its style attributes. The rest keeps its bytes: of what css-inline writes, only the styles are
    taken."""
    tags = [tag for tag in _TAG.finditer(flat) if tag["start"] or tag["end"]]
    document = _numbered(flat, tags)
    inliner = CSSInliner(inline_style_tags=False, keep_style_tags=False, load_remote_stylesheets=False, extra_css=css)
    styles: dict[int, str] = {}
    for tag in _NUMBERED.finditer(inliner.inline(document)):
        style = _STYLE_ATTRIBUTE.search(tag[0])
        if style:
            styles[int(tag[1])] = style[1] or style[2] or ""
    pieces, position = [], 0
    for number, tag in enumerate(tags):
        own = _STYLE_ATTRIBUTE.search(tag["attributes"] or "")
        written = (own[1] or own[2] or "") if own else ""
        style_text = " ".join(styles.get(number, "").split())
        if number not in styles or unescape(style_text) == unescape(" ".join(written.split())):
            continue
        begin = tag.start("attributes")
        start, end = (begin + own.start(), begin + own.end()) if own else (begin, begin)
        lines = "\n" * flat[start:end].count("\n")  # findings name the lines of the source
        pieces += [flat[position:start], f' style="{style_text.rstrip()}"', lines]
        position = end
    return "".join([*pieces, flat[position:]])


def _numbered(flat: str, tags: list[re.Match[str]]) -> str:
    """The HTML with a number in each start tag. Rows and cells that stand alone, as in a macro, get a table."""
    pieces: list[str] = []
    opened: list[tuple[str, bool]] = []  # each with whether a table was put around it
    position = 0
    for number, tag in enumerate(tags):
        pieces.append(flat[position : tag.start()])
        position = tag.end()
        if tag["end"]:
            name = tag["end"].lower()
            pieces.append(tag[0])
            while any(each == name for each, _ in opened):
                closed, wrapped = opened.pop()
                pieces.append("</table>" if wrapped else "")
                if closed == name:
                    break
            continue
        name, wrapped = tag["start"].lower(), False
        if name in _TABLE_PARTS:
            table, parents = _TABLE_PARTS[name]
            wrapped = not opened or opened[-1][0] not in parents
            pieces.append(table if wrapped else "")
        if name not in _VOID and not tag["attributes"].endswith("/"):
            opened.append((name, wrapped))
        end = tag.start("attributes") - tag.start()
        pieces.append(f'{tag[0][:end]} {_NUMBER}="{number}"{tag[0][end:]}')
    pieces.append(flat[position:])
    return "".join(pieces)


_VOID = frozenset(["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])


def _with_sheets(flat: str) -> str:
    """The HTML with its style sheets as they are sent."""
    masked = _COMMENT.sub(lambda comment: "\0" * len(comment[0]), flat)
    pieces, position = [], 0
    for sheet in _STYLE.finditer(masked):
        attributes, css = sheet["attributes"], sheet["css"]
        ignored = _IGNORED.search(attributes)
        pieces += [flat[position : sheet.start("attributes")], _IGNORED.sub("", attributes)]
        pieces += [">", css if ignored else _important(css)]
        position = sheet.end("css")
    return "".join([*pieces, flat[position:]])


def _important(css: str) -> str:
    """The rules with `!important` in what stands under a condition."""
    css = _CSS_COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), css)
    pieces, position = [], 0
    while rule := _CONDITIONAL_RULE.search(css, position):
        depth, end = 1, rule.end()
        while depth and end < len(css):
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        pieces += [css[position : rule.end()], _INNER_BLOCK.sub(_important_block, css[rule.end() : end])]
        position = end
    return "".join([*pieces, css[position:]])


def _important_block(block: re.Match[str]) -> str:
    def declaration(found: re.Match[str]) -> str:
        text = found[0]
        if ":" not in text or "!important" in text.lower():
            return text
        words = text.rstrip()
        return f"{words} !important{text[len(words) :]}"

    return f"{{{_DECLARATION.sub(declaration, block[1])}}}"
