"""Files as people, spreadsheets and broken programs make them, each with the truth about its rows.

The writer is independent of the code under test: it knows neither its CSV rules nor the csv module. Each row carries a token of its
own in every cell, so that a value of another row is seen.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import openpyxl
from hypothesis import strategies as st

RECIPIENT_COLUMNS = ("id", "person", "language", "email", "birth_date", "profile.identity.first_name", "channels.email")
AUDIENCE_COLUMNS = ("recipient", "data.first_name", "data.project", "data.amount")
BYTE = "\ue000"  # a byte of Windows-1252 in a file of another encoding
OTHER_ENDS = ("\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1e")  # ends of lines for some programs, not for CSV
LONG = 300 * 1024


@dataclass(frozen=True)
class Damage:
    """What is wrong with a row. `name` is the cell of the first name, with {t} for the row's token; `cells` are others.

    `raw`: the cell is written as it is, without quotes. A row is `good` (must be taken), `bad` (must be reported), or either.
    `readable`: a person can tell from the row's own line whom its opt-out is about.
    """

    name: str = "Anne {t}"
    cells: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False
    fate: str = "either"
    readable: bool = True
    splits: bool = False  # it may be reported as several rows, or make several of its neighbours


DAMAGES: dict[str, Damage] = {
    "none": Damage(fate="good"),
    "accent": Damage("Zoë {t}", fate="good"),
    "blanks": Damage("\u00a0Anne {t} ", fate="good"),
    "quotes": Damage('Jan "Jef" {t}', fate="good"),
    "line feed": Damage("Anne\n{t}", fate="good"),
    "carriage return": Damage("Anne\r{t}", fate="good"),
    "both": Damage("Anne\r\n{t}", fate="good"),
    "delimiter": Damage("Anne, Jan; {t}\t|", fate="good"),
    "many lines": Damage("Anne\n\n\n\n\n\n\n{t}", splits=True, readable=False),
    "a row in quotes": Damage("Anne\na,b,c,d,e,f,g\na;b;c;d;e;f;g\n{t}", splits=True, readable=False),
    "address": Damage(cells={"email": "nobody {t}", "amount": "much"}, fate="bad"),
    "date": Damage(cells={"birth_date": "31/31/1980", "amount": "12.5.1"}, fate="bad"),
    "language": Damage(cells={"language": "xx", "amount": "-"}, fate="bad"),
    "placeholder": Damage("NULL", fate="bad"),
    "mark": Damage("{{{{ first_name }}}} {t}", fate="bad"),
    "error": Damage("#N/A", fate="bad"),
    "id": Damage(cells={"id": "not an id {t}"}, fate="bad", readable=False),
    "no id": Damage(cells={"id": ""}, fate="bad", readable=False),
    "open quote": Damage('"Anne {t}', raw=True, splits=True),
    "closing quote": Damage('Anne {t}"', raw=True, splits=True),
    "quote in a cell": Damage('An"ne {t}', raw=True, splits=True),
    "quote and text": Damage('"Anne" {t}', raw=True, splits=True),
    "surplus": Damage("Anne{d}{t}", raw=True, fate="bad"),
    "short": Damage(readable=False),
    "null": Damage("An\0ne {t}", fate="bad"),
    "next line": Damage("An\x85ne {t}"),
    "line separator": Damage("An\u2028ne {t}"),
    "form feed": Damage("An\x0c\x0b\x1c\x1d\x1ene {t}"),
    "byte order mark": Damage("\ufeffAnne {t}", cells={"id": "\ufeff{t}"}, fate="good"),
    "byte": Damage(f"Zo{BYTE} {{t}}"),
    "replacement": Damage("Zo\ufffd {t}", fate="bad"),
    "misread": Damage("ZoÃ« {t}", fate="bad"),
    "long": Damage("{t}" + "a" * 5_000),
    "very long": Damage("{t}" + "a" * LONG, fate="bad", readable=False),
    "formula": Damage("=1+1 {t}"),
    "text formula": Damage('="{t}"', raw=True, splits=True),
    "bidi": Damage("\u202eAnne {t}\u202c"),
}
RARE = {"very long", "long"}
COMMON = [name for name in DAMAGES if name not in RARE]
NO_WORDS = ("false", "FALSE", " false", "NEE", "onwaar", "Non", "0", "faux\u00a0", "nein")
YES_WORDS = ("true", "TRUE", "JA", "waar", "")
HEADERS = ("plain", "capitals", "blanks", "quoted", "twice", "unknown", "missing", "after blank lines", "sep", "repeated", "only")
PLAIN_HEADERS = ("plain",) * 8
CONTAINERS = ("csv", "tsv", "jsonl", "xlsx", "gzip", "xlsx as csv", "csv as xlsx", "csv as jsonl", "jsonl as csv", "empty", "wide")
ENCODINGS = ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
SHEETS = ("plain", "plain", "plain", "empty second", "two", "merged", "formula", "typed", "hidden column")


@dataclass(frozen=True)
class Row:
    """A row: its damage, whether it refuses e-mail and in which word, the end of its line, and blank lines after it."""

    damage: str
    refuses: bool
    word: int
    end: str
    blanks: int


@dataclass(frozen=True)
class FileSpec:
    """All choices that make a file."""

    is_audience: bool
    container: str
    rows: tuple[Row, ...]
    encoding: str
    delimiter: str
    all_quoted: bool
    trailing: int
    header: str
    tail: str  # what follows the last row
    cut: int  # how many bytes are missing at the end
    sheet: str


@dataclass(frozen=True)
class ExpectedRow:
    """A row as its author means it: its token, its lines in the file, its cells, and what must become of it."""

    token: str
    lines: range
    name: str
    refuses: bool | None  # None: its word is cut off
    damage: Damage


@dataclass(frozen=True)
class MadeFile:
    """A file and the truth about it. `refusal`: as a whole it `must` be refused, `may` be, or must not be (`never`)."""

    suffix: str
    content: bytes
    rows: tuple[ExpectedRow, ...]
    refusal: str
    exact: bool  # the number of rows is certain


def specs() -> st.SearchStrategy[FileSpec]:
    """Any file."""
    usual = st.sampled_from(["\n", "\r\n", "\r"])
    damages = st.one_of(st.sampled_from(["none", *COMMON]), st.sampled_from(["none", *COMMON, *sorted(RARE)]))

    def rows(ends: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[Row, ...]]:
        row = st.builds(Row, damages, st.booleans(), st.integers(0, 8), ends, st.sampled_from([0, 0, 0, 1]))
        return st.lists(row, min_size=1, max_size=8).map(tuple)

    any_end = st.one_of(usual, st.sampled_from(OTHER_ENDS))
    return st.builds(
        FileSpec,
        is_audience=st.booleans(),
        container=st.one_of(st.just("csv"), st.just("csv"), st.sampled_from(CONTAINERS)),
        rows=st.one_of(usual.flatmap(lambda end: rows(st.just(end))), rows(usual), rows(any_end)),
        encoding=st.sampled_from(ENCODINGS),
        delimiter=st.sampled_from(",;\t|"),
        all_quoted=st.booleans(),
        trailing=st.integers(0, 2),
        header=st.one_of(st.just("plain"), st.sampled_from(HEADERS)),
        tail=st.one_of(st.just(""), st.sampled_from(["no end", "\x1a", "\0\0\0", '"', "\ufeff", " \t"])),
        cut=st.one_of(st.just(0), st.integers(0, 3)),
        sheet=st.sampled_from(SHEETS),
    )


def make(spec: FileSpec, prefix: str) -> MadeFile:
    """The file, whose tokens begin with the prefix."""
    makers = {"xlsx": _workbook, "xlsx as csv": _workbook, "jsonl": _jsonl, "jsonl as csv": _jsonl}
    made = makers.get(spec.container, _csv)(spec, prefix)
    if spec.container == "gzip":
        return MadeFile(".csv", gzip.compress(made.content), made.rows, "must", exact=False)
    if spec.container == "empty":
        return MadeFile(".csv", b"", (), "must", exact=False)
    if " as " in spec.container:
        refusal = "may" if spec.container == "csv as jsonl" else "must"  # a .jsonl file has no header: each line is reported
        rows = tuple(replace(row, damage=Damage(readable=False)) for row in made.rows)
        return MadeFile(f".{spec.container.split()[-1]}", made.content, rows, refusal, exact=False)
    return made


# -- cells -------------------------------------------------------------------------------------------------------------


def _cells(spec: FileSpec, row: Row, token: str, place: int) -> dict[str, str]:
    damage = DAMAGES[row.damage]
    cells = {
        "id": token,
        "person": "customer",
        "language": "nl",
        "email": f"{token}@example.org",
        "birth_date": "1980-01-31",
        "project": f"roof {token}",
        "amount": str(9_000 + place),
    }
    cells |= {name: text.replace("{t}", token) for name, text in damage.cells.items()}
    name = damage.name.format(t=token, d=spec.delimiter)
    if spec.is_audience:
        return {"recipient": cells["id"], "data.first_name": name, "data.project": cells["project"], "data.amount": cells["amount"]}
    plain = {column: cells[column] for column in ("id", "person", "language", "email", "birth_date")}
    return {**plain, "profile.identity.first_name": name, "channels.email": _word(row)}


def _word(row: Row) -> str:
    return NO_WORDS[row.word % len(NO_WORDS)] if row.refuses else YES_WORDS[row.word % len(YES_WORDS)]


def _columns(spec: FileSpec) -> tuple[str, ...]:
    return AUDIENCE_COLUMNS if spec.is_audience else RECIPIENT_COLUMNS


def _name_column(spec: FileSpec) -> str:
    return "data.first_name" if spec.is_audience else "profile.identity.first_name"


def _storable(text: str, encoding: str) -> str:
    """The text that a file of this encoding can hold."""
    if encoding != "cp1252" or text.isascii():
        return text
    return BYTE.join(piece.encode(encoding, "replace").decode(encoding) for piece in text.split(BYTE))


# -- CSV ---------------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes lines and counts them as an editor does: by line feeds, carriage returns, or both together."""

    def __init__(self, spec: FileSpec) -> None:
        self.spec = spec
        self.text = ""
        self._counted, self._line = 0, 1

    @property
    def line(self) -> int:
        """The number of the line that begins here."""
        if not self.text.endswith("\r"):  # else a line feed may follow
            part = self.text[self._counted :]
            self._line += part.replace("\r\n", "\n").replace("\r", "\n").count("\n")
            self._counted = len(self.text)
            return self._line
        return self._line + self.text[self._counted :].replace("\r\n", "\n").replace("\r", "\n").count("\n")

    def quoted(self, text: str) -> str:
        """A cell in quotes, where it needs them."""
        needs = any(character in text for character in ('"', "\n", "\r", self.spec.delimiter))
        return '"' + text.replace('"', '""') + '"' if needs or self.spec.all_quoted else text

    def write(self, cells: list[str], end: str) -> range:
        """A line of cells that are written already; its lines."""
        first = self.line
        self.text += self.spec.delimiter.join([*cells, *[""] * self.spec.trailing])
        last = self.line
        self.text += end
        return range(first, last + 1)


