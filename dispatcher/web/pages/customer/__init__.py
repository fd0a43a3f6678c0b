"""The customers' pages and their texts: one TOML file per language, four templates, one style sheet. Pure once loaded."""

from __future__ import annotations

import hashlib
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from babel.dates import format_date
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from dispatcher.domain.recipient import LANGUAGES, Language

_HERE = files(__package__)
_TEMPLATES = ("base.html", "unsubscribe.html", "done.html", "preferences.html", "notice.html")
_STYLE = _HERE.joinpath("style.css").read_text(encoding="utf-8")

TEXTS: Mapping[Language, Mapping[str, Any]] = {
    language: tomllib.loads(_HERE.joinpath(f"{language}.toml").read_text(encoding="utf-8")) for language in LANGUAGES
}

# A page is one response: it contains its style, which the header allows by its hash. Scripts and everything else are forbidden.
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the URL contains the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


def page(name: str, language: Language, **context: Any) -> str:
    """The page `<name>.html` in a language; `t` is that language's texts."""
    return _PAGES.get_template(f"{name}.html").render(
        t=TEXTS[language], language=language, languages={code: TEXTS[code]["language"] for code in LANGUAGES}, **context
    )


def text_version(language: Language, where: str) -> str:
    """The version of the text that the person saw, for a consent event, such as "preferences 1 nl"."""
    return f"{where} {TEXTS[language]['version']} {language}"


def fill(text: str, **values: object) -> str:
    """A text with its placeholders filled."""
    return text.format_map(values)


def _around(text: str, **values: object) -> Markup:
    """As `fill`, around values that may be HTML of the template."""
    return escape(text).format_map(values)


def day(moment: datetime, language: Language, zone: str) -> str:
    """The day of a moment in a zone, in words."""
    return calendar_day(moment.astimezone(ZoneInfo(zone)).date(), language)


def calendar_day(value: date, language: Language) -> str:
    """A day in words."""
    locale = "en_GB" if language == "en" else language  # the day comes first
    return format_date(value, "long", locale=locale)


def _environment() -> Environment:
    loader = DictLoader({name: _HERE.joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATES})
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(fill=fill, around=_around, day=day, calendar_day=calendar_day)
    environment.globals["style"] = Markup(_STYLE)  # noqa: S704  our own file, whose hash the header allows
    return environment


_PAGES = _environment()
