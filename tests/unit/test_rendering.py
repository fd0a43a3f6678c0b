"""Message templates: a folder is taken whole or refused with every fault; a message holds what it may and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.base import Channel, Content, Email, Push, PushOptions, Sms, WhatsApp
from channels.sms_segments import GSM_BASIC, GSM_EXTENSION
from dispatcher.content import (
    Catalog,
    ContentRefusal,
    InvalidTemplates,
    MessageLinks,
    MessageSender,
    RenderRequest,
    Template,
    check,
    count_segments,
    load,
    preview,
)
from dispatcher.content.formats import day, money, number, percent
from dispatcher.content.guard import ContentRequirements, objection
from dispatcher.content.values import read_number
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES

SECRET = "Zephyrine"  # a value that must never show where it is not allowed
LINKS = MessageLinks("https://bank.example/u/abc?t=1&k=2", "https://bank.example/p/abc")
SENDER = MessageSender("Bank & Co", "news@bank.example")
ALL = frozenset({"identity", "transactions", "product"})

LEGAL = """\
[advertising]
nl = "Reclame"
fr = "Publicité"
de = "Werbung"
en = "Advertising"

[topics.consumer_credit]
nl = "Geld lenen kost geld."
fr = "L'argent coûte de l'argent."
de = "Geld kostet Geld."
en = "Money costs money."

[push]
withheld_categories = ["balance"]
"""

DECLARATION = """\
name = "hello"
version = "1"
kind = "commercial"
entity = "kbc-bank"
offer_type = "partner"
modes = ["tailored", "standard"]
channels = ["push", "email", "sms", "whatsapp"]
topic = "consumer_credit"

[variables.first_name]
category = "identity"
required = false
example = "Ann"

[variables.hobby]
category = "transactions"
modes = ["tailored"]
example = "rowing"

[variables.offer_url]
category = "product"
type = "url"
example = "https://partner.example/boats"
"""

TEXTS = """\
[push]
title = "Hello"
body = "{% if mode == 'tailored' %}For {{ hobby }}. {% endif %}{{ warning }}"
link = "{{ offer_url }}"

[email]
subject = "R&D {% if first_name %}for {{ first_name }}{% endif %}"
preheader = "Look"

[sms]
text = "{{ sender.name }}: {% if mode == 'tailored' %}{{ hobby }}{% endif %} {{ offer_url }} {{ warning }} {{ links.unsubscribe }}"

[whatsapp.tailored]
content_sid = "HX00000000000000000000000000000001"
approved = "Dear {{1}}, see {{2}} or {{3}}. WARNING"
1 = "{{ sender.name }}"
2 = "{{ offer_url }}"
3 = "{{ links.unsubscribe }}"

