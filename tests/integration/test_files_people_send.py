"""Files as people and spreadsheets make them: what is certain is read, the rest is refused with its place. No opt-out is lost."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Channel
from dispatcher.campaigns import actions, dry_run, overview, submission
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.row_addition import RowSource, add_rows
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.content.values import READERS
from dispatcher.domain import addresses
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import State
from dispatcher.domain.notation import Notation, number
from dispatcher.intake.audience import read_audience
from dispatcher.intake.audience_reference import AudienceSources
from dispatcher.intake.campaign import check_campaign, parse_campaign, parse_request, read_request
from dispatcher.intake.errors import BadInput
from dispatcher.intake.recipient import BadRecipient, parse
from dispatcher.intake.recipient_import import ImportRequest, ImportResult, import_file
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import erasure, events, recipients
from dispatcher.policy import FileRules
from dispatcher.runtime.services import DeliveryLimits, Services
from tests.support.command import SECRET, run_command, start_command
from tests.support.services import Clock, add_people, balance, make_services, outbox, person, work

KEYS = KeyRing.of(b"a secret of the tests")
NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)


@pytest.fixture
def ledger(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


Import = Callable[..., ImportResult]


@pytest.fixture
def take(ledger: Connection, tmp_path: Path) -> Import:
    """Import a file with this content; rejects go to rejects.jsonl beside it."""

    def take(content: str | bytes, name: str = "people.csv", rules: FileRules | None = None) -> ImportResult:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_file(ledger, KEYS, ImportRequest(path, tmp_path / "rejects.jsonl", "test", NOW, rules or FileRules()))

    return take


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def off(ledger: Connection, recipient_id: str) -> set[str]:
    """The subjects that a person has refused."""
    choices = events.preferences(ledger, recipient_id).choices
    refused = {"off", "none"}
    return {s for s, choice in choices.items() if choice.value in refused or (s.startswith("objection:") and choice.value == "on")}


# -- a bad row still says no -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [("email", "nobody"), ("birth_date", "31/31/1980"), ("language", "es"), ("phone", "ask"), ("email", "caf\udce9@example.org")],
)
@pytest.mark.parametrize("is_known", [True, False])
def test_an_opt_out_counts_though_the_rest_of_its_row_is_refused(
    ledger: Connection, take: Import, tmp_path: Path, column: str, value: str, is_known: bool
) -> None:
    good = {
        "id": "c-1",
        "person": "customer",
        "language": "nl",
        "email": "a@example.org",
        "profile": {"identity": {"first_name": "Ö"}},
    }
    if is_known:
        take(json.dumps(good), "people.jsonl")
    before = recipients.show(ledger, "c-1") if is_known else {}
    cells = {"id": "c-1", "person": "customer", "language": "nl", "email": "", "birth_date": "", "phone": ""} | {column: value}
    cells |= {"profile.identity.first_name": "Zoë", "channels.email": "false", "channels.push": "true", "offers.partner": "None"}
    cells |= {"object_marketing": "WAAR"}
    text = f"{','.join(cells)}\n{','.join(cells.values())}\n"
    result = take(text.encode("utf-8", "surrogateescape"))
    assert (result.new, result.changed, result.rejected, result.opt_outs, result.rows) == (0, 0, 1, 1, 1)
    line, field, reason = result.faults[0]
    assert (line, field) == (2, column)
    assert "its opt-outs were recorded (offer:partner, channel:email, objection:marketing)" in reason
    assert off(ledger, "c-1") == {"offer:partner", "channel:email", "objection:marketing"}
    shown = recipients.show(ledger, "c-1")
    assert "channel:push" not in shown["choices"]  # what allows more is not taken from a row that is refused
    assert shown.get("email") == before.get("email")  # and no address
    assert shown["profile"] == before.get("profile", {})
    rejected = json.loads((tmp_path / "rejects.jsonl").read_text(encoding="utf-8"))
    assert rejected["opt_outs"] == ["offer:partner", "channel:email", "objection:marketing"]


def test_opt_outs_of_bad_json_rows_count(ledger: Connection, take: Import) -> None:
    rows = [
        {"id": "c-1", "person": "customer", "language": "nl", "email": "x", "channels": {"email": False, "sms": False}},
        {"id": "c-2", "channels": {"push": "false"}, "object_profiling": "ja"},
        {"id": "c-3", "person": "customer", "language": "nl", "offers": {"own": "none", "kat": "none"}},
        {"id": "no id", "channels": {"email": False}},
        {"id": ["c-5"], "channels": {"email": False}},
        {"id": "c-6", "channels": [False], "offers": "none"},
    ]
    result = take("\n".join(map(json.dumps, rows)), "people.jsonl")
    assert (result.rejected, result.opt_outs, result.rows) == (6, 4, 6)
    assert off(ledger, "c-6") == {f"offer:{name}" for name in ("own", "partner", "kate")} | {
        f"channel:{name}" for name in ("email", "push", "sms_whatsapp")
    }
    assert off(ledger, "c-1") == {"channel:email"}
    assert off(ledger, "c-2") == {"channel:push", "objection:profiling"}
    assert off(ledger, "c-3") == {"offer:own"}


EMAIL_OFF, ALL_OFFERS_OFF = {"channel:email"}, {f"offer:{name}" for name in ("own", "partner", "kate")}
BAD_JSON = {
    '{"id": 7001, "channels": {"email": false}}': EMAIL_OFF,
    '{"id": 7001.0, "channels": {"email": false}}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false}},': EMAIL_OFF,
    '[{"id": "7001", "channels": {"email": false}}]': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false}, "profile": {"identity": {"first_na': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false,},}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false}, "x": NaN}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": false}} # left the bank': EMAIL_OFF,
    '{"id": "7001", "Channels": {"Email": false}}': EMAIL_OFF,
    '{"ID": "7001", "channels.email": false}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": 0}}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": "non."}}': EMAIL_OFF,
    '{"id": "7001\\u0000", "channels": {"email": "nee\\u0000"}}': EMAIL_OFF,
    '{"id": "7001", "object_marketing": 1}': {"objection:marketing"},
    '{"id": "7001", "offers": "none"}': ALL_OFFERS_OFF,
    '{"id": "7001", "offers": {"own": false}}': {"offer:own"},
    '{"id": "7001", "person": "customer", "language": "nl", "profile": {"identity": {"x": "' + "a" * 300_000 + '"}},'
    ' "channels": {"email": false}}': EMAIL_OFF,
    '{"id": "7001", "channels": {"email": 1, "push": "perhaps", "sms_whatsapp": null}, "object_marketing": 0}': set(),
    '{"id": true, "channels": {"email": false}}': set(),
    '{"id": "7001", "channels": {"email": false}} {"id": "7002"}': EMAIL_OFF,
    '{"id": "7002"},{"id": "7001", "channels": {"email": false}': EMAIL_OFF,
    '[{"id": "7002"}, {"id": "7001", "channels": {"email": false}}]': EMAIL_OFF,
    '[{"id": "7001", "id": "7002", "channels": {"email": false}}]': set(),
    '{"id": "7001", "id": "7002", "channels": {"email": false}} {}': set(),
    '{} {"id": "7001", "channels": {"email": false}, "channels": {"email": true}}': EMAIL_OFF,
}


@pytest.mark.parametrize("row", BAD_JSON, ids=range(len(BAD_JSON)))
def test_a_readable_opt_out_of_a_bad_json_row_counts(ledger: Connection, take: Import, row: str) -> None:
    result = take(f"{row}\n", "people.jsonl")
    assert (result.new, result.rejected, result.opt_outs) == (0, 1, bool(BAD_JSON[row]))
    assert (off(ledger, "7001") if BAD_JSON[row] else set()) == BAD_JSON[row]


def test_each_person_on_one_line_is_heard(ledger: Connection, take: Import) -> None:
    rows = [{"id": f"c-{n}", "channels": {"email": n % 2 == 1}} for n in range(60)]
    for text in (json.dumps(rows), " ".join(map(json.dumps, rows))):
        result = take(text, "people.jsonl")
        assert (result.rejected, result.opt_outs) == (1, 1)
        assert all(off(ledger, f"c-{n}") == EMAIL_OFF for n in range(0, 60, 2))
        assert ledger.execute("SELECT count(*) FROM recipients").fetchone() == (30,)


@pytest.mark.parametrize(
    "row",
    [
        b'{"id": "7001", "channels": {"email": "nee\xa0"}, "email": "x"}',
        b'{"id": "7001", "channels": {"email": false}, "x": "Zo\xeb',
        b'{"id": "7001", "channels": {"email": false}, "x": "\\ud800"}',
        b'{"id": "7001", "channels": "\xeb", "channels": {"email": false}}',
        b'{"id": "7001", "channels": "\\ud800", "channels": {"email": false}}',
    ],
    ids=["byte", "cut", "half a pair", "byte twice", "half a pair twice"],
)
def test_no_character_of_a_json_row_hides_an_opt_out(ledger: Connection, take: Import, row: bytes) -> None:
    result = take(row + b"\n\xeb\n", "people.jsonl")
    assert (result.rejected, result.opt_outs) == (2, 1)
    assert off(ledger, "7001") == EMAIL_OFF


@pytest.mark.parametrize(
    "word", ["off", "uit", "aus", "n", "N", "F", "nee", "non.", "'false", "0.0", "0,0", "niet", "geen", "nee\x00", "none"]
)
def test_what_is_clearly_a_no_in_a_refused_row_counts(ledger: Connection, take: Import, word: str) -> None:
    header = "id,person,language,channels.email,offers.own,email"
    result = take(f'{header}\nc-1\0,customer,nl,"{word}","{word}",no address\n', "people.csv")
    assert (result.rejected, result.opt_outs) == (1, 1)
    assert off(ledger, "c-1") == {"channel:email", "offer:own"}


@pytest.mark.parametrize("word", ["x", "J", "Y", "on", "1.0", "ja", "✓"])
def test_what_is_clearly_an_objection_counts(ledger: Connection, take: Import, word: str) -> None:
    result = take(f"id,person,language,object_marketing,email\nc-1,customer,nl,{word},no address\n", "people.csv")
    assert (result.rejected, result.opt_outs) == (1, 1)
    assert off(ledger, "c-1") == {"objection:marketing"}


@pytest.mark.parametrize("word", ["perhaps", "?", "tailored", "2", "x"])
def test_what_is_no_clear_opt_out_changes_nothing(take: Import, word: str) -> None:
    result = take(f"id,person,language,channels.email,offers.own,email\nc-1,customer,nl,{word},{word},no address\n", "people.csv")
    assert (result.rejected, result.opt_outs) == (1, 0)


@pytest.mark.parametrize(
    "row",
    [
        '"c-1;customer;nl;nee;x"',
        "c-1,customer,nl,nee,x",
        "c-1\tcustomer\tnl\tnee\tx",
        f"c-1;customer;nl;nee;{'x' * 300_000}",
        f"c-1;{'x' * 300_000};nl;nee;x",
    ],
    ids=["quotes", "comma", "tab", "long end", "long middle"],
)
def test_a_row_in_one_cell_or_too_long_hides_no_opt_out(ledger: Connection, take: Import, row: str) -> None:
    result = take(f"id;person;language;channels.email;email\n{row}\nc-2;customer;nl;ja;\n", "people.csv")
    assert (result.new, result.rejected, result.opt_outs, result.rows) == (1, 1, 1, 2)
    assert off(ledger, "c-1") == {"channel:email"}


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be"])
def test_utf_32_is_read(take: Import, encoding: str) -> None:
    result = take("id;person;language\nc-1;customer;nl\n".encode(encoding), "people.csv")
    assert (result.new, result.rejected) == (1, 0)


@pytest.mark.parametrize("marks", ["\ufeff\ufeff", "\ufeff\u200b"])
def test_marks_before_a_quoted_header_are_left_out(take: Import, marks: str) -> None:
    result = take(f'{marks}"id";"person";"language"\n"c-1";"customer";"nl"\n', "people.csv")
    assert (result.new, result.rejected) == (1, 0)


ID_OF_ROW = '"id": "c-1", "person": "customer", "language": "nl"'


@pytest.mark.parametrize(
    ("row", "field", "noes"),
    [
        ('"channels": {"email": false}, "channels": {"email": true}', "channels", {"channel:email"}),
        ('"channels": {"email": true}, "channels": {"email": false}', "channels", {"channel:email"}),
        ('"channels": {"email": true, "email": false, "email": true, "push": true}', "email", {"channel:email"}),
        ('"offers": {"kate": "none"}, "channels": {"push": false, "push" : true}', "push", {"offer:kate", "channel:push"}),
        ('"email": "a@example.org", "email": "b@example.org"', "email", set()),
        ('"id": "c-2", "channels": {"push": false}', "id", set()),
    ],
)
def test_a_row_with_a_repeated_name_is_refused_with_its_opt_outs(
    ledger: Connection, take: Import, row: str, field: str, noes: set[str]
) -> None:
    result = take(f"{{{ID_OF_ROW}, {row}}}", "people.jsonl")
    assert (result.rejected, result.new, result.opt_outs) == (1, 0, bool(noes))
    line, named, reason = result.faults[0]
    assert (line, named) == (1, field)
    assert "occurs twice in one object" in reason
    assert (off(ledger, "c-1") if noes else set()) == noes


def test_colons_in_texts_repeat_no_name(take: Import) -> None:
    text = '"said_at": "2026-11-01T10:11:12+01:00", "profile": {"identity": {"first_name": "A \\": \\": B"}}'
    result = take(f"{{{ID_OF_ROW}, {text}}}", "people.jsonl")
    assert (result.new, result.rejected) == (1, 0), result.faults


def test_a_delimiter_too_many_hides_no_opt_out(ledger: Connection, take: Import) -> None:
    result = take("id,person,language,profile.identity.first_name,channels.email\nc-1,customer,nl,Jan, Piet,false\n")
    assert (result.rejected, result.opt_outs) == (1, 1)
    assert "has 6 cells where the header has 5" in result.faults[0][2]
    assert off(ledger, "c-1") == {"channel:email"}


@pytest.mark.parametrize(
    "text", ["c-1;customer;nl;false;;x", "c-1;customer;nl;false;;;", "c-1;customer;nl;false;", "c-1;customer;nl"]
)
def test_a_row_that_is_not_as_wide_as_the_header_is_refused(take: Import, text: str) -> None:
    """A cell without a column, even an empty one, may mean that all cells before it stand in the wrong column."""
    result = take(f"id;person;language;channels.email;;\n{text}\nc-2;customer;nl;false;;\n")
    if text == "c-1;customer;nl;false;":
        assert result.new == 2  # some programs leave out the empty cells at the end
    else:
        assert (result.new, result.rejected, result.faults[0][:2]) == (1, 1, (2, ""))


def test_the_order_of_a_persons_rows_counts(ledger: Connection, take: Import) -> None:
    row = '{"id": "c-1", "person": "customer", "language": "nl", "channels": {"email": %s}%s}\n'
    take(row % ("true", "") + row % ("false", ', "email": "x"') + row % ("true", "") + row % ("false", ', "email": "x"'), "a.jsonl")
    assert off(ledger, "c-1") == {"channel:email"}
    assert [event.new_value for event in events.history(ledger, "c-1")] == ["on", "off", "on", "off"]


def test_an_erased_person_stays_erased_and_the_chain_holds(ledger: Connection, take: Import) -> None:
    take('{"id": "c-1", "person": "customer", "language": "nl", "email": "a@example.org"}', "a.jsonl")
    erasure.erase(ledger, KEYS, "c-1", "test", NOW)
    take('{"id": "c-1", "person": "customer", "language": "nl", "email": "x", "channels": {"email": false}}', "a.jsonl")
    assert "email" not in recipients.show(ledger, "c-1")
    assert recipients.show(ledger, "c-1")["erased_at"]
    assert events.preferences(ledger, "c-1").choices["channel:email"].value == "off"


def test_an_opt_out_of_a_bad_row_stops_what_is_waiting(services: Services, tmp_path: Path) -> None:
    add_people(services, person("c-1"))
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": [row("c-1")]}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    path = tmp_path / "people.csv"
    path.write_text("id;person;language;email;channels.email\nc-1;customer;nl;nobody;NEE\n")
    with lend(services.pool) as connection:
        import_file(connection, services.secret, ImportRequest(path, tmp_path / "rejects", "test", services.clock()))
    work(services)
    assert outbox(services, Channel.EMAIL).sent == []


# -- quotes ------------------------------------------------------------------------------------------------------------

HEADER = "id,person,language,email,profile.identity.first_name,channels.email\n"


def people(count: int, broken: dict[int, str], end: str = "\n") -> str:
    rows = (f"q-{n},customer,nl,q{n}@example.org,{broken.get(n, 'Anne')},false{end}" for n in range(1, count + 1))
    return HEADER + "".join(rows)


def test_an_unclosed_quote_costs_its_own_line_only(ledger: Connection, take: Import) -> None:
    result = take(people(2_000, {3: '"Anne'}))
    assert (result.new, result.rejected, result.opt_outs, result.rows) == (1_999, 1, 1, 2_000)
    assert result.faults[0][:2] == (4, "")
    assert "opens a quote that is not closed" in result.faults[0][2]
    assert all(off(ledger, f"q-{number}") == {"channel:email"} for number in (1, 2, 3, 4, 2_000))


@pytest.mark.parametrize("broken", [{3: '"Anne', 5: '"Bart'}, {3: '"Anne', 4: 'Bart"'}, {7: '"Anne'}, {3: '"An"ne', 6: '"'}])
def test_no_line_vanishes(ledger: Connection, take: Import, broken: dict[int, str]) -> None:
    result = take(people(7, broken))
    assert result.rows == 7
    assert result.rejected == result.opt_outs <= len(broken)
    assert all(off(ledger, f"q-{number}") == {"channel:email"} for number in range(1, 8))


def test_a_quoted_cell_may_have_some_lines(take: Import) -> None:
    wide = ("id,person,language,profile.identity.note\n", 'c-1,customer,nl,"{}"\nc-2,customer,nl,x\n')
    result = take(wide[0] + wide[1].format("\n".join("abcde")))
    assert (result.new, result.rows) == (2, 2)
    result = take(wide[0] + wide[1].format("\n".join("abcdef")))
    assert (result.rejected, result.unchanged) == (6, 1)  # the line of the quote, and the five that follow it
    assert "within 5 lines" in result.faults[0][2]
    assert [line for line, *_ in result.faults] == [2, 3, 4, 5, 6, 7]
    assert take(wide[0] + wide[1].format("\n".join("abcdef")), rules=FileRules(quoted_lines_max=6)).rejected == 0


# -- blanks, numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around", ["{} ", " {}", "{}\u00a0", "\ufeff{}", "{}\u200b", "\u202a{}\u202c", "\u2067{}\u2069", "\u200e{}\t"]
)
def test_what_nobody_sees_around_an_address_is_taken_away(ledger: Connection, take: Import, around: str) -> None:
    content = f"id;person;language;email;phone\n{around.format('c-1')};customer;nl;{around.format('a@example.org')};"
    assert take(content + around.format("+32470123456") + "\n").new == 1
    shown = recipients.show(ledger, "c-1")
    assert (shown["email"], shown["phone"]) == ("a@example.org", "+32470123456")
    row = {"id": "c-1", "person": "customer", "language": "nl", "email": around.format("a@example.org")}
    assert parse(row, NOW).email == "a@example.org"  # by JSON, too


@pytest.mark.parametrize(
    "text",
    [
        *("0470 12 34 56", "0470/12.34.56", "0032470123456", "0032 (0)470 12 34 56", "32470123456", "tel:0470-12-34-56"),
        *("TEL:+32470123456", "0470\u00a012\u202f34\u201356"),
    ],
)
def test_a_national_number_is_one_of_the_policys_region(text: str) -> None:
    assert addresses.phone(text, "BE") == "+32470123456"
    row = {"id": "c-1", "person": "customer", "language": "nl", "phone": text, "whatsapp": text}
    assert parse(row, NOW, "BE").phone == "+32470123456"


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [("0612345678", "FR", "+33612345678"), ("612345678", "ES", "+34612345678"), ("34612345678", "ES", "+34612345678")],
)
def test_each_region_has_its_own_form(text: str, region: str, expected: str) -> None:
    assert addresses.phone(text, region) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("470123456", "33612345678", "0470 12 34 56 ext. 7", "0470123456x7", "0470 KBC BE", "٠٤٧٠١٢٣٤٥٦", "０４７０１２３４５６"),
        *("3,2470123456E+10", "3.247E10", "0470123456/0470123457", "0470 12 34", "tel:", "()", "0470\u200b123456"),
    ],
)
def test_a_number_that_would_have_to_be_guessed_is_refused(text: str) -> None:
    with pytest.raises(addresses.InvalidAddress) as refusal:
        addresses.phone(text, "BE")
    assert text not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        *(("02 555 12 12", "landline"), ("+49 30 901820", "landline"), ("0800 12 345", "toll-free")),
        *(("+881612345678", "satellite"), ("+870773123456", "satellite"), ("0900 12 345", "premium")),
    ],
)
def test_a_number_that_takes_no_sms_is_refused_for_sms_with_the_reason(take: Import, text: str, word: str) -> None:
    result = take(f"id,person,language,phone\nc-1,customer,nl,{text}\n")
    assert (result.new, result.rejected) == (0, 1)
    assert result.faults[0][:2] == (2, "phone")
    assert word in result.faults[0][2]
    assert "no SMS" in result.faults[0][2]
    assert take(f"id,person,language,whatsapp\nc-1,customer,nl,{text}\n").new == 1  # WhatsApp has accounts on landlines


# -- spreadsheets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\nid;person;language;email;has_current_account\r\nc-1;customer;nl;a@example.org;WAAR\r\n",
        '"sep=;"\r\nid;person;language;email;has_current_account\r\nc-1;customer;nl;a@example.org;TRUE\r\n',
        '"id";"person";"language";"email";"has_current_account";;\r\n"c-1";"customer";"nl";"a@example.org";"VRAI";;\r\n',
        "\r\nid;person;language;email;has_current_account\r\n;;;;\r\nc-1;customer;nl;a@example.org;JA\r\n;;;;\r\n\r\n",
        "id\tperson\tlanguage\temail\thas_current_account\r\nc-1\tcustomer\tnl\ta@example.org\toui\r\n",
        "sep=\t\r\nid\tperson\tlanguage\temail\thas_current_account\r\nc-1\tcustomer\tnl\ta@example.org\toui\r\n",
        "ID;Person ; Language;E-MAIL;Has current account\r\nc-1;Customer;NL;a@example.org;wahr\r\n".replace("E-MAIL", "EMAIL"),
        "id;person;language;email;has_current_account\rc-1;customer;nl-BE;a@example.org;true\r",
        "id,person,language,email,has_current_account\nc-1,customer,nl_BE,a@example.org,1\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_spreadsheets_habits_are_read(ledger: Connection, take: Import, content: str, encoding: str) -> None:
    result = take(content.encode(encoding))
    assert (result.new, result.rows) == (1, 1), result.faults
    shown = recipients.show(ledger, "c-1")
    assert (shown["person"], shown["language"], shown["email"]) == ("customer", "nl", "a@example.org")
    assert shown["has_current_account"]


def test_windows_1252_is_recognised(ledger: Connection, take: Import) -> None:
    content = "id;person;language;profile.identity.first_name\r\nc-1;customer;fr;François\r\nc-2;customer;fr;Zoë – €\r\n"
    assert take(content.encode("cp1252")).new == 2
    names = [recipients.show(ledger, each)["profile"]["identity"]["first_name"] for each in ("c-1", "c-2")]
    assert names == ["François", "Zoë – €"]


def test_a_wrong_encoding_is_named(take: Import) -> None:
    header = "id;person;language;profile.identity.first_name\r\n"
    mixed = (header + "c-1;customer;fr;Zoë\r\n").encode() + "c-2;customer;fr;François\r\n".encode("cp1252")
    result = take(mixed)
    assert (result.new, result.rejected) == (1, 1)
    assert result.faults[0][0] == 3
    assert "Windows-1252" in result.faults[0][2]
    twice = take(header + "c-3;customer;fr;{}\r\n".format("François".encode().decode("cp1252")))
    assert "UTF-8 that was read as Windows-1252" in twice.faults[0][2]
    assert "U+FFFD" in take(header + "c-3;customer;fr;Fran\ufffdois\r\n").faults[0][2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("31/01/1980", "1980-01-31"),
        ("31-01-1980", "1980-01-31"),
        ("03.04.1980", "1980-04-03"),
        ("1980-01-31 00:00:00", "1980-01-31"),
    ],
)
def test_a_date_of_the_files_locale_is_read(ledger: Connection, take: Import, text: str, expected: str) -> None:
    assert take(f"id;person;language;birth_date\nc-1;customer;nl;{text}\n").new == 1
    assert recipients.show(ledger, "c-1")["birth_date"] == expected


def test_a_date_with_two_readings_is_refused_with_both(take: Import) -> None:
    result = take("id;person;language;birth_date\nc-1;customer;nl;03/04/1980\nc-2;customer;nl;31/04/1980\nc-3;customer;nl;1/2/80\n")
    assert [(line, field) for line, field, _ in result.faults] == [(2, "birth_date"), (3, "birth_date"), (4, "birth_date")]
    assert "3 April 1980 and 4 March 1980" in result.faults[0][2]
    assert "write 1980-04-03 or 1980-03-04" in result.faults[0][2]


def test_an_unknown_column_is_named_with_its_number(take: Import) -> None:
    with pytest.raises(BadInput) as refusal:
        take("id;person;language;mail\nc-1;customer;nl;a@example.org\n")
    assert "unknown column, number 4; did you mean email?" in str(refusal.value)
    with pytest.raises(BadInput) as refusal:  # no header: what stands there are values
        take("c-1;customer;nl;marie.dubois@example.org\n")
    assert "marie" not in str(refusal.value)
    assert "should name the columns, such as id" in str(refusal.value)


@pytest.mark.parametrize("name", ["NULL", "nan", "None", "#N/A", "{{ first_name }}", "undefined", " NULL\u00a0", "*|FNAME|*"])
def test_what_a_program_writes_for_a_missing_name_is_no_name(services: Services, take: Import, tmp_path: Path, name: str) -> None:
    result = take(f"id;person;language;profile.identity.first_name\nc-1;customer;nl;{name}\n")
    assert (result.rejected, result.faults[0][1]) == (1, "profile.identity.first_name")
    with pytest.raises(BadRecipient):
        parse({"id": "c-1", "person": "customer", "language": "nl", "profile": {"identity": {"first_name": name}}}, NOW)
    faults = rejected_rows(services, tmp_path, "a.csv", f"recipient;data.first_name\nc-1;{name}\n")
    assert [(line, field) for line, field, _ in faults] == [(2, "data.first_name")]


@pytest.mark.parametrize("name", ["Null", "Nan", "Nonet", "Annulla", "Jean-Noël", "100% Marie"])
def test_names_are_names(take: Import, name: str) -> None:
    assert take(f"id;person;language;profile.identity.first_name\nc-1;customer;nl;{name}\n").new == 1


# -- numbers in audiences ----------------------------------------------------------------------------------------------


def row(recipient_id: str, **data: Any) -> dict[str, Any]:
    offer = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
    return {"recipient": recipient_id, "data": {**offer, **data}}


def rejected_rows(services: Services, folder: Path, name: str, content: str | bytes) -> list[tuple[int, str, str]]:
    """The unreadable rows of a campaign with this audience file."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    campaign_id = f"c{path.stat().st_mtime_ns}"
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": str(path)}
    submission.accept(services, parse_request(form, AudienceSources(folder), services.policy.files))
    found = overview.find(services, campaign_id)
    assert found is not None
    return overview.unreadable_rows(services, found, 100)


