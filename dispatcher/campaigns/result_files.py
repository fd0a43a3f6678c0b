"""A campaign's results as a file: CSV or Parquet, one row for each number, so that any tool can filter and pivot it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dispatcher.campaigns.results import CampaignResults
from dispatcher.domain.campaign_results import Tally
from dispatcher.domain.proportions import Share
from dispatcher.events.file_columns import Column, ColumnKind
from dispatcher.events.file_writers import WRITERS
from dispatcher.intake.errors import BadInput, InputError

COLUMNS = (
    Column("campaign", ColumnKind.TEXT, "the id of the campaign"),
    Column("part", ColumnKind.TEXT, "total, series, variant comparison, lift, or what the rows are split by"),
    Column("name", ColumnKind.TEXT, "the group, the step of the series, or the outcome"),
    Column("at", ColumnKind.TIME, "of a series: the begin of the interval"),
    Column("measure", ColumnKind.TEXT, "what is counted"),
    Column("count", ColumnKind.NUMBER, "how many"),
    Column("of", ColumnKind.NUMBER, "of how many"),
    Column("rate", ColumnKind.FRACTION, "count / of; in the measure `difference` one rate minus the other"),
    Column("low", ColumnKind.FRACTION, "the lower end of the 95 % interval"),
    Column("high", ColumnKind.FRACTION, "the upper end"),
    Column("verdict", ColumnKind.TEXT, "of a difference: higher, lower or no_difference_yet; of variants: winner"),
)

# What each count is a share of; the others have no rate.
BASES = {
    "delivered": "accepted",
    "read": "accepted",
    "failed": "attempted",
    "complained": "accepted",
    "opted_out": "accepted",
    "converted": "attempted",
    "held_out_opted_out": "held_out",
    "held_out_converted": "held_out",
    "opted_out_in_window": "attempted",
}


def write(results: CampaignResults, path: Path) -> int:
    """Write the results to a file and return the number of rows. The ending gives the format. Raises `BadInput`."""
    format_ = format_of(path)
    try:
        writer = WRITERS[format_](path, COLUMNS)
        for row in rows(results):
            writer.add((results.campaign.id, *row))
        writer.close()
    except OSError as error:
        raise BadInput(InputError(str(path), 0, "", f"can't be written: {error.strerror}")) from None
    return writer.rows


def formats() -> list[str]:
    """The formats that can be written here: Parquet needs a package that is optional."""
    return [each for each in WRITERS if each != "parquet" or find_spec("pyarrow") is not None]


def format_of(path: Path) -> str:
    """The format of a file, by the ending of its name. Raises `BadInput`."""
    ending = path.suffix.lower().removeprefix(".")
    if ending not in WRITERS:
        raise BadInput(InputError(str(path), 0, "", f"should end in {' or '.join(f'.{each}' for each in WRITERS)}"))
    if ending not in formats():
        raise BadInput(InputError(str(path), 0, "", "needs the package pyarrow: install dispatcher[files], or write .csv"))
    return ending


def rows(results: CampaignResults) -> Iterator[Sequence[Any]]:
    """The rows of the file, without the campaign."""
    yield from _tally("total", "", results.total)
    for group in results.groups:
        yield from _tally(str(results.by), group.name, group.tally)
    for point in results.series:
        for measure, count in point.counts.items():
            yield ("series", results.step, point.at.isoformat(), measure, count, None, None, None, None, None)
    if results.comparison:
        for name, share in results.comparison.shares.items():
            is_winner = "winner" if name == results.comparison.winner else None
            yield _share("variant comparison", name, results.comparison.measure, share, is_winner)
    for lift in results.lifts:
        yield _share("lift", lift.outcome, "treated", lift.treated)
        yield _share("lift", lift.outcome, "control", lift.control)
        if lift.difference:
            value, interval = lift.difference.value, lift.difference.interval
            numbers = (None, None, value, interval.low, interval.high, lift.difference.verdict)
            yield ("lift", lift.outcome, None, "difference", *numbers)


def _tally(part: str, name: str, tally: Tally) -> Iterator[Sequence[Any]]:
    for field in fields(tally):
        count, base = getattr(tally, field.name), BASES.get(field.name)
        if base:
            yield _share(part, name, field.name, Share(count, getattr(tally, base)))
        else:
            yield (part, name, None, field.name, count, None, None, None, None, None)


def _share(part: str, name: str, measure: str, share: Share, verdict: str | None = None) -> Sequence[Any]:
    interval = share.interval()
    low, high = (interval.low, interval.high) if interval else (None, None)
    return (part, name, None, measure, share.count, share.total, share.rate, low, high, verdict)
