"""URLs from which audiences may be fetched: those under a prefix of `DISPATCHER_AUDIENCE_URLS`. Pure: standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

HTTPS = "https"
# `file` would read any file of the machine; the clients of the others follow redirects, or send passwords and rows in the clear.
REFUSED_SCHEMES = frozenset({"file", "local", "http", "ftp", "sftp", "ssh", "smb", "dir", "data", "cached", "github", "git"})
LENGTH_MAX = 2_000
_SHAPE = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?]+)(/[^?]*)?(\?.*)?")
_FORBIDDEN = re.compile(r"[\s\\@#\x00-\x1f\x7f-\U0010ffff]|::")  # a user and password, a fragment, a chain of fsspec
_TWO_READINGS = re.compile(r"%(2e|2f|5c)", re.IGNORECASE)  # servers decode these before or after they look at the path


class BadAudienceUrl(ValueError):
    """The URL cannot be used; the text says why and has no part of it but the scheme."""


@dataclass(frozen=True, slots=True)
class AudienceUrl:
    """A URL in its parts. `place` is its host with the port, or its bucket: all of it that errors and logs may show."""

    text: str
    scheme: str
    place: str
    path: str

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    def is_under(self, prefix: AudienceUrl) -> bool:
        """Whether it is the file, or lies in the folder, of an allowed prefix."""
        folder = prefix.path.rstrip("/") + "/"
        is_same_place = (self.scheme, self.place) == (prefix.scheme, prefix.place)
        return is_same_place and (self.path == prefix.path or self.path.startswith(folder))


def parse(text: str) -> AudienceUrl:
    """The parts of a URL. Raises `BadAudienceUrl` also for one that two programs could read in two ways."""
    if len(text) > LENGTH_MAX:
        raise BadAudienceUrl(f"has {len(text)} characters: {LENGTH_MAX} are allowed")
    if _FORBIDDEN.search(text):
        raise BadAudienceUrl("must not hold a user or password, a fragment, blanks, :: or letters outside ASCII")
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise BadAudienceUrl("must be like https://files.example.com/lists/spring.csv or s3://bucket/spring.csv")
    scheme, place, path, _ = match.groups(default="")
    if scheme in REFUSED_SCHEMES:
        raise BadAudienceUrl(f"must begin with https:// or the name of an object storage such as s3://, not with {scheme}://")
    if _TWO_READINGS.search(path) or not {".", ".."}.isdisjoint(path.split("/")):
        raise BadAudienceUrl("must have no . or .. in its path, nor an encoded dot or slash")
    return AudienceUrl(text, scheme, _host(place) if scheme == HTTPS else place, path or "/")


def _host(place: str) -> str:
    """Host and port of an https URL, in lower case; the default port is left out."""
    try:
        parts = urlsplit(f"{HTTPS}://{place}")
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        raise BadAudienceUrl("must have a host, and a port from 1 to 65535") from None
    if not host:
        raise BadAudienceUrl("must have a host")
    shown = f"[{host}]" if ":" in host else host
    return shown if port == 443 else f"{shown}:{port}"


def parse_prefix(text: str) -> AudienceUrl:
    """A prefix of the setting. Raises `BadAudienceUrl`."""
    if "?" in text:
        raise BadAudienceUrl("must have no query")
    return parse(text)


def is_allowed(url: AudienceUrl, prefixes: Iterable[AudienceUrl]) -> bool:
    """Whether audiences may be fetched from it."""
    return any(map(url.is_under, prefixes))
