"""What must be true after any file: nothing is lost, merged, split or mixed up, and no readable opt-out is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dispatcher.campaigns import overview, submission
from dispatcher.domain.notation import trim
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.intake.recipient_import import ImportRequest, import_file
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from tests.fuzz.files import ExpectedRow, FileSpec, MadeFile, make

_TOKEN = re.compile(r"f\d+r\d+e")


@dataclass(frozen=True)
class FileResult:
    """What the program made of a file: rows taken by id, lines reported, ids whose e-mail is switched off, and its own count."""

    refused: BadInput | None
    taken: Mapping[str, Mapping[str, Any]]
    reported: tuple[int, ...]
    opted_out: frozenset[str]
    count: int


@dataclass(frozen=True)
class Target:
    """The program that files are given to, the URL of its ledger as the owner, and a folder for the files."""

    services: Services
    owner_url: str
    folder: Path


def check(target: Target, spec: FileSpec, number: int) -> list[str]:
    """The broken promises of one file. All recipients of the ledger are deleted."""
    made = make(spec, f"f{number}")
    path = target.folder / f"file{made.suffix}"
    path.write_bytes(made.content)
    outcome = _audience(target.services, path, f"f{number}") if spec.is_audience else _recipients(target, path)
    return list(_broken(made, outcome, spec.is_audience))


def _recipients(target: Target, path: Path) -> FileResult:
    services = target.services
    rejects = path.with_name("rejects.jsonl")
    refused, count = None, 0
    with lend(services.pool) as connection:
        try:
            request = ImportRequest(path, rejects, "fuzz", services.clock())
            count = import_file(connection, services.secret, request).rows
        except BadInput as error:
            refused = error
    with psycopg.connect(target.owner_url, autocommit=True) as owner:  # the program's role deletes nobody
        rows = owner.execute("DELETE FROM recipients RETURNING id, email, profile, choices, birth_date::text").fetchall()
    lines = [json.loads(line)["line"] for line in rejects.read_text(encoding="utf-8").split("\n")[:-1]] if rejects.exists() else []
    rejects.unlink(missing_ok=True)
    opted_out = {each[0] for each in rows if each[3].get("channel:email", {}).get("value") == "off"}
    taken = {
        recipient_id: {"email": email, "name": profile.get("identity", {}).get("first_name"), "birth_date": born}
        for recipient_id, email, profile, _, born in rows
        if email or profile
    }
    return FileResult(refused, taken, tuple(lines), frozenset(opted_out), count)


def _audience(services: Services, path: Path, prefix: str) -> FileResult:
    form = {"id": prefix, "template": "loan_offer", "channels": ["email"], "audience": path.name}
    refused, count, lines, rows = None, 0, [], []
    try:
        result = submission.accept(services, parse_request(form, AudienceSources(path.parent), services.policy.files))
        count = result.audience + result.invalid
        campaign = overview.find(services, prefix)
        assert campaign is not None
        lines = [line for line, *_ in overview.unreadable_rows(services, campaign, 1_000)]
        with lend(services.pool) as connection:
            rows = connection.execute(
                "SELECT j.recipient_id, j.data FROM jobs j JOIN campaigns c ON c.no = j.campaign_no WHERE c.id = %s", (prefix,)
            ).fetchall()
    except BadInput as error:
        refused = error
    taken = {
        each: {"name": data.get("first_name"), "project": data.get("project"), "amount": data.get("amount")} for each, data in rows
    }
    return FileResult(refused, taken, tuple(lines), frozenset(), count)


def _broken(made: MadeFile, outcome: FileResult, is_audience: bool) -> Iterator[str]:
    if outcome.refused is not None:
        yield from _broken_refusal(made, outcome, str(outcome.refused), is_audience)
        return
    yield from _broken_counts(made, outcome)
    tokens = {row.token for row in made.rows}
    for stranger in outcome.taken.keys() - tokens:
        yield f"a row is taken that the file does not have: {stranger!r}"
    for stranger in outcome.opted_out - tokens:
        yield f"an opt-out is recorded for somebody whom the file does not have: {stranger!r}"
    for row in made.rows:
        yield from (f"{row.token[row.token.index('r') :]}: {each}" for each in _broken_row(row, outcome, is_audience))


def _broken_refusal(made: MadeFile, outcome: FileResult, reason: str, is_audience: bool) -> Iterator[str]:
    if made.refusal == "never" and (made.rows or not is_audience):  # an audience without rows is refused
        yield f"the file is refused as a whole: {reason}"
    if not reason.strip():
        yield "the file is refused without a reason"
    if outcome.taken or outcome.opted_out:
        yield "the file is refused, and rows of it are taken"


def _broken_counts(made: MadeFile, outcome: FileResult) -> Iterator[str]:
    if made.refusal == "must":
        yield f"the file is read, {outcome.count} rows"
    if outcome.count != len(outcome.taken) + len(outcome.reported):
        yield f"{outcome.count} rows, of which {len(outcome.taken)} are taken and {len(outcome.reported)} reported"
    if made.exact and outcome.count != len(made.rows):
        yield f"{outcome.count} rows where the file has {len(made.rows)}"


def _broken_row(row: ExpectedRow, outcome: FileResult, is_audience: bool) -> Iterator[str]:
    values = outcome.taken.get(row.token)
    is_reported = any(line in row.lines for line in outcome.reported)
    if values is None and not is_reported:
        yield "it is neither taken nor reported"
    if values is not None and row.damage.fate == "bad":
        yield f"it is taken with {values}"
    if values is None and row.damage.fate == "good" and not row.damage.splits:
        yield "it is good and not taken"
    if values is not None:
        yield from _wrong_values(row, values)
    if is_audience:
        return
    is_off = row.token in outcome.opted_out
    if row.refuses and not is_off and (values is not None or row.damage.readable):
        yield "its opt-out is not recorded"
    if is_off and row.refuses is False:
        yield "an opt-out is recorded that it does not have"


def _wrong_values(row: ExpectedRow, values: Mapping[str, Any]) -> Iterator[str]:
    for field, value in values.items():
        for token in _TOKEN.findall(str(value)):
            if token != row.token:
                yield f"{field} is that of another row: {token}"
    if row.damage.fate == "good" and trim(str(values["name"])) != trim(row.name):
        yield f"its name {row.name!r} is now {values['name']!r}"
    if "email" in values and row.damage.fate == "good" and values["email"] != f"{row.token}@example.org":
        yield f"its address is {values['email']!r}"
    if "birth_date" in values and values["birth_date"] not in ("1980-01-31", None):
        yield f"its date of birth is {values['birth_date']!r}"
