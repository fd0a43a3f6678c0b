"""The command line, on a real ledger and broker: what it prints, how it ends, and that bad input changes nothing."""

from __future__ import annotations

import csv
import getpass
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import typer

from channels.base import Channel, InboundText, Uncertain
from channels.providers.outbox import Outbox
from dispatcher.campaigns import scheduler, submission
from dispatcher.cli.command_groups import command_line
from dispatcher.cli.errors import run
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.inbound import customer_replies
from dispatcher.intake.campaign import read_request
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.policy import shipped
from dispatcher.runtime import bootstrap
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key
from tests.support.services import TEMPLATES, person

ACCOUNT = f"os:{getpass.getuser()}"
CACHES = (bootstrap.settings, bootstrap.joined_engines, bootstrap.migrate_once)
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Dispatcher = Callable[..., Said]


@pytest.fixture
def dispatcher(
    database: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Dispatcher]:
    environ = {
        "DISPATCHER_HOME": tmp_path,
        "XDG_CONFIG_HOME": tmp_path / "config",
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_BROKER_URL": broker_url,
        "DISPATCHER_SECRET_KEY": "a-secret-of-the-tests-that-is-long-enough",
        "DISPATCHER_TEMPLATES": TEMPLATES,
        **{f"DISPATCHER_PROVIDER_{channel}": "outbox" for channel in ("EMAIL", "SMS", "WHATSAPP", "PUSH")},
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, str(value))
    for cache in CACHES:
        cache.cache_clear()

    def command(*arguments: str | Path) -> Said:
        words = [str(argument) for argument in arguments]
        code = run(command_line(*words[:1]), words)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    yield command
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    people = [person("c-1", 1), person("c-2", 2, offers={"own": "none"})]
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2", "c-3")]
    for name, lines in (("people.jsonl", people), ("audience.jsonl", rows)):
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    (tmp_path / "campaign.yaml").write_text(
        "id: spring\ntemplate: loan_offer\nchannels: [email]\naudience: audience.jsonl\n", encoding="utf-8"
    )
    return tmp_path


def work(services: Services | None = None) -> None:
    """What a worker would do now."""
    services = services or bootstrap.services()
    with lend(services.pool) as connection:
        connection.execute("UPDATE chunks SET touched_at = NULL")  # no worker takes the messages on the broker here
    dues = scheduler.due_chunks(services)
    for due in dues:
        chunk = run_chunk(services, due.period, due.number)
        assert chunk is not None
        dues += scheduler.next_chunk(services, chunk)


def approve(dispatcher: Dispatcher) -> None:
    assert dispatcher("templates", "approve", "loan_offer").code == 0


def test_a_text_is_approved_by_name_before_its_first_campaign(dispatcher: Dispatcher, files: Path) -> None:
    said = dispatcher("campaign", "submit", files / "campaign.yaml")
    assert (said.code, "`dispatcher templates approve loan_offer`" in said.err) == (2, True)
    assert "before it starts: version 1 of loan_offer" in dispatcher("campaign", "dry-run", files / "campaign.yaml").out
    found = {each["what"]: each["says"] for each in dispatcher("check", "--json").json}
    assert "loan_offer" in found["templates"].partition("; not approved in their current version: ")[2]
    waiting = {each["name"]: each for each in dispatcher("templates", "list", "--json").json}["loan_offer"]
    assert (waiting["standing"], waiting["approval"]) == ("waiting", None)
    assert dispatcher("templates", "approve", "loan_offer", "--digest", "0" * 12).code == 2
    assert f"approved by {ACCOUNT}" in dispatcher("templates", "approve", "loan_offer").out
    assert dispatcher("campaign", "submit", files / "campaign.yaml").code == 0
    assert dispatcher("templates", "withdraw", "loan_offer", "--json").json["standing"] == "withdrawn"
    assert f"approval withdrawn by {ACCOUNT}" in dispatcher("templates", "list").out


def test_what_is_kept_for_how_long_can_be_looked_at_and_cleared(dispatcher: Dispatcher) -> None:
    shown = dispatcher("ledger", "retention", "--json").json
    assert [(each["class"], each["kept"], each["due"]) for each in shown][-1] == ("consent", "10 years", 0)
    assert {each["class"] for each in shown} >= {"content", "news", "answers", "prospects", "decisions", "consent", "events"}
    assert "30 days" in dispatcher("ledger", "retention", "--clear").out


