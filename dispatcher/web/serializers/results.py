"""Results of campaigns as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dispatcher.campaigns.conversions import ConversionImport
from dispatcher.campaigns.result_files import BASES
from dispatcher.campaigns.results import CampaignResults, Comparison, Lift
from dispatcher.domain.campaign_results import Tally
from dispatcher.domain.proportions import CONFIDENCE, Interval, Share
from dispatcher.web.serializers.times import moment


def results_view(results: CampaignResults) -> dict[str, Any]:
    """The results of a campaign. `groups` is empty where they are split by nothing."""
    return {
        "id": results.campaign.id,
        "state": results.campaign.state,
        "counted_at": moment(results.counted_at),
        "confidence": CONFIDENCE,
        "audience": results.campaign.audience,
        "total": tally_view(results.total),
        "step": results.step,
        "series": [{"at": moment(point.at), **point.counts} for point in results.series],
        "by": results.by,
        "groups": [{"name": group.name, **tally_view(group.tally)} for group in results.groups],
        "variants": _comparison_view(results.comparison) if results.comparison else None,
        "lifts": [_lift_view(lift) for lift in results.lifts],
    }


def tally_view(tally: Tally) -> dict[str, Any]:
    """The counts of a group, and their shares with intervals."""
    rates = {name: share_view(Share(getattr(tally, name), getattr(tally, base))) for name, base in BASES.items()}
    return {"counts": asdict(tally), "rates": rates}


def share_view(share: Share) -> dict[str, Any]:
    """A share with its interval; null where it is a share of nothing."""
    return {"count": share.count, "of": share.total, "rate": share.rate, **_interval(share.interval())}


def _interval(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}


def _comparison_view(comparison: Comparison) -> dict[str, Any]:
    return {
        "measure": comparison.measure,
        "winner": comparison.winner,
        "confidence": comparison.confidence,
        "shares": {name: share_view(share) for name, share in comparison.shares.items()},
    }


def _lift_view(lift: Lift) -> dict[str, Any]:
    found = lift.difference
    return {
        "outcome": lift.outcome,
        "treated": share_view(lift.treated),
        "control": share_view(lift.control),
        "difference": found.value if found else None,
        **_interval(found.interval if found else None),
        "relative": found.relative if found else None,
        "verdict": found.verdict if found else None,
    }


def conversions_view(imported: ConversionImport) -> dict[str, Any]:
    """What became of the rows of an import of conversions."""
    return {
        "new": imported.new,
        "known": imported.known,
        "before_start": imported.before_start,
        "not_in_audience": imported.not_in_audience,
        "invalid": imported.invalid,
        "faults": [{"line": error.line, "field": error.field, "message": error.message} for error in imported.errors],
    }
