"""Responses about uploaded audiences, and the faults of their rows."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel


class AudienceErrorBody(BaseModel):
    """A row of an audience that could not be read."""

    line: int
    field: str
    message: str


class UploadBody(BaseModel):
    """An uploaded audience. Until it is `complete`, the next part starts at the byte `received`.

    `sha256` is that of the bytes as they were sent; `size` counts the unpacked ones.
    """

    id: str
    format: str
    gzip: bool
    complete: bool
    received: int
    total: int | None
    sha256: str | None
    size: int | None
    changed_at: AwareDatetime | None


class UploadList(BaseModel):
    """All uploaded audiences, by id."""

    audiences: list[UploadBody]
