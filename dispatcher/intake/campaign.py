"""Campaigns from YAML and JSON: checked against the templates and the policy, and turned into specs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, create_model

from channels.base import Channel
from dispatcher.content import Catalog, Template
from dispatcher.domain.campaign import Spec
from dispatcher.domain.campaign_options import CampaignOptions
from dispatcher.domain.canonical_json import canonical_json
from dispatcher.domain.notation import Notation, day, number, trim
from dispatcher.domain.spelling import did_you_mean
from dispatcher.intake.audience import Id, audience_file, inline, read_audience
from dispatcher.intake.audience_folder import allowed_file
from dispatcher.intake.audience_reference import (
    AudienceSources,
    UploadReference,
    UrlReference,
    read_reference,
    referenced_file,
)
from dispatcher.intake.campaign_sender import sender_errors
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate
from dispatcher.intake.form_fields import form_fields, options_of
from dispatcher.intake.json_limits import CAMPAIGN_VALUES_MAX, check_size
from dispatcher.intake.partner_links import PartnerLinks
from dispatcher.intake.yaml_file import read_yaml
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceFile, AudienceRow
from dispatcher.policy import DEFAULT_FILE_RULES, FileRules, Policy

Channels = Annotated[list[Channel], Field(min_length=1, max_length=20)]
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,20}$")]

NO_FALLBACK = "needs route first and a second channel to fall back to"


class CampaignFields(StrictModel):
    """The fields of a campaign form other than its options."""

    id: Id
    template: str | None = None
    variants: Annotated[dict[VariantName, str], Field(min_length=2, max_length=10)] | None = None
    entity: str | None = None
    channels: Channels | None = None
    audience: str | list[Any] | UploadReference | UrlReference | None = None


CampaignForm = create_model(
    "CampaignForm", __base__=CampaignFields, __doc__="A campaign as people write it.", **form_fields(CampaignOptions)
)


class RowsForm(StrictModel):
    """Rows to add to a campaign that waits for its release, as in the campaign's own audience."""

    audience: Annotated[list[Any], Field(min_length=1)]


FORM_BYTES = 32  # of a digest: then follow 32 bytes of the rows


class UnknownTemplate(BadInput):
    """No template has this name."""


class SubmissionDigest:
    """The digest of a submission: one of its form, and one of its rows, which are added as they are read.

    In version 3 the rows' part is a chain: each row is hashed together with the hash of all before it. So who goes on with an
    interrupted load needs these 32 bytes only. Version 2 is one hash over all rows; it is compared with, and not written any more.
    """

    def __init__(self, form: BaseModel | None = None) -> None:
        content = form.model_dump(exclude={"id", "audience"}, exclude_defaults=True) if form else {}
        self.form = hashlib.sha256(canonical_json(content)).digest()
        self._chain = bytes(32)
        self._rows = hashlib.sha256()

    @classmethod
    def resume(cls, value: bytes) -> SubmissionDigest:
        """The digest of version 3 with this value, to add the rows that follow."""
        digest = cls()
        digest.form, digest._chain = value[:FORM_BYTES], value[FORM_BYTES:]
        return digest

    def add(self, row: AudienceRow | AudienceError) -> None:
        """Add a row. Of one that can't be read the line and the field count: its content is not known."""
        content = [row.recipient_id, row.data] if isinstance(row, AudienceRow) else [row.line, row.field, None]
        text = canonical_json(content) + b"\n"
        self._rows.update(text)
        self._chain = hashlib.sha256(self._chain + text).digest()

    @property
    def value(self) -> bytes:
        """The digest of version 3 of all that was read so far."""
        return self.form + self._chain

    def matches(self, digest: bytes, version: int) -> bool:
        """Whether this is the digest, of version 2 or 3."""
        return self.has_same_form(digest) and self.has_same_rows(digest, version)

    def has_same_form(self, digest: bytes) -> bool:
        """Whether the form is that of this digest."""
        return digest[:FORM_BYTES] == self.form

    def has_same_rows(self, digest: bytes, version: int) -> bool:
        """Whether the rows are those of this digest, of version 2 or 3."""
        return digest[FORM_BYTES:] == (self._rows.digest() if version == 2 else self._chain)


@dataclass(frozen=True, slots=True)
class CampaignRequest:
    """A well-formed campaign that is not yet checked against templates, policy and clock. `rows` are read once."""

    form: Any
    rows: Iterable[AudienceRow | AudienceError] | None  # None: no audience was given
    digest: SubmissionDigest
    file: str
    lines: Mapping[str, int]
    source: AudienceFile | None = None  # None: the rows are inline

    @property
    def id(self) -> str:
        """The campaign's id."""
        campaign_id: str = self.form.id
        return campaign_id


@dataclass(frozen=True, slots=True)
class Submission:
    """A valid campaign: its id, its spec, and its audience as a stream that is read once. Reading it completes the digest."""

    id: str
    spec: Spec
    audience: Iterable[AudienceRow | AudienceError]
    digest: SubmissionDigest = field(default_factory=SubmissionDigest)
    source: AudienceFile | None = None
    templates: tuple[Template, ...] = ()  # the versions that it was checked with


