"""The form fields of the options that `domain.campaign_options` declares."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from dispatcher.domain.campaign_options import TriggerOptions
from dispatcher.intake.errors import Moment

Options = TypeVar("Options", bound=TriggerOptions)


def form_fields(options_type: type[TriggerOptions]) -> dict[str, Any]:
    """The fields of a form for these options, as `pydantic.create_model` takes them; it reads the limits in their metadata."""
    types = get_type_hints(options_type)
    on_forms = {datetime | None: Moment | None}
    return {field.name: (on_forms.get(types[field.name], types[field.name]), field) for field in fields(options_type)}


def options_of(form: BaseModel, options_type: type[Options]) -> Options:
    """The options in a form, copied by name."""
    return options_type(**{field.name: getattr(form, field.name) for field in fields(options_type)})
