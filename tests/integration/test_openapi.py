"""The API answers whatever its OpenAPI document allows as that document says: schemathesis makes calls from it, valid and not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from dispatcher.campaigns import submission
from dispatcher.events import event_endpoints
from dispatcher.intake.campaign import parse_campaign
from dispatcher.web.api_keys import Right, new_key, read_keys
from dispatcher.web.app import create
from tests.support.services import Broker, Clock, add_people, make_services, person, work

EXAMPLES = 30  # for each of the calls and callers: some 10 s of processor time in all
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
LOAN = {"offer_url": "https://www.bank.example/loan", "project": "a bike", "amount": 5_000}
KNOWN = {"campaign_id": "spring", "recipient_id": "anna", "message_id": "202611-1-0-0", "name": "loan_offer", "endpoint_id": "crm"}


@schemathesis.serializer("application/x-ndjson")
def _lines(_: Any, value: Any) -> bytes:
    """A stream of lines is text to the document."""
    return str(value).encode("utf-8", "replace")


@pytest.fixture
def calls(database: str, tmp_path: Path) -> Iterator[tuple[Any, Mapping[str, str]]]:
    """The operations of the document, and keys: with every right and with one that no call of the API needs."""
    made = {"all": new_key("all", Right), "console": new_key("console", [Right.CONSOLE])}
    (tmp_path / "keys.toml").write_text("\n".join(line for _, line in made.values()))
    with make_services(database, Clock()) as plain:
        services = replace(plain, audiences=tmp_path / "audiences")
        add_people(services, person("anna"))
        rows = [{"recipient": "anna", "data": LOAN}]
        form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows}
        submission.submit(services, parse_campaign(form, submission.validation_context(services)))
        work(services)
        endpoint = event_endpoints.parse_form({"id": "crm", "url": "https://127.0.0.1/"})  # listed only while it is added
        event_endpoints.add(replace(services, webhook_hosts=frozenset({"127.0.0.1"})), endpoint, "tests")
        application = create(services, Broker(), read_keys(tmp_path / "keys.toml"))
        with TestClient(application):
            yield schemathesis.openapi.from_asgi("/openapi.json", application), {name: key for name, (key, _) in made.items()}


def call_all(schema: Any, headers: Mapping[str, str], examples: int, expected: frozenset[int] | None = None) -> int:
    """Call every operation with what the document allows, and with what it does not; returns how many there are."""
    count, errors = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        count += 1
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                _call(operation.as_strategy(generation_mode=mode), headers, examples, expected)
            except Unsatisfiable:  # every call is one that the document allows
                continue
            except (Exception, BaseExceptionGroup) as error:  # one run shows every call that is wrong
                errors.append(f"{operation.label}: {type(error).__name__}: {error}: {getattr(error, 'exceptions', '')}")
    assert not errors, "\n".join(errors)
    return count


def _call(strategy: Any, headers: Mapping[str, str], examples: int, expected: frozenset[int] | None) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def call(case: Any) -> None:
        for name in list(case.path_parameters or {}):  # every second call is about something that exists
            if len(str(case.path_parameters[name])) % 2:
                case.path_parameters[name] = KNOWN.get(name, case.path_parameters[name])
        answer = case.call(headers=dict(headers))
        case.validate_response(answer, checks=CHECKS)
        assert expected is None or answer.status_code in expected, answer.status_code

    call()


def test_no_call_has_an_undocumented_answer(calls: tuple[Any, Mapping[str, str]]) -> None:
    schema, keys = calls
    assert call_all(schema, {"Authorization": f"Bearer {keys['all']}"}, EXAMPLES) >= 20


def test_without_a_key_or_its_right_answers_are_documented_too(calls: tuple[Any, Mapping[str, str]]) -> None:
    schema, keys = calls
    api = schema.include(path_regex="^/v1/")
    assert call_all(api, {}, 2, frozenset({401})) >= 13
    assert call_all(api, {"Authorization": f"Bearer {keys['console']}"}, 2, frozenset({401, 403})) >= 13
