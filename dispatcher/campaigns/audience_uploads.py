"""Uploaded audiences: the folder and the limits of this process, and deletion that no load notices."""

from __future__ import annotations

from dispatcher.intake import audience_uploads
from dispatcher.intake.audience_uploads import Upload, UploadConflict, UploadRange, UploadStore, UploadTooLarge, UploadWriter
from dispatcher.ledger.campaigns import loads
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

__all__ = [
    "ID",
    "Upload",
    "UploadConflict",
    "UploadRange",
    "UploadTooLarge",
    "UploadWriter",
    "delete",
    "every",
    "find",
    "is_id",
    "open_upload",
]

is_id = audience_uploads.is_id
ID = audience_uploads.ID


def open_upload(services: Services, upload: Upload, part: UploadRange) -> UploadWriter:
    """Begin an upload, or go on with it. Raises `UploadConflict`, `UploadTooLarge`, and OSError, such as for a full disk."""
    limits = services.upload_limits
    return UploadStore(services.audiences, limits.bytes_max, limits.ratio_max).open(upload, part)


def find(services: Services, upload_id: str) -> Upload | None:
    """The upload of this id."""
    return audience_uploads.find(services.audiences, upload_id)


def every(services: Services) -> list[Upload]:
    """All uploads, by id."""
    return audience_uploads.every(services.audiences)


def delete(services: Services, upload_id: str) -> bool:
    """Delete an upload; False where there is none. Raises `UploadConflict` while a call writes it or a campaign loads from it."""
    upload = find(services, upload_id)
    if upload is not None and upload.is_complete:
        path = audience_uploads.path_of(services.audiences, upload_id)
        with lend(services.pool) as connection:
            campaign_id = loads.loading_from(connection, str(path.absolute()))
        if campaign_id is not None:
            raise UploadConflict(f"campaign {campaign_id} is loading from it")
    return audience_uploads.delete(services.audiences, upload_id)
