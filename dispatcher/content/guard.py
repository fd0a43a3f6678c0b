"""What a finished message must hold, or must not, before it may leave. Pure; one function per promise.

Sources: CEL VII.64 (credit warning), CEL XII.12-13 (sender named, recognisable as advertising, an electronic way out),
the bank's promise that partners and merchants never receive personal data, and a push's size limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from urllib.parse import unquote, urlsplit

from markupsafe import escape

from channels.base import Content, Email, MailTemplate, MergedEmail, Push, Sms, TextTemplate, WhatsApp

PUSH_BYTES_MAX = 4_096  # FCM, all of the payload
SMS_CHARACTERS_MAX = 1_600  # Twilio error 21617
_LINK = re.compile(r"https?://[^\s<>\"']+")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=[/?#]|\Z)")
_SCHEMES = ("https:", "mailto:", "tel:", "#")


@dataclass(frozen=True, slots=True)
class ContentRequirements:
    """What one message is held to.

    `warning` is the sentence its regulated topic demands and `mark` the word that says "advertising", both in its
    language, "" where none is; `personal` are the values that must not travel to a partner, empty unless `to_partner`.

    """

    commercial: bool
    warning: str
    mark: str
    sender: str
    unsubscribe: str
    own_links: frozenset[str] = frozenset()
    to_partner: bool = False
    own_hosts: frozenset[str] = frozenset()
    personal: tuple[str, ...] = ()


def objection(content: Content, shown: str, terms: ContentRequirements) -> str | None:
    """The first guard that objects, by name, or None. `shown` is what a WhatsApp reader sees: the approved text, filled
    in."""
    if isinstance(content, Email | MergedEmail):
        return _first(_email(content.assemble() if isinstance(content, MergedEmail) else content, terms))
    if isinstance(content, Push):
        return _first(_push(content, terms))
    if isinstance(content, Sms):
        return _first(_sms(content, terms))
    return _first(_whatsapp(content, shown, terms))


Check = tuple[str, bool]  # a guard's name, and whether it is content


def _first(checks: Iterator[Check]) -> str | None:
    return next((name for name, content in checks if not content), None)


def _email(mail: Email, terms: ContentRequirements) -> Iterator[Check]:
    yield "one_line_subject", bool(mail.subject) and "\n" not in mail.subject and "\r" not in mail.subject
    yield "credit_warning", _says(mail, terms.warning)
    if terms.commercial:
        yield "sender_named", _says(mail, terms.sender)
        yield "advertising_mark", _says(mail, terms.mark)
        yield "way_out", bool(terms.unsubscribe) and _links_to(mail, terms.unsubscribe)
    links = [link for attribute in ('href="', 'src="') for link in _attributes(mail.html, attribute)]
    yield "link_scheme", all(link.startswith(_SCHEMES) or unescape(link) in terms.own_links for link in links)
    if terms.to_partner:
        yield "link_leak", not any(_leaks(unescape(link), terms) for link in links)
        yield "link_leak", not any(_leaks(link, terms) for link in _LINK.findall(mail.text))


def _push(push: Push, terms: ContentRequirements) -> Iterator[Check]:
    shown = {"title": push.title, "body": push.body, "link": push.link, "data": dict(push.data)}
    yield "push_size", len(json.dumps(shown, ensure_ascii=False).encode()) <= PUSH_BYTES_MAX
    yield "credit_warning", terms.warning in push.body
    yield "link_leak", not (terms.to_partner and push.link and _leaks(push.link, terms))


def _sms(sms: Sms, terms: ContentRequirements) -> Iterator[Check]:
    yield "sms_length", 0 < len(sms.text) <= SMS_CHARACTERS_MAX
    yield from _short(sms.text, terms)


def _whatsapp(message: WhatsApp, shown: str, terms: ContentRequirements) -> Iterator[Check]:
    # Twilio 21656: a variable may be neither empty nor broken over lines.
    yield "whatsapp_variable", all(value.strip() and "\n" not in value for value in message.variables.values())
    yield from _short(shown, terms)


def _short(text: str, terms: ContentRequirements) -> Iterator[Check]:
    yield "credit_warning", terms.warning in text
    if terms.commercial:
        yield "sender_named", terms.sender in text
        yield "way_out", bool(terms.unsubscribe) and terms.unsubscribe in text
    if terms.to_partner:
        yield "link_leak", not any(_leaks(link, terms) for link in _LINK.findall(text))


def _attributes(html: str, opening: str) -> list[str]:
    """All values of one attribute. Ten times as fast as an expression with an alternative, in the hot path."""
    return [piece.partition('"')[0] for piece in html.split(opening)[1:]]


def _says(mail: Email, words: str) -> bool:
    return words in mail.text and (str(escape(words)) in mail.html or words in mail.html)


def _links_to(mail: Email, address: str) -> bool:
    return f'href="{escape(address)}"' in mail.html and address in mail.text


def host_of(link: str) -> str:
    """The host that an address names, "" where it names none."""
    plain = _ORIGIN.match(link)
    return _host(plain[0] if plain else link)


@lru_cache(maxsize=256)  # many links, few hosts
def _host(link: str) -> str:
    return urlsplit(link).hostname or ""


def _leaks(link: str, terms: ContentRequirements) -> bool:
    """A link out of the house must be the same for everybody: no query, no fragment, no personal value anywhere in it."""
    if not link.startswith(("http:", "https:")):
        return False
    host = host_of(link)
    if host in terms.own_hosts or any(host.endswith(f".{own}") for own in terms.own_hosts):
        return False
    parts = urlsplit(link)
    plain = unquote(link).casefold()
    return bool(parts.query or parts.fragment or "@" in parts.netloc) or any(value.casefold() in plain for value in terms.personal)


# -- for all mails of one form ------------------------------------------------------------------------------------------

_GAP = "\0"
# An attribute that begins in a gap's value and goes on in the words behind it.
_TORN = tuple(f'{name[start:]}="' for name in ("href", "src") for start in range(1, len(name) + 1))


@dataclass(frozen=True, slots=True)
class PathCheck:
    """The guard's word that a mail of one form passes, given by the form's words and a look at few of the values.

    `quoted` are the values that stand before a quotation mark, `addressed` those that a link begins with, `links` all links
    of the HTML.
    """

    to_partner: bool
    quoted: tuple[int, ...]
    addressed: tuple[int, ...]
    links: tuple[TextTemplate, ...]

    def passes(self, mail: MergedEmail, terms: Callable[[], ContentRequirements]) -> bool:
        """True only where `objection` would find nothing. False says nothing: then `objection` has to be asked."""
        subject, values = mail.subject, mail.values
        if not subject or "\n" in subject or "\r" in subject:
            return False
        for gap in self.quoted:  # an "=" or nothing before a quotation mark could make an attribute of what follows
            if values[gap][-1:] in ("", "="):
                return False
        for gap in self.addressed:
            if not values[gap].startswith(_SCHEMES):
                return False
        if not self.to_partner:
            return True
        held, links = terms(), {unescape(link.fill(values)) for link in self.links}
        return not any(_leaks(link, held) for link in links.union(_LINK.findall(mail.template.text.fill(values))))


@dataclass(frozen=True, slots=True)
class GapRoles:
    """What is known of a form's gaps, by number: whose values are escaped for HTML, and which hold the reader's own links."""

    in_html: frozenset[int]
    unsubscribe_html: frozenset[int]
    preferences_html: frozenset[int]
    unsubscribe_text: frozenset[int]


def precheck(form: MailTemplate, terms: ContentRequirements, roles: GapRoles) -> PathCheck | None:
    """A voucher for the mails of a form, None where its words alone don't say enough. `terms` are those of one of the mails;
    nothing personal in them is used.
    """
    html, text = form.html, form.text
    spoken = (terms.warning, *((terms.sender, terms.mark) if terms.commercial else ()))
    if not all(_any(words, text) and (_any(str(escape(words)), html) or _any(words, html)) for words in spoken):
        return None
    if terms.commercial and not (_has_link(html, roles.unsubscribe_html) and roles.unsubscribe_text.intersection(text.gaps)):
        return None
    torn = any(words.startswith(_TORN) for words in html.words[1:])
    if torn or not roles.in_html.issuperset(html.gaps) or any(_GAP in words for words in html.words):
        return None
    links = list(_links(html))
    addressed = []
    for link in links:
        if link.words[0] == "" and link.gaps:
            if not (link.words == ("", "") and link.gaps[0] in roles.unsubscribe_html | roles.preferences_html):
                addressed.append(link.gaps[0])
        elif not link.words[0].startswith(_SCHEMES):
            return None
    quoted = [gap for gap, words in zip(html.gaps, html.words[1:], strict=True) if words.startswith('"')]
    return PathCheck(terms.to_partner, _once(quoted), _once(addressed), tuple(dict.fromkeys(links)))


def _once(gaps: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gaps))


def _any(words: str, text: TextTemplate) -> bool:
    return any(words in piece for piece in text.words)


def _has_link(html: TextTemplate, gaps: frozenset[int]) -> bool:
    around = zip(html.gaps, html.words, html.words[1:], strict=False)
    return any(gap in gaps and before.endswith('href="') and after.startswith('"') for gap, before, after in around)


def _links(html: TextTemplate) -> Iterator[TextTemplate]:
    """The links as they stand between the words, each with its gaps."""
    whole = _GAP.join(html.words)
    for opening in ('href="', 'src="'):
        end = 0
        for link in _attributes(whole, opening):
            start = whole.index(opening, end) + len(opening)
            end = start
            first = whole.count(_GAP, 0, start)
            yield TextTemplate(tuple(link.split(_GAP)), html.gaps[first : first + link.count(_GAP)])