def stored(services: Services) -> dict[str, Any]:
    with lend(services.pool) as connection:
        return dict(connection.execute("SELECT recipient_id, data FROM jobs").fetchall())


def test_numbers_of_a_semicolon_file(services: Services, tmp_path: Path) -> None:
    amounts = [
        "12000,50",
        "1.234,56",
        "12.000,00",
        "12000.50",
        "€ 1 234,5",
        "1.234.567",
        "12000",
        "12.000",
        "1.250",
        "€ 12.000",
        "12,000",
        "012.000",
        "00012.000",
        "12 000.000",
        "-12.000",
    ]
    lines = [f"p-{number};{amount};31/03/2027;4,125" for number, amount in enumerate(amounts)]
    content = "recipient;data.amount;data.valid_until;data.borrowing_rate\r\n" + "\r\n".join(lines)
    faults = rejected_rows(services, tmp_path, "a.csv", content)
    assert [(line, field) for line, field, _ in faults] == [(line, "data.amount") for line in range(9, 17)]
    assert "12000 and 12:" in faults[0][2]
    assert "1250 and 1.25: write 1250 or 1.25" in faults[1][2]
    assert "12000 and 12: write 12000 or 12.00" in faults[4][2]
    assert "12000000 and 12000:" in faults[6][2]
    rows = stored(services)
    assert [rows[f"p-{number}"]["amount"] for number in range(7)] == [
        *("12000.50", "1234.56", "12000.00", "12000.50", "1234.5", "1234567", "12000")
    ]
    assert rows["p-0"]["valid_until"] == "2027-03-31"
    assert rows["p-0"]["borrowing_rate"] == "4.125"


