"""Template versions by digest: every process sends what was accepted, without a restart, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolClosed
from starlette.testclient import TestClient

from channels.alerts import set_alert_sink
from channels.base import Channel, Sms
from dispatcher.campaigns import submission, template_approval
from dispatcher.content import Catalog
from dispatcher.delivery.explanation import explain_message
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import Kind
from dispatcher.domain.message_id import MessageId
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_folder import LOOK_SECONDS, TemplateFolder
from dispatcher.runtime.template_versions import TemplateVersions
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.services import TEMPLATES, Broker, Clock, add_people, load_edited, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, person("c-1", 1), person("c-2", 2))
        yield made


@pytest.fixture
def alerts() -> Iterator[list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []
    set_alert_sink(lambda provider, code, _: heard.append((provider, code)))
    yield heard
    set_alert_sink(lambda *_: None)


def without_templates(services: Services) -> Services:
    """The same on a host whose folder holds none of these templates."""
    return replace(services, catalog=Catalog({}), versions=TemplateVersions(lambda: 0.5))


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The shipped templates but for the text of the loan offer's SMS."""
    folder = tmp_path_factory.mktemp("texts") / "templates"
    copytree(TEMPLATES, folder)
    edit(folder)
    return load_edited(folder)


def edit(folder: Path) -> None:
    texts = folder / "loan_offer" / "en" / "texts.toml"
    texts.write_text(texts.read_text(encoding="utf-8").replace("[sms]\ntext = '''", "[sms]\ntext = '''Autumn! "))


def submit(services: Services, campaign_id: str = "spring") -> None:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in ("c-1", "c-2")]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["sms"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def trigger(services: Services, template: str = "loan_offer", **data: Any) -> tuple[int, int]:
    job = {"key": "k-1", "recipient": "c-1", "template": template, "data": data or OFFER}
    place = submission.take_trigger(services, parse_trigger(job, submission.validation_context(services)))
    return place.period, place.chunk


@contextmanager
def owner_of(database: str) -> Iterator[psycopg.Connection]:
    """The owner, whom only a trigger stops from changing a source."""
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE template_sources DISABLE TRIGGER ALL")
        yield connection


# What may be wrong with a source, and what the note says.
SPOILT = {
    "gone": ("DELETE FROM template_sources", "the ledger does not have its source"),
    "altered": (
        """UPDATE template_sources SET files = files || jsonb_build_object('loan_offer/en/texts.toml',
           replace(files->>'loan_offer/en/texts.toml', 'loan', 'gift'))""",
        "its source has another digest",
    ),
    "faulty": (
        "UPDATE template_sources SET files = files || jsonb_build_object('loan_offer/en/texts.toml', '')",
        "loan_offer/en/texts.toml:1",
    ),
}


def test_a_host_with_another_folder_sends_what_was_approved(services: Services, edited: Catalog) -> None:
    submit(services)
    later = replace(services, catalog=edited)
    template_approval.set_approval(later, "loan_offer", True, "Bart")
    submit(later, "summer")
    for host in (without_templates(services), later, services):
        work(host)
    texts = [message.content.text for message in outbox(services, Channel.SMS).sent if isinstance(message.content, Sms)]
    assert ["Autumn" in text for text in texts] == [False, False, True, True]
    assert (states(services), states(services, "summer")) == ({"accepted": 2}, {"accepted": 2})


def test_a_service_message_is_stored_when_it_is_accepted(services: Services) -> None:
    run_chunk(without_templates(services), *trigger(services, "optout_acknowledgement", scope="email"))
    assert len(outbox(services).sent) == 1


def test_a_source_is_stored_by_an_approval_and_by_a_submission(services: Services) -> None:
    def stored() -> list[str]:
        with lend(services.pool) as connection:
            return [name for (name,) in connection.execute("SELECT template FROM template_sources ORDER BY 1")]

    approved = stored()  # those that need an approval, and have it
    assert approved == sorted(name for name, each in services.catalog.items() if each.info.kind is Kind.COMMERCIAL)
    form = {"id": "spring", "template": "optout_acknowledgement", "audience": [{"recipient": "c-1", "data": {}}]}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))
    assert stored() == sorted([*approved, "optout_acknowledgement"])
    work(without_templates(services))
    assert states(services) == {"accepted": 1}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_version_that_cannot_be_loaded_pauses_the_campaign_with_a_note_and_an_alert(
    services: Services, database: str, alerts: list[tuple[str, str]], fault: str
) -> None:
    statement, says = SPOILT[fault]
    submit(services)
    with owner_of(database) as owner:
        owner.execute(statement.encode())
    work(without_templates(services))
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert (campaign.state, states(services)) == (CampaignState.PAUSED, {"pending": 2})
    digest = services.catalog["loan_offer"].digest
    assert campaign.note.startswith(f"paused itself: the approved version {digest[:12]} of loan_offer can't be loaded: {says}")
    assert alerts == [("templates", "unavailable")]


