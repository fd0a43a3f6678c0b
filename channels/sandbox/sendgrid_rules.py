"""SendGrid's checks of a mail; one problem refuses the whole request.

Rules and limits follow the published description of mail/send and its list of errors. Problems name the field as SendGrid does:
a dotted path with list positions, such as `personalizations.3.to.0.email`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Problem: TypeAlias = tuple[str, str | None]

PERSONALIZATIONS_MAX = RECIPIENTS_MAX = 1_000
FIELD_BYTES_MAX = 10_000
SCHEDULE_SECONDS_MAX = 72 * 3600

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9-]{{2,63}}")
_MIME_TYPE = re.compile(r"[!#$&^\w.+-]+/[!#$&^\w.+-]+")
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_RESERVED = frozenset(
    {
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    }
)
_JSON_TYPES = {"array": list, "object": dict, "string": str, "integer": int}
_MAIL_FIELDS: Mapping[str, str] = {
    "personalizations": "array",
    "from": "object",
    "reply_to": "object",
    "reply_to_list": "array",
    "subject": "string",
    "content": "array",
    "attachments": "array",
    "template_id": "string",
    "headers": "object",
    "categories": "array",
    "custom_args": "object",  # the published description says string; clients send, and SendGrid takes, an object
    "send_at": "integer",
    "batch_id": "string",
    "asm": "object",
    "ip_pool_name": "string",
    "mail_settings": "object",
    "tracking_settings": "object",
    "sections": "object",  # accepted for years, though missing in the published description
}
_PART_FIELDS: Mapping[str, str] = {
    "from": "object",
    "to": "array",
    "cc": "array",
    "bcc": "array",
    "subject": "string",
    "headers": "object",
    "substitutions": "object",
    "dynamic_template_data": "object",
    "custom_args": "object",
    "send_at": "integer",
}
_PERSON_FIELDS = frozenset(("email", "name"))
_INVALID_LOCAL_PART = "refused"  # the sandbox's own: this address counts as invalid, although its form is valid


def find_problems(mail: object, now: float) -> list[Problem]:
    """Return all problems of a parsed mail; `now` (unix seconds) is for schedules. Empty for a valid mail."""
    if not isinstance(mail, dict):
        return [("Bad Request", None)]
    problems = list(_check_types(mail))
    if problems:
        return problems
    problems += _check_parts(mail, now)
    problems += _check_sender(mail)
    problems += _check_content(mail)
    if not mail.keys() <= _PLAIN_FIELDS:
        problems += _check_extras(mail, now)
    return problems


_PLAIN_FIELDS = frozenset(("personalizations", "from", "subject", "content"))


def _check_types(item: Mapping[str, Any], path: str = "") -> Iterator[Problem]:
    fields = _PART_FIELDS if path else _MAIL_FIELDS
    for name, value in item.items():
        expected = fields.get(name)
        if expected is None:
            yield f"Additional property {name} is not allowed", path.rstrip(".") or None
        elif not isinstance(value, _JSON_TYPES[expected]) or value is True or value is False:
            yield f"Invalid type. Expected: {expected}, given: {_json_type(value)}.", f"{path}{name}"


def _json_type(value: object) -> str:
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def _check_parts(mail: Mapping[str, Any], now: float) -> Iterator[Problem]:
    parts = mail.get("personalizations")
    if not parts:
        yield "The personalizations field is required and must have at least one personalization.", "personalizations"
        return
    if len(parts) > PERSONALIZATIONS_MAX:
        yield (
            f"At most {PERSONALIZATIONS_MAX} personalizations are taken per request, {len(parts)} were given.",
            "personalizations",
        )
        return
    addresses: list[str] = []
    for index, part in enumerate(parts):
        path = f"personalizations.{index}."
        if not isinstance(part, dict):
            yield f"Invalid type. Expected: object, given: {_json_type(part)}.", path[:-1]
            continue
        if wrong := list(_check_types(part, path)):
            yield from wrong
            continue
        yield from _check_recipients(part, path, addresses)
        yield from _check_part_fields(mail, part, path, now)
    if len(addresses) > RECIPIENTS_MAX:
        yield f"There is a limit of {RECIPIENTS_MAX} total recipients (to + cc + bcc) per request.", "personalizations"


def _check_recipients(part: Mapping[str, Any], path: str, addresses: list[str]) -> Iterator[Problem]:
    if not part.get("to"):
        yield (
            "The to array is required for all personalization objects, and must have at least one email object.",
            f"{path}to",
        )
    seen: set[str] = set()
    for kind in ("to", "cc", "bcc"):
        for index, person in enumerate(part.get(kind, ())):
            if problem := _check_person(person):
                message, field = problem
                yield message, f"{path}{kind}.{index}{field}"
                continue
            address = person["email"].lower()
            if address in seen:
                yield (
                    (
                        "Each email address in the personalization block should be unique between to, cc, and bcc. "
                        f"We found the first duplicate instance of [{address}] in the {path}{kind} field."
                    ),
                    path[:-1],
                )
            seen.add(address)
            addresses.append(address)


def _check_person(person: object) -> tuple[str, str] | None:
    if not isinstance(person, dict) or not person.keys() <= _PERSON_FIELDS:
        return "Each entry must be an object with an email and, if wanted, a name.", ""
    if not isinstance(person.get("name", ""), str):
        return f"Invalid type. Expected: string, given: {_json_type(person['name'])}.", ".name"
    address = person.get("email")
    if not isinstance(address, str) or not is_address(address):
        return "Does not contain a valid address.", ".email"
    return None


def is_address(address: str) -> bool:
    """Tell whether SendGrid would accept the form of this address: ASCII, one "@", a dotted domain."""
    if len(address) > 320 or not _ADDRESS.fullmatch(address):
        return False
    local = address.partition("@")[0]
    return len(local) <= 64 and local.partition("+")[0].lower() != _INVALID_LOCAL_PART


def _check_part_fields(mail: Mapping[str, Any], part: Mapping[str, Any], path: str, now: float) -> Iterator[Problem]:
    if not (part.get("subject") or mail.get("subject") or mail.get("template_id")):
        yield (
            "The subject is required, unless a template or every personalization has one.",
            "subject",
        )
    if substitutions := part.get("substitutions"):
        yield from _check_strings(substitutions, f"{path}substitutions")
        if str(mail.get("template_id", "")).startswith("d-"):
            yield "Substitutions may not be used with dynamic templating", f"{path}substitutions"
    if arguments := part.get("custom_args"):
        yield from _check_strings(arguments, f"{path}custom_args")
    if headers := part.get("headers"):
        yield from _check_headers(headers, f"{path}headers")
    if "from" in part and (problem := _check_person(part["from"])):
        yield problem[0], f"{path}from{problem[1]}"
    if part.get("send_at", 0) > now + SCHEDULE_SECONDS_MAX:
        yield "Scheduling more than 72 hours in advance is forbidden.", f"{path}send_at"


def _check_strings(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Check that the values are strings and their total size is within the limit."""
    try:
        characters = sum(map(len, values)) + sum(map(len, values.values()))
        text = "".join(values) + "".join(values.values())
    except TypeError:
        wrong = next(name for name, value in values.items() if not isinstance(value, str))
        yield f"Invalid type. Expected: string, given: {_json_type(values[wrong])}.", f"{path}.{wrong}"
        return
    if characters * 4 > FIELD_BYTES_MAX and len(text.encode(errors="replace")) > FIELD_BYTES_MAX:
        yield f"The total size may not exceed {FIELD_BYTES_MAX} bytes.", path


