"""`dispatcher templates serve`: pages for authors, from a folder and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from typer.testing import CliRunner

from channels.base import Push
from dispatcher.cli.command_groups import command_line
from dispatcher.content.edge_cases import edge_cases
from dispatcher.content.message_views import push_views, sms_view, whatsapp_view, with_scheme
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.policy import Policy, parse, shipped
from dispatcher.runtime.template_previews import message_preview, selections
from dispatcher.web.workbench import WorkbenchFolder, create_workbench
from dispatcher.web.workbench.app import folder_versions
from tests.support.services import TEMPLATES, templates
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write

POLICY: Policy = parse(shipped(), "policy.toml")
OFFER = "/templates/offer"


def opened(tmp_path: Path, changes: Mapping[str, tuple[str, str]] | None = None, data: Path | None = None) -> TestClient:
    files = sound_folder()
    for file, (old, new) in (changes or {}).items():
        assert old in files[file]
        files[file] = files[file].replace(old, new, 1)
    folder = WorkbenchFolder(POLICY, write(tmp_path, files), data)
    return TestClient(create_workbench(folder), base_url="http://127.0.0.1:8090")


def test_every_message_of_a_template_is_shown(tmp_path: Path) -> None:
    page = opened(tmp_path).get(OFFER).text
    for language in LANGUAGES:
        for mode in ("standard", "tailored"):
            for scheme in ("light", "dark"):
                assert page.count(f'src="{OFFER}/mail?language={language}&amp;mode={mode}&amp;scheme={scheme}"') == 2
    assert page.count('class="phone-sms"') == page.count('class="phone-whatsapp"') == 8
    assert page.count('class="screen ios"') == page.count('class="screen android"') == 16


def test_a_choice_limits_the_messages(tmp_path: Path) -> None:
    page = opened(tmp_path).get(f"{OFFER}?channel=sms&language=nl&mode=standard").text
    assert page.count('class="phone-sms"') == 1
    assert "iframe" not in page


def test_a_broken_template_is_shown_at_its_line(tmp_path: Path) -> None:
    client = opened(tmp_path, {"offer/nl/email.html": ("{% endblock %}", "{% endblok %}")})
    page = client.get(OFFER)
    assert page.status_code == 200
    assert "cannot be compiled" in page.text
    assert '<li class="at" id="offer/nl/email.html:3">' in page.text
    assert "<b>T003</b> error" in page.text
    assert "1 fault of loading" in client.get("/").text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("offer/template.toml", "kind = "),
        ("offer/template.toml", ""),
        ("offer/template.toml", sound_folder()["offer/template.toml"].replace("example = 1500", 'example = "nine"')),
        ("offer/nl/texts.toml", "[push"),
        ("offer/nl/texts.toml", "[email]\nsubject = '{{ ? }}'\npreheader = 'x'"),
        ("offer/nl/email.html", "{% extends 'x' %}" * 2),
        ("_shared/legal.toml", "="),
        ("_shared/layout.html", "{% block %}"),
        ("_shared/layout.html", "<script>{{ x }}</script>" + "<div>" * 3000),
    ],
)
def test_no_fault_of_a_file_ends_the_page(tmp_path: Path, file: str, text: str) -> None:
    client = opened(tmp_path)
    next(tmp_path.rglob(file)).write_text(text, encoding="utf-8")
    for path in ("/", OFFER):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "Traceback" not in answer.text
    assert "error" in client.get(OFFER).text


def test_after_a_fault_the_last_good_messages_stay(tmp_path: Path) -> None:
    client = opened(tmp_path)
    client.get(OFFER)
    path = next(tmp_path.rglob("offer/nl/email.html"))
    path.write_text(path.read_text(encoding="utf-8").replace("{% endblock %}", "{% endblok %}", 1), encoding="utf-8")
    page = client.get(OFFER).text
    assert "last version that could be compiled" in page
    assert page.count('class="phone-sms"') == 8


def test_own_values_replace_the_examples_and_faults_are_named(tmp_path: Path) -> None:
    client = opened(tmp_path)
    assert "Borrow up to €77" in client.get(OFFER, params={"data": '{"amount": 77}'}).text
    page = client.get(OFFER, params={"data": '{"amount": "x", "wrong": 1'}).text
    assert "Your own values: line 1, column" in page
    page = client.get(OFFER, params={"data": '{"amount": "x", "wrong": 1}'}).text
    assert "wrong: not declared by the template" in page
    assert "amount: must be a number" in page


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ('{"amount": 1%s}' % ("0" * 5_000), "has a number of too many digits"),
        ('{"first_name": "\\ud800"}', "has half a surrogate pair"),
    ],
)
def test_values_that_python_cannot_use_are_named(tmp_path: Path, data: str, fault: str) -> None:
    answer = opened(tmp_path).get(OFFER, params={"data": data})
    assert answer.status_code == 200
    assert f"Your own values: {fault}" in answer.text


def test_values_of_a_file_are_read_again(tmp_path: Path) -> None:
    data = tmp_path / "values.json"
    data.write_text('{"amount": 77}')
    client = opened(tmp_path / "folder", data=data)
    assert "Borrow up to €77" in client.get(OFFER).text
    data.write_text('{"amount": ')
    assert "values.json: line 1" in client.get(OFFER).text


def test_only_this_machine_s_names_are_answered(tmp_path: Path) -> None:
    client = opened(tmp_path)
    for host, status in (("127.0.0.1:8090", 200), ("localhost:8090", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400)):
        assert client.get("/", headers={"Host": host}).status_code == status


def test_pages_run_no_inline_script_and_mails_none_at_all(tmp_path: Path) -> None:
    client = opened(tmp_path)
    page, mail = client.get(OFFER), client.get(f"{OFFER}/mail?language=nl&mode=standard")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert mail.headers["content-security-policy"].endswith("sandbox")
    assert "<iframe" in page.text
    assert page.text.count("<iframe") == page.text.count(" sandbox ")


def test_a_mail_is_shown_light_or_dark() -> None:
    css = "@media (prefers-color-scheme: dark) { a {} } :root { color-scheme: light dark; }"
    assert with_scheme(css, "dark") == "@media (min-width: 0px) { a {} } :root { color-scheme: dark; }"
    assert with_scheme(css, "light") == "@media (max-width: 0px) { a {} } :root { color-scheme: light; }"


def test_an_sms_marks_what_forces_ucs_2() -> None:
    view = sms_view("Un reçu ê ç")
    assert [(each.text, each.is_marked) for each in view.pieces][1] == ("ç", True)
    assert view.forcing == ("ç", "ê")
    assert view.segments.encoding == "UCS-2"
    assert "".join(each.text for each in view.pieces) == "Un reçu ê ç"


def test_a_push_is_cut_with_an_ellipsis_in_the_last_place() -> None:
    collapsed = push_views(Push(title="t" * 65, body="b" * 50, link="https://b.example"))[2]
    assert (collapsed.title_rest, len(collapsed.body), collapsed.body_rest) == ("", 48, "bb")


def test_a_whatsapp_text_shows_values_apart_from_approved_words() -> None:
    template = templates()["loan_offer"]
    approved = template.languages["en"].whatsapp[sorted(template.info.modes)[0]]
    view = whatsapp_view(approved, {"1": "KBC Bank"})
    assert next(each.text for each in view.pieces if each.is_marked) == "KBC Bank"
    assert "{{2}}" in [each.text for each in view.pieces if each.is_marked]
    assert view.buttons == approved.buttons


def test_no_edge_case_breaks_a_shipped_message() -> None:
    for template in templates().values():
        for case in edge_cases(template):
            for selection in selections(template, case.data):
                assert message_preview(POLICY, template, selection).refused is None, (template.name, case.key, selection)


def test_a_save_is_told_to_the_browser(tmp_path: Path) -> None:
    folder = WorkbenchFolder(POLICY, write(tmp_path, sound_folder()))

    async def connected() -> dict[str, str]:
        await asyncio.sleep(3600)
        return {}

    async def versions() -> list[str]:
        stream = folder_versions(folder, Request({"type": "http", "headers": []}, receive=connected))
        first = await anext(stream)
        path = next(tmp_path.rglob("offer/nl/email.html"))
        path.write_text(f"{path.read_text(encoding='utf-8')} ", encoding="utf-8")
        return [first, await anext(stream)]

    first, second = asyncio.run(versions())
    assert first.startswith("data: ")
    assert second.startswith("data: ")
    assert first != second


def test_a_port_in_use_is_an_error_with_advice() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(
            command_line(), ["templates", "serve", "--port", str(port)], env={"DISPATCHER_TEMPLATES": str(TEMPLATES)}
        )
    assert f"--port: {port} cannot be used" in str(result.exception)
