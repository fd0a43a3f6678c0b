"""`_shared/themes/<entity>.toml`: how the mails of an entity look, and who they say it is.

A theme is data, so that whoever keeps the brand edits it and whoever answers for the imprint signs it. It stands with the templates
and not in the policy: an approval of a template then covers the colours, the logo and the imprint that its readers see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from dispatcher.content import toml
from dispatcher.content.errors import TemplateError
from dispatcher.content.mail_html import link_is_allowed
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean

THEMES = "_shared/themes/"
SCHEMES = ("light", "dark")
LOGO_PIXELS_MAX = 600  # the width of a mail

# The colours of a theme without an entity's own: sober, and readable in both schemes.
_NEUTRAL: Mapping[str, Mapping[str, str]] = {
    "light": {
        "page": "#f0f2f4",  # around the sheet
        "card": "#ffffff",  # the sheet
        "soft": "#e8edf1",  # a box on the sheet
        "ink": "#1c2b36",
        "heading": "#1c2b36",
        "muted": "#4a5d6c",
        "link": "#1f5673",
        "rule": "#cfd7de",  # lines between facts: decoration
        "header": "#2b3a45",
        "header_ink": "#ffffff",
        "header_muted": "#d7dee4",
        "accent": "#7f93a3",  # the strip below the header: decoration
        "button": "#1f5673",
        "button_ink": "#ffffff",
        "notice": "#fff8e1",  # the box of a warning that the law requires
        "notice_ink": "#3d2f00",
        "notice_edge": "#8f6b00",
    },
    "dark": {
        "page": "#12181d",
        "card": "#1c252c",
        "soft": "#27333c",
        "ink": "#f2f5f7",
        "heading": "#f2f5f7",
        "muted": "#b9c5ce",
        "link": "#8ecae6",
        "rule": "#42525e",
        "header": "#2b3a45",
        "header_ink": "#ffffff",
        "header_muted": "#d7dee4",
        "accent": "#7f93a3",
        "button": "#8ecae6",
        "button_ink": "#10202a",
        "notice": "#3a3316",
        "notice_ink": "#fff3c9",
        "notice_edge": "#d9b441",
    },
}
COLOURS = tuple(_NEUTRAL["light"])
NAMES = frozenset(  # what texts may use of a theme, as `theme.<name>`
    {*COLOURS, *(f"dark_{colour}" for colour in COLOURS), "logo_url", "logo_width", "logo_height", "logo_alt", "footer"}
)

# WCAG 2.2: text has a contrast of 4.5 (1.4.3); parts of the interface and large text have 3 (1.4.11, 1.4.3).
CONTRASTS: tuple[tuple[str, str, float], ...] = (
    *((text, ground, 4.5) for text in ("ink", "heading", "muted", "link") for ground in ("page", "card", "soft")),
    ("header_ink", "header", 4.5),
    ("header_muted", "header", 4.5),
    ("button_ink", "button", 4.5),
    ("notice_ink", "notice", 4.5),
    ("button", "card", 3),
    ("notice_edge", "card", 3),
)
_HEX = re.compile(r"#[0-9a-f]{6}\Z")
_KEYS = ("signed", "logo", *SCHEMES, "imprint", "footer")
_LOGO_KEYS = ("url", "alt", "width", "height")


@dataclass(frozen=True, slots=True)
class Theme:
    """The look of one entity. `colours` is by name, those of the dark scheme with `dark_` before it; `logo_size` is
    width and height in pixels; the other texts are by language, none where the entity has none."""

    colours: Mapping[str, str] = field(
        default_factory=lambda: {
            **_NEUTRAL["light"],
            **{f"dark_{name}": colour for name, colour in _NEUTRAL["dark"].items()},
        }
    )
    logo_size: tuple[int, int] = (0, 0)
    logo_url: Mapping[Language, str] = field(default_factory=dict)
    logo_alt: Mapping[Language, str] = field(default_factory=dict)
    imprint: Mapping[Language, str] = field(default_factory=dict)
    footer: Mapping[Language, str] = field(default_factory=dict)

    def values(self, language: Language) -> dict[str, str]:
        """The values of NAMES in this language."""
        texts = {"logo_url": self.logo_url, "logo_alt": self.logo_alt, "footer": self.footer}
        width, height = map(str, self.logo_size)
        return {
            **self.colours,
            "logo_width": width,
            "logo_height": height,
            **{name: by_language.get(language, "") for name, by_language in texts.items()},
        }


NEUTRAL = Theme()


def read_themes(files: Mapping[str, str]) -> tuple[dict[str, Theme], list[TemplateError]]:
    """The themes among `files`, by entity, with their faults."""
    themes: dict[str, Theme] = {}
    faults: list[TemplateError] = []
    for file in sorted(name for name in files if name.startswith(THEMES) and name.endswith(".toml")):
        document = toml.read(file, files[file])
        if isinstance(document, TemplateError):
            faults.append(document)
            continue
        found = list(_faults(document))
        faults += found
        if not found:
            themes[file.removeprefix(THEMES).removesuffix(".toml")] = _theme(document.data)
    return themes, faults


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours such as "#003768", from 1 to 21 (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    shares = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _theme(data: Mapping[str, Any]) -> Theme:
    logo = data.get("logo", {})
    return Theme(
        colours={**data["light"], **{f"dark_{name}": colour for name, colour in data["dark"].items()}},
        logo_size=(logo.get("width", 0), logo.get("height", 0)),
        logo_url=_urls(logo["url"]) if logo else {},
        logo_alt=logo.get("alt", {}),
        imprint=data["imprint"],
        footer=data.get("footer", {}),
    )


def _faults(document: toml.Document) -> Iterator[TemplateError]:
    data = document.data
    for key in data:
        if key not in _KEYS:
            yield document.fault((key,), "", f"unknown key{did_you_mean(key, _KEYS)}")
    signed = data.get("signed")
    if not isinstance(signed, Mapping) or not isinstance(signed.get("by"), str) or type(signed.get("on")) is not date:
        yield document.fault(("signed",), "", "needs `by`, who answers for this theme and its imprint, and `on`, a date")
    for scheme in SCHEMES:
        yield from _colour_faults(document, scheme)
    if "logo" in data:
        yield from _logo_faults(document, data["logo"])
    yield from _language_faults(document, ("imprint",), data.get("imprint"))
    if "footer" in data:
        yield from _language_faults(document, ("footer",), data["footer"])


def _colour_faults(document: toml.Document, scheme: str) -> Iterator[TemplateError]:
    colours = document.data.get(scheme)
    if not isinstance(colours, Mapping):
        yield document.fault((scheme,), "", f"needs a colour for each of {', '.join(COLOURS)}")
        return
    faulty = False
    for name in (*COLOURS, *colours):
        value = colours.get(name)
        if name not in COLOURS:
            yield document.fault((scheme, name), "", f"unknown key{did_you_mean(name, COLOURS)}")
        elif not isinstance(value, str) or not _HEX.match(value):
            faulty = True
            yield document.fault((scheme, name), "" if value is None else value, "must be a colour such as #003768")
    for text, ground, least in CONTRASTS if not faulty else ():
        ratio = contrast(colours[text], colours[ground])
        if ratio < least:
            message = f"has a contrast of {ratio:.2f} on {ground} {colours[ground]}; WCAG 2.2 AA demands {least}"
            yield document.fault((scheme, text), colours[text], message)


def _logo_faults(document: toml.Document, logo: object) -> Iterator[TemplateError]:
    if not isinstance(logo, Mapping):
        yield document.fault(("logo",), "", "must be a table")
        return
    for key in logo:
        if key not in _LOGO_KEYS:
            yield document.fault(("logo", key), "", f"unknown key{did_you_mean(key, _LOGO_KEYS)}")
    urls = _urls(logo.get("url"))
    for url in urls.values():
        if not isinstance(url, str) or not link_is_allowed(url, True) or "?" in url or "#" in url:
            # Many mail clients show no data: URI, and a query could tell who opened the mail.
            yield document.fault(("logo", "url"), "" if url is None else url, "must be an https address without a query")
    if set(urls) != set(LANGUAGES):
        yield document.fault(("logo", "url"), "", f"must be one address, or one for each of {', '.join(LANGUAGES)}")
    for key in ("width", "height"):
        value = logo.get(key)
        if type(value) is not int or not 0 < value <= LOGO_PIXELS_MAX:
            yield document.fault(("logo", key), "" if value is None else value, f"must be pixels from 1 to {LOGO_PIXELS_MAX}")
    yield from _language_faults(document, ("logo", "alt"), logo.get("alt"))


def _urls(url: Any) -> Mapping[Language, Any]:
    """The address by language: a logo with words may differ."""
    return url if isinstance(url, Mapping) else dict.fromkeys(LANGUAGES, url)


def _language_faults(document: toml.Document, path: tuple[str, ...], texts: object) -> Iterator[TemplateError]:
    found: Mapping[str, object] = texts if isinstance(texts, Mapping) else {}
    if set(found) != set(LANGUAGES) or not all(isinstance(text, str) and text.strip() for text in found.values()):
        yield document.fault(path, "", f"needs a text for each of {', '.join(LANGUAGES)} and no others")
