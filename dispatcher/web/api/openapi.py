"""What OpenAPI says beyond what FastAPI knows: our own strict reader reads the bodies, so they are described here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dispatcher.web.errors import Problem, problem_responses

_TEMPLATE = "#/components/schemas/{model}"
_forms: dict[str, dict[str, Any]] = {}


def body(form: type[BaseModel], name: str, optional: Collection[str] = ()) -> dict[str, Any]:
    """`openapi_extra` for a route that reads this form. `optional` fields may also come in another way, such as in a header."""
    schema = form.model_json_schema(ref_template=_TEMPLATE)
    _forms.update(schema.pop("$defs", {}))
    if optional:
        schema["required"] = [field for field in schema["required"] if field not in optional]
    _forms[name] = {**schema, "title": name}
    content = {"application/json": {"schema": {"$ref": _TEMPLATE.format(model=name)}}}
    return {"requestBody": {"required": True, "content": content}}


def _document_unknown_paths(document: dict[str, Any]) -> None:
    """A parameter of a path that cannot name anything is answered 404, whatever the call (see `errors._bad_parameter`)."""
    for path, item in document["paths"].items():
        for operation in item.values() if "{" in path else ():
            operation["responses"].setdefault("404", problem_responses(404)[404])


def describe(application: FastAPI) -> None:
    """Add the forms and the problem to the application's OpenAPI document."""

    def build() -> dict[str, Any]:
        if application.openapi_schema is None:
            document = get_openapi(title=application.title, version=application.version, routes=application.routes)
            _, problems = models_json_schema([(Problem, "serialization")], ref_template=_TEMPLATE)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(_forms | problems["$defs"])
            _document_unknown_paths(document)
            application.openapi_schema = document
        return application.openapi_schema

    application.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way
