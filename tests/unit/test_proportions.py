"""Intervals of shares and of differences, against published numbers; winners among variants."""

from __future__ import annotations

import pytest

from dispatcher.domain.proportions import Share, Verdict, difference, pairwise_confidence, winner


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_the_published_wilson_interval(count: int, total: int, low: float, high: float) -> None:
    """The examples of R. G. Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 3."""
    interval = Share(count, total).interval()
    assert interval is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_a_difference_has_the_published_interval(first: tuple[int, int], second: tuple[int, int], low: float, high: float) -> None:
    """The examples of R. G. Newcombe, Statistics in Medicine 17, 1998, 873-890, table II, method 10."""
    found = difference(Share(*first), Share(*second))
    assert found is not None
    assert (round(found.interval.low, 4), round(found.interval.high, 4)) == (low, high)


def test_nothing_has_no_rate_and_no_difference() -> None:
    assert Share(0, 0).rate is None
    assert Share(0, 0).interval() is None
    assert difference(Share(1, 2), Share(0, 0)) is None


def test_a_verdict_needs_an_interval_without_zero() -> None:
    verdicts = [
        found.verdict
        for found in (
            difference(Share(20, 100), Share(5, 100)),
            difference(Share(5, 100), Share(20, 100)),
            difference(Share(8, 100), Share(5, 100)),
        )
        if found
    ]
    assert verdicts == [Verdict.HIGHER, Verdict.LOWER, Verdict.NO_DIFFERENCE_YET]


def test_a_winner_is_better_than_each_other_variant() -> None:
    assert winner({"a": Share(300, 1000), "b": Share(200, 1000)}) == "a"
    assert winner({"a": Share(300, 1000), "b": Share(290, 1000)}) is None
    assert winner({"a": Share(300, 1000), "b": Share(200, 1000), "c": Share(290, 1000)}) is None
    assert winner({"a": Share(3, 10), "b": Share(0, 0)}) is None


def test_many_variants_need_a_clearer_difference() -> None:
    two = {"a": Share(240, 1000), "b": Share(200, 1000)}
    assert winner(two) == "a"  # its interval ends just above zero
    assert winner({**two, "c": Share(200, 1000), "d": Share(200, 1000)}) is None
    assert pairwise_confidence(2) == pytest.approx(0.95)
    assert pairwise_confidence(4) == pytest.approx(1 - 0.05 / 6)