[whatsapp.standard]
content_sid = "HX00000000000000000000000000000002"
approved = "Dear {{1}}, see {{2}}. WARNING"
1 = "{{ sender.name }}"
2 = "{{ links.unsubscribe }}"
"""

LAYOUT = """\
<html lang="{{ language }}"><head><title>{% block title %}{% endblock %}</title></head>
<body><i>{% block preheader %}{% endblock %}</i>
{% block body %}{% endblock %}
<p>MARK {{ sender.name }} {{ warning }} <a href="{{ links.unsubscribe }}">x</a></p></body></html>
"""

HTML = """\
{% extends "_shared/layout.html" %}
{% from "_shared/macros.html" import button %}
{% block body %}
<p title="{{ first_name or '' }}">{{ first_name or "" }}{% if mode == "tailored" %} {{ hobby }}{% endif %}</p>
{{ button(offer_url) }}
{% endblock %}
"""

MAIL_TEXT = "MARK {{ sender.name }} {% if mode == 'tailored' %}{{ hobby }}{% endif %} {{ warning }} {{ links.unsubscribe }}"


def small_folder() -> dict[str, str]:
    """The smallest folder in which every idea of a template occurs, sound in every part."""
    marks = dict(zip(LANGUAGES, ("Reclame", "Publicité", "Werbung", "Advertising"), strict=True))
    warnings = dict(
        zip(
            LANGUAGES,
            ("Geld lenen kost geld.", "L'argent coûte de l'argent.", "Geld kostet Geld.", "Money costs money."),
            strict=True,
        )
    )
    files = {
        "_shared/legal.toml": LEGAL,
        "_shared/macros.html": '{% macro button(url) %}<a href="{{ url }}">go</a>{% endmacro %}',
        "hello/template.toml": DECLARATION,
        "notes.md": "is nobody's business",
    }
    files["_shared/layout.html"] = LAYOUT.replace("MARK", "Reclame Publicité Werbung Advertising")
    for language in LANGUAGES:
        files[f"hello/{language}/texts.toml"] = TEXTS.replace("WARNING", warnings[language])
        files[f"hello/{language}/email.html"] = HTML
        files[f"hello/{language}/email.txt"] = MAIL_TEXT.replace("MARK", marks[language])
    return files


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = write(tmp_path_factory.mktemp("templates"), small_folder())
    loaded = load(folder)
    shutil.rmtree(folder)  # nothing is read from the disk after loading
    return loaded


@pytest.fixture(scope="module")
def hello(catalog: Catalog) -> Template:
    return catalog["hello"]


def letter(**changes: Any) -> RenderRequest:
    base = RenderRequest(
        channel=Channel.EMAIL,
        language="nl",
        mode=Mode.TAILORED,
        categories=ALL,
        data={"first_name": "Lotte", "hobby": "roeien", "offer_url": "https://partner.example/boten"},
        sender=SENDER,
        links=LINKS,
    )
    return replace(base, **changes)


def refusal(template: Template, wanted: RenderRequest) -> tuple[ReasonCode, str]:
    with pytest.raises(ContentRefusal) as caught:
        template.render(wanted)
    assert SECRET not in str(caught.value)
    return caught.value.code, caught.value.variable


# -- a folder is taken whole or not at all -----------------------------------------------------------------------------

HOSTILE: tuple[tuple[str, str, str, int, str, str], ...] = (
    # file, what stands there, what is put in its place, line of the fault, its field, part of its message
    ("hello/template.toml", 'topic = "', 'topik = "', 8, "topik", "did you mean 'topic'"),
    ("hello/template.toml", '"consumer_credit"', '"consumer_credits"', 8, "topic", "did you mean 'consumer_credit'"),
    ("hello/template.toml", 'name = "hello"', 'name = "hallo"', 1, "name", "'hello'"),
    ("hello/template.toml", 'version = "1"', "version = 1", 2, "version", "must be a text"),
    ("hello/template.toml", 'kind = "commercial"', 'kind = "service"', 5, "offer_type", "offers nothing"),
    ("hello/template.toml", 'kind = "commercial"\n', "", 1, "kind", "is missing"),
    ("hello/template.toml", '"push", "email"', '"push", "e-mail"', 7, "channels", "did you mean 'email'"),
    ("hello/template.toml", 'topic = "', 'coins = true\ntopic = "', 6, "modes", "tailored contract"),
    *(
        ("hello/template.toml", "[variables.first_name]", f"[push]\n{fault}\n[variables.first_name]", 11, field, message)
        for fault, field, message in (
            ('collapse_key = "new offers"', "push.collapse_key", "at most 32"),
            ("ttl_seconds = -1", "push.ttl_seconds", "whole number"),
            ("badge = true", "push.badge", "whole number"),
            ('priority = "hihg"', "push.priority", "did you mean 'high'"),
            ('image = "http://bank.example/i.png"', "push.image", "https"),
            ('colour = "red"', "push.colour", "unknown key"),
            ("sound = 1", "push.sound", "must be a text"),
        )
    ),
    (
        "hello/template.toml",
        'category = "identity"',
        'categorie = "identity"',
        11,
        "variables.first_name.categorie",
        "did you mean",
    ),
    ("hello/template.toml", 'type = "url"', 'type = "link"', 22, "variables.offer_url.type", "known are"),
    ("hello/template.toml", "https://partner", "http://partner", 23, "variables.offer_url.example", "https"),
    ("hello/template.toml", "[variables.hobby]", "[variables.mode]", 15, "variables.mode", "reserved"),
    ("hello/template.toml", "required = false", "required = maybe", 12, "syntax", "Invalid value"),
    ("hello/fr/texts.toml", 'subject = "R&D', 'subjects = "R&D', 7, "email.subjects", "did you mean 'subject'"),
    ("hello/fr/texts.toml", 'title = "Hello"\n', "", 1, "push.title", "is missing"),
    ("hello/fr/texts.toml", '"Look"', '"{{ first_nam }}"', 8, "first_nam", "did you mean 'first_name'"),
    ("hello/fr/texts.toml", '"Look"', "'''\nLook\n{{ first_nam }}'''", 10, "first_nam", "did you mean 'first_name'"),
    ("hello/fr/texts.toml", '"Look"', '"{{ first_name }"', 8, "syntax", "unexpected"),
    ("hello/fr/texts.toml", '"Look"', '"{{ offer_url | urlize }}"', 8, "syntax", "urlize"),
    ("hello/fr/texts.toml", '"Look"', '"{{ sender.nmae }}"', 8, "sender.nmae", "did you mean 'name'"),
    ("hello/fr/texts.toml", "mode == 'tailored' %}For", "mode == 'taylored' %}For", 3, "mode", "did you mean 'tailored'"),
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
    ("hello/fr/texts.toml", "[whatsapp.standard]", "[whatsapp.standaard]", 20, "whatsapp.standaard", "did you mean 'standard'"),
    (
        "hello/fr/email.html",
        '"_shared/layout.html"',
        '"_shared/layuot.html"',
        1,
        "_shared/layuot.html",
        "did you mean '_shared/layout.html'",
    ),
    ("hello/fr/email.html", '"_shared/layout.html"', "first_name", 1, "reference", "in quotes"),
    ("hello/fr/email.html", "import button", "import buttons as button", 2, "buttons", "did you mean 'button'"),
    ("hello/fr/email.html", "title=\"{{ first_name or '' }}\"", "title={{ first_name }}", 4, "attribute", "quotes"),
    ("hello/fr/email.html", "<p title", '<a href="{{ hobby }}">x</a><p title', 4, "hobby", "type url"),
    ("hello/fr/email.html", "<p title", "<script>x</script><p title", 4, "<script", "no place"),
    ("hello/fr/email.html", "{{ hobby }}", '<a href="https://x.example/{{ hobby }}">x</a>', 1, "link_leak", "guard objects"),
    ("hello/fr/email.html", "{{ hobby }}", '<a href="ftp://x.example/">x</a>', 1, "link_scheme", "guard objects"),
    ("_shared/layout.html", "{{ warning }}", "{{ hobby }}", 4, "hobby", "undeclared"),
    ("_shared/layout.html", 'href="{{ links.unsubscribe }}"', 'href="{{ links.preferences }}"', 1, "way_out", "guard objects"),
    ("_shared/legal.toml", 'de = "Geld kostet Geld."\n', "", 7, "topics.consumer_credit", "each of"),
    ("_shared/legal.toml", '"balance"', '"transactions"', 3, "hobby", "locked screen"),
)


@pytest.mark.parametrize(("file", "old", "new", "line", "field", "message"), HOSTILE)
def test_a_fault_is_told_with_file_line_and_field(
    tmp_path: Path, file: str, old: str, new: str, line: int, field: str, message: str
) -> None:
    files = small_folder()
    assert old in files[file], "the disturbance must disturb"
    files[file] = files[file].replace(old, new, 1)
    faults = check(write(tmp_path, files))
    matching = [fault for fault in faults if fault.field == field and fault.line == line and message in fault.message]
    assert matching, "\n".join(map(str, faults))
    assert file.startswith("_shared/") or all(fault.file == file for fault in matching)


def test_a_missing_or_stray_file_is_told(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/de/emial.txt"] = files.pop("hello/de/email.txt")
    files["hello/logo.png"] = "x"
    del files["hello/en/texts.toml"]
    told = {(fault.file, fault.message.split(":")[0]) for fault in check(write(tmp_path, files))}
    assert told >= {
        ("hello/de/email.txt", "is missing, and the template declares e-mail"),
        ("hello/de/emial.txt", "is used by nothing"),
        ("hello/logo.png", "unexpected kind of file"),
        ("hello/en/texts.toml", "is missing"),
    }


def test_all_faults_are_told_at_once_and_in_order(tmp_path: Path) -> None:
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
def test_a_text_has_no_way_past_the_sandbox(tmp_path: Path, trick: str) -> None:
    files = small_folder()
    files["hello/fr/email.txt"] += trick
    assert any(fault.file == "hello/fr/email.txt" for fault in check(write(tmp_path, files)))


def test_a_subject_written_over_two_lines_leaves_as_one(tmp_path: Path) -> None:
    files = small_folder()
    texts = files["hello/nl/texts.toml"]
    assert 'subject = "R&D ' in texts
    files["hello/nl/texts.toml"] = texts.replace('subject = "R&D ', 'subject = "R&D\\n')
    mail = load(write(tmp_path, files))["hello"].render(letter())
    assert isinstance(mail, Email)
    assert mail.subject == "R&D for Lotte"


def test_the_digest_notices_every_byte_that_could_change_a_message(tmp_path: Path, hello: Template) -> None:
    for file in ("hello/de/email.txt", "_shared/legal.toml", "hello/template.toml"):
        files = small_folder()
        files[file] += "\n"
        assert load(write(tmp_path / file.replace("/", "-"), files))["hello"].digest != hello.digest


def test_an_unknown_template_is_refused_with_the_nearest_name(catalog: Catalog) -> None:
    with pytest.raises(KeyError, match="did you mean 'hello'"):
        catalog["helo"]


# -- what a message is written from ------------------------------------------------------------------------------------


def test_every_channel_is_written_from_one_letter(hello: Template) -> None:
    mail = hello.render(letter())
    assert isinstance(mail, Email)
    assert (mail.sender_name, mail.sender_address, mail.subject) == ("Bank & Co", "news@bank.example", "R&D for Lotte")
    assert "<title>R&amp;D for Lotte</title>" in mail.html
    assert mail.headers == (
        ("List-Unsubscribe", "<https://bank.example/u/abc?t=1&k=2>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )
    push = hello.render(letter(channel=Channel.PUSH))
    assert push == Push("Hello", "For roeien. Geld lenen kost geld.", "https://partner.example/boten")
    sms = hello.render(letter(channel=Channel.SMS, mode=Mode.STANDARD))
    assert isinstance(sms, Sms)
    assert "roeien" not in sms.text
    whatsapp = hello.render(letter(channel=Channel.WHATSAPP, mode=Mode.STANDARD))
    assert whatsapp == WhatsApp("HX00000000000000000000000000000002", {"1": "Bank & Co", "2": LINKS.unsubscribe})


def test_a_push_behaves_as_its_template_declares(tmp_path: Path) -> None:
    files = small_folder()
    options = '[push]\ncollapse_key = "hello"\nttl_seconds = 3600\npriority = "high"\nsound = "default"\nbadge = 0\n'
    more = 'image = "https://bank.example/i.png"\nicon = "ic"\nandroid_channel = "offers"\n'
    files["hello/template.toml"] = files["hello/template.toml"].replace(
        "[variables.first_name]", f"{options}{more}[variables.first_name]"
    )
    push = load(write(tmp_path, files))["hello"].render(letter(channel=Channel.PUSH))
    assert isinstance(push, Push)
    assert push.options == PushOptions("hello", 3600, "high", "default", 0, "https://bank.example/i.png", "ic", "offers")


def test_the_job_s_value_wins_over_the_profile_s(hello: Template) -> None:
    profile = {"transactions": {"hobby": "zeilen"}, "identity": {"hobby": SECRET}}
    data = {"offer_url": "https://partner.example/boten"}
    push = hello.render(letter(channel=Channel.PUSH, data={**data, "hobby": "roeien"}, profile=profile))
    assert isinstance(push, Push)
    assert push.body.startswith("For roeien")
    push = hello.render(letter(channel=Channel.PUSH, data={**data, "hobby": " "}, profile=profile))
    assert isinstance(push, Push)
    assert push.body.startswith("For zeilen")


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("mode", [Mode.TAILORED, Mode.STANDARD])
def test_data_that_the_decision_does_not_allow_reaches_no_text(hello: Template, channel: Channel, mode: Mode) -> None:
    told = letter(
        channel=channel,
        mode=mode,
        categories=frozenset({"product"}),
        data={"offer_url": "https://partner.example/boten", "first_name": SECRET, "hobby": SECRET, "other": SECRET},
        profile={"identity": {"first_name": SECRET}, "transactions": {"hobby": SECRET}, "product": {"hobby": SECRET}},
    )
    assert SECRET not in str(hello.context(told))
    if mode is Mode.STANDARD or channel is Channel.WHATSAPP:
        assert SECRET not in str(hello.render(told))
    else:
        assert refusal(hello, told) == (ReasonCode.WITHHELD_VARIABLE, "hobby")


def test_a_variable_of_the_other_mode_stays_out_even_where_its_category_is_allowed(hello: Template) -> None:
    told = letter(mode=Mode.STANDARD, data={"hobby": SECRET, "offer_url": "https://partner.example/boten"})
    assert SECRET not in str(hello.context(told)) + str(hello.render(told))


def test_a_missing_variable_refuses_only_the_texts_that_ask_for_it(hello: Template) -> None:
    told = letter(channel=Channel.PUSH, data={"offer_url": "https://partner.example/boten"})
    assert refusal(hello, told) == (ReasonCode.MISSING_VARIABLE, "hobby")
    hello.render(replace(told, mode=Mode.STANDARD))
    hello.render(replace(told, channel=Channel.WHATSAPP))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("offer_url", f"javascript:{SECRET}"), ("offer_url", f"https://x@{SECRET}.example"), ("hobby", [SECRET]), ("hobby", True)],
)
def test_a_value_of_the_wrong_type_refuses_the_message_and_is_not_repeated(hello: Template, variable: str, value: Any) -> None:
    told = letter(data={**letter().data, variable: value})
    assert refusal(hello, told) == (ReasonCode.FAULT, variable)
    assert [name for name, _ in hello.objections(told.data)] == [variable]


def test_a_number_is_read_as_it_is_written_whatever_was_read_before() -> None:
    for value in (1, 1.0, "1", "1.00", Decimal("1.0"), Decimal(1), 1):
        assert str(read_number(value)) == str(value)
    assert [str(read_number(value)) for value in (-0.0, 0.0, "-0")] == ["0.0", "0.0", "0"]


def test_a_job_s_data_is_judged_at_the_door(hello: Template) -> None:
    assert hello.objections({"hobby": "x"}) == []
    assert [name for name, _ in hello.objections({"hoby": "x"})] == ["hoby"]


def test_what_a_template_does_not_have_is_a_refusal_never_another_error(hello: Template) -> None:
    assert refusal(hello, letter(mode=Mode.NONE)) == (ReasonCode.FAULT, "mode")
    assert refusal(hello, letter(language="it"))[0] is ReasonCode.FAULT


def test_a_preview_takes_examples_for_what_is_not_given(catalog: Catalog) -> None:
    push = preview(catalog, "hello", Channel.PUSH, "en", Mode.TAILORED, {})
    assert isinstance(push, Push)
    assert push.body == "For rowing. Money costs money."


# -- hostile values ----------------------------------------------------------------------------------------------------


class Shape(HTMLParser):
    """The tags and attribute names of a page, without what stands between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Any] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)


