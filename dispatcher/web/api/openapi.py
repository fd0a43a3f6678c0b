"""What OpenAPI says beyond what FastAPI knows: our own strict reader reads the bodies, so they are described here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from dispatcher.web.errors import Problem, problem_responses

ABOUT = "Sends a bank's commercial messages by push, e-mail, SMS and WhatsApp to those who allow it."
TAGS = {
    "campaigns": "Campaigns, and the audiences that are uploaded for them.",
    "schedules": "Recurring campaigns.",
    "messages": "Single messages, and what became of every message.",
    "recipients": "People, their addresses and their choices.",
    "suppressions": "Addresses that get no message.",
    "templates": "Templates: approvals, versions and test sends.",
    "events": "The feed of all that happened.",
    "webhooks": "Endpoints of other systems that events are delivered to.",
    "audit": "Who did or looked at what.",
    "provider webhooks": "For the providers: their signed reports.",
    "health": "For load balancers and monitoring.",
}
OPEN: list[dict[str, list[str]]] = []  # no key; providers sign their calls
OPEN_OR_KEY: list[dict[str, list[str]]] = [{}, {"ApiKey": []}]  # a setting says which
FASTAPI_DESCRIPTION = "Successful Response"  # where a route gives none

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


def operation_id(route: APIRoute) -> str:
    """The operation id: the name of the function. Generators make the names of their functions from it."""
    return route.name


def lines(form: type[Any], name: str, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
    """The content of a stream of lines, each a JSON document of this form. OpenAPI 3.1 has no term for a stream, so it is a text
    whose `contentSchema` (JSON Schema 2020-12, section 8) is that of one line.
    """
    schema = TypeAdapter(form).json_schema(ref_template=_TEMPLATE, mode=mode)
    _forms.update(schema.pop("$defs", {}))
    _forms.setdefault(name, {**schema, "title": name})
    line = {"$ref": _TEMPLATE.format(model=name)}
    return {"application/x-ndjson": {"schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": line}}}


def _complete(path: str, operation: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Say of one operation what FastAPI does not know."""
    if "{" in path:  # a parameter that cannot name anything is answered 404, whatever the call (see `errors._bad_parameter`)
        operation["responses"].setdefault("404", problem_responses(404)[404])
    operation.setdefault("security", OPEN if path != "/metrics" else OPEN_OR_KEY)
    for response in operation["responses"].values():
        reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref")
        if response["description"] == FASTAPI_DESCRIPTION and reference:
            text = schemas[reference.rpartition("/")[2]]["description"]
            response["description"] = " ".join(text.partition("\n\n")[0].split())


def describe(application: FastAPI) -> None:
    """Add the forms, the problem and descriptions to the application's OpenAPI document."""

    def build() -> dict[str, Any]:
        if application.openapi_schema is None:
            document = get_openapi(
                title=application.title,
                version=application.version,
                description=ABOUT,
                tags=[{"name": name, "description": text} for name, text in TAGS.items()],
                servers=[{"url": "/"}],
                routes=application.routes,
            )
            _, problems = models_json_schema([(Problem, "serialization")], ref_template=_TEMPLATE)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(_forms | problems["$defs"])
            for path, item in document["paths"].items():
                for operation in item.values():
                    _complete(path, operation, schemas)
            application.openapi_schema = document
        return application.openapi_schema

    application.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way
