"""`templates new`: a complete skeleton with a mark at each text; and where templates are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from channels.base import Channel
from dispatcher.campaigns.new_template import write_skeleton
from dispatcher.content import NewTemplate, default_folder, example_request, is_draft, shipped_folder, texts_to_write
from dispatcher.domain.message import Kind, Mode
from dispatcher.intake.errors import BadInput
from tests.support.services import load_edited, shipped_templates

ROOT = Path(__file__).parents[2]
SHIPPED = shipped_templates()
LOAN = NewTemplate("spring_loan", "loan_offer", "Jana Maes")


@pytest.mark.parametrize("source", SHIPPED)
def test_a_skeleton_of_each_template_is_without_faults(tmp_path: Path, source: str) -> None:
    new = NewTemplate("spring", source, 'Jana "J." Maes', entity="cbc-banque")
    written = write_skeleton(tmp_path / "texts", new, SHIPPED[source].info.kind)
    catalog = load_edited(tmp_path / "texts")
    assert set(catalog) == {"spring"}
    template, shipped = catalog["spring"], SHIPPED[source]
    assert (template.author, template.version, template.entity) == ('Jana "J." Maes', "1", "cbc-banque")
    assert (template.channels, template.info.modes, template.variables) == (shipped.channels, shipped.info.modes, shipped.variables)
    assert written.to_write == len(texts_to_write(template)) > 20


def test_every_word_that_a_reader_sees_is_marked(tmp_path: Path) -> None:
    folder = write_skeleton(tmp_path / "texts", LOAN, Kind.COMMERCIAL).folder
    for file in ("nl/email.html", "nl/email.txt"):
        unmarked = [line for line in (folder / file).read_text(encoding="utf-8").splitlines() if "# TO WRITE" not in line]
        words = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", "", "\n".join(unmarked))
        assert not re.search(r"\w", words), file
    for quoted in ("{{ button(offer_url", "{{ heading(", "{% call facts("):  # words in quotes
        assert f"{{# TO WRITE #}}{quoted}" in (folder / "nl" / "email.html").read_text(encoding="utf-8")
    fields = {
        text.field for text in texts_to_write(load_edited(folder.parent)["spring_loan"]) if text.file == "spring_loan/nl/texts.toml"
    }
    assert {"push.title", "push.body", "email.subject", "email.preheader", "sms.text", "whatsapp.tailored.approved"} <= fields


def test_without_marks_a_skeleton_reads_as_its_source(tmp_path: Path) -> None:
    folder = write_skeleton(tmp_path / "texts", LOAN, Kind.COMMERCIAL).folder
    catalog = load_edited(folder.parent)
    for channel in Channel:
        of_draft = catalog["spring_loan"].render(example_request(catalog["spring_loan"], channel, "fr", Mode.TAILORED))
        of_source = SHIPPED["loan_offer"].render(example_request(SHIPPED["loan_offer"], channel, "fr", Mode.TAILORED))
        assert of_draft == of_source
    for file in folder.rglob("*.*"):
        text = file.read_text(encoding="utf-8").replace("{# TO WRITE #}", "")
        file.write_text("\n".join(line for line in text.split("\n") if not line.startswith("# TO WRITE")), encoding="utf-8")
    assert not is_draft(load_edited(folder.parent)["spring_loan"])


BAD = {
    "a name with a blank": (
        NewTemplate("Spring Loan", "loan_offer", "J"),
        Kind.COMMERCIAL,
        "NAME: 'Spring Loan' must be lower-case",
    ),
    "a name in use": (NewTemplate("train_ticket", "loan_offer", "J"), Kind.COMMERCIAL, "train_ticket is there already"),
    "no such source": (NewTemplate("spring", "lone_offer", "J"), Kind.COMMERCIAL, "no template 'lone_offer'.*loan_offer"),
    "another kind": (
        NewTemplate("spring", "loan_offer", "J"),
        Kind.SERVICE,
        "loan_offer is no service message; these are: cashback_paid",
    ),
}


@pytest.mark.parametrize(("new", "kind", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_made_is_refused(tmp_path: Path, new: NewTemplate, kind: Kind, message: str) -> None:
    folder = copytree(shipped_folder(), tmp_path / "texts")
    before = sorted(folder.rglob("*"))
    with pytest.raises(BadInput, match=message):
        write_skeleton(folder, new, kind)
    assert sorted(folder.rglob("*")) == before


def test_own_templates_beside_a_command_take_precedence(tmp_path: Path) -> None:
    assert default_folder(tmp_path) == shipped_folder()
    (tmp_path / "templates").mkdir()
    assert default_folder(tmp_path) == shipped_folder()  # of another program
    (tmp_path / "templates" / "_shared").mkdir()
    assert default_folder(tmp_path) == tmp_path / "templates"


def test_an_installed_wheel_has_its_templates(tmp_path: Path) -> None:
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    for part in ("dispatcher", "channels", "templates"):
        copytree(ROOT / part, source / part, symlinks=True)
    for file in ("pyproject.toml", "celeryconfig.py", "README.md"):
        (source / file).write_bytes((ROOT / file).read_bytes())
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    command = [sys.executable, "-c", "from dispatcher.cli import main; main()", "templates"]
    environ = {**os.environ, "PYTHONPATH": str(site), "DISPATCHER_HOME": str(tmp_path / "home")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=empty, env=environ, capture_output=True, text=True, check=False)

    checked = run("check", "loan_offer")
    assert checked.returncode == 0, checked.stderr
    refused = run("new", "spring", "--kind", "commercial", "--author", "Jana")
    assert (refused.returncode, str(site) in refused.stderr) == (2, False)
    assert "belong to the program" in refused.stderr
    made = run("new", "spring", "--kind", "commercial", "--author", "Jana", "--into", "templates")
    assert made.returncode == 0, made.stderr
    drafted = run("check", "spring")
    assert (drafted.returncode, "spring/nl/texts.toml:4: push.title: " in drafted.stderr) == (1, True)


def recipes(language: str) -> list[str]:
    """The code blocks of this language in the recipes of the guide."""
    page = (ROOT / "docs" / "how-to" / "write-a-template.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page.partition("## 6. Ten recipes")[2], re.DOTALL)


def test_the_recipes_of_the_guide_have_no_faults(tmp_path: Path) -> None:
    folder = write_skeleton(tmp_path / "texts", LOAN, Kind.COMMERCIAL).folder
    variable, segments, whatsapp = recipes("toml")
    declaration = folder / "template.toml"
    declared = declaration.read_text(encoding="utf-8").replace("sms = { segments_max = 2 }", segments)
    declaration.write_text(f"{declared}\n{variable}", encoding="utf-8")
    mail, texts = folder / "en" / "email.html", folder / "en" / "texts.toml"
    source = mail.read_text(encoding="utf-8").removesuffix("{% endblock %}\n")
    mail.write_text(f"{source}{''.join(recipes('html'))}{{% endblock %}}\n", encoding="utf-8")
    kept = texts.read_text(encoding="utf-8").partition("[whatsapp.standard]")[0]
    texts.write_text(kept + whatsapp, encoding="utf-8")
    written = load_edited(folder.parent)["spring_loan"]
    html = str(written.render(example_request(written, Channel.EMAIL, "en", Mode.TAILORED)))
    assert "A bright kitchen" in html
    assert "48 months" in html
    assert "Your branch in Leuven" in html
