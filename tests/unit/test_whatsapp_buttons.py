"""Buttons of WhatsApp texts: what the review would reject is an error at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.whatsapp_templates import TemplateButton
from dispatcher import content
from dispatcher.content import LinkHosts, MessageSender, check_examples
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES
from tests.support.template_folder import small_folder, write

FILE, LINE = "hello/fr/texts.toml", "[whatsapp.standard]\n"


def write_buttons(folder: Path, buttons: str) -> Path:
    files = small_folder()
    assert LINE in files[FILE]
    return write(folder, {**files, FILE: files[FILE].replace(LINE, f"{LINE}buttons = {buttons}\n")})


def test_buttons_are_read_in_their_order(tmp_path: Path) -> None:
    site = "https://www.kbc-bank.example"
    folder = write_buttons(tmp_path, f'[{{ title = "STOP", payload = "STOP" }}, {{ title = "Site", url = "{site}" }}]')
    text = content.load(folder)["hello"].languages["fr"].whatsapp[Mode.STANDARD]
    assert text.buttons == (TemplateButton("STOP", "STOP"), TemplateButton("Site", url=site))


@pytest.mark.parametrize(
    ("buttons", "message"),
    [
        ('"STOP"', "must be a list"),
        ('[{ title = "STOP" }]', "needs either payload"),
        ('[{ title = "STOP", payload = "STOP", url = "https://a.example" }]', "needs either payload"),
        ('[{ title = "A title that is much too long", payload = "STOP" }]', "at most 20 characters"),
        ('[{ title = "", payload = "STOP" }]', "at most 20 characters"),
        ('[{ title = "{{1}}", payload = "STOP" }]', "has no placeholder"),
        ('[{ title = "STOP", payload = "" }]', "at most 200 characters"),
        ('[{ title = "Site", url = "http://a.example" }]', "must be an https address"),
        ('[{ title = "STOP", payload = "STOP", colour = "red" }]', "unknown key colour"),
        ('[{ title = "STOP", payload = "A" }, { title = "STOP", payload = "B" }]', "two buttons have this title"),
        ("[" + ", ".join(f'{{ title = "{n}", payload = "{n}" }}' for n in range(11)) + "]", "allows 10 buttons"),
    ],
)
def test_a_wrong_button_is_an_error_at_its_line(tmp_path: Path, buttons: str, message: str) -> None:
    faults = content.check(write_buttons(tmp_path, buttons))
    assert faults
    source = (tmp_path / FILE).read_text(encoding="utf-8").split("\n")
    for fault in faults:
        assert (fault.file, fault.field) == (FILE, "whatsapp.standard.buttons")
        assert source[fault.line - 1].startswith("buttons = ")
    assert any(message in fault.message for fault in faults)


def test_a_button_may_not_lead_to_a_foreign_host(tmp_path: Path) -> None:
    own, foreign = (
        refused_places(write_buttons(tmp_path, f'[{{ title = "Site", url = "https://{host}/x" }}]'))
        for host in ("www.bank.example", "elsewhere.example")
    )
    assert foreign - own == {FILE}


def refused_places(folder: Path) -> set[str]:
    """The files of WhatsApp texts to which the guard objects."""
    sender = MessageSender("KBC", "info@bank.example", hosts=LinkHosts(frozenset({"bank.example"})))
    faults = check_examples(content.load(folder)["hello"], lambda name, line: (name, line), dict.fromkeys(LANGUAGES, sender))
    return {fault.file for fault in faults if "whatsapp, standard" in fault.message}
