"""The text part of a mail that has no `email.txt`: made from the HTML when templates are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.base import Channel, Email, MergedEmail, assemble
from dispatcher.content import check, example_request, load
from dispatcher.content.environment import environment
from dispatcher.content.generated_text import generated_texts
from dispatcher.domain.message import Mode
from tests.support.services import TEMPLATES, shipped_templates
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write


def without_texts(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if not name.endswith("/email.txt")}


def shipped_files() -> dict[str, str]:
    paths = [path for path in TEMPLATES.rglob("*") if path.is_file() and path.suffix in (".toml", ".html", ".txt")]
    return {path.relative_to(TEMPLATES).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def text_of(html: str, **values: str) -> str:
    """The text of one HTML source, filled."""
    env = environment({})
    return env.from_string(generated_texts(env, "a.html", {"a.html": html})["a.html"]).render(values)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>A</h1>\n<p>one\n  two</p><p>three</p>", "A\n\none two\n\nthree\n"),
        ('<p>See <a href="{{ url }}">the <b>page</b></a>.</p>', "See the page: https://b.example/ .\n"),
        ("<ul><li>a</li><li>b</li></ul><p>c</p>", "- a\n- b\n\nc\n"),
        ('<table><tr><th scope="row">Rate</th><td>5 &amp; 6</td></tr></table>', "Rate: 5 & 6\n"),
        ('<img src="https://b.example/a.png" alt="A kitchen"><p>b</p>', "A kitchen\n\nb\n"),
        ('<div style="display:none">hidden {{ url }}</div><p>x</p>', "x\n"),
        ("<head><title>t</title><style>p{}</style></head><p>x<br>y</p><!-- {{ url }} -->", "x\ny\n"),
        ("<p>a {% if url %}<b>b</b>{% endif %} c</p>{% if url %}<p>d</p>{% endif %}<p>e</p>", "a b c\n\nd\n\ne\n"),
        ("<p>&#123;{ 1 }}</p>", "{{ 1 }}\n"),
        (
            '{% macro row(a) %}<tr><td>{{ a }}</td></tr>{% endmacro %}<table>{{ row("1") }}{{ row("2") }}</table><p>c</p>',
            "1\n2\n\nc\n",
        ),
    ],
)
def test_html_becomes_lines(html: str, text: str) -> None:
    assert text_of(html, url="https://b.example/") == text


def test_every_shipped_mail_could_do_without_its_text(tmp_path: Path) -> None:
    catalog, written = load(write(tmp_path, without_texts(shipped_files()))), shipped_templates()
    for name, template in catalog.items():
        for language in template.languages:
            request = example_request(template, Channel.EMAIL, language, sorted(template.info.modes)[0])
            content, own = template.render(request), written[name].render(request)
            assert isinstance(content, Email)
            assert isinstance(own, Email)
            assert "\n\n\n\n\n" not in content.text
            assert "<" not in content.text
            for line in (each for each in own.text.splitlines() if each.startswith("https://")):
                assert line in content.text, (name, language)


def test_a_specialised_mail_with_a_made_text_is_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path, without_texts(sound_folder()))
    plain, fast = load(folder)["offer"], load(folder, lambda: 1.0)["offer"]
    request = example_request(plain, Channel.EMAIL, "nl", Mode.TAILORED)
    fast.render(request)
    content = fast.render(request)
    assert isinstance(content, MergedEmail)
    assert assemble(content) == plain.render(request)


def test_html_without_a_text_form_asks_for_one(tmp_path: Path) -> None:
    files = without_texts(sound_folder())
    html = files["offer/nl/email.html"]
    files["offer/nl/email.html"] = html.replace("<h2>", "<div hidden>{% if amount %}</div>{% endif %}<h2>")
    [fault] = check(write(tmp_path, files))
    assert (fault.file, fault.field, fault.message) == (
        "offer/nl/email.html",
        "email.txt",
        "is missing, and cannot be made from this HTML: write it",
    )
