"""The console's menu: it leads each role to pages that open."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from channels.alerts import alert, set_alert_sink
from dispatcher.domain.principal import Role, person
from dispatcher.runtime.alert_sink import alert_sink
from dispatcher.web.app import create
from dispatcher.web.console.menu import menu
from dispatcher.web.console.translation import texts
from tests.support.people import sign_in
from tests.support.services import Broker, make_services

ACT_ON_ALERTS = {Role.COMPLIANCE, Role.OPERATOR, Role.ADMIN, Role.AUDITOR}


@pytest.mark.parametrize("entities", [None, ["cbc-banque"]], ids=["all", "one entity"])
def test_no_link_of_the_first_page_is_refused(database: str, entities: list[str] | None) -> None:
    """For each role. The alarms of providers are shown to those who can act on them."""
    with make_services(database) as services:
        set_alert_sink(alert_sink(services.pool, services.clock))
        try:
            alert("twilio", "30007")
        finally:
            set_alert_sink(lambda *_: None)
        for role in Role:
            client = TestClient(create(services, Broker()), base_url="https://x.example")
            sign_in(client, services, f"p-{role}", [role], entities)
            text = client.get("/console").text
            assert ("30007" in text) is (role in ACT_ON_ALERTS), role
            for path in sorted(set(re.findall(r'href="(/console[^"#?]*)"', text))):
                assert client.get(path).status_code == 200, (role, path)


def test_who_makes_campaigns_has_no_pages_of_other_systems_in_the_menu() -> None:
    technical = {"/console/webhooks", "/console/refused-jobs"}
    for role in Role:
        paths = {path for path, _ in menu(person("user:x", "x", [role]))}
        assert (technical <= paths) is (role in ACT_ON_ALERTS), role
        assert technical.isdisjoint(paths) is (role not in ACT_ON_ALERTS), role
        assert "/console" in paths


@pytest.mark.parametrize(("language", "title"), [("nl", "Van rekenblad naar campagne"), ("de", "Von der Tabelle zur Kampagne")])
def test_the_guide_speaks_the_readers_language(database: str, language: str, title: str) -> None:
    with make_services(database) as services:
        client = TestClient(create(services, Broker()), base_url="https://x.example", headers={"Accept-Language": language})
        sign_in(client, services, "mia", [Role.MARKETER])
        text = client.get("/console/help").text
        assert title in text
        assert f"<b>{gettext_in(language, 'Submit the campaign')}</b>" in text
        assert not re.search(r"[{}]", text[text.index("<main") :])
        assert 'href="/console/help"' in client.get("/console").text


def gettext_in(language: str, message: str) -> str:
    return texts(language)[("", message)][0]
