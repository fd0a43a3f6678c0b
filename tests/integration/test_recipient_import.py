"""Import of recipients: which rows are accepted, in which normal form, and which are rejected, with line and reason."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import phonenumbers
import psycopg
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.demo.sample_customers import customers
from dispatcher.domain import addresses
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.notation import trim
from dispatcher.intake.errors import BadInput
from dispatcher.intake.recipient_import import BATCH_ROWS, BadRecipient, ImportRequest, ImportResult, import_file, parse
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import erasure, events, recipients

SECRET = KeyRing.of(b"a secret of the tests")
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
FULL: dict[str, Any] = {
    "id": "c-1",
    "person": "customer",
    "language": "fr",
    "timezone": "Europe/Brussels",
    "birth_date": "1980-01-31",
    "entities": ["kbc-bank"],
    "has_current_account": True,
    "email": "marie.dubois@example.com",
    "phone": "+32470123456",
    "whatsapp": "+32470123456",
    "push": [{"token": "token-1", "platform": "android", "permission": True}],
    "partner": "c-2",
    "purchased": ["loan"],
    "offers": {"own": "tailored", "partner": "standard", "kate": "none"},
    "channels": {"email": True, "push": True, "sms_whatsapp": False},
    "object_marketing": False,
    "profile": {"identity": {"first_name": "Élise"}, "transactions": {"amount": "120"}},
}


@pytest.fixture
def ledger(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


Import = Callable[[Path], ImportResult]


@pytest.fixture
def take(ledger: Connection, tmp_path: Path) -> Import:
    """Import a file; rejects go to rejects.jsonl beside it."""
    return lambda path: import_file(ledger, SECRET, ImportRequest(path, tmp_path / "rejects.jsonl", "test", NOW))


def jsonl(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("+32470123456", "+32470123456"),
        ("+32 470 12 34 56", "+32470123456"),
        ("+32 (0)470.12-34-56", "+32470123456"),
        ("+39 06 698 12345", "+390669812345"),  # Italy keeps its leading nought
        (" +32470123456\u200b", "+32470123456"),
        ("\ufeff\u202a+32470123456\u202c\u00a0", "+32470123456"),
        ("+32\u00a0470\u202f12\u201334\u201156", "+32470123456"),
        ("tel:+32-470-12-34-56", "+32470123456"),
    ],
)
def test_a_number_has_one_normal_form(text: str, normal: str) -> None:
    assert addresses.phone(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "0470123456", "0032470123456", "+", "+32", "32470123456", "++32470123456", "+32470\u200b123456", "tel:"),
        *("+1 800 FLOWERS", "+32 470 12 34 56 ext. 7", "+32470123456;ext=7", "+32470123456x7", "3,2470123456E+10"),
        *("+٣٢٤٧٠١٢٣٤٥٦", "+３２４７０１２３４５６", "＋32470123456", "+3247012345٦", "+32470\n123456"),
        *("+3247012345", "+324701234567", "+32000000000", "+999123456789", "+3212345678901234567"),
    ],
)
def test_what_would_have_to_be_guessed_is_no_number(text: str) -> None:
    with pytest.raises(addresses.InvalidAddress) as refusal:
        addresses.phone(text)
    assert len(text) < 8 or text not in str(refusal.value)


def library(text: str) -> str | None:
    try:
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        return None
    return f"{found.ascii_local_part}@{found.ascii_domain}"


def ours(text: str) -> str | None:
    try:
        return addresses.email(text)
    except addresses.InvalidAddress:
        return None


near_addresses = st.builds(
    lambda local, domain: f"{local}@{domain}",
    st.text("aZ0.+-_'\" é@", max_size=6) | st.text("ab.", min_size=60, max_size=70) | st.sampled_from(["Info", "WWW", "a.b"]),
    st.sampled_from(
        ["example.com", "EXAMPLE.org", "sub.example.com", "a" * 63 + ".com", "ex.test", "localhost", "Bücher.example.net"]
    )
    | st.text("aé.-1_@ ", max_size=8).map(lambda text: f"{text}.com")
    | st.integers(20, 70).map(lambda count: "abc." * count + "com"),
)


@given(near_addresses | st.emails() | st.text(max_size=12))
@example("marie@bücher.example.com")
@example("marie@xn--bcher-kva.example.com")
@example("marie@xn--a.com")
@example("Marie <marie@example.com>")
@example("marie@example.com\n")
@example("@example.com")
@example("a" * 64 + "@example.com")
@example("a" * 65 + "@example.com")
@example("aaa@" + "abc." * 61 + "abc.com")
@example("aaaa@" + "abc." * 61 + "abc.com")
@example("marie@[127.0.0.1]")
def test_the_short_way_gives_the_librarys_answer(text: str) -> None:
    assert ours(text) == library(trim(text))


@given(st.sampled_from(["32", "31", "33", "49", "352", "44", "1", "7"]), st.text("0123456789", min_size=6, max_size=12))
@example("32", "470123456")
@example("31", "97012345678")
@example("352", "621123456")
@example("49", "15123456789")
@example("33", "0612345678")
def test_a_number_in_international_form_gets_the_librarys_answer(code: str, digits: str) -> None:
    text = f"+{code}{digits}"
    try:
        number = phonenumbers.parse(text)
        is_number = phonenumbers.is_possible_number(number) and phonenumbers.is_valid_number(number)
    except phonenumbers.NumberParseException:
        is_number = False
    try:
        answer = addresses.mobile_phone(text)
    except addresses.InvalidAddress:
        answer = None
    if answer is not None:
        assert is_number
        assert answer == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        assert phonenumbers.number_type(number) not in addresses._NO_SMS
    elif is_number:
        assert phonenumbers.number_type(number) in addresses._NO_SMS


def test_every_mobile_number_of_the_fast_path_is_one_for_the_library() -> None:
    numbers = st.from_regex(addresses._mobile_numbers(), fullmatch=True)

    @given(numbers)
    def check(text: str) -> None:
        number = phonenumbers.parse(text)
        assert phonenumbers.is_valid_number(number)
        assert phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) == text
        assert phonenumbers.number_type(number) not in addresses._NO_SMS

    check()


def test_a_domain_is_lower_case_and_ascii() -> None:
    assert addresses.email("Marie.Dubois@Bücher.Example.COM") == "Marie.Dubois@xn--bcher-kva.example.com"


# -- one recipient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("id", "marie dubois", "characters"),
        ("person", "client", "'customer'"),
        ("language", "es", "'nl', 'fr', 'de' or 'en'"),
        ("timezone", "Europe/Brussel", "did you mean Europe/Brussels?"),
        ("birth_date", "1980-02-30", "not a date"),
        ("birth_date", "31/01/1980", "not a date"),
        ("birth_date", "19800131", "not a date"),
        ("birth_date", "1780-01-31", "not a date"),
        ("birth_date", 19800131, "not a date"),
        ("birth_date", "2026-11-24", "future"),
        ("said_at", "2026-11-23T09:00:01+00:00", "future"),
        ("said_at", "2026-11-23T09:00:00", "zone"),
        ("has_current_account", "yes", "boolean"),
        ("has_current_account", 1, "boolean"),
        ("email", "marie@localhost", "not a valid e-mail address"),
        ("email", "maríe@example.com", "not a valid e-mail address"),
        ("phone", "0470123456", "international form"),
        ("whatsapp", "+32470", "international form"),
        ("whatsapp", "+3247012345", "numbering plan"),
        ("partner", "c-1", "itself"),
        ("objects_marketing", True, "did you mean object_marketing?"),
        ("entities", "kbc-bank", "list"),
    ],
)
def test_a_bad_value_is_named_and_not_repeated(field: str, value: Any, reason: str) -> None:
    with pytest.raises(BadRecipient) as refusal:
        parse(FULL | {field: value}, NOW)
    assert refusal.value.field == field
    assert reason in refusal.value.reason
    if field in ("email", "phone", "whatsapp"):
        assert value not in str(refusal.value)


@pytest.mark.parametrize(
    ("block", "field", "reason"),
    [
        ({"push": [{"token": "", "platform": "ios", "permission": True}]}, "push.0.token", "length"),
        ({"push": [{"token": "a", "platform": "palm", "permission": True}]}, "push.0.platform", "'android'"),
        ({"push": [{"token": "a", "platform": "ios"}]}, "push.0.permission", "missing"),
        ({"push": [{"token": "a", "platform": "ios", "permission": True, "tokn": 1}]}, "push.0.tokn", "did you mean token?"),
        ({"offers": {"partners": "none"}}, "offers.partners", "did you mean partner?"),
        ({"offers": {"own": "tailord"}}, "offers.own", "'tailored'"),
        ({"channels": {"sms": True}}, "channels.sms", "known: email, push, sms_whatsapp"),
        ({"channels": {"email": "on"}}, "channels.email", "boolean"),
        ({"channels": [True]}, "channels", "object"),
        ({"profile": {"identity": {"first_name": ["Marie"]}}}, "profile.identity.first_name", ""),
        ({"profile": {"identity": {"first_name": "M" * 4_001}}}, "profile.identity.first_name", "4000"),
    ],
)
def test_a_bad_part_is_named_by_its_path(block: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(BadRecipient) as refusal:
        parse(FULL | block, NOW)
    assert refusal.value.field == field
    assert reason in refusal.value.reason


@pytest.mark.parametrize("field", ["id", "person", "language"])
def test_what_nobody_may_guess_is_needed(field: str) -> None:
    with pytest.raises(BadRecipient, match=f"{field}: is missing"):
        parse({name: value for name, value in FULL.items() if name != field}, NOW)


# -- files -------------------------------------------------------------------------------------------------------------


def test_what_is_imported_is_what_is_shown(ledger: Connection, take: Import, tmp_path: Path) -> None:
    imported = take(jsonl(tmp_path / "a.jsonl", [FULL]))
    assert (imported.new, imported.changed, imported.unchanged, imported.rejected, imported.rejects) == (1, 0, 0, 0, None)
    shown = recipients.show(ledger, "c-1")
    assert {name: shown[name] for name in FULL} == FULL
    assert {choice.source for choice in events.preferences(ledger, "c-1").choices.values()} == {"import"}


def test_csv_says_the_same_as_jsonl(take: Import, tmp_path: Path) -> None:
    rows = [FULL, {"id": "c-2", "person": "prospect", "language": "nl", "profile": {"transactions": {"amount": "007"}}}]
    cells = {
        **{
            name: FULL[name]
            for name in ("id", "person", "language", "timezone", "birth_date", "email", "phone", "whatsapp", "partner")
        },
        "has_current_account": "true",
        "object_marketing": "false",
        "entities": "kbc-bank",
        "purchased": '["loan"]',
        "push": json.dumps(FULL["push"]),
        "profile.identity": json.dumps(FULL["profile"]["identity"]),
        **{f"offers.{name}": value for name, value in FULL["offers"].items()},
        **{f"channels.{name}": json.dumps(value) for name, value in FULL["channels"].items()},
        "profile.transactions.amount": "120",
    }
    second = {"id": "c-2", "person": "prospect", "language": "nl", "profile.transactions.amount": "007"}
    for delimiter in ",;":
        path = tmp_path / "a.csv"
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(cells), delimiter=delimiter)
            writer.writeheader()
            writer.writerows([cells, second])
        taken = take(path)
        assert (taken.new + taken.unchanged, taken.rejected) == (2, 0)
        assert take(jsonl(tmp_path / "a.jsonl", rows)).unchanged == 2


def test_only_what_changed_gets_a_new_version(ledger: Connection, take: Import, tmp_path: Path) -> None:
    rows = [FULL, FULL | {"id": "c-3"}, FULL | {"id": "c-4"}]
    take(jsonl(tmp_path / "a.jsonl", rows))
    before = [events.preferences(ledger, row["id"]).version for row in rows]
    rows[1] = {name: value for name, value in rows[1].items() if name != "email"}
    rows[2] = rows[2] | {"object_marketing": True}
    retry_hint = take(jsonl(tmp_path / "a.jsonl", rows))
    assert (retry_hint.new, retry_hint.changed, retry_hint.unchanged) == (0, 2, 1)
    after = [events.preferences(ledger, row["id"]).version for row in rows]
    assert (after[0], after[1], after[2]) == (before[0], before[1] + 1, before[2] + 1)
    assert "email" not in recipients.show(ledger, "c-3")  # a row replaces the earlier data


def test_bad_rows_are_told_with_their_line_and_stop_nothing(take: Import, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        json.dumps(FULL),
        json.dumps(FULL | {"id": "c-2", "phone": "secret-number"}),
        "",
        '{"id": "c-3", ',
        "[1, 2]",
        json.dumps(FULL | {"id": "c-4", "profile": {"identity": {"first_name": "a\0b"}}}),
        '{"id": "c-5", "x": NaN}',
        json.dumps({"pad": "x" * 300_000}),
        json.dumps(FULL | {"id": "c-6"}),
    ]
    path.write_bytes("\n".join(rows).encode() + b'\n{"id": "caf\xe9"}\n' + json.dumps(FULL | {"id": "c-7"}).encode())
    imported = take(path)
    assert (imported.new, imported.rejected) == (3, 7)
    faults = [(line, field) for line, field, _ in imported.faults]
    assert faults == [(2, "phone"), (4, ""), (5, ""), (6, ""), (7, ""), (8, ""), (10, "")]
    reasons = [reason for _, _, reason in imported.faults]
    for reason, word in zip(reasons, ("number", "JSON", "object", "null", "JSON", "longer", "UTF-8"), strict=True):
        assert word in reason
    assert "secret-number" not in str(imported)

    assert imported.rejects is not None
    assert stat.S_IMODE(imported.rejects.stat().st_mode) == 0o600
    rejected = [json.loads(line) for line in imported.rejects.read_text().splitlines()]
    assert [(row["line"], row["field"]) for row in rejected] == faults
    assert rejected[0]["value"] == "secret-number"
    assert rejected[0]["row"]["id"] == "c-2"

    assert take(jsonl(path, [FULL])).rejects is None
    assert not (tmp_path / "rejects.jsonl").exists()  # it would mislead


def test_bad_cells_are_told_with_their_line_and_stop_nothing(take: Import, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"id,person,language,email,has_current_account,push\n"
        b'"c-1",customer,nl,"a@example.com",perhaps,\n'
        b"c-2,customer,nl,a@example.com\n"
        b'c-3,customer,nl,,,"[{"\n'
        b'c-4,"custom\ner",nl,,,\n'
        b"c-5,customer,nl,caf\xe9@example.com,,\n"
        b"\n"
        b"c-6,customer,nl,a@example.com,true,\n"
    )
    imported = take(path)
    assert (imported.new, imported.rejected) == (1, 5)
    assert [(line, field) for line, field, _ in imported.faults] == [
        (2, "has_current_account"),
        (3, ""),
        (4, "push"),
        (5, "person"),
        (7, "email"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "place", "message"),
    [
        ("a.csv", b"", (1, ""), "the first line names the columns"),
        ("a.csv", b"id,person,langauge\n", (1, "langauge"), "did you mean language?"),
        ("a.csv", b"id,id\n", (1, "id"), "given twice"),
        ("a.csv", b"id,profile,profile.identity.first_name\n", (1, "profile"), "given twice"),
        ("a.csv", b"id,person,x,,y\n", (1, "x"), "unknown column, number 3"),
        ("a.csv", b"person,language\n", (1, "id"), "no column has this name"),
        ("a.csv", b"c-1,customer,nl,marie@example.com\n", (1, ""), "should name the columns"),
        ("a.csv", "id,person".encode("utf-16") + b"x", (0, ""), "save it as UTF-8"),
        ("a.xlsx", b"PK", (0, ""), "not an .xlsx workbook"),
        ("a.xls", b"PK", (0, ""), "save the workbook as .xlsx"),
        ("missing.csv", None, (0, ""), "No such file"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(
    take: Import, tmp_path: Path, name: str, content: bytes | None, place: tuple[int, str], message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        take(path)
    fault = refusal.value.faults[0]
    assert (fault.file, fault.line, fault.field) == (str(path), *place)
    assert message in fault.message


def test_a_long_file_is_taken_in_batches_and_a_person_twice_in_order(ledger: Connection, tmp_path: Path) -> None:
    short = {"person": "prospect", "language": "nl"}
    rows = [{"id": f"c-{number}"} | short for number in range(BATCH_ROWS + 2)]
    rows += [{"id": "c-1", "person": "customer", "language": "nl"}, {"id": "c-1", "person": "former", "language": "nl"}]
    done: list[int] = []
    path = jsonl(tmp_path / "a.jsonl", rows)
    imported = import_file(ledger, SECRET, ImportRequest(path, tmp_path / "rejects.jsonl", "test", NOW), done.append)
    assert done == [BATCH_ROWS, BATCH_ROWS + 3, BATCH_ROWS + 4]
    assert (imported.new, imported.changed) == (BATCH_ROWS + 2, 2)
    assert recipients.show(ledger, "c-1")["person"] == "former"


def test_an_erased_persons_row_is_rejected_with_its_line(ledger: Connection, take: Import, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [FULL | {"id": "c-9"}, FULL])
    take(path)
    erasure.erase(ledger, SECRET, "c-1", "test", NOW)
    retry_hint = take(path)
    assert (retry_hint.unchanged, retry_hint.rejected) == (1, 1)
    assert retry_hint.faults[0][:2] == (2, "id")


# -- made-up customers -------------------------------------------------------------------------------------------------


def test_made_up_customers_are_the_same_each_time_and_pass_the_door() -> None:
    today = NOW.date()
    lines = list(customers(600, 7, today))
    assert lines == list(customers(600, 7, today))
    assert lines != list(customers(600, 8, today))
    people = [parse(json.loads(line), NOW) for line in lines]
    assert len({person.id for person in people}) == 600
    assert all(person.email is None or person.email.endswith(("@example.com", "@example.org")) for person in people)
    assert all(person.phone is None or person.phone.startswith("+32450") for person in people)
    by_id = {person.id: person for person in people}
    assert all(by_id[person.partner_id].partner_id == person.id for person in people if person.partner_id)


def test_every_state_that_decisions_tell_apart_is_among_made_up_customers() -> None:
    people = [parse(json.loads(line), NOW) for line in customers(600, 7, NOW.date())]
    said = {(change.subject, change.value) for person in people for change in person.changes}
    assert said >= {(f"offer:{offer}", mode) for offer in ("own", "partner", "kate") for mode in ("tailored", "standard", "none")}
    assert said >= {(f"channel:{group}", value) for group in ("email", "push", "sms_whatsapp") for value in ("on", "off")}
    assert said >= {("objection:marketing", "on"), ("objection:profiling", "on")}
    assert {person.person for person in people} == {"customer", "former", "platform_user", "prospect"}
    assert {person.language for person in people} == {"nl", "fr", "de", "en"}
    adult_since = date(NOW.year - 18, NOW.month, NOW.day)
    assert {person.birth_date and person.birth_date <= adult_since for person in people} == {True, False, None}
    for attribute in ("email", "phone", "whatsapp", "devices", "timezone", "partner_id", "changes", "has_current_account"):
        assert {bool(getattr(person, attribute)) for person in people} == {True, False}, attribute
    assert {len(person.devices) for person in people} >= {0, 1, 2}
    assert {device.permission for person in people for device in person.devices} == {True, False}
