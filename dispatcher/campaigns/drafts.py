"""Drafts of campaigns: written step by step in the console, checked as a submission is, and submitted as one.

A draft belongs to one person. Its form is that of `intake.campaign.CampaignForm` without the audience, which is an upload.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from dispatcher.campaigns import audience_uploads, submission
from dispatcher.campaigns.audience_loading import too_many_invalid
from dispatcher.campaigns.audience_uploads import Upload, UploadConflict, UploadRange
from dispatcher.campaigns.submission import SubmitResult, SubmitStatus, validation_context
from dispatcher.campaigns.template_approval import approval_errors
from dispatcher.content import TemplateVariable
from dispatcher.domain.campaign import Spec
from dispatcher.domain.errors import DraftConflict
from dispatcher.intake import audience_columns
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.audience_uploads import PIECE_BYTES, assign_columns, assigned_columns, path_of
from dispatcher.intake.campaign import CampaignRequest, Submission, check_campaign, parse_request
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.intake.rows import SUFFIXES, read_header
from dispatcher.ledger.campaigns import drafts, dry_runs, lifecycle
from dispatcher.ledger.campaigns.audience import AudienceError
from dispatcher.ledger.campaigns.drafts import Draft
from dispatcher.ledger.campaigns.dry_runs import StoredDryRun
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

__all__ = ["AudienceError", "Draft", "SubmitStatus"]

ERRORS_STORED = 200  # of unreadable rows; the download has all
CHECK_ROWS_MAX = 500_000  # half a minute
SUBMIT_SECONDS = 10  # how long a call loads an audience; workers go on
OF_NO_COPY = ("send_at", "expires_at")


@dataclass(frozen=True, slots=True)
class ColumnChoice:
    """The columns of a draft's file, and what they can be assigned to. `is_needed`: the header does not fit as it is."""

    header: tuple[str, ...]
    columns: tuple[str, ...]
    variables: Mapping[str, TemplateVariable]
    is_needed: bool


def create(services: Services, owner: str, form: Mapping[str, Any]) -> int:
    """Store a new draft with a checked form; returns its number. Raises BadInput."""
    check_form(services, form)
    with lend(services.pool) as connection:
        return drafts.add(connection, owner, form, services.clock())


def find(services: Services, no: int, owner: str) -> Draft | None:
    """The draft of this number, where it is this person's."""
    with lend(services.pool) as connection:
        return drafts.find(connection, no, owner)


def of_owner(services: Services, owner: str) -> list[Draft]:
    """A person's drafts, newest first."""
    with lend(services.pool) as connection:
        return drafts.of_owner(connection, owner)


def check_form(services: Services, form: Mapping[str, Any]) -> Spec:
    """The spec of a form, checked as a submission is. Raises BadInput."""
    return check_campaign(parse_request({**form, "audience": []}), validation_context(services)).spec


def change_form(services: Services, draft: Draft, form: Mapping[str, Any]) -> Draft:
    """Store another form, checked. The dry run is void; for another template or entity, the file is read anew. Raises BadInput."""
    spec = check_form(services, form)
    is_read = set(spec.templates) == set(check_names(draft.form)) and form.get("entity") == draft.form.get("entity")
    draft = save(services, replace(draft, form=form, dry_run=None))
    if is_read or draft.upload is None:
        return draft
    try:
        return _assign_at_first(services, draft)
    except BadInput:  # retention has deleted the file: the page of the audience says so
        return draft


def change_time(services: Services, draft: Draft, form: Mapping[str, Any]) -> Draft:
    """Store a form that differs in time, rate and expiry only: the dry run stays. Raises BadInput."""
    check_form(services, form)
    return save(services, replace(draft, form=form))


