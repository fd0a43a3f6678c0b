"""The links in a text, with and without a scheme, and the hosts that they name. Pure.

Mail programs and telephones make a link of more than `https://…`: of `www.train.example`, and of `train.example/r` where they know
the top-level domain. They also do not show some characters, and read full-width letters and dots as plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import lru_cache
from unicodedata import category, is_normalized, normalize
from urllib.parse import urlsplit

# Characters outside GSM-7: a single one in an SMS reduces a segment from 160 characters to 70.
_SMS_REPLACEMENTS = {
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "„": '"',
    "–": "-",
    "—": "-",
    "…": "...",
    "\u2011": "-",
    # Not seen, and each would force the short alphabet on the whole text. The joiners U+200C and U+200D change what is shown.
    "\u00ad": "",
    "\u200b": "",
    "\u2060": "",
    "\ufeff": "",
    # The spelling of 1990 has no circumflex here (Académie française, rectifications); the law's sentence has it.
    "û": "u",
}
_SMS_REPLACED = re.compile(f"[{''.join(_SMS_REPLACEMENTS)}]")
# Characters that are not shown and that `isprintable` does not tell: joiners, fillers and variation selectors.
_UNSEEN = ("\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u180b", "\u180c", "\u180d", *map(chr, range(0xFE00, 0xFE10)))
_UNSEEN_CLASS = re.compile(f"[{''.join(_UNSEEN)}]")
# A pattern, because `str.translate` looks up each character of a text.
_NOT_SHOWN = re.compile(f"[{''.join((*_UNSEEN, *(each for each in map(chr, range(0x10000)) if category(each) == 'Cf')))}]")
# What IDNA reads as a dot, and what texts hold that would otherwise be normalised for each message.
_READ_AS = (("\u3002", "."), ("\uff61", "."), ("\u00a0", " "), ("\u202f", " "), ("\u2009", " "), ("…", "..."))
_READ_AS_IN_SMS = tuple((old, new) for old, new in _SMS_REPLACEMENTS.items() if new in ("-", "u"))

_AFTER_SCHEME = re.compile(r"://[^\s<>\"']+")  # begins with fixed characters: ten times as fast as a pattern for the scheme
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::[0-9]+)?(?=[/?#]|\Z)", re.IGNORECASE)
_HOST = re.compile(r"[\w-]+(?:\.[\w-]+)*|[0-9a-f:.]+")
_PUNCTUATION = ".,;:!?)"  # after a link in a text: mail clients and telephones leave it out

_DOT = re.compile(r"\.(?=[^\W_])")  # begins with a fixed character, too
_BARE = re.compile(r"(?P<host>[\w-]+(?:\.[\w-]+)+)\.?(?P<rest>(?::[0-9]+)?[/?#\\][^\s<>\"']*|:[0-9]+)?")
# Every link has one; "9.000" and "10. Mai" have none. Begins with a set of characters, too.
_LINK_START = re.compile(r"[.:/\\](?:(?<!\.)(?=\S)|(?=[^\W\d_])|(?<=www\.))", re.IGNORECASE)
# What is not among these may be read as another character: `as_read` turns none of these into a part of a link.
_UNUSUAL = re.compile("[^\n -~\u00a0-\u00ac\u00ae-\u00ff\u0152\u0153\u2009\u2013\u2014\u2018\u2019\u201c-\u201e\u202f\u20ac]")
_SLASHES = frozenset({"//", ":/", "\\\\", ":\\"})  # after any scheme, or none; browsers also take one, or the other kind
# Besides all of two letters. Programs that make links of bare names know these.
_TOP_LEVEL_DOMAINS = frozenset(
    {
        *("com", "net", "org", "info", "biz", "int", "edu", "gov", "name", "pro", "mobi", "travel", "museum", "example"),
        *("app", "dev", "page", "web", "site", "online", "shop", "store", "tech", "cloud", "link", "click", "live", "news"),
        *("xyz", "top", "club", "vip", "win", "fun", "icu", "one", "world", "today", "space", "website", "email", "support"),
        *("bank", "insure", "help", "blog", "group", "gmbh", "immo", "brussels", "vlaanderen", "gent", "amsterdam", "paris"),
        *("berlin", "koeln", "hamburg", "london"),
    }
)


def gsm_typography(text: str) -> str:
    """A text as an SMS has it: with GSM-7's blanks, quotation marks and dashes, and without characters that nobody sees."""
    return text if text.isascii() else _SMS_REPLACED.sub(lambda match: _SMS_REPLACEMENTS[match[0]], text)


