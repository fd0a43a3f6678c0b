"""Four eyes on templates: only approved versions are sent, and exactly as approved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from shutil import copytree
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.campaigns import dry_run, submission, template_approval
from dispatcher.campaigns.template_approval import ApprovalStatus
from dispatcher.content import Catalog
from dispatcher.delivery.explanation import explain_message
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Role
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.campaign import Submission, parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle, template_approvals
from dispatcher.ledger.connection import lend
from dispatcher.ledger.decision_skeletons import expand_all
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.identity import users
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_folder import load_sound
from dispatcher.runtime.template_versions import name_open_versions
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.people import add_user, sign_in
from tests.support.services import (
    TEMPLATES,
    Broker,
    Clock,
    add_people,
    balance,
    load_edited,
    make_services,
    outbox,
    person,
    states,
    work,
)

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The shipped templates but for the loan offer's version and author."""
    folder = tmp_path_factory.mktemp("texts") / "templates"
    copytree(TEMPLATES, folder)
    declared = folder / "loan_offer" / "template.toml"
    text = declared.read_text(encoding="utf-8").replace('version = "1"', 'version = "2"')
    declared.write_text(text.replace("the program's makers", "Wim Writer"), encoding="utf-8")
    return load_edited(folder)


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(), approved=False) as made:
        add_people(made, person("c-1", 1), person("c-2", 2), person("c-3", 3))
        yield made


def approve(services: Services, name: str = "loan_offer", actor: str = "Bart") -> None:
    template_approval.set_approval(services, name, True, actor)


def withdraw(services: Services, name: str = "loan_offer") -> None:
    template_approval.set_approval(services, name, False, "Bart")


def asked(services: Services, campaign_id: str = "spring", **changes: Any) -> Submission:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2")]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    return parse_campaign(form, submission.validation_context(services))


def submit(services: Services, **changes: Any) -> None:
    submission.submit(services, asked(services, **changes))


def trigger(services: Services, key: str = "k-1", template: str = "loan_offer", **data: Any) -> tuple[int, int]:
    job = {"key": key, "recipient": "c-1", "template": template, "data": data or OFFER}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    return place.period, place.chunk


def campaign(services: Services, campaign_id: str = "spring") -> lifecycle.Campaign:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, campaign_id)
    assert found is not None
    return found


def approvals(services: Services) -> dict[str, list[int]]:
    """The numbers of the approvals under which each campaign's messages left."""
    with lend(services.pool) as connection:
        rows = connection.execute(
            "SELECT c.id, array_agg(m.decision) FROM messages m JOIN campaigns c ON c.no = m.campaign_no"
            " WHERE m.state = 'accepted' GROUP BY 1"
        ).fetchall()
        return {name: [each["approval"] for each in expand_all(connection, decisions)] for name, decisions in rows}


def start_campaigns(services: Services) -> int:
    with lend(services.pool) as connection:
        return lifecycle.start_due(connection, services.clock())


# -- at submission -----------------------------------------------------------------------------------------------------


def test_findings_of_the_linter_block_an_approval(services: Services, tmp_path: Path) -> None:
    copytree(TEMPLATES, tmp_path / "templates")
    mail = tmp_path / "templates" / "loan_offer" / "nl" / "email.html"
    text = mail.read_text(encoding="utf-8").replace("{{ heading(", '<img src="https://www.bank.example/a.png">\n{{ heading(', 1)
    mail.write_text(text, encoding="utf-8")
    line = text[: text.index("<img")].count("\n") + 1
    faulty = replace(services, catalog=load_edited(tmp_path / "templates"))
    with pytest.raises(BadInput) as refused:
        template_approval.set_approval(faulty, "loan_offer", True, "Bart Peeters")
    [error] = refused.value.faults
    assert (error.file, error.line, error.field) == ("loan_offer/nl/email.html", line, "T101 img alt")
    assert template_approval.template_version(faulty, "loan_offer").status is ApprovalStatus.WAITING
    lenient = replace(faulty, policy=replace(faulty.policy, lint_blocking=frozenset({"T210"})))
    assert template_approval.set_approval(lenient, "loan_offer", True, "Bart Peeters").status is ApprovalStatus.APPROVED


