"""ETags: the version of a resource, for `If-Match`."""

from __future__ import annotations


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"{version}"'


def expected_version(if_match: str | None) -> int | None:
    """The expected version; None for any. An ETag that is not ours gives -1, which matches nothing."""
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().strip('"')
    return int(tag) if tag.isascii() and tag.isdigit() and len(tag) <= 18 and if_match.strip() == etag(int(tag)) else -1
