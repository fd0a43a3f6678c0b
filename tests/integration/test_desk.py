"""Find a person, and the desk: employees see and change choices in the customer's name, of customers of their entities only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from channels.base import Channel, Email, Sms
from dispatcher.consent import preferences
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.masking import masked_email, masked_phone, masked_token
from dispatcher.domain.preferences import Change
from dispatcher.domain.principal import Role
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter, AuditRow
from dispatcher.ledger.connection import lend
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.people import sign_in
from tests.support.services import Broker, add_people, make_services, outbox, person

HTML = {"Accept": "text/html"}
CHOSEN = {"offers": {"own": "standard", "partner": "none"}, "channels": {"email": True, "push": False, "sms_whatsapp": False}}
DESK, COMPLIANCE = (Role.DESK,), (Role.COMPLIANCE,)


class DeskFields(HTMLParser):
    """The fields of a page's forms, as a browser would send them, and the paths of the forms."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self.paths: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One field or form."""
        field = dict(attrs)
        if tag == "form":
            self.paths.append(field["action"] or "")
        if tag == "input" and (field.get("type") == "hidden" or "checked" in field):
            self.sent[field["name"] or ""] = field["value"] or ""


class Employee:
    """Somebody at the console, in a browser of their own."""

    def __init__(self, services: Services, broker: Broker, name: str, roles: tuple[Role, ...], entities: list[str] | None) -> None:
        self.client = TestClient(create(services, broker), base_url="https://x.example")
        self.id = f"user:{name}"
        self.form_token = sign_in(self.client, services, name, roles, entities)

    def get(self, path: str) -> Response:
        return self.client.get(path, headers=HTML)

    def post(self, path: str, **fields: str) -> Response:
        data = {"form_token": self.form_token, **fields}
        return self.client.post(path, data=data, headers=HTML, follow_redirects=False)

    def find(self, q: str, at: str = "/console/people") -> Response:
        return self.post(at, q=q)

    def form(self, customer: str = "anna", **changes: str | None) -> dict[str, str]:
        """The form of a desk call, with some fields changed; None clears one. Names have _ for : and -."""
        sent = DeskFields(self.get(f"/console/desk/{customer}").text).sent
        sent |= {"identity-check": "itsme", "source": "branch"}
        names = {"keep_off": "keep-off", "identity_check": "identity-check", "contract_read": "contract-read"}
        for name, value in changes.items():
            field = names.get(name) or name.replace("link_", "link-").replace("_", ":", 1)
            sent.pop(field, None)
            if value is not None:
                sent[field] = value
        return sent

    def save(self, form: dict[str, str], customer: str = "anna", act: str = "") -> Response:
        return self.client.post(f"/console/desk/{customer}{act}", data=form, headers=HTML)


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database) as made:
        add_people(made, person("anna", 1, language="fr", **CHOSEN), person("bert", 2, entities=["cbc-banque"]))
        yield made


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def agent(services: Services, broker: Broker) -> Employee:
    return Employee(services, broker, "dora", DESK, ["kbc-bank"])


@pytest.fixture
def officer(services: Services, broker: Broker) -> Employee:
    return Employee(services, broker, "carla", COMPLIANCE, None)


def chosen(services: Services, customer: str = "anna") -> dict[str, str]:
    return {subject: choice.value for subject, choice in preferences.show(services, customer).choices.items()}


def acts(services: Services, action: str, object_type: str) -> list[AuditRow]:
    rows = reversed(audit.page(services, AuditFilter(), None, 1_000))
    return [row for row in rows if (row.action, row.object_type) == (action, object_type) and row.outcome != "done"]


# -- find a person -----------------------------------------------------------------------------------------------------


def test_a_person_is_found_by_id_address_number_and_message(services: Services, broker: Broker, agent: Employee) -> None:
    agent.save(agent.form(link_channel="email"), act="/link")
    broker.work(services)
    message = re.search(r"/console/messages/([0-9-]+)", agent.get("/console/people/anna").text)
    assert message
    for text in ("anna", " ANNA@example.org ".lower(), "0470 00 00 01", "+32 470 00 00 01", message[1]):
        answer = agent.find(text)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/console/people/anna"), text
    assert agent.find("nobody").status_code == 200


