"""Conversions of a campaign, from JSONL, CSV and XLSX files or from JSON: who did what the campaign is for, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from dispatcher.domain.notation import day, trim
from dispatcher.intake.audience import RecipientId
from dispatcher.intake.errors import StrictModel, sentences, validate
from dispatcher.intake.rows import Cell, Columns, UnreadableRow, read_rows
from dispatcher.ledger.campaigns.audience import AudienceError
from dispatcher.ledger.campaigns.conversions import Conversion
from dispatcher.policy import FileRules

DEFAULT_GOAL = "conversion"
CONVERSIONS_MAX = 10_000  # in one call of the API
OPT_OUTS = "opt_outs"  # an outcome of every result, so no goal of this name


def _not_taken(goal: str) -> str:
    if goal == OPT_OUTS:
        raise ValueError("is the name of an outcome that is counted anyway; choose another")
    return goal


def _lower(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


Goal = Annotated[
    str, BeforeValidator(_lower), StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$"), AfterValidator(_not_taken)
]


def _day_or_time(value: Any) -> date:
    """The day or the time of a text; a `datetime` is a `date`."""
    text = value if isinstance(value, str) else ""
    for read in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            found: date = read(text)
            if 1970 <= found.year <= 2200:
                return found
    raise ValueError("should be a day such as 2026-12-31, or a time such as 2026-12-31T09:30:00+01:00")


class ConversionForm(StrictModel):
    """One conversion. `at` is a day, or a time: without a zone, in that of the policy."""

    recipient: RecipientId
    at: Annotated[datetime | date, BeforeValidator(_day_or_time)]
    goal: Goal | None = None


class ConversionsForm(StrictModel):
    """Conversions of a campaign. `goal` is that of the rows without one."""

    goal: Goal = DEFAULT_GOAL
    conversions: Annotated[list[Any], Field(min_length=1, max_length=CONVERSIONS_MAX)]


class GoalForm(StrictModel):
    """The name of a goal."""

    goal: Goal


@dataclass(frozen=True, slots=True)
class ConversionContext:
    """What rows are read with: the goal of those without one, the time, and the time zone of a day."""

    goal: str
    now: datetime
    zone: ZoneInfo


def _at(text: str) -> str:
    return trim(text) if ":" in text and not text.strip().endswith("00:00:00") else day(text)


_CELLS: Mapping[str, Cell] = {"recipient": trim, "at": _at, "goal": trim}
COLUMNS = Columns(_CELLS.get, "recipient", tuple(_CELLS))


def read_conversions(path: Path, rules: FileRules, context: ConversionContext) -> Iterator[Conversion | AudienceError]:
    """The conversions of a file, streamed. Raises `BadInput` where the file as a whole cannot be read."""
    for row in read_rows(path, COLUMNS, rules):
        if isinstance(row, UnreadableRow):
            yield AudienceError(row.line, row.field, row.reason)
        else:
            yield read_row(row.line, row.data, context)


def parse_conversions(form: Mapping[str, Any], now: datetime, zone: ZoneInfo) -> Iterator[Conversion | AudienceError]:
    """The conversions of a `ConversionsForm`, from JSON; the position in the list is the line. Raises `BadInput`."""
    checked = validate(ConversionsForm, form, "conversions")
    context = ConversionContext(checked.goal, now, zone)
    return (read_row(line, row, context) for line, row in enumerate(checked.conversions, start=1))


def read_row(line: int, value: Any, context: ConversionContext) -> Conversion | AudienceError:
    """The conversion of one row as plain data, or why it cannot be read."""
    try:
        row = ConversionForm.model_validate(value)
    except ValidationError as error:
        return AudienceError(line, *sentences(error, ConversionForm)[0])
    at = _moment(row.at, context)
    if at > context.now:
        return AudienceError(line, "at", "lies in the future")
    return Conversion(row.recipient, row.goal or context.goal, at)


def _moment(at: date, context: ConversionContext) -> datetime:
    if isinstance(at, datetime):
        return at if at.tzinfo else at.replace(tzinfo=context.zone)
    return _end_of_day(at, context)


def _end_of_day(on: date, context: ConversionContext) -> datetime:
    """The end of a day, or now on the present day: a conversion on the day of the start counts, because nobody knows its hour."""
    end = datetime.combine(on + timedelta(days=1), time(), context.zone) - timedelta(seconds=1)
    today = context.now.astimezone(context.zone).date()
    return min(end, context.now) if on == today else end