def test_numbers_of_a_comma_file_have_points(services: Services, tmp_path: Path) -> None:
    content = 'recipient,data.amount,data.borrowing_rate\np-0,12000.50,4.125\np-1,"1,234.50",4\np-2,"12,000",4\np-3,12.000,4\n'
    assert [line for line, *_ in rejected_rows(services, tmp_path, "a.csv", content)] == [4, 5]
    assert stored(services)["p-1"]["amount"] == "1234.50"
    assert stored(services)["p-0"]["borrowing_rate"] == "4.125"


def test_an_ambiguous_number_of_a_profile_is_refused(take: Import) -> None:
    result = take("id;person;language;profile.transactions.amount\nc-1;customer;nl;12.000\nc-2;customer;nl;12000\n")
    assert (result.new, result.faults[0][:2]) == (1, (2, "profile.transactions.amount"))
    assert "12000 and 12:" in result.faults[0][2]
    result = take("id,person,language,profile.transactions.rate\nc-1,customer,nl,1.250\nc-2,customer,nl,1.2500\n")
    assert (result.unchanged + result.changed, result.faults[0][:2]) == (1, (2, "profile.transactions.rate"))


def test_an_amount_as_a_text_in_json_has_two_readings_too(services: Services, tmp_path: Path) -> None:
    amounts: list[Any] = ["12.000", "€ 1.250", "12,000", 12.0, "12.00", "0.125"]
    rows = [json.dumps({"recipient": f"p-{number}", "data": {"amount": amount}}) for number, amount in enumerate(amounts)]
    faults = rejected_rows(services, tmp_path, "a.jsonl", "\n".join(rows))
    assert [line for line, *_ in faults] == [1, 2, 3]
    assert "12000 and 12: write 12000 or 12.00" in faults[0][2]
    with pytest.raises(ValueError, match="two readings") as caught:
        READERS["money"]("12.000")
    assert "12.0" not in str(caught.value)
    assert READERS["number"]("4.125") == Decimal("4.125")


