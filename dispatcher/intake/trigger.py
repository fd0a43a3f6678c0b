"""Triggers from JSON: checked against the templates and the policy, and turned into specs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, create_model

from dispatcher.content import Template
from dispatcher.domain.campaign import Spec
from dispatcher.domain.campaign_options import TriggerOptions
from dispatcher.domain.canonical_json import canonical_json
from dispatcher.intake.audience import RecipientId, unstorable
from dispatcher.intake.campaign import NO_FALLBACK, Channels, ValidationContext, find_template, missing_channels
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.intake.form_fields import form_fields, options_of
from dispatcher.intake.json_limits import check_size
from dispatcher.intake.partner_links import unlisted_links
from dispatcher.ledger.campaigns.audience import AudienceRow


class TriggerFields(StrictModel):
    """The fields of a trigger form other than its options."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    recipient: RecipientId
    template: str
    data: dict[str, Any] = Field(default_factory=dict)
    channels: Channels | None = None


TriggerForm = create_model(
    "TriggerForm",
    __base__=TriggerFields,
    __doc__="""A single job that another system sends. `key` is the caller's: the same key is the same job.

    `channels` in the order of preference; without it, the template's. With `fallback_after_seconds` the next channel follows where
    nothing arrived by then.
    """,
    **form_fields(TriggerOptions),
)

# As in `spec_codec`: the digest leaves out a newer field at its default, so that a key repeated after an upgrade is no conflict.
_ALWAYS = {"recipient", "template", "data", "channels", "expires_at", "fallback_after_seconds"}


@dataclass(frozen=True, slots=True)
class Trigger:
    """A valid trigger. `digests`, by version, show whether a repeated key has the same content."""

    key: str
    spec: Spec
    row: AudienceRow
    digests: Mapping[int, bytes]
    template: Template  # the version that it was checked with


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A well-formed trigger that is not yet checked against the templates."""

    form: Any
    digests: Mapping[int, bytes]


def parse_trigger(form: Mapping[str, Any], context: ValidationContext) -> Trigger:
    """A trigger from JSON. Raises BadInput."""
    return check_trigger(read_trigger(form), context)


def read_trigger(form: Mapping[str, Any]) -> TriggerRequest:
    """A trigger from JSON, before it is checked against the templates. Raises BadInput."""
    check_size(form, "job")
    parsed = validate(TriggerForm, form, "job")
    if reason := unstorable(parsed.data):
        raise BadInput(InputError("job", 0, "data", reason))
    return TriggerRequest(parsed, {1: content_digest(parsed), 2: canonical_digest(parsed)})


def check_trigger(request: TriggerRequest, context: ValidationContext) -> Trigger:
    """The trigger, checked against the templates. Raises BadInput."""
    parsed = request.form
    options = options_of(parsed, TriggerOptions)
    template = find_template(parsed.template, "job", 0, context.catalog)
    errors = [InputError("job", 0, f"data.{name}", message) for name, message in template.data_errors(parsed.data)]
    unlisted = unlisted_links(parsed.data, template, context.policy.entities.get(template.entity))
    errors += [InputError("job", 0, f"data.{name}", message) for name, message in unlisted]
    channels = tuple(dict.fromkeys(parsed.channels or template.channels))
    if message := missing_channels(template, channels):
        errors.append(InputError("job", 0, "channels", message))
    if options.fallback_after_seconds is not None and len(channels) < 2:
        errors.append(InputError("job", 0, "fallback_after_seconds", NO_FALLBACK))
    late_max = context.policy.files.send_at_past_minutes
    if options.send_at is not None and options.send_at < context.now - timedelta(minutes=late_max):
        errors.append(
            InputError("job", 0, "send_at", f"lies more than {late_max:g} minutes in the past; leave it out to send at once")
        )
    if options.send_at is not None and options.expires_at is not None and options.expires_at <= options.send_at:
        errors.append(InputError("job", 0, "expires_at", "lies before send_at"))
    if errors:
        raise BadInput(*errors)
    spec = Spec(
        template=template.name,
        entity=template.entity,
        channels=channels,
        kind=template.info.kind,
        offer_type=template.info.offer_type,
        **asdict(options),
    )
    return Trigger(parsed.key, spec, AudienceRow(0, parsed.recipient, parsed.data), request.digests, template)


def content_digest(form: BaseModel) -> bytes:
    """The digest of version 1, of all fields of a trigger form but its key."""
    content = form.model_dump(mode="json", exclude={"key"}, exclude_defaults=True) | form.model_dump(mode="json", include=_ALWAYS)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def canonical_digest(form: BaseModel) -> bytes:
    """The digest of version 2, of the canonical form of the same fields."""
    content = form.model_dump(exclude={"key"}, exclude_defaults=True) | form.model_dump(include=_ALWAYS)
    return hashlib.sha256(canonical_json(content)).digest()
