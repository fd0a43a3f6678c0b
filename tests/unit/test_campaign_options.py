"""A campaign option is declared once: the form, the stored JSON and the digest of a submission follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError, create_model

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.campaign_options import CampaignOptions, TriggerOptions
from dispatcher.domain.message import Kind
from dispatcher.intake.campaign import CampaignFields, CampaignForm, ValidationContext, parse_campaign
from dispatcher.intake.form_fields import form_fields, options_of
from dispatcher.intake.trigger import TriggerFields, TriggerForm, content_digest, parse_trigger
from dispatcher.ledger.spec_codec import spec_from_json, spec_to_json
from dispatcher.policy import parse, shipped
from tests.support.services import NOON, templates

# As version 1 stored them, byte for byte.
STORED = (
    '{"channels": ["push", "email"], "collapse_key": "a-1", "entity": "kbc-bank", "expires_at": "2026-11-25T09:00:00+00:00",'
    ' "fallback_after_seconds": 3600.0, "holdout_percent": 2.5, "kind": "commercial", "offer_type": "own",'
    ' "one_per_household": true, "priority": 3, "rate_per_second": 5.0, "route": "first",'
    ' "send_at": "2026-11-24T09:00:00+01:00", "template": "loan_offer", "ttl_seconds": 600, "variants": []}'
)
STORED_DEFAULTS = (
    '{"channels": ["push", "email", "sms", "whatsapp"], "collapse_key": null, "entity": "kbc-bank", "expires_at": null,'
    ' "fallback_after_seconds": null, "holdout_percent": 0.0, "kind": "commercial", "offer_type": "own",'
    ' "one_per_household": false, "priority": 5, "rate_per_second": null, "route": "first", "send_at": null,'
    ' "template": "loan_offer", "ttl_seconds": null, "variants": []}'
)
FORM: Mapping[str, Any] = {
    "id": "spring",
    "template": "loan_offer",
    "entity": "kbc-bank",
    "channels": ["push", "email"],
    "audience": [],
    "send_at": "2026-11-24T09:00:00+01:00",
    "expires_at": "2026-11-25T09:00:00Z",
    "rate_per_second": 5,
    "holdout_percent": 2.5,
    "priority": 3,
    "one_per_household": True,
    "fallback_after_seconds": 3600,
    "ttl_seconds": 600,
    "collapse_key": "a-1",
}
TRIGGER: Mapping[str, Any] = {"key": "k", "recipient": "c-1", "template": "optout_acknowledgement"}
TRIGGER_DATA: Mapping[str, Any] = {"data": {"received_on": "2026-11-23"}}


def context() -> ValidationContext:
    return ValidationContext(templates(), parse(shipped()), NOON)


@pytest.mark.parametrize(
    ("form", "stored"), [(FORM, STORED), ({"id": "spring", "template": "loan_offer", "audience": []}, STORED_DEFAULTS)]
)
def test_a_campaign_is_stored_as_in_version_1_and_read_back(form: Mapping[str, Any], stored: str) -> None:
    spec = parse_campaign(form, context()).spec
    assert spec_to_json(spec) == stored
    assert spec_from_json(json.loads(stored)) == spec


@pytest.mark.parametrize(
    ("more", "digest"),
    [
        ({}, "63e81b959698dc60a4552e8f87f4405a6bfee2ff1bb29e86acb178d0af8e99c0"),
        (
            {"channels": ["sms", "email"], "expires_at": "2026-11-25T09:00:00Z", "fallback_after_seconds": 60},
            "ff0eba10d51f5d049ea257c026b7bd421056cf0d6711d08ca8ffecb64d480cec",
        ),
    ],
)
def test_a_trigger_keeps_the_digest_of_version_1(more: Mapping[str, Any], digest: str) -> None:
    assert parse_trigger({**TRIGGER, **TRIGGER_DATA, **more}, context()).digests[1].hex() == digest


def test_a_spec_with_missing_and_unknown_fields_can_be_read() -> None:
    stored = json.loads(STORED)
    del stored["collapse_key"], stored["variants"]
    spec = spec_from_json({**stored, "an_option_of_a_later_version": {"x": 1}})
    assert (spec.collapse_key, spec.variants, spec.priority) == (None, (), 3)


def test_a_stored_value_outside_of_today_s_limits_can_be_read() -> None:
    assert spec_from_json({**json.loads(STORED), "priority": 12}).priority == 12


def test_every_field_of_a_form_is_in_the_spec_or_known_not_to_be() -> None:
    in_spec = {field.name for field in fields(Spec)}
    assert set(CampaignForm.model_fields) - in_spec == {"id", "audience"}
    assert set(TriggerForm.model_fields) - in_spec == {"key", "recipient", "data"}
    assert in_spec - set(CampaignForm.model_fields) == {"kind", "offer_type", "trace"}  # of the template, and of the caller


# -- a new option: one line --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _MoreOptions(CampaignOptions):
    wake_at: datetime | None = field(default=None)


@dataclass(frozen=True, slots=True)
class _MoreSpec(Spec):
    wake_at: datetime | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MoreTriggerOptions(TriggerOptions):
    loud: int = field(default=1, metadata={"ge": 1, "le": 9})


def test_a_new_option_is_on_the_form_and_is_stored() -> None:
    form = create_model("Form", __base__=CampaignFields, **form_fields(_MoreOptions))
    options = options_of(form.model_validate({**FORM, "wake_at": "2026-11-24T07:00:00Z"}), _MoreOptions)
    assert options.wake_at == datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
    with pytest.raises(ValidationError, match="timezone"):
        form.model_validate({**FORM, "wake_at": "2026-11-24T07:00:00"})
    spec = _MoreSpec("t", "e", (Channel.PUSH,), Kind.SERVICE, wake_at=NOON + timedelta(hours=1))
    assert spec_from_json(json.loads(spec_to_json(spec)), _MoreSpec) == spec


def test_a_new_option_at_its_default_changes_no_digest() -> None:
    old = spec_from_json(json.loads(STORED))
    new = spec_from_json(json.loads(STORED), _MoreSpec)
    assert spec_to_json(new) == spec_to_json(old) == STORED
    form = create_model("Form", __base__=TriggerFields, **form_fields(_MoreTriggerOptions))
    digests = [
        content_digest(each.model_validate({**TRIGGER, **changes}))
        for each, changes in ((TriggerForm, {}), (form, {}), (form, {"loud": 2}))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_limits_of_an_option_are_checked_by_the_form() -> None:
    form = create_model("Form", __base__=TriggerFields, **form_fields(_MoreTriggerOptions))
    with pytest.raises(ValidationError, match="less than or equal to 9"):
        form.model_validate({**TRIGGER, "loud": 10})