@given(st.decimals(0, 10**9, places=2))
def test_a_written_amount_never_becomes_another(amount: Any) -> None:
    plain = f"{amount:f}"
    grouped = f"{amount:,.2f}"
    belgian = grouped.translate(str.maketrans(",.", ".,"))
    french = grouped.replace(",", "\u202f").replace(".", ",")
    for text in (plain, plain.replace(".", ","), grouped, belgian, french, f"€ {belgian}", f"{french} €"):
        assert float(number(text, Notation.LOCAL, True)) == float(amount)


def test_a_resumed_load_reads_the_same_rows(services: Services, tmp_path: Path) -> None:
    services = replace(services, limits=DeliveryLimits(part_rows=3))
    lines = [f"p-{number};{number},5" for number in range(20)]
    lines[4], lines[8:8] = 'p-4;"4', [";", "", "p-x"]
    path = tmp_path / "a.csv"
    path.write_bytes(("Recipient;Data.amount;\r\n" + "\r\n".join(lines)).encode("utf-16"))
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": str(path)}
    result = submission.accept(services, parse_request(form, AudienceSources(tmp_path)), seconds_max=0)
    steps = 0
    while result.status is SubmitStatus.LOADING and result.load is not None:
        result = submission.load_some(services, result.load, seconds_max=0)
        steps += 1
    assert steps > 3
    assert (result.audience, result.invalid) == (19, 2)
    assert stored(services)["p-19"] == {"amount": "19.5"}
    assert submission.accept(services, parse_request(form, AudienceSources(tmp_path))).status is SubmitStatus.KNOWN
    copy = tmp_path / "copy.csv"
    copy.write_bytes(path.read_bytes())
    request = parse_request(form | {"audience": str(copy)}, AudienceSources(tmp_path))
    assert submission.accept(services, request).status is SubmitStatus.KNOWN