def test_a_campaign_with_a_text_that_nobody_approved_is_not_taken(services: Services) -> None:
    with pytest.raises(BadInput, match=r"template: version 1 of loan_offer \([0-9a-f]{12}\) is not approved"):
        submit(services)
    with lend(services.pool) as connection:
        assert lifecycle.find(connection, "spring") is None
    approve(services)
    submit(services)
    work(services)
    assert states(services) == {"accepted": 2}


def test_a_template_with_faults_is_refused_and_stops_no_other(services: Services, tmp_path: Path) -> None:
    copytree(TEMPLATES, tmp_path / "templates")
    (tmp_path / "templates" / "coin_offer" / "nl" / "texts.toml").write_text("[sms", encoding="utf-8")
    catalog = load_sound(tmp_path / "templates", services.policy, None)
    beside = replace(services, catalog=catalog)
    assert dry_run.dry_run(beside, asked(beside)).states == {"sendable": 2}
    with pytest.raises(BadInput, match=r"template: the template 'coin_offer' has faults: coin_offer/nl/texts.toml:1"):
        asked(beside, template="coin_offer")
    with pytest.raises(BadInput, match="the template 'coin_offer' has faults"):
        approve(beside, "coin_offer")


def test_a_template_with_faults_is_withdrawn_without_its_digest(services: Services, changed: Catalog) -> None:
    approve(services)
    submit(services)
    start_campaigns(services)
    broken = replace(services, catalog=Catalog({}))
    assert template_approval.set_approval(broken, "loan_offer", False, "Bart").status is ApprovalStatus.WITHDRAWN
    assert campaign(services).state is CampaignState.PAUSED
    with pytest.raises(BadInput, match="there is no template 'loan_offer'"):
        template_approval.set_approval(broken, "loan_offer", False, "Bart")
    approve(services)
    approve(replace(services, catalog=changed))
    with pytest.raises(BadInput, match="has 2 approved versions: name one of"):
        template_approval.set_approval(broken, "loan_offer", False, "Bart")


def test_a_dry_run_asks_for_no_approval_and_says_what_the_campaign_will_ask_for(services: Services) -> None:
    result = dry_run.dry_run(services, asked(services))
    assert result.states == {"sendable": 2}
    assert [need.partition(" (")[0] for need in result.needs] == ["version 1 of loan_offer"]
    approve(services)
    assert dry_run.dry_run(services, asked(services)).needs == ()
    strict = replace(services, policy=replace(services.policy, four_eyes_audience_min=1))
    assert "somebody other than its submitter" in dry_run.dry_run(strict, asked(services)).needs[0]


def test_a_trigger_is_refused_too_and_what_was_taken_before_keeps_its_answer(services: Services) -> None:
    with pytest.raises(BadInput, match="not approved"):
        trigger(services)
    approve(services)
    place = trigger(services)
    withdraw(services)
    assert trigger(services) == place
    with pytest.raises(BadInput, match="not approved"):
        trigger(services, "k-2")


def test_a_service_message_needs_nobody_s_approval(services: Services) -> None:
    run_chunk(services, *trigger(services, template="optout_acknowledgement", scope="email"))
    assert len(outbox(services).sent) == 1
    with pytest.raises(BadInput, match="service message"):
        approve(services, "optout_acknowledgement")


def test_a_policy_may_ask_for_no_approvals(services: Services) -> None:
    free = replace(services, policy=replace(services.policy, four_eyes_templates=False))
    submit(free)
    work(free)
    assert states(free) == {"accepted": 2}
    assert {wording.status for wording in template_approval.template_versions(free)} == {ApprovalStatus.FREE}


# -- running campaigns -------------------------------------------------------------------------------------------------


def test_a_running_campaign_keeps_its_version_and_a_new_one_gets_the_new_version(services: Services, changed: Catalog) -> None:
    approve(services)
    submit(services, rate_per_second=1)
    work(services)
    later = replace(services, catalog=changed)
    approve(later)
    submit(later, campaign_id="summer", audience=[{"recipient": "c-3", "data": OFFER}])
    assert isinstance(services.clock, Clock)
    services.clock.pass_(10)
    work(later)
    assert approvals(services) == {"spring": [1, 1], "summer": [2]}
    assert [campaign(services, name).note for name in ("spring", "summer")] == ["", ""]