@dataclass(frozen=True, slots=True)
class ValidationContext:
    """What submissions are checked against."""

    catalog: Catalog
    policy: Policy
    now: datetime


def read_request(
    path: Path, audience: Path | None, rules: FileRules = DEFAULT_FILE_RULES, sources: AudienceSources | None = None
) -> CampaignRequest:
    """A campaign from its YAML file. Its audience is the file given, or else the one it names, relative to it, or one of
    `sources`. Raises BadInput."""
    form, lines = read_yaml(path)
    if audience is None and isinstance(form.get("audience"), str):
        audience = path.parent / form["audience"]
    elif audience is None:
        audience = _referenced(form, sources, str(path), lines)
    return _request(form, str(path), lines, audience, rules)


def parse_request(
    form: Mapping[str, Any],
    sources: AudienceSources | None = None,
    rules: FileRules = DEFAULT_FILE_RULES,
    uploads_only: bool = False,
) -> CampaignRequest:
    """A campaign from JSON, with its audience inline or, where `sources` are given, in an upload, behind a URL or, unless
    `uploads_only`, in a file of their folder. Raises BadInput."""
    check_size(form, "campaign", CAMPAIGN_VALUES_MAX)
    named = form.get("audience")
    if not isinstance(named, str):
        return _request(form, "campaign", {}, _referenced(form, sources, "campaign", {}), rules)
    if sources is None or uploads_only:
        message = 'should be a list of rows, {"upload": ID} or {"url": URL}; a file cannot be named here'
        raise BadInput(InputError("campaign", 0, "audience", message))
    return _request(form, "campaign", {}, allowed_file(sources.folder, named), rules)


def _referenced(form: Mapping[str, Any], sources: AudienceSources | None, file: str, lines: Mapping[str, int]) -> Path | None:
    """The file of the upload or URL that a form names; None where it names none. Raises BadInput."""
    named = form.get("audience")
    if not isinstance(named, dict):
        return None
    reference = read_reference(named, file, lines.get("audience", 0))
    checked = validate(CampaignForm, form, file, lines)  # a form that is refused fetches nothing
    return referenced_file(reference, checked.id, sources, file)


def parse_rows(form: Mapping[str, Any]) -> Iterable[AudienceRow | AudienceError]:
    """The rows of a `RowsForm`, from JSON. Raises BadInput."""
    return inline(validate(RowsForm, form, "rows").audience)


def parse_campaign(form: Mapping[str, Any], context: ValidationContext) -> Submission:
    """A campaign from JSON with its rows, checked. Raises BadInput."""
    return check_campaign(parse_request(form), context)


def _request(
    form: Mapping[str, Any], file: str, lines: Mapping[str, int], audience: Path | None, rules: FileRules
) -> CampaignRequest:
    parsed = validate(CampaignForm, form, file, lines)
    rows = read_audience(audience, rules) if audience is not None else None
    if rows is None and isinstance(parsed.audience, list):
        rows = inline(parsed.audience)
    source = audience_file(audience) if audience is not None else None
    return CampaignRequest(parsed, rows, SubmissionDigest(parsed), file, lines, source)


def check_campaign(request: CampaignRequest, context: ValidationContext) -> Submission:
    """The campaign, checked against templates, policy and clock. Raises BadInput."""
    parsed, file, lines = request.form, request.file, request.lines
    options = options_of(parsed, CampaignOptions)
    templates = list(_templates(parsed, file, lines, context.catalog))
    template = templates[0]
    errors = list(_errors(parsed, options, templates, file, lines, context))
    if request.rows is None:
        errors.append(InputError(file, 0, "audience", "missing: name a file, or give rows such as {recipient: c-1, data: {…}}"))
    if errors:
        raise BadInput(*errors)
    spec = Spec(
        template=template.name,
        entity=parsed.entity or template.entity,
        channels=_channels(parsed, templates),
        kind=template.info.kind,
        offer_type=template.info.offer_type,
        variants=tuple((parsed.variants or {}).items()),
        **asdict(options),
    )
    shown = request.source.path if request.source else file
    links = PartnerLinks(context.policy.entities.get(spec.entity), shown)
    rows = links.checked(checked_rows(request.rows or (), templates, request.digest))
    return Submission(parsed.id, spec, rows, request.digest, request.source, tuple(templates))


def _templates(form: CampaignFields, file: str, lines: Mapping[str, int], catalog: Catalog) -> Iterator[Template]:
    """The campaign's template, or those of its variants. Raises BadInput."""
    if (form.template is None) == (form.variants is None):
        raise BadInput(InputError(file, lines.get("template", 0), "template", "name either a template or variants"))
    for name in (form.template,) if form.template is not None else (form.variants or {}).values():
        yield find_template(name, file, lines.get("template", lines.get("variants", 0)), catalog)


def _channels(form: CampaignFields, templates: Sequence[Template]) -> tuple[Channel, ...]:
    """The requested channels, or all channels for which every template is written."""
    requested = form.channels or [name for name in templates[0].channels if all(name in other.channels for other in templates)]
    return tuple(dict.fromkeys(requested))


