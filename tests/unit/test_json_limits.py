"""Limits for JSON from outside: its values are counted before anything is made of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.intake.campaign import CampaignForm, parse_request
from dispatcher.intake.errors import ERRORS_MAX, BadInput, validate
from dispatcher.intake.json_limits import DEPTH_MAX, TooLarge, check_json_size, check_size
from dispatcher.intake.trigger import read_trigger
from dispatcher.web.api.strict_json import read_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a,[{"\\:') | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='b,[{"\\'), inner),
    max_leaves=20,
)


def values(value: object) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values, inside))


@given(JSON)
def test_values_are_counted_whatever_the_texts_hold(value: object) -> None:
    body, count = json.dumps(value).encode(), values(value)
    check_size(value, "body", count)
    with pytest.raises(TooLarge, match=f"more than {count - 1} values"):
        check_size(value, "body", count - 1)
    # An empty list or object counts twice in a text: nothing of it has been read.
    check_json_size(body, count + body.count(b"[]") + body.count(b"{}") + 1)
    if count > 1:
        with pytest.raises(TooLarge, match=f"more than {count - 1} values"):
            check_json_size(body, count - 1)


def test_a_body_of_commas_in_a_text_is_no_body_of_many_values() -> None:
    assert read_object(json.dumps({"text": "," * 100_000}).encode()) == {"text": "," * 100_000}


def test_a_body_nested_too_deeply_is_refused_with_the_limit() -> None:
    for depth in (DEPTH_MAX + 1, 5_000):
        with pytest.raises(TooLarge, match=f"more than {DEPTH_MAX} levels"):
            read_object(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


def test_arguments_of_the_public_tasks_are_counted_too() -> None:
    with pytest.raises(TooLarge, match="2,000,000"):
        parse_request({"id": "a", "audience": [[None] * 1_000] * 2_001})
    with pytest.raises(TooLarge, match="50,000"):
        read_trigger({"key": "k", "data": {"a": [[None] * 1_000] * 51}})


def test_a_form_with_very_many_errors_is_refused_in_one_sentence() -> None:
    with pytest.raises(BadInput, match="too many to list") as caught:
        validate(CampaignForm, {f"field-{number}": 1 for number in range(ERRORS_MAX + 1)}, "campaign")
    assert len(caught.value.faults) == 1
