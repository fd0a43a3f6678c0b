"""Links to partners in the values of variables, in a form in which equal links are equal texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from dispatcher.content.guard import allowed_parameters, host_of, is_within, links_in

Partners = Mapping[str, frozenset[str]]  # the host of a partner -> the parameters that may differ in links to it


def partner_links(value: object, partners: Partners) -> tuple[str, ...]:
    """The links to partners in a value, each without the parameters that may differ."""
    if not isinstance(value, str) or "://" not in value or not partners:
        return ()
    text = value.strip()
    links = [text] if len(text.split()) == 1 and text[:4].lower() == "http" else links_in(text)
    return tuple(without_parameters(link, partners, host) for link in links if is_within(host := host_of(link), partners))


def without_parameters(link: str, partners: Partners, host: str) -> str:
    """A link to a partner without the parameters that the policy allows there; with its scheme and host in small letters."""
    allowed = allowed_parameters(host, partners)
    parts = urlsplit(link)
    query = "&".join(each for each in parts.query.split("&") if each.partition("=")[0] not in allowed)
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path, query, parts.fragment))