def _header_cells(spec: FileSpec) -> list[str]:
    columns = list(_columns(spec))
    if spec.header == "capitals":
        columns = [name.upper() for name in columns]
    elif spec.header == "blanks":
        columns = [f" {name} " for name in columns]
    elif spec.header == "twice":
        columns[-1] = columns[1]
    elif spec.header == "unknown":
        columns[2] = "nonsense"
    elif spec.header == "missing":
        columns[0] = columns[0].replace("id", "no_id").replace("recipient", "no_recipient")
    if spec.container == "wide":
        columns += [(f"data.v{n}" if spec.is_audience else f"profile.more.v{n}") for n in range(10_000)]
    return columns


def _csv(spec: FileSpec, prefix: str) -> MadeFile:
    if spec.encoding == "cp1252":  # it has none of the other ends of lines of Unicode
        spec = replace(spec, rows=tuple(replace(row, end=row.end if row.end.isascii() else "\n") for row in spec.rows))
    writer = _Writer(spec)
    usual = spec.rows[0].end if spec.rows[0].end in ("\n", "\r\n", "\r") else "\n"
    if spec.header == "sep":
        writer.text += f"sep={spec.delimiter}{usual}"
    elif spec.header == "after blank lines":
        writer.text += usual * 3
    header = _header_cells(spec)
    writer.write([f'"{name}"' if spec.header == "quoted" else writer.quoted(name) for name in header], usual)
    rows = [] if spec.header == "only" else [_csv_row(writer, row, f"{prefix}r{n}e", n) for n, row in enumerate(spec.rows)]
    if spec.header == "repeated":
        writer.write([writer.quoted(name) for name in header], usual)
    if spec.tail == "no end":
        writer.text = writer.text.rstrip("\r\n") if rows and not rows[-1].damage.splits else writer.text
    else:
        writer.text += spec.tail
    content = _encoded(writer.text, spec.encoding)
    if spec.cut:
        content = content[: -spec.cut]
    if spec.encoding == "cp1252" and any(row.damage == "misread" for row in spec.rows):  # some of its bytes form UTF-8
        texts = [f"{expected.name}{_word(row)}" for expected, row in zip(rows, spec.rows, strict=False)]
        rows = [
            row if text.isascii() else replace(row, damage=replace(row.damage, fate="either"))
            for row, text in zip(rows, texts, strict=True)
        ]
    rows = [_one_of_a_line(row, spec.rows, place) for place, row in enumerate(rows)]
    if rows and spec.cut:
        rows[-1] = replace(rows[-1], refuses=None)
    if rows and (spec.cut or (spec.tail.strip() and spec.rows[-1].end in OTHER_ENDS)):  # both change the last row
        rows[-1] = replace(rows[-1], damage=Damage(readable=False))
    return MadeFile(f".{'tsv' if spec.container == 'tsv' else 'csv'}", content, tuple(rows), _csv_refusal(spec), _is_exact(spec))


