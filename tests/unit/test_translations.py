"""Translation exchange: what an export says, what an import changes, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from lxml import etree

from dispatcher import content
from dispatcher.campaigns import translations
from dispatcher.campaigns.new_template import write_skeleton
from dispatcher.campaigns.template_approval import ApprovalStatus, TemplateVersion, approval_obstacles
from dispatcher.content import Catalog, NewTemplate, texts_to_write
from dispatcher.content.translation_units import codes, pair_units, pieces
from dispatcher.domain.message import Kind
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake import translation_files
from dispatcher.intake.errors import BadInput
from dispatcher.intake.translation_files import ExchangeFormat
from dispatcher.policy import parse, shipped
from dispatcher.runtime.template_lint import lint_folder
from tests.support.services import TEMPLATES, load_edited, templates

POLICY = parse(shipped())
PO, XLIFF = ExchangeFormat.PO, ExchangeFormat.XLIFF
NAMES = sorted(path.name for path in TEMPLATES.iterdir() if not path.name.startswith("_"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A template folder with one template."""
    for name in ("_shared", "loan_offer"):
        shutil.copytree(TEMPLATES / name, tmp_path / "templates" / name)
    return tmp_path / "templates"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def exported(catalog: Catalog, form: ExchangeFormat = PO, language: str = "fr") -> str:
    return translations.export(catalog, "loan_offer", "en", language, form).decode()


def imported(folder: Path, text: str, form: ExchangeFormat = PO) -> translations.TranslationImport:
    file = folder.parent / f"loan.{form.lower()}"
    file.write_text(text, encoding="utf-8")
    return translations.import_file(POLICY, folder, load_edited(folder), file)


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize("form", ExchangeFormat)
@pytest.mark.parametrize("name", NAMES)
def test_an_export_that_is_imported_changes_no_byte(tmp_path: Path, name: str, form: ExchangeFormat) -> None:
    folder, file = tmp_path / "templates", tmp_path / "file"
    for each in ("_shared", name):
        shutil.copytree(TEMPLATES / each, folder / each)
    before = bytes_of(folder)
    for source, target in product(("en", "nl"), LANGUAGES):
        if source != target:
            file.write_bytes(translations.export(templates(), name, source, target, form))
            result = translations.import_file(POLICY, folder, templates(), file)
            assert (result.changed, result.untranslated, result.files) == (0, (), ())
    assert bytes_of(folder) == before
    assert result.translated > 15


@pytest.mark.parametrize("name", NAMES)
def test_every_word_of_a_mail_is_in_a_unit(name: str) -> None:
    template = templates()[name]
    for source, _ in pair_units(template.source, name, "en", "fr"):
        assert "".join(source.text[piece.start : piece.end] for piece in pieces(source.text)) == source.text
        assert template.source[source.part.file].split("\n")[source.line - 1].find(source.text.split("\n")[0][:10]) >= 0


@pytest.mark.parametrize("form", ExchangeFormat)
def test_a_translation_replaces_its_text_and_nothing_else(folder: Path, form: ExchangeFormat) -> None:
    before = bytes_of(folder)
    text = changed(exported(load_edited(folder), form), "Comment ça marche", "Trois étapes, c’est « tout »")
    result = imported(folder, text, form)
    after = bytes_of(folder)
    assert (result.changed, result.untranslated) == (1, ())
    assert set(result.files) == {"loan_offer/fr/email.html", "loan_offer/translations.toml"}
    html = before["loan_offer/fr/email.html"].decode()
    assert after["loan_offer/fr/email.html"].decode() == html.replace("Comment ça marche", "Trois étapes, c’est « tout »")
    assert {name for name in after if after[name] != before.get(name)} == set(result.files)
    assert not load_edited(folder)["loan_offer"].translation_faults


def test_a_text_with_quotes_is_quoted_as_toml_needs(folder: Path) -> None:
    text = changed(exported(load_edited(folder)), "Un prêt pour vos projets", 'L\'emprunt \\"malin\\"')
    imported(folder, text)
    subject = load_edited(folder)["loan_offer"].source["loan_offer/fr/texts.toml"]
    assert 'L\'emprunt "malin"' in subject


