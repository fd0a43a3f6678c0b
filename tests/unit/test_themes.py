"""Themes: the look and the imprint of each entity, readable in both colour schemes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from channels.base import Channel, Email, assemble
from dispatcher import policy
from dispatcher.consent.link_tokens import UNSUBSCRIBE, message_id_token
from dispatcher.content import Catalog, MessageSender, RenderRequest, check, example_request
from dispatcher.content.preview import TOKEN_CHARACTERS
from dispatcher.content.themes import COLOURS, CONTRASTS, NEUTRAL, SCHEMES, Theme, contrast, read_themes
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import Mode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.runtime.consistency import disagreements
from tests.support.services import specialised_templates
from tests.support.template_folder import small_folder, write

FOLDER = Path(__file__).parents[2] / "templates"
ENTITIES = ("cbc-banque", "kbc-bank", "kbc-insurance")
FILE = "_shared/themes/kbc-bank.toml"
SHIPPED = (FOLDER / FILE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return specialised_templates(lambda: 0.0)


def themes(catalog: Catalog) -> dict[str, Theme]:
    return dict(next(iter(catalog.values())).themes)


def in_the_name_of(catalog: Catalog, entity: str, name: str = "loan_offer") -> RenderRequest:
    sender = policy.parse(policy.shipped()).entities[entity]
    request = example_request(catalog[name], Channel.EMAIL, "fr", Mode.STANDARD)
    return replace(request, sender=MessageSender(sender.names["fr"], sender.sender_address, entity=entity))


def test_every_entity_of_the_policy_has_a_theme(catalog: Catalog) -> None:
    assert tuple(themes(catalog)) == ENTITIES == tuple(sorted(policy.parse(policy.shipped()).entities))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("entity", [*ENTITIES, ""])
def test_every_theme_has_the_contrasts_of_wcag(catalog: Catalog, entity: str, scheme: str) -> None:
    colours = themes(catalog).get(entity, NEUTRAL).values("en")
    prefix = "dark_" if scheme == "dark" else ""
    for text, ground, least in CONTRASTS:
        assert contrast(colours[prefix + text], colours[prefix + ground]) >= least, (text, ground)


def test_contrast_is_that_of_wcag() -> None:
    # Values of WebAIM's contrast checker.
    for one, other, ratio in (("#000000", "#ffffff", 21), ("#767676", "#ffffff", 4.54), ("#0000ff", "#ffffff", 8.59)):
        assert contrast(one, other) == pytest.approx(ratio, abs=0.01)
        assert contrast(one, other) == contrast(other, one)


def test_each_entity_s_mail_has_its_own_look_and_imprint(catalog: Catalog) -> None:
    mails = {}
    for entity in ENTITIES:
        mail = assemble(catalog["loan_offer"].render(in_the_name_of(catalog, entity)))
        assert isinstance(mail, Email)
        theme = themes(catalog)[entity]
        values = theme.values("fr")
        assert f"background-color:{values['header']};" in mail.html
        assert f".header {{ background-color: {values['dark_header']} !important" in mail.html
        assert f'src="{values["logo_url"]}"' in mail.html
        assert theme.imprint["fr"] in mail.text
        assert all(other.imprint["fr"] not in mail.text for each, other in themes(catalog).items() if each != entity)
        mails[entity] = set(re.findall(r"#[0-9a-f]{6}", mail.html))
    assert len(set(map(frozenset, mails.values()))) == 3


def test_an_entity_without_a_theme_gets_the_neutral_one(catalog: Catalog) -> None:
    request = in_the_name_of(catalog, "kbc-bank")
    mail = assemble(
        catalog["loan_offer"].render(replace(request, sender=MessageSender("Other Bank", "news@o.example", entity="o")))
    )
    assert isinstance(mail, Email)
    assert f"background-color:{NEUTRAL.values('fr')['header']};" in mail.html
    assert "<img" not in mail.html
    assert "Other Bank</td>" in mail.html


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ('ink = "#1c2b36"', 'ink = "#aaaaaa"', "light.ink", "has a contrast of 2.32 on card #ffffff; WCAG 2.2 AA demands 4.5"),
        ('notice_edge = "#8f6b00"', 'notice_edge = "#fff2c0"', "light.notice_edge", "demands 3"),
        ('link = "#7fd0f7"', 'link = "#00568f"', "dark.link", "demands 4.5"),
        ('ink = "#1c2b36"', 'ink = "red"', "light.ink", "a colour such as #003768"),
        ('ink = "#1c2b36"\n', "", "light.ink", "a colour such as"),
        ('muted = "#43576a"', 'mutde = "#43576a"', "light.mutde", "did you mean muted"),
        ("https://www.kbc-bank", "http://www.kbc-bank", "logo.url", "https"),
        ("https://www.kbc-bank.example/brand/mail-logo.png", "data:image/png;base64,AA", "logo.url", "https"),
        ('url = "https://www', 'url = { nl = "x" } # "https://www', "logo.url", "one for each of nl, fr, de, en"),
        ("mail-logo.png", "mail-logo.png?opened=1", "logo.url", "without a query"),
        ("width = 132", "width = 0", "logo.width", "pixels"),
        ("height = 40 ", 'height = "40" ', "logo.height", "pixels"),
        ('alt = { nl = "KBC Bank"', 'alt = { nl = ""', "logo.alt", "a text for each of nl"),
        ("[imprint]", "[imprints]", "imprint", "a text for each of"),
        ('by = "nobody (example theme)"', "", "signed", "who answers"),
    ],
)
def test_a_fault_of_a_theme_is_reported(tmp_path: Path, old: str, new: str, field: str, message: str) -> None:
    theme = SHIPPED.replace("height = 40\n", "height = 40 \n")
    assert old in theme
    faults = check(write(tmp_path, small_folder() | {FILE: theme.replace(old, new, 1)}))
    assert [fault for fault in faults if fault.file == FILE and fault.field == field and message in fault.message], faults
    assert field == "imprint" or all(fault.line > 1 for fault in faults)  # a table that is missing has no line


def test_a_theme_says_who_answers_for_it() -> None:
    names, faults = read_themes({FILE: SHIPPED})
    assert (list(names), faults) == (["kbc-bank"], [])
    for file in (FOLDER / "_shared/themes").glob("*.toml"):
        assert "placeholders: address and numbers are to be confirmed by the bank" in file.read_text(encoding="utf-8")


def test_a_logo_lies_on_a_host_of_its_entity(catalog: Catalog) -> None:
    rules, template = policy.parse(policy.shipped()), catalog["loan_offer"]
    theme = template.themes["cbc-banque"]
    foreign = replace(theme, logo_url={**theme.logo_url, "fr": "https://cdn.example/logo.png"})
    changed = replace(template, specialiser=None, themes={**template.themes, "cbc-banque": foreign, "kbc-bnak": theme})
    found = {(fault.file, fault.field) for fault in disagreements(rules, [changed])}
    assert found == {("_shared/themes/cbc-banque.toml", "logo.url"), ("_shared/themes/kbc-bnak.toml", "file")}


def test_a_macro_with_colours_is_imported_with_context(tmp_path: Path) -> None:
    files = small_folder()
    files["_shared/macros.html"] = '{% macro button(url) %}<a href="{{ url }}" style="color:{{ theme.link }}">go</a>{% endmacro %}'
    [*faults] = check(write(tmp_path / "without", files))
    assert {(fault.line, fault.message) for fault in faults} == {(2, "must be imported 'with context': it uses theme")}
    files |= {name: text.replace("import button", "import button with context") for name, text in files.items() if "email" in name}
    assert check(write(tmp_path / "with", files)) == []


def test_a_variable_still_may_not_stand_in_a_style(tmp_path: Path) -> None:
    for value, faulty in (("theme.link", False), ("first_name", True), ("theme.link ~ first_name", True), ("theme.lnik", True)):
        files = small_folder()
        files["hello/fr/email.html"] = files["hello/fr/email.html"].replace("<p title", f'<p style="color:{{{{ {value} }}}}" title')
        assert bool(check(write(tmp_path / value.replace(" ", ""), files))) is faulty, value


def test_links_of_previews_are_as_long_as_real_ones() -> None:
    token = message_id_token(KeyRing.of(b"k" * 32), UNSUBSCRIBE, MessageId(202611, 1, 2))
    assert len(token) == TOKEN_CHARACTERS


def test_all_colours_of_a_theme_are_used() -> None:
    sources = "".join(
        (FOLDER / "_shared" / name).read_text(encoding="utf-8") for name in ("base.html", "macros.html", "nl/layout.html")
    )
    for name in COLOURS:
        assert f"theme.{name} " in sources, name
    for language in LANGUAGES:
        assert "theme.link" in (FOLDER / "_shared" / language / "layout.html").read_text(encoding="utf-8")
