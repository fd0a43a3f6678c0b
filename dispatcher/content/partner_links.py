"""Links to partners in the values of variables, in a form in which equal links are equal texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from dispatcher.content.guard import allowed_parameters
from dispatcher.content.links import as_read, holds_no_link, host_of, is_within, text_links

Partners = Mapping[str, frozenset[str]]  # the host of a partner -> the parameters that may differ in links to it


def partner_links(value: object, partners: Partners) -> tuple[str, ...]:
    """The links to partners in a value, each without the parameters that may differ.

    A value is read as the reader's program reads it, not as it stands: a channel may remove characters. The mere name of a
    host in the policy, such as "train.example", is no link here: it says nothing about the reader.
    """
    if not isinstance(value, str) or not partners or holds_no_link(value):
        return ()
    text = as_read(value).strip()
    is_link = len(text.split()) == 1 and text[:4].lower() == "http" and is_within(host_of(text), partners)
    links = [text] if is_link else text_links(text, partners)
    return tuple(
        without_parameters(link, partners, host)
        for link in links
        if is_within(host := host_of(link), partners) and (is_link or not _is_name_only(link, host, partners))
    )


def _is_name_only(link: str, host: str, partners: Partners) -> bool:
    return host.removeprefix("www.") in partners and link.partition("://")[2].rstrip("/").lower() == host


def without_parameters(link: str, partners: Partners, host: str) -> str:
    """A link to a partner without the parameters that the policy allows there; with its scheme and host in small letters."""
    allowed = allowed_parameters(host, partners)
    parts = urlsplit(link)
    query = "&".join(each for each in parts.query.split("&") if each.partition("=")[0] not in allowed)
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path, query, parts.fragment))
