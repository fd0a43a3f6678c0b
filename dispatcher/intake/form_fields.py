"""The form fields of the options that `domain.campaign_options` declares."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, Field

from dispatcher.domain.campaign_options import (
    COST_CENTRE_LENGTH_MAX,
    COST_CENTRE_PATTERN,
    TAG_LENGTH_MAX,
    TAG_PATTERN,
    CostCentre,
    Tag,
    TriggerOptions,
)
from dispatcher.intake.errors import Moment

Options = TypeVar("Options", bound=TriggerOptions)


def _different(tags: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tags)) < len(tags):
        raise ValueError("each tag once")
    return tags


def _text(pattern: str, length_max: int, expected: str) -> Any:
    """A text of this pattern; its error says in words what would be right."""

    def check(text: str) -> str:
        if len(text) > length_max or not re.search(pattern, text, re.ASCII):
            raise ValueError(f"should be {expected}")
        return text

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"pattern": pattern, "maxLength": length_max})]


TAG_TEXT: Any = _text(
    TAG_PATTERN,
    TAG_LENGTH_MAX,
    f"at most {TAG_LENGTH_MAX} small letters, digits, - and _, first a letter, with no more than 6 digits in a row",
)
COST_CENTRE_TEXT: Any = _text(
    COST_CENTRE_PATTERN,
    COST_CENTRE_LENGTH_MAX,
    f"at most {COST_CENTRE_LENGTH_MAX} letters, digits and ./_-, first a letter or digit, with no more than 8 digits in a row",
)
ON_FORMS: dict[Any, Any] = {
    datetime | None: Moment | None,
    tuple[Tag, ...]: Annotated[tuple[TAG_TEXT, ...], AfterValidator(_different)],
    CostCentre | None: COST_CENTRE_TEXT | None,
}


def form_fields(options_type: type[TriggerOptions]) -> dict[str, Any]:
    """The fields of a form for these options, as `pydantic.create_model` takes them; it reads the limits in their metadata."""
    types = get_type_hints(options_type)
    return {field.name: (ON_FORMS.get(types[field.name], types[field.name]), field) for field in fields(options_type)}


def options_of(form: BaseModel, options_type: type[Options]) -> Options:
    """The options in a form, copied by name."""
    return options_type(**{field.name: getattr(form, field.name) for field in fields(options_type)})