@pytest.mark.parametrize("form", ExchangeFormat)
def test_a_lost_placeholder_is_named_with_unit_and_line(folder: Path, form: ExchangeFormat) -> None:
    before, text = bytes_of(folder), exported(load_edited(folder), form)
    if form is PO:
        text = changed(text, "jusqu’au {{ valid_until | date }} inclus", "jusqu’à la fin")
    else:
        root = etree.fromstring(text.encode())
        for target in root.iter("{*}target"):
            for ph in target.findall("{*}ph"):
                if ph.get("disp") == "{{ valid_until | date }}" and "cette offre" in (target.text or ""):
                    target.remove(ph)
        text = etree.tostring(root).decode()
    with pytest.raises(BadInput) as refused:
        imported(folder, text, form)
    faults = refused.value.faults
    assert {fault.message for fault in faults} == {"its placeholders differ: lost {{ valid_until | date }}"}
    assert {fault.field.split("/")[0] for fault in faults} <= {"email.html", "email.txt"}
    for fault in faults:
        assert fault.line > 1
    assert bytes_of(folder) == before


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("Découvrez notre prêt", "Découvrez notre prêt " * 5, "push.title/1", "more than 65"),
        ("un crédit pour vos projets", "un crédit " * 60, "sms.text/1", "segments_max"),
        ("Calculez sur", "Voyez <script>", "sms.text/1", "placeholders differ"),
        ("Un prêt pour vos projets", "Un prêt {{ amount }}", "email.subject/1", "not in the source: {{ amount }}"),
    ],
)
def test_a_translation_that_breaks_a_limit_is_refused(folder: Path, old: str, new: str, field: str, message: str) -> None:
    before = bytes_of(folder)
    with pytest.raises(BadInput) as refused:
        imported(folder, changed(exported(load_edited(folder)), old, new))
    assert any(fault.field == field and message in fault.message and fault.line > 1 for fault in refused.value.faults)
    assert bytes_of(folder) == before


def without(text: str, target: str) -> str:
    """The PO file with an empty translation in place of this one."""
    return changed(text, f'msgstr "{target}"', 'msgstr ""')


def mark_fuzzy(text: str) -> str:
    return changed(text, 'msgctxt "push.title/1"', '#, fuzzy\nmsgctxt "push.title/1"')


@pytest.mark.parametrize("edit", [lambda text: without(text, "Mensualité"), mark_fuzzy])
def test_an_untranslated_text_blocks_approval(folder: Path, edit: Callable[[str], str]) -> None:
    result = imported(folder, edit(exported(load_edited(folder))))
    assert len(result.untranslated) == 1
    template = load_edited(folder)["loan_offer"]
    (fault,) = template.translation_faults
    assert (fault.field, fault.message) == (result.untranslated[0], "is not translated")
    version = TemplateVersion(template, ApprovalStatus.WAITING, None)
    assert any("not translated" in error.message for error in approval_obstacles(version, True, "Bart", None))
    again = exported(load_edited(folder))
    assert f'msgctxt "{result.untranslated[0]}"' in again


def test_a_text_whose_source_changed_is_stale(folder: Path) -> None:
    imported(folder, changed(exported(load_edited(folder)), "Comment ça marche", "Trois étapes"))
    old = exported(load_edited(folder))
    english = folder / "loan_offer/en/email.html"
    source = english.read_text(encoding="utf-8")
    english.write_text(changed(source, "Monthly instalment", "Instalment a month"), encoding="utf-8")
    template = load_edited(folder)["loan_offer"]
    (fault,) = template.translation_faults
    assert fault.message == "is stale: the text in en has changed since it was translated"
    assert template.source[fault.file].split("\n")[fault.line - 1].find("Mensualité") > 0
    found = [each for each in lint_folder(parse(shipped()), folder, "loan_offer") if each.code == "T511"]
    assert [(each.file, each.line, each.severity) for each in found] == [(fault.file, fault.line, "warning")]
    with pytest.raises(BadInput, match="has changed since the export"):
        imported(folder, old)
    imported(folder, exported(load_edited(folder)).replace("#, fuzzy\n", ""))
    assert load_edited(folder)["loan_offer"].translation_faults == ()


