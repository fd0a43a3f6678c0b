"""How a page is shown to the person who reads it: the language, and the time zone of its times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from dispatcher.domain.recipient import Language


@dataclass(frozen=True, slots=True)
class Viewer:
    """The language and the time zone of a reader."""

    language: Language = "en"
    zone: str = "UTC"

    def local(self, at: datetime) -> datetime:
        """A moment on the reader's clock."""
        return at.astimezone(ZoneInfo(self.zone))


# Set while a page is rendered: filters in imported macros have no access to the values of the page.
_VIEWER: ContextVar[Viewer] = ContextVar("viewer", default=Viewer())  # noqa: B039  frozen
_UTC_MOMENT = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) UTC\b")


@contextmanager
def rendering_for(viewer: Viewer) -> Iterator[None]:
    """Let filters know for whom a page is rendered."""
    token = _VIEWER.set(viewer)
    try:
        yield
    finally:
        _VIEWER.reset(token)


def present_viewer() -> Viewer:
    """For whom a page is rendered now."""
    return _VIEWER.get()


def when(at: datetime | None, shape: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment on the reader's clock, as HTML that says the UTC time, too: on hover, and to programs."""
    return time_element(at, present_viewer().local(at).strftime(shape)) if at else "–"


def stated(text: str | None, shape: str = "%Y-%m-%d %H:%M") -> str:
    """As `when`, for a moment in ISO 8601, as records for export state it."""
    return when(datetime.fromisoformat(text), shape) if text else "–"


def time_element(at: datetime, text: str) -> Markup:
    """A text that stands for a moment, such as an age: HTML with the moment itself."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(utc.isoformat(), f"{utc:%Y-%m-%d %H:%M:%S}", text)


def with_times(text: str) -> Markup:
    """A sentence that names moments in UTC, such as those that the command line shows, with each on the reader's clock."""
    parts = _UTC_MOMENT.split(text)  # text, moment, text, moment, …, text
    shown = [escape(part) if place % 2 == 0 else Markup(_on_clock(part)) for place, part in enumerate(parts)]  # noqa: S704  ours
    return Markup("").join(shown)


def _on_clock(utc: str) -> str:
    return when(datetime.fromisoformat(utc).replace(tzinfo=UTC), "%Y-%m-%d %H:%M:%S" if utc.count(":") == 2 else "%Y-%m-%d %H:%M")