def test_a_first_campaign_from_import_to_explanation(dispatcher: Dispatcher, files: Path) -> None:
    assert dispatcher("recipients", "import", files / "people.jsonl", "--json").json["new"] == 2
    dry = dispatcher("campaign", "submit", files / "campaign.yaml", "--dry-run", "--json").json
    assert (dry["audience"], dry["states"]) == (3, {"refused": 2, "sendable": 1})
    assert dispatcher("campaign", "list", "--json").json == []
    assert dispatcher("campaign", "list").out == "no campaign yet\n"
    assert dispatcher("dead", "list").out == "no message is dead\n"
    assert dispatcher("message", "unresolved").out == "no message is unresolved\n"
    approve(dispatcher)
    assert dispatcher("campaign", "submit", files / "campaign.yaml", "--json").json["balance"]["pending"] == 3
    work()
    shown = dispatcher("campaign", "show", "spring", "--json").json
    assert shown["state"] == "finished"
    assert {state: count for state, count in shown["balance"].items() if count} == {"accepted": 1, "refused": 2}
    assert shown["reasons"] == {"choice_none": 1, "unknown_recipient": 1}
    told = dispatcher("message", "explain", "--campaign", "spring", "--recipient", "c-2", "--language", "nl", "--json").json
    assert told["text"].startswith("We hebben je dit bericht niet gestuurd.")
    message = dispatcher("message", "show", told["id"], "--json").json
    assert (message["state"], message["reason"]) == ("refused", "choice_none")
    assert dispatcher("ledger", "verify").code == 0
    lines = dispatcher("campaign", "export", "spring").out.splitlines()
    assert [line.split(",")[1] for line in lines] == ["recipient", "c-1", "c-2", "c-3"]


def test_a_choice_recorded_at_a_desk_stands_and_can_be_asked_for(dispatcher: Dispatcher, files: Path) -> None:
    dispatcher("recipients", "import", files / "people.jsonl")
    said = dispatcher("preferences", "set", "c-1", "--email", "off", "--source", "branch", "--actor", "desk 12", "--json")
    assert [event["subject"] for event in said.json["events"]] == ["channel:email"]
    shown = dispatcher("preferences", "show", "c-1", "--json").json
    assert {choice["subject"]: choice["value"] for choice in shown["choices"]}["channel:email"] == "off"