def test_translations_toml_is_no_part_of_the_digest(folder: Path) -> None:
    before = load_edited(folder)
    imported(folder, without(exported(before), "Mensualité"))
    after = content.load(folder, previous=before)
    assert after["loan_offer"].digest == before["loan_offer"].digest
    assert len(after["loan_offer"].translation_faults) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<xliff", "is not XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><x/>', "DOCTYPE: is not allowed"),
        ('<xliff xmlns="urn:oasis:names:tc:xliff:document:1.2" version="1.2"/>', "is not XLIFF 2.0"),
        ("", "needs the headers of the export"),
        ('msgid "a"\nmsgstr "b"\n', "needs the headers of the export"),
    ],
)
def test_a_file_of_another_kind_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        imported(folder, text)


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A folder with a new template, written in English only."""
    folder = write_skeleton(tmp_path / "templates", NewTemplate("loan_offer", "loan_offer", "Jana"), Kind.COMMERCIAL).folder
    for file in (folder / "template.toml", *(folder / "en").iterdir()):
        text = file.read_text(encoding="utf-8").replace("{# TO WRITE #}", "")
        file.write_text("\n".join(line for line in text.split("\n") if not line.startswith("# TO WRITE")), encoding="utf-8")
    return folder.parent


@pytest.mark.parametrize("form", ExchangeFormat)
def test_the_texts_of_another_template_are_no_translations(draft: Path, form: ExchangeFormat) -> None:
    text = exported(content.load(draft), form)
    assert 'state="translated"' not in text
    assert text.count("#, fuzzy\n" if form is PO else "<target") > 20
    result = imported(draft, text, form)
    assert (result.translated, result.changed) == (0, 0)


@pytest.mark.parametrize("form", ExchangeFormat)
def test_a_translation_may_have_the_conditions_of_its_source(draft: Path, form: ExchangeFormat) -> None:
    pairs = pair_units(content.load(draft)["loan_offer"].source, "loan_offer", "en", "nl")
    here, there = next((here, there) for here, there in pairs if here.id == "email.txt/1")
    assert codes(here.text) != codes(there.text)
    exchange = translation_files.read("file", exported(content.load(draft), form, "nl").encode())
    units = [replace(unit, target=unit.target or unit.source, needs_work=False) for unit in exchange.units]
    text = translation_files.write(replace(exchange, units=units), form).decode()
    assert imported(draft, text, form).untranslated == ()
    assert here.text in (draft / "loan_offer" / "nl" / "email.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ExchangeFormat)
def test_an_import_without_a_change_writes_nothing(draft: Path, form: ExchangeFormat) -> None:
    before, text = bytes_of(draft), exported(content.load(draft), form)
    result = imported(draft, text, form)
    assert (result.files, bytes_of(draft)) == ((), before)
    assert len(result.untranslated) > 20


@pytest.mark.parametrize("form", ExchangeFormat)
def test_the_same_alt_text_in_two_languages_is_no_translation(folder: Path, form: ExchangeFormat) -> None:
    picture = '<img src="https://www.kbc-bank.example/a.png" width="520" height="260"\n  alt="A bright kitchen"><hr>{{ heading('
    for language in LANGUAGES:
        page = folder / "loan_offer" / language / "email.html"
        page.write_text(changed(page.read_text(encoding="utf-8"), "{{ heading(", picture), encoding="utf-8")
    before, text = bytes_of(folder), exported(content.load(folder), form)
    assert text.count("#, fuzzy\n" if form is PO else 'state="initial"') == 1
    result = imported(folder, text, form)
    assert (result.untranslated, bytes_of(folder)) == (("email.html/alt-1",), before)


def test_an_alt_text_on_a_later_line_of_its_tag_has_its_mark(draft: Path) -> None:
    picture = '{# TO WRITE #}<img src="https://www.kbc-bank.example/a.png"\n  alt="Une cuisine claire"><hr>{{ heading('
    for language, text in (
        ("en", picture.replace("{# TO WRITE #}", "").replace("Une cuisine claire", "A kitchen")),
        ("fr", picture),
    ):
        page = draft / "loan_offer" / language / "email.html"
        page.write_text(changed(page.read_text(encoding="utf-8"), "{{ heading(", text), encoding="utf-8")
    unit = exported(content.load(draft)).partition('msgctxt "email.html/alt-1"')[0].rpartition("\n\n")[2]
    assert "#, fuzzy" in unit


@pytest.mark.parametrize("form", ExchangeFormat)
def test_an_import_removes_the_marks_of_its_texts(draft: Path, form: ExchangeFormat) -> None:
    text = exported(content.load(draft), form)
    text = text.replace("#, fuzzy\n", "").replace('state="initial"', 'state="translated"')
    before = {text.field for text in texts_to_write(content.load(draft)["loan_offer"]) if "/fr/" in text.file}
    result = imported(draft, text, form)
    assert result.changed > 20
    after = {text.field for text in texts_to_write(content.load(draft)["loan_offer"]) if "/fr/" in text.file}
    assert "push.title" in before - after
    assert "whatsapp.tailored.approved" in before - after
    assert {unit.split("/")[0] for unit in result.untranslated} | {"text"} >= after


def test_texts_in_attributes_are_translated_and_the_tag_is_not(folder: Path) -> None:
    picture = '<img src="https://www.kbc-bank.example/a.png" width="520" height="260" alt="{}"><hr>'
    link = '<p><a href="{{{{ offer_url }}}}" title="{}">KBC</a></p>{{{{ heading('
    for language, alt, title in (("en", "A bright kitchen", "Our offers"), ("fr", "Une cuisine claire", "Nos offres")):
        page = folder / "loan_offer" / language / "email.html"
        text = page.read_text(encoding="utf-8")
        page.write_text(changed(text, "{{ heading(", picture.format(alt) + link.format(title)), encoding="utf-8")
    before = (folder / "loan_offer" / "fr" / "email.html").read_text(encoding="utf-8")
    text = exported(content.load(folder))
    assert 'msgctxt "email.html/alt-1"\nmsgid "A bright kitchen"\nmsgstr "Une cuisine claire"' in text
    imported(folder, changed(changed(text, "Une cuisine claire", "Une cuisine lumineuse"), "Nos offres", "Toutes nos offres"))
    after = (folder / "loan_offer" / "fr" / "email.html").read_text(encoding="utf-8")
    assert after == before.replace("Une cuisine claire", "Une cuisine lumineuse").replace("Nos offres", "Toutes nos offres")


def test_a_part_of_another_structure_is_one_unit(draft: Path) -> None:
    page = draft / "loan_offer" / "en" / "email.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(changed(text, "{{ heading(", "<hr>{{ heading("), encoding="utf-8")
    text = exported(content.load(draft))
    assert text.count('msgctxt "email.html/') == 1
    assert 'msgstr ""' in text.partition('msgctxt "email.html/1"')[2].partition("msgctxt")[0].partition("msgid")[2]


@pytest.mark.parametrize("form", ExchangeFormat)
def test_a_header_of_another_language_is_refused(folder: Path, form: ExchangeFormat) -> None:
    before, text = bytes_of(folder), exported(load_edited(folder), form)
    old, new = ("Language: fr", "Language: de") if form is PO else ('trgLang="fr"', 'trgLang="de"')
    with pytest.raises(BadInput, match="names the language de, but the file was exported for texts of loan_offer/fr/"):
        imported(folder, changed(text, old, new), form)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("control", ["\u202e", "\u2066"])
def test_a_text_that_reverses_others_is_refused(folder: Path, control: str) -> None:
    with pytest.raises(BadInput, match=f"email.html/.*has U.{ord(control):04X}, which reverses"):
        imported(folder, changed(exported(load_edited(folder)), "Comment ça marche", f"Comment {control}ça marche"))


def test_an_unknown_unit_is_named(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"push\.titel/1: is not a text of loan_offer; did you mean push\.title/1"):
        imported(folder, changed(exported(load_edited(folder)), "push.title/1", "push.titel/1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dag {{ name }}, <b>tot gauw</b>", ["</b>", "<b>", "{{ name }}"]),
        ('{% if mode == "tailored" %}Ja{% else %}Nee{% endif %}', ["{% else %}", "{% endif %}", '{% if mode == "tailored" %}']),
        ("Bedrag {{1}} voor {{2}}.", ["{{1}}", "{{2}}"]),
        ('{{ n | plural("munt", "munten") }}', ['") }}', '", "', '{{ n | plural("']),
    ],
)
def test_codes_are_what_a_translator_must_keep(text: str, expected: list[str]) -> None:
    assert codes(text) == expected


def test_translators_see_context_and_limits(folder: Path) -> None:
    text = exported(load_edited(folder))
    assert "#. loan_offer, push: push.title" in text
    assert "#. project: text, such as your new bathroom" in text
    assert "#. at most 65 characters with its values" in text
    assert "#. at most 2 SMS segments" in text
    assert "#: loan_offer/fr/texts.toml:" in text


@pytest.mark.parametrize("form", ExchangeFormat)
def test_an_export_says_what_numbers_of_whatsapp_stand_for(form: ExchangeFormat) -> None:
    text = exported(templates(), form)
    assert "{{1}}: {% if first_name %}{{ first_name }}{% else %}you{% endif %}, such as" in text.replace("\\", "")
    assert "{{5}}: {{ offer_url }}, such as https://" in text


@pytest.mark.parametrize(
    "sentence", ['You get {{ n }} {{ n | plural("coin", "coins") }}', '{{ n | plural("A coin", "Coins") }} for you']
)
def test_a_filter_with_texts_at_an_edge_is_exported_whole(sentence: str) -> None:
    files = {"coins/en/email.txt": f"{sentence}\n\nBye\n", "coins/fr/email.txt": f"{sentence}\n\nAdieu\n"}
    first, _ = pair_units(files, "coins", "en", "fr")
    assert first[0].text == sentence
    assert codes(first[0].text) == codes(sentence)