def test_several_with_one_number_are_listed_with_masked_addresses(services: Services, agent: Employee) -> None:
    add_people(services, person("anja", 1))
    listed = agent.find("+32470000001").text
    assert "/console/people/anna" in listed
    assert "/console/people/anja" in listed
    assert "anna@example.org" not in listed
    assert "a…@example.org" in listed
    assert "+32 4•• •• •• 01" in listed


def test_a_desk_finds_no_customer_of_another_entity(agent: Employee, officer: Employee) -> None:
    unknown, foreign = agent.find("nobody").text, agent.find("bert").text
    assert foreign.replace("bert", "nobody") == unknown
    assert agent.find("bert@example.org").status_code == 200
    for path in ("/console/people/{}", "/console/desk/{}"):
        answers = [agent.get(path.format(name)) for name in ("bert", "nobody")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text == answers[1].text
    assert agent.post("/console/people/bert/addresses", reason="curious").status_code == 404
    assert officer.get("/console/people/bert").status_code == 200


def test_pages_of_people_need_the_right(services: Services, broker: Broker) -> None:
    marketer = Employee(services, broker, "max", (Role.MARKETER,), None)
    auditor = Employee(services, broker, "aude", (Role.AUDITOR,), None)
    assert [marketer.get(path).status_code for path in ("/console/people", "/console/people/anna", "/console/desk")] == [403] * 3
    assert auditor.get("/console/people/anna").status_code == 200
    assert auditor.get("/console/desk/anna").status_code == 403
    assert auditor.post("/console/people/anna/erasure", reason="no").status_code == 403
    assert auditor.post("/console/people/anna/export").status_code == 403


def test_addresses_are_shown_for_a_reason_that_is_recorded(services: Services, agent: Employee) -> None:
    page = agent.get("/console/people/anna").text
    assert "a…@example.org" in page
    assert "+32 4•• •• •• 01" in page
    assert "…anna" in page
    assert not re.search(r"anna@example|470000001|device-anna", page)
    assert agent.post("/console/people/anna/addresses", reason=" ").status_code == 422
    assert acts(services, "look", "addresses") == []
    assert "anna@example.org" in agent.post("/console/people/anna/addresses", reason="checks the spelling").text
    assert [(row.principal_id, row.recipient, row.reason) for row in acts(services, "look", "addresses")] == [
        (agent.id, "anna", "checks the spelling")
    ]


def test_a_search_is_recorded_without_the_address(services: Services, agent: Employee) -> None:
    agent.find("anna@example.org")
    row = acts(services, "search", "recipients")[-1]
    assert row.detail == {"found": ["anna"]}
    assert "example.org" not in str(row)


def test_the_page_shows_history_messages_and_inbound_texts(services: Services, broker: Broker, agent: Employee) -> None:
    agent.save(agent.form(offer_own="none"))
    broker.work(services)
    with lend(services.pool) as connection:
        connection.execute(
            "INSERT INTO inbound_texts (id, channel, address_key, recipients, meaning, words, received_at)"
            " VALUES ('SM1', 'sms', 'x', '{anna}', 'unclear', 'is this really you?', now())"
        )
    page = agent.get("/console/people/anna").text
    assert "offer:own" in page
    assert agent.id in page
    assert "desk 2 fr" in page
    assert "optout_acknowledgement" in page
    assert "?language=fr" in page
    assert "is this really you?" in page
    operator = Employee(services, broker, "otto", (Role.OPERATOR,), None)
    assert "is this really you?" not in operator.get("/console/people/anna").text


def test_an_export_for_an_access_request_is_recorded(services: Services, agent: Employee, officer: Employee) -> None:
    assert agent.post("/console/people/anna/export").status_code == 403
    answer = officer.post("/console/people/anna/export")
    assert answer.headers["content-disposition"] == 'attachment; filename="anna.json"'
    assert json.loads(answer.text)["email"] == "anna@example.org"
    assert [row.recipient for row in acts(services, "export", "recipient")] == ["anna"]


def test_an_erasure_needs_two_people_and_the_password_again(
    services: Services, broker: Broker, agent: Employee, officer: Employee
) -> None:
    assert officer.post("/console/people/anna/erasure", reason="asked by letter").status_code == 303
    assert officer.post("/console/people/anna/erasure/approve").status_code == 403  # requested it
    assert agent.post("/console/people/anna/erasure/approve").status_code == 403  # lacks the right
    second = Employee(services, broker, "cleo", COMPLIANCE, None)
    assert "asked by letter" in second.get("/console/people").text
    services.clock.pass_(601)  # type: ignore[attr-defined]
    answer = second.post("/console/people/anna/erasure/approve")
    assert answer.headers["location"] == "/console/confirm?to=/console/people/anna"
    with lend(services.pool) as connection:
        connection.execute("UPDATE sessions SET confirmed_at = %s", (services.clock(),))
    assert second.post("/console/people/anna/erasure/approve").status_code == 303
    page = second.get("/console/people/anna").text
    assert "Erased on" in page
    assert "example.org" not in page
    assert second.post("/console/people/anna/erasure/approve").status_code == 409


def test_a_rejected_erasure_changes_nothing(services: Services, agent: Employee, officer: Employee) -> None:
    agent.post("/console/people/anna/erasure", reason="asked by phone")
    assert officer.post("/console/people/anna/erasure/reject").status_code == 303
    page = officer.get("/console/people/anna").text
    assert "Request erasure" in page
    assert "a…@example.org" in page
    assert chosen(services)["offer:own"] == "standard"


@pytest.mark.parametrize(
    ("number", "shown"),
    [("+32470123412", "+32 4•• •• •• 12"), ("+4915112345678", "+49 1•• •• •• •• 78"), ("+3212", "••12"), ("12", "12")],
)
def test_a_masked_number_shows_its_last_two_digits(number: str, shown: str) -> None:
    assert masked_phone(number) == shown


def test_masked_addresses_and_tokens_cannot_be_used() -> None:
    assert masked_email("a@example.org") == "a…@example.org"
    assert masked_token("short") == "…"
    assert masked_token("0123456789abcdef") == "…cdef"


# -- the desk ----------------------------------------------------------------------------------------------------------


def test_a_choice_is_changed_in_the_customers_name(services: Services, agent: Employee) -> None:
    answer = agent.save(agent.form(offer_partner="standard", identity_check="identity_card"))
    assert answer.status_code == 200
    assert 'role="status"' in answer.text
    event = preferences.history(services, "anna")[-1]
    assert (event.subject, event.new_value, event.source, event.actor) == ("offer:partner", "standard", "branch", agent.id)
    [row] = acts(services, "change", "preferences")
    assert (row.principal_id, row.recipient, row.outcome) == (agent.id, "anna", "begun")
    assert row.detail == {"identity_check": "identity_card", "source": "branch", "subjects": ["offer:partner"]}
    auditor = Employee(services, Broker(), "aude", (Role.AUDITOR,), None)
    assert "identity checked: identity card" in auditor.get("/console/audit").text


def test_an_opt_out_at_the_desk_is_acknowledged(services: Services, broker: Broker, agent: Employee) -> None:
    agent.save(agent.form(offer_own="none"))
    broker.work(services)
    [mail] = outbox(services).sent
    assert isinstance(mail.content, Email)
    assert mail.address == "anna@example.org"


def test_tailored_needs_the_contract_read_out(services: Services, agent: Employee) -> None:
    form = agent.form(offer_own="tailored")
    refused = agent.save(form)
    assert refused.status_code == 422
    assert chosen(services)["offer:own"] == "standard"
    assert 'value="tailored" checked' in refused.text  # nothing has to be typed twice
    assert "<details open>" in refused.text  # the contract, with the focus on its box
    answer = agent.save({**form, "contract-read": "on"})
    assert answer.status_code == 200
    events = preferences.history(services, "anna")
    version = services.policy.contract.version
    assert [e.contract_version for e in events if e.new_value == "tailored"] == [version]
    assert {chosen(services)[f"channel:{each}"] for each in ("email", "push", "sms_whatsapp")} == {"on"}


def test_the_contract_in_force_can_be_read_out_in_french(services: Services, agent: Employee) -> None:
    text = services.contracts.find(services.policy.contract.version, "kbc-bank", "fr")
    assert text
    page = agent.get("/console/desk/anna").text
    assert text.sections[0].heading.split("{")[0] in page.replace("&#39;", "'")
    assert 'lang="fr"' in page


def test_nothing_is_done_before_the_identity_is_checked(services: Services, agent: Employee) -> None:
    for changes in ({"identity_check": None}, {"identity_check": "knows her face"}, {"source": "preference_centre"}):
        assert agent.save(agent.form(offer_own="none", **changes)).status_code == 422
        assert agent.save(agent.form(link_channel="email", **changes), act="/link").status_code == 422
    assert chosen(services)["offer:own"] == "standard"
    assert acts(services, "change", "preferences") == acts(services, "add", "preference_link") == []


def test_a_choice_that_changed_meanwhile_is_shown_and_kept(services: Services, agent: Employee) -> None:
    form = agent.form(offer_own="tailored", contract_read="on")
    preferences.record(services, Broker().publish, PreferenceChange("anna", [Change("offer:own", "none")], "mobile", "app"))
    answer = agent.save(form)
    assert answer.status_code == 409
    assert "(23 novembre 2026, dans notre application)" in re.sub(r"\s+", " ", answer.text)
    assert chosen(services)["offer:own"] == "none"


def test_a_form_of_another_customer_is_refused(services: Services, agent: Employee) -> None:
    add_people(services, person("cara", 3))
    assert agent.save(agent.form("anna", offer_own="none"), customer="cara").status_code == 400
    assert chosen(services, "cara")["offer:own"] == "tailored"


def test_a_link_goes_by_the_channel_that_the_customer_chooses(services: Services, broker: Broker, agent: Employee) -> None:
    agent.save(agent.form(objection_marketing="on"))
    broker.dues.clear()
    form = agent.form(link_channel="sms")
    assert "•• •• 01" in agent.save(form, act="/link").text
    agent.save(form, act="/link")  # the same page again is the same request
    broker.work(services)
    [sms] = outbox(services, Channel.SMS).sent
    assert isinstance(sms.content, Sms)
    link = re.search(r"https://dispatcher\.example(/p/\S+)", sms.content.text)
    assert link
    assert agent.client.get(link[1]).status_code == 200
    [first, _] = acts(services, "add", "preference_link")
    assert (first.recipient, first.detail) == ("anna", {"identity_check": "itsme", "source": "branch", "channel": "sms"})


def test_a_link_is_not_sent_over_unsaved_choices(services: Services, broker: Broker, agent: Employee) -> None:
    answer = agent.save(agent.form(link_channel="email", offer_own="none"), act="/link")
    assert answer.status_code == 422
    assert not broker.dues
    assert chosen(services)["offer:own"] == "standard"


def test_the_desk_remembers_language_and_place(agent: Employee) -> None:
    assert 'lang="nl"' in agent.get("/console/desk?language=nl").text
    agent.save(agent.form(source="live"))
    page = agent.get("/console/desk/anna").text
    assert "Klant" in page
    assert 'name="source" value="live" required checked' in page


def test_forms_of_another_site_are_refused(services: Services, agent: Employee) -> None:
    stolen: dict[str, Any] = {**agent.form(offer_own="none"), "form_token": "0" * 64}
    assert agent.save(stolen).status_code == 403
    for path in ("/console/people", "/console/people/anna/export", "/console/people/anna/erasure", "/console/desk"):
        assert agent.client.post(path, data={"q": "anna", "reason": "x"}, headers=HTML).status_code == 403
    assert chosen(services)["offer:own"] == "standard"
