"""The columns of event files, from the catalogue of events. A file has one row for each event of one kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from dispatcher.domain.message import State
from dispatcher.events.catalog import DATA, EventFamily

SCHEMA_VERSION = 1  # a version only gets new columns, at the end


class ColumnKind(StrEnum):
    """The type of a column: in Parquet string, int64, double, or timestamp in UTC; in CSV its text."""

    TEXT = "text"
    NUMBER = "number"
    FRACTION = "fraction"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: ColumnKind
    about: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files of one kind of events. `row` makes the values of a row, in the order of the columns, from an event's data."""

    name: str
    family: EventFamily
    about: str
    columns: Sequence[Column]
    row: Callable[[Mapping[str, Any]], Sequence[Any]]

    def values(self, event: Mapping[str, Any]) -> list[Any]:
        """The row of an event."""
        return [int(event["sequence"]), event["time"], *self.row(event["data"])]


_FIRST = (
    Column("sequence", ColumnKind.NUMBER, "the number of the event in the feed"),
    Column("time", ColumnKind.TIME, "when it happened"),
)
LIST_SEPARATOR = "|"  # as in files of recipients
_KINDS = ((ColumnKind.NUMBER, int), (ColumnKind.TIME, datetime))
_STATES = tuple(Column(state.value, ColumnKind.NUMBER, f"recipients whose state is {state.value}") for state in State)
_RESULTS = ("campaign", "state", "entity", "audience", "invalid")


def _columns(model: type[BaseModel], names: Sequence[str]) -> Iterator[Column]:
    for name in names:
        field = model.model_fields[name]
        kind = next((kind for kind, type_ in _KINDS if field.annotation is type_), ColumnKind.TEXT)
        yield Column(name, kind, field.description or "in whose name it is sent")


def _fields(name: str, family: EventFamily, about: str) -> Dataset:
    """Files that have all fields of a kind of events."""
    names = tuple(DATA[family].model_fields)
    columns = (*_FIRST, *_columns(DATA[family], names))
    return Dataset(name, family, about, columns, lambda data: [_cell(data.get(each)) for each in names])


def _cell(value: Any) -> Any:
    """A value of an event as a column has it. An event that is older than a field has no value for it."""
    return LIST_SEPARATOR.join(value) if isinstance(value, list) else value


def _results(data: Mapping[str, Any]) -> list[Any]:
    return [*(data[name] for name in _RESULTS), *(data["states"].get(state.value, 0) for state in State)]


DATASETS = (
    _fields("messages", EventFamily.MESSAGE, "Each state that a message reached, and each decision not to send."),
    _fields("consent", EventFamily.CONSENT, "Each choice that was recorded."),
    Dataset(
        "campaigns",
        EventFamily.BALANCE,
        "Results of campaigns: each count of an audience by state. The last row of a campaign is its newest result.",
        (*_FIRST, *_columns(DATA[EventFamily.BALANCE], _RESULTS), *_STATES),
        _results,
    ),
)
BY_FAMILY: Mapping[str, Dataset] = {str(dataset.family): dataset for dataset in DATASETS}
