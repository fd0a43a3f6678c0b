"""Rows of files that the fuzzer of `make fuzz` found to be lost, mixed up or refused without need."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import openpyxl
import pytest

from dispatcher.intake.errors import BadInput
from dispatcher.intake.recipient_import import read_recipients
from dispatcher.intake.rows import UnreadableRow
from dispatcher.policy import FileRules

HEADER = "id,person,language,profile.identity.first_name,channels.email"
Rows = list[tuple[str, Any] | tuple[int, str]]  # (id, first name) of a row that is taken, (line, reason) of one that is not


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Rows]:
    def read_file(content: str | bytes, name: str = "people.csv") -> Rows:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        items = read_recipients(path, datetime(2026, 11, 23, tzinfo=UTC), FileRules())
        return [
            (each.line, each.reason)
            if isinstance(each, UnreadableRow)
            else (each[1].id, each[1].profile.get("identity", {}).get("first_name"))
            for each in items
        ]

    return read_file


# -- ends of lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029", "\v", "\f", "\x1e"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_other_ends_of_lines_end_a_row(read: Callable[..., Rows], end: str, quote: str) -> None:
    rows = [",".join(f"{quote}{cell}{quote}" for cell in (f"c-{n}", "customer", "nl", f"N{n}", "false")) for n in range(3)]
    assert read(f"{HEADER}\n{end.join(rows)}{end}") == [("c-0", "N0"), ("c-1", "N1"), ("c-2", "N2")]


def test_a_short_row_takes_no_cell_of_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"{HEADER}\nc-0,customer\u2028c-1,customer,nl,N1,false\n", encoding="utf-8")
    short, whole = read_recipients(path, datetime(2026, 11, 23, tzinfo=UTC), FileRules())
    assert isinstance(short, UnreadableRow)
    assert short.readings == ({"id": "c-0", "person": "customer"},)
    assert not isinstance(whole, UnreadableRow)
    assert whole[1].id == "c-1"


def test_a_row_after_a_cell_with_lines_is_one_of_its_own(read: Callable[..., Rows]) -> None:
    rows = read(f'{HEADER}\nc-0,customer,nl,"An\nne",false\u2028c-1,customer\nc-2,customer,nl,Jan,\n')
    assert rows == [("c-0", "An\nne"), (3, "has 2 cells where the header has 5"), ("c-2", "Jan")]


def test_a_short_row_takes_no_cell_of_a_row_of_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f'{HEADER}\nc-0,customer\x85c-1,customer,nl,"An\nne",false\nc-2,customer,nl,Jan,\n', encoding="utf-8")
    short, first, second = read_recipients(path, datetime(2026, 11, 23, tzinfo=UTC), FileRules())
    assert isinstance(short, UnreadableRow)
    assert (short.line, short.readings) == (2, ({"id": "c-0", "person": "customer"},))
    assert [each[1].id for each in (first, second) if not isinstance(each, UnreadableRow)] == ["c-1", "c-2"]


def test_bytes_of_windows_1252_hide_no_opt_out(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(f"{HEADER}\nc-0,customer,nl,Zo\u00eb,\n".encode() + b"c-1\xa0,customer,nl,Zo\xeb,false\xa0\n")
    _, bad = read_recipients(path, datetime(2026, 11, 23, tzinfo=UTC), FileRules())
    assert isinstance(bad, UnreadableRow)
    (reading,) = bad.readings
    assert (reading["id"], reading["channels.email"]) == ("c-1\u00a0", "false\u00a0")


@pytest.mark.parametrize(
    ("row", "rest"),
    [('c-1,customer,nl,"Anne,false\n"', 1), ('c-1,customer,nl,"Anne,false\nc-2,customer"', 1), ('c-1,customer,nl,"Anne,false"', 0)],
)
def test_a_quote_hides_no_cells_after_it(tmp_path: Path, row: str, rest: int) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"{HEADER}\n{row}\nc-3,customer,nl,Jan,\n", encoding="utf-8")
    bad, *others, good = read_recipients(path, datetime(2026, 11, 23, tzinfo=UTC), FileRules())
    assert isinstance(bad, UnreadableRow)
    assert (bad.line, bad.reason) == (2, "has a quote that takes in the cells after it")
    assert (bad.readings[0]["id"], bad.readings[0]["channels.email"]) == ("c-1", "false")
    assert [each.line for each in others if isinstance(each, UnreadableRow)] == [3] * rest
    assert not isinstance(good, UnreadableRow)


def test_a_separator_within_a_cell_ends_no_row(read: Callable[..., Rows]) -> None:
    assert read(f"{HEADER}\nc-0,customer,nl,An\u2028ne,false\n") == [("c-0", "An\u2028ne")]


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailing", ["", ",", ",,,"])
def test_lines_in_an_early_cell_need_no_full_rows(read: Callable[..., Rows], trailing: str) -> None:
    header = f"id,profile.identity.first_name,person,language{trailing}\n"
    text = f'c-0,"An\nne",customer,nl{trailing}\nc-1,"Jan",customer,nl{trailing}\n'
    assert read(header + text) == [("c-0", "An\nne"), ("c-1", "Jan")]


def test_a_column_and_its_block_are_given_twice(read: Callable[..., Rows]) -> None:
    wide = ",".join(f"profile.more.v{number}" for number in range(10_000))
    assert read(f"id,person,language,{wide}\nc-0,customer,nl{',' * 10_000}\n") == [("c-0", None)]
    for columns in ("profile.identity,profile.identity.first_name", "language,language"):
        with pytest.raises(BadInput, match="is given twice"):
            read(f"id,person,{columns}\n")


# -- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reason"), [("Zo\u00c3\u00ab", "read as Windows-1252"), ("Zo\ufffd", "U\\+FFFD")])
@pytest.mark.parametrize("is_escaped", [True, False])
def test_a_wrong_encoding_is_seen_behind_escapes(read: Callable[..., Rows], name: str, reason: str, is_escaped: bool) -> None:
    row = {"id": "c-0", "person": "customer", "language": "nl", "profile": {"identity": {"first_name": name}}}
    ((line, message),) = read(json.dumps(row, ensure_ascii=is_escaped), "people.jsonl")
    assert line == 1
    assert reason.replace("\\", "") in str(message)


# -- workbooks ---------------------------------------------------------------------------------------------------------


def workbook(cell: str, merge: str = "", stored: str = "") -> bytes:
    """A workbook with this cell as a name; `stored` is what replaces the empty value of a formula."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (HEADER.split(","), ["c-0", "customer", "nl", cell, "false"], ["c-1", "customer", "nl", "Jan", None]):
        sheet.append(row)
    if merge:
        sheet.merge_cells(merge)
    made, changed = io.BytesIO(), io.BytesIO()
    book.save(made)
    with ZipFile(made) as archive, ZipFile(changed, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if stored and name.endswith("sheet1.xml"):
                assert b"<v />" in content or b"<v/>" in content or b"<v></v>" in content
                content = content.replace(b'<c r="D2"', b'<c r="D2" t="str"')
                for empty in (b"<v />", b"<v/>", b"<v></v>"):
                    content = content.replace(empty, stored.encode())
            copy.writestr(name, content)
    return changed.getvalue()


def test_merged_cells_are_refused(read: Callable[..., Rows]) -> None:
    """The second person's e-mail seems to be switched off, too."""
    with pytest.raises(BadInput, match=r"merged cells \(E2:E3\)"):
        read(workbook("Anne", merge="E2:E3"), "people.xlsx")


def test_a_formula_needs_its_value(read: Callable[..., Rows]) -> None:
    with pytest.raises(BadInput, match="formulas without their values"):
        read(workbook('="An"&"ne"'), "people.xlsx")
    assert read(workbook('="An"&"ne"', stored="<v>Anne</v>"), "people.xlsx") == [("c-0", "Anne"), ("c-1", "Jan")]
    assert read(workbook('=""', stored="<v></v>"), "people.xlsx") == [("c-0", None), ("c-1", "Jan")]
