"""Checks for all mails of one mail template: what needs to be read once per template, and what once per mail. Pure.

The content guard reads a whole mail. Most of a mail is its template's own text, which is the same in thousands of mails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import Any

from markupsafe import escape

from channels.base import MailTemplate, MergedEmail, TextTemplate
from dispatcher.content.guard import ContentRequirements, has_allowed_host, known_hosts, leaks_personal_data
from dispatcher.content.links import as_read, has_top_level_domain, host_of, is_within, may_name_host, names_in, text_links
from dispatcher.content.mail_html import GAP, GAP_EDGES, MailHtml, gap_mark, link_is_allowed, read_mail_html, with_gaps
from dispatcher.content.render_request import LinkHosts

_OPEN_ESCAPE = re.compile(r"&[#\w]*\Z")  # an escape of HTML that begins in the template's text and could end in a value


@dataclass(frozen=True, slots=True)
class PathCheck:
    """Shows that a mail of one `MailTemplate` passes the guard, from the template's text and a few of the mail's values.

    Values in text and in attributes that hold no address are escaped, so they change nothing that the guard checks. `own` are the
    gaps of the reader's own links, `in_text` all other gaps of texts (`closed` those after which no link goes on), `gapped` the
    other links that hold a value, each with whether mail clients load it without a click; `links` are all links of the HTML but the
    own ones, `fixed` those in the template's texts.
    """

    to_partner: bool
    hosts: LinkHosts | None
    in_text: tuple[int, ...]
    own: tuple[int, ...]
    gapped: tuple[tuple[TextTemplate, bool], ...]
    links: tuple[TextTemplate, ...]
    closed: frozenset[int]
    fixed: frozenset[str]

    def passes(self, mail: MergedEmail, requirements: Callable[[], ContentRequirements]) -> bool:
        """True only if `failed_check` would return None. False means unknown: then call `failed_check`."""
        subject, values = mail.subject, mail.values
        if not subject or "\n" in subject or "\r" in subject:
            return False
        for gap in self.own:
            if not values[gap].startswith("http"):
                return False
        hosts = None if self.to_partner else self.hosts
        for link, is_loaded in self.gapped:
            if not _is_allowed(_filled(link, values), is_loaded, hosts):
                return False
        if not self.to_partner:
            return hosts is None or all(_names_own_hosts(values[gap], hosts) for gap in self.in_text if may_name_host(values[gap]))
        foreign = self._links_to_others(values)
        if foreign is None:
            return False
        required = requirements()
        foreign.difference_update(required.own_links)
        return all(has_allowed_host(link, required) and not leaks_personal_data(link, required) for link in foreign)

    def _links_to_others(self, values: Sequence[str]) -> set[str] | None:
        """The links of a mail, but the reader's own in its text; None where they cannot be told without reading the mail."""
        links = {_filled(link, values) for link in self.links} | self.fixed
        for gap in self.in_text:
            if may_name_host(value := values[gap]) and not _names_own_hosts(value, self.hosts or _NO_HOSTS):
                if gap not in self.closed or not value.isascii() or not _HTTPS_HOST.match(value):
                    return None
                links.add(unescape(value))
        return links


def _filled(link: TextTemplate, values: Sequence[str]) -> str:
    """A link with its values. The link's own text holds no escapes of HTML, the values do."""
    if link.literals == ("", ""):
        return unescape(values[link.gaps[0]])
    pieces = zip(link.literals[1:], link.gaps, strict=True)
    return link.literals[0] + "".join(unescape(values[gap]) + literal for literal, gap in pieces)


@lru_cache(maxsize=1_024)
def _is_own(link: str, hosts: LinkHosts) -> bool:
    """Whether this is a whole link to an own host, or none at all."""
    return "http" not in link.lower() or (_HTTPS_HOST.match(link) is not None and is_within(host_of(link), hosts.own))


@lru_cache(maxsize=1_024)
def _names_own_hosts(text: str, hosts: LinkHosts) -> bool:
    """Whether a text, with any other text around it, can only be a link to an own host, or none. False means unknown."""
    if text.isascii() and "http" in text[:4].lower():
        return _is_own(text, hosts)
    return not _SLASHES.search(text := as_read(text)) and all(
        is_within(name, hosts.own) or not (name.startswith("www.") or has_top_level_domain(name) or is_within(name, hosts.partners))
        for name in names_in(text)
    )


_SLASHES = re.compile(r"[/\\]{2}|:[/\\]")
_HTTPS_HOST = re.compile(
    r"https://[A-Za-z0-9.-]+(?::[0-9]+)?/[^\s<>\"']*\Z", re.IGNORECASE
)  # a text after it cannot change its host


@lru_cache(maxsize=1_024)  # a campaign sends the same few addresses to all recipients
def _is_allowed(link: str, is_loaded: bool, hosts: LinkHosts | None) -> bool:
    return link_is_allowed(link, is_loaded) and (hosts is None or _is_own(link, hosts))


@dataclass(frozen=True, slots=True)
class GapRoles:
    """What is known of a template's gaps, by number: which values are escaped for HTML, and which are the reader's own links."""

    in_html: frozenset[int]
    unsubscribe_html: frozenset[int]
    preferences_html: frozenset[int]
    unsubscribe_text: frozenset[int]
    preferences_text: frozenset[int] = frozenset()


