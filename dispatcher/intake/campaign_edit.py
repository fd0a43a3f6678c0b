"""Changes of a campaign's options from JSON. What is left out does not change; null removes an option."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import create_model

from dispatcher.domain.campaign import Spec
from dispatcher.domain.campaign_options import EDITABLE, CampaignOptions
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.intake.form_fields import form_fields
from dispatcher.policy import Policy

CampaignEditForm = create_model(
    "CampaignEditForm",
    __base__=StrictModel,
    __doc__="Options to change. What is left out does not change; null removes an option.",
    **{name: field for name, field in form_fields(CampaignOptions).items() if name in EDITABLE},
)


def parse_edit(form: Mapping[str, Any]) -> dict[str, Any]:
    """The options to change, by name. Raises BadInput."""
    parsed = validate(CampaignEditForm, form, "campaign")
    if not parsed.model_fields_set:
        raise BadInput(InputError("campaign", 0, "", f"names no option to change; these can be changed: {', '.join(EDITABLE)}"))
    return {name: getattr(parsed, name) for name in EDITABLE if name in parsed.model_fields_set}


def check_edited(spec: Spec, changes: Mapping[str, Any], policy: Policy, now: datetime) -> None:
    """Raise BadInput where the edited spec would not be accepted as a new one."""
    errors = []
    late_max = policy.files.send_at_past_minutes
    if changes.get("send_at") is not None and spec.send_at is not None and spec.send_at < now - timedelta(minutes=late_max):
        errors.append(
            InputError("campaign", 0, "send_at", f"lies more than {late_max:g} minutes in the past; null starts it at once")
        )
    if spec.expires_at is not None and spec.expires_at <= max(now, spec.send_at or now):
        errors.append(InputError("campaign", 0, "expires_at", "lies before the campaign could start"))
    if errors:
        raise BadInput(*errors)