def _check_headers(headers: Mapping[str, Any], path: str) -> Iterator[Problem]:
    for name, value in headers.items():
        if name.lower() in _RESERVED:
            yield f"The header {name} is reserved and may not be set.", f"{path}.{name}"
        elif not _HEADER_NAME.fullmatch(name):
            yield "Header names are printable ASCII without spaces or colons.", f"{path}.{name}"
        elif not isinstance(value, str) or "\r" in value or "\n" in value:
            yield "Header values are strings on one line.", f"{path}.{name}"


def _check_sender(mail: Mapping[str, Any]) -> Iterator[Problem]:
    if "from" not in mail:
        yield (
            "The from object must be provided for every email send. It is an object that requires the email parameter.",
            "from",
        )
    elif problem := _check_person(mail["from"]):
        yield problem[0], f"from{problem[1]}"


_CONTENT_ORDER = {"text/plain": 0, "text/html": 1}


def _check_content(mail: Mapping[str, Any]) -> Iterator[Problem]:
    content = mail.get("content")
    if not content:
        if not mail.get("template_id"):
            yield "Unless a valid template_id is provided, the content parameter is required.", "content"
        return
    ranks = []
    for index, item in enumerate(content):
        if not isinstance(item, dict):
            yield f"Invalid type. Expected: object, given: {_json_type(item)}.", f"content.{index}"
            return
        kind, value = item.get("type"), item.get("value")
        if not isinstance(kind, str) or not _MIME_TYPE.fullmatch(kind):
            yield "The content type must be a MIME type.", f"content.{index}.type"
        if not isinstance(value, str) or not value:
            yield "The content value must be a string at least one character in length.", f"content.{index}.value"
        ranks.append(_CONTENT_ORDER.get(str(kind).lower(), 2))
    if ranks != sorted(ranks):
        yield "If present, text/plain must be first, followed by text/html, followed by any other content.", "content"


def _check_extras(mail: Mapping[str, Any], now: float) -> Iterator[Problem]:
    if headers := mail.get("headers"):
        yield from _check_headers(headers, "headers")
    if arguments := mail.get("custom_args"):
        yield from _check_strings(arguments, "custom_args")
    if "reply_to" in mail and (problem := _check_person(mail["reply_to"])):
        yield problem[0], f"reply_to{problem[1]}"
    if mail.get("send_at", 0) > now + SCHEDULE_SECONDS_MAX:
        yield "Scheduling more than 72 hours in advance is forbidden.", "send_at"
    yield from _check_categories(mail.get("categories", []))
    for index, attachment in enumerate(mail.get("attachments", ())):
        if not isinstance(attachment, dict) or not attachment.get("content") or not attachment.get("filename"):
            yield "The attachment content and filename are required.", f"attachments.{index}"
    if "asm" in mail and not isinstance(mail["asm"].get("group_id"), int):
        yield "The asm.group_id must be a valid integer.", "asm.group_id"
    if not 2 <= len(mail.get("ip_pool_name", "ok")) <= 64:
        yield "The ip_pool_name has 2 to 64 characters.", "ip_pool_name"


def _check_categories(categories: Sequence[Any]) -> Iterator[Problem]:
    if len(categories) > 10 or not all(isinstance(name, str) and len(name) <= 255 for name in categories):
        yield "At most 10 categories of at most 255 characters.", "categories"
    elif len(set(categories)) < len(categories):
        yield "Category names must be unique.", "categories"