def test_suppressions_are_imported_searched_lifted_and_exported(dispatcher: Dispatcher, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("email,reason,date\nc-1@example.org,bounced,2026-01-31\nnobody,bounced,\n", encoding="utf-8")
    planned = dispatcher("suppressions", "import", listed, "--dry-run", "--json").json
    assert (planned["suppressed"], planned["reject_file"]) == (1, None)
    imported = dispatcher("suppressions", "import", listed)
    assert f"{listed}:3: email: is not a valid e-mail address" in imported.err
    (shown,) = dispatcher("suppressions", "search", "C-1@example.org", "--json").json["suppressions"]
    assert (shown["reason"], shown["since"][:10]) == ("bounced", "2026-01-31")
    exported = tmp_path / "export.csv"
    assert dispatcher("suppressions", "export", exported, "--json").json["suppressions"] == 1
    assert "example.org" not in exported.read_text(encoding="utf-8")
    dispatcher("suppressions", "lift", str(shown["no"]), "--reason", "it works again")
    assert dispatcher("suppressions", "list").out == "no suppression\n"
    assert dispatcher("suppressions", "list", "--lifted", "--json").json["suppressions"][0]["lifted_because"] == "it works again"
    assert "there is no suppression 99" in dispatcher("suppressions", "lift", "99", "--reason", "x").err


def test_choices_are_recorded_acknowledged_outranked_and_proved(dispatcher: Dispatcher, tmp_path: Path) -> None:
    imported = datetime.now(UTC) - timedelta(hours=2)  # commands go by the real clock
    row = {**person("c-1"), "said_at": imported.isoformat()}
    (tmp_path / "people.jsonl").write_text(json.dumps(row), encoding="utf-8")
    dispatcher("recipients", "import", tmp_path / "people.jsonl")
    earlier, later = ((imported + timedelta(minutes=n)).astimezone(timezone(timedelta(hours=1))).isoformat() for n in (30, 60))
    by = ("--source", "branch", "--actor", "desk 12", "--json")
    said = dispatcher("preferences", "set", "c-1", "--email", "off", "--at", later, *by).json
    assert [event["subject"] for event in said["events"]] == ["channel:email"]
    late = dispatcher("preferences", "set", "c-1", "--email", "on", "--at", earlier, *by).json
    assert (late["events"], late["outranked"]) == ([], [{"subject": "channel:email", "value": "on"}])
    told = dispatcher("preferences", "set", "c-1", "--email", "on", "--at", earlier, *by[:-1]).out
    assert "not recorded: channel:email on; the person made a later choice" in told
    with lend(bootstrap.services().pool) as connection:
        assert connection.execute("SELECT count(*) FROM triggers WHERE key LIKE 'ack:%'").fetchone() == (1,)

    before = dispatcher("preferences", "show", "c-1", "--as-of", earlier, "--json").json
    assert before["choices"] == []  # made by then, but recorded later
    assert dispatcher("preferences", "show", "c-1", "--as-of", "2026-11-23T09:00:00").code == 2  # which nine o'clock?
    history = dispatcher("preferences", "history", "c-1", "--json").json["history"]
    assert (history[-1]["subject"], history[-1]["old_value"], history[-1]["new_value"]) == ("channel:email", "on", "off")
    assert dispatcher("consent", "export", "c-1").json["history"] == history
    written = dispatcher("consent", "export", "c-1", "--format", "dpv")
    assert written.json["@graph"][-1]["@type"] == "dpv:ConsentReceipt"
    assert "c-1" not in written.out
    assert dispatcher("consent", "export", "c-9", "--format", "dpv").code == 1


def test_answers_wait_are_obeyed_and_go_with_the_person(dispatcher: Dispatcher, files: Path) -> None:
    dispatcher("recipients", "import", files / "people.jsonl")
    for number in (1, 2):
        customer_replies.handle_reply(
            bootstrap.services(), lambda _: None, InboundText(f"SM-{number}", Channel.SMS, "+32470000001", "genoeg!")
        )
    waiting = dispatcher("inbound", "list", "--json").json["texts"]
    assert [(text["id"], text["text"], text["recipients"]) for text in waiting] == [
        ("SM-1", "genoeg!", ["c-1"]),
        ("SM-2", "genoeg!", ["c-1"]),
    ]
    assert dispatcher("inbound", "answer", "SM-2", "Begrepen!", "--json").json == {"id": "SM-2", "answered": True}
    again = dispatcher("inbound", "answer", "SM-2", "Begrepen!")
    assert (again.code, again.err.strip()) == (1, "this message does not wait for an answer any more")
    assert dispatcher("inbound", "close", "SM-1", "--stop", "--json").json["closed"]
    assert dispatcher("inbound", "close", "SM-1").code == 1
    stopped = dispatcher("recipients", "export", "c-1").json
    assert stopped["channels"]["sms_whatsapp"] is False
    waiting = {"id": "c-1", "erased": False, "waiting": True}
    assert [dispatcher("recipients", "erase", "c-1", "--json").json for _ in range(2)] == [waiting] * 2
    assert dispatcher("inbound", "list", "--json").json["texts"] == []
    assert dispatcher("ledger", "verify").code == 0


def test_a_message_that_may_have_gone_is_listed_and_settled_by_who_knows(dispatcher: Dispatcher, files: Path) -> None:
    dispatcher("recipients", "import", files / "people.jsonl")
    approve(dispatcher)
    dispatcher("campaign", "submit", files / "campaign.yaml")
    outbox = Outbox(Channel.EMAIL)
    outbox.answers[""] = Uncertain("timeout")
    work(replace(bootstrap.services(), providers={Channel.EMAIL: outbox}))
    (line,) = dispatcher("message", "unresolved", "--json").json
    assert (line["campaign"], line["recipient"], line["channel"], line["reason"]) == ("spring", "c-1", "email", "timeout")
    assert dispatcher("message", "unresolved", "--campaign", "winter", "--json").json == []
    assert dispatcher("message", "settle", "--as", "failed").code == 2  # neither a message nor a filter
    assert dispatcher("message", "settle", line["id"], "--as", "failed", "--campaign", "spring").code == 2
    counted = dispatcher("message", "settle", "--as", "failed", "--campaign", "spring", "--channel", "email", "--json").json
    assert (counted["matching"], counted["groups"][0]["messages"], counted["settled"]) == (1, 1, 0)
    assert "Nothing is resolved yet" in dispatcher("message", "settle", "--as", "failed", "--provider", line["provider"]).out
    nothing = dispatcher("message", "settle", "--as", "failed", "--until", "2026-01-01T00:00:00", "--yes", "--json").json
    assert nothing == {"matching": 0, "groups": [], "settled": 0}
    assert len(dispatcher("message", "unresolved", "--json").json) == 1
    settled = dispatcher("message", "settle", line["id"], "--as", "failed", "--json").json
    assert (settled["state"], settled["reason"], settled["events"][0]["extra"]) == ("failed", "by_hand", {"by": ACCOUNT})
    again = dispatcher("message", "settle", line["id"], "--as", "accepted")
    assert (again.code, again.err.strip()) == (1, f"message {line['id']} is not unresolved")
    assert dispatcher("message", "settle", line["id"], "--as", "lost").code == 2
    assert dispatcher("message", "unresolved", "--json").json == []
    assert dispatcher("campaign", "show", "spring", "--json").json["balance"]["failed"] == 1


def test_a_campaign_can_be_stopped_and_what_can_not_be_is_said(dispatcher: Dispatcher, files: Path) -> None:
    approve(dispatcher)
    dispatcher("campaign", "submit", files / "campaign.yaml")
    assert dispatcher("campaign", "pause", "spring", "--json").json["state"] == "paused"
    assert dispatcher("campaign", "resume", "spring", "--json").json["state"] in ("scheduled", "running")
    assert dispatcher("campaign", "cancel", "spring", "--json").json["balance"]["cancelled"] == 3
    refused = dispatcher("campaign", "pause", "spring")
    assert (refused.code, refused.err.strip()) == (1, "campaign spring: cannot pause a campaign that is cancelled")
    assert dispatcher("campaign", "pause", "winter").code == 1


@pytest.mark.parametrize("action", ["pause", "resume", "cancel"])
def test_a_campaign_in_the_wanted_state_needs_no_change(dispatcher: Dispatcher, files: Path, action: str) -> None:
    """As by API and console: the same action twice succeeds twice."""
    approve(dispatcher)
    dispatcher("campaign", "submit", files / "campaign.yaml")
    if action == "resume":
        dispatcher("campaign", "pause", "spring")
    first, second = (dispatcher("campaign", action, "spring", "--json") for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert first.json["balance"] == second.json["balance"]
    assert second.json["state"] in {"pause": ("paused",), "resume": ("scheduled", "running"), "cancel": ("cancelled",)}[action]


def test_a_large_campaign_is_released_by_somebody_else(
    dispatcher: Dispatcher, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = files / "policy.toml"
    policy.write_text(re.sub(r"audience_min = [0-9_]+", "audience_min = 1", shipped()), encoding="utf-8")
    monkeypatch.setenv("DISPATCHER_POLICY", str(policy))
    bootstrap.settings.cache_clear()
    assert dispatcher("policy", "adopt").code == 0
    approve(dispatcher)
    submitted = dispatcher("campaign", "submit", files / "campaign.yaml", "--json").json
    assert submitted["state"] == "awaiting_release"
    own = dispatcher("campaign", "release", "spring")
    assert (own.code, f"submitted by {ACCOUNT}: somebody else has to release it" in own.err) == (1, True)
    key, lines = new_key("bart", ["campaigns"])
    (files / "keys.toml").write_text(lines)
    monkeypatch.setenv("DISPATCHER_API_KEYS", str(files / "keys.toml"))
    monkeypatch.setenv("DISPATCHER_API_KEY", key)
    bootstrap.settings.cache_clear()
    released = dispatcher("campaign", "release", "spring", "--json").json
    assert (released["state"], released["released_by"]) == ("running", "api:bart")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id: spring\ntemplate: loan_ofer\naudience: []\n", ":2: template: unknown template 'loan_ofer'; did you mean loan_offer?"),
        ("id: spring\ntemplate: loan_offer\nchanels: [email]\n", ":3: chanels: unknown field; did you mean channels?"),
        ("id: spring\ntemplate: loan_offer\n", ": audience: missing"),
        ("id: spring\nid: summer\n", ":2: id: is given twice"),
        ("a: &a [x, x]\nb: [*a, *a]\n", ":2: uses the alias *a; write the value out"),
        ("id: [\n", "is not YAML"),
        ("- a list\n", ":1: should hold `key: value` lines"),
        ("id: spring\ntemplate: loan_offer\naudience: nowhere.jsonl\n", "nowhere.jsonl: can't be read: No such file or directory"),
        ("id: spring\ntemplate: loan_offer\nsend_at: tomorrow\naudience: []\n", ":3: send_at:"),
        ("id: spring\ntemplate: loan_offer\nentity: kbc\naudience: []\n", ":3: entity: unknown entity 'kbc'"),
        ("id: spring\ntemplate: loan_offer\nexpires_at: 2020-01-01T00:00:00Z\naudience: []\n", ":3: expires_at:"),
    ],
)
def test_a_bad_campaign_is_refused_with_file_line_and_field(dispatcher: Dispatcher, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    approve(dispatcher)
    said = dispatcher("campaign", "submit", path)
    assert said.code == 2
    assert says in said.err
    assert not said.out
    with lend(bootstrap.services().pool) as connection:
        assert not lifecycle.newest(connection, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("send", "c-1", "optout_acknowledgement", "--key", "k", "--data", "{"), 2, "--data: is not JSON"),
        (("send", "c-1", "optout_acknowledgment", "--key", "k"), 2, "did you mean optout_acknowledgement?"),
        (("message", "show", "202611-1"), 2, "not a message id"),
        (("message", "show", "202611-1-0-0"), 1, "no message has the id 202611-1-0-0"),
        (("campaign", "show", "nothing"), 1, "no campaign has the id nothing"),
        (("recipients", "show", "nobody"), 1, "there is no recipient nobody"),
        (("recipients", "import", "people.txt"), 2, "people.txt: should be a .jsonl, .csv or .xlsx file"),
        (("preferences", "set", "c-1", "--offer", "own", "--source", "branch", "--actor", "x"), 2, "TYPE=tailored|standard|none"),
        (("preferences", "set", "c-1", "--offer", "owm=none", "--source", "branch", "--actor", "x"), 2, "owm"),
        (("preferences", "set", "c-1", "--email", "off", "--source", "branch", "--actor", "x", "--at", "noon"), 2, "--at: 'noon'"),
        (("message", "explain", "202611-1-0-0", "--language", "es"), 2, "'es' is not one of nl, fr, de, en"),
        (("templates", "preview", "loan", "--channel", "sms", "--language", "fr"), 2, "there is no template 'loan'"),
    ],
)
def test_a_bad_call_says_what_would_be_right(dispatcher: Dispatcher, arguments: tuple[str, ...], code: int, says: str) -> None:
    said = dispatcher(*arguments)
    assert (said.code, says in said.err) == (code, True), said.err
    machine = dispatcher(*arguments, "--json")
    assert machine.code == code
    assert says in json.loads(machine.out)["error"]