def precheck(template: MailTemplate, requirements: ContentRequirements, roles: GapRoles) -> PathCheck | None:
    """A `PathCheck` for the mails of a template; None if the template's text alone is not enough to decide.

    `requirements` are those of one of the mails; no personal part of them is used.
    """
    html, text = template.html, template.text
    passages = (requirements.warning, *((requirements.sender, requirements.mark) if requirements.commercial else ()))
    if not all(_occurs_in(each, text) and (_occurs_in(str(escape(each)), html) or _occurs_in(each, html)) for each in passages):
        return None
    if not roles.in_html.issuperset(html.gaps) or any(edge in literal for literal in html.literals for edge in GAP_EDGES):
        return None
    mail = read_mail_html(html.fill(_Marks()))
    texts = (text, *map(with_gaps, mail.texts))
    if mail.faults or any(_OPEN_ESCAPE.search(each) for each in html.literals[:-1]) or not all(map(_has_safe_edges, texts)):
        return None
    if requirements.commercial and not (_has_link(mail, roles.unsubscribe_html) and roles.unsubscribe_text.intersection(text.gaps)):
        return None
    links = [(link, with_gaps(link.address)) for link in mail.links]
    hosts = requirements.hosts
    literals = (literal for each in texts for literal in each.literals)
    fixed_links = frozenset(link for each in literals for link in text_links(each, *known_hosts(hosts)))
    own = roles.unsubscribe_html | roles.preferences_html
    readers_own, closed = own | roles.unsubscribe_text | roles.preferences_text, _closed_gaps(texts)
    # A text that goes on in the reader's own address makes another one of it.
    goes_on = not readers_own.intersection(gap for each in texts for gap in each.gaps) <= closed
    if goes_on or (hosts and not requirements.to_partner and not _all_own(mail, texts, fixed_links, hosts)):
        return None
    own_gaps: set[int] = set()
    with_values: list[tuple[TextTemplate, bool]] = []
    for link, gapped in links:
        if not gapped.gaps:
            if not link_is_allowed(link.address, link.is_loaded):
                return None
        elif gapped.literals == ("", "") and gapped.gaps[0] in own and not link.is_loaded:
            own_gaps.add(gapped.gaps[0])
        else:
            with_values.append((gapped, link.is_loaded))
    return PathCheck(
        requirements.to_partner,
        hosts,
        _unique(gap for each in texts for gap in each.gaps if gap not in readers_own),
        tuple(sorted(own_gaps)),
        tuple(dict.fromkeys(with_values)),
        tuple(dict.fromkeys(each for _, each in links if each.literals != ("", "") or each.gaps[0] not in own_gaps)),
        closed,
        fixed_links,
    )


_NO_HOSTS = LinkHosts(frozenset())
_GOES_ON = re.compile(r"[\w-]|\.[\w-]|:?[/\\]{2}|:[/\\]")  # a host or scheme that ends in a value before could go on so
_CLOSES = re.compile(r"[.,;:!?)]*(?:[\s<>\"']|\Z)")  # and a link in the value before ends here
_ENDS_OPEN = re.compile(r"[\w.\\/@-]\Z")  # a host that goes on in the value could begin so
_LAST_LINK = re.compile(r"https?:\S*\Z", re.IGNORECASE)


def _has_safe_edges(text: TextTemplate) -> bool:
    """Whether no host can begin in the text around the values and end in a value, or the reverse.

    A link of which the values are only the end is safe: `_all_own` sees its host.
    """
    last = len(text.literals) - 1
    for place, literal in enumerate(map(as_read, text.literals)):
        if place < last and not _LAST_LINK.search(literal) and (_ENDS_OPEN.search(literal) or (place and not literal)):
            return False
        if place and _GOES_ON.match(literal):
            return False
    return True


def _all_own(mail: MailHtml, texts: Iterable[TextTemplate], links: Iterable[str], hosts: LinkHosts) -> bool:
    """Whether all links without a value lead to own hosts, in the HTML and in the texts, and those that go on in a value."""
    fixed = [link.address for link in mail.links if not GAP.search(link.address)]
    begun = [link[0] for text in texts for literal in text.literals[:-1] if (link := _LAST_LINK.search(as_read(literal)))]
    return all(_is_own(link, hosts) for link in (*fixed, *links, *begun))


def _closed_gaps(texts: Iterable[TextTemplate]) -> frozenset[int]:
    """The gaps after which no link goes on."""
    following = [pair for text in texts for pair in zip(text.gaps, text.literals[1:], strict=True)]
    return frozenset(gap for gap, _ in following) - {gap for gap, literal in following if not _CLOSES.match(literal)}


def _unique(gaps: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gaps))


class _Marks(Sequence[str]):
    """A value for every gap: the mark by which it is found in the parsed HTML."""

    def __getitem__(self, gap: Any) -> Any:
        return gap_mark(gap)

    def __len__(self) -> int:
        return 0


def _occurs_in(required: str, text: TextTemplate) -> bool:
    return any(required in piece for piece in text.literals)


def _has_link(mail: MailHtml, gaps: frozenset[int]) -> bool:
    links = (with_gaps(link.address) for link in mail.links if link.element == "a" and link.everywhere)
    return any(link.literals == ("", "") and link.gaps[0] in gaps for link in links)