@given(value=st.text(min_size=1, max_size=80).filter(str.strip))
@example(value='"><script>alert(1)</script>')
@example(value="' onmouseover='x")
@example(value="Lotte\r\nBcc: all@bank.example")
@example(value="{{ links.unsubscribe }}{% include 'x' %}")
@example(value="\u202eevil\u2028")
def test_a_hostile_value_stays_a_value(hello: Template, value: str) -> None:
    plain, hostile = (hello.render(letter(data={**letter().data, "first_name": name, "hobby": name})) for name in ("Lotte", value))
    assert isinstance(plain, Email)
    assert isinstance(hostile, Email)
    assert Shape(hostile.html).tags == Shape(plain.html).tags
    assert not {"\r", "\n", "\u2028", "\u202e", "\0"} & set(hostile.subject)
    assert hostile.headers == plain.headers


# -- what a message must hold ------------------------------------------------------------------------------------------

TERMS = ContentRequirements(
    commercial=True,
    warning="L'argent coûte.",
    mark="Publicité",
    sender="Bank & Co",
    unsubscribe="https://bank.example/u/abc?t=1&k=2",
    to_partner=True,
    own_hosts=frozenset({"bank.example"}),
    personal=("rowing",),
)
GOOD_MAIL = Email(
    "Bank & Co",
    "news@bank.example",
    "Hello",
    html='Publicité Bank &amp; Co L&#39;argent coûte. <a href="https://bank.example/u/abc?t=1&amp;k=2">x</a><a href="https://partner.example/a">y</a>',
    text="Publicité Bank & Co L'argent coûte. https://bank.example/u/abc?t=1&k=2 https://partner.example/a",
)
GOOD_SMS = Sms("Bank & Co: L'argent coûte. https://bank.example/u/abc?t=1&k=2 https://partner.example/a")
GOOD_PUSH = Push("Hello", "L'argent coûte.", "https://partner.example/a")


