"""Four eyes on templates: what nobody approved does not leave, and what was approved is exactly what leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher import content
from dispatcher.campaigns import dry_run, submission, template_approval
from dispatcher.campaigns.template_approval import Standing
from dispatcher.content import Catalog
from dispatcher.delivery.explanation import explain_message
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import Code
from dispatcher.domain.message_id import MessageRef
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.campaign import Submission, parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle, template_approvals
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.runtime.services import House
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.services import TEMPLATES, Broker, Clock, add_people, balance, make_house, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The shipped templates but for the loan offer's version and author."""
    folder = tmp_path_factory.mktemp("texts") / "templates"
    copytree(TEMPLATES, folder)
    declared = folder / "loan_offer" / "template.toml"
    text = declared.read_text(encoding="utf-8").replace('version = "1"', 'version = "2"')
    declared.write_text(text.replace("the program's makers", "Wim Writer"), encoding="utf-8")
    return content.load(folder)


@pytest.fixture
def house(database: str) -> Iterator[House]:
    with make_house(database, Clock(), approved=False) as made:
        add_people(made, person("c-1", 1), person("c-2", 2))
        yield made


def approve(house: House, name: str = "loan_offer", actor: str = "Bart") -> None:
    template_approval.say(house, name, True, actor)


def withdraw(house: House, name: str = "loan_offer") -> None:
    template_approval.say(house, name, False, "Bart")


def asked(house: House, campaign_id: str = "spring", **changes: Any) -> Submission:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2")]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    return parse_campaign(form, submission.desk(house))


def submit(house: House, **changes: Any) -> None:
    submission.submit(house, asked(house, **changes))


def trigger(house: House, key: str = "k-1", template: str = "loan_offer", **data: Any) -> tuple[int, int]:
    job = {"key": key, "recipient": "c-1", "template": template, "data": data or OFFER}
    place = submission.take_trigger(house, parse_trigger(job, submission.desk(house)))
    return place.period, place.chunk


def campaign(house: House) -> lifecycle.Campaign:
    with lend(house.pool) as connection:
        found = lifecycle.find(connection, "spring")
    assert found is not None
    return found


# -- at the door -------------------------------------------------------------------------------------------------------


def test_a_campaign_with_a_text_that_nobody_approved_is_not_taken(house: House) -> None:
    with pytest.raises(BadInput, match=r"template: loan_offer as it now is \(version 1, [0-9a-f]{12}\) is not approved by anybody"):
        submit(house)
    with lend(house.pool) as connection:
        assert lifecycle.find(connection, "spring") is None
    approve(house)
    submit(house)
    work(house)
    assert states(house) == {"accepted": 2}


def test_a_dry_run_asks_for_no_approval_and_says_what_the_campaign_will_ask_for(house: House) -> None:
    rehearsal = dry_run.rehearse(house, asked(house))
    assert rehearsal.states == {"sendable": 2}
    assert [need.partition(" ")[0] for need in rehearsal.needs] == ["loan_offer"]
    approve(house)
    assert dry_run.rehearse(house, asked(house)).needs == ()
    strict = replace(house, policy=replace(house.policy, four_eyes_audience_min=1))
    assert "somebody else than its submitter" in dry_run.rehearse(strict, asked(house)).needs[0]


def test_a_trigger_is_refused_too_and_what_was_taken_before_keeps_its_answer(house: House) -> None:
    with pytest.raises(BadInput, match="not approved"):
        trigger(house)
    approve(house)
    place = trigger(house)
    withdraw(house)
    assert trigger(house) == place
    with pytest.raises(BadInput, match="not approved"):
        trigger(house, "k-2")


def test_a_service_message_needs_nobody_s_approval(house: House) -> None:
    run_chunk(house, *trigger(house, template="optout_acknowledgement", scope="email"))
    assert len(outbox(house).sent) == 1
    with pytest.raises(BadInput, match="service message"):
        approve(house, "optout_acknowledgement")


def test_a_policy_may_ask_for_no_approvals(house: House) -> None:
    free = replace(house, policy=replace(house.policy, four_eyes_templates=False))
    submit(free)
    work(free)
    assert states(free) == {"accepted": 2}
    assert {wording.standing for wording in template_approval.wordings(free)} == {Standing.FREE}


# -- what was running --------------------------------------------------------------------------------------------------


