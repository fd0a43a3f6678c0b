"""Read an audience from an https URL or from object storage, piece by piece, completely or with an error.

An https host is called as a webhook endpoint is: at the addresses that were checked, without redirects, without a proxy. It is on
the allow-list, so it may be private: https, and a certificate of its name, keep a changed DNS entry from leading elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pycurl

from channels.http import ERROR_CODES, HttpResponse
from dispatcher.domain.audience_urls import HTTPS, AudienceUrl
from dispatcher.events.webhook_address import AddressRefused, BadWebhookUrl, Resolve, addresses, parse_url, system_addresses
from dispatcher.events.webhook_request import pinned_options

PIECE_BYTES = 1024 * 1024
IDLE_SECONDS_MAX = 20  # without a byte; then the source counts as gone
OK = 200
PAGE = "text/html"
HTTP_1 = b"HTTP/1"  # later versions mark the end of each answer

Take = Callable[[bytes, str, int | None], None]  # a piece, the media type, and the whole length where it is known


class DownloadError(Exception):
    """The audience cannot be read. The text follows the name of the host, and has no part of the URL.

    `is_transient`: another attempt may succeed.
    """

    def __init__(self, message: str, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


def download(url: AudienceUrl, take: Take, seconds_max: float, resolve: Resolve = system_addresses) -> None:
    """Give all bytes to `take`, in order. Raises `DownloadError`, also for a file that was cut, and what `take` raises."""
    if url.scheme == HTTPS:
        _Request(take).get(url, seconds_max, resolve)
    else:
        _read_object(url, take, seconds_max)


# -- https -------------------------------------------------------------------------------------------------------------


class _Request:
    """One GET."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._head: list[bytes] = []
        self._error: BaseException | None = None

    def get(self, url: AudienceUrl, seconds_max: float, resolve: Resolve) -> None:
        """Perform it. Raises `DownloadError`, and what `take` raises."""
        curl = pycurl.Curl()
        try:
            self._configure(curl, url, seconds_max, resolve)
            curl.perform()
        except (AddressRefused, BadWebhookUrl):
            raise DownloadError("has no address that may be called") from None
        except (OSError, UnicodeError):
            raise DownloadError("has no address: DNS does not know it", is_transient=True) from None
        except pycurl.error as error:
            if self._error is not None:
                raise self._error from None
            code = ERROR_CODES.get(error.args[0], f"curl_{error.args[0]}")
            raise DownloadError(f"did not send all of it: {code}", code not in {"certificate", "tls"}) from None
        finally:
            curl.close()
        self._check_status()

    def _configure(self, curl: Any, url: AudienceUrl, seconds_max: float, resolve: Resolve) -> None:
        checked = parse_url(url.text, _hosts(url))
        options = pinned_options(checked, addresses(checked, resolve)) | {
            pycurl.PROTOCOLS: pycurl.PROTO_HTTPS,
            pycurl.TIMEOUT_MS: max(1, int(seconds_max * 1000)),
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: IDLE_SECONDS_MAX,
            pycurl.HEADERFUNCTION: self._head.append,
            pycurl.WRITEFUNCTION: self._write,
        }
        for option, value in options.items():
            curl.setopt(option, value)

    def _write(self, data: bytes) -> int:
        """Take a piece; any other number than its length ends the call."""
        try:
            version = self._check_status()
            response = HttpResponse(OK, tuple(self._head))
            length = response.header("content-length") or ""
            media_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
            if media_type == PAGE:
                raise DownloadError(f"answered with a page ({PAGE}), which is no audience")
            is_chunked = (response.header("transfer-encoding") or "").lower().endswith("chunked")
            if version.startswith(HTTP_1) and not length and not is_chunked:
                raise DownloadError("does not say how long the file is: one that was cut could not be told from it")
            self._take(data, media_type, int(length) if length.isdigit() else None)
        except BaseException as error:  # pycurl would print it and go on without it
            self._error = error
            return 0
        return len(data)

    def _check_status(self) -> bytes:
        """The version of HTTP of the final answer. Raises `DownloadError` where it is no file."""
        line = next((line for line in reversed(self._head) if line.startswith(b"HTTP/")), b"HTTP/0 0")
        version, status = line.split()[0], int(line.split()[1])
        if 300 <= status < 400:
            raise DownloadError(f"answered {status}, a redirect, which is not followed: name the final URL")
        if status != OK:
            raise DownloadError(f"answered {status}", status >= 500 or status in (408, 429))
        return version


def _hosts(url: AudienceUrl) -> set[str]:
    """The host, as one that may be private: it is on the allow-list."""
    host = url.place.rpartition(":")[0] if url.place.rpartition(":")[2].isdigit() else url.place
    return {host.strip("[]")}


# -- object storage ----------------------------------------------------------------------------------------------------


def _read_object(url: AudienceUrl, take: Take, seconds_max: float) -> None:
    """Read a file of a file system that fsspec knows; its libraries have their own timeouts."""
    until, received = time.monotonic() + seconds_max, 0
    with _errors():
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url.text, use_listings_cache=False)
        about = files.info(path)
        file = files.open(path, "rb")
    if about.get("type", "file") != "file":
        raise DownloadError("has a folder there and not a file")
    try:
        while True:
            with _errors():
                piece = file.read(PIECE_BYTES)
            if not piece:
                break
            received += len(piece)
            take(piece, "", about.get("size"))
            if time.monotonic() > until:
                raise DownloadError("did not send all of it: timeout", is_transient=True)
    finally:
        with _errors():
            file.close()
    if about.get("size") not in (None, received):
        raise DownloadError("did not send all of it: answer_cut", is_transient=True)


@contextmanager
def _errors() -> Iterator[None]:
    """Each file system of fsspec raises errors of its own libraries; their texts can name keys."""
    try:
        yield
    except FileNotFoundError:
        raise DownloadError("has no such file") from None
    except Exception as error:
        raise DownloadError(f"cannot be read: {type(error).__name__}", is_transient=True) from None