def _csv_row(writer: _Writer, row: Row, token: str, place: int) -> ExpectedRow:
    spec, damage = writer.spec, DAMAGES[row.damage]
    cells = {name: _storable(text, spec.encoding) for name, text in _cells(spec, row, token, place).items()}
    name = cells[_name_column(spec)]
    texts = [text if damage.raw and column == _name_column(spec) else writer.quoted(text) for column, text in cells.items()]
    if spec.container == "wide":
        texts += [""] * 10_000
    if row.damage == "short":
        texts = texts[:2]
    lines = writer.write(texts, row.end)
    usual = row.end if row.end in ("\n", "\r\n", "\r") else ""
    writer.text += row.blanks * (spec.delimiter * (len(texts) - 1) + usual) if usual else ""
    if spec.encoding == "cp1252" and not _same(damage, spec):
        damage = Damage(
            damage.name, damage.cells, damage.raw, "either", damage.readable and "id" not in damage.cells, damage.splits
        )
    return ExpectedRow(token, lines, name.replace(BYTE, "é"), row.refuses, damage)


def _one_of_a_line(expected: ExpectedRow, rows: tuple[Row, ...], place: int) -> ExpectedRow:
    """The row. Where others are on its line, each of them need be read only if none of them is damaged."""
    first = last = place
    while first and rows[first - 1].end in OTHER_ENDS:
        first -= 1
    while last + 1 < len(rows) and rows[last].end in OTHER_ENDS:
        last += 1
    if first == last and rows[last].end not in OTHER_ENDS:
        return expected
    is_plain = all(row.damage in ("none", "accent", "address", "date") for row in rows[first : last + 1])
    return expected if is_plain else replace(expected, damage=Damage(readable=False, splits=True))


