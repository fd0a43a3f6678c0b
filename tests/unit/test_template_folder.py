"""A template folder is loaded completely, or refused with all its faults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from channels.base import Email
from dispatcher.content import (
    Catalog,
    InvalidTemplates,
    MessageSender,
    Template,
    check,
    load,
    load_version,
    read_folder,
)
from dispatcher.domain.recipient import LANGUAGES
from tests.support.template_folder import DECLARATION, render_request, small_folder, write

HOSTILE: tuple[tuple[str, str, str, int, str, str], ...] = (
    # file, original text, replacement, line of the fault, its field, part of its message
    ("hello/template.toml", 'topic = "', 'topik = "', 8, "topik", "did you mean topic"),
    ("hello/template.toml", '"consumer_credit"', '"consumer_credits"', 8, "topic", "did you mean consumer_credit"),
    ("hello/template.toml", 'name = "hello"', 'name = "hallo"', 1, "name", "'hello'"),
    ("hello/template.toml", 'version = "1"', "version = 1", 2, "version", "must be a text"),
    ("hello/template.toml", 'kind = "commercial"', 'kind = "service"', 5, "offer_type", "offers nothing"),
    ("hello/template.toml", 'kind = "commercial"\n', "", 1, "kind", "is missing"),
    ("hello/template.toml", '"push", "email"', '"push", "e-mail"', 7, "channels", "did you mean email"),
    ("hello/template.toml", 'topic = "', 'coins = true\ntopic = "', 6, "modes", "tailored contract"),
    *(
        ("hello/template.toml", "[variables.first_name]", f"[push]\n{fault}\n[variables.first_name]", 11, field, message)
        for fault, field, message in (
            ('collapse_key = "new offers"', "push.collapse_key", "at most 32"),
            ("ttl_seconds = -1", "push.ttl_seconds", "whole number"),
            ("badge = true", "push.badge", "whole number"),
            ('priority = "hihg"', "push.priority", "did you mean high"),
            ('image = "http://bank.example/i.png"', "push.image", "https"),
            ('colour = "red"', "push.colour", "unknown key"),
            ("sound = 1", "push.sound", "must be a text"),
        )
    ),
    ("hello/template.toml", 'topic = "', 'sms = { segments_max = 0 }\ntopic = "', 8, "sms.segments_max", "whole number from 1"),
    ("hello/template.toml", 'topic = "', 'sms = { segment = 1 }\ntopic = "', 8, "sms.segment", "unknown key"),
    ("hello/template.toml", 'example = "rowing"', 'example = "rowing"\nsamples = "x"', 19, "variables.hobby.samples", "a list"),
    ("hello/template.toml", 'example = "rowing"', 'example = "rowing"\nsamples = [[]]', 19, "variables.hobby.samples", "text"),
    (
        "hello/template.toml",
        'category = "identity"',
        'categorie = "identity"',
        11,
        "variables.first_name.categorie",
        "did you mean",
    ),
    ("hello/template.toml", 'type = "url"', 'type = "link"', 22, "variables.offer_url.type", "known:"),
    ("hello/template.toml", "https://partner", "http://partner", 23, "variables.offer_url.example", "https"),
    ("hello/template.toml", "[variables.hobby]", "[variables.mode]", 15, "variables.mode", "reserved"),
    ("hello/template.toml", "required = false", "required = maybe", 12, "syntax", "Invalid value"),
    ("hello/fr/texts.toml", 'subject = "R&D', 'subjects = "R&D', 7, "email.subjects", "did you mean subject"),
    ("hello/fr/texts.toml", 'title = "Hello"\n', "", 1, "push.title", "is missing"),
    ("hello/fr/texts.toml", '"Look"', '"{{ first_nam }}"', 8, "first_nam", "did you mean first_name"),
    ("hello/fr/texts.toml", '"Look"', "'''\nLook\n{{ first_nam }}'''", 10, "first_nam", "did you mean first_name"),
    ("hello/fr/texts.toml", '"Look"', '"{{ first_name }"', 8, "syntax", "unexpected"),
    ("hello/fr/texts.toml", '"Look"', '"{{ offer_url | urlize }}"', 8, "syntax", "urlize"),
    ("hello/fr/texts.toml", '"Look"', '"{{ sender.nmae }}"', 8, "sender.nmae", "did you mean name"),
    ("hello/fr/texts.toml", "mode == 'tailored' %}For", "mode == 'taylored' %}For", 3, "mode", "did you mean tailored"),
    (
        "hello/fr/texts.toml",
        "{% if mode == 'tailored' %}For {{ hobby }}. {% endif %}",
        "{{ hobby }}",
        3,
        "hobby",
        "does not declare",
    ),
    ("hello/fr/texts.toml", '"Hello"', '"Hello {{ first_name }}"', 2, "first_name", "may be absent"),
    ("hello/fr/texts.toml", "{{ warning }} {{ links", "{{ links", 1, "credit_warning", "guard objects"),
    ("hello/fr/texts.toml", "0001", "001", 14, "whatsapp.tailored.content_sid", "32 hexadecimal"),
    ("hello/fr/texts.toml", "see {{2}} or", "see", 15, "whatsapp.tailored.approved", "without a gap"),
    ("hello/fr/texts.toml", "[whatsapp.standard]", "[whatsapp.standaard]", 20, "whatsapp.standaard", "did you mean standard"),
    (
        "hello/fr/email.html",
        '"_shared/layout.html"',
        '"_shared/layuot.html"',
        1,
        "_shared/layuot.html",
        "did you mean _shared/layout.html",
    ),
    ("hello/fr/email.html", '"_shared/layout.html"', "first_name", 1, "reference", "in quotes"),
    ("hello/fr/email.html", "import button", "import buttons as button", 2, "buttons", "did you mean button"),
    ("hello/fr/email.html", "title=\"{{ first_name or '' }}\"", "title={{ first_name }}", 4, "attribute", "quotes"),
    ("hello/fr/email.html", "<p title", '<a href="{{ hobby }}">x</a><p title', 4, "hobby", "type url"),
    ("hello/fr/email.html", "<p title", "<script>x</script><p title", 4, "<script", "no place"),
    ("hello/fr/email.html", "{{ hobby }}", '<a href="https://x.example/{{ hobby }}">x</a>', 4, "hobby", "may stand in no link"),
    ("hello/fr/email.html", "{{ hobby }}", '<a href="ftp://x.example/">x</a>', 4, "a href", "https address"),
    ("_shared/layout.html", "{{ warning }}", "{{ hobby }}", 4, "hobby", "undeclared"),
    ("_shared/layout.html", 'href="{{ links.unsubscribe }}"', 'href="{{ links.preferences }}"', 1, "way_out", "guard objects"),
    ("_shared/legal.toml", 'de = "Geld kostet Geld."\n', "", 7, "topics.consumer_credit", "each of"),
    ("_shared/legal.toml", '"balance"', '"transactions"', 3, "hobby", "locked screen"),
)


@pytest.mark.parametrize(("file", "old", "new", "line", "field", "message"), HOSTILE)
def test_a_fault_is_reported_with_file_line_and_field(
    tmp_path: Path, file: str, old: str, new: str, line: int, field: str, message: str
) -> None:
    files = small_folder()
    assert old in files[file], "the replacement must change the file"
    files[file] = files[file].replace(old, new, 1)
    faults = check(write(tmp_path, files))
    matches = [fault for fault in faults if fault.field == field and fault.line == line and message in fault.message]
    assert matches, "\n".join(map(str, faults))
    assert file.startswith("_shared/") or all(fault.file == file for fault in matches)


def test_an_sms_longer_than_declared_is_reported(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/template.toml"] = DECLARATION.replace('topic = "', 'sms = { segments_max = 1 }\ntopic = "')
    for language in LANGUAGES:
        files[f"hello/{language}/texts.toml"] = files[f"hello/{language}/texts.toml"].replace(
            "{{ sender.name }}:", "{{ sender.name }}" + "x" * 160
        )
    sender = MessageSender("KBC", "info@kbc-bank.example")
    with pytest.raises(InvalidTemplates) as invalid:
        load_version(read_folder(write(tmp_path, files))[0], senders=dict.fromkeys(LANGUAGES, sender))
    faults = invalid.value.faults
    assert {(fault.file, fault.line, fault.field) for fault in faults} == {
        (f"hello/{language}/texts.toml", 11, "sms.text") for language in LANGUAGES
    }
    assert all("takes 2 segments, GSM-7, more than segments_max = 1" in fault.message for fault in faults)


def test_samples_are_tried_when_templates_are_loaded(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/template.toml"] += 'samples = ["https://partner.example/?who=1"]\n'
    faults = check(write(tmp_path, files))
    assert {fault.field for fault in faults} == {"link_leak"}
    assert all("from the examples with samples, number 1" in fault.message for fault in faults)


def test_a_missing_or_unused_file_is_reported(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/de/emial.html"] = files.pop("hello/de/email.html")
    files["hello/logo.png"] = "x"
    del files["hello/en/texts.toml"]
    request = {(fault.file, re.split("[:;]", fault.message)[0]) for fault in check(write(tmp_path, files))}
    assert request >= {
        ("hello/de/email.html", "is missing, and the template declares e-mail"),
        ("hello/de/emial.html", "is used by nothing"),
        ("hello/logo.png", "unexpected kind of file"),
        ("hello/en/texts.toml", "is missing"),
    }


def test_all_faults_are_reported_at_once_and_in_order(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/template.toml"] = DECLARATION.replace("entity", "entitty")
    for language in LANGUAGES:
        files[f"hello/{language}/email.txt"] = "{{ nobody }}"
    (write(tmp_path, files) / "hello" / "nl" / "texts.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidTemplates) as caught:
        load(tmp_path)
    places = [(fault.file, fault.line) for fault in caught.value.faults]
    assert places == sorted(places)
    named = {(fault.file, fault.field) for fault in caught.value.faults}
    assert {("hello/template.toml", "entitty"), ("hello/nl/texts.toml", "file")} <= named
    assert {(f"hello/{language}/email.txt", "nobody") for language in LANGUAGES} <= named


def test_no_folder_and_an_empty_one_are_faults(tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere")
    assert check(tmp_path)


TRICKS = (
    "{{ first_name.__class__ }}",
    "{{ first_name['__class__'] }}",
    "{{ ('' ~ mode)['format'] }}",
    "{{ sender.__class__.__mro__ }}",
    "{{ links['__class__'] }}",
    "{{ links.keys() }}",
    "{{ '{0.__class__}'.format(sender) }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.body() }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler }}",
    "{{ range(10) }}",
    "{{ sender | attr('name') }}",
    "{{ sender | tojson }}",
    "{{ offer_url | safe }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{% for a in offer_url %}x{% endfor %}",
    "{% for a in [1] %}{% for b in [1] %}x{% endfor %}{% endfor %}",
    "{% for a in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(1) }}",
    "{% macro f(g, n) %}{% if n %}{{ g(g, n - 1) }}{% endif %}{% endmacro %}{{ f(f, 1) }}",
    "{% autoescape false %}{{ offer_url }}{% endautoescape %}",
    "{% include offer_url %}",
    "{% include 'hello/fr/email.txt' %}",
    "{% import 'os' as os %}",
    "{% do 1 %}",
    "{{ " + "(" * 200 + "1" + ")" * 200 + " }}",
)


@pytest.mark.parametrize("trick", TRICKS)
def test_a_text_cannot_leave_the_sandbox(tmp_path: Path, trick: str) -> None:
    files = small_folder()
    files["hello/fr/email.txt"] += trick
    assert any(fault.file == "hello/fr/email.txt" for fault in check(write(tmp_path, files)))


def test_a_subject_over_two_lines_is_sent_as_one(tmp_path: Path) -> None:
    files = small_folder()
    texts = files["hello/nl/texts.toml"]
    assert 'subject = "R&D ' in texts
    files["hello/nl/texts.toml"] = texts.replace('subject = "R&D ', 'subject = "R&D\\n')
    mail = load(write(tmp_path, files))["hello"].render(render_request())
    assert isinstance(mail, Email)
    assert mail.subject == "R&D for Lotte"


def test_the_digest_changes_with_every_byte(tmp_path: Path, hello: Template) -> None:
    for file in ("hello/de/email.txt", "_shared/legal.toml", "hello/template.toml"):
        files = small_folder()
        files[file] += "\n"
        assert load(write(tmp_path / file.replace("/", "-"), files))["hello"].digest != hello.digest


def test_an_unknown_template_is_refused_with_the_nearest_name(catalog: Catalog) -> None:
    with pytest.raises(KeyError, match="did you mean hello"):
        catalog["helo"]