@pytest.mark.parametrize("content", [GOOD_MAIL, GOOD_SMS, GOOD_PUSH])
def test_the_guard_lets_a_sound_message_pass(content: Content) -> None:
    assert objection(content, "", TERMS) is None
    assert objection(WhatsApp("HX", {"1": "a"}), GOOD_SMS.text, TERMS) is None


def changed(content: Email, part: str, old: str, new: str) -> Email:
    before = getattr(content, part)
    assert old in before
    return replace(content, **{part: before.replace(old, new)})


@pytest.mark.parametrize("part", ["html", "text"])
@pytest.mark.parametrize(
    ("old", "new", "guard"),
    [
        ("coûte", "coute", "credit_warning"),
        ("Bank &", "Bonk &", "sender_named"),
        ("Publicité", "Information", "advertising_mark"),
        ("/u/abc", "/u/abd", "way_out"),
        ("partner.example/a", "partner.example/a?c=42", "link_leak"),
        ("partner.example/a", "partner.example/a#42", "link_leak"),
        ("partner.example/a", "partner.example/%72owing", "link_leak"),
        ("partner.example/a", "bank.example.partner.example/?a", "link_leak"),
    ],
)
def test_the_guard_notices_what_a_mail_lacks_in_either_part(part: str, old: str, new: str, guard: str) -> None:
    assert objection(changed(GOOD_MAIL, part, old, new), "", TERMS) == guard


