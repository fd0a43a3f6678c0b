"""Campaigns and triggers as JSON, with the checks that need neither templates nor policy. For every way in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields
from datetime import datetime
from typing import Any, TypedDict

from dispatcher.domain.campaign_options import CampaignOptions, TriggerOptions
from dispatcher.domain.spelling import did_you_mean

CHANNELS = ("push", "email", "sms", "whatsapp")
KEY_LENGTH_MAX = 200
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")


class InvalidJob(ValueError):
    """A campaign or trigger that would be refused. `errors` are pairs of field and message; nothing was sent."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors))
        self.errors = tuple(errors)


class BrokerUnavailable(ConnectionError):
    """The broker did not take the job, or did not answer. Repeat the call: the same id or key is accepted once."""


class TriggerExtras(TypedDict, total=False):
    """The optional fields of a trigger."""

    channels: Sequence[str]
    send_at: datetime
    expires_at: datetime
    fallback_after_seconds: float
    tags: Sequence[str]
    cost_centre: str


class CampaignExtras(TriggerExtras, total=False):
    """The other fields of a campaign. Either `template` or `variants` is needed."""

    template: str
    variants: Mapping[str, str]
    entity: str
    route: str
    rate_per_second: float
    holdout_percent: float
    priority: int
    one_per_household: bool
    ttl_seconds: int
    collapse_key: str
    seeds: Sequence[str]
    sender: str
    reply_to: str


def trigger_job(key: str, recipient: str, template: str, data: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
    """A trigger as JSON. Raises `InvalidJob`."""
    errors = []
    if not isinstance(key, str) or not 0 < len(key.strip()) <= KEY_LENGTH_MAX:
        errors.append(("key", f"should be a text of 1 to {KEY_LENGTH_MAX} characters, the same for each repetition"))
    errors += [*_id_errors("recipient", recipient), *_template_errors(template), *_data_errors("data", data)]
    errors += _extras_errors(extras, TriggerOptions, ("channels",))
    return _job({"key": key, "recipient": recipient, "template": template, "data": data, **extras}, errors)


def campaign_job(
    campaign_id: str, audience: str | Mapping[str, str] | Sequence[Mapping[str, Any]], extras: Mapping[str, Any]
) -> dict[str, Any]:
    """A campaign as JSON. `audience` are rows, the name of a file in the workers' DISPATCHER_AUDIENCES, or {"upload": ID}. Raises
    `InvalidJob`."""
    errors = [*_id_errors("id", campaign_id)]
    if ("template" in extras) == ("variants" in extras):
        errors.append(("template", "name either a template or variants"))
    if "template" in extras:
        errors += _template_errors(extras["template"])
    if isinstance(audience, str):
        errors += [] if audience.strip() else [("audience", "should be the name of a file, or a list of rows")]
    elif isinstance(audience, Mapping):
        errors += _id_errors("audience.upload", audience.get("upload"))
    else:
        errors += [error for line, row in enumerate(audience, start=1) for error in _row_errors(line, row)]
    errors += _extras_errors(extras, CampaignOptions, ("channels", "template", "variants", "entity"))
    rows = audience if isinstance(audience, str) else dict(audience) if isinstance(audience, Mapping) else list(audience)
    return _job({"id": campaign_id, "audience": rows, **extras}, errors)


def _job(job: Mapping[str, Any], errors: Sequence[tuple[str, str]]) -> dict[str, Any]:
    if errors:
        raise InvalidJob(errors)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in job.items()}


def _id_errors(field: str, value: object) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str) or not ID.fullmatch(value):
        yield field, "should be 1 to 100 letters, digits or . _ : - and begin with a letter or digit"


def _template_errors(value: object) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str) or not value.strip():
        yield "template", "should be the name of a template"


def _row_errors(line: int, row: object) -> Iterator[tuple[str, str]]:
    place = f"audience.{line}"
    if not isinstance(row, Mapping) or not row.keys() <= {"recipient", "data"}:
        yield place, 'should be {"recipient": "c-1", "data": {…}}'
        return
    yield from _id_errors(f"{place}.recipient", row.get("recipient"))
    yield from _data_errors(f"{place}.data", row.get("data", {}))


def _data_errors(field: str, data: object) -> Iterator[tuple[str, str]]:
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        yield field, "should be an object with the variables of the template"
        return
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        yield field, "should hold JSON only: texts, finite numbers, true, false, null, lists and objects; dates as 2026-11-23"


def _extras_errors(extras: Mapping[str, Any], options: type[TriggerOptions], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    declared = {option.name: option for option in fields(options)}
    for name, value in extras.items():
        if name in declared:
            if message := _option_error(declared[name], value):
                yield name, message
        elif name not in others:
            yield name, f"unknown field{did_you_mean(name, (*declared, *others))}"
    channels = extras.get("channels", CHANNELS)
    if isinstance(channels, str) or not channels or not set(channels) <= set(CHANNELS):
        yield "channels", f"should be a list of {', '.join(CHANNELS)}"


def _option_error(option: Field[Any], value: object) -> str | None:
    """What is wrong with an option; its type and limits are declared with it."""
    declared, limits = str(option.type), option.metadata
    least, most = limits.get("ge"), limits.get("le")
    if "datetime" in declared:
        return None if isinstance(value, datetime) and value.tzinfo else "should be a datetime with its time zone"
    if declared == "bool":
        return None if isinstance(value, bool) else "should be True or False"
    if "Literal" in declared:
        words = re.findall(r"[\"'](\w+)[\"']", declared)
        return None if value in words else f"should be {' or '.join(words)}"
    if "str" in declared:
        return None if isinstance(value, str) and re.fullmatch(limits["pattern"], value) else f"should match {limits['pattern']}"
    kind: type | tuple[type, ...] = int if "int" in declared else (int, float)
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    return None if is_number and least <= value <= most else f"should be a number from {least:g} to {most:g}"  # type: ignore[operator]
