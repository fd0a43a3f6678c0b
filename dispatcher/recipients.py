"""The door for recipients: one row, or a file of any length, checked and brought to normal form, then taken in."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeAlias
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json

from dispatcher import addresses
from dispatcher.choices import changes
from dispatcher.faults import did_you_mean
from dispatcher.ledger.pool import Connection
from dispatcher.ledger.recipients import Recipient, upsert
from dispatcher.model import Device
from dispatcher.rows import BadRow, Cell, Row, read_rows

BATCH_ROWS = 2_000
FAULTS_SHOWN = 20
BIRTH_YEAR_MIN = 1890
ERASED = "this person was erased; a row that brings them back needs a said_at after that"


class BadRecipient(ValueError):
    """A recipient that can't be taken: which field, and why. Neither holds a value, which might be personal."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


# -- the form ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError("unknown time zone" + did_you_mean(name, _timezones()))
    return name


def _day(text: object) -> date:
    try:
        day = date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        day = None
    if day is None or day.year < BIRTH_YEAR_MIN:
        raise ValueError("is not a date such as 1980-01-31")
    return day


def _moment(text: object) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment.year < BIRTH_YEAR_MIN:
        raise ValueError("is not a moment with its zone, such as 2026-11-23T09:00:00+01:00")
    return moment


Word: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")]
Words: TypeAlias = Annotated[list[Word], Field(max_length=100)]
Phone: TypeAlias = Annotated[str, AfterValidator(addresses.phone)]
Mode: TypeAlias = Literal["tailored", "standard", "none"]
Value: TypeAlias = Annotated[str, StringConstraints(max_length=4_000)] | bool | int | float | None
Variables: TypeAlias = Annotated[dict[Word, Value], Field(max_length=500)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Device(_Form):
    token: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,4096}$")]
    platform: Literal["android", "ios", "web"]
    permission: bool


class _Offers(_Form):
    own: Mode | None = None
    partner: Mode | None = None
    kate: Mode | None = None


class _Channels(_Form):
    email: bool | None = None
    push: bool | None = None
    sms_whatsapp: bool | None = None


class _Row(_Form):
    id: Word
    person: Literal["customer", "former", "platform_user", "prospect"]
    language: Literal["nl", "fr", "de", "en"]
    timezone: Annotated[str, AfterValidator(_timezone)] | None = None
    birth_date: Annotated[date, BeforeValidator(_day)] | None = None
    entities: Words = []
    has_current_account: bool = False
    email: Annotated[str, AfterValidator(addresses.email)] | None = None
    phone: Phone | None = None
    whatsapp: Phone | None = None
    push: Annotated[list[_Device], Field(max_length=50)] = []
    partner: Word | None = None
    purchased: Words = []
    offers: _Offers | None = None
    channels: _Channels | None = None
    object_marketing: bool | None = None
    object_profiling: bool | None = None
    profile: Annotated[dict[Word, Variables], Field(max_length=50)] = {}
    said_at: Annotated[datetime, BeforeValidator(_moment)] | None = None


RecipientForm: TypeAlias = _Row  # for whoever describes it


def parse(data: Mapping[str, Any], now: datetime) -> Recipient:
    """One recipient from plain data, in the form that the README's "Files" shows; `id`, `person` and `language` are needed.

    Takes also `object_profiling`, and `said_at`: when the choices in it were made. Raises `BadRecipient`.
    """
    try:
        row = _Row.model_validate(data)
    except ValidationError as error:
        raise _first_fault(error) from None
    if row.birth_date and row.birth_date > now.date():
        raise BadRecipient("birth_date", "lies in the future")
    if row.said_at and row.said_at > now:
        raise BadRecipient("said_at", "lies in the future")
    if row.partner == row.id:
        raise BadRecipient("partner", "is the recipient itself")
    return _recipient(row)


def _recipient(row: _Row) -> Recipient:
    devices = {device.token: Device(device.token, device.platform, device.permission) for device in row.push}
    return Recipient(
        id=row.id,
        person=row.person,
        language=row.language,
        timezone=row.timezone,
        birth_date=row.birth_date,
        entities=tuple(sorted(set(row.entities))),
        has_current_account=row.has_current_account,
        email=row.email,
        phone=row.phone,
        whatsapp=row.whatsapp,
        devices=tuple(devices.values()),
        partner_id=row.partner,
        purchased=tuple(sorted(set(row.purchased))),
        profile=row.profile,
        changes=changes(_said(row.offers), _said(row.channels), row.object_marketing, row.object_profiling),
        said_at=row.said_at,
    )


def _said(block: BaseModel | None) -> dict[str, Any]:
    return {name: value for name, value in block if value is not None} if block else {}


_PARTS: Mapping[str, type[_Form]] = {"offers": _Offers, "channels": _Channels, "push": _Device}
_REASONS = {
    "missing": "is missing",
    "string_pattern_mismatch": "has characters, or a length, that are not taken here",
    "model_type": "should be an object",
    "model_attributes_type": "should be an object",
}