def test_a_running_campaign_whose_text_changes_pauses_itself_and_goes_on_once_the_new_one_is_approved(
    house: House, changed: Catalog
) -> None:
    approve(house)
    submit(house)
    later = replace(house, catalog=changed)
    work(later)
    assert campaign(house).state is CampaignState.PAUSED
    assert campaign(house).note.startswith("paused itself: loan_offer as it now is (version 2, ")
    assert states(house) == {"pending": 2}
    approve(later)
    with lend(house.pool) as connection:
        assert lifecycle.resume(connection, "spring", house.clock())
    work(later)
    assert states(house) == {"accepted": 2}
    assert campaign(house).note == ""


def test_a_withdrawn_approval_stops_what_has_not_left(house: House) -> None:
    approve(house)
    submit(house, rate_per_second=1)
    work(house)
    withdraw(house)
    assert isinstance(house.clock, Clock)
    house.clock.pass_(10)
    work(house)
    assert (campaign(house).state, states(house)) == (CampaignState.PAUSED, {"pending": 1, "accepted": 1})


def test_a_trigger_that_meets_another_wording_at_its_worker_is_refused_and_says_so(house: House, changed: Catalog) -> None:
    approve(house)
    period, chunk = trigger(house)
    run_chunk(replace(house, catalog=changed), period, chunk)
    with lend(house.pool) as connection:
        message = messages.find(connection, MessageRef(period, chunk, 0))
        assert message is not None
        told = explain_message(house, connection, message, "en")
    assert (message.state, message.reason) == ("refused", Code.TEMPLATE_NOT_APPROVED)
    assert "The text had not been approved on our side yet." in told.why
    assert outbox(house).sent == []


def test_a_decision_cites_the_approval_that_its_text_had(house: House) -> None:
    approve(house, "train_ticket")
    approve(house)
    submit(house)
    work(house)
    with lend(house.pool) as connection:
        [message] = messages.of_campaign(connection, "spring", "c-1")
        [word] = template_approvals.history(connection, "loan_offer")
    assert message.decision["approval"] == word.no
    assert (word.actor, word.digest) == ("Bart", house.catalog["loan_offer"].digest)


def test_every_variant_needs_an_approval(house: House) -> None:
    texts = {name: replace(house.catalog["loan_offer"], digest=letter * 64) for name, letter in (("a", "1"), ("b", "2"))}
    named = {name: replace(text, brief=replace(text.brief, template=name)) for name, text in texts.items()}
    both = replace(house, catalog=Catalog(named))
    approve(both, "a")
    with pytest.raises(BadInput, match="template: b as it now is"):
        submit(both, template=None, variants={"x": "a", "y": "b"})
    approve(both, "b")
    submit(both, template=None, variants={"x": "a", "y": "b"})
    assert balance(both).states["pending"] == 2  # type: ignore[index]


# -- who may say so ----------------------------------------------------------------------------------------------------


def test_an_approval_is_somebody_s_of_what_they_saw_and_never_the_author_s(house: House, changed: Catalog) -> None:
    later = replace(house, catalog=changed)
    digest = later.catalog["loan_offer"].digest
    for name, actor, seen, complaint in (
        ("loan_offer", "  ", None, "somebody's"),
        ("loan_offer", "wim writer", None, "somebody else has to approve it"),
        ("loan_offer", "Bart", house.catalog["loan_offer"].digest, "look at it again"),
        ("loan_offer", "Bart", digest[:11], "look at it again"),
        ("lone_offer", "Bart", None, "did you mean loan_offer"),
    ):
        with pytest.raises(BadInput, match=complaint):
            template_approval.say(later, name, True, actor, seen)
    with pytest.raises(BadInput, match="no approval that could be withdrawn"):
        withdraw(later)
    assert template_approval.say(later, "loan_offer", True, "Bart", digest[:12]).standing is Standing.APPROVED
    again = template_approval.say(later, "loan_offer", True, "Carla", digest)
    assert (again.word.actor if again.word else "") == "Bart"
    withdraw(later)
    assert template_approval.wording(later, "loan_offer").standing is Standing.WITHDRAWN


@pytest.mark.parametrize("statement", ["UPDATE template_approvals SET actor = 'x'", "DELETE FROM template_approvals"])
def test_nobody_rewrites_who_approved_what(house: House, database: str, statement: str) -> None:
    approve(house)
    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        owner.execute(statement.encode())
    with lend(house.pool) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute(statement.encode())


