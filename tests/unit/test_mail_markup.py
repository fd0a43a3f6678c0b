"""Mails read by their markup: the same result as by the parser, whatever texts and links they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import escape

from channels.base import Channel, Email, TextTemplate
from dispatcher.content import MessageLinks, example_request
from dispatcher.content.guard import ContentRequirements, failed_check
from dispatcher.content.links import text_links
from dispatcher.content.mail_html import read_mail_html
from dispatcher.content.mail_markup import MailMarkup, read_mail, read_markup, split_texts
from dispatcher.domain.recipient import LANGUAGES
from tests.support.services import templates

# A place for a value is a piece of its own: "text" escaped, "raw" as it is, "link" the reader's own link.
PIECES = (
    *(
        "<p>",
        "</p>",
        "<td>",
        "<br>",
        "<pre>",
        "<b",
        ">",
        "<",
        "\n",
        "  ",
        "</unknown>",
        "<xmp>",
        "<textarea>",
        "&",
        "&amp",
        "&#",
        "x",
    ),
    *(
        "<title>",
        "</title>",
        "<style>",
        "</style>",
        "<STYLE>",
        "</STYLE>",
        "<html>",
        "<head>",
        "</head>",
        "<body>",
        "<body class='x'>",
    ),
    *(
        "<!--",
        "-->",
        "--!>",
        "<!-- x -->",
        "<!--[if mso]>",
        "<![endif]-->",
        "<!--[if !mso]><!-->",
        "<!--<![endif]-->",
        "<![CDATA[",
        "<?x",
    ),
    *(
        '<a href="',
        '">',
        "<a href='",
        "'>",
        '<p title="',
        '<img src="',
        "<a href=",
        '<p style="',
        '<td background="',
        '<p onclick="',
    ),
    *(
        "p { color: red }",
        "p > b { color: red }",
        "url(",
        ")",
        '"',
        "'",
        "<!DOCTYPE html>",
        "&nbsp;",
        "&#847;",
        "<svg>",
        "\0",
        "\r\n",
    ),
)
PLACES = ("text", "text", "raw", "link")
TEXTS = st.sampled_from(
    (
        *(
            "Anna",
            "",
            " ",
            "\n",
            "\u00a0",
            "Zo\u00eb \U0001f600",
            "l'offre",
            'say "x"',
            "R&D",
            "a > b",
            "1 < 2",
            "<b>",
            "<script>x</script>",
        ),
        *(
            "--",
            "-->",
            "]]>",
            "&amp;",
            "&lt;img src=x&gt;",
            "&copy",
            "&#1;",
            "&#128;",
            "&#39;",
            "https://evil.example/x",
            "javascript:x",
            "\0",
            "\r",
            "\t a",
        ),
        *(
            "\ue0f20 \ue0f3",
            "\ue0f3",
            "\ud800",
            "\ufffe",
            "\x1b",
            "\x85",
            "x" * 3_000,
            " b" * 2_000,
            "onclick=x",
            "<!--",
            "{{ x }}",
        ),
    )
)
LINKS = st.sampled_from(
    (
        "https://b.example/u/a1",
        "https://b.example/u/a1/2",
        "https://b.example/u?x=1&y",
        "",
        "x",
        "p",
        "javascript:x",
        "https://b.example/\u00e9",
    )
)
CLAUSES = (
    *(("<p>", place, "</p>") for place in ("text", "raw")),
    *((opening, "link", '">') for opening in ('<a href="', '<a title="', '<img src="', '<p style="', "<!-- ", "<a href=")),
    *((opening, "text", closing) for opening, closing in (('<p title="', '">'), ("<style>", "</style>"), ("<title>", "</title>"))),
    *((opening, "text", "</p>") for opening in ("<!--[if mso]><p>", "<xmp>", "<p>\n ", "<p>x ", "a > ", "<p>&nbsp;", "</x>")),
    ('<a href="', "link", '?x">', "link", "</a>"),
    ("<p>", "link", "</p>"),
    *((f'{opening}">', "raw", '<b>">') for opening in ("<p title=", "<a href=", "<p style=")),
)
FRAMES = st.lists(st.sampled_from(CLAUSES) | st.tuples(st.sampled_from(PIECES) | st.sampled_from(PLACES)), max_size=7).map(
    lambda clauses: [piece for clause in clauses for piece in clause][:14]
)
MAILS = st.lists(st.tuples(st.lists(TEXTS | st.text(max_size=4), min_size=14, max_size=14), LINKS), min_size=4, max_size=4)


def mail_html(frame: Sequence[str], texts: Sequence[str], link: str) -> str:
    """The frame with these values in its places."""
    values: Mapping[str, Callable[[str], str]] = {
        "text": lambda text: str(escape(text)),
        "raw": str,
        "link": lambda _: str(escape(link)),
    }
    return "".join(values[piece](text) if piece in values else piece for piece, text in zip(frame, texts, strict=False))


ANNA = [(["Anna"] * 14, "https://b.example/u/a1")] * 4


@example(["<p>", "text", "<b>", "text", "</b>", '<a href="', "link", '">', "raw", "</a>"], ANNA)
@example(["<style>", "raw", "</style>"], [(["p { color: red }"] * 14, ""), (["p { behavior: url(x) }"] * 14, ""), *ANNA[:2]])
@example(["<!--[if mso]>", "<p>", "text", "</p>", "<![endif]-->"], [(["--"] * 14, ""), *ANNA[:3]])
@example(["<p>", "text", "</unknown>", "text", "</p>"], ANNA)
@example(['<p title=">', "raw", '<b>">'], [([text] * 14, "") for text in ("Anna", "Zo", 'x" onclick="y', "Ed")])
@example(["<p>", "\n", "text", "\n", "</p>"], [([" b" * 2_000] * 14, ""), *ANNA[:3]])
@given(FRAMES, MAILS)
@settings(max_examples=400, deadline=None)
def test_mails_of_one_markup_are_read_as_by_the_parser(frame: list[str], mails: list[tuple[list[str], str]]) -> None:
    for texts, link in mails:  # the first one reads the markup, and the others are read by it
        html = mail_html(frame, texts, link)
        parsed = read_mail_html(html)
        for _ in range(2):  # of the second one, read both ways, only the parser's result would be seen
            assert read_mail(html, (link, "https://b.example/p")) == parsed


@pytest.mark.parametrize("name", sorted(templates()))
def test_shipped_mails_are_read_by_their_markup(name: str) -> None:
    template = templates()[name]
    for language in LANGUAGES:
        for mode in template.info.modes:
            markups = set()
            for person in ("Anna", "Zo\u00eb O'Neil & Co", "\u0141ukasz"):
                request = example_request(template, Channel.EMAIL, language, mode, {"first_name": person})
                links = MessageLinks(f"https://b.example/u/{len(person)}", f"https://b.example/p/{len(person)}")
                request = replace(request, links=links)
                mail: Any = template.compose(request, template.context(request))
                both = (links.unsubscribe, links.preferences)
                markups.add(split_texts(mail.html, both)[0])
                assert read_mail(mail.html, both) == read_mail_html(mail.html)
            (markup,) = markups
            assert read_markup(markup, 2), "the markup can't be used"


def test_a_markup_that_differs_from_the_parser_is_left() -> None:
    markup = MailMarkup((TextTemplate(("not this",), ()),), (), ())
    results = [markup.read("<p>this</p>", ["this"]) for _ in range(2)]
    assert [result.texts for result in results] == [["not this"], ["this"]]
    assert not markup.is_usable


REQUIREMENTS = ContentRequirements(False, "", "", "", MessageLinks("https://b.example/u/1", "https://b.example/p/1"))


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_value_that_is_not_escaped_fails_the_guard(values: list[str]) -> None:
    for value in (*values, "<img src=x onerror=y>"):
        html = f"<p>Hello</p><p>{value}</p><p>Bye</p>"
        failed = failed_check(Email("S", "s@b.example", "Hello", html, "Hello"), "", REQUIREMENTS)
        assert (failed == "mail_html") == bool(read_mail_html(html).faults)


@given(
    st.lists(TEXTS | st.sampled_from(["www.b", ".example", "http", "://b.example", "s", "/", "@", "\u034f", "\u0338"]), max_size=8)
)
def test_no_link_goes_over_the_end_of_a_line(lines: list[str]) -> None:
    known = frozenset({"b.example"})
    by_line = [link for line in "\n".join(lines).split("\n") for link in text_links(line, known)]
    assert sorted(by_line) == sorted(text_links("\n".join(lines), known))
