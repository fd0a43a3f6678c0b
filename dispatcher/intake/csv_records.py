"""Lines of text files, and the records of a CSV file, with as much of a broken one as can be told."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from dispatcher.domain.notation import trim

ROW_LENGTH_MAX = 256 * 1024
LONG_LINE_MAX = 16 * 1024 * 1024
TOO_LONG = f"is longer than {ROW_LENGTH_MAX} characters"
# Unicode and ASCII have more ends of lines than CSV (UAX 14, class BK and NL; str.splitlines). Some programs write them.
_OTHER_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
_ENDS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_QUOTES_CELLS = "has a quote that takes in the cells after it"
_NOT_CLOSED = "opens a quote that is not closed"
csv.field_size_limit(2 * ROW_LENGTH_MAX)


class LongLine(str):
    """A line that is too long for a row, up to LONG_LINE_MAX: only opt-outs are read from it."""

    __slots__ = ()


def read_lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers; a `LongLine` for one that is too long."""
    line = 0
    while text := file.readline(ROW_LENGTH_MAX):
        line += 1
        if len(text) == ROW_LENGTH_MAX and not text.endswith(("\n", "\r")):
            text = LongLine(text + file.readline(LONG_LINE_MAX - ROW_LENGTH_MAX))
            rest: str = text
            while rest and not rest.endswith(("\n", "\r")):
                rest = file.readline(ROW_LENGTH_MAX)
        yield line, text


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """The cells of a CSV record, or as much of them as can be told, and why it cannot be read."""

    line: int
    cells: list[str]
    reason: str | None = None


class CsvRecords:
    """The records of a CSV file.

    A quote that is not closed would make one cell of the lines that follow. Where a quoted cell has more lines than the rules
    allow, a line inside it looks like a row of its own, the file ends in it, or the record then lacks cells, only the line of the
    quote is refused, and reading goes on with the next line.
    """

    def __init__(self, lines: Iterator[tuple[int, str]], delimiter: str, widths: tuple[int, int], lines_max: int) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._width, self._width_max = widths  # without and with the columns that have no name
        self._lines_max = lines_max
        self._again: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[CsvRecord]:
        while (first := self._next()) is not None:
            line, text = first
            if isinstance(text, LongLine):
                yield CsvRecord(line, [cell.strip('"') for cell in text.rstrip(_ENDS).split(self._delimiter)], TOO_LONG)
            elif text.count(self._delimiter) >= self._width_max and _OTHER_ENDS.search(text):
                # several rows: read as one, the first would be given cells of the others
                self._again.extendleft((line, part) for part in reversed(_OTHER_ENDS.split(text)) if trim(part))
            else:
                yield self._record(line, text)

    def _next(self) -> tuple[int, str] | None:
        return self._again.popleft() if self._again else next(self._lines, None)

    def _record(self, line: int, text: str) -> CsvRecord:
        if '"' not in text:  # as the csv module, in a quarter of the time
            return CsvRecord(line, text.rstrip(_ENDS).split(self._delimiter))
        taken = [text]
        while True:
            try:
                cells = self._cells([*taken[:-1], taken[-1].rstrip(_ENDS)])
                if len(cells) < self._width and self._is_quote_of_cells(cells, taken):
                    return self._broken(line, taken, _QUOTES_CELLS)
                return (len(cells) > self._width_max and self._first_of(line, taken)) or CsvRecord(line, cells)
            except csv.Error as error:
                if "unexpected end of data" not in str(error):  # that one says that a quote is open
                    return self._broken(line, taken, f"is not CSV: {error}")
            following = self._next()
            more = following[1] if following and not isinstance(following[1], LongLine) else None
            reason = self._why_not(more, taken)
            if more is None or reason is not None:
                if following is not None:
                    self._again.appendleft(following)
                return self._broken(line, taken, reason or _NOT_CLOSED)
            taken.append(more)

    def _cells(self, lines: Sequence[str]) -> list[str]:
        return next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])

    def _is_quote_of_cells(self, cells: Sequence[str], taken: Sequence[str]) -> bool:
        """Whether a quote took in the cells that a record lacks: it ends on a later line, or without quotes the line has all."""
        if not any(map(trim, cells)):
            return False
        return len(taken) > 1 or self._width <= len(self._without_quotes(taken[0])) <= self._width_max

    def _without_quotes(self, text: str) -> list[str]:
        cells = next(csv.reader([text.rstrip(_ENDS)], delimiter=self._delimiter, quoting=csv.QUOTE_NONE), [])
        return [cell.strip('"') for cell in cells]

    def _first_of(self, line: int, taken: Sequence[str]) -> CsvRecord | None:
        """The record that ends within one of these lines, where other rows follow on that line; they are read next."""
        for place, text in enumerate(taken if len(taken) > 1 else ()):
            for end in _OTHER_ENDS.finditer(text):
                try:
                    cells = self._cells([*taken[:place], text[: end.start()]])
                except csv.Error:
                    continue
                if len(cells) <= self._width_max:
                    rest = [(line + place, text[end.end() :]), *enumerate(taken[place + 1 :], line + place + 1)]
                    self._again.extendleft(reversed(rest))
                    return CsvRecord(line, cells)
        return None

    def _why_not(self, more: str | None, taken: Sequence[str]) -> str | None:
        """Why the quoted cell does not go on with this line, or None where it may."""
        if more is None:
            return _NOT_CLOSED
        if len(taken) >= self._lines_max:
            return f"{_NOT_CLOSED} within {self._lines_max} lines"
        delimiters = more.count(self._delimiter)
        is_row = delimiters >= self._width - 1 and delimiters + sum(t.count(self._delimiter) for t in taken) >= self._width_max
        return f"{_NOT_CLOSED} before the next row" if is_row else None

    def _broken(self, line: int, taken: list[str], reason: str) -> CsvRecord:
        """Only the first line is refused; the others are read again, each as the start of a record."""
        self._again.extendleft(reversed([(line + place, text) for place, text in enumerate(taken) if place]))
        return CsvRecord(line, self._without_quotes(taken[0]), reason)
