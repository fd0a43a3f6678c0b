"""Audiences by URL: fetched whole into the uploads before their campaign is made, so that half a download makes no campaign."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from dispatcher.campaigns import audience_uploads
from dispatcher.campaigns.audience_download import DownloadError, download
from dispatcher.campaigns.audience_uploads import Upload, UploadConflict, UploadRange, UploadTooLarge, UploadWriter
from dispatcher.domain.audience_urls import AudienceUrl, BadAudienceUrl, is_allowed, parse
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.audience_uploads import suffix_of
from dispatcher.intake.campaign import CampaignRequest
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.campaigns import lifecycle, loads
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

SECONDS_MAX = 300.0  # for all attempts; less than the time limit of a Celery task
PAUSES = (1.0, 5.0)  # before the second and the third attempt
WAIT_SECONDS = 0.2  # between looks at an upload that another call is writing
GZIP = b"\x1f\x8b"  # its first two bytes (RFC 1952); no other format of an audience begins so
FIELD = "audience.url"
PREFIX = "url-"  # of the ids of these uploads

log = structlog.get_logger()


def sources(services: Services, by: str, owner: str | None = None) -> AudienceSources:
    """The audiences that a campaign submitted `by` somebody may name; `owner` None: uploads of anybody."""
    return AudienceSources(services.audiences, owner, partial(fetch, services, by))


def check_url(services: Services, text: str) -> AudienceUrl:
    """The URL, if audiences may be fetched from it. Raises `BadInput`, without the URL's path and query."""
    try:
        url = parse(text)
    except BadAudienceUrl as error:
        raise _bad(str(error)) from None
    if not is_allowed(url, services.audience_urls):
        raise _bad(f"{url.place}: not allowed by DISPATCHER_AUDIENCE_URLS")
    return url


def fetch(services: Services, by: str, campaign_id: str, text: str, seconds_max: float = SECONDS_MAX) -> str:
    """The id of the upload that has the content of a URL, for one campaign. Raises `BadInput`.

    A campaign that is known already keeps the content that it was made of, so that a repeated submission is the same. Of two
    calls at once, one fetches and the other waits for it.
    """
    url = check_url(services, text)
    upload_id, until, has_waited = upload_id_of(by, campaign_id, text), time.monotonic() + seconds_max, False
    while True:
        upload = audience_uploads.find(services, upload_id)
        if upload is not None and upload.is_complete and (has_waited or _is_known(services, campaign_id)):
            return upload_id
        try:
            audience_uploads.delete(services, upload_id)
            _Download(services, url, upload_id, by).run(until)
            return upload_id
        except UploadConflict:
            if time.monotonic() > until:
                raise _bad(f"{url.place}: another call is fetching it; try again later") from None
            has_waited = True
            services.sleep(WAIT_SECONDS)


def upload_id_of(by: str, campaign_id: str, url: str) -> str:
    """The id of the upload for a campaign of somebody; it does not show the URL."""
    digest = hashlib.sha256("\0".join((by, campaign_id, url)).encode()).hexdigest()
    return f"{PREFIX}{digest[:32]}"


def discard(services: Services, request: CampaignRequest) -> None:
    """Delete what was fetched for a campaign that is not made, such as that of a dry run."""
    upload_id = Path(request.source.path).parent.name if request.source is not None else ""
    if upload_id.startswith(PREFIX) and not _is_known(services, request.id):
        with suppress(UploadConflict):
            audience_uploads.delete(services, upload_id)


def _is_known(services: Services, campaign_id: str) -> bool:
    """Whether the campaign was made; not one whose file was refused: it is submitted again with another content."""
    with lend(services.pool) as connection:
        load = loads.of_campaign(connection, campaign_id)
        is_stored = lifecycle.submission_of(connection, campaign_id) is not None
    return load.ended != "refused" if load is not None else is_stored


@dataclass
class _Download:
    """The download of one URL into one upload."""

    services: Services
    url: AudienceUrl
    upload_id: str
    by: str
    writer: UploadWriter | None = None

    def run(self, until: float) -> None:
        """Fetch it, with more attempts where a fault may pass. Raises `BadInput`, `UploadConflict`."""
        for pause in (*PAUSES, None):
            try:
                self._attempt(until)
            except DownloadError as error:
                log.warning("audience not fetched", host=self.url.place, upload=self.upload_id, reason=str(error))
                if pause is None or not error.is_transient or time.monotonic() + pause > until:
                    raise _bad(f"{self.url.place}: {error}") from None
                self.services.sleep(pause)
            else:
                return

    def _attempt(self, until: float) -> None:
        """Raises as `run` does, and `DownloadError`. What was not complete is deleted."""
        self.writer = None
        try:
            download(self.url, self._take, until - time.monotonic())
            if self.writer is None:
                raise DownloadError("sent an empty file")
            upload = self.writer.finish()
            if not upload.is_complete:
                raise DownloadError("did not send all of it: answer_cut", is_transient=True)
            log.info("audience fetched", host=self.url.place, upload=self.upload_id, size=upload.size)
        except UploadTooLarge as error:
            raise _bad(f"{self.url.place}: {error}") from None
        except OSError as error:
            raise _bad(f"{self.url.place}: it cannot be stored here: {error.strerror}") from None
        except BadInput as error:
            raise _bad(f"{self.url.place}: {error.faults[0].message}") from None
        finally:
            self._close()

    def _take(self, piece: bytes, media_type: str, length: int | None) -> None:
        if self.writer is None:
            suffix = suffix_of(self.url.file_name, media_type)
            if suffix is None:
                raise DownloadError("the name should end in .jsonl, .csv, .tsv or .xlsx, also with .gz, or its type should say it")
            upload = Upload(self.upload_id, suffix, piece.startswith(GZIP), submitted_by=self.by)
            self.writer = audience_uploads.open_upload(self.services, upload, UploadRange(0, length, length))
        self.writer.write(piece)

    def _close(self) -> None:
        """Let go of the upload; one that is not complete is of no use."""
        if self.writer is None:
            return
        self.writer.close()
        upload = audience_uploads.find(self.services, self.upload_id)
        if upload is None or not upload.is_complete:
            audience_uploads.delete(self.services, self.upload_id)


def _bad(message: str) -> BadInput:
    return BadInput(InputError("campaign", 0, FIELD, message))
