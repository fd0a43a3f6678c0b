"""The content guard: what a rendered message must and must not contain before it is sent. Pure.

Sources: CEL VII.64 (credit warning), CEL XII.12-13 (sender named, recognisable as advertising, an electronic opt-out),
the bank's commitment that partners and merchants never receive personal data, and a push's size limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from markupsafe import escape
from msgspec import Struct

from channels.base import Content, Email, MergedEmail, Push, Sms, WhatsApp
from dispatcher.content.links import host_of, is_within, text_links, words_with_links
from dispatcher.content.mail_html import (
    LINK_SCHEME,
    MAIL_HTML,
    HtmlFault,
    HtmlLink,
    MailHtml,
    link_fault,
    link_is_allowed,
    read_mail_html,
)
from dispatcher.content.mail_markup import read_mail
from dispatcher.content.render_request import LinkHosts, MessageLinks, ReaderLinks

PUSH_BYTES_MAX = 4_096  # FCM, all of the payload
_ENVELOPE_BYTES = 64  # more than the names and quotation marks of an empty payload
SMS_CHARACTERS_MAX = 1_600  # Twilio error 21617
_WHATSAPP_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+[ ]*|[^\S\t\n\v\f\r\x85\u2028\u2029]{5,}")


class ContentRequirements(Struct, frozen=True):
    """The requirements for one message.

    `warning` is the sentence that its regulated topic requires and `mark` the word that says "advertising", both in the
    message's language; "" for none. `personal` names the `values` that must not reach a partner. Without `hosts` links may name any
    host.
    """

    commercial: bool
    warning: str
    mark: str
    sender: str
    links: ReaderLinks = MessageLinks("", "")
    to_partner: bool = False
    own_hosts: frozenset[str] = frozenset()
    personal: tuple[str, ...] = ()
    values: Mapping[str, Any] = {}
    hosts: LinkHosts | None = None

    @property
    def own_links(self) -> frozenset[str]:
        """The reader's own two links."""
        return frozenset({self.links.unsubscribe, self.links.preferences})

    def is_own_link(self, link: str, host: str) -> bool:
        """Whether a link to this host ("" for none) is one of the reader's own. Looks at the links only where it can be."""
        return (not host or host in self.links.hosts) and link in (self.links.unsubscribe, self.links.preferences)

    def personal_texts(self) -> tuple[str, ...]:
        """Texts about the person; not those that are so short that they occur in links by chance."""
        texts = map(self.values.get, self.personal)
        return tuple(value for value in texts if isinstance(value, str) and len(value) > 2)


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
    html = read_mail(mail.html, (requirements.links.unsubscribe, requirements.links.preferences))
    yield "one_line_subject", bool(mail.subject) and "\n" not in mail.subject and "\r" not in mail.subject
    yield "credit_warning", _contains(mail, requirements.warning)
    if requirements.commercial:
        yield "sender_named", _contains(mail, requirements.sender)
        yield "advertising_mark", _contains(mail, requirements.mark)
        unsubscribe = requirements.links.unsubscribe
        yield "way_out", bool(unsubscribe) and _links_to(html, mail, unsubscribe)
    yield from _mail_html(html, mail, requirements)


def _mail_html(html: MailHtml, mail: Email, requirements: ContentRequirements) -> Iterator[Check]:
    for name, faults in html_faults(html, requirements):
        yield name, not any(faults)
    yield from _text_links("\n".join((mail.text, *html.texts)).split("\n"), requirements)


def _text_links(parts: Iterable[str], requirements: ContentRequirements) -> Iterator[Check]:
    """The checks of the links in a text that is not HTML, given in lines or in words: no link goes over the end of either."""
    if requirements.to_partner or requirements.hosts is not None:
        links = [link for part in parts for link in _part_links(part, requirements.hosts)]
        yield "link_host", all(has_allowed_host(link, requirements) for link in links)
        yield "link_leak", not any(leaks_personal_data(link, requirements) for link in links)


@lru_cache(maxsize=4_096)  # most lines and words are the template's own
def _part_links(part: str, hosts: LinkHosts | None) -> tuple[str, ...]:
    return tuple(text_links(part, *known_hosts(hosts)))


def known_hosts(hosts: LinkHosts | None) -> tuple[Container[str], ...]:
    """The hosts that are links in a text without a scheme, too."""
    return (hosts.own, hosts.partners) if hosts else ()


