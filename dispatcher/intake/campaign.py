"""The door for campaigns and triggers: YAML and JSON become specs, held against the templates and the policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from channels.base import Channel
from dispatcher.content import Catalog, Template
from dispatcher.domain.campaign import Spec
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.audience import Id, inline, read_audience
from dispatcher.intake.errors import BadInput, InputError, Moment, StrictModel, read_yaml, validate
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceRow
from dispatcher.policy import Policy

Channels = Annotated[list[Channel], Field(min_length=1)]


FallbackSeconds = Annotated[float, Field(ge=1, le=30 * 86_400)]


CollapseKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]  # web push's Topic is the narrowest


NOWHERE_TO_FALL = "needs route first and a second channel to fall back to"


VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,20}$")]


class CampaignForm(StrictModel):
    """A campaign as people write it."""

    id: Id
    template: str | None = None
    variants: Annotated[dict[VariantName, str], Field(min_length=2, max_length=10)] | None = None
    entity: str | None = None
    channels: Channels | None = None
    route: Literal["first", "all"] = "first"
    audience: str | list[Any] | None = None
    send_at: Moment | None = None
    expires_at: Moment | None = None
    rate_per_second: Annotated[float, Field(ge=0.001, le=1_000_000)] | None = None  # at the least a message in 17 minutes
    holdout_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    one_per_household: bool = False
    fallback_after_seconds: FallbackSeconds | None = None
    ttl_seconds: Annotated[int, Field(ge=1, le=28 * 86_400)] | None = None
    collapse_key: CollapseKey | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """A campaign that may go in: its id, what it asks, and its audience as a stream that is read once."""

    id: str
    spec: Spec
    audience: Iterable[AudienceRow | AudienceError]


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """What submissions are held against."""

    catalog: Catalog
    policy: Policy
    now: datetime


def read_campaign(path: Path, audience: Path | None, desk: ValidationContext) -> Submission:
    """A campaign from its YAML file; its audience is the file given, or the one it names (beside it). Raises BadInput."""
    form, lines = read_yaml(path)
    if audience is None and isinstance(form.get("audience"), str):
        audience = path.parent / form["audience"]
    return _campaign(form, str(path), lines, audience, desk)


def parse_campaign(form: Mapping[str, Any], desk: ValidationContext) -> Submission:
    """A campaign from JSON, its audience inline or a file that this machine can read. Raises BadInput."""
    named = form.get("audience")
    return _campaign(form, "campaign", {}, Path(named) if isinstance(named, str) else None, desk)


def _campaign(
    form: Mapping[str, Any], file: str, lines: Mapping[str, int], audience: Path | None, desk: ValidationContext
) -> Submission:
    parsed = validate(CampaignForm, form, file, lines)
    templates = list(_templates(parsed, file, lines, desk.catalog))
    template = templates[0]
    faults = list(_faults(parsed, templates, file, lines, desk))
    if audience is None and not isinstance(parsed.audience, list):
        faults.append(InputError(file, 0, "audience", "missing: name a file, or give rows such as {recipient: c-1, data: {…}}"))
    if faults:
        raise BadInput(*faults)
    spec = Spec(
        template=template.name,
        entity=parsed.entity or template.entity,
        channels=_channels(parsed, templates),
        kind=template.info.kind,
        offer_type=template.info.offer_type,
        route=parsed.route,
        send_at=parsed.send_at,
        expires_at=parsed.expires_at,
        rate_per_second=parsed.rate_per_second,
        holdout_percent=parsed.holdout_percent,
        priority=parsed.priority,
        fallback_after_seconds=parsed.fallback_after_seconds,
        variants=tuple((parsed.variants or {}).items()),
        one_per_household=parsed.one_per_household,
        ttl_seconds=parsed.ttl_seconds,
        collapse_key=parsed.collapse_key,
    )
    rows = read_audience(audience) if audience is not None else inline(parsed.audience if isinstance(parsed.audience, list) else [])
    return Submission(parsed.id, spec, _fitting(rows, templates))


def _templates(form: CampaignForm, file: str, lines: Mapping[str, int], catalog: Catalog) -> Iterator[Template]:
    """The campaign's template, or those of its variants. Raises BadInput."""
    if (form.template is None) == (form.variants is None):
        raise BadInput(InputError(file, lines.get("template", 0), "template", "name either a template or variants"))
    for name in (form.template,) if form.template is not None else (form.variants or {}).values():
        yield _template(name, file, lines.get("template", lines.get("variants", 0)), catalog)


def _channels(form: CampaignForm, templates: Sequence[Template]) -> tuple[Channel, ...]:
    """The channels asked for, or all that every template is written for."""
    asked = form.channels or [name for name in templates[0].channels if all(name in other.channels for other in templates)]
    return tuple(dict.fromkeys(asked))


def _template(name: str, file: str, line: int, catalog: Catalog) -> Template:
    if name not in catalog:
        raise BadInput(InputError(file, line, "template", f"unknown template {name!r}{did_you_mean(name, catalog)}"))
    return catalog[name]


def _faults(
    form: CampaignForm, templates: Sequence[Template], file: str, lines: Mapping[str, int], desk: ValidationContext
) -> Iterator[InputError]:
    """Faults that show only beside the templates, the policy and the clock."""
    if form.entity is not None and form.entity not in desk.policy.entities:
        message = f"unknown entity {form.entity!r}{did_you_mean(form.entity, desk.policy.entities)}"
        yield InputError(file, lines.get("entity", 0), "entity", message)
    for template in templates:
        if unwritten := _unwritten(template, form.channels or ()):
            yield InputError(file, lines.get("channels", 0), "channels", unwritten)
    if len({template.name for template in templates}) < len(templates) or len({_sort(template) for template in templates}) > 1:
        message = "should be different templates of one kind, offer type, topic and entity: only then do they compare"
        yield InputError(file, lines.get("variants", 0), "variants", message)
    elif not _channels(form, templates):
        yield InputError(file, lines.get("variants", 0), "variants", "no channel is one that all of them are written for")
    if form.fallback_after_seconds is not None and (form.route == "all" or len(_channels(form, templates)) < 2):
        yield InputError(file, lines.get("fallback_after_seconds", 0), "fallback_after_seconds", NOWHERE_TO_FALL)
    if form.expires_at is not None and form.expires_at <= max(desk.now, form.send_at or desk.now):
        yield InputError(file, lines.get("expires_at", 0), "expires_at", "lies before the campaign could start")


def _unwritten(template: Template, channels: Sequence[Channel]) -> str | None:
    """That a template is not written for some of these channels, in words."""
    unwritten = [channel for channel in channels if channel not in template.channels]
    return f"template {template.name} is not written for {', '.join(unwritten)}" if unwritten else None


def _sort(template: Template) -> tuple[object, ...]:
    info = template.info
    return info.kind, info.offer_type, info.topic, info.coins, info.product, template.entity


def _fitting(rows: Iterable[AudienceRow | AudienceError], templates: Sequence[Template]) -> Iterator[AudienceRow | AudienceError]:
    """Rows whose variables a template can't take become faults."""
    for row in rows:
        objections = (
            [each for template in templates for each in template.data_errors(row.data)] if isinstance(row, AudienceRow) else []
        )
        if objections:
            name, message = objections[0]
            yield AudienceError(row.line, f"data.{name}", message)
        else:
            yield row
