"""The console's menu: it leads each role to pages that open."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from channels.alerts import alert, set_alert_sink
from dispatcher.domain.principal import Role
from dispatcher.runtime.alert_sink import alert_sink
from dispatcher.web.app import create
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