def find_template(name: str, file: str, line: int, catalog: Catalog) -> Template:
    """The template of this name. Raises `UnknownTemplate`."""
    if name not in catalog:
        has_faults = isinstance(catalog, Catalog) and catalog.faults
        message = catalog.reason(name) if has_faults else f"unknown template {name!r}{did_you_mean(name, catalog)}"
        raise UnknownTemplate(InputError(file, line, "template", message))
    return catalog[name]


def _errors(
    form: CampaignFields,
    options: CampaignOptions,
    templates: Sequence[Template],
    file: str,
    lines: Mapping[str, int],
    context: ValidationContext,
) -> Iterator[InputError]:
    """Errors that only the templates, the policy and the clock show."""
    yield from _unknown_names(form, options, file, lines, context.policy)
    for template in templates:
        if message := missing_channels(template, form.channels or ()):
            yield InputError(file, lines.get("channels", 0), "channels", message)
    if (
        len({template.name for template in templates}) < len(templates)
        or len({_comparable(template) for template in templates}) > 1
    ):
        incomparable = "should be different templates of one kind, offer type, topic and entity: only then do they compare"
        yield InputError(file, lines.get("variants", 0), "variants", incomparable)
    elif not _channels(form, templates):
        yield InputError(file, lines.get("variants", 0), "variants", "no channel is one that all of them are written for")
    if options.fallback_after_seconds is not None and (options.route == "all" or len(_channels(form, templates)) < 2):
        yield InputError(file, lines.get("fallback_after_seconds", 0), "fallback_after_seconds", NO_FALLBACK)
    if (entity := context.policy.entities.get(form.entity or templates[0].entity)) is not None:
        for name, message in sender_errors(options, entity, _channels(form, templates)):
            yield InputError(file, lines.get(name, 0), name, message)
    late_max = context.policy.files.send_at_past_minutes
    if options.send_at is not None and options.send_at < context.now - timedelta(minutes=late_max):
        past = f"lies more than {late_max:g} minutes in the past; check its year and zone, or leave it out to start at once"
        yield InputError(file, lines.get("send_at", 0), "send_at", past)
    if options.expires_at is not None and options.expires_at <= max(context.now, options.send_at or context.now):
        yield InputError(file, lines.get("expires_at", 0), "expires_at", "lies before the campaign could start")


def _unknown_names(
    form: CampaignFields, options: CampaignOptions, file: str, lines: Mapping[str, int], policy: Policy
) -> Iterator[InputError]:
    """Names that the policy does not have."""
    if form.entity is not None and form.entity not in policy.entities:
        unknown = f"unknown entity {form.entity!r}{did_you_mean(form.entity, policy.entities)}"
        yield InputError(file, lines.get("entity", 0), "entity", unknown)
    for seed in sorted(set(options.seeds).difference(policy.testers)):
        unknown = f"unknown tester {seed!r}{did_you_mean(seed, policy.testers)}"
        yield InputError(file, lines.get("seeds", 0), "seeds", unknown)


def missing_channels(template: Template, channels: Sequence[Channel]) -> str | None:
    """A sentence about the channels that a template is not written for; None where there are none."""
    missing = [channel for channel in channels if channel not in template.channels]
    return f"template {template.name} is not written for {', '.join(missing)}" if missing else None


def _comparable(template: Template) -> tuple[object, ...]:
    """What the variants of an A/B test must have in common."""
    info = template.info
    return info.kind, info.offer_type, info.topic, info.coins, info.product, template.entity


def checked_rows(
    rows: Iterable[AudienceRow | AudienceError], templates: Sequence[Template], digest: SubmissionDigest
) -> Iterator[AudienceRow | AudienceError]:
    """The rows; one whose variables do not fit a template becomes an error. Each is added to the digest as it was submitted.

    Numbers and dates of spreadsheets become those of JSON here, where the templates tell which variables are numbers and dates.
    """
    types = {name: variable.type for template in reversed(templates) for name, variable in template.variables.items()}
    for row in rows:
        digest.add(row)
        yield _checked(row, templates, types) if isinstance(row, AudienceRow) else row


def _checked(row: AudienceRow, templates: Sequence[Template], types: Mapping[str, str]) -> AudienceRow | AudienceError:
    if row.notation is not Notation.JSON:
        try:
            row = replace(row, data=dict(_typed(row, types)))
        except _BadCell as error:
            return AudienceError(row.line, f"data.{error.name}", str(error))
    objections = [each for template in templates for each in template.data_errors(row.data)]
    if objections:
        name, message = objections[0]
        return AudienceError(row.line, f"data.{name}", message)
    return row


class _BadCell(ValueError):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def _typed(row: AudienceRow, types: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, text in row.data.items():
        type_name = types.get(name)
        try:
            if type_name in ("number", "money"):
                yield name, number(text, row.notation, type_name == "money")
            elif type_name in ("date", "url"):
                yield name, day(text) if type_name == "date" else trim(text)
            else:
                yield name, text
        except ValueError as error:
            raise _BadCell(name, str(error)) from None
