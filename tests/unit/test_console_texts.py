"""The console's texts: each page with a translation is translated as a whole, into each language, with the same placeholders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from jinja2 import Environment
from jinja2.ext import babel_extract

from dispatcher.campaigns import actions, campaign_checks
from dispatcher.content.lint.findings import lint_rules
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.web.console import (
    account,
    campaign_edits,
    campaign_results,
    draft_checks,
    draft_forms,
    fault_words,
    labels,
    login,
    menu,
    second_factor,
)
from dispatcher.web.console.translation import STATE, TRANSLATED, texts
from dispatcher.web.pages.console import FOLDER, GUIDES, LABEL, PREVIEWS, scroll

TRANSLATIONS = [language for language in LANGUAGES if language != "en"]
SHARED = {  # parts of those pages
    *("base.html", "macros.html", "draft_macros.html", "approval.html"),
    *("dry_run_figures.html", "day_plan.html", "example_messages.html", "campaign_release.html"),
}
NAMES = {"dispatcher", "· dispatcher", "WhatsApp", "-help"}
TOKEN = re.compile(r"\{%-?\s*trans\b.*?endtrans\s*-?%\}|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
ATTRIBUTE = re.compile(r'\b(?:aria-label|placeholder|data-label|title|alt)="([^"]*)"')
PLACEHOLDER = re.compile(r"%\(\w+\)s|%%|</?\w+[^>]*>")
CODES = [(context, message) for context in (STATE,) for message in (*labels.STATES, *labels.CAMPAIGN_STATES)]
OF_CODE = [
    *(label for _, label, _ in menu.ENTRIES),
    *(text for words in (labels.STATES, labels.CAMPAIGN_STATES, labels.REASONS) for text in words.values()),
    *(text for words in (labels.STANDSTILLS, labels.OUTDATED) for text in words.values()),
    *fault_words.SENTENCES,
    *(text for words in labels.PROBLEMS.values() for text in words),
    *(rule.title for rule in lint_rules().values()),
    *(label for label, _ in campaign_results.SERIES_CHARTS),
    *("Audience", "Tried to send", "Accepted by the provider", "Delivered", "Read", "Converted"),  # the funnel
    *(
        labels.PROVIDERS_OWN,
        login.UNKNOWN,
        login.TOO_MANY,
        account.WRONG,
        second_factor.WRONG,
        campaign_edits.CHANGED_MEANWHILE,
        actions.CHANGED_BEFORE_RELEASE,
        campaign_checks.CHANGED_MEANWHILE,
    ),
    *(
        draft_checks.BUSY,
        draft_forms.WRONG_CHARACTERS,
        "%(count)s row",
        "%(count)s message",
        "%(count)s new conversion",
        "%(low)s to %(high)s %%",
    ),
]


def of_templates() -> Iterator[tuple[str, str]]:
    """Each text of the templates, with the file's name."""
    options = {"newstyle_gettext": "true", "trim_blocks": "true", "lstrip_blocks": "true"}
    for path in (*(FOLDER / name for name in sorted(TRANSLATED | SHARED)), PREVIEWS / "previews.html"):
        name = path.name
        with path.open("rb") as file:
            for _, _, found, _ in babel_extract(file, ("_", "gettext", "ngettext"), (), options):
                messages = [found] if isinstance(found, str) else [each for each in found or () if each]
                yield from ((name, each) for each in messages[:1])


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_text_of_the_pages_has_a_translation(language: Language) -> None:
    catalog = texts(language)
    assert {(name, text) for name, text in of_templates() if ("", text) not in catalog} == set()
    assert {text for text in OF_CODE if ("", text) not in catalog} == set()
    assert {str(state) for _, state in CODES if (STATE, str(state)) not in catalog} == set()


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_the_placeholders_and_tags_of_its_text(language: Language) -> None:
    for (_, message), forms in texts(language).items():
        for form in forms:
            assert Counter(PLACEHOLDER.findall(form)) == Counter(PLACEHOLDER.findall(message)), (message, form)


def test_every_area_that_scrolls_has_a_name_and_the_keyboard() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.html")}
    assert [name for name, source in sources.items() if re.search(r'class="[^"]*\bscroll\b', source)] == []
    assert scroll("<b>", "wide") == 'class="scroll wide" tabindex="0" role="region" aria-label="&lt;b&gt;"'


@pytest.mark.parametrize("name", sorted(TRANSLATED | SHARED))
def test_a_translated_page_has_no_literal_text(name: str) -> None:
    source = (FOLDER / name).read_text(encoding="utf-8")
    Environment(autoescape=True, extensions=["jinja2.ext.i18n"]).parse(source)
    bare = TOKEN.sub("\u241f", source)
    in_attributes = [text for text in ATTRIBUTE.findall(bare) if "\u241f" not in text]
    parts = re.split(r"<[^<>]*>|\u241f", bare)
    literal = {text.strip() for text in (*parts, *in_attributes) if re.search(r"[A-Za-z]{2}", text)}
    assert {text for text in literal if text not in NAMES | {'aria-describedby="', 'aria-invalid="true"'}} == set()


def test_guides_agree_and_name_labels_of_the_console() -> None:
    english = GUIDES["en"]
    shape = [(each["id"], len(each["text"])) for each in english["sections"]]
    named = [sorted(LABEL.findall(" ".join(each["text"]))) for each in english["sections"]]
    for language, guide in GUIDES.items():
        assert [(each["id"], len(each["text"])) for each in guide["sections"]] == shape, language
        assert [sorted(LABEL.findall(" ".join(each["text"]))) for each in guide["sections"]] == named, language
    labels_named = {label for each in named for label in each}
    assert {label for label in labels_named if ("", label) not in texts("nl")} == set()
    steps = re.findall(r'\("(\w+)", "[^"]*", _\(', (FOLDER / "draft_macros.html").read_text(encoding="utf-8"))
    assert len(steps) == 5
    assert set(steps) <= {name for name, _ in shape}  # each step of a draft has its help