def test_a_campaign_of_before_versions_pauses_too_where_the_folder_has_no_such_template(
    services: Services, alerts: list[tuple[str, str]]
) -> None:
    submit(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET template_digests = '{}'")
    work(without_templates(services))
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert (campaign.state, campaign.note) == (CampaignState.PAUSED, "paused itself: there is no template loan_offer")
    assert alerts == [("templates", "unavailable")]


def test_a_trigger_whose_version_cannot_be_loaded_is_refused_and_says_so(
    services: Services, database: str, alerts: list[tuple[str, str]]
) -> None:
    period, chunk = trigger(services)
    with owner_of(database) as owner:
        owner.execute("DELETE FROM template_sources")
    run_chunk(without_templates(services), period, chunk)
    with lend(services.pool) as connection:
        message = messages.find(connection, MessageId(period, chunk, 0))
        assert message is not None
        told = explain_message(connection, services.policy, message, "en")
        assert connection.execute("SELECT done_at FROM chunks").fetchone() != (None,)
    assert (message.state, message.reason) == ("refused", "fault")
    assert message.decision["content"]["where"].endswith("can't be loaded: the ledger does not have its source")
    assert told.why
    assert alerts == [("templates", "unavailable")]


def test_a_version_in_memory_costs_no_statement(services: Services) -> None:
    loan = services.catalog["loan_offer"]
    submit(services)
    versions, asked = TemplateVersions(), {"loan_offer": loan.digest}
    found = versions.load(services.pool, services.policy, Catalog({}), asked)[loan.digest]
    assert (found.digest, found.source) == (loan.digest, loan.source)
    services.pool.close()
    with pytest.raises(PoolClosed):
        services.pool.getconn()
    assert versions.load(services.pool, services.policy, Catalog({}), asked)[loan.digest] is found


@pytest.mark.parametrize("statement", ["UPDATE template_sources SET template = 'x'", "DELETE FROM template_sources"])
def test_nobody_rewrites_a_source(services: Services, database: str, statement: str) -> None:
    with psycopg.connect(database) as owner, pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        owner.execute(statement.encode())
    with lend(services.pool) as worker, pytest.raises(psycopg.errors.InsufficientPrivilege):
        worker.execute(statement.encode())


def test_a_web_process_knows_an_edited_template_without_a_restart(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "templates"
    copytree(TEMPLATES, folder)
    seconds = 0.0
    followed = TemplateFolder(folder, services.policy, services.catalog, None, lambda: seconds)
    key, line = new_key("Bart", ["templates"])
    (tmp_path / "keys.toml").write_text(line)
    application = create(replace(services, folder=followed), Broker(), read_keys(tmp_path / "keys.toml"))
    with TestClient(application, base_url="https://dispatcher.example", headers={"Authorization": f"Bearer {key}"}) as client:

        def listed() -> dict[str, Any]:
            templates = client.get("/v1/templates").json()["templates"]
            return {each["name"]: (each["digest"], each["standing"]) for each in templates}

        before = listed()
        edit(folder)
        seconds += LOOK_SECONDS
        after = listed()
        answer = client.post("/v1/templates/loan_offer/approve", json={"digest": after["loan_offer"][0]})
    assert {name for name in before if before[name] != after[name]} == {"loan_offer"}
    assert (after["loan_offer"][1], answer.json()["standing"]) == ("waiting", "approved")