def _same(damage: Damage, spec: FileSpec) -> bool:
    """Whether the encoding can hold the damage."""
    texts = (damage.name, *damage.cells.values())
    return all(_storable(text, spec.encoding) == text for text in texts) and damage is not DAMAGES["misread"]


def _encoded(text: str, encoding: str) -> bytes:
    """The bytes; a marked byte is one of Windows-1252."""
    codec = "utf-8" if encoding == "utf-8-sig" else encoding
    is_bytes = encoding in ("utf-8", "utf-8-sig", "cp1252")
    pieces = text.split(BYTE)
    if not is_bytes:
        return "é".join(pieces).encode(codec, "replace")
    content = b"\xe9".join(piece.encode(codec, "replace") for piece in pieces)
    return b"\xef\xbb\xbf" + content if encoding == "utf-8-sig" else content


def _csv_refusal(spec: FileSpec) -> str:
    if spec.header in ("twice", "unknown", "missing"):
        return "must"
    if spec.encoding.startswith(("utf-16", "utf-32")) and spec.cut:
        return "may"  # it ends within a character
    if spec.container == "wide" or (spec.header == "only" and spec.cut):
        return "may"
    return "may" if spec.encoding == "utf-16" and "\0" in spec.tail else "never"


def _is_exact(spec: FileSpec) -> bool:
    """Whether each row is one report or one row taken, and nothing else is counted."""
    has_splits = any(DAMAGES[row.damage].splits or row.end in OTHER_ENDS for row in spec.rows)
    return not has_splits and spec.tail in ("", "no end", " \t") and spec.header != "repeated" and not spec.cut