def _commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, *path, name)
    if path and not hasattr(command, "commands"):
        yield path, command


def test_every_command_takes_json() -> None:
    commands = dict(_commands(typer.main.get_command(command_line())))
    assert ("campaign", "export") in commands
    assert [path for path, command in commands.items() if not any("--json" in option.opts for option in command.params)] == []


def test_exports_and_keys_are_json_documents_too(dispatcher: Dispatcher, files: Path) -> None:
    dispatcher("recipients", "import", files / "people.jsonl")
    first, second = (dispatcher("recipients", "export", "c-1", *options).json for options in (["--json"], []))
    looks = [each.pop("looks_and_acts") for each in (first, second)]
    assert first == second
    assert looks[1][: len(looks[0])] == looks[0]  # the first export stands in the second
    assert dispatcher("consent", "export", "c-1", "--json").json == dispatcher("consent", "export", "c-1").json
    approve(dispatcher)
    dispatcher("campaign", "submit", files / "campaign.yaml")
    with lend(bootstrap.services().pool) as connection:
        connection.execute("UPDATE jobs SET recipient_id = '=c-1' WHERE recipient_id = 'c-1'")
    work()
    header, *lines = csv.reader(dispatcher("campaign", "export", "spring").out.splitlines())
    rows = dispatcher("campaign", "export", "spring", "--json").json
    assert len(lines) == len(rows) == 3
    assert [list(row) for row in rows] == [header] * 3
    assert (lines[0][1], rows[0]["recipient"]) == ("'=c-1", "=c-1"), "only a spreadsheet needs the apostrophe"
    assert (rows[0]["line"], rows[0]["state"]) == (1, "refused")
    assert rows[0]["channel"] is None
    assert datetime.fromisoformat(rows[0]["updated_at"]).tzinfo is not None
    assert dispatcher("campaign", "export", "spring", "--json", "--file", files / "x.json").json == {"file": str(files / "x.json")}
    assert json.loads((files / "x.json").read_text()) == rows
    made = dispatcher("new-key", "desk", "--right", "console", "--json")
    assert (made.json["name"], made.json["rights"], made.err) == ("desk", ["console"], "")
    assert made.json["key"].startswith("dsp_")
    assert made.json["key"] not in made.json["lines"]


