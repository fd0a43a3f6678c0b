"""The key of a message and the join to its campaign or trigger are written once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LEDGER = Path(__file__).parents[2] / "dispatcher" / "ledger"
MODULES = sorted(path for path in LEDGER.rglob("*.py") if "versions" not in path.parts and path.name != "message_key.py")
WRITTEN_ONCE = (
    # Of a message: use `join_origin`, which forgets neither. A load ("l"), a balance ("b"), a conversion ("v") and a run ("r")
    # always have a campaign; of open work ("o") all triggers are one row.
    re.compile(r"JOIN (campaigns|triggers)\b(?! c ON c\.(no = [lbvo]\.campaign_no|id = r\.campaign_id))"),
    re.compile(r"::int\[\], \S*::bigint\[\], \S*::int\[\]"),  # use KEY_ARRAYS
    re.compile(r"period, (\w+\.)?chunk, (\w+\.)?row, (\w+\.)?leg\b(?! \+)"),  # use KEY or key_of
    re.compile(r"\w\.period = \w+\.period AND \w+\.chunk ="),  # use same_message, same_job or same_chunk
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LEDGER)))
def test_the_key_and_the_joins_of_a_message_are_written_once(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [match.group() for pattern in WRITTEN_ONCE for match in pattern.finditer(text)]
    assert not found
