"""Links: where they lead, whether they can be used, and whether they tell another company something about the reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from channels.base import Email
from dispatcher.content.guard import leaks_personal_data
from dispatcher.content.links import host_of, is_within
from dispatcher.content.lint.accessibility import concealed_by
from dispatcher.content.lint.css import condition
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.mail_page import MailPage, full_text
from dispatcher.content.lint.samples import LintSample
from dispatcher.content.lint.word_lists import word_lists

_SHOWN_HOST = re.compile(r"(?:https?://)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?:[/?#:]\S*)?", re.IGNORECASE)
_MARKED_HOST = re.compile(r"(?:https?://|(?=www\.))((?:[a-z0-9-]+\.)+[a-z]{2,})", re.IGNORECASE)  # among words
_NUMERIC_HOST = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}", re.IGNORECASE)  # as inet_aton reads it
_TEST_SYSTEM = re.compile(r"(?:^|[.-])(?:test|staging|stage|acc|acceptance|uat|qa|dev|preprod|preview|sandbox|localhost)(?=[.-])")
_WITH_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_FILE_NAME = re.compile(r".*\.(?:pdf|html?|txt|docx?|xlsx?)\Z", re.IGNORECASE)


def links(sample: LintSample) -> Iterator[LintFinding]:
    """The findings about the links of one message."""
    for part, link in sample.text_links():
        for code, message in _faults(sample, link):
            yield sample.finding(code, sample.place_of(part, link), part, message, link)
        if part == "push.link" and not _WITH_SCHEME.match(link):
            yield sample.finding("T301", sample.place(part), part, "must begin with https://, or with the scheme of the app", link)
    if sample.page is None:
        return
    page = sample.page
    names = {each.get(name) for each in page.elements() for name in ("id", "name")}
    for element in page.elements():
        for attribute in ("href", "src", "background"):
            if address := (element.get(attribute) or "").strip():
                for code, message in _faults(sample, address):
                    yield sample.finding(code, page.own_place(element), f"{element.tag} {attribute}", message, address)
        if element.tag == "a":
            yield from _anchor(sample, page, element, names)
    yield from _repeated_ids(sample, page)
    yield from _unsubscribe(sample, page)


def _repeated_ids(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    seen: set[str] = set()
    for element in page.elements():
        if own := element.get("id"):
            if own in seen:
                yield sample.finding("T111", page.own_place(element), f"{element.tag} id", "another element has this id", own)
            seen.add(own)


def _faults(sample: LintSample, link: str) -> Iterator[tuple[str, str]]:
    """The codes and messages for one address."""
    if not link.lower().startswith(("http:", "https:")) or link in sample.requirements.own_links:
        return
    host, hosts = host_of(link), sample.requirements.hosts
    if is_within(host, word_lists().shorteners):
        yield "T203", "is a URL shortener: name the page itself"
    elif _is_address(host):
        yield "T204", "is an IP address: name a host"
    elif hosts and not (is_within(host, hosts.own) or is_within(host, hosts.partners)):
        yield "T302", "names a host that the policy does not allow this entity"
    if _TEST_SYSTEM.search(host):
        yield "T311", "is a test system, which customers cannot open"
    if link.lower().startswith("http:"):
        yield "T301", "must be an https address"
    if leaks_personal_data(link, sample.requirements):
        yield "T306", "must be the same for all readers, and hold nothing about them"


def _is_address(host: str) -> bool:
    if _NUMERIC_HOST.fullmatch(host):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _anchor(sample: LintSample, page: MailPage, link: Any, names: set[str | None]) -> Iterator[LintFinding]:
    address = link.get("href")
    if address is None:
        if not (link.get("id") or link.get("name")):
            yield sample.finding("T303", page.own_place(link), "a href", "is missing: the link leads nowhere")
        return
    address = address.strip()
    if address in ("", "#"):
        yield sample.finding("T303", page.own_place(link), "a href", "leads nowhere", address)
    elif address.startswith("#") and address[1:] not in names:
        yield sample.finding("T304", page.own_place(link), "a href", "no element of the mail has this id", address)
    shown = _SHOWN_HOST.fullmatch(full_text(link)) or _MARKED_HOST.search(full_text(link))
    host = host_of(address)
    if shown and host and not _FILE_NAME.match(shown[0]):
        text = shown[1].lower()
        if not (is_within(host, {text}) or is_within(text, {host}) or text.removeprefix("www.") == host.removeprefix("www.")):
            yield sample.finding("T205", page.own_place(link), "a", f"shows {text} and leads to {host}", full_text(link))


def _unsubscribe(sample: LintSample, page: MailPage) -> Iterator[LintFinding]:
    """The unsubscribe link of a commercial mail: there, for every reader, and visible."""
    required = sample.requirements
    if not (required.commercial and required.links.unsubscribe):
        return
    found = [each for each in page.elements() if each.tag == "a" and (each.get("href") or "").strip() == required.links.unsubscribe]
    field = "links.unsubscribe"
    if not found:
        if required.links.unsubscribe in page.outlook_links():
            place = sample.place_of("email.html", required.links.unsubscribe)
            yield sample.finding("T305", place, field, "is in a conditional comment: only Outlook for Windows shows it")
        else:
            yield sample.finding("T403", sample.place("email.html"), field, "the HTML has no link to unsubscribe")
        return
    says = word_lists().unsubscribe[sample.request.language]
    if not any(says.search(f"{full_text(each)} {each.get('aria-label', '')}") for each in found):
        message = "its text does not say that it ends the messages: see words.toml, unsubscribe"
        yield sample.finding("T308", page.own_place(found[0]), field, message, full_text(found[0]))
    for variant in (*page.styles.variants, *page.styles.in_programs):
        reasons = [concealed_by(page, each, variant) for each in found]
        if all(reasons):
            place = sample.declared_in_mail(reasons[0]) or page.own_place(found[0])
            yield sample.finding("T305", place, field, f"is hidden by {reasons[0]}{condition(variant)}")
            return


def text_unsubscribe(sample: LintSample) -> Iterator[LintFinding]:
    """A commercial text without its unsubscribe link. Push is exempt: the app has its own switch."""
    required = sample.requirements
    text = sample.content.text if isinstance(sample.content, Email) else sample.text
    if required.commercial and sample.request.channel != "push" and required.links.unsubscribe not in text:
        part = "email.text" if isinstance(sample.content, Email) else sample.part
        yield sample.finding("T403", sample.place(part), "links.unsubscribe", "this text has no link to unsubscribe")
