"""Test sends and seeds: to testers of the policy only, marked, recorded without content, and counted nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from channels.base import Channel, Email, Event, EventKind, Push, Sms, WhatsApp, assemble
from channels.providers.outbox import Outbox
from dispatcher.campaigns import actions, submission, tester_sends
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.tester_sends import TestRequest
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Mode
from dispatcher.domain.principal import Role
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import suppressions
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.maintenance import sweep
from dispatcher.policy import InvalidPolicy, Policy, parse, shipped
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.command import run_command
from tests.support.people import sign_in
from tests.support.services import NOON, Broker, Clock, add_people, make_services, outbox, person, states, work
from tests.support.webhook_front import KEYS, event, open_front

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
TESTERS = """
[testers.jana]
language = "fr"
email = "Jana@KBC-bank.example"
sms = "0470 00 00 91"
whatsapp = "+32470000091"
push = "device-of-jana"

[testers.emma]
language = "en"
email = "c-1@example.org"
recipient = "c-1"

[testers.wim]
language = "nl"
email = "c-2@example.org"
sms = "+32470000002"
push = "device-c-2"
recipient = "c-1"
"""


def policy_with_testers(testers: str = TESTERS) -> Policy:
    return parse(shipped() + testers)


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(), approved=False) as made:
        add_people(made, person("c-1", 1), person("c-2", 2))
        yield replace(made, policy=replace(policy_with_testers(), digest=made.policy.digest))


def send(
    services: Services, tester: str = "jana", channel: Channel = Channel.EMAIL, **changes: Any
) -> tester_sends.TesterSend | None:
    request = TestRequest(services.catalog["loan_offer"], channel, "fr", Mode.TAILORED, "Bart")
    return tester_sends.send_test(services, tester_sends.tester_of(services, tester), replace(request, **changes))


def sent_on(services: Services, channel: Channel) -> list[Any]:
    return [(each.address, assemble(each.content)) for each in outbox(services, channel).sent]


def test_each_channel_marks_a_test_of_an_unapproved_version(services: Services) -> None:
    for channel in Channel:
        sent = send(services, channel=channel)
        assert sent is not None
        assert (sent.state, sent.digest, sent.actor) == ("accepted", services.catalog["loan_offer"].digest, "Bart")
    [(address, mail)] = sent_on(services, Channel.EMAIL)
    assert isinstance(mail, Email)
    assert (address, mail.subject.startswith("[TEST] Élodie"), mail.text.startswith("[TEST]")) == (
        "Jana@kbc-bank.example",
        True,
        True,
    )
    [(number, text)] = sent_on(services, Channel.SMS)
    assert isinstance(text, Sms)
    assert (number, text.text.startswith("[TEST] KBC Bank:")) == ("+32470000091", True)
    [(_, note)] = sent_on(services, Channel.PUSH)
    assert isinstance(note, Push)
    assert note.title.startswith("[TEST] ")
    [(_, approved)] = sent_on(services, Channel.WHATSAPP)
    assert isinstance(approved, WhatsApp)
    assert approved.variables["1"] == "[TEST] Élodie"


def test_the_record_has_who_and_what_and_no_content(services: Services) -> None:
    send(services, data={"first_name": "Zephyrine", "amount": 77123})
    [sent] = tester_sends.newest(services, "loan_offer")
    assert (sent.tester, sent.channel, sent.language, sent.mode, sent.at) == ("jana", "email", "fr", "tailored", NOON)
    with lend(services.pool) as connection:
        [(row,)] = connection.execute("SELECT test_sends::text FROM test_sends").fetchall()
        counted = connection.execute("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM cap_reservations)").fetchone()
    assert not any(word in row for word in ("Zephyrine", "77123", "kbc-bank.example", "+32", "[TEST]"))
    assert counted == (0,)


@pytest.mark.parametrize("channel", [Channel.EMAIL, Channel.SMS, Channel.PUSH])
def test_an_address_of_a_recipient_is_refused(services: Services, channel: Channel) -> None:
    with pytest.raises(BadInput, match=f"a recipient has the address of wim for {channel}"):
        send(services, "wim", channel)
    assert outbox(services, channel).sent == []
    assert tester_sends.newest(services) == []


def test_a_tester_who_is_the_recipient_gets_it(services: Services) -> None:
    assert send(services, "emma") is not None
    add_people(services, person("c-9", 9, email="C-1@example.org"))  # shares the address
    with pytest.raises(BadInput, match="a recipient has the address of emma"):
        send(services, "emma")


def test_a_suppressed_address_gets_no_test(services: Services) -> None:
    with lend(services.pool) as connection:
        key = address_key(services.secret, "email", "jana@kbc-bank.example")
        suppressions.suppress(connection, Channel.EMAIL, key, "bounced", "sendgrid", NOON)
    with pytest.raises(BadInput, match="the address of jana for email is suppressed"):
        send(services)


def test_a_failed_hand_off_is_recorded(services: Services) -> None:
    class Broken(Outbox):
        def send(self, *_: Any) -> Any:
            raise RuntimeError("Jana@kbc-bank.example")

    broken = replace(services, providers={**services.providers, Channel.EMAIL: Broken(Channel.EMAIL)})
    sent = send(broken)
    assert sent is not None
    assert (sent.state, sent.code) == ("uncertain", "RuntimeError")


def test_a_test_without_the_sandbox_says_what_to_start(database: str, tmp_path: Path) -> None:
    words = ("templates", "test", "loan_offer", "--to", "jana-maes", "--channel")
    nowhere = {"DISPATCHER_SANDBOX_URL": "http://127.0.0.1:9"}
    done = run_command(database, tmp_path, *words, "email", "--json", **nowhere)
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["state"], shown["code"]) == (1, "failed", "refused")
    assert "nothing answers at http://127.0.0.1:9. Start it with `dispatcher up`" in shown["hint"]
    done = run_command(database, tmp_path, *words, "sms", **nowhere)
    assert done.returncode == 2
    assert "[testers.jana-maes] of the policy file" in done.stderr
    assert "dispatcher policy show --text" in done.stderr


def test_reports_of_a_test_reach_its_record_and_nothing_else(services: Services) -> None:
    sent = send(services)
    assert sent is not None
    kinds = (EventKind.DELIVERED, EventKind.READ, EventKind.BOUNCED, EventKind.COMPLAINED)
    reports = [Event("sendgrid", kind, Channel.EMAIL, kind, NOON, message_id=f"test-{sent.no}") for kind in kinds]
    other = Event("sendgrid", "x", Channel.EMAIL, EventKind.DELIVERED, NOON, message_id="test-drive")
    assert tester_sends.record_reports(services, [*reports, other]) == [*reports[2:], other]
    [stored] = tester_sends.newest(services)
    assert stored.state in kinds


SEEDED = {"id": "spring", "template": "loan_offer", "channels": ["email", "sms"], "seeds": ["jana", "emma"]}


def submit(services: Services, **changes: Any) -> None:
    rows = [{"recipient": "c-2", "data": OFFER}]
    form = {**SEEDED, "audience": rows, **changes}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)), by="Ann")


def state(services: Services) -> CampaignState:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, "spring")
    assert found is not None
    return found.state


def test_seeds_get_a_campaign_once_before_its_release(services: Services) -> None:
    seeded = replace(services, policy=replace(services.policy, four_eyes_templates=False))
    submit(seeded)
    sweep.sweep(seeded)
    sweep.sweep(seeded)
    assert state(services) is CampaignState.AWAITING_RELEASE
    mails = [(address, content.subject[:6]) for address, content in sent_on(services, Channel.EMAIL)]
    assert sorted(mails) == [*[("Jana@kbc-bank.example", "[TEST]")] * 2, *[("c-1@example.org", "[TEST]")] * 2]  # in both modes
    assert {address for address, _ in sent_on(services, Channel.SMS)} == {"+32470000091"}
    actions.apply(seeded, "spring", CampaignAction.RELEASE, "Bart")
    work(seeded)
    assert states(services) == {"accepted": 1}


def test_an_unknown_seed_is_refused(services: Services) -> None:
    with pytest.raises(BadInput, match="seeds: unknown tester 'jan'; did you mean jana"):
        submit(services, seeds=["jan"])


def test_a_webhook_call_about_a_test_leaves_no_event(database: str) -> None:
    with open_front(database, KEYS) as front:
        services = replace(front.services, policy=replace(policy_with_testers(), digest=front.services.policy.digest))
        sent = send(services)
        assert sent is not None
        assert front.sendgrid(json.dumps([event(message_id=f"test-{sent.no}")]).encode()).status_code == 204
        assert front.events() == 0
        assert [each.state for each in tester_sends.newest(services)] == ["delivered"]


def test_tests_are_sent_by_http_and_at_the_console(services: Services, tmp_path: Path) -> None:
    made = {name: new_key(name, rights) for name, rights in {"Bart": ["console", "templates"], "Anne": ["console"]}.items()}
    (tmp_path / "keys.toml").write_text("\n".join(line for _, line in made.values()))
    app = create(services, Broker(), read_keys(tmp_path / "keys.toml"))
    with TestClient(app, base_url="https://dispatcher.example", follow_redirects=False) as client:
        headers = {"Authorization": f"Bearer {made['Bart'][0]}"}
        path = "/v1/templates/loan_offer/test"
        answer = client.post(path, json={"tester": "jana", "channel": "sms", "mode": "tailored"}, headers=headers)
        assert (answer.status_code, answer.json()["state"], answer.json()["language"], answer.json()["by"]) == (
            200,
            "accepted",
            "fr",
            "Bart",
        )
        refused = client.post(path, json={"tester": "wim", "channel": "sms"}, headers=headers)
        assert (refused.status_code, "+32" in refused.text) == (422, False)
        assert [each["state"] for each in client.get(f"{path}s", headers=headers).json()["tests"]] == ["accepted"]
        for name, status in (("Anne", 403), ("Bart", 303)):
            token = sign_in(client, services, name, [Role.APPROVER if name == "Bart" else Role.DESK])
            page = "/console/templates/loan_offer"
            form = {"form_token": token, "tester": "jana"}
            place = f"{page}/test?channel=email&language=de&mode=standard"
            assert client.post(place, data=form, headers={"Accept": "text/html"}).status_code == status
        shown = client.get(f"{page}?channel=email").text
        assert "email, de, standard" in shown
        assert "<option>jana</option>" in shown
    assert len(outbox(services, Channel.EMAIL).sent) == 1


BAD_TESTERS = {
    "no address": ('[testers.x]\nlanguage = "nl"', "testers.x: an address for at least one channel"),
    "an address that is none": (
        '[testers.x]\nlanguage = "nl"\nemail = "jana"',
        r"testers.x.email: an address: this one is not a valid",
    ),
    "an unknown key": ('[testers.x]\nlanguage = "nl"\nmail = "a@b.example"', "testers.x.mail: unknown key"),
    "no language": ('[testers.x]\nemail = "a@b.example"', "testers.x.language: is missing"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TESTERS.values(), ids=BAD_TESTERS.keys())
def test_a_tester_that_cannot_be_read_is_an_error(text: str, message: str) -> None:
    with pytest.raises(InvalidPolicy, match=message):
        policy_with_testers(f"\n{text}\n")