def test_an_approval_that_is_missing_when_a_worker_looks_pauses_the_campaign(services: Services) -> None:
    approve(services)
    submit(services, send_at=services.clock() + timedelta(hours=1))
    withdraw(services)  # nothing runs that it could pause
    assert isinstance(services.clock, Clock)
    services.clock.pass_(3600)
    work(services)
    assert (campaign(services).state, states(services)) == (CampaignState.PAUSED, {"pending": 2})
    assert campaign(services).note.startswith("paused itself: version 1 of loan_offer (")
    approve(services)
    with lend(services.pool) as connection:
        assert lifecycle.resume(connection, "spring", services.clock())
    work(services)
    assert (states(services), campaign(services).note) == ({"accepted": 2}, "")


def test_an_older_version_is_withdrawn_by_its_digest_and_stops_only_its_campaigns(services: Services, changed: Catalog) -> None:
    approve(services)
    submit(services, rate_per_second=1)
    later = replace(services, catalog=changed)
    approve(later)
    submit(later, campaign_id="summer", rate_per_second=1, audience=[{"recipient": "c-3", "data": OFFER}])
    assert start_campaigns(services) == 2
    digest = services.catalog["loan_offer"].digest
    version = template_approval.set_approval(later, "loan_offer", False, "Bart", digest[:12])
    assert (version.status, version.template.version) == (ApprovalStatus.WITHDRAWN, "1")
    assert {name: campaign(services, name).state.value for name in ("spring", "summer")} == {
        "spring": "paused",
        "summer": "running",
    }
    assert template_approval.template_version(later, "loan_offer").status is ApprovalStatus.APPROVED
    assert template_approval.set_approval(later, "loan_offer", True, "Bart", digest).status is ApprovalStatus.APPROVED


def test_a_withdrawn_approval_stops_what_has_not_left(services: Services) -> None:
    approve(services)
    submit(services, rate_per_second=1)
    work(services)
    withdraw(services)
    assert isinstance(services.clock, Clock)
    services.clock.pass_(10)
    work(services)
    assert (campaign(services).state, states(services)) == (CampaignState.PAUSED, {"pending": 1, "accepted": 1})


def test_a_trigger_whose_approval_is_withdrawn_before_its_worker_begins_is_refused_and_says_so(services: Services) -> None:
    approve(services)
    period, chunk = trigger(services)
    withdraw(services)
    run_chunk(services, period, chunk)
    with lend(services.pool) as connection:
        message = messages.find(connection, MessageId(period, chunk, 0))
        assert message is not None
        told = explain_message(connection, services.policy, message, "en")
    assert (message.state, message.reason) == ("refused", ReasonCode.TEMPLATE_NOT_APPROVED)
    assert "The text had not been approved on our side yet." in told.why
    assert outbox(services).sent == []


