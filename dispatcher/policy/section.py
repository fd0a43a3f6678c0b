"""Reading a TOML table strictly: every fault is noted with its place and what would be right, and reading goes on.

A reader that stopped at the first fault would make its user start the program ten times for ten faults.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, time
from typing import Any, TypeVar

from dispatcher.domain.recipient import LANGUAGES, Language

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One thing wrong in the file. `key` is the dotted place, `right` says what would be right there."""

    file: str
    key: str
    value: object
    right: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {self.value!r}"
        return f"{self.file}: {self.key}{shown}: {self.right}"


class InvalidPolicy(ValueError):
    """The file can't be used. `faults` holds everything that is wrong with it, not only the first."""

    def __init__(self, faults: tuple[PolicyError, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def near(word: object, known: Collection[str]) -> str:
    """A hint for a word that is not among the known ones."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(sorted(known))}"


class Section:
    """One table of the file. Each reading method notes a fault and gives a harmless value where the file is wrong.

    Use it as a context manager: on leaving, keys that nobody asked for are faults too.
    """

    __slots__ = ("_asked", "data", "faults", "file", "path")

    def __init__(self, data: object, file: str, path: str = "", faults: list[PolicyError] | None = None) -> None:
        self.file, self.path = file, path
        self.faults: list[PolicyError] = [] if faults is None else faults
        self._asked: set[str] = set()
        self.data: dict[str, Any] = {}
        if isinstance(data, dict):
            self.data = data
        elif data is not None:
            self.faults.append(PolicyError(file, path, data, "a table"))

    def __enter__(self) -> Section:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            for key in self.data.keys() - self._asked:
                self.fault(key, f"unknown key; {near(key, self._asked)}" if self._asked else "unknown key", None)

    def fault(self, key: str, right: str, value: object = None) -> None:
        """Note a fault at a key of this table."""
        self.faults.append(PolicyError(self.file, self.place(key), value, right))

    def place(self, key: str) -> str:
        """The dotted place of a key."""
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def section(self, key: str, *, needed: bool = True) -> Section:
        """The table under a key; where a needed one is missing, that is one fault and not one per key in it."""
        value = self._take(key, needed=needed)
        return Section(value, self.file, self.place(key), self.faults if key in self.data or not needed else [])

    def each(self, known: Collection[str] | None = None) -> Iterator[str]:
        """The keys of this table in the file's order; keys outside `known` are left to be reported on leaving."""
        if known is not None:
            self._asked.update(known)
        for key in self.data:
            if known is None or key in known:
                self._asked.add(key)
                yield key

    def sections(self, key: str) -> Iterator[Section]:
        """The tables of a list, as `[[key]]` writes them; `key = []` says that there are none."""
        value = self._take(key)
        if not isinstance(value, list):
            self._wrong(key, value, f"tables headed [[{key}]], or {key} = []", None)
            return
        for place, each in enumerate(value, start=1):
            yield Section(each, self.file, f"{self.place(key)}.{place}", self.faults)

    def text(self, key: str) -> str:
        """A string that says something."""
        value = self._take(key)
        if isinstance(value, str) and value.strip():
            return value
        return self._wrong(key, value, "a text in quotes", "")

    def words(self, key: str, known: Collection[str] | None = None, otherwise: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of words, each named once, all known; a single word stands for a list of one.

        A missing list is a fault, unless `otherwise` says what it would be.
        """
        if otherwise is not None and key not in self.data:
            self._asked.add(key)
            return otherwise
        value = self._take(key)
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(word, str) and word for word in listed):
            return self._wrong(key, value, "a list of words", ())
        strange = [word for word in listed if known is not None and word not in known]
        for word in strange:
            self._wrong(key, word, near(word, known or ()), None)
        if len(set(listed)) < len(listed):
            self._wrong(key, value, "each word once", None)
        return () if strange else tuple(listed)

    def number(self, key: str, least: float, most: float) -> float:
        """A number within bounds."""
        value = self._take(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        return self._wrong(key, value, f"a number from {least:g} to {most:g}", least)

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self._take(key)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        return self._wrong(key, value, f"a whole number from {least} to {most}", least)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        return value if isinstance(value, bool) else self._wrong(key, value, "true or false", False)

    def day(self, key: str) -> date:
        """A date, unquoted."""
        value = self._take(key)
        return value if type(value) is date else self._wrong(key, value, "a date such as 2026-11-23", date.min)

    def clock(self, key: str) -> time:
        """A time of day, unquoted."""
        value = self._take(key)
        return value if isinstance(value, time) else self._wrong(key, value, "a time such as 21:00:00", time.min)

    def languages(self) -> dict[Language, str]:
        """The whole table, when it holds one text per language."""
        with self:
            return {language: self.text(language) for language in LANGUAGES}

    def _take(self, key: str, *, needed: bool = True) -> Any:
        self._asked.add(key)
        if key not in self.data and needed:
            self.fault(key, "is missing")
        return self.data.get(key)

    def _wrong(self, key: str, value: object, right: str, instead: T) -> T:
        if key in self.data:  # a missing key has been noted already
            self.fault(key, right, value)
        return instead
