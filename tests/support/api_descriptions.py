"""The providers' own API descriptions, and the table of error reactions: files in a folder beside the checkout.

They are `../shared/specs` and `../shared/field` as seen from the checkout; DISPATCHER_SPECS names another place for the first, the
second stands beside it. Without them the tests that need them are skipped with a message, and fail in CI.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from channels.http import HttpRequest

CHECKOUT = Path(__file__).parents[2]
SPECS = Path(os.environ.get("DISPATCHER_SPECS") or CHECKOUT.parent / "shared" / "specs")
FIELD = SPECS.parent / "field"
MAIL, TEXTS, PUSHES, WEBHOOKS = "tsg_mail_v3", "twilio_api_v2010", "fcm_v1_discovery", "tsg_webhooks_v3"


def require(*paths: Path) -> None:
    """Skip the calling test, or fail it in CI, if one of these files is missing."""
    absent = [path for path in paths if not path.exists()]
    if absent:
        reason = f"the providers' descriptions are not here: {absent[0].parent.name}/{absent[0].name}; set DISPATCHER_SPECS"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@lru_cache(maxsize=8)
def load_description(name: str) -> dict[str, Any]:
    """Return a description, as its provider publishes it."""
    path = SPECS / f"{name}.json"
    require(path)
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def mail_fields() -> dict[str, Any]:
    """Return the described fields of a mail/send request."""
    found: dict[str, Any] = media_type(load_description(MAIL)["components"]["requestBodies"]["PostMailSend"])["schema"][
        "properties"
    ]
    return found


def media_type(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the only media type of a described body."""
    (content,) = holder["content"].values()
    return cast(dict[str, Any], content)


def create_operation() -> dict[str, Any]:
    """Return Twilio's operation that creates a message."""
    return cast(dict[str, Any], load_description(TEXTS)["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"])


def message_form() -> dict[str, Any]:
    """Return the described form of a Twilio message."""
    return media_type(create_operation()["requestBody"])


# -- validation --------------------------------------------------------------------------------


def _is_sender_or_recipient(value: object) -> bool:
    return bool(re.fullmatch(r"(whatsapp:)?\+[1-9][0-9]{5,14}|[A-Za-z0-9 ]{1,11}|[0-9]{5,6}", str(value)))


def _is_uri(value: object) -> bool:
    return bool(urlsplit(str(value)).scheme and urlsplit(str(value)).netloc)


FORMATS = FormatChecker(("email",))
FORMATS.checks("phone-number")(_is_sender_or_recipient)
FORMATS.checks("uri")(_is_uri)


def forbid_additional(schema: Any) -> Any:
    """Return the schema without additional properties in any object, so that misspelt names are found."""
    if isinstance(schema, list):
        return [forbid_additional(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: forbid_additional(value) for name, value in schema.items() if name != "nullable"}
    if "properties" in found and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if schema.get("nullable") is True and isinstance(found.get("type"), str):  # an OpenAPI 3.0 keyword that 3.1 documents still use
        found["type"] = [found["type"], "null"]
    return found


@lru_cache(maxsize=8)
def _components(name: str) -> dict[str, Any]:
    return {"schemas": forbid_additional(load_description(name)["components"]["schemas"])}


_validators: dict[int, Any] = {}  # by the identity of a schema: descriptions are cached


def violations(value: Any, schema: Mapping[str, Any], name: str) -> list[str]:
    """Return where a document violates a schema of the OpenAPI description `name`, as "path: problem"."""
    if id(schema) not in _validators:
        whole = {**forbid_additional(schema), "components": _components(name)}
        _validators[id(schema)] = Draft202012Validator(whole, format_checker=FORMATS)
    return _messages(_validators[id(schema)], value)


def _messages(validator: Any, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.validator} {error.message[:200]}" for error in validator.iter_errors(value)]


def operation_of(request: HttpRequest, document: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the described path and operation of a request. Raises AssertionError if there is none."""
    method, parts = ("post" if request.body else "get"), urlsplit(request.url)
    for path, item in document["paths"].items():
        shape = re.sub(r"\\\{[^}]*\\\}", "([^/]+)", re.escape(path))
        found = re.fullmatch(shape, parts.path)
        if found and method in item:
            servers = {server["url"] for server in item.get("servers") or document["servers"]}
            assert f"{parts.scheme}://{parts.netloc}" in servers, "a server that the description does not name"
            operation: Mapping[str, Any] = item[method]
            _check_path(found.groups(), operation)
            return path, operation
    raise AssertionError(f"the description knows no {method} {parts.path}")


def _check_path(values: tuple[str, ...], operation: Mapping[str, Any]) -> None:
    described = [item["schema"] for item in operation.get("parameters", ()) if item.get("in") == "path"]
    for value, schema in zip(values, described, strict=True):
        Draft202012Validator(schema).validate(value)


# -- Google's discovery format -----------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _google_validator(word: str, name: str) -> Any:
    definitions = {other: forbid_additional(_google(schema)) for other, schema in load_description(name)["schemas"].items()}
    return Draft202012Validator({"$ref": f"#/$defs/{word}", "$defs": definitions})


def _google(schema: Any) -> Any:
    """Convert to JSON Schema: bare references become JSON pointers, "any" is dropped, Google's formats become patterns."""
    if isinstance(schema, list):
        return [_google(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _google(value) for name, value in schema.items() if name not in {"description", "enumDescriptions", "id"}}
    if isinstance(plain.get("$ref"), str):
        plain["$ref"] = f"#/$defs/{plain['$ref']}"
    if plain.get("type") == "any":
        del plain["type"]
    if plain.get("format") == "google-duration":
        plain["pattern"] = r"^[0-9]+(\.[0-9]{1,9})?s$"
    return plain


def google_violations(value: Any, word: str, name: str) -> list[str]:
    """Return where a document violates the schema `word` of the discovery document `name`."""
    return _messages(_google_validator(word, name), value)
