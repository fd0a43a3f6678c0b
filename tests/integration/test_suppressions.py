"""Lists of suppressed addresses: which rows count in which format, what an import changes, and who sees or lifts a suppression."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openpyxl import Workbook

from channels.base import Channel, Unavailable
from dispatcher.campaigns import submission
from dispatcher.consent import preferences, recipients, suppressions
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.consent.suppressions import SuppressionFilter, SuppressionImport, SuppressionRecord, SuppressionRequest
from dispatcher.domain.derived_keys import KeyRing, fingerprint
from dispatcher.domain.preferences import Change
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.suppression_list import SuppressionList, read_list
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import address_keys, events, suppression_import
from dispatcher.ledger.consent import suppressions as bans
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.runtime.services import Services
from tests.support.services import NOON, Clock, add_people, balance, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SINCE = datetime(2026, 9, 22, 13, 25, 7, tzinfo=UTC)
CREATED = str(int(SINCE.timestamp()))
UNSUBSCRIBES = "suppression_unsubscribes.csv"
TWILIO = "From,To,Body,Status,SentDate,ApiVersion,NumSegments,ErrorCode,AccountSid,Sid,Direction,Price,PriceUnit\n"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(NOON.replace(hour=21))) as made:
        add_people(made, person("c-1", 71), person("c-2", 72), person("c-3", 73))
        yield made


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def take(services: Services, path: Path, **options: Any) -> SuppressionImport:
    rejects = path.with_name("rejects.jsonl")
    return suppressions.import_list(services, SuppressionRequest(path, "jana", rejects, **options))


def listed(services: Services, **wanted: Any) -> list[SuppressionRecord]:
    return suppressions.page(services, SuppressionFilter(**wanted))


def summary(services: Services) -> set[tuple[str, str, str, str]]:
    """Of each suppression in force: channel, whose address it is, reason, source."""
    owners = {
        address_key(services.secret, kind, address): name
        for name in ("c-1", "c-2", "c-3")
        for kind, address in (("email", f"{name}@example.org"), ("sms", f"+3247000007{name[-1]}"))
    }
    return {(each.channel, owners.get(each.address_key, "?"), each.reason, each.source) for each in listed(services)}


def wait_for_retries(services: Services) -> None:
    """One message to each person, by SMS, that waits to be sent again."""
    rows = [{"recipient": name, "data": OFFER} for name in ("c-1", "c-2", "c-3")]
    form = {"id": "spring", "template": "loan_offer", "channels": ["sms"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    services.clock.pass_(14 * 3600)  # type: ignore[attr-defined]
    outbox(services, Channel.SMS).answers.update({f"+3247000007{n}": Unavailable("connect") for n in (1, 2, 3)})
    work(services)
    assert states(services) == {"waiting": 3}


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        (
            "suppression_bounces.csv",
            f'status,reason,email,created\n5.1.1,"550 5.1.1 <x@y.example> unknown,\nsorry",C-1@example.org,{CREATED}\n',
            {("email", "c-1", "bounced", "sendgrid")},
        ),
        (
            "suppression_invalid_emails.csv",
            f"reason,email,created\nKnown bad domain,c-1@example.org,{CREATED}\n",
            {("email", "c-1", "invalid_address", "sendgrid")},
        ),
        (
            "suppression_spam_reports.csv",
            f"ip,email,created\n192.0.2.1,c-1@example.org,{CREATED}\n",
            {("email", "c-1", "complained", "sendgrid")},
        ),
        (
            "suppression_unsubscribes.csv",
            f"email,created\nc-1@example.org,{CREATED}\n",
            {("email", "c-1", "opted_out", "sendgrid")},
        ),
        (
            "asm_groups_3893_suppressions.csv",
            "email,group_id,created_at\nc-1@example.org,3893,2026-09-22T13:25:07Z\n",
            {("email", "c-1", "opted_out", "sendgrid")},
        ),
        (
            "sms-log.csv",
            TWILIO + "+3278150000,+32470000071,Hi,failed,2026-09-22T13:25:07Z,2010,1,21610,AC,SM,outbound-api,,\n"
            "+3278150000,+32470000072,Hi,undelivered,2026-09-22T13:25:07Z,2010,1,30005,AC,SM,outbound-api,,\n"
            "+3278150000,+32470000073,Hi,undelivered,2026-09-22T13:25:07Z,2010,1,30003,AC,SM,outbound-api,,\n"
            "whatsapp:+32470000073,whatsapp:+3278150000,Stop,received,2026-09-22T13:25:07Z,2010,1,,AC,SM,inbound,,\n"
            "+32470000073,+3278150000,Thanks,received,2026-09-22T13:25:07Z,2010,1,,AC,SM,inbound,,\n",
            {("sms", "c-1", "21610", "twilio"), ("sms", "c-2", "30005", "twilio"), ("whatsapp", "c-3", "stop", "twilio")},
        ),
        (
            "consents.csv",
            "contact_id,status,date_of_consent\n+32470000071,opt-out,2026-09-22T13:25:07Z\n+32470000072,opt-in,\n",
            {("sms", "c-1", "opted_out", "twilio")},
        ),
        (
            "list.csv",
            "address;channel;reason;source;date\nc-1@example.org;;Unsubscribed;crm;22/09/2026\n0470000072;sms;bounce;;\n+32470000073;;;;\n",
            {
                ("email", "c-1", "opted_out", "crm"),
                ("sms", "c-2", "bounced", "import"),
                ("sms", "c-3", "imported", "import"),
                ("whatsapp", "c-3", "imported", "import"),
            },
        ),
        ("list.jsonl", '{"email": "c-1@example.org", "reason": "stop"}\n', {("email", "c-1", "stop", "import")}),
    ],
)
def test_a_list_is_read_in_its_own_format(
    services: Services, tmp_path: Path, name: str, text: str, wanted: set[tuple[str, str, str, str]]
) -> None:
    result = take(services, write(tmp_path, text, name))
    assert (summary(services), result.rejected, result.problems) == (wanted, 0, ())
    if "date" in text or "created" in text.partition("\n")[0]:
        assert SINCE.date() in {each.since.date() for each in listed(services)}


def test_a_workbook_is_read(services: Services, tmp_path: Path) -> None:
    book = Workbook()
    assert book.active is not None
    for row in (["Email", "Date"], ["c-1@example.org", SINCE.replace(tzinfo=None)]):
        book.active.append(row)
    book.save(tmp_path / "list.xlsx")
    take(services, tmp_path / "list.xlsx")
    assert [(each.channel, each.since) for each in listed(services)] == [(Channel.EMAIL, SINCE)]


def test_a_list_of_blocks_is_refused_unless_it_is_named_otherwise(services: Services, tmp_path: Path) -> None:
    path = write(tmp_path, f"status,reason,email,created\n5.7.1,spam,c-1@example.org,{CREATED}\n", "suppression_blocks.csv")
    with pytest.raises(BadInput, match="goes on sending"):
        take(services, path)
    take(services, path, format="sendgrid-bounces")
    assert summary(services) == {("email", "c-1", "bounced", "sendgrid")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adress,reason\nc-1@example.org,x\n", "did you mean"),
        ("reason,date\nbounced,2026-01-01\n", "address: is missing"),
        ("", "is empty"),
    ],
)
def test_a_file_that_is_no_list_is_refused_as_a_whole(services: Services, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        take(services, write(tmp_path, text))


SHARED = [
    ("status,reason,email,created", "sendgrid-blocks, sendgrid-bounces"),
    ("email,created", "sendgrid-spam-reports, sendgrid-unsubscribes, plain"),
    ("reason,email,created", "sendgrid-invalid-emails, plain"),
]


@pytest.mark.parametrize("name", ["export.csv", "blocks-and-bounces-unsubscribes-spam.csv"])
@pytest.mark.parametrize(("header", "choices"), SHARED)
def test_columns_of_two_formats_need_a_format(services: Services, tmp_path: Path, header: str, choices: str, name: str) -> None:
    path = write(tmp_path, f"{header}\n", name)
    with pytest.raises(BadInput, match=f"give one of {choices}$") as error:
        take(services, path, dry_run=True)
    assert (error.value.faults[0].file, error.value.faults[0].field) == (str(path), "format")


@pytest.mark.parametrize("header", ["email,reason,source,date", "email", "No,Channel,Hash,Key,Reason,Source,Since,Created_at"])
def test_columns_of_a_plain_list_need_no_format(services: Services, tmp_path: Path, header: str) -> None:
    assert take(services, write(tmp_path, f"{header}\n")).format == "plain"


@pytest.mark.parametrize("dry_run", [True, False])
def test_format_and_rows_per_reason_are_reported(services: Services, tmp_path: Path, dry_run: bool) -> None:
    plain = take(
        services, write(tmp_path, "phone,reason\n+32470000071,spam\n+32470000072,spam\n0,spam\n+32470000073,\n"), dry_run=dry_run
    )
    bounces = take(
        services,
        write(tmp_path, f"status,reason,email,created\n5.1.1,unknown,c-1@example.org,{CREATED}\n", "list.csv"),
        format="sendgrid-bounces",
        dry_run=dry_run,
    )
    assert (plain.format, plain.reasons, plain.taken) == ("plain", {"complained": 2, "imported": 1}, 3)
    assert (bounces.format, bounces.reasons) == ("sendgrid-bounces", {"bounced": 1})


def test_an_unknown_format_is_refused_with_the_known_ones(services: Services, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is none of plain, sendgrid-blocks"):
        take(services, write(tmp_path, "email\nc-1@example.org\n"), format="mailgun")


# -- bad rows ----------------------------------------------------------------------------------------------------------


def test_a_bad_row_is_listed_by_line_without_its_address(services: Services, tmp_path: Path) -> None:
    result = take(services, write(tmp_path, "email,reason\nnobody(at)example.org,bounced\nc-1@example.org,bounced\n"))
    assert (result.taken, result.rejected) == (1, 1)
    assert result.problems == ((2, "email", "is not a valid e-mail address"),)
    assert result.rejects is not None
    assert "nobody" not in result.rejects.read_text()
    assert json.loads(result.rejects.read_text())["line"] == 2


def test_a_readable_address_counts_whatever_is_wrong_with_its_row(services: Services, tmp_path: Path) -> None:
    text = (
        "email,reason,date\n"
        "c-1@example.org,unsubscribed,03/04/2026\n"  # two readings
        "c-2@example.org,unsubscribed,2026-01-01,one cell too many\n"
        'c-3@example.org,"a quote that is not closed,2026-01-01\n'
    )
    result = take(services, write(tmp_path, text))
    assert {(channel, owner) for channel, owner, _, _ in summary(services)} == {("email", f"c-{n}") for n in (1, 2, 3)}
    assert result.rejected == 0
    assert [line for line, _, _ in result.problems] == [2, 3, 4]
    assert all("suppressed" in problem for _, _, problem in result.problems)


def test_an_unreadable_row_of_a_log_suppresses_nobody(services: Services, tmp_path: Path) -> None:
    result = take(services, write(tmp_path, TWILIO + "+3278150000,+32470000071,Hi,delivered,too few\n"))
    assert (summary(services), result.rejected) == (set(), 1)


# -- what an import changes --------------------------------------------------------------------------------------------


def test_a_bank_that_moves_writes_to_nobody_who_refused(services: Services, tmp_path: Path) -> None:
    header = "id,person,language,birth_date,entities,has_current_account,email,offers.own,channels.email,said_at\n"
    said = "standard,true,2025-03-14T09:00:00+01:00"
    rows = "".join(f"m-{n},customer,nl,1980-01-31,kbc-bank,true,m-{n}@example.org,{said}\n" for n in range(4))
    people = write(tmp_path, header + rows, "people.csv")
    recipients.import_recipients(services, people, tmp_path / "bad.jsonl", "jana")
    for name, text in {
        "suppression_bounces.csv": f"status,reason,email,created\n5.1.1,unknown,m-1@example.org,{CREATED}\n",
        "suppression_spam_reports.csv": f"ip,email,created\n192.0.2.1,m-2@example.org,{CREATED}\n",
        "suppression_unsubscribes.csv": f"email,created\nm-3@example.org,{CREATED}\n",
    }.items():
        take(services, write(tmp_path, text, name))
    add_people(services, person("m-3", 74, email="m-3.new@example.org", channels={}, offers={}))  # a new address
    audience = [{"recipient": f"m-{n}", "data": OFFER} for n in range(4)]
    form = {"id": "first", "template": "loan_offer", "channels": ["email"], "audience": audience}
    services.clock.pass_(14 * 3600)  # type: ignore[attr-defined]
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    work(services)
    counted = balance(services, "first")
    assert {state: count for state, count in counted.states.items() if count} == {"accepted": 1, "refused": 3}
    assert counted.reasons == {"channel_off": 2, "suppressed": 1}


def test_messages_that_wait_for_a_listed_address_are_refused(services: Services, tmp_path: Path) -> None:
    wait_for_retries(services)
    result = take(services, write(tmp_path, "phone,reason\n+32470000071,bounced\n+32470000072,complained\n"))
    assert (result.counts.refused, states(services)) == (2, {"waiting": 1, "refused": 2})


def test_nothing_but_the_hash_is_stored(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, "address\nhidden@example.org\n+32470998877\n"))
    with lend(services.pool) as connection:
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
        ]
        found = [
            name for name in tables if connection.execute(f"SELECT FROM {name} t WHERE t::text ~ 'hidden@|470998877'").rowcount
        ]
    assert (len(listed(services)), found) == (3, [])


def test_an_old_opt_out_is_recorded_for_known_people_with_its_date(services: Services, tmp_path: Path) -> None:
    result = take(
        services, write(tmp_path, f"email,created\nc-1@example.org,{CREATED}\nstranger@example.org,{CREATED}\n", UNSUBSCRIBES)
    )
    history = [event for event in preferences.history(services, "c-1") if event.subject == "channel:email"]
    assert [(event.new_value, event.source, event.said_at, event.actor) for event in history][-1] == (
        "off",
        "import",
        SINCE,
        "jana",
    )
    assert (result.counts.new, result.counts.opt_outs) == (2, 1)
    with lend(services.pool) as connection:
        assert events.verify(connection, services.secret) == []


def test_a_bounce_is_no_choice_of_the_person(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, "email,reason\nc-1@example.org,bounced\n"))
    assert preferences.show(services, "c-1").choices["channel:email"].value == "on"


@pytest.mark.parametrize(("said_at", "value"), [(SINCE + timedelta(days=1), "on"), (SINCE - timedelta(days=1), "off")])
def test_a_later_choice_of_the_person_outranks_an_old_opt_out(
    services: Services, tmp_path: Path, said_at: datetime, value: str
) -> None:
    for switch in ("off", "on"):
        change = PreferenceChange("c-1", [Change("channel:email", switch)], "mobile", "c-1", said_at=said_at)
        preferences.record(services, lambda _: None, change)
    take(services, write(tmp_path, f"email,created\nc-1@example.org,{CREATED}\n", UNSUBSCRIBES))
    assert preferences.show(services, "c-1").choices["channel:email"].value == value
    assert len(listed(services)) == 1  # the address stays suppressed: who resubscribed must say so at this bank


def test_the_same_list_again_changes_nothing(services: Services, tmp_path: Path) -> None:
    path = write(tmp_path, "address,reason,date\nc-1@example.org,unsubscribed,2026-01-31\n+32470000072,stop,\nc-3@example.org,,\n")
    first = take(services, path)
    before = (listed(services), [preferences.show_with_history(services, name) for name in ("c-1", "c-2", "c-3")])
    again = take(services, path)
    after = (listed(services), [preferences.show_with_history(services, name) for name in ("c-1", "c-2", "c-3")])
    assert before == after
    assert (first.counts.new, again.counts.new, again.counts.in_force, again.counts.opt_outs) == (4, 0, 4, 0)


@pytest.mark.parametrize("date", ["2026-01-31", ""])
def test_a_lifted_suppression_does_not_come_back_with_its_list(services: Services, tmp_path: Path, date: str) -> None:
    path = write(tmp_path, f"email,reason,date\nc-1@example.org,bounced,{date}\n")
    take(services, path)
    suppressions.lift(services, listed(services)[0].no, "jana", "the mailbox works again")
    assert take(services, path).counts == suppression_import.ListCounts(lifted=1)
    assert listed(services) == []


def test_a_bounce_after_the_lift_suppresses_again(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, "email,reason,date\nc-1@example.org,bounced,2026-01-31\n"))
    suppressions.lift(services, listed(services)[0].no, "jana", "the mailbox works again")
    services.clock.pass_(86_400)  # type: ignore[attr-defined]
    take(services, write(tmp_path, "email,reason,date\nc-1@example.org,bounced,2026-11-24\n"))
    assert len(listed(services)) == 1


def test_start_lifts_an_imported_stop_and_no_dead_number(services: Services, tmp_path: Path) -> None:
    take(
        services, write(tmp_path, "phone,channel,reason\n+32470000071,sms,stop\n+32470000071,sms,bounced\n+32470000072,sms,stop\n")
    )
    with lend(services.pool) as connection:
        keys = [address_key(services.secret, "sms", f"+3247000007{n}") for n in (1, 2)]
        lifted = [bans.lift(connection, (Channel.SMS, key), ["stop"], services.clock(), services.clock()) for key in keys]
    assert lifted == [False, True]


def test_a_dry_run_says_what_the_import_does_and_changes_nothing(services: Services, tmp_path: Path) -> None:
    wait_for_retries(services)
    path = write(tmp_path, "phone,reason\n+32470000071,bounced\n0470000071,bounced\n+32470999999,spam\n+32470000072,spam\n")
    planned = take(services, path, dry_run=True)
    assert (listed(services), states(services)) == ([], {"waiting": 3})
    assert take(services, path).counts == planned.counts == suppression_import.ListCounts(new=6, opt_outs=1, refused=2)


def test_batches_do_not_change_the_result(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppressions, "BATCH_ROWS", 2)
    path = write(tmp_path, "email\n" + "".join(f"a{n % 5}@example.org\n" for n in range(9)))
    assert take(services, path, dry_run=True).counts.new == 5
    result = take(services, path)
    assert (result.taken, result.counts.new, len(listed(services))) == (9, 5, 5)


# -- list, look up, lift, export ---------------------------------------------------------------------------------------


def test_filters_choose_by_channel_reason_source_and_date(services: Services, tmp_path: Path) -> None:
    take(
        services,
        write(tmp_path, "address,channel,reason,source,date\nc-1@example.org,,bounced,a,2026-01-31\n+32470000071,sms,stop,b,\n"),
    )
    assert len(listed(services)) == 2
    for wanted in ({"channel": Channel.SMS}, {"reason": "stop"}, {"source": "b"}, {"since": datetime(2026, 2, 1, tzinfo=UTC)}):
        assert [each.reason for each in listed(services, **wanted)] == ["stop"]


def test_who_looks_an_address_up_is_recorded_without_the_address(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, "phone\n+32470000071\n"))
    assert {each.channel for each in suppressions.find(services, "0470 00 00 71", "jana")} == {Channel.SMS, Channel.WHATSAPP}
    assert suppressions.find(services, "c-3@example.org", "piet") == []
    with lend(services.pool) as connection:
        lookups = connection.execute("SELECT actor, cardinality(shown) FROM suppression_lookups ORDER BY no").fetchall()
    assert lookups == [("jana", 2), ("piet", 0)]
    with pytest.raises(BadInput, match="valid"):
        suppressions.find(services, "c-3@", "piet")


def test_a_lift_keeps_actor_and_reason_and_permits_nothing(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, f"email,created\nc-1@example.org,{CREATED}\n", UNSUBSCRIBES))
    no = listed(services)[0].no
    version = preferences.show(services, "c-1").version
    record = suppressions.lift(services, no, "jana", "a mistake of the old provider")
    assert record is not None
    assert (record.lifted_by, record.lifted_because) == ("jana", "a mistake of the old provider")
    assert preferences.show(services, "c-1").version == version + 1
    assert preferences.show(services, "c-1").choices["channel:email"].value == "off"
    assert suppressions.lift(services, no, "piet", "again") == record
    assert suppressions.lift(services, no + 1, "piet", "no such number") is None
    with pytest.raises(BadInput, match="should say why"):
        suppressions.lift(services, no, "piet", "  ")


def test_an_export_is_imported_into_another_ledger_of_the_same_key(services: Services, tmp_path: Path) -> None:
    take(services, write(tmp_path, "address,reason,date\nc-1@example.org,unsubscribed,2026-01-31\n+32470000072,bounced,\n"))
    text = "".join(suppressions.export_csv(services, SuppressionFilter()))
    assert "example.org" not in text
    path = write(tmp_path, text, "export.csv")
    before = summary(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE suppressions SET lifted_at = now(), reason = 'other'")
    assert take(services, path).counts.new == 3
    assert summary(services) == before
    rows = list(read_list(SuppressionList(path, NOON, keys=frozenset({"another"}))))
    assert [(row.addresses, row.field) for row in rows] == [((), "key")] * 3


def test_a_hash_of_a_former_key_finds_its_address(services: Services, database: str, tmp_path: Path) -> None:
    former = services.secret
    name = secret_keys.short(fingerprint(former.newest))
    path = write(tmp_path, f"hash,key,channel\n{address_key(former, 'email', 'c-1@example.org').hex()},{name},email\n")
    rotated = replace(services, secret=KeyRing.of(b"a-newer-secret-of-the-tests-that-is-long-enough", former.newest))
    with psycopg.connect(database, autocommit=True) as owner:
        secret_keys.check_keys(owner, former)
        secret_keys.introduce(owner, rotated.secret)
        assert address_keys.rekey_some(owner, rotated.secret, 100, NOON) == 3
    with make_services(database) as again:
        rotated = replace(again, secret=rotated.secret)
        take(rotated, path)
        assert [each.address_key for each in listed(rotated)] == [address_key(rotated.secret, "email", "c-1@example.org")]
