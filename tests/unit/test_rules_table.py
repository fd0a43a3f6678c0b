"""The README's table of rules is true: every rule stands in it, with a key, a code and a test that there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import State
from dispatcher.intake.campaign import CampaignForm
from dispatcher.policy import RULES, shipped
from tests.unit.test_policy import ALONE

ROOT = Path(__file__).parents[2]
NOT_RULES = {"signed"}  # tables of the policy that no rule needs
RULE, _, _, KEY, CODE, TEST = range(6)


def table() -> list[list[str]]:
    """The rows of the README's table, cell by cell."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The rules\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def named(column: int) -> set[str]:
    """What a column names in code's type."""
    return {word for row in table() for word in re.findall(r"`([^`]+)`", row[column])}


def test_every_rule_has_one_row_and_every_row_in_code_is_a_rule() -> None:
    first = [re.findall(r"^`(\w+)`", row[RULE]) for row in table()]
    rules = [name for names in first for name in names]
    assert sorted(rules) == sorted([*RULES.person, *RULES.channel])
    assert all(len(row) == 6 and row[TEST] for row in table())


def test_every_key_is_one_of_the_policy_or_of_a_campaign_and_every_table_of_the_policy_is_somebody_s() -> None:
    policy = tomllib.loads(shipped())

    def known(key: str) -> bool:
        found = policy
        for part in key.split("."):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True

    assert {key for key in named(KEY) if not known(key)} <= set(CampaignForm.model_fields)
    assert {key.split(".")[0] for key in named(KEY)} >= policy.keys() - NOT_RULES


def test_every_reason_code_is_one_and_none_is_missing() -> None:
    shown = re.findall(r"(state )?`([^`]+)`", " ".join(row[CODE] for row in table()))
    assert {word for state, word in shown if not state} == {code.value for code in ReasonCode}
    assert {word for state, word in shown if state} <= {state.value for state in (*State, *CampaignState)}


def test_every_test_is_there() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def test_(\w+)\(", written, re.MULTILINE)) | {f'ALONE["{name}"]' for name in ALONE}
    assert named(TEST) <= there


def test_no_other_page_tells_it_again() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert "| reason code |" not in page.read_text(encoding="utf-8")
