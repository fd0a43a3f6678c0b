"""The content guard: what a rendered message must and must not contain before it is sent. Pure.

Sources: CEL VII.64 (credit warning), CEL XII.12-13 (sender named, recognisable as advertising, an electronic opt-out),
the bank's commitment that partners and merchants never receive personal data, and a push's size limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import unescape
from typing import Any
from urllib.parse import unquote, urlsplit

from markupsafe import escape

from channels.base import Content, Email, MailTemplate, MergedEmail, Push, Sms, TextTemplate, WhatsApp
from dispatcher.content.mail_html import (
    GAP,
    GAP_EDGES,
    LINK_SCHEME,
    MAIL_HTML,
    HtmlFault,
    HtmlLink,
    MailHtml,
    link_fault,
    link_is_allowed,
    read_mail_html,
)
from dispatcher.content.render_request import LinkHosts

PUSH_BYTES_MAX = 4_096  # FCM, all of the payload
SMS_CHARACTERS_MAX = 1_600  # Twilio error 21617
_AFTER_SCHEME = re.compile(r"://[^\s<>\"']+")  # begins with fixed characters: ten times as fast as a pattern for the scheme
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=[/?#]|\Z)", re.IGNORECASE)
_WHATSAPP_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+[ ]*|[^\S\t\n\v\f\r\x85\u2028\u2029]{5,}")
_PUNCTUATION = ".,;:!?)"  # after a link in a text: mail clients and telephones leave it out


@dataclass(frozen=True, slots=True)
class ContentRequirements:
    """The requirements for one message.

    `warning` is the sentence that its regulated topic requires and `mark` the word that says "advertising", both in the
    message's language; "" for none. `personal` holds the values that must not reach a partner; empty where none is named.
    Without `hosts` links may name any host.
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
    hosts: LinkHosts | None = None


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
    html = read_mail_html(mail.html)
    yield "one_line_subject", bool(mail.subject) and "\n" not in mail.subject and "\r" not in mail.subject
    yield "credit_warning", _contains(mail, requirements.warning)
    if requirements.commercial:
        yield "sender_named", _contains(mail, requirements.sender)
        yield "advertising_mark", _contains(mail, requirements.mark)
        yield "way_out", bool(requirements.unsubscribe) and _links_to(html, mail, requirements.unsubscribe)
    yield from _mail_html(html, mail, requirements)


def _mail_html(html: MailHtml, mail: Email, requirements: ContentRequirements) -> Iterator[Check]:
    for name, faults in html_faults(html, requirements):
        yield name, not any(faults)
    yield from _text_links(mail.text, requirements)


def _text_links(text: str, requirements: ContentRequirements) -> Iterator[Check]:
    """The checks of the links in a text that is not HTML."""
    if requirements.to_partner or requirements.hosts is not None:
        links = links_in(text)
        yield "link_host", all(_has_allowed_host(link, requirements) for link in links)
        yield "link_leak", not any(leaks_personal_data(link, requirements) for link in links)


def html_faults(html: MailHtml, requirements: ContentRequirements) -> Iterator[tuple[str, Iterator[HtmlFault]]]:
    """The checks of a mail's HTML, each with its faults, to show where they are."""
    yield MAIL_HTML, iter(html.faults)
    yield LINK_SCHEME, (link_fault(link) for link in html.links if not _has_allowed_scheme(link, requirements.own_links))
    foreign = (link for link in html.links if not _has_allowed_host(link.address, requirements))
    yield "link_host", (link.fault("names a host that the policy does not allow this entity") for link in foreign)
    leaks = (link for link in html.links if leaks_personal_data(link.address, requirements))
    yield "link_leak", (link.fault("must be the same for all readers, and hold nothing about them") for link in leaks)


def _has_allowed_scheme(link: HtmlLink, own_links: frozenset[str]) -> bool:
    return link_is_allowed(link.address, link.is_loaded) or (link.address in own_links and not link.is_loaded)


