"""The documentation is correct: generated parts are current, links and paths exist, and each rule names its tests."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dispatcher.content import load
from dispatcher.content.message_views import WIDTHS
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import State
from dispatcher.intake.campaign import CampaignForm
from dispatcher.policy import RULES, parse, shipped
from dispatcher.runtime.settings import variables
from docs import generate
from docs.gallery import sheet
from tests.unit.test_policy_rules import ALONE

ROOT = Path(__file__).parents[2]
README_LINES_MAX = 150
GALLERY_BYTES_MAX = 3_300_000  # everybody who clones the project gets them
CHANGES_MIN = 30  # rows of the table "to change X, open Y"
NOT_RULES = {"signed", "schedules", "sign_in", "canaries"}  # tables of the policy that no rule needs
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


OURS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@lru_cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings)


def test_the_gallery_shows_every_shipped_template() -> None:
    page = (ROOT / "docs" / "reference" / "template-gallery.md").read_text(encoding="utf-8")
    pictures = {path.stem: path.stat().st_size for path in (ROOT / "docs" / "images" / "templates").glob("*.webp")}
    assert pictures.keys() == load(ROOT / "templates").keys() == set(re.findall(r"^`(\w+)`$", page, re.MULTILINE))
    assert sum(pictures.values()) < GALLERY_BYTES_MAX


def test_a_sheet_of_the_gallery_can_be_drawn() -> None:
    drawn = sheet(parse(shipped(), "policy.toml"), load(ROOT / "templates")["loan_offer"])
    assert drawn.count("<iframe") == 4 * 2 * len(WIDTHS)  # languages, light and dark


@pytest.mark.parametrize("page", list(generate.pages()), ids=lambda page: page.stem)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.refreshed(text) == text, "run: python -m docs.generate"


def test_the_example_of_a_trigger_has_all_variables() -> None:
    """A caller who copies it must not get `missing_variable`."""
    page = (ROOT / "docs" / "reference" / "celery.md").read_text(encoding="utf-8")
    found = re.search(r"^data = (.+)$", page, re.MULTILINE)
    assert found is not None
    template = load(ROOT / "templates")["coin_earned"]
    needed = {each.name for each in template.variables.values() if each.required}
    assert needed <= set(ast.literal_eval(found[1]))


def test_every_generated_part_is_on_a_page() -> None:
    written = "".join(page.read_text(encoding="utf-8") for page in generate.pages())
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", written)) == set(generate.PARTS)


@pytest.mark.parametrize("page", OURS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_not_dead(page: Path) -> None:
    dead = [target for target in LINK.findall(prose(page)) if not _leads_somewhere(page, target)]
    assert not dead


def _leads_somewhere(page: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    name, _, anchor = target.partition("#")
    there = (page.parent / name).resolve() if name else page
    return there.exists() and (not anchor or there.suffix != ".md" or anchor in anchors(there))


@pytest.mark.parametrize("page", OURS, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_code_type_exist(page: Path) -> None:
    missing = [path for path in _paths(prose(page)) if not (ROOT / path).exists()]
    assert not missing


def _paths(text: str) -> Iterator[str]:
    """Paths of this repository in code type; not those with a placeholder."""
    folders = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
    for word in re.findall(r"`([^`\s]+)`", text):
        if re.fullmatch(rf"({folders})/[\w./-]*", word) and not word.startswith("build/") and "NNNN" not in word:
            yield word


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


def test_architecture_says_where_to_make_a_change() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## To change X, open Y\n")[2]
    rows = [
        line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ") and not line.startswith("| to change")
    ]
    assert len(rows) >= CHANGES_MIN
    assert all("`" in row[1] or "provider's file" in row[1] for row in rows)  # the paths themselves are checked above


def test_every_variable_says_what_it_is_for() -> None:
    assert not [variable.name for variable in variables() if not variable.about]


# -- the rules ---------------------------------------------------------------------------------------------------------


def entries(*sections: str) -> list[Mapping[str, Any]]:
    return [entry for section in sections or ("person", "channel", "other") for entry in generate.rule_texts()[section]]


def named(field: str) -> set[str]:
    return {name for entry in entries() for name in entry.get(field, ())}


def test_every_rule_has_one_entry_and_every_entry_is_a_rule() -> None:
    assert sorted(entry["rule"] for entry in entries("person")) == sorted(RULES.person)
    assert sorted(entry["rule"] for entry in entries("channel")) == sorted(RULES.channel)
    assert all(entry["does"] and entry["tests"] for entry in entries())


def test_rule_keys_exist_and_cover_every_table_of_the_policy() -> None:
    policy = tomllib.loads(shipped())

    def known(key: str) -> bool:
        found = policy
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True

    assert {key for key in named("keys") if not known(key)} <= set(CampaignForm.model_fields)
    assert {key.split(".")[0] for key in named("keys")} >= policy.keys() - NOT_RULES


def test_every_reason_code_is_one_and_none_is_missing() -> None:
    assert named("codes") == {code.value for code in ReasonCode}
    assert named("states") <= {state.value for state in (*State, *CampaignState)}


def test_every_test_of_a_rule_is_there() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def test_(\w+)\(", written, re.MULTILINE)) | {f'ALONE["{name}"]' for name in ALONE}
    assert named("tests") <= there
