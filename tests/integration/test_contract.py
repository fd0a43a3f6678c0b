"""The contract for tailored messages: text on the page, version as evidence; an undated import is no choice of a day."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.consent import dpv_export, preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.delivery.explanation import explain_to_customer
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import BadChoice, Change
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.intake.recipient import BadRecipient, parse
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.consent.hash_chain import verify
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import contract_texts
from dispatcher.policy import InvalidPolicy
from dispatcher.policy.contracts import SHIPPED_CONTRACTS, Contracts, read_contracts, shipped, with_contracts
from dispatcher.policy.data import ContractRules
from dispatcher.web.app import create
from dispatcher.web.public.preferences import renewal
from dispatcher.web.serializers.preferences import preferences_view
from tests.integration.test_api import open_desk
from tests.integration.test_preference_centre import Fields, fill
from tests.support.form_client import Visits, links, open_visits
from tests.support.services import NOON, add_people, person


@pytest.fixture
def visits(database: str) -> Iterator[Visits]:
    with open_visits(database) as opened:
        yield opened


def two_versions() -> Contracts:
    texts = shipped().texts
    return Contracts(
        {**texts, **{("2", entity, language): replace(text, version="2") for (_, entity, language), text in texts.items()}}
    )


def put_in_force(visits: Visits, version: str, renewal: str = "kept") -> None:
    """Another version of the contract."""
    policy = replace(visits.services.policy, contract=ContractRules(version, renewal))
    visits.services = replace(visits.services, policy=policy, contracts=two_versions())
    visits.client = TestClient(create(visits.services, visits.broker), follow_redirects=False)


def offer(visits: Visits, channel: Channel) -> str:
    """Write an offer; the explanation of what became of it."""
    place = visits.prepare("c-1", channel=channel)
    run_chunk(visits.services, place.period, place.chunk)
    with lend(visits.services.pool) as connection:
        message = messages.find(connection, MessageId(place.period, place.chunk, 0, 0))
    assert message is not None
    return explain_to_customer(visits.services, message, "en").text


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_the_contract_and_the_privacy_statement(visits: Visits, language: str) -> None:
    add_people(visits.services, person("c-1"))
    page = visits.client.get(visits.write("c-1").preferences + f"?lang={language}").text
    text = shipped().find("1", "kbc-bank", language)
    assert text is not None
    for section in text.sections:
        assert section.heading in page
    assert visits.services.policy.entities["kbc-bank"].privacy[language] in page
    assert "{entity}" not in page


def test_the_accepted_version_is_kept_with_the_choice(visits: Visits) -> None:
    add_people(visits.services, person("c-1", offers={"own": "standard"}))
    link = visits.write("c-1").preferences
    answer = visits.client.post(link, data=fill(visits, link, offer_own="tailored", offer_partner="standard"))
    assert {event.subject: event.contract_version for event in visits.said("c-1")} == {"offer:own": "1", "offer:partner": ""}
    assert "You accepted version 1 of the contract" in answer.text
    assert "<strong>Tailored</strong>, contract version 1" in answer.text
    assert "contract for tailored messages (version 1)" in offer(visits, Channel.PUSH)


def test_a_contract_that_changed_meanwhile_is_not_accepted(visits: Visits) -> None:
    add_people(visits.services, person("c-1", offers={"own": "standard"}))
    link = visits.write("c-1").preferences
    tailored, none = fill(visits, link, offer_own="tailored"), fill(visits, link, offer_own="none")
    put_in_force(visits, "2")
    answer = visits.client.post(link, data=tailored)
    assert answer.status_code == 409
    assert "changed after you opened this page" in answer.text
    assert not visits.said("c-1")
    assert visits.client.post(link, data=none).status_code == 200  # an opt-out needs no contract
    assert visits.values("c-1")["offer:own"] == "none"


def test_an_objection_to_profiling_is_made_and_withdrawn(visits: Visits) -> None:
    add_people(visits.services, person("c-1"))
    link = visits.write("c-1").preferences
    answer = visits.client.post(link, data={**Fields(visits.client.get(link).text).sent, "objection:profiling": "on"})
    assert "Objection to profiling: <strong>yes" in answer.text
    assert visits.values("c-1")["objection:profiling"] == "on"
    form = Fields(answer.text).sent
    form.pop("objection:profiling")
    visits.client.post(link, data=form)
    assert visits.values("c-1")["objection:profiling"] == "off"


def test_a_former_version_stays_valid_and_can_be_read(visits: Visits) -> None:
    add_people(visits.services, person("c-1", contract_version="1"))
    put_in_force(visits, "2")
    link = visits.write("c-1").preferences
    assert len(visits.sent()) == 1
    page = visits.client.get(link).text
    for words in ("Read the contract (version 2)", "Read version 1, which you accepted", "stays valid for you"):
        assert words in page
    visits.client.post(link, data=fill(visits, link))
    assert not visits.said("c-1")


def test_a_required_renewal_holds_messages_back_until_it_is_given(visits: Visits) -> None:
    switches = {"email": True, "push": True, "sms_whatsapp": False}
    add_people(visits.services, person("c-1", contract_version="1", channels=switches))
    link = visits.write("c-1").preferences
    put_in_force(visits, "2", "required")
    assert "you have not accepted it yet" in offer(visits, Channel.PUSH)
    page = visits.client.get(link).text
    assert "I accept version 2 of the contract" in page
    assert "I accept version 2" not in visits.client.post(link, data={**Fields(page).sent, "renew": "on"}).text
    assert [(event.subject, event.new_value, event.contract_version) for event in visits.said("c-1")] == [
        ("offer:own", "tailored", "2"),
        ("offer:kate", "tailored", "2"),
    ]
    assert visits.values("c-1")["channel:sms_whatsapp"] == "off"  # a renewal switches nothing on


@pytest.mark.parametrize(
    ("rules", "accepted", "shown"),
    [
        (ContractRules("2", "kept"), {"2"}, ""),
        (ContractRules("2", "kept"), {""}, ""),
        (ContractRules("2", "kept"), {"1", "2"}, "kept"),
        (ContractRules("2", "required"), set(), ""),
        (ContractRules("2", "required"), {"2"}, ""),
        (ContractRules("2", "required"), {"", "2"}, "required"),
    ],
)
def test_the_page_says_what_a_former_acceptance_is_worth(rules: ContractRules, accepted: set[str], shown: str) -> None:
    assert renewal(rules, frozenset(accepted)) == shown


# -- an import ---------------------------------------------------------------------------------------------------------


def test_an_undated_import_is_never_a_choice_of_a_day(visits: Visits) -> None:
    add_people(visits.services, person("c-1"))
    told = offer(visits, Channel.EMAIL)
    assert "According to our files (taken over on 23 November 2026), you chose tailored messages" in told
    page = visits.client.get(links(visits.sent()[-1]).preferences).text
    assert "according to our files, taken over on 23 November 2026" in page
    for text in (told, page, repr(visits.sent()[-1].content)):
        assert not re.search(r"[Yy]ou chose [\w ]*on \d|<time", text)
    shown = preferences_view(preferences.show(visits.services, "c-1"))["choices"]["offer:own"]
    assert (shown["dated"], shown["contract_version"]) == (False, None)
    assert "dpv:isIndicatedAtTime" not in json.dumps(dpv_export.export_person(visits.services, "c-1")["@graph"])
    with lend(visits.services.pool) as connection:
        assert {event["dated"] for event in recipients.export(connection, "c-1")["consent"]} == {False}


def test_an_import_with_a_time_says_when_the_choice_was_made(visits: Visits) -> None:
    add_people(visits.services, person("c-1", said_at="2025-03-01T09:00:00+01:00", contract_version="1"))
    assert "you chose tailored messages on 1 March 2025" in offer(visits, Channel.EMAIL)
    page = visits.client.get(links(visits.sent()[-1]).preferences).text
    assert "Tailored</strong>, contract version 1" in page
    assert "1 March 2025</time>, according to our files" in page


@pytest.mark.parametrize("known", [False, True])
def test_a_row_says_which_version_was_accepted(visits: Visits, known: bool) -> None:
    if known:
        add_people(visits.services, person("c-1", offers={"own": "none"}))
    add_people(visits.services, person("c-1", contract_version="1"))
    events = preferences.history(visits.services, "c-1")
    assert {event.contract_version for event in events if event.new_value == "tailored"} == {"1"}
    assert {event.contract_version for event in events if event.new_value != "tailored"} == {""}
    with lend(visits.services.pool) as connection:
        assert verify(connection, visits.services.secret) == []


def test_a_version_without_a_text_is_refused(visits: Visits) -> None:
    with pytest.raises(BadRecipient, match=r"contract_version: unknown version of the contract; known: 1"):
        parse(person("c-1", contract_version="7"), NOON, None, ("1",))
    add_people(visits.services, person("c-1", offers={}))
    change = PreferenceChange("c-1", [Change("offer:own", "tailored")], "branch", "desk", contract_version="7")
    with pytest.raises(BadChoice, match="contract_version"):
        preferences.record(visits.services, visits.broker.publish, change)
    assert "offer:own" not in visits.values("c-1")


def test_the_api_takes_and_shows_the_accepted_version(database: str, tmp_path: Path) -> None:
    path, chosen = "/v1/recipients/c-1/preferences", {"offers": {"own": "tailored"}, "source": "branch", "actor": "desk"}
    with open_desk(database, tmp_path) as desk:
        add_people(desk.services, person("c-1", offers={}))
        wrong = desk.call("PUT", path, {**chosen, "contract_version": "7"})
        assert (wrong.status_code, "contract_version" in wrong.text) == (422, True)
        assert desk.call("PUT", path, chosen).json()["choices"]["offer:own"]["contract_version"] is None
        own = desk.call("PUT", path, {**chosen, "contract_version": "1"}).json()["choices"]["offer:own"]
        assert (own["contract_version"], own["dated"]) == ("1", True)
        line = json.dumps({**chosen, "recipient": "c-1", "contract_version": "1"}).encode()
        answer = desk.call("POST", "/v1/preferences/bulk", line, Content_Type="application/x-ndjson")
        assert json.loads(answer.text)["outcome"] == "unchanged"


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "error"),
    [
        ("1/de.toml", None, None, "1/de.toml: the file: is missing"),
        ("1/de.toml", "title", "titel", "1/de.toml: title: is missing"),
        ("1/nl.toml", "dated = 2026-12-01", 'dated = "soon"', "dated = 'soon': a date"),
        ("1/nl.toml", "{entity}", "{bank}", "no other placeholder than"),
        ("1/fr.toml", "[[sections]]", "[sections", "cannot be read as TOML"),
    ],
)
def test_a_wrong_text_is_named(tmp_path: Path, file: str, old: str | None, new: str, error: str) -> None:
    folder = copytree(SHIPPED_CONTRACTS, tmp_path / "contracts")
    if old is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text((folder / file).read_text().replace(old, new, 1))
    with pytest.raises(InvalidPolicy, match=re.escape(error)):
        read_contracts(folder)


def test_a_policy_names_a_version_that_has_a_text(visits: Visits) -> None:
    policy = visits.services.policy
    assert with_contracts(policy, shipped()).files.contract_versions == ("1",)
    with pytest.raises(InvalidPolicy, match=r"tailored_contract.version = '3'"):
        with_contracts(replace(policy, contract=ContractRules("3")), shipped())


def test_an_entity_may_have_a_text_of_its_own(tmp_path: Path) -> None:
    folder = copytree(SHIPPED_CONTRACTS, tmp_path / "contracts")
    copytree(SHIPPED_CONTRACTS / "1", folder / "1" / "kbc-insurance")
    own = folder / "1" / "kbc-insurance" / "en.toml"
    own.write_text(own.read_text().replace("Contract for tailored messages", "Contract of the insurer"))
    found = read_contracts(folder)
    titles = [text.title for entity in ("kbc-insurance", "kbc-bank") if (text := found.find("1", entity, "en"))]
    assert titles == ["Contract of the insurer", "Contract for tailored messages"]


def test_a_text_that_was_changed_in_place_is_found(visits: Visits) -> None:
    with lend(visits.services.pool) as connection:
        contract_texts.store(connection, shipped().rows(), NOON)
        contract_texts.store(connection, shipped().rows(), NOON)
        assert contract_texts.rewritten(connection) == []
        changed = [(*row[:3], "0" * 64, "other") for row in shipped().rows() if row[2] == "nl"]
        contract_texts.store(connection, changed, NOON)
        assert contract_texts.rewritten(connection) == [("1", "", "nl")]
