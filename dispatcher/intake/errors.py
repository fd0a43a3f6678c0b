"""Errors in input: which file, line and field, what is wrong, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError

from dispatcher.domain.spelling import did_you_mean

Form = TypeVar("Form", bound=BaseModel)
ERRORS_MAX = 1_000  # that are listed: each takes a kilobyte


@dataclass(frozen=True, slots=True)
class InputError:
    """One error. `line` is 0 where the input has no lines; `field` is empty where the input as a whole is wrong."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class BadInput(Exception):
    """Input that is refused as a whole, with every error found."""

    def __init__(self, *faults: InputError) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class StrictModel(BaseModel):
    """What all forms have in common: no unknown fields, no blanks around texts."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


def _in_reach(at: datetime) -> datetime:
    if not 1970 <= at.year <= 2200:
        raise ValueError("lies too far from today")
    return at


# With its time zone, and far from the first and last year, which conversion to another time zone could leave.
Moment: TypeAlias = Annotated[AwareDatetime, AfterValidator(_in_reach)]


def validate(form: type[Form], value: Any, file: str, lines: Mapping[str, int] | None = None) -> Form:
    """The form of plain data. Raises BadInput with every error. `lines` maps top-level fields to their lines."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        if (count := error.error_count()) > ERRORS_MAX:
            raise BadInput(InputError(file, 0, "", f"has {count:,} errors, which are too many to list")) from None
        raise BadInput(*(InputError(file, _line(lines, field), field, text) for field, text in sentences(error, form))) from None


def sentences(error: ValidationError, form: type[BaseModel]) -> list[tuple[str, str]]:
    """The (field, what is wrong) pairs of a validation error, without values, which may be personal data."""
    pairs = []
    for item in error.errors(include_input=False, include_url=False):
        field = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if item["type"] == "extra_forbidden":
            message = f"unknown field{did_you_mean(field, form.model_fields)}"
        elif item["type"] == "missing":
            message = "missing"
        pairs.append((field, message))
    return pairs


def _line(lines: Mapping[str, int] | None, field: str) -> int:
    return (lines or {}).get(field.partition(".")[0], 0)


def read_text(path: Path) -> str:
    """The text of a file. Raises BadInput where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(InputError(str(path), 0, "", f"can't be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise BadInput(InputError(str(path), 0, "", "is not UTF-8 text; save it as UTF-8")) from None


def as_data(faults: Sequence[InputError]) -> list[dict[str, Any]]:
    """Errors as plain data, for JSON."""
    return [{"file": fault.file, "line": fault.line, "field": fault.field, "message": fault.message} for fault in faults]