def check_names(form: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the templates in a form."""
    return tuple((form.get("variants") or {}).values()) or ((form["template"],) if form.get("template") else ())


def submitted_entity(services: Services, request: CampaignRequest) -> str | None:
    """The entity of a campaign that is submitted: that of its form, or else of its template; None for an unknown template."""
    names = check_names(request.form.model_dump(include={"template", "variants"}))
    return request.form.entity or next((services.catalog[name].entity for name in names if name in services.catalog), None)


def variables_of(services: Services, form: Mapping[str, Any]) -> dict[str, TemplateVariable]:
    """The variables of a form's templates, by name. A template that is gone has none."""
    return _variables(services, check_names(form))


def _variables(services: Services, templates: Iterable[str]) -> dict[str, TemplateVariable]:
    present = (name for name in templates if name in services.catalog)
    return {name: variable for each in present for name, variable in services.catalog[each].variables.items()}


def save(services: Services, draft: Draft) -> Draft:
    """Store a changed draft. Raises DraftConflict where another call stored it since it was read: a dry run takes a minute and must
    not put back the options that it began with."""
    now = services.clock()
    with lend(services.pool) as connection:
        if not drafts.save(connection, draft, now):
            raise DraftConflict("this draft was changed in another window meanwhile; go back and look at it as it is now")
    return replace(draft, updated_at=now)


def delete(services: Services, draft: Draft) -> None:
    """Delete a draft and its file."""
    with lend(services.pool) as connection:
        drafts.delete(connection, draft.no)
    _delete_upload(services, draft.upload)


# -- the audience ------------------------------------------------------------------------------------------------------


def upload(services: Services, draft: Draft, file: BinaryIO, name: str) -> Draft:
    """Store an audience file in place of the one before, and check its rows where its columns are known. Raises BadInput and
    `UploadTooLarge`; then the file before stays."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInput(InputError("file", 0, "file", "should be a .csv, .xlsx or .jsonl file; save the workbook as one of these"))
    new = Upload(f"web-{secrets.token_hex(10)}", suffix, is_gzip=False, submitted_by=draft.owner)
    writer = audience_uploads.open_upload(services, new, UploadRange())
    try:
        while data := file.read(PIECE_BYTES):
            writer.write(data)
        writer.finish()
    finally:
        writer.close()
    before = draft.upload
    draft = save(services, replace(draft, upload=new.id, file_name=PurePath(name).name[:200], file_check=None, dry_run=None))
    _delete_upload(services, before)
    return _assign_at_first(services, draft)


def _delete_upload(services: Services, upload_id: str | None) -> None:
    if upload_id is None:
        return
    try:
        audience_uploads.delete(services, upload_id)
    except UploadConflict:  # a campaign loads from it: retention deletes it
        return


def _assign_at_first(services: Services, draft: Draft) -> Draft:
    """Use the header as it is where it fits, or the remembered assignment, and check the file; else a person has to assign."""
    choice = column_choice(services, draft)
    remembered = _remembered(services, _mapping_key(draft, choice), choice) if choice.is_needed else []
    if choice.is_needed and not remembered:
        _assign(services, draft, [])
        return save(services, replace(draft, file_check=None))
    _assign(services, draft, remembered)
    return check_file(services, draft)


def remembered_columns(services: Services, owner: str, spec: Spec, path: Path) -> list[str]:
    """The assignment that this person chose for a file of a campaign with this header; empty where its header fits as it is, or no
    assignment is remembered. Raises BadInput where the file cannot be read."""
    variables = _variables(services, spec.templates)
    header = tuple(read_header(path))
    choice = ColumnChoice(header, (), variables, bool(header) and not audience_columns.fits(header, variables))
    return _remembered(services, (owner, _templates_key(spec.templates), _header_key(choice)), choice) if choice.is_needed else []


def _remembered(services: Services, key: tuple[str, str, bytes], choice: ColumnChoice) -> list[str]:
    """The assignment that this person chose for a file with this header, if it fits the template as it is now."""
    with lend(services.pool) as connection:
        columns = drafts.remembered_columns(connection, *key)
    try:
        audience_columns.check_assignment(columns or [], choice.header, choice.variables)
    except BadInput:
        return []
    return columns or []


def _mapping_key(draft: Draft, choice: ColumnChoice) -> tuple[str, str, bytes]:
    return draft.owner, _templates_key(check_names(draft.form)), _header_key(choice)


def _templates_key(names: Iterable[str]) -> str:
    return "+".join(sorted(names))


def _header_key(choice: ColumnChoice) -> bytes:
    return audience_columns.fingerprint(choice.header)


def column_choice(services: Services, draft: Draft) -> ColumnChoice:
    """The columns of the file: as they are assigned, or else as their names suggest. Raises BadInput where the upload is gone."""
    path, variables = _path(services, draft), variables_of(services, draft.form)
    header = tuple(read_header(path))
    assigned = assigned_columns(path)
    columns = assigned if len(assigned) == len(header) else tuple(audience_columns.guess(header, variables))
    return ColumnChoice(header, columns, variables, bool(header) and not audience_columns.fits(header, variables))


def assign(services: Services, draft: Draft, columns: list[str]) -> Draft:
    """Assign the columns of the file, remember this for the person and the template, and check the file. Raises BadInput."""
    choice = column_choice(services, draft)
    audience_columns.check_assignment(columns, choice.header, choice.variables)
    with lend(services.pool) as connection:
        drafts.remember_columns(connection, _mapping_key(draft, choice), columns, services.clock())
    _assign(services, draft, columns)
    return check_file(services, replace(draft, dry_run=None))


def _assign(services: Services, draft: Draft, columns: list[str]) -> None:
    if draft.upload is not None:
        assign_columns(services.audiences, draft.upload, columns)


def needs_assignment(services: Services, draft: Draft) -> bool:
    """Whether a person has to assign the columns before the file can be read."""
    path = _path(services, draft)
    return not assigned_columns(path) and column_choice(services, draft).is_needed


def _path(services: Services, draft: Draft) -> Path:
    if draft.upload is None:
        raise BadInput(InputError("campaign", 0, "audience", "choose a file first"))
    return path_of(services.audiences, draft.upload)


def submission_of(services: Services, draft: Draft) -> Submission:
    """The draft as a submission, with its rows. Raises BadInput."""
    return check_campaign(_request(services, draft), validation_context(services))


def _request(services: Services, draft: Draft) -> CampaignRequest:
    _path(services, draft)
    form = {**draft.form, "audience": {"upload": draft.upload}}
    sources = AudienceSources(services.audiences, draft.owner)
    return parse_request(form, sources, services.policy.files, uploads_only=True)


def check_file(services: Services, draft: Draft) -> Draft:
    """Read the file as a submission would, and store how many rows are good, and the first of those that are not.

    Of a large file the first `CHECK_ROWS_MAX` rows are read: a page waits for it. The submission reads all.
    """
    rows, invalid, fault = 0, 0, ""
    errors: list[list[Any]] = []
    try:
        for row in islice(submission_of(services, draft).audience, CHECK_ROWS_MAX):
            rows += 1
            if isinstance(row, AudienceError):
                invalid += 1
                if len(errors) < ERRORS_STORED:
                    errors.append([row.line, row.field, row.message])
    except BadInput as error:
        fault = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in error.faults[:5])
    counts = {"rows": rows - invalid, "invalid": invalid, "is_part": rows == CHECK_ROWS_MAX}
    return save(services, replace(draft, file_check={**counts, "errors": errors, "fault": fault}))


def unreadable_rows(services: Services, draft: Draft) -> Iterator[AudienceError]:
    """All rows of the file that cannot be read, as a stream. Raises BadInput where the file as a whole cannot be read."""
    return (row for row in submission_of(services, draft).audience if isinstance(row, AudienceError))


# -- the submission ----------------------------------------------------------------------------------------------------


def obstacles(services: Services, draft: Draft) -> list[str]:
    """What keeps a draft from being submitted, in words; empty where nothing does."""
    found = []
    try:
        templates = [services.catalog[name] for name in check_names(draft.form) if name in services.catalog]
        with lend(services.pool) as connection:
            found += [error.message for error in approval_errors(connection, services.policy, templates)]
        check_form(services, draft.form)
    except BadInput as error:
        found += [f"{each.field}: {each.message}" for each in error.faults]
    check = draft.file_check
    if draft.upload is None:
        found.append("there is no audience yet")
    elif check is None:
        found.append("the columns of the file are not assigned yet")
    elif check["fault"]:
        found.append(f"the file cannot be read: {check['fault']}")
    elif not check["rows"]:
        found.append("no row of the file can be used")
    return found


def awaits_release(services: Services, draft: Draft) -> bool:
    """Whether the campaign will wait until another person has released it."""
    check = draft.file_check or {"rows": 0, "invalid": 0, "is_part": False}
    is_large = check["is_part"] or check["rows"] > services.policy.four_eyes_audience_min
    return bool(draft.form.get("seeds")) or is_large or too_many_invalid(services.policy, check["invalid"], check["rows"])


def submit(services: Services, draft: Draft, by: str) -> SubmitResult:
    """Submit a draft, and delete it once the campaign is accepted; its file stays for the workers, and its dry run with the
    campaign. Raises as `submission.submit` does."""
    result = submission.accept(services, _request(services, draft), by=by, seconds_max=SUBMIT_SECONDS)
    if result.status is not SubmitStatus.CONFLICT:
        with lend(services.pool) as connection, connection.transaction():
            campaign = lifecycle.find(connection, str(draft.form["id"]))
            if campaign is not None and (made := _dry_run_of(draft)) is not None:
                dry_runs.add(connection, campaign.no, made)
            drafts.delete(connection, draft.no)
    return result


def _dry_run_of(draft: Draft) -> StoredDryRun | None:
    """The dry run of a draft; None where there was none, or it was made by a program that did not note its time."""
    counts = dict(draft.dry_run or {})
    if "made_at" not in counts:
        return None
    made_at, policy, templates = (counts.pop(name) for name in ("made_at", "policy", "templates"))
    return StoredDryRun(datetime.fromisoformat(made_at), draft.owner, policy, templates, counts)


def copy_form(spec: Spec, campaign_id: str) -> dict[str, Any]:
    """The form of a new campaign like another one: all but its id, times and audience."""
    defaults = Spec(template="", entity="", channels=(), kind=spec.kind)
    shared = {name: getattr(spec, name) for name in ("entity", "channels") if getattr(spec, name)}
    options = {
        name: getattr(spec, name)
        for name in spec.__dataclass_fields__
        if name not in (*OF_NO_COPY, "template", "variants", "kind", "offer_type", "entity", "channels")
        and getattr(spec, name) != getattr(defaults, name)
    }
    templates: dict[str, Any] = {"variants": dict(spec.variants)} if spec.variants else {"template": spec.template}
    return {"id": campaign_id, **templates, **_as_json(shared), **_as_json(options)}


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}


def start_copy(services: Services, owner: str, spec: Spec, campaign_id: str) -> int:
    """A new draft like another campaign, without its audience; returns its number. It is checked when it is saved or submitted."""
    with lend(services.pool) as connection:
        return drafts.add(connection, owner, copy_form(spec, campaign_id), services.clock())