def _push(push: Push, requirements: ContentRequirements) -> Iterator[Check]:
    payload = {"title": push.title, "body": push.body, "link": push.link, "data": dict(push.data)}
    yield "push_size", len(json.dumps(payload, ensure_ascii=False).encode()) <= PUSH_BYTES_MAX
    yield "credit_warning", requirements.warning in push.body
    yield "link_host", not push.link or _has_allowed_host(push.link, requirements)
    yield "link_leak", not (push.link and leaks_personal_data(push.link, requirements))
    yield from _text_links(f"{push.title} {push.body}", requirements)


def _sms(sms: Sms, requirements: ContentRequirements) -> Iterator[Check]:
    yield "sms_length", 0 < len(sms.text) <= SMS_CHARACTERS_MAX
    yield from _text_message(sms.text, requirements)


def _whatsapp(message: WhatsApp, visible_text: str, requirements: ContentRequirements) -> Iterator[Check]:
    # Twilio error 21656, Meta error 132018: no variable is empty, or has a line break, a tab or more than four blanks in a row.
    yield "whatsapp_variable", all(value.strip() and value == squeezed(value) for value in message.variables.values())
    yield from _text_message(visible_text, requirements)


def squeezed(value: str) -> str:
    """A WhatsApp variable without line breaks, tabs and more than four blanks in a row, which Meta refuses."""
    if value.isprintable() and "     " not in value:  # most values; printable: no line breaks, tabs or other blanks
        return value
    return _WHATSAPP_BLANKS.sub(" ", value)


def _text_message(text: str, requirements: ContentRequirements) -> Iterator[Check]:
    yield "credit_warning", requirements.warning in text
    if requirements.commercial:
        yield "sender_named", requirements.sender in text
        yield "way_out", bool(requirements.unsubscribe) and requirements.unsubscribe in text
    yield from _text_links(text, requirements)


def _contains(mail: Email, required: str) -> bool:
    return required in mail.text and (str(escape(required)) in mail.html or required in mail.html)


def _links_to(html: MailHtml, mail: Email, address: str) -> bool:
    return address in mail.text and any(link.element == "a" and link.everywhere and link.address == address for link in html.links)


def host_of(link: str) -> str:
    """The host that an address names, "" where it names none."""
    plain = _ORIGIN.match(link)
    return _host(plain[0] if plain else link)


@lru_cache(maxsize=256)  # many links, few hosts
def _host(link: str) -> str:
    return urlsplit(link).hostname or ""


def links_in(text: str) -> list[str]:
    """The http and https links in a text, whatever the case of their scheme, without punctuation after them."""
    links = []
    for match in _AFTER_SCHEME.finditer(text):
        start, end = match.span()
        scheme = text[max(0, start - 5) : start].lower()
        if scheme.endswith("http") or scheme == "https":
            links.append(text[start - (5 if scheme == "https" else 4) : end].rstrip(_PUNCTUATION))
    return links


def links_of(content: Content, visible_text: str) -> Iterator[str]:
    """All links of a message."""
    if isinstance(content, MergedEmail):
        content = content.assemble()
    if isinstance(content, Email):
        yield from (link.address for link in read_mail_html(content.html).links)
        text = content.text
    elif isinstance(content, Push):
        text = f"{content.link} {content.title} {content.body}"
    else:
        text = content.text if isinstance(content, Sms) else visible_text
    yield from links_in(text)


def is_within(host: str, domains: Container[str]) -> bool:
    """Whether a host is one of the domains, or lies in one."""
    while host:
        if host in domains:
            return True
        host = host.partition(".")[2]
    return False


def _has_allowed_host(link: str, requirements: ContentRequirements) -> bool:
    hosts = requirements.hosts
    if hosts is None or link in requirements.own_links or not link.lower().startswith(("http:", "https:")):
        return True
    host = host_of(link)
    return is_within(host, hosts.own) or is_within(host, hosts.partners)


def leaks_personal_data(link: str, requirements: ContentRequirements) -> bool:
    """Whether a link to another company can identify the reader: by a query, a fragment, or a personal value in it."""
    if not link.lower().startswith(("http:", "https:")) or not (requirements.to_partner or requirements.hosts):
        return False
    if link in requirements.own_links or is_within(host := host_of(link), requirements.own_hosts):
        return False
    parts = urlsplit(link)
    if parts.query:
        allowed = allowed_parameters(host, requirements.hosts.partners) if requirements.hosts else frozenset()
        if any(each.partition("=")[0] not in allowed for each in parts.query.split("&")):
            return True
    return bool(parts.fragment or "@" in parts.netloc) or holds_value(link, requirements.personal)