# -- workbooks ---------------------------------------------------------------------------------------------------------


def workbook(*sheets: Sequence[Sequence[Any]]) -> bytes:
    book = openpyxl.Workbook()
    for place, rows in enumerate(sheets):
        sheet = book.active if place == 0 else book.create_sheet()
        assert sheet is not None
        for cells in rows:
            sheet.append(cells)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_a_workbook_of_recipients_is_read(ledger: Connection, take: Import) -> None:
    header = ["ID", "person", "language", "email", "phone", "birth_date", "has_current_account", "channels.email", None]
    rows: list[list[Any]] = [
        header,
        ["c-1", "customer", "nl", "a@example.org ", 32470123456, date(1980, 1, 31), True, False],
        [],
        [2, "customer", "nl", None, "0470 12 34 56", date(1980, 1, 31), "WAAR", None],
        ["c-3", "customer", "nl", "#N/A", None, None, None, False],
    ]
    result = take(workbook(rows, []), "people.xlsx")
    assert (result.new, result.rejected, result.opt_outs, result.rows) == (2, 1, 1, 3)
    assert result.faults[0][:2] == (5, "email")
    shown = recipients.show(ledger, "c-1")
    assert (shown["phone"], shown["birth_date"], shown["has_current_account"]) == ("+32470123456", "1980-01-31", True)
    assert off(ledger, "c-1") == off(ledger, "c-3") == {"channel:email"}
    assert recipients.show(ledger, "2")["phone"] == "+32470123456"


