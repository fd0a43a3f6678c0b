"""The door for campaigns and triggers: YAML and JSON become specs, held against the templates and the policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from dispatcher.domain.campaign import Spec
from dispatcher.intake.audience import Id, unstorable
from dispatcher.intake.campaign import NOWHERE_TO_FALL, Channels, FallbackSeconds, ValidationContext, _template, _unwritten
from dispatcher.intake.errors import BadInput, InputError, Moment, StrictModel, validate
from dispatcher.ledger.campaigns.audience import AudienceRow


class TriggerForm(StrictModel):
    """A single job, as the profiling pipeline sends it. `key` is the caller's: the same key is the same job.

    `channels` in the order asked for; left out, the template's. With `fallback_after_seconds` the next one follows where nothing
    arrived by then.
    """

    key: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    recipient: Id
    template: str
    data: dict[str, Any] = Field(default_factory=dict)
    channels: Channels | None = None
    expires_at: Moment | None = None
    fallback_after_seconds: FallbackSeconds | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that may go in. `digest` tells whether a key comes back with the same content."""

    key: str
    spec: Spec
    row: AudienceRow
    digest: bytes


def parse_trigger(form: Mapping[str, Any], desk: ValidationContext) -> Trigger:
    """A trigger from JSON. Raises BadInput."""
    parsed = validate(TriggerForm, form, "job")
    template = _template(parsed.template, "job", 0, desk.catalog)
    if reason := unstorable(parsed.data):
        raise BadInput(InputError("job", 0, "data", reason))
    faults = [InputError("job", 0, f"data.{name}", message) for name, message in template.data_errors(parsed.data)]
    channels = tuple(dict.fromkeys(parsed.channels or template.channels))
    if message := _unwritten(template, channels):
        faults.append(InputError("job", 0, "channels", message))
    if parsed.fallback_after_seconds is not None and len(channels) < 2:
        faults.append(InputError("job", 0, "fallback_after_seconds", NOWHERE_TO_FALL))
    if faults:
        raise BadInput(*faults)
    spec = Spec(
        template=template.name,
        entity=template.entity,
        channels=channels,
        kind=template.info.kind,
        offer_type=template.info.offer_type,
        expires_at=parsed.expires_at,
        fallback_after_seconds=parsed.fallback_after_seconds,
    )
    content = json.dumps(parsed.model_dump(mode="json", exclude={"key"}), sort_keys=True)
    return Trigger(parsed.key, spec, AudienceRow(0, parsed.recipient, parsed.data), hashlib.sha256(content.encode()).digest())
