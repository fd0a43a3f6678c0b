"""The console's pages: always escaped; an undefined variable is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_date
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dispatcher.campaigns.overview import Balance
from dispatcher.campaigns.results import Point
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.campaign_results import Measure
from dispatcher.domain.message import State
from dispatcher.domain.proportions import Difference, Share
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.web.console import labels
from dispatcher.web.console.menu import menu
from dispatcher.web.console.translation import TRANSLATED, decimal, gettext, localized, ngettext, state_name
from dispatcher.web.console.viewer import Viewer, present_viewer, rendering_for, stated, time_element, when, with_times
from dispatcher.web.pages.customer import calendar_day, day, fill

FOLDER = Path(__file__).parent
PREVIEWS = FOLDER.parent / "previews"
SCRIPT = (FOLDER / "live.js").read_text(encoding="utf-8")
CHARTS = (FOLDER / "charts.js").read_text(encoding="utf-8")
STYLE = "\n".join(path.read_text(encoding="utf-8") for path in (FOLDER / "style.css", PREVIEWS / "previews.css"))


def _in_each_language(name: str) -> Mapping[Language, Mapping[str, Any]]:
    paths = {language: FOLDER / f"{name}.{language}.toml" for language in LANGUAGES}
    return {language: tomllib.loads(path.read_text(encoding="utf-8")) for language, path in paths.items()}


DESK_TEXTS = _in_each_language("desk")  # the desk's words, by the employee's language
GUIDES = _in_each_language("help")
LABEL = re.compile(r"\{([^{}]+)\}")  # in a guide: a label of the console

# The order of a bar's parts and of the rows of its table: successful states, then those in progress, then those never sent.
ORDER = (
    *(State.READ, State.DELIVERED, State.ACCEPTED, State.CLAIMED, State.PENDING, State.HELD, State.WAITING, State.UNRESOLVED),
    *(State.COMPLAINED, State.BOUNCED, State.FAILED, State.DEAD, State.EXPIRED, State.CANCELLED, State.HELD_OUT, State.REFUSED),
)


def page(name: str, viewer: Viewer | None = None, **values: Any) -> str:
    """A page by its file's name. The viewer is the signed-in person, if no other is given."""
    operator = values.get("operator")
    reader = viewer or (operator.viewer if operator else Viewer())
    with rendering_for(reader if name in TRANSLATED else replace(reader, language="en")):
        return _environment.get_template(name).render(values)


def pieces(balance: Balance) -> list[tuple[State, int, float, float]]:
    """A balance as the pieces of a bar: state, count, begin and length, both in per cent of the audience."""
    total = sum(balance.states.values())
    found, begins = [], 0.0
    for state in ORDER:
        count = balance.states.get(state, 0)
        if count:
            length = 100 * count / total
            found.append((state, count, round(begins, 6), round(length, 6)))
            begins += length
    return found


def number(value: float | None) -> str:
    """A count or rate, with thin spaces between thousands."""
    return "–" if value is None else decimal(f"{value:,}".replace(",", "\u202f"))


def limit(value: float | None) -> str:
    """A limit as it was entered: no decimals where there were none."""
    return number(int(value) if value is not None and value == int(value) else value)


def language_name(language: Language) -> str:
    """The name of a language in the reader's: `de` would be read as a word in Dutch and French."""
    return str(Locale.parse(present_viewer().language).languages[language])


def quantity(value: int, noun: str) -> str:
    """A number with its noun, which is in the singular for 1."""
    return ngettext(f"%(count)s {noun}", f"%(count)s {noun}s", value) % {"count": number(value)}


def percent(count: int, total: int) -> str:
    """A share; one above zero never shows as 0.0 %."""
    share = 100 * count / total if total else 0.0
    return decimal("< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %")


def rate(share: Share) -> str:
    """The rate of a share; small ones with two decimals."""
    return "–" if share.rate is None else decimal(f"{share.rate:.{_decimals(share.rate)}%}".replace("%", " %"))


