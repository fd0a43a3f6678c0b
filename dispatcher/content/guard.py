"""What a finished message must hold, or must not, before it may leave. Pure; one function per promise.

Sources: CEL VII.64 (credit warning), CEL XII.12-13 (sender named, recognisable as advertising, an electronic way out),
the bank's promise that partners and merchants never receive personal data, and FCM's size limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote, urlsplit

from markupsafe import escape

from channels.base import Content, Email, Push, Sms, WhatsApp

PUSH_BYTES_MAX = 4_096  # FCM, all of the payload
SMS_CHARACTERS_MAX = 1_600  # Twilio error 21617
_LINK = re.compile(r"https?://[^\s<>\"']+")
_SCHEMES = ("https:", "mailto:", "tel:", "#")


@dataclass(frozen=True, slots=True)
class Terms:
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


def objection(content: Content, shown: str, terms: Terms) -> str | None:
    """The first guard that objects, by name, or None. `shown` is what a WhatsApp reader sees: the approved text, filled
    in."""
    if isinstance(content, Email):
        return _first(_email(content, terms))
    if isinstance(content, Push):
        return _first(_push(content, terms))
    if isinstance(content, Sms):
        return _first(_sms(content, terms))
    return _first(_whatsapp(content, shown, terms))


Check = tuple[str, bool]  # a guard's name, and whether it is content


def _first(checks: Iterator[Check]) -> str | None:
    return next((name for name, content in checks if not content), None)


def _email(mail: Email, terms: Terms) -> Iterator[Check]:
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


def _push(push: Push, terms: Terms) -> Iterator[Check]:
    shown = {"title": push.title, "body": push.body, "link": push.link, "data": dict(push.data)}
    yield "push_size", len(json.dumps(shown, ensure_ascii=False).encode()) <= PUSH_BYTES_MAX
    yield "credit_warning", terms.warning in push.body
    yield "link_leak", not (terms.to_partner and push.link and _leaks(push.link, terms))


def _sms(sms: Sms, terms: Terms) -> Iterator[Check]:
    yield "sms_length", 0 < len(sms.text) <= SMS_CHARACTERS_MAX
    yield from _short(sms.text, terms)


def _whatsapp(message: WhatsApp, shown: str, terms: Terms) -> Iterator[Check]:
    # Twilio 21656: a variable may be neither empty nor broken over lines.
    yield "whatsapp_variable", all(value.strip() and "\n" not in value for value in message.variables.values())
    yield from _short(shown, terms)


def _short(text: str, terms: Terms) -> Iterator[Check]:
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


def _leaks(link: str, terms: Terms) -> bool:
    """A link out of the house must be the same for everybody: no query, no fragment, no personal value anywhere in it."""
    if not link.startswith(("http:", "https:")):
        return False
    parts = urlsplit(link)
    host = parts.hostname or ""
    if host in terms.own_hosts or any(host.endswith(f".{own}") for own in terms.own_hosts):
        return False
    plain = unquote(link).casefold()
    return bool(parts.query or parts.fragment or "@" in parts.netloc) or any(value.casefold() in plain for value in terms.personal)