@pytest.mark.parametrize(
    ("content", "guard"),
    [
        (replace(GOOD_MAIL, subject=""), "one_line_subject"),
        (replace(GOOD_MAIL, subject="Hello\nBcc: x"), "one_line_subject"),
        (changed(GOOD_MAIL, "html", "https://partner.example/a", "javascript:x"), "link_scheme"),
        (Sms(GOOD_SMS.text.replace("coûte", "coute")), "credit_warning"),
        (Sms(GOOD_SMS.text.replace("/u/", "/v/")), "way_out"),
        (Sms(GOOD_SMS.text.replace("Bank", "")), "sender_named"),
        (Sms(GOOD_SMS.text + "/rowing"), "link_leak"),
        (Sms(GOOD_SMS.text + "a" * 1_600), "sms_length"),
        (replace(GOOD_PUSH, body="Hello"), "credit_warning"),
        (replace(GOOD_PUSH, body=GOOD_PUSH.body + "€" * 1_400), "push_size"),
        (replace(GOOD_PUSH, link="https://partner.example/a?c=42"), "link_leak"),
        (WhatsApp("HX", {"1": " "}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a\nb"}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a"}), "credit_warning"),
    ],
)
def test_the_guard_names_what_it_objects_to(content: Content, guard: str) -> None:
    assert objection(content, "", TERMS) == guard