def html_faults(html: MailHtml, requirements: ContentRequirements) -> Iterator[tuple[str, Iterator[HtmlFault]]]:
    """The checks of a mail's HTML, each with its faults, to show where they are."""
    yield MAIL_HTML, iter(html.faults)
    own_links = requirements.own_links
    yield LINK_SCHEME, (link_fault(link) for link in html.links if not _has_allowed_scheme(link, own_links))
    foreign = (link for link in html.links if not has_allowed_host(link.address, requirements))
    yield "link_host", (link.fault("names a host that the policy does not allow this entity") for link in foreign)
    leaks = (link for link in html.links if leaks_personal_data(link.address, requirements))
    yield "link_leak", (link.fault("must be the same for all readers, and hold nothing about them") for link in leaks)


def _has_allowed_scheme(link: HtmlLink, own_links: frozenset[str]) -> bool:
    return link_is_allowed(link.address, link.is_loaded) or (link.address in own_links and not link.is_loaded)


def _push(push: Push, requirements: ContentRequirements) -> Iterator[Check]:
    yield "push_size", _is_small(push) or _payload_bytes(push) <= PUSH_BYTES_MAX
    yield "credit_warning", requirements.warning in push.body
    yield "link_host", not push.link or has_allowed_host(push.link, requirements)
    yield "link_leak", not (push.link and leaks_personal_data(push.link, requirements))
    yield from _text_links(f"{push.title} {push.body}".split("\n"), requirements)


def _is_small(push: Push) -> bool:
    """Whether a push is surely small enough: no character takes more than six bytes, as those that JSON escapes do."""
    return not push.data and 6 * (len(push.title) + len(push.body) + len(push.link)) <= PUSH_BYTES_MAX - _ENVELOPE_BYTES


def _payload_bytes(push: Push) -> int:
    payload = {"title": push.title, "body": push.body, "link": push.link, "data": dict(push.data)}
    return len(json.dumps(payload, ensure_ascii=False).encode())


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
    unsubscribe = ""
    if requirements.commercial:
        yield "sender_named", requirements.sender in text
        unsubscribe = requirements.links.unsubscribe
        yield "way_out", bool(unsubscribe) and unsubscribe in text
    # By words: the line with the reader's link is never seen again. The link itself passes both checks.
    yield from _text_links((word for word in words_with_links(text) if word != unsubscribe), requirements)


def _contains(mail: Email, required: str) -> bool:
    return required in mail.text and (str(escape(required)) in mail.html or required in mail.html)


def _links_to(html: MailHtml, mail: Email, address: str) -> bool:
    return address in mail.text and any(link.element == "a" and link.everywhere and link.address == address for link in html.links)


def links_of(content: Content, visible_text: str, *known: Container[str]) -> Iterator[str]:
    """All links of a message. Names of `known` hosts are links without a scheme, too."""
    if isinstance(content, MergedEmail):
        content = content.assemble()
    if isinstance(content, Email):
        html = read_mail_html(content.html)
        yield from (link.address for link in html.links)
        text = "\n".join((content.text, *html.texts))
    elif isinstance(content, Push):
        text = f"{content.link} {content.title} {content.body}"
    else:
        text = content.text if isinstance(content, Sms) else visible_text
    yield from text_links(text, *known)


def has_allowed_host(link: str, requirements: ContentRequirements) -> bool:
    """Whether a link names a host that the policy allows, or none."""
    hosts = requirements.hosts
    if hosts is None or not link.lower().startswith(("http:", "https:")):
        return True
    host = host_of(link)
    return is_within(host, hosts.own) or is_within(host, hosts.partners) or requirements.is_own_link(link, host)


def leaks_personal_data(link: str, requirements: ContentRequirements) -> bool:
    """Whether a link to another company can identify the reader: by a query, a fragment, or a personal value in it."""
    if not link.lower().startswith(("http:", "https:")) or not (requirements.to_partner or requirements.hosts):
        return False
    if is_within(host := host_of(link), requirements.own_hosts) or requirements.is_own_link(link, host):
        return False
    try:
        parts = urlsplit(link)
    except ValueError:  # no address, and programs disagree about what it leads to
        return True
    if parts.query:
        allowed = allowed_parameters(host, requirements.hosts.partners) if requirements.hosts else frozenset()
        if any(each.partition("=")[0] not in allowed for each in parts.query.split("&")):
            return True
    return bool(parts.fragment or "@" in parts.netloc) or holds_value(link, requirements.personal_texts())


def allowed_parameters(host: str, partners: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The parameters that a link to this host may have."""
    while host and host not in partners:
        host = host.partition(".")[2]
    return partners.get(host, frozenset())


def holds_value(link: str, values: Iterable[str]) -> bool:
    """Whether a link holds one of these values."""
    plain = unquote(link.partition(":")[2]).casefold()  # without the scheme, which holds "htt" for everybody
    return any(value.casefold() in plain for value in values)
