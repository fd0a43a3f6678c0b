"""Reads the HTML of a mail whose markup was read before, without parsing it again. Pure.

The mails of one template and language mostly have the same markup: only texts and the reader's own two links differ. The texts are
taken out, the rest is parsed once with a mark at each place, and the result is kept. A markup is used again only if every mark came
back as text, or as an own link in an attribute that may hold one. Then no text can change the structure: it has no "<", no ">", and
no "&" except that of a whole escape. Everything else is parsed in full.

The second mail of each markup, and then every thousandth, is read both ways. After a difference that markup is not used again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import unescape

import structlog

from channels.base import TextTemplate
from dispatcher.content.mail_html import GAP_EDGES, HtmlLink, MailHtml, gap_mark, read_mail_html, with_gaps

CHECKED_EVERY = 1_000
_MARKUPS_MAX = 64  # per process: some 60 KB each
_HTML_CHARACTERS_MAX = 500_000  # far below the sizes at which libxml2 stops

# A text begins with what is not a blank: before the body, libxml2 treats blanks as no text. Controls, halves of a pair (U+D800…)
# and non-characters are left to the parser; so are all escapes but these, and the CSS of a style sheet.
_LEFT_OUT = "<>&\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff" + GAP_EDGES
_MORE = rf"[^{_LEFT_OUT}]*+(?:&(?:amp|lt|gt|nbsp|#3[49]);[^{_LEFT_OUT}]*+)*+"
_TEXT = re.compile(rf">(?!\n?<)([ \t\n]*+)([^ \t\n{_LEFT_OUT}]{_MORE})<(?!/style)")  # (?!: most tags follow each other
_OWN_LINK = re.compile(r"https?://[A-Za-z0-9._~/?=%:-]+")
_ONLY_GAP = ("", "")
_END = "\0"  # between the pieces of a markup, and between texts

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class MailMarkup:
    """What is known of a markup. The gaps of `texts` and of `links` are first the own links, then the texts that were taken out.

    `fixed` are all links; `links` are those with a gap, each with its place among them. `uses` counts the mails read by it.
    """

    texts: tuple[TextTemplate, ...]
    fixed: tuple[HtmlLink, ...]
    links: tuple[tuple[int, TextTemplate], ...]
    uses: int = 0
    is_usable: bool = True

    def read(self, html: str, values: Sequence[str]) -> MailHtml:
        """The reading of a mail with these values."""
        result = self._fill(values)
        self.uses += 1
        if self.uses % CHECKED_EVERY != 2:
            return result
        parsed = read_mail_html(html)
        if parsed != result:
            self.is_usable = False
            log.error("mail_markup_differs")
        return parsed

    def _fill(self, values: Sequence[str]) -> MailHtml:
        texts = [values[text.gaps[0]] if text.literals == _ONLY_GAP else text.fill(values) for text in self.texts]
        links = list(self.fixed)
        for place, link in self.links:
            links[place] = replace(links[place], address=link.fill(values))
        return MailHtml(links, [text for text in texts if not text.isspace()])


def read_mail(html: str, own_links: Iterable[str]) -> MailHtml:
    """The same as `read_mail_html(html)`. `own_links` are addresses that differ in each mail."""
    if _END in html or GAP_EDGES[0] in html or len(html) > _HTML_CHARACTERS_MAX:
        return read_mail_html(html)
    links = [link for link in own_links if _OWN_LINK.fullmatch(link)]
    key, texts = split_texts(html, links)
    markup = read_markup(key, len(links))
    return markup.read(html, [*links, *texts]) if markup is not None and markup.is_usable else read_mail_html(html)


def split_texts(html: str, own_links: Sequence[str]) -> tuple[str, Sequence[str]]:
    """A mail's markup without its texts and own links, and the texts without HTML's escapes."""
    pieces = _TEXT.split(html)
    texts = _END.join(pieces[2::3])
    del pieces[2::3]
    markup = _END.join(pieces)
    for number, link in enumerate(own_links):
        markup = markup.replace(link, gap_mark(number))
    return markup, (unescape(texts) if "&" in texts else texts).split(_END) if texts else ()


@lru_cache(maxsize=_MARKUPS_MAX)
def read_markup(markup: str, own_links: int) -> MailMarkup | None:
    """The reading of what `split_texts` returns; None where a text or an own link is at a place that the reading does not show."""
    pieces = markup.split(_END)  # in turn what is before the tag's end, and the blanks after it
    before = [f"{tags}>{blanks}" for tags, blanks in zip(pieces[:-1:2], pieces[1::2], strict=True)]
    mail = read_mail_html("".join(f"{tags}{gap_mark(gap)}<" for gap, tags in enumerate(before, own_links)) + pieces[-1])
    texts, links = ([with_gaps(each) for each in found] for found in (mail.texts, [link.address for link in mail.links]))
    places = sorted(gap for text in texts for gap in text.gaps if gap >= own_links)
    if mail.faults or places != list(range(own_links, own_links + len(before))):
        return None
    return MailMarkup(tuple(texts), tuple(mail.links), tuple((place, link) for place, link in enumerate(links) if link.gaps))
