"""Addresses in one normal form, or refused with a reason. Strict: what would have to be guessed is not an address."""

from __future__ import annotations

import re
from functools import lru_cache

import phonenumbers
from email_validator import EmailNotValidError, validate_email

# A plain mailbox name; anything else is asked of the library. Names of roles are left to it too: it lower-cases them.
_PLAIN_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*", re.ASCII)
_ROLE_NAME = re.compile(
    "info|marketing|sales|support|abuse|noc|security|postmaster|hostmaster|usenet|news|webmaster|www|uucp|ftp",
    re.IGNORECASE,
)
LOCAL_PART_MAX = 64
EMAIL_MAX = 254

# Digits and what people put between them. Python's own \d would let Arabic-Indic and full-width digits through.
_PHONE = re.compile(r"\+[0-9][0-9 ().-]{4,29}[0-9]", re.ASCII)
_SEPARATORS = str.maketrans("", "", " ().-")


class InvalidAddress(ValueError):
    """Not an address. The message gives the reason and never the address."""


def email(text: str) -> str:
    """An e-mail address with its domain in lower case and ASCII (IDNA): what SMTP and every provider takes.

    Raises `InvalidAddress`. The answer is the library's, always; the short way is there because it takes a tenth of the time.
    """
    local, _, domain = text.rpartition("@")
    if (
        len(local) <= LOCAL_PART_MAX
        and _PLAIN_LOCAL_PART.fullmatch(local)
        and not _ROLE_NAME.fullmatch(local)
        and (known := _domain(domain)) is not None
        and len(local) + 1 + len(known) <= EMAIL_MAX
    ):
        return f"{local}@{known}"
    return _validate(text)


def _validate(text: str) -> str:
    try:
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        raise InvalidAddress("is not a valid e-mail address") from None
    return f"{found.ascii_local_part}@{found.ascii_domain}"


@lru_cache(maxsize=65_536)
def _domain(domain: str) -> str | None:
    try:
        return _validate(f"a@{domain}").removeprefix("a@")
    except InvalidAddress:
        return None


def phone(text: str) -> str:
    """A telephone number as +32470123456 (E.164). Blanks, dots, dashes and brackets between digits don't matter; letters,
    extensions, other scripts' digits and numbers that no network would route are refused. Raises `InvalidAddress`.
    """
    if not _PHONE.fullmatch(text):
        raise InvalidAddress("is not a number in international form, such as +32 470 12 34 56")
    return _number(text.translate(_SEPARATORS))


@lru_cache(maxsize=8_192)  # the same number is often both phone and whatsapp
def _number(text: str) -> str:
    try:
        number = phonenumbers.parse(text)
    except phonenumbers.NumberParseException:
        raise InvalidAddress("is not a telephone number") from None
    if not (phonenumbers.is_possible_number(number) and phonenumbers.is_valid_number(number)):
        raise InvalidAddress("is not a number that exists in its country's plan")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
