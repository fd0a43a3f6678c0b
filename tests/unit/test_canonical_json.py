"""What says the same has one canonical form."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.domain.canonical_json import canonical_json

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (9000, 9000.0),
        (0.0, -0.0),
        (1e3, 1000),
        ("2026-11-23T12:00:00+01:00", "2026-11-23T11:00:00Z"),
        ("2026-11-23T12:00+0100", "2026-11-23 11:00:00.000z"),
        (datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=1))), "2026-11-23T11:00:00Z"),
        ([{"a": [1.0]}], [{"a": (1,)}]),
    ],
)
def test_the_same(one: Any, other: Any) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, "1"),
        (0, None),
        (0.1, 0.2),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        ("2026-11-23T12:00:00", "2026-11-23T12:00:00Z"),
        ("2026-02-30T12:00:00Z", "2026-03-02T12:00:00Z"),
        ("2026-11-23", "2026-11-24"),
        ("at 2026-11-23T12:00:00+01:00", "at 2026-11-23T11:00:00Z"),
    ],
)
def test_not_the_same(one: Any, other: Any) -> None:
    assert canonical_json(one) != canonical_json(other)


@given(JSON)
def test_any_json_has_one_form_that_does_not_change(value: Any) -> None:
    form = canonical_json(value)
    assert canonical_json(json.loads(form)) == form
    assert canonical_json(json.loads(json.dumps(value))) == form


@given(st.datetimes(datetime(1900, 1, 2), datetime(2200, 1, 1)), st.integers(-12 * 60, 14 * 60))  # noqa: DTZ001
def test_an_instant_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    utc = moment.replace(tzinfo=UTC)
    assert canonical_json(utc.astimezone(timezone(timedelta(minutes=minutes))).isoformat()) == canonical_json(utc.isoformat())