def test_a_service_message_owes_no_way_out() -> None:
    service = ContentRequirements(commercial=False, warning="", mark="Publicité", sender="Bank", unsubscribe="")
    assert objection(Sms("Your choice is recorded."), "", service) is None


def test_a_rendering_that_the_guard_refuses_never_leaves(hello: Template) -> None:
    told = letter(data={**letter().data, "offer_url": "https://partner.example/?customer=42"})
    assert refusal(hello, told) == (ReasonCode.CONTENT_GUARD, "link_leak")


# -- SMS segments ------------------------------------------------------------------------------------------------------


def by_definition(text: str) -> tuple[str, int]:
    """Segments told a second time: cut pieces off the front, each as long as a segment holds."""

    def length(piece: str) -> int:
        return sum(2 if c in "^{}\\[~]|€\f" else 1 for c in piece) if gsm else len(piece.encode("utf-16-be")) // 2

    gsm = all(c in GSM_BASIC | GSM_EXTENSION for c in text)
    single, multiple = (160, 153) if gsm else (70, 67)
    pieces: list[str] = [text] if text else []
    while pieces and length(pieces[-1]) > (multiple if len(pieces) > 1 else single):
        rest = pieces.pop()
        end = max(cut for cut in range(len(rest) + 1) if length(rest[:cut]) <= multiple)
        pieces += [rest[:end], rest[end:]]
    return "GSM-7" if gsm else "UCS-2", len(pieces)