def _first_fault(error: ValidationError) -> BadRecipient:
    fault = error.errors(include_url=False, include_input=False)[0]
    place = [str(step) for step in fault["loc"]]
    if place and place[0] == "profile":
        place = place[:3]  # beyond stand the names of the types that were tried
    kind = fault["type"]
    if kind == "extra_forbidden":
        reason = "unknown field" + did_you_mean(place[-1], (_PARTS[place[0]] if len(place) > 1 else _Row).model_fields)
    elif kind == "value_error":
        reason = str(fault["ctx"]["error"])
    else:
        reason = _REASONS.get(kind) or fault["msg"].replace("Input should be", "should be")
    return BadRecipient(".".join(place), reason)


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _boolean(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("should be true or false")
    return text == "true"


def _json(text: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        raise ValueError("is not JSON") from None


def _words(text: str) -> Any:
    return _json(text) if text.startswith("[") else text.split("|")


_CELLS: Mapping[str, Cell] = {
    **dict.fromkeys(
        ("id", "person", "language", "timezone", "birth_date", "email", "phone", "whatsapp", "partner", "said_at"), str
    ),
    **dict.fromkeys(("has_current_account", "object_marketing", "object_profiling"), _boolean),
    **dict.fromkeys(("entities", "purchased"), _words),
    **dict.fromkeys(("push", "offers", "channels", "profile"), _json),
    **{f"offers.{name}": str for name in _Offers.model_fields},
    **{f"channels.{name}": _boolean for name in _Channels.model_fields},
}


def _cell(column: str) -> Cell | None:
    """How a column's cells are read: as text, where nothing else is said; lists as JSON or with | between the words."""
    if column.startswith("profile."):
        depth = len(column.split("."))  # a category as JSON, or one variable, which is always text
        return _json if depth == 2 else str if depth == 3 else None
    return _CELLS.get(column)


# -- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to. `faults` are the first bad rows as (line, field, reason), without a value; all of them, with
    their rows, stand in the reject file `rejects`, which is None where there were none.
    """

    new: int
    changed: int
    unchanged: int
    rejected: int
    faults: tuple[tuple[int, str, str], ...]
    rejects: Path | None


def read_recipients(path: Path, now: datetime) -> Iterator[tuple[Row, Recipient] | BadRow]:
    """Stream a file's recipients, each with its row; what can't be taken comes as `BadRow`. Raises `BadInput`."""
    for row in read_rows(path, _cell, [*_CELLS, "profile.<category>.<variable>"]):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield row, parse(row.data, now)
        except BadRecipient as error:
            yield BadRow(row.line, error.field, error.reason, _at(row.data, error.field), row.data)


def _at(data: Any, field: str) -> Any:
    for step in field.split(".") if field else ():
        data = data.get(step) if isinstance(data, dict) else data[int(step)] if isinstance(data, list) else None
    return data if field else None


class _Rejects:
    """The reject file, made with its first row. A file left from an earlier import is removed: it would mislead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.first: list[tuple[int, str, str]] = []
        self._file: TextIO | None = None
        path.unlink(missing_ok=True)

    def add(self, bad: BadRow) -> None:
        if self._file is None:  # for the owner's eyes only: rows are personal
            self._file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
        line = json.dumps(asdict(bad), ensure_ascii=False, default=str)
        self._file.write(line.encode("utf-8", "replace").decode() + "\n")  # a row may be rejected for not being UTF-8
        self.count += 1
        if len(self.first) < FAULTS_SHOWN:
            self.first.append((bad.line, bad.field, bad.reason))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def import_file(
    connection: Connection,
    secret: bytes,
    path: Path,
    rejects: Path,
    actor: str,
    now: datetime,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Take in a file, a batch at a time, each in a transaction of its own; `progress` hears how many rows are done.

    A row replaces what was known of its recipient; how its choices are heard, `ledger.recipients.upsert` tells. Bad rows
    go to `rejects` (JSONL: line, field, reason, value, row) and stop nothing. Raises `BadInput` where the file as a whole
    can't be read.
    """
    counts: Counter[str] = Counter()
    with closing(_Rejects(rejects)) as rejected:
        for batch in _batches(read_recipients(path, now), rejected):
            taken = upsert(connection, secret, [recipient for _, recipient in batch.values()], actor, now)
            counts.update(new=len(taken.new), changed=len(taken.changed), unchanged=len(taken.unchanged))
            for recipient_id in taken.erased:
                row = batch[recipient_id][0]
                rejected.add(BadRow(row.line, "id", ERASED, recipient_id, row.data))
            if progress:
                progress(counts.total() + rejected.count)
    kept = rejects if rejected.count else None
    return Imported(counts["new"], counts["changed"], counts["unchanged"], rejected.count, tuple(rejected.first), kept)


def _batches(items: Iterable[tuple[Row, Recipient] | BadRow], rejected: _Rejects) -> Iterator[dict[str, tuple[Row, Recipient]]]:
    """Good rows by id, some thousand at a time. A batch ends before a second row for the same person, which comes after."""
    batch: dict[str, tuple[Row, Recipient]] = {}
    for item in items:
        if isinstance(item, BadRow):
            rejected.add(item)
            continue
        if len(batch) == BATCH_ROWS or item[1].id in batch:
            yield batch
            batch = {}
        batch[item[1].id] = item
    if batch:
        yield batch
