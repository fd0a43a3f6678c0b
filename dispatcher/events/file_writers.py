"""Writers of one file each: rows in, a file on the local disk out, in bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from dispatcher.events.file_columns import Column, ColumnKind

ROWS_PER_GROUP = 20_000  # of Parquet: what is in memory at once


class FileWriter(Protocol):
    """Writes rows to a file, which is complete after `close`."""

    rows: int

    def add(self, values: Sequence[Any]) -> None:
        """Add a row: the values of the columns, times as text."""

    def close(self) -> None:
        """Write the rest."""


class CsvWriter:
    """CSV (RFC 4180) in UTF-8 with a header; an empty field is a null."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self.rows = 0
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(column.name for column in columns)

    def add(self, values: Sequence[Any]) -> None:
        """Add a row."""
        self.rows += 1
        self._writer.writerow(values)

    def close(self) -> None:
        """Write the rest."""
        self._file.close()


class ParquetWriter:
    """Parquet, compressed with Zstandard."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        from pyarrow import float64, int64, parquet, schema, string, timestamp

        kinds = {
            ColumnKind.TEXT: string(),
            ColumnKind.NUMBER: int64(),
            ColumnKind.FRACTION: float64(),
            ColumnKind.TIME: timestamp("us", tz="UTC"),
        }
        self.rows = 0
        self._columns = columns
        self._schema = schema([(column.name, kinds[column.kind]) for column in columns])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._group: list[Sequence[Any]] = []

    def add(self, values: Sequence[Any]) -> None:
        """Add a row."""
        self.rows += 1
        self._group.append(values)
        if len(self._group) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the rest."""
        if self._group:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        from pyarrow import Table, array

        columns = [
            [_time(value) for value in values] if column.kind is ColumnKind.TIME else list(values)
            for column, values in zip(self._columns, zip(*self._group, strict=True), strict=True)
        ]
        arrays = [array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(Table.from_arrays(arrays, schema=self._schema))
        self._group.clear()


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text is not None else None


WRITERS: Mapping[str, Callable[[Path, Sequence[Column]], FileWriter]] = {"csv": CsvWriter, "parquet": ParquetWriter}