def interval(share: Share) -> str:
    """The 95 % interval of a share."""
    found = share.interval()
    if found is None:
        return "–"
    places = _decimals(share.rate or 0.0)
    low, high = (decimal(f"{100 * each:.{places}f}") for each in (found.low, found.high))
    return translate("%(low)s to %(high)s %%", low=low, high=high)


def _decimals(value: float) -> int:
    return 2 if value < 0.05 else 1


def points(value: float) -> str:
    """A difference of two rates, in percentage points."""
    return decimal(f"{100 * value:+.2f}".replace("-", "\u2212"))


def whisker(difference: Difference) -> tuple[float, float, float]:
    """The interval of a difference and its value as places on a scale of 100 whose middle is zero."""
    widest = max(abs(difference.interval.low), abs(difference.interval.high)) * 1.15 or 1.0
    low, value, high = (50 + 50 * each / widest for each in (difference.interval.low, difference.value, difference.interval.high))
    return round(low, 2), round(value, 2), round(high, 2)


def occurred(series: Sequence[Point], measure: Measure) -> int:
    """How often something happened in a whole time series."""
    return sum(point.counts.get(measure, 0) for point in series)


def month_name(day: date) -> str:
    """A month in words, with its year."""
    return format_date(day, "LLLL y", locale=_locale())


def weekday_name(day: date) -> str:
    """A day of the week in words."""
    return format_date(day, "cccc", locale=_locale())


def _locale() -> str:
    return "en_GB" if present_viewer().language == "en" else present_viewer().language


def translate(message: str, **values: object) -> str:
    """A text in the reader's language, with its placeholders filled, if any."""
    return gettext(message) % values if values else gettext(message)


def reason_words(code: str) -> str:
    """A reason code in words."""
    return gettext(labels.reason(code))


def with_labels(text: str) -> Markup:
    """A text of the guide, with the labels that it names as the console shows them."""
    parts = enumerate(LABEL.split(text))  # text, label, text, label, …
    return Markup("").join(Markup("<b>{}</b>").format(gettext(part)) if number % 2 else part for number, part in parts)


def scroll(label: str, extra: str = "") -> Markup:
    """The attributes of an area that scrolls: with a name, and within reach of the keyboard (WCAG 2.1.1)."""
    return Markup('class="{}" tabindex="0" role="region" aria-label="{}"').format(f"scroll {extra}".strip(), label)


def age(seconds: float) -> str:
    """A time span in its largest unit."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def duration(seconds: float | None) -> str:
    """A measured time, in milliseconds below a second."""
    if seconds is None:
        return "–"
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


_environment = Environment(
    loader=FileSystemLoader([FOLDER, PREVIEWS]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=["jinja2.ext.i18n"],
)
_environment.filters.update(
    number=number,
    age=age,
    duration=duration,
    quantity=quantity,
    limit=limit,
    language_name=language_name,
    when=when,
    with_times=with_times,
    stated=stated,
    time_element=time_element,
    pieces=pieces,
    fill=fill,
    day=day,
    calendar_day=calendar_day,
)
_environment.globals.update(
    percent=percent, order=ORDER, states=labels.STATES, reason_words=reason_words, campaign_states=labels.CAMPAIGN_STATES
)
_environment.filters.update(rate=rate, interval=interval, points=points, whisker=whisker, occurred=occurred)
_environment.globals.update(menu=menu, scroll=scroll)
_environment.globals["viewer"] = present_viewer
_environment.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]  # by the extension
_environment.globals.update(_=translate, state_name=state_name)
_environment.filters.update(
    localized=localized, with_labels=with_labels, decimal=decimal, month_name=month_name, weekday_name=weekday_name
)
_environment.globals["standstill_titles"] = labels.STANDSTILLS
_environment.globals["outdated_words"] = labels.OUTDATED
_environment.globals["CampaignState"] = CampaignState