def allowed_parameters(host: str, partners: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The parameters that a link to this host may have."""
    while host and host not in partners:
        host = host.partition(".")[2]
    return partners.get(host, frozenset())


def holds_value(link: str, values: Iterable[str]) -> bool:
    """Whether a link holds one of these values."""
    plain = unquote(link.partition(":")[2]).casefold()  # without the scheme, which holds "htt" for everybody
    return any(value.casefold() in plain for value in values)


# -- checks for all mails of one mail template -------------------------------------------------------------------------

_OPEN_ESCAPE = re.compile(r"&[#\w]*\Z")  # an escape of HTML that begins in the template's text and could end in a value


@dataclass(frozen=True, slots=True)
class PathCheck:
    """Shows that a mail of one `MailTemplate` passes the guard, from the template's text and a few of the mail's values.

    Values in text and in attributes that hold no address are escaped, so they change nothing that the guard checks. `own` are the
    gaps of the reader's own links, `in_text` all other gaps of the text, `gapped` the other links that hold a value, each with
    whether mail clients load it without a click; `links` are all links of the HTML but the own ones.
    """

    to_partner: bool
    hosts: LinkHosts | None
    in_text: tuple[int, ...]
    own: tuple[int, ...]
    gapped: tuple[tuple[TextTemplate, bool], ...]
    links: tuple[TextTemplate, ...]

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
            return hosts is None or all(_is_own(values[gap], hosts) for gap in self.in_text if ":" in values[gap])
        required, html = requirements(), {_filled(link, values) for link in self.links}
        foreign = html.union(links_in(mail.template.text.fill(values))).difference(required.own_links)
        return all(_has_allowed_host(link, required) and not leaks_personal_data(link, required) for link in foreign)


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
    if mail.faults or any(_OPEN_ESCAPE.search(literal) for literal in html.literals[:-1]):
        return None
    if requirements.commercial and not (_has_link(mail, roles.unsubscribe_html) and roles.unsubscribe_text.intersection(text.gaps)):
        return None
    links = [(link, _gapped(link.address)) for link in mail.links]
    hosts = requirements.hosts
    if hosts and not requirements.to_partner and not all(_is_own(link, hosts) for link in _fixed_links(mail, text)):
        return None
    own = roles.unsubscribe_html | roles.preferences_html
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
        _unique(gap for gap in text.gaps if gap not in roles.unsubscribe_text and gap not in roles.preferences_text),
        tuple(sorted(own_gaps)),
        tuple(dict.fromkeys(with_values)),
        tuple(dict.fromkeys(each for _, each in links if each.literals != ("", "") or each.gaps[0] not in own_gaps)),
    )


def _fixed_links(mail: MailHtml, text: TextTemplate) -> Iterator[str]:
    """The links of a template without a value, and the beginnings of those in its text."""
    yield from (link.address for link in mail.links if not GAP.search(link.address))
    for literal in text.literals:
        yield from re.findall(r"https?:\S*", literal, re.IGNORECASE)
        if literal.lstrip("htpsHTPS").startswith((":", "//")):  # the rest of a link that begins in a value
            yield "http:"


def _unique(gaps: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(gaps))


class _Marks(Sequence[str]):
    """A value for every gap: the mark by which it is found in the parsed HTML."""

    def __getitem__(self, gap: Any) -> Any:
        return f"{GAP_EDGES[0]}{gap} {GAP_EDGES[1]}"

    def __len__(self) -> int:
        return 0


def _occurs_in(required: str, text: TextTemplate) -> bool:
    return any(required in piece for piece in text.literals)


def _has_link(mail: MailHtml, gaps: frozenset[int]) -> bool:
    links = (_gapped(link.address) for link in mail.links if link.element == "a" and link.everywhere)
    return any(link.literals == ("", "") and link.gaps[0] in gaps for link in links)


def _gapped(address: str) -> TextTemplate:
    """An address with marks, as a template."""
    pieces = GAP.split(address)
    return TextTemplate(tuple(pieces[::2]), tuple(map(int, pieces[1::2])))
