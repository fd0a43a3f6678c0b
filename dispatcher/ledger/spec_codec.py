"""Specs as JSON, for the columns `campaigns.spec` and `triggers.spec`. The fields and types of the dataclass give its form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from dispatcher.domain.campaign import Spec

# The digest of a submission is computed over this JSON. The options of version 1 are always written. A newer option is left out at
# its default, so that the same submission has the same digest before and after an upgrade that adds an option.
_ALWAYS = frozenset({
    *("template", "entity", "channels", "kind", "offer_type", "route", "send_at", "expires_at", "rate_per_second"),
    *("holdout_percent", "priority", "fallback_after_seconds", "variants", "one_per_household", "ttl_seconds", "collapse_key"),
})  # fmt: skip


def spec_to_json(spec: Spec) -> str:
    """The JSON of a spec."""
    defaults = {field.name: field.default for field in fields(spec)}
    values = {name: value for name, value in asdict(spec).items() if name in _ALWAYS or value != defaults[name]}
    return json.dumps(values, sort_keys=True, default=datetime.isoformat)


def spec_from_json(stored: Mapping[str, Any], spec_type: type[Spec] = Spec) -> Spec:
    """The spec of stored JSON, which may come from an older or a newer version of this program.

    A missing field gets its default, an unknown one is ignored. Limits are not checked: the form did that when it came in.
    """
    readers = _readers(spec_type)  # type: ignore[arg-type]  # mypy checks an instance of the class
    return spec_type(**{name: reader(stored[name]) for name, reader in readers.items() if name in stored})


@lru_cache
def _readers(spec_type: type[Spec]) -> dict[str, Callable[[Any], Any]]:
    """For each field, the function that turns its JSON value into a value of its type."""
    types = get_type_hints(spec_type)
    return {field.name: TypeAdapter(types[field.name]).validate_python for field in fields(spec_type)}
