"""Uploaded audiences as plain data."""

from __future__ import annotations

from typing import Any

from dispatcher.campaigns.audience_uploads import Upload
from dispatcher.web.serializers.times import moment


def upload_view(upload: Upload) -> dict[str, Any]:
    """An uploaded audience. `sha256` is that of the bytes as they were sent, `size` counts the unpacked ones."""
    return {
        "id": upload.id,
        "format": upload.suffix.removeprefix("."),
        "gzip": upload.is_gzip,
        "complete": upload.is_complete,
        "received": upload.received,
        "total": upload.total,
        "sha256": upload.sha256,
        "size": upload.size,
        "changed_at": moment(upload.at),
    }
