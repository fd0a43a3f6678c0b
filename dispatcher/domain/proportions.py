"""Shares with confidence intervals, and the comparison of two shares. Pure.

Share: Wilson's score interval without continuity correction (E. B. Wilson, JASA 22, 1927, 209-212). It stays between 0 and 1 and
keeps its level for small groups and for shares near 0, such as complaint rates. Difference of two independent shares: Newcombe's
hybrid score interval, built from the two Wilson intervals (R. G. Newcombe, Statistics in Medicine 17, 1998, 873-890, method 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from statistics import NormalDist

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`."""

    count: int
    total: int

    @property
    def rate(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.total if self.total else None

    def interval(self, confidence: float = CONFIDENCE) -> Interval | None:
        """The Wilson score interval of the share; None of nothing."""
        if not self.total:
            return None
        z, n, p = _z(confidence), self.total, self.count / self.total
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return Interval(
            0.0 if self.count == 0 else max(0.0, middle - half), 1.0 if self.count == self.total else min(1.0, middle + half)
        )


class Verdict(StrEnum):
    """What a comparison of two shares says."""

    HIGHER = "higher"
    LOWER = "lower"
    NO_DIFFERENCE_YET = "no_difference_yet"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first share minus the second, with its interval. `relative` is the difference as a share of the second rate."""

    value: float
    interval: Interval
    relative: float | None

    @property
    def verdict(self) -> Verdict:
        """Which share is higher; neither while the interval includes zero."""
        if self.interval.low > 0:
            return Verdict.HIGHER
        return Verdict.LOWER if self.interval.high < 0 else Verdict.NO_DIFFERENCE_YET


def difference(first: Share, second: Share, confidence: float = CONFIDENCE) -> Difference | None:
    """The first share minus the second, with Newcombe's interval; None where either is a share of nothing."""
    one, two = first.interval(confidence), second.interval(confidence)
    if one is None or two is None:
        return None
    p, q = first.count / first.total, second.count / second.total
    low = p - q - sqrt((p - one.low) ** 2 + (two.high - q) ** 2)
    high = p - q + sqrt((one.high - p) ** 2 + (q - two.low) ** 2)
    return Difference(p - q, Interval(low, high), (p - q) / q if q else None)


def pairwise_confidence(groups: int, confidence: float = CONFIDENCE) -> float:
    """The confidence of each comparison that makes all comparisons of two groups together hold with `confidence`: Bonferroni's
    correction. Without it, the best of many equal groups would often look like a winner.
    """
    pairs = groups * (groups - 1) // 2
    return 1 - (1 - confidence) / max(1, pairs)


def winner(shares: dict[str, Share], confidence: float = CONFIDENCE) -> str | None:
    """The group whose share is higher than that of each other group, by intervals with Bonferroni's correction; else None."""
    if len(shares) < 2 or not all(share.total for share in shares.values()):
        return None
    best = max(shares, key=lambda name: shares[name].rate or 0.0)
    level = pairwise_confidence(len(shares), confidence)
    compared = (difference(shares[best], share, level) for name, share in shares.items() if name != best)
    return best if all(each is not None and each.verdict is Verdict.HIGHER for each in compared) else None


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
