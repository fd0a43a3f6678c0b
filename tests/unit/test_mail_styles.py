"""Plain HTML with a style sheet: rules are written into the elements when templates are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.base import Channel, Email, MergedEmail, assemble
from dispatcher.content import check, example_request, load
from dispatcher.content.inline_styles import inlined_sources
from dispatcher.domain.message import Mode
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write

NL = "offer/nl/email.html"
SHEET = """{% block style %}<style>
.lead { color: {{ theme.ink }}; margin: 0 0 18px }
td.cell { padding: 4px }
a:hover { text-decoration: none }
@media (prefers-color-scheme: dark) { .lead { color: {{ theme.dark_ink }} } }
</style>{% endblock %}
"""


def styled_folder(sheet: str = SHEET) -> dict[str, str]:
    """The sound folder, with a style sheet of its own in the Dutch mail."""
    files = sound_folder()
    files["_shared/layout.html"] = files["_shared/layout.html"].replace("</head>", "{% block style %}{% endblock %}</head>")
    files[NL] = files[NL].replace("{% block headline %}", f"{sheet}{{% block headline %}}", 1).replace("<p>", '<p class="lead">', 1)
    return files


def mail(folder: Path, *, specialised: bool = False) -> Email:
    template = load(folder, (lambda: 1.0) if specialised else None)["offer"]
    request = example_request(template, Channel.EMAIL, "nl", Mode.TAILORED)
    template.render(request)
    content = template.render(request)
    assert isinstance(content, MergedEmail) is specialised
    email = assemble(content)
    assert isinstance(email, Email)
    return email


def test_rules_reach_elements_and_theme_values_stay(tmp_path: Path) -> None:
    html = mail(write(tmp_path, styled_folder())).html
    assert '<p style="color: #1c2b36;margin: 0 0 18px;" class="lead">' in html
    assert "{{" not in html


def test_what_no_attribute_can_say_stays_in_the_sheet(tmp_path: Path) -> None:
    html = mail(write(tmp_path, styled_folder())).html
    assert "a:hover { text-decoration: none }" in html
    assert "@media (prefers-color-scheme: dark) { .lead { color: #f2f5f7 !important } }" in html


def test_a_specialised_mail_with_styles_is_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path, styled_folder())
    assert mail(folder, specialised=True) == mail(folder)


def test_a_layout_s_rules_reach_the_mails_that_extend_it(tmp_path: Path) -> None:
    files = styled_folder("")
    files["_shared/layout.html"] = files["_shared/layout.html"].replace(".muted {", ".lead { font-size: 17px } .muted {")
    assert '<p style="font-size: 17px;" class="lead">' in mail(write(tmp_path, files)).html


def test_an_ignored_sheet_is_sent_as_it_is(tmp_path: Path) -> None:
    files = styled_folder(SHEET.replace("<style>", '<style data-css-inline="ignore">'))
    html = mail(write(tmp_path, files)).html
    assert '<p class="lead">' in html
    assert "data-css-inline" not in html
    assert "color: #f2f5f7 }" in html


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<tr><td>{{ x }}</td></tr>", '<tr><td style="padding: 1px;">{{ x }}</td></tr>'),
        ('<td\n  style="margin:0;\n  color:red">', '<td\n  style="padding: 1px;margin: 0;color: red"\n>'),
        ("<!--[if mso]><td>{{ x }}</td><![endif]-->", "<!--[if mso]><td>{{ x }}</td><![endif]-->"),
        ('{% if x %}<td title="{{ x }}">{% else %}<td>{% endif %}', None),
    ],
)
def test_only_style_attributes_change(html: str, expected: str | None) -> None:
    sheet = "<style>td { padding: 1px }</style>\n"
    [result] = inlined_sources({"a.html": sheet + html}).values()
    assert result.count("\n") == (sheet + html).count("\n")
    assert result == sheet + (expected or html.replace("<td", '<td style="padding: 1px;"'))


@pytest.mark.parametrize(
    ("sheet", "line", "message"),
    [
        (SHEET.replace("</style>", "{% if first_name %}{% endif %}</style>"), 4, "may hold no statement"),
        ("<style>p { color: red }</style>\n", 4, "stands outside a block"),
        (SHEET.replace("{{ theme.ink }}", "{{ first_name }}"), 4, "a style can't hold a variable"),
    ],
)
def test_a_sheet_that_cannot_work_is_reported(tmp_path: Path, sheet: str, line: int, message: str) -> None:
    faults = check(write(tmp_path, styled_folder(sheet)))
    assert any((fault.file, fault.line) == (NL, line) and message in fault.message for fault in faults), faults