def as_read(text: str) -> str:
    """A text as programs that look for links read it, whatever the channel removes or replaces."""
    if text.isascii():
        return text
    for old, new in (*_READ_AS, *_READ_AS_IN_SMS):
        text = text.replace(old, new)
    if not text.replace("\n", "").isprintable() or _UNSEEN_CLASS.search(text):
        text = _NOT_SHOWN.sub("", text)
    return text if is_normalized("NFKC", text) else normalize("NFKC", text)


# -- hosts -------------------------------------------------------------------------------------------------------------


def host_of(link: str) -> str:
    """The host that an address names, "" where it names none."""
    plain = _ORIGIN.match(link)
    return _host(plain[0] if plain else link)


@lru_cache(maxsize=256)  # many links, few hosts
def _host(link: str) -> str:
    """The host as browsers find it, which take "\\" for "/" (WHATWG URL Standard): `https://a.example\\@b.example` leads to a."""
    try:
        parts = urlsplit(link.replace("\\", "/"))
    except ValueError:
        return ""
    host = (parts.hostname or "").rstrip(".")  # with a dot at its end it is the same host
    return host if "@" not in parts.netloc and _HOST.fullmatch(host) else ""  # a name before "@" only disguises the host


def is_within(host: str, domains: Container[str]) -> bool:
    """Whether a host is one of the domains, or lies in one."""
    while host:
        if host in domains:
            return True
        host = host.partition(".")[2]
    return False


# -- links -------------------------------------------------------------------------------------------------------------


def links_in(text: str) -> list[str]:
    """The http and https links in a text, whatever the case of their scheme, without punctuation after them."""
    return [link for _, _, link in _with_scheme(as_read(text))]


def text_links(text: str, *known: Container[str]) -> list[str]:
    """All links in a text. One without a scheme is given as an https link; so is one with a scheme that is neither http nor https.

    A name with dots is a link where it is within a `known` host, begins with "www.", follows slashes, or ends in a top-level domain
    and has a path.
    """
    if holds_no_link(text):
        return []
    text = as_read(text)
    links = list(_with_scheme(text))
    found = [link for _, _, link in links]
    for start, match in _names(text, [(begin, end) for begin, end, _ in links]):
        host, rest = match["host"].lower(), (match["rest"] or "").replace("\\", "/").rstrip(_PUNCTUATION)
        before = text[max(0, start - 2) : start]
        if before.endswith("@") and not rest:
            continue  # an e-mail address
        if (
            host.startswith("www.")
            or before in _SLASHES
            or (rest and has_top_level_domain(host))
            or any(is_within(host, each) for each in known)
        ):
            found.append(f"https://{host}{rest}")
    return found


def holds_no_link(text: str) -> bool:
    """Whether a text surely has no link: a cheap look at texts as most are, which each message has several of."""
    return not _LINK_START.search(text) and (text.isascii() or not _UNUSUAL.search(text))


def words_with_links(text: str) -> Iterator[str]:
    """The words, divided by spaces, that together hold all links of a text. Some of them may hold none."""
    if not text.isascii() and _UNUSUAL.search(text):
        yield from text.split(" ")
        return
    end = 0
    while match := _LINK_START.search(text, end):
        start = text.rfind(" ", end, match.start()) + 1
        end = text.find(" ", match.start())
        end = len(text) if end < 0 else end
        yield text[start:end]


def may_name_host(text: str) -> bool:
    """Whether a text could hold a link: cheap, and true for some that hold none."""
    return "." in text or "/" in text or not text.isascii()


def names_in(text: str) -> Iterator[str]:
    """Every name with dots in a text that could be a host, in small letters."""
    return (match["host"].lower() for _, match in _names(as_read(text), []))


def has_top_level_domain(host: str) -> bool:
    """Whether programs that make links of bare names may know the end of this one."""
    last = host.rpartition(".")[2]
    return (len(last) == 2 and last.isalpha()) or last in _TOP_LEVEL_DOMAINS or last.startswith("xn--") or not last.isascii()


def _with_scheme(text: str) -> Iterator[tuple[int, int, str]]:
    """The http and https links, each with its begin and end."""
    for match in _AFTER_SCHEME.finditer(text):
        start, end = match.span()
        scheme = text[max(0, start - 5) : start].lower()
        if scheme.endswith("http") or scheme == "https":
            begin = start - (5 if scheme == "https" else 4)
            yield begin, end, text[begin:end].rstrip(_PUNCTUATION)


def _names(text: str, outside: list[tuple[int, int]]) -> Iterator[tuple[int, re.Match[str]]]:
    """The names with dots that do not stand in one of these parts, each with its begin and what follows it."""
    end = 0
    for dot in _DOT.finditer(text):
        start = dot.start()
        if start < end or any(begin <= start < stop for begin, stop in outside):
            continue
        while start > end and (text[start - 1].isalnum() or text[start - 1] in "-_"):
            start -= 1
        match = _BARE.match(text, start)
        if match is not None:
            end = match.end()
            yield start, match