def test_an_open_campaign_of_before_versions_gets_no_version_without_approval(services: Services) -> None:
    approve(services)
    submit(services)
    withdraw(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET template_digests = '{}'")
        assert name_open_versions(connection, services.policy, services.catalog) == 0
        approve(services)
        assert name_open_versions(connection, services.policy, services.catalog) == 1


def test_a_trigger_leaves_in_the_version_it_was_accepted_with(services: Services, changed: Catalog) -> None:
    approve(services)
    period, chunk = trigger(services)
    approve(replace(services, catalog=changed))
    run_chunk(replace(services, catalog=changed), period, chunk)
    with lend(services.pool) as connection:
        message = messages.find(connection, MessageId(period, chunk, 0))
    assert message is not None
    assert (message.state, message.decision["approval"]) == ("accepted", 1)


def test_a_decision_cites_the_approval_that_its_text_had(services: Services) -> None:
    approve(services, "train_ticket")
    approve(services)
    submit(services)
    work(services)
    with lend(services.pool) as connection:
        [message] = messages.of_campaign(connection, "spring", "c-1")
        [approval] = template_approvals.history(connection, "loan_offer")
    assert message.decision["approval"] == approval.no
    assert (approval.actor, approval.digest) == ("Bart", services.catalog["loan_offer"].digest)


def test_every_variant_needs_an_approval(services: Services) -> None:
    texts = {name: replace(services.catalog["loan_offer"], digest=letter * 64) for name, letter in (("a", "1"), ("b", "2"))}
    named = {name: replace(text, info=replace(text.info, template=name)) for name, text in texts.items()}
    both = replace(services, catalog=Catalog(named))
    approve(both, "a")
    with pytest.raises(BadInput, match="template: version 1 of b "):
        submit(both, template=None, variants={"x": "a", "y": "b"})
    approve(both, "b")
    submit(both, template=None, variants={"x": "a", "y": "b"})
    assert balance(both).states["pending"] == 2  # type: ignore[index]


# -- who may approve ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [" Wim  Writer", "WIM\u00a0WRITER", "Ｗim Writer", "Wim\u200b Writer"])
def test_a_name_typed_otherwise_is_no_second_person(services: Services, changed: Catalog, actor: str) -> None:
    with pytest.raises(BadInput, match="somebody else has to approve it"):
        approve(replace(services, catalog=changed), actor=actor)


def with_author(services: Services, folder: Path, author: str) -> Services:
    copytree(TEMPLATES, folder)
    declared = folder / "loan_offer" / "template.toml"
    declared.write_text(declared.read_text(encoding="utf-8").replace("the program's makers", author), encoding="utf-8")
    return replace(services, catalog=load_edited(folder))


def test_an_author_who_has_another_name_now_may_not_approve(services: Services, tmp_path: Path) -> None:
    jana, other = add_user(services, "Jana"), add_user(services, "Wim")
    theirs = with_author(services, tmp_path / "texts", jana)
    with lend(services.pool) as connection:
        users.change(connection, jana, name="Jana Peeters", email="peeters@bank.example")
        users.change(connection, other, name="Jana")  # somebody else has the name
    with pytest.raises(BadInput, match="user:jana wrote loan_offer: somebody else has to approve it"):
        approve(theirs, actor=jana)
    approve(theirs, actor=other)
    assert template_approval.template_version(theirs, "loan_offer").status is ApprovalStatus.APPROVED


def test_an_author_s_id_that_nobody_has_is_refused(services: Services, tmp_path: Path) -> None:
    wim, theirs = add_user(services, "Wim"), with_author(services, tmp_path / "texts", "user:jnaa")
    with pytest.raises(BadInput, match="author: user:jnaa is nobody who signs in"):
        approve(theirs, actor=wim)


def test_an_approval_is_somebody_s_of_what_they_saw_and_never_the_author_s(services: Services, changed: Catalog) -> None:
    later = replace(services, catalog=changed)
    digest = later.catalog["loan_offer"].digest
    for name, actor, seen, complaint in (
        ("loan_offer", "  ", None, "name who approves"),
        ("loan_offer", "wim writer", None, "somebody else has to approve it"),
        ("loan_offer", "Bart", services.catalog["loan_offer"].digest, "look at it again"),
        ("loan_offer", "Bart", digest[:11], "look at it again"),
        ("lone_offer", "Bart", None, "did you mean loan_offer"),
    ):
        with pytest.raises(BadInput, match=complaint):
            template_approval.set_approval(later, name, True, actor, seen)
    with pytest.raises(BadInput, match="no approval that could be withdrawn"):
        withdraw(later)
    assert template_approval.set_approval(later, "loan_offer", True, "Bart", digest[:12]).status is ApprovalStatus.APPROVED
    retry_hint = template_approval.set_approval(later, "loan_offer", True, "Carla", digest)
    assert (retry_hint.approval.actor if retry_hint.approval else "") == "Bart"
    withdraw(later)
    assert template_approval.template_version(later, "loan_offer").status is ApprovalStatus.WITHDRAWN


@pytest.mark.parametrize("statement", ["UPDATE template_approvals SET actor = 'x'", "DELETE FROM template_approvals"])
def test_nobody_rewrites_who_approved_what(services: Services, database: str, statement: str) -> None:
    approve(services)
    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        owner.execute(statement.encode())
    with lend(services.pool) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute(statement.encode())


# -- by HTTP and at the console ----------------------------------------------------------------------------------------


@pytest.fixture
def browser(services: Services, tmp_path: Path) -> Iterator[tuple[TestClient, dict[str, str]]]:
    rights = {"Bart": ["console", "templates"], "Anne": ["console", "campaigns"]}
    made = {name: new_key(name, listed) for name, listed in rights.items()}
    (tmp_path / "keys.toml").write_text("\n".join(line for _, line in made.values()))
    keys = read_keys(tmp_path / "keys.toml")
    with TestClient(create(services, Broker(), keys), base_url="https://dispatcher.example") as client:
        yield client, {name: key for name, (key, _) in made.items()}


def test_the_api_lists_approves_and_withdraws(services: Services, browser: tuple[TestClient, dict[str, str]]) -> None:
    client, keys = browser
    headers = {"Authorization": f"Bearer {keys['Bart']}"}
    listed = {each["name"]: each for each in client.get("/v1/templates", headers=headers).json()["templates"]}
    assert {name: each["standing"] for name, each in listed.items()} == {
        wording.template.name: wording.status for wording in template_approval.template_versions(services)
    }
    body = {"digest": listed["loan_offer"]["digest"]}
    approved = client.post("/v1/templates/loan_offer/approve", json=body, headers=headers)
    assert (approved.status_code, approved.json()["approval"]["actor"]) == (200, "Bart")
    stale = client.post("/v1/templates/loan_offer/approve", json={"digest": "0" * 64}, headers=headers)
    assert (stale.status_code, stale.json()["errors"][0]["field"]) == (422, "digest")
    assert client.post("/v1/templates/none/approve", json=body, headers=headers).status_code == 404
    assert client.post("/v1/templates/loan_offer/withdraw", json=body, headers=headers).json()["standing"] == "withdrawn"


def test_at_the_console_a_wording_is_looked_at_and_approved_by_who_may(
    services: Services, browser: tuple[TestClient, dict[str, str]]
) -> None:
    client, _ = browser
    place, digest = "/console/templates/loan_offer", services.catalog["loan_offer"].digest

    def post(action: str, token: str, seen: str = digest) -> int:
        data = {"form_token": token, "digest": seen}
        return client.post(f"{place}/{action}", data=data, headers={"Accept": "text/html"}, follow_redirects=False).status_code

    def enter(name: str) -> str:
        return sign_in(client, services, name, [Role.APPROVER if name == "Bart" else Role.MARKETER])

    token = enter("Anne")
    assert "Approve this version" not in client.get(place).text
    assert post("approve", token) == 403
    token = enter("Bart")
    assert "Approve this version" in client.get(place).text
    assert post("approve", "x") == 403
    assert post("approve", token, "0" * 64) == 422
    assert template_approval.template_version(services, "loan_offer").status is ApprovalStatus.WAITING
    assert post("approve", token) == 303
    shown = client.get(place).text
    assert "approved by user:bart" in shown
    assert "Withdraw the approval" in shown
    assert ">loan_offer/nl/texts.toml:9</td>" in shown  # a finding of the linter
    assert "approved by user:bart" in client.get("/console/templates").text
    assert post("withdraw", token) == 303
    assert template_approval.template_version(services, "loan_offer").status is ApprovalStatus.WITHDRAWN


def test_every_rendering_of_every_template_can_be_looked_at(services: Services, browser: tuple[TestClient, dict[str, str]]) -> None:
    client, _ = browser
    assert client.get("/console/templates/loan_offer/mail", follow_redirects=False).status_code == 303
    sign_in(client, services, "Anne", [Role.MARKETER])
    for template in services.catalog.values():
        for channel, language, mode in product(template.channels, LANGUAGES, sorted(template.info.modes)):
            answer = client.get(f"/console/templates/{template.name}?channel={channel}&language={language}&mode={mode}")
            assert answer.status_code == 200
            assert "can’t be written" not in answer.text
            if channel is Channel.EMAIL:
                mail = client.get(f"/console/templates/{template.name}/mail?channel=email&language={language}&mode={mode}")
                assert mail.text.startswith("<!DOCTYPE html>")
                assert mail.headers["content-security-policy"].endswith("sandbox")
    assert client.get("/console/templates/none").status_code == 404
    assert client.get("/console/templates/loan_offer?channel=fax&mode=%00").status_code == 200
