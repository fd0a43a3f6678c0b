"""Columns of spreadsheets: what they are guessed to be, and files that are read with an assignment in place of their header."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcher.intake import audience_columns
from dispatcher.intake.audience import read_audience
from dispatcher.intake.audience_uploads import Upload, UploadRange, UploadStore, assign_columns
from dispatcher.intake.errors import BadInput
from dispatcher.intake.rows import read_header
from dispatcher.ledger.campaigns.audience import AudienceError, AudienceRow
from dispatcher.policy import DEFAULT_FILE_RULES

VARIABLES = ("project", "amount", "offer_url", "first_name")


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        (["Klantnummer", "Project", "AMOUNT", "Offer URL"], ["recipient", "data.project", "data.amount", "data.offer_url"]),
        (["Numéro client", "data.project", "First-name"], ["recipient", "data.project", "data.first_name"]),
        (["id", "Kunde", "Projects", "Remarks", ""], ["recipient", "-", "data.project", "-", "-"]),
    ],
)
def test_columns_are_guessed_by_their_names_each_once(header: list[str], columns: list[str]) -> None:
    assert audience_columns.guess(header, VARIABLES) == columns


def test_a_header_fits_only_with_the_names_of_an_audience() -> None:
    assert audience_columns.fits(["Recipient", "data.project", ""], VARIABLES)
    for header in (["recipient", "data.colour"], ["data.project"], ["recipient", "recipient"], ["recipient", "remarks"], []):
        assert not audience_columns.fits(header, VARIABLES)


@pytest.mark.parametrize(
    "columns",
    [["-", "data.project"], ["recipient", "recipient"], ["recipient", "data.colour"], ["recipient"], ["recipient", "data.object"]],
)
def test_an_assignment_that_cannot_be_read_is_refused(columns: list[str]) -> None:
    with pytest.raises(BadInput):
        audience_columns.check_assignment(columns, ["a", "b"], VARIABLES)


def test_an_assigned_file_is_read_by_position(tmp_path: Path) -> None:
    content = "Klant;Naam;Bedrag;Naam\r\nanna;x;12,50;\r\n\r\nbert;y;1;2;3\r\ncarl;z;8;q\r\n"
    writer = UploadStore(tmp_path, 1_000, 10).open(Upload("web-1", ".csv", is_gzip=False), UploadRange())
    writer.write(content.encode())
    writer.finish()
    writer.close()
    path = tmp_path / "uploads" / "web-1" / "audience.csv"
    assert read_header(path) == ["Klant", "Naam", "Bedrag", "Naam"]
    assign_columns(tmp_path, "web-1", ["recipient", "-", "data.amount", "-"])
    rows = list(read_audience(path, DEFAULT_FILE_RULES))
    assert [(row.line, row.data) for row in rows if isinstance(row, AudienceRow)] == [
        (2, {"amount": "12,50"}),
        (5, {"amount": "8"}),
    ]
    assert [row.line for row in rows if isinstance(row, AudienceError)] == [4]
    assert [row.line for row in read_audience(path, DEFAULT_FILE_RULES, skip=2)] == [5]  # where a worker goes on with a load
    assign_columns(tmp_path, "web-1", [])
    with pytest.raises(BadInput):
        list(read_audience(path, DEFAULT_FILE_RULES))


def test_frequent_variables_are_guessed_in_four_languages() -> None:
    variables = ("first_name", "amount", "valid_until", "offer_url")
    for header in (
        ("Voornaam", "Bedrag", "Geldig tot", "Link"),
        ("Prénom", "Montant", "Valable jusqu'au", "Lien"),
        ("Vorname", "Betrag", "Gültig bis", "URL"),
    ):
        assert audience_columns.guess(header, variables) == [f"data.{name}" for name in variables]
    assert audience_columns.guess(("Bedrag",), ("project",)) == ["-"]