alphabets = st.sampled_from(["a", "a€", "aé^{}", "aç", "a😀", "€", "😀"])


@given(alphabets.flatmap(lambda alphabet: st.text(alphabet=alphabet, max_size=330)))
def test_segments_are_counted_as_the_standard_defines_them(text: str) -> None:
    counted = count_segments(text)
    assert (counted.encoding, counted.count) == by_definition(text)


@pytest.mark.parametrize(
    ("text", "encoding", "count", "units"),
    [
        ("", "GSM-7", 0, 0),
        ("a" * 160, "GSM-7", 1, 160),
        ("a" * 161, "GSM-7", 2, 161),
        ("€" * 80, "GSM-7", 1, 160),
        ("a" * 152 + "€" + "a" * 153, "GSM-7", 3, 307),  # the pair moves on, and one place stays empty
        ("é" * 160, "GSM-7", 1, 160),
        ("ç" * 70, "UCS-2", 1, 70),
        ("ç" * 71, "UCS-2", 2, 71),
        ("😀" * 34, "UCS-2", 1, 68),
        ("ç" * 66 + "😀" + "ç" * 66, "UCS-2", 3, 134),
    ],
)
def test_known_lengths(text: str, encoding: str, count: int, units: int) -> None:
    counted = count_segments(text)
    assert (counted.encoding, counted.count, counted.units) == (encoding, count, units)


# -- amounts and days --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "amount", "cents", "rate", "when", "many"),
    [
        ("nl", "€ 15.000", "€ 1.234,50", "5,49%", "1 maart 2027", "12.345,5"),
        ("fr", "15 000 €", "1 234,50 €", "5,49 %", "1 mars 2027", "12 345,5"),
        ("de", "15.000 €", "1.234,50 €", "5,49 %", "1. März 2027", "12.345,5"),
        ("en", "€15,000", "€1,234.50", "5.49%", "1 March 2027", "12,345.5"),
    ],
)
def test_amounts_and_days_are_written_as_the_reader_does(
    language: str, amount: str, cents: str, rate: str, when: str, many: str
) -> None:
    def spaced(text: str) -> str:
        return text.replace("\u00a0", " ").replace("\u202f", " ")

    shown: Callable[..., str]
    for shown, value, expected in (
        (money, Decimal(15_000), amount),
        (money, Decimal("1234.5"), cents),
        (percent, Decimal("5.49"), rate),
        (day, date(2027, 3, 1), when),
        (number, Decimal("12345.5"), many),
    ):
        assert spaced(shown(language, value)) == expected
