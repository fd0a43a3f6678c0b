"""Audiences that a form names as `{"upload": ID}` or `{"url": URL}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from dispatcher.domain.audience_urls import LENGTH_MAX
from dispatcher.intake.audience import Id
from dispatcher.intake.audience_uploads import path_of
from dispatcher.intake.errors import BadInput, InputError, StrictModel, validate


class UploadReference(StrictModel):
    """An audience that was uploaded before, by its id."""

    upload: Id


class UrlReference(StrictModel):
    """An audience that is fetched when the campaign is submitted, from where `DISPATCHER_AUDIENCE_URLS` allows."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=LENGTH_MAX)]


@dataclass(frozen=True, slots=True)
class AudienceSources:
    """Where audiences that a form names come from. `caller` may use uploads of its own and those without an owner; None, all.

    `fetch` gets the id of a campaign and a URL, and returns the id of the upload with the content; None: no URL can be named.
    """

    folder: Path
    caller: str | None = None
    fetch: Callable[[str, str], str] | None = None


def read_reference(named: Mapping[str, Any], file: str, line: int) -> UploadReference | UrlReference:
    """The reference in a form. Raises BadInput."""
    try:
        return validate(UrlReference, named, file) if "url" in named else validate(UploadReference, named, file)
    except BadInput as error:
        raise BadInput(*(replace(each, line=line, field=f"audience.{each.field}".rstrip(".")) for each in error.faults)) from None


def referenced_file(
    reference: UploadReference | UrlReference, campaign_id: str, sources: AudienceSources | None, file: str
) -> Path:
    """The file with the audience; a URL is fetched. Raises BadInput."""
    if sources is None:
        raise BadInput(InputError(file, 0, "audience", "cannot be named here: this process has no folder of uploads"))
    if isinstance(reference, UploadReference):
        return path_of(sources.folder, reference.upload, sources.caller)
    if sources.fetch is None:
        raise BadInput(InputError(file, 0, "audience.url", "cannot be used here"))
    return path_of(sources.folder, sources.fetch(campaign_id, reference.url), sources.caller)
