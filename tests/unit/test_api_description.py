"""The OpenAPI document is one that tools can use, and the client's generated modules follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from dispatcher.web.api.openapi import FASTAPI_DESCRIPTION
from docs.generate import openapi
from docs.generate_client import modules

DOCUMENT = openapi()


def operations() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_the_document_is_valid_openapi() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_operation_ids_are_names_for_functions() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(ids) == len(set(ids))
    assert [each for each in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)+", each) or "_v1_" in each] == []


def test_each_operation_is_described_and_has_one_tag() -> None:
    tags = {each["name"] for each in DOCUMENT["tags"] if each["description"]}
    wrong = [name for name, each in operations() if len(each["tags"]) != 1 or not tags.issuperset(each["tags"])]
    wrong += [name for name, each in operations() if not each.get("summary") or (not each.get("description") and "/v1/" in name)]
    assert wrong == []


def test_each_answer_and_each_parameter_is_described() -> None:
    answers = [(name, status, each) for name, operation in operations() for status, each in operation["responses"].items()]
    assert [(name, status) for name, status, each in answers if each["description"] in ("", FASTAPI_DESCRIPTION)] == []
    parameters = [(name, each) for name, operation in operations() for each in operation.get("parameters", ())]
    assert [(name, each["name"]) for name, each in parameters if not each.get("description")] == []


def test_each_operation_says_whether_it_needs_a_key() -> None:
    assert [name for name, each in operations() if "security" not in each] == []
    assert [name for name, each in operations() if "/v1/" in name and each["security"] != [{"ApiKey": []}]] == []


def test_no_schema_is_unused() -> None:
    text = str(DOCUMENT)
    assert [name for name in DOCUMENT["components"]["schemas"] if f"#/components/schemas/{name}'" not in text] == []


def test_the_client_is_what_the_document_says() -> None:
    old = [path.name for path, text in modules(DOCUMENT).items() if path.read_text(encoding="utf-8") != text]
    assert old == [], "run: python -m docs.generate"