def test_up_names_a_port_that_is_in_use_and_starts_nothing(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("DISPATCHER_PUBLIC_URL", f"http://127.0.0.1:{port}")
        bootstrap.settings.cache_clear()
        for options in ((), ("--json",)):
            said = dispatcher("up", "--no-flower", *options)
            assert said.code == 1
            assert f"port {port} of web is used by " in said.err
            assert "set DISPATCHER_PUBLIC_URL to a URL with another port" in said.err
        assert len(said.out.splitlines()) == 1
        assert f"port {port}" in said.json["error"]
    assert not (tmp_path / "log").exists()


def test_a_key_used_with_other_content_is_refused(dispatcher: Dispatcher, files: Path) -> None:
    dispatcher("recipients", "import", files / "people.jsonl")
    assert dispatcher("send", "c-1", "optout_acknowledgement", "--key", "k-1").code == 0
    assert dispatcher("send", "c-1", "optout_acknowledgement", "--key", "k-1").code == 0
    again = dispatcher("send", "c-2", "optout_acknowledgement", "--key", "k-1")
    assert again.code == 2
    assert "key: was used before" in again.err


def test_settings_that_are_wrong_are_all_named_at_once(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_LEASE_SECONDS", "soon")
    monkeypatch.setenv("TWILIO_SMS_SENDER", "+32!")
    bootstrap.settings.cache_clear()
    said = dispatcher("campaign", "list")
    assert said.code == 2
    assert "DISPATCHER_LEASE_SECONDS is 'soon'" in said.err
    assert "TWILIO_SMS_SENDER is '+32!'" in said.err


def test_a_database_that_is_away_is_said_in_one_line(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_DATABASE_URL", "postgresql://dispatcher@127.0.0.1:1/nowhere")
    for cache in CACHES:
        cache.cache_clear()
    said = dispatcher("campaign", "list")
    assert said.code == 1
    assert said.err.startswith("the database can't be reached")
    assert len(said.err.splitlines()) == 1


def test_a_campaign_file_spelled_otherwise_and_after_its_end_is_the_same_campaign(dispatcher: Dispatcher, files: Path) -> None:
    approve(dispatcher)
    end = datetime.now(UTC) - timedelta(minutes=1)
    earlier = replace(bootstrap.services(), clock=lambda: end - timedelta(hours=1))
    text = "id: spring\ntemplate: loan_offer\nchannels: [email]\naudience: audience.jsonl\n"
    (files / "campaign.yaml").write_text(f"{text}expires_at: {end.isoformat()}\npriority: 4\n", encoding="utf-8")
    assert submission.accept(earlier, read_request(files / "campaign.yaml", None)).status is submission.SubmitStatus.NEW
    other = end.astimezone(timezone(timedelta(hours=1)))
    (files / "campaign.yaml").write_text(f"priority: 4\nexpires_at: '{other.isoformat()}'\nroute: first\n{text}", encoding="utf-8")
    assert dispatcher("campaign", "submit", files / "campaign.yaml").code == 0
    (files / "campaign.yaml").write_text(f"{text}priority: 3\n", encoding="utf-8")
    assert "other content" in dispatcher("campaign", "submit", files / "campaign.yaml").err
    sent = ("send", "c-1", "optout_acknowledgement", "--key", "k-9", "--data")
    assert dispatcher(*sent, '{"received_on": "2026-11-23", "scope": "email"}').code == 0
    assert dispatcher(*sent, '{"scope": "email", "received_on": "2026-11-23"}').code == 0
    assert dispatcher(*sent, '{"scope": "sms", "received_on": "2026-11-23"}').code == 2
