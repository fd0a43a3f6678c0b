"""Canary recipients opt out in each way under the real rules, and what is still under way afterwards is measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dispatcher.domain.canaries import OptOutWay
from dispatcher.ledger.connection import lend
from tests.support.canary_stage import CanaryStage, canary_stage


@pytest.fixture
def stage(database: str) -> Iterator[CanaryStage]:
    with canary_stage(database) as made:
        yield made


def outcomes(stage: CanaryStage) -> dict[str, list[tuple[str, str | None, bool]]]:
    found: dict[str, list[tuple[str, str | None, bool]]] = {}
    with lend(stage.services.pool) as connection:
        for way, *rest in connection.execute("SELECT way, outcome, reason, is_late FROM canary_rounds ORDER BY no"):
            found.setdefault(way, []).append((rest[0], rest[1], rest[2]))
    return found


def test_every_way_out_is_measured_again_and_again(stage: CanaryStage) -> None:
    stage.run_rounds(2)
    assert outcomes(stage) == {way: [("measured", None, False)] * 2 for way in OptOutWay}
