"""The content guard: what a rendered message must and must not contain before it is sent. Pure.

Sources: CEL VII.64 (credit warning), CEL XII.12-13 (sender named, recognisable as advertising, an electronic opt-out),
the bank's commitment that partners and merchants never receive personal data, and a push's size limit.
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
    """The requirements for one message.

    `warning` is the sentence that its regulated topic requires and `mark` the word that says "advertising", both in the
    message's language; "" for none. `personal` holds the values that must not reach a partner; empty unless `to_partner`.
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


def failed_check(content: Content, visible_text: str, requirements: ContentRequirements) -> str | None:
    """The name of the first check that the message fails, or None.

    `visible_text` is what a WhatsApp reader sees: the approved text with its placeholders filled.
    """
    if isinstance(content, Email | MergedEmail):
        return _first_failed(_email(content.assemble() if isinstance(content, MergedEmail) else content, requirements))
    if isinstance(content, Push):
        return _first_failed(_push(content, requirements))
    if isinstance(content, Sms):
        return _first_failed(_sms(content, requirements))
    return _first_failed(_whatsapp(content, visible_text, requirements))


Check = tuple[str, bool]  # a check's name, and whether the message passes it


def _first_failed(checks: Iterator[Check]) -> str | None:
    return next((name for name, passed in checks if not passed), None)


def _email(mail: Email, requirements: ContentRequirements) -> Iterator[Check]:
    yield "one_line_subject", bool(mail.subject) and "\n" not in mail.subject and "\r" not in mail.subject
    yield "credit_warning", _contains(mail, requirements.warning)
    if requirements.commercial:
        yield "sender_named", _contains(mail, requirements.sender)
        yield "advertising_mark", _contains(mail, requirements.mark)
        yield "way_out", bool(requirements.unsubscribe) and _links_to(mail, requirements.unsubscribe)
    links = [link for attribute in ('href="', 'src="') for link in _attributes(mail.html, attribute)]
    yield "link_scheme", all(link.startswith(_SCHEMES) or unescape(link) in requirements.own_links for link in links)
    if requirements.to_partner:
        yield "link_leak", not any(_leaks_personal_data(unescape(link), requirements) for link in links)
        yield "link_leak", not any(_leaks_personal_data(link, requirements) for link in _LINK.findall(mail.text))


def _push(push: Push, requirements: ContentRequirements) -> Iterator[Check]:
    payload = {"title": push.title, "body": push.body, "link": push.link, "data": dict(push.data)}
    yield "push_size", len(json.dumps(payload, ensure_ascii=False).encode()) <= PUSH_BYTES_MAX
    yield "credit_warning", requirements.warning in push.body
    yield "link_leak", not (requirements.to_partner and push.link and _leaks_personal_data(push.link, requirements))


def _sms(sms: Sms, requirements: ContentRequirements) -> Iterator[Check]:
    yield "sms_length", 0 < len(sms.text) <= SMS_CHARACTERS_MAX
    yield from _text_message(sms.text, requirements)


def _whatsapp(message: WhatsApp, visible_text: str, requirements: ContentRequirements) -> Iterator[Check]:
    # Twilio error 21656: a variable must not be empty or contain a line break.
    yield "whatsapp_variable", all(value.strip() and "\n" not in value for value in message.variables.values())
    yield from _text_message(visible_text, requirements)


def _text_message(text: str, requirements: ContentRequirements) -> Iterator[Check]:
    yield "credit_warning", requirements.warning in text
    if requirements.commercial:
        yield "sender_named", requirements.sender in text
        yield "way_out", bool(requirements.unsubscribe) and requirements.unsubscribe in text
    if requirements.to_partner:
        yield "link_leak", not any(_leaks_personal_data(link, requirements) for link in _LINK.findall(text))


def _attributes(html: str, opening: str) -> list[str]:
    """All values of one attribute. On the hot path: ten times as fast as a regular expression with an alternative."""
    return [piece.partition('"')[0] for piece in html.split(opening)[1:]]


def _contains(mail: Email, required: str) -> bool:
    return required in mail.text and (str(escape(required)) in mail.html or required in mail.html)


def _links_to(mail: Email, address: str) -> bool:
    return f'href="{escape(address)}"' in mail.html and address in mail.text


def host_of(link: str) -> str:
    """The host that an address names, "" where it names none."""
    plain = _ORIGIN.match(link)
    return _host(plain[0] if plain else link)


@lru_cache(maxsize=256)  # many links, few hosts
def _host(link: str) -> str:
    return urlsplit(link).hostname or ""