# -- JSONL -------------------------------------------------------------------------------------------------------------


def _jsonl(spec: FileSpec, prefix: str) -> MadeFile:
    rows, text, line = [], "", 1
    for place, row in enumerate(spec.rows):
        token, damage = f"{prefix}r{place}e", DAMAGES[row.damage]
        cells = _cells(spec, row, token, place)
        if spec.is_audience:
            data: dict[str, Any] = {"recipient": cells["recipient"]}
            data["data"] = {name.partition(".")[2]: value for name, value in cells.items() if name.startswith("data.")}
        else:
            data = {name: cells[name] for name in ("id", "person", "language", "email", "birth_date")}
            data["profile"] = {"identity": {"first_name": cells["profile.identity.first_name"]}}
            data["channels"] = {"email": not row.refuses}
        written = json.dumps(data, ensure_ascii=spec.all_quoted)
        fate = damage.fate if damage.fate == "bad" and row.damage not in ("surplus", "short", "no id") else "either"
        end = row.end if row.end in ("\n", "\r\n") else "\n"
        text += written + end
        readable = damage.readable and "id" not in damage.cells
        rows.append(
            ExpectedRow(token, range(line, line + 1), cells[_name_column(spec)], row.refuses, Damage(fate=fate, readable=readable))
        )
        line += 1
    encoding = spec.encoding if spec.encoding in ("utf-8-sig", "utf-16") else "utf-8"
    return MadeFile(".jsonl", _encoded(text, encoding), tuple(rows), "never", exact=True)


# -- XLSX --------------------------------------------------------------------------------------------------------------


def _workbook(spec: FileSpec, prefix: str) -> MadeFile:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append([*_columns(spec), *[None] * spec.trailing])
    rows = []
    for place, row in enumerate(spec.rows):
        token, damage = f"{prefix}r{place}e", DAMAGES[row.damage]
        cells: dict[str, Any] = {name: _legal(text) for name, text in _cells(spec, row, token, place).items()}
        name, fate, readable = cells[_name_column(spec)], damage.fate, damage.readable
        if damage.raw or row.damage in ("short", "null", "very long", "a row in quotes", "many lines", "byte", "byte order mark"):
            fate, readable = "either", False  # these are damages of text files
        if spec.sheet == "typed" and row.damage == "none":
            cells |= {"birth_date": date(1980, 1, 31), "channels.email": not row.refuses} if not spec.is_audience else {}
        elif spec.sheet == "formula":
            cells[_name_column(spec)] = '="Anne "&"Marie"'
        for number, value in enumerate(cells.values(), 1):
            cell = sheet.cell(place + 2, number, value)
            if spec.sheet != "formula" and isinstance(value, str):
                cell.data_type = "e" if value == "#N/A" else "s"
        rows.append(ExpectedRow(token, range(place + 2, place + 3), name, row.refuses, Damage(fate=fate, readable=readable)))
    refusal = _arranged(book, spec, len(rows))
    content = io.BytesIO()
    book.save(content)
    return MadeFile(".xlsx", content.getvalue(), tuple(rows), refusal, exact=True)


def _arranged(book: openpyxl.Workbook, spec: FileSpec, rows: int) -> str:
    """Give the workbook its arrangement; whether it must be refused."""
    sheet, last = book.worksheets[0], len(_columns(spec))
    if spec.sheet == "merged" and rows > 1:
        sheet.merge_cells(start_row=2, end_row=3, start_column=last, end_column=last)
        return "must"
    if spec.sheet in ("two", "empty second"):
        second = book.create_sheet()
        if spec.sheet == "two":
            second.append(["id"])
            return "must"
    if spec.sheet == "hidden column":
        sheet.column_dimensions["B"].hidden = True
    return "must" if spec.sheet == "formula" else "never"


def _legal(text: str) -> str:
    """A text without the characters that no workbook can hold, and no longer than a cell."""
    return "".join(c for c in text if c.isprintable() or c in "\n\r\t\u00a0\u2028\x85")[:32_000]
