"""The console's texts in the reader's language. English is in the templates; each other language has a catalog of gettext, such as
`dispatcher/web/pages/console/nl.po`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from io import BytesIO

from babel.messages.pofile import read_po
from markupsafe import Markup

from dispatcher.domain.recipient import Language
from dispatcher.web.console.fault_words import fault_parts, local_parts
from dispatcher.web.console.viewer import present_viewer

STATE = "state"  # the context of entries that are a state's name

# The pages that have a translation. Any other is in English as a whole, with its menu.
TRANSLATED = frozenset(
    f"{name}.html"
    for name in (
        *(
            "kept_form",
            "problem",
            "login",
            "password",
            "confirm",
            "help",
            "second_factor",
            "signed_in",
            "sessions",
            "overview",
            "search",
            "calendar",
            "results",
            "templates",
            "template",
            "template_diff",
            "schedules",
            "schedule",
            "message",
        ),
        *("desk", "desk_call", "people", "person", "campaign", "campaign_edit", "campaign_examples"),
        *("draft_options", "draft_audience", "draft_columns", "draft_check", "draft_examples", "draft_schedule", "draft_submit"),
    )
)

Texts = Mapping[tuple[str, str], tuple[str, ...]]


@lru_cache(maxsize=8)
def texts(language: Language) -> Texts:
    """The catalog of a language: from context and English text to the translation, in singular and plural where it has both."""
    if language == "en":
        return {}
    content = files("dispatcher.web.pages.console").joinpath(f"{language}.po").read_bytes()
    catalog = read_po(BytesIO(content), locale=language, abort_invalid=True)
    return {(each.context or "", _singular(each.id)): _forms(each.string) for each in catalog if each.id and each.string}


def _singular(message: str | Iterable[str]) -> str:
    return message if isinstance(message, str) else next(iter(message))


def _forms(text: str | Iterable[str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def find(message: str, context: str = "") -> str | None:
    """The translation of a text; None where there is none. English is its own."""
    language = present_viewer().language
    if language == "en":
        return message
    forms = texts(language).get((context, message))
    return forms[0] if forms else None


def gettext(message: str) -> str:
    """The translation of a text, else the text."""
    return find(message) or message


def ngettext(singular: str, plural: str, count: float) -> str:
    """The translation of a text with a number."""
    language = present_viewer().language
    is_plural = abs(count) >= 2 if language == "fr" else count != 1  # French: 0 and 1,5 are singular
    forms = texts(language).get(("", singular), (singular, plural))
    return forms[min(int(is_plural), len(forms) - 1)]


def state_name(state: str) -> str:
    """The name of a state. English has the public name, as programs read it."""
    return find(state, STATE) or state


def localized(message: str) -> str:
    """A text that code or a reader of files made: its translation, or English that is marked as such."""
    text = find(message) or _fault(message, present_viewer().language)
    return Markup('<span lang="en">{}</span>').format(message) if text is None else text


def fault_words(message: str, language: Language) -> str:
    """What is wrong with a row, in a language; in English, as it was found, where there is no translation."""
    return _fault(message, language) or message


def _fault(message: str, language: Language) -> str | None:
    found = fault_parts(message)
    if found is None or language == "en":
        return None
    sentence, parts = found
    forms = texts(language).get(("", sentence))
    if not forms:
        return None
    shown = {name: fault_words(part, language) if name == "what" else part for name, part in parts.items()}
    return forms[0] % local_parts(sentence, shown, language)


def decimal(text: str) -> str:
    """A number with the decimal sign of the reader's language."""
    return text if present_viewer().language == "en" else text.replace(".", ",")