def _leaks_personal_data(link: str, requirements: ContentRequirements) -> bool:
    """Whether a link to another company can identify the reader: by a query, a fragment, or a personal value in it."""
    if not link.startswith(("http:", "https:")):
        return False
    host = host_of(link)
    if host in requirements.own_hosts or any(host.endswith(f".{own}") for own in requirements.own_hosts):
        return False
    parts = urlsplit(link)
    plain = unquote(link.partition(":")[2]).casefold()  # without the scheme, which holds "htt" for everybody
    return bool(parts.query or parts.fragment or "@" in parts.netloc) or any(
        value.casefold() in plain for value in requirements.personal
    )


# -- checks for all mails of one mail template -------------------------------------------------------------------------

_GAP = "\0"
# An attribute that begins in a gap's value and continues in the text after it.
_SPLIT_ATTRIBUTES = tuple(f'{name[start:]}="' for name in ("href", "src") for start in range(1, len(name) + 1))


@dataclass(frozen=True, slots=True)
class PathCheck:
    """Shows that a mail of one `MailTemplate` passes the guard, from the template's text and a few of the mail's values.

    `before_quote` are the gaps before a quotation mark, `link_start` those at the start of a link, `links` all links of the
    HTML.
    """

    to_partner: bool
    before_quote: tuple[int, ...]
    link_start: tuple[int, ...]
    links: tuple[TextTemplate, ...]

    def passes(self, mail: MergedEmail, requirements: Callable[[], ContentRequirements]) -> bool:
        """True only if `failed_check` would return None. False means unknown: then call `failed_check`."""
        subject, values = mail.subject, mail.values
        if not subject or "\n" in subject or "\r" in subject:
            return False
        for gap in self.before_quote:  # an "=" or nothing before a quotation mark could turn the text after it into an attribute
            if values[gap][-1:] in ("", "="):
                return False
        for gap in self.link_start:
            if not values[gap].startswith(_SCHEMES):
                return False
        if not self.to_partner:
            return True
        required, links = requirements(), {unescape(link.fill(values)) for link in self.links}
        return not any(_leaks_personal_data(link, required) for link in links.union(_LINK.findall(mail.template.text.fill(values))))


@dataclass(frozen=True, slots=True)
class GapRoles:
    """What is known of a template's gaps, by number: which values are escaped for HTML, and which are the reader's own links."""

    in_html: frozenset[int]
    unsubscribe_html: frozenset[int]
    preferences_html: frozenset[int]
    unsubscribe_text: frozenset[int]


def precheck(template: MailTemplate, requirements: ContentRequirements, roles: GapRoles) -> PathCheck | None:
    """A `PathCheck` for the mails of a template; None if the template's text alone is not enough to decide.

    `requirements` are those of one of the mails; no personal part of them is used.
    """
    html, text = template.html, template.text
    passages = (requirements.warning, *((requirements.sender, requirements.mark) if requirements.commercial else ()))
    if not all(_occurs_in(each, text) and (_occurs_in(str(escape(each)), html) or _occurs_in(each, html)) for each in passages):
        return None
    if requirements.commercial and not (_has_link(html, roles.unsubscribe_html) and roles.unsubscribe_text.intersection(text.gaps)):
        return None
    split = any(literal.startswith(_SPLIT_ATTRIBUTES) for literal in html.literals[1:])
    if split or not roles.in_html.issuperset(html.gaps) or any(_GAP in literal for literal in html.literals):
        return None
    links = list(_gapped_links(html))
    link_start = []
    for link in links:
        if link.literals[0] == "" and link.gaps:
            if not (link.literals == ("", "") and link.gaps[0] in roles.unsubscribe_html | roles.preferences_html):
                link_start.append(link.gaps[0])
        elif not link.literals[0].startswith(_SCHEMES):
            return None
    before_quote = [gap for gap, literal in zip(html.gaps, html.literals[1:], strict=True) if literal.startswith('"')]
    return PathCheck(requirements.to_partner, _unique(before_quote), _unique(link_start), tuple(dict.fromkeys(links)))


def _unique(gaps: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gaps))


def _occurs_in(required: str, text: TextTemplate) -> bool:
    return any(required in piece for piece in text.literals)


def _has_link(html: TextTemplate, gaps: frozenset[int]) -> bool:
    around = zip(html.gaps, html.literals, html.literals[1:], strict=False)
    return any(gap in gaps and before.endswith('href="') and after.startswith('"') for gap, before, after in around)


def _gapped_links(html: TextTemplate) -> Iterator[TextTemplate]:
    """All links of the HTML, each with its gaps."""
    whole = _GAP.join(html.literals)
    for opening in ('href="', 'src="'):
        end = 0
        for link in _attributes(whole, opening):
            start = whole.index(opening, end) + len(opening)
            end = start
            first = whole.count(_GAP, 0, start)
            yield TextTemplate(tuple(link.split(_GAP)), html.gaps[first : first + link.count(_GAP)])
