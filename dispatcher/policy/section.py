"""Strict reading of a TOML table: record each error with its key and the expected value, and continue.

A reader that stops at the first error makes its user start the program ten times for ten errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, time
from typing import Any, TypeVar

from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One error in the file. `key` is the dotted key, `expected` says what would be right there."""

    file: str
    key: str
    value: object
    expected: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.file}: {self.key}{shown}: {self.expected}"


class InvalidPolicy(ValueError):
    """The file cannot be used. `faults` holds all errors, not only the first."""

    def __init__(self, faults: tuple[PolicyError, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class Section:
    """One table of the file. On a wrong value, each method that reads records an error and returns a harmless value.

    Use it as a context manager: on exit, keys that were never read are errors too.
    """

    __slots__ = ("_known_keys", "data", "faults", "file", "path")

    def __init__(self, data: object, file: str, path: str = "", faults: list[PolicyError] | None = None) -> None:
        self.file, self.path = file, path
        self.faults: list[PolicyError] = [] if faults is None else faults
        self._known_keys: set[str] = set()
        self.data: dict[str, Any] = {}
        if isinstance(data, dict):
            self.data = data
        elif data is not None:
            self.faults.append(PolicyError(file, path, data, "a table"))

    def __enter__(self) -> Section:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            for key in self.data.keys() - self._known_keys:
                self.fault(key, f"unknown key{did_you_mean(key, self._known_keys)}", None)

    def fault(self, key: str, expected: str, value: object = None) -> None:
        """Record an error at a key of this table."""
        self.faults.append(PolicyError(self.file, self.place(key), value, expected))

    def place(self, key: str) -> str:
        """The dotted name of a key, from the top of the file."""
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def section(self, key: str, *, required: bool = True) -> Section:
        """The table under a key. A missing required table is one error, not one per key in it."""
        value = self._get(key, required=required)
        return Section(value, self.file, self.place(key), self.faults if key in self.data or not required else [])

    def each(self, known: Collection[str] | None = None) -> Iterator[str]:
        """The keys of this table in the file's order. Keys outside `known` are reported on exit."""
        if known is not None:
            self._known_keys.update(known)
        for key in self.data:
            if known is None or key in known:
                self._known_keys.add(key)
                yield key

    def sections(self, key: str) -> Iterator[Section]:
        """The tables of a list, written as `[[key]]`; `key = []` means none."""
        value = self._get(key)
        if not isinstance(value, list):
            self._note(key, value, f"tables headed [[{key}]], or {key} = []", None)
            return
        for place, each in enumerate(value, start=1):
            yield Section(each, self.file, f"{self.place(key)}.{place}", self.faults)

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not blank. A missing one is an error, unless there is a `default`."""
        value = self._get(key, required=default is None)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value.strip():
            return value
        return self._note(key, value, "a text in quotes", "")

    def strings(self, key: str, known: Collection[str] | None = None, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of different strings, all from `known`; a single string is a list of one.

        A missing list is an error, unless there is a `default`.
        """
        if default is not None and key not in self.data:
            self._known_keys.add(key)
            return default
        value = self._get(key)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(word, str) and word for word in items):
            return self._note(key, value, "a list of words", ())
        unknown = [word for word in items if known is not None and word not in known]
        for word in unknown:
            self._note(key, word, f"unknown{did_you_mean(word, known or ())}", None)
        if len(set(items)) < len(items):
            self._note(key, value, "each word once", None)
        return () if unknown else tuple(items)

    def number(self, key: str, minimum: float, maximum: float, default: float | None = None) -> float:
        """A number within bounds. A missing one is an error, unless there is a `default`."""
        value = self._get(key, required=default is None)
        if value is None and default is not None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value <= maximum:
            return float(value)
        return self._note(key, value, f"a number from {minimum:g} to {maximum:g}", minimum)

    def integer(self, key: str, minimum: int, maximum: int, default: int | None = None) -> int:
        """A whole number within bounds. A missing one is an error, unless there is a `default`."""
        value = self._get(key, required=default is None)
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        return self._note(key, value, f"a whole number from {minimum} to {maximum}", minimum)

    def boolean(self, key: str, default: bool | None = None) -> bool:
        """True or false. A missing one is an error, unless there is a `default`."""
        value = self._get(key, required=default is None)
        if value is None and default is not None:
            return default
        return value if isinstance(value, bool) else self._note(key, value, "true or false", False)

    def day(self, key: str) -> date:
        """A date, unquoted."""
        value = self._get(key)
        return value if type(value) is date else self._note(key, value, "a date such as 2026-11-23", date.min)

    def clock(self, key: str) -> time:
        """A time of day, unquoted."""
        value = self._get(key)
        return value if isinstance(value, time) else self._note(key, value, "a time such as 21:00:00", time.min)

    def languages(self) -> dict[Language, str]:
        """The whole table, which holds one text per language."""
        with self:
            return {language: self.text(language) for language in LANGUAGES}

    def _get(self, key: str, *, required: bool = True) -> Any:
        self._known_keys.add(key)
        if key not in self.data and required:
            self.fault(key, "is missing")
        return self.data.get(key)

    def _note(self, key: str, value: object, expected: str, fallback: T) -> T:
        if key in self.data:  # a missing key is recorded already
            self.fault(key, expected, value)
        return fallback
