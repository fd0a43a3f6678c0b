"""Links that call a number or write to an address: whether anybody can be reached there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.mail_page import MailPage, full_text
from dispatcher.content.lint.samples import LintSample

REGION = "BE"  # of numbers in a text that are written without their country
_NUMBER_SCHEMES, _MAIL_SCHEME = ("tel:", "sms:"), "mailto:"
_WRITTEN = re.compile(r"\+?[0-9 ().\-\u00a0]+")
_SHORT = re.compile(r"[0-9]{3,6}")  # such as 112 and 3456: they have no international form
_ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+\w")


def contact_links(sample: LintSample) -> Iterator[LintFinding]:
    """The findings in the HTML of one mail."""
    page = sample.page
    for link in page.elements() if page else ():
        address = (link.get("href") or "").strip() if link.tag == "a" else ""
        if page and address.lower().startswith(_NUMBER_SCHEMES):
            yield from _as_findings("T309", sample, page, link, _number_fault(address, full_text(link)))
        elif page and address.lower().startswith(_MAIL_SCHEME):
            yield from _as_findings("T310", sample, page, link, _mail_fault(address, full_text(link)))


def _as_findings(code: str, sample: LintSample, page: MailPage, link: Any, fault: str) -> Iterator[LintFinding]:
    if fault:
        yield sample.finding(code, page.own_place(link), "a href", fault, link.get("href"))


def _number_fault(address: str, text: str) -> str:
    """What is wrong with a link to a number, and the number that its text shows; "" if nothing is."""
    number = re.split(r"[;?]", unquote(address.partition(":")[2]).strip())[0]
    if _SHORT.fullmatch(number):
        return ""
    if not _WRITTEN.fullmatch(number) or not number.startswith("+"):
        return "must be an international number in digits, such as tel:+3223033112: others work in one country, or nowhere"
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return "is no telephone number"
    if not phonenumbers.is_valid_number(parsed):
        return "is no number that its country gives out"
    shown = [each.number for each in phonenumbers.PhoneNumberMatcher(text, REGION, leniency=phonenumbers.Leniency.POSSIBLE)]
    if shown and parsed not in shown:
        return f"calls another number than it shows: {text}"
    return ""


def _mail_fault(address: str, text: str) -> str:
    """What is wrong with a link to an address, and the address that its text shows; "" if nothing is."""
    written = unquote(address.partition(":")[2].partition("?")[0])
    addresses = [each.strip() for each in written.split(",") if each.strip()]
    for each in addresses:
        try:
            validate_email(each, check_deliverability=False)
        except EmailNotValidError as error:
            return f"is no e-mail address: {error}"
    shown = _ADDRESS.findall(text)
    if addresses and shown and not {each.lower() for each in shown} & {each.lower() for each in addresses}:
        return f"writes to another address than it shows: {shown[0]}"
    return ""
