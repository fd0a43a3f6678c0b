"""What is wrong with a row of a file is said in the reader's language, with the values that the English sentence has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dispatcher.campaigns.audience_loading import NO_ROWS
from dispatcher.content import values
from dispatcher.domain import notation
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.intake import csv_records
from dispatcher.intake.audience import read_audience
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns.audience import AudienceError
from dispatcher.policy.data import DEFAULT_FILE_RULES
from dispatcher.web.console import draft_forms
from dispatcher.web.console.fault_words import fault_parts
from dispatcher.web.console.translation import fault_words

TRANSLATIONS = [language for language in LANGUAGES if language != "en"]
FILES = {
    "cells.csv": "recipient,data.project\na,b,c\n",
    "quote.csv": 'recipient,data.project\na,"open\n',
    "null.csv": "recipient,data.project\na,x\0y\n",
    "misread.csv": "recipient,data.project\na,cafÃ©\n",
    "lost.csv": "recipient,data.project\na,caf\ufffd\n",
    "unnamed.csv": "recipient,data.project,\na,b,c\n",
    "id.csv": "recipient,data.project\na b,c\n",
    "canary.csv": "recipient,data.project\ncanary:x,c\n",
    "long.csv": "recipient,data.project\na," + "x" * 300_000 + "\n",
    "json.jsonl": '{"recipient": "a"\n',
    "list.jsonl": "[1]\n",
    "twice.jsonl": '{"recipient": "a", "recipient": "b"}\n',
    "number.jsonl": '{"recipient": 1}\n',
    "none.jsonl": '{"data": {}}\n',
    "large.jsonl": '{"recipient": "a", "data": {"project": "' + "x" * 70_000 + '"}}\n',
}


def faults(folder: Path) -> list[str]:
    found = []
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
        rows = list(read_audience(folder / name, DEFAULT_FILE_RULES))
        errors = [row.message for row in rows if isinstance(row, AudienceError)]
        assert errors, name
        found += errors
    return found


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_faults_of_files_are_said_in_each_language(tmp_path: Path, language: Language) -> None:
    assert [message for message in faults(tmp_path) if fault_words(message, language) == message] == []


def raised(source: str) -> list[str]:
    """The messages of the errors that a module raises; `1` stands for what differs."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "ValueError")
    texts = (call.args[0] for call in calls if call.args)
    constants = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
    assert constants
    return constants


@pytest.mark.parametrize("module", [values, notation])
def test_each_error_of_a_value_has_its_words(module: object) -> None:
    source = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    missing = [text for text in raised(source) if fault_parts(text) is None]
    assert missing == ["should be true or false"] * (module is notation)  # of imports of recipients: no variable is one


def test_both_readings_of_a_value_are_kept() -> None:
    with pytest.raises(ValueError, match="two readings") as amount:
        notation.number("1.234", notation.Notation.LOCAL, is_money=True)
    assert fault_words(str(amount.value), "nl") == "is op twee manieren te lezen, 1234 en 1.234: schrijf 1234 of 1.2340"
    with pytest.raises(ValueError, match="two readings") as day:
        notation.day("03/04/2026")
    words = "lässt sich auf zwei Arten lesen, 3. April 2026 und 4. März 2026: Schreiben Sie 2026-04-03 oder 2026-03-04"
    assert fault_words(str(day.value), "de") == words
    assert fault_words(str(day.value), "en") == str(day.value)


def test_what_nobody_translated_stays_as_it_is() -> None:
    assert fault_words("is wrong in a new way", "fr") == "is wrong in a new way"
    assert fault_words(csv_records.TOO_LONG, "fr") == f"dépasse {csv_records.ROW_LENGTH_MAX} caractères"


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_what_is_wrong_with_a_whole_file_is_said_in_words(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("", encoding="utf-8")
    with pytest.raises(BadInput) as error:
        list(read_audience(tmp_path / name, DEFAULT_FILE_RULES))
    message = error.value.faults[0].message
    words = fault_words(message, "nl")
    assert words != message
    assert fault_words(f"The file {message}", "nl") == f"Het bestand {words}"


def test_the_sentences_of_checks_are_those_that_the_checks_say() -> None:
    said = {
        f"its audience {NO_ROWS}; as it is, it will be refused",
        draft_forms.without_commands("version 3 of loan_offer (abc) is not approved: `dispatcher templates approve loan_offer`"),
        draft_forms.without_commands(
            "WhatsApp has not approved 2 of the 3 WhatsApp texts of loan_offer: `dispatcher templates whatsapp push loan_offer`"
        ),
    }
    for sentence in said:
        assert fault_words(sentence, "de") != sentence