def test_a_workbook_of_an_audience_is_read(services: Services, tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["recipient", "data.amount", "data.valid_until", "data.borrowing_rate", "data.project"],
        ["p-0", 12000.5, date(2027, 3, 31), 4.125, "a roof"],
        ["p-1", "12.000", None, 4, "x"],
        ["p-2", "12.000,50", "31/03/2027", 4, 2027],
    ]
    faults = rejected_rows(services, tmp_path, "a.xlsx", workbook(rows))
    assert [(line, field) for line, field, _ in faults] == [(3, "data.amount")]
    amounts = {recipient: (data["amount"], data["valid_until"]) for recipient, data in stored(services).items()}
    assert amounts == {"p-0": ("12000.5", "2027-03-31"), "p-2": ("12000.50", "2027-03-31")}
    assert float(stored(services)["p-0"]["borrowing_rate"]) == 4.125


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an .xlsx workbook"),
        (b"PK\x03\x04 nothing", "is not an .xlsx workbook"),
        (workbook([["id"]])[:-400], "is not an .xlsx workbook"),
        (workbook([["id"], ["c-1"]], [["id"], ["c-2"]]), "has 2 sheets with rows"),
        (workbook([]), "is empty"),
        (workbook([["name", "x"]]), "should name the columns"),
    ],
)
def test_a_workbook_that_cannot_be_read_is_refused_with_the_reason(take: Import, content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        take(content, "people.xlsx")


# -- too many bad rows -------------------------------------------------------------------------------------------------


def submit(services: Services, audience: list[Any] | Path, **changes: Any) -> None:
    rows = str(audience) if isinstance(audience, Path) else audience
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    sources = AudienceSources(audience.parent) if isinstance(audience, Path) else None
    submission.accept(services, parse_request(form, sources, services.policy.files), by="Anne")


def state(services: Services) -> tuple[CampaignState, str]:
    found = overview.find(services, "spring")
    assert found is not None
    return found.state, found.note


def test_a_campaign_with_mostly_bad_rows_waits_for_a_person(services: Services, tmp_path: Path) -> None:
    add_people(services, *(person(f"c-{number}", number) for number in range(1, 5)))
    bad = [row(f"c-{number}", amount="much") for number in (2, 3, 4)]
    submit(services, [row("c-1"), *bad])
    now, note = state(services)
    assert now is CampaignState.AWAITING_RELEASE
    assert note.startswith("3 of 4 rows cannot be read; most often: data.amount: must be a number")
    work(services)
    assert outbox(services, Channel.EMAIL).sent == []

    mended = tmp_path / "mended.csv"
    mended.write_text(
        "recipient;data.project;data.amount;data.offer_url\n"
        + "".join(f"c-{number};a roof;9000,00;https://www.kbc-bank.example/loan\n" for number in (1, 2, 3))
        + "c-4;a roof;9.000;https://www.kbc-bank.example/loan\n"
    )
    refused = add_rows(services, "spring", RowSource(read_audience(mended, services.policy.files), "mended.csv"), "Bart")
    assert refused is not None
    assert "Anne" in str(refused.refusal)
    added = add_rows(services, "spring", RowSource(read_audience(mended, services.policy.files), "mended.csv"), "Anne")
    assert added is not None
    assert (added.added, added.invalid) == (3, 1)
    assert state(services)[0] is CampaignState.AWAITING_RELEASE
    same = actions.apply(services, "spring", CampaignAction.RELEASE, "Anne")
    assert same is not None
    assert same.refusal
    actions.apply(services, "spring", CampaignAction.RELEASE, "Bart")
    work(services)
    assert state(services)[0] is CampaignState.FINISHED
    counted = balance(services)
    assert counted.states[State.ACCEPTED] == 3
    assert counted.reasons["duplicate"] == 1  # c-1, who was in the first file
    late = add_rows(services, "spring", RowSource(read_audience(mended, services.policy.files), "mended.csv"), "Anne")
    assert late is not None
    assert late.refusal == "cannot add rows to a campaign that is finished"
    assert add_rows(services, "autumn", RowSource(read_audience(mended, services.policy.files), "mended.csv"), "Anne") is None


@pytest.mark.parametrize(
    ("good", "percent", "waits"), [(0, 50, True), (3, 50, False), (3, 49, True), (0, 100, False), (4, 50, False)]
)
def test_the_policy_says_how_many_bad_rows_are_too_many(services: Services, good: int, percent: float, waits: bool) -> None:
    services = replace(services, policy=replace(services.policy, files=FileRules(invalid_max_percent=percent)))
    audience = [row(f"c-{number}") for number in range(good)] + [{"recipient": "not an id"}] * 3
    form = {"id": "spring", "template": "loan_offer", "audience": audience}
    result = dry_run.dry_run(services, parse_campaign(form, submission.validation_context(services)))
    assert any("rows cannot be read" in need for need in result.needs) is waits
    submit(services, audience)
    assert (state(services)[0] is CampaignState.AWAITING_RELEASE) is waits


def test_the_reason_of_most_bad_rows_is_named_without_their_values(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("recipient;data.first_name\np-0;Zoë\n".encode() + "p-1;François\np-2;Zoë\n".encode("cp1252"))
    submit(services, path)
    assert "not UTF-8, perhaps Windows-1252" in state(services)[1]


def test_readings_of_a_number_are_not_in_the_note(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("recipient;data.amount\np-0;12.000\np-1;12.000\n")
    submit(services, path)
    assert state(services) == (CampaignState.AWAITING_RELEASE, "2 of 2 rows cannot be read")


# -- send_at -----------------------------------------------------------------------------------------------------------


def test_a_start_in_the_past_is_refused(services: Services, tmp_path: Path) -> None:
    now = services.clock()
    path = tmp_path / "c.yaml"
    path.write_text("id: spring\ntemplate: loan_offer\nsend_at: 2020-01-01T09:00:00+01:00\naudience:\n  - {recipient: c-1}\n")
    with pytest.raises(BadInput) as refusal:
        check_campaign(read_request(path, None), submission.validation_context(services))
    fault = refusal.value.faults[0]
    assert (fault.line, fault.field) == (3, "send_at")
    assert "lies more than 15 minutes in the past" in fault.message
    as_of_then = submission.validation_context(services, datetime(2020, 1, 1, 8, tzinfo=UTC))
    check_campaign(read_request(path, None), as_of_then)  # a dry run of that day
    submit(services, [row("c-1")], send_at=(now - timedelta(minutes=14)).isoformat())
    assert state(services)[0] is CampaignState.SCHEDULED


# -- the commands ------------------------------------------------------------------------------------------------------


def test_the_commands_say_all_of_this(database: str, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(people(6, {3: '"Anne', 5: "NULL"}))
    done = run_command(database, tmp_path, "recipients", "import", str(path), "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert (counts["new"], counts["rejected"], counts["rejected_with_opt_outs_recorded"]) == (4, 2, 2)
    assert [fault["line"] for fault in counts["faults"]] == [4, 6]
    with psycopg.connect(database) as connection:
        assert off(connection, "q-3") == off(connection, "q-5") == {"channel:email"}
    audience = tmp_path / "audience.csv"
    audience.write_text("recipient;data.amount\nq-1;9000\nq-2;9.000\nq-4;9.000\n")
    campaign = tmp_path / "spring.yaml"
    campaign.write_text("id: spring\ntemplate: optout_acknowledgement\naudience: audience.csv\n")
    done = start_command(database, tmp_path, "campaign", "submit", str(campaign), "--json")
    assert json.loads(done.stdout)["state"] == "awaiting_release", done.stderr
    audience.write_text("recipient\nq-1\nq-2\n")
    done = start_command(database, tmp_path, "campaign", "add-rows", "spring", str(audience), "--json")
    assert json.loads(done.stdout)["audience"] == 2, done.stderr
    done = run_command(database, tmp_path, "campaign", "add-rows", "spring", str(tmp_path / "none.csv"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