# -- by HTTP and at the console ----------------------------------------------------------------------------------------


@pytest.fixture
def browser(house: House, tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, str]]]:
    rights = {"Bart": ["console", "templates"], "Anne": ["console", "campaigns"]}
    made = {name: new_key(name, listed) for name, listed in rights.items()}
    (tmp_path / "keys.toml").write_text("\n".join(line for _, line in made.values()))
    keys = read_keys(tmp_path / "keys.toml")
    with TestClient(create(house, Broker(), keys), base_url="https://dispatcher.example") as client:
        yield client, {name: key for name, (key, _) in made.items()}


def test_the_api_lists_approves_and_withdraws(house: House, browser: tuple[TestClient, dict[str, str]]) -> None:
    client, keys = browser
    headers = {"Authorization": f"Bearer {keys['Bart']}"}
    listed = {each["name"]: each for each in client.get("/v1/templates", headers=headers).json()["templates"]}
    assert {name: each["standing"] for name, each in listed.items()} == {
        wording.template.name: wording.standing for wording in template_approval.wordings(house)
    }
    body = {"digest": listed["loan_offer"]["digest"]}
    approved = client.post("/v1/templates/loan_offer/approve", json=body, headers=headers)
    assert (approved.status_code, approved.json()["approval"]["actor"]) == (200, "Bart")
    stale = client.post("/v1/templates/loan_offer/approve", json={"digest": "0" * 64}, headers=headers)
    assert (stale.status_code, stale.json()["errors"][0]["field"]) == (422, "digest")
    assert client.post("/v1/templates/none/approve", json=body, headers=headers).status_code == 404
    assert client.post("/v1/templates/loan_offer/withdraw", json=body, headers=headers).json()["standing"] == "withdrawn"


def test_at_the_console_a_wording_is_looked_at_and_approved_by_who_may(
    house: House, browser: tuple[TestClient, dict[str, str]]
) -> None:
    client, keys = browser
    place, digest = "/console/templates/loan_offer", house.catalog["loan_offer"].digest

    def post(word: str, token: str, seen: str = digest) -> int:
        data = {"form_token": token, "digest": seen}
        return client.post(f"{place}/{word}", data=data, headers={"Accept": "text/html"}, follow_redirects=False).status_code

    def enter(name: str) -> str:
        client.post("/console/login", data={"key": keys[name]})
        return client.get("/console").text.partition('name="form_token" value="')[2][:64]

    token = enter("Anne")
    assert "Approve this wording" not in client.get(place).text
    assert post("approve", token) == 403
    token = enter("Bart")
    assert "Approve this wording" in client.get(place).text
    assert post("approve", "x") == 403
    assert post("approve", token, "0" * 64) == 422
    assert template_approval.wording(house, "loan_offer").standing is Standing.WAITING
    assert post("approve", token) == 303
    shown = client.get(place).text
    assert "was approved by Bart" in shown
    assert "Withdraw the approval" in shown
    assert "was approved by Bart" in client.get("/console/templates").text
    assert post("withdraw", token) == 303
    assert template_approval.wording(house, "loan_offer").standing is Standing.WITHDRAWN


def test_every_rendering_of_every_template_can_be_looked_at(house: House, browser: tuple[TestClient, dict[str, str]]) -> None:
    client, keys = browser
    assert client.get("/console/templates/loan_offer/mail", follow_redirects=False).status_code == 303
    client.post("/console/login", data={"key": keys["Anne"]})
    for template in house.catalog.values():
        for channel, language, mode in product(template.channels, LANGUAGES, sorted(template.brief.modes)):
            answer = client.get(f"/console/templates/{template.name}?channel={channel}&language={language}&mode={mode}")
            assert answer.status_code == 200
            assert "can’t be written" not in answer.text
            if channel is Channel.EMAIL:
                mail = client.get(f"/console/templates/{template.name}/mail?channel=email&language={language}&mode={mode}")
                assert mail.text.startswith("<!DOCTYPE html>")
                assert mail.headers["content-security-policy"].endswith("sandbox")
    assert client.get("/console/templates/none").status_code == 404
    assert client.get("/console/templates/loan_offer?channel=fax&mode=%00").status_code == 200
