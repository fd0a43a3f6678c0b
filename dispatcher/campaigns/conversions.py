"""Conversions: which recipients of a campaign did what it is for, as another system reports it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from dispatcher.intake.conversions import DEFAULT_GOAL, ConversionContext, GoalForm, read_conversions
from dispatcher.intake.errors import validate
from dispatcher.ledger.campaigns import conversions
from dispatcher.ledger.campaigns.audience import AudienceError
from dispatcher.ledger.campaigns.conversions import Conversion
from dispatcher.ledger.campaigns.lifecycle import Campaign
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services

__all__ = ["DEFAULT_GOAL", "ConversionImport", "import_file", "record", "zone"]

BATCH_ROWS = 10_000
ERRORS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ConversionImport:
    """The result of an import; each row is in one count.

    `before_start`: the person did it before the campaign started. `not_in_audience`: no message and no place in the control group.
    `errors` are the first rows that could not be read.
    """

    new: int = 0
    known: int = 0
    before_start: int = 0
    not_in_audience: int = 0
    invalid: int = 0
    errors: tuple[AudienceError, ...] = ()


def import_file(services: Services, campaign: Campaign, path: Path, goal: str = DEFAULT_GOAL) -> ConversionImport:
    """Record the conversions of a file; `goal` is that of rows without one. Raises `BadInput`."""
    checked = validate(GoalForm, {"goal": goal}, "goal").goal
    context = ConversionContext(checked, services.clock(), zone(services))
    return record(services, campaign, read_conversions(path, services.policy.files, context))


def zone(services: Services) -> ZoneInfo:
    """The time zone of days without a time."""
    return ZoneInfo(services.policy.default_zone)


def record(services: Services, campaign: Campaign, rows: Iterable[Conversion | AudienceError]) -> ConversionImport:
    """Record conversions, batch by batch. A repetition changes nothing, so an import that was interrupted can be repeated."""
    since = campaign.started_at
    iterator = iter(rows)
    new = known = before_start = elsewhere = invalid = 0
    errors: list[AudienceError] = []
    while batch := list(islice(iterator, BATCH_ROWS)):
        bad = [row for row in batch if isinstance(row, AudienceError)]
        good = [row for row in batch if isinstance(row, Conversion)]
        after = [row for row in good if since is not None and row.at >= since]
        with lend(services.pool) as connection:
            counts = conversions.add(connection, campaign, after)
        new, known, elsewhere = new + counts.new, known + counts.known, elsewhere + counts.not_in_audience
        before_start, invalid = before_start + len(good) - len(after), invalid + len(bad)
        errors += bad[: ERRORS_SHOWN - len(errors)]
    return ConversionImport(new, known, before_start, elsewhere, invalid, tuple(errors))
