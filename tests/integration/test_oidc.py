"""Sign-in with an identity provider: the code flow, what is checked, and what groups give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from httpx2 import Response
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import Role, person
from dispatcher.identity import oidc_device, users
from dispatcher.identity.oidc import SignInFailed
from dispatcher.runtime.environment import EnvironmentReader
from dispatcher.runtime.oidc_settings import read_oidc
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, oidc_provider
from tests.support.people import add_user
from tests.support.services import Broker, Clock, make_services

GROUPS = "kbc-approvers=approver@kbc-bank; kbc-desk=desk@kbc-assurances; audit=auditor"
PAGE = {"Accept": "text/html"}


class Browser:
    """A browser, the program and the provider."""

    def __init__(self, services: Services, clock: Clock, client: TestClient, provider: OidcProvider) -> None:
        self.services, self.clock, self.client, self.provider = services, clock, client, provider

    def begin(self, query: str = "") -> str:
        answer = self.client.get(f"/console/oidc{query}", follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def come_back(self, url: str) -> Response:
        return self.client.get(url, headers=PAGE, follow_redirects=False)

    def sign_in(self, query: str = "", **claims: Any) -> Response:
        self.provider.claims = claims
        return self.come_back(self.provider.sign_in(self.begin(query)))

    def who(self) -> tuple[list[str], list[str] | None]:
        found = users.find(self.services, "jana")
        return found.roles, found.entities


@pytest.fixture
def browser(database: str) -> Iterator[Browser]:
    clock = Clock()
    with oidc_provider(clock) as provider, make_services(database, clock) as made:
        settings = {"ISSUER": provider.issuer, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": "x", "GROUPS": GROUPS}
        read = EnvironmentReader({f"DISPATCHER_OIDC_{name}": value for name, value in settings.items()})
        config = read_oidc(read)
        assert config is not None
        services = replace(made, oidc=replace(config, client_secret=CLIENT_SECRET), public_url="https://x.example")
        with TestClient(create(services, Broker()), base_url="https://x.example") as client:
            yield Browser(services, clock, client, provider)


def test_a_person_signs_in_and_gets_the_roles_of_the_groups(browser: Browser) -> None:
    assert "Sign in with your company account" in browser.client.get("/console/login").text
    answer = browser.sign_in("?to=/console/templates")
    assert answer.status_code == 200
    assert 'content="0; url=/console/templates"' in answer.text
    cookies = answer.headers.get_list("set-cookie")
    assert [each.partition("=")[0] for each in cookies] == ["dispatcher_console", "dispatcher_browser", "dispatcher_oidc"]
    assert browser.client.get("/console/templates").status_code == 200
    assert browser.who() == (["approver"], ["kbc-bank"])
    browser.sign_in(groups=["kbc-approvers", "kbc-desk"])
    assert browser.who() == (["approver", "desk"], ["kbc-assurances", "kbc-bank"])
    browser.sign_in(groups=["kbc-desk", "audit"])
    assert browser.who() == (["auditor", "desk"], None)


def test_a_deep_link_keeps_its_query_at_the_provider(browser: Browser) -> None:
    answer = browser.sign_in("?to=/console/audit%3Fwho%3Duser:jana%26since%3D2026-11-01")
    assert 'content="0; url=/console/audit?who=user:jana&amp;since=2026-11-01"' in answer.text
    assert 'url=/console"' in browser.sign_in("?to=//e.example/console%3Fa%3D1").text


@pytest.mark.parametrize("groups", [["staff"], [], None, "audit", {"audit": 1}, ["AUDIT"]])
def test_without_a_known_group_there_is_no_access(browser: Browser, groups: Any) -> None:
    answer = browser.sign_in(groups=groups)
    assert answer.status_code == 403
    assert "in no group that gives a role here" in answer.text
    assert browser.client.get("/console", follow_redirects=False).status_code == 303
    assert users.every(browser.services) == []


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-client"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"sub": None},
        {"exp": 1},
        {"exp": None},
        {"iat": 9_999_999_999},
    ],
)
def test_a_token_that_is_not_for_this_sign_in_is_refused(browser: Browser, claims: dict[str, Any]) -> None:
    answer = browser.sign_in(**claims)
    assert (answer.status_code, "dispatcher_console" in str(answer.headers)) == (403, False)
    assert users.every(browser.services) == []


def test_a_token_with_another_key_is_refused(browser: Browser) -> None:
    browser.provider.key = RSAKey.generate_key(2048)
    assert browser.sign_in().status_code == 403


def test_an_answer_without_its_browser_is_refused(browser: Browser) -> None:
    back = browser.provider.sign_in(browser.begin())
    other = browser.provider.sign_in(browser.begin())  # replaces the cookie of the first
    assert browser.come_back(back).status_code == 403
    assert browser.come_back(other).status_code == 200
    assert browser.come_back(other).status_code == 403  # the cookie is gone, and the code is used up
    late = browser.provider.sign_in(browser.begin())
    browser.clock.pass_(601)
    assert browser.come_back(late).status_code == 403
    assert browser.come_back("/console/oidc/callback?error=access_denied").status_code == 403


def test_nobody_gets_the_account_of_another(browser: Browser) -> None:
    add_user(browser.services, "jana", [Role.ADMIN])
    assert browser.sign_in().status_code == 403
    assert browser.sign_in(preferred_username="local", sub="2").status_code == 403
    assert browser.sign_in(preferred_username="jana.maes", sub="3").status_code == 200
    assert browser.sign_in(preferred_username="jana", sub="3").status_code == 200  # the id stays
    assert [each.id for each in users.every(browser.services)] == ["user:jana", "user:jana.maes"]
    admin = person("user:jana", "Jana", [Role.ADMIN])
    users.set_disabled(browser.services, "jana.maes", True, admin)
    assert browser.sign_in(preferred_username="jana", sub="3").status_code == 403


def test_a_release_needs_a_new_sign_in_at_the_provider(browser: Browser) -> None:
    browser.sign_in(auth_time=int(browser.clock().timestamp()) - 3_600)  # signed in there an hour ago
    asked = browser.client.get("/console/confirm?to=/console/templates", follow_redirects=False)
    assert asked.headers["location"] == "/console/oidc?again=true&to=/console/templates"
    hour_ago = int(browser.clock().timestamp()) - 3_600
    assert browser.sign_in("?again=true", auth_time=hour_ago).status_code == 403
    assert browser.provider.asked[-1]["prompt"] == "login"
    assert browser.sign_in("?again=true").status_code == 200


def test_bad_settings_are_named() -> None:
    environ = {"DISPATCHER_OIDC_ISSUER": "http://idp.example", "DISPATCHER_OIDC_GROUPS": "a=king; b=desk@; =admin"}
    read = EnvironmentReader(environ)
    read_oidc(read)
    assert len(read.faults) == 6


# -- devices (RFC 8628) ------------------------------------------------------------------------------------------------


def device(browser: Browser, *errors: str, **answer: Any) -> tuple[str, list[float]]:
    """Sign in on a machine without a browser: who it was, and how long the program waited between its questions."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        browser.clock.pass_(seconds)

    browser.provider.errors, browser.provider.device = list(errors), answer
    services = replace(browser.services, sleep=sleep)
    assert services.oidc is not None
    grant = oidc_device.begin(services, services.oidc)
    assert (grant.url, grant.code) == (f"{browser.provider.issuer}/device", "WDJB-MJHT")
    user, proved_at = oidc_device.wait(services, services.oidc, grant)
    assert proved_at == browser.clock()
    return user, waits


def test_a_device_asks_no_faster_than_the_provider_says(browser: Browser) -> None:
    pending = "authorization_pending"
    assert device(browser, pending, pending) == ("user:jana", [5.0, 5.0, 5.0])
    assert device(browser, pending, "slow_down", pending, "slow_down", interval=2)[1] == [2.0, 2.0, 7.0, 7.0, 12.0]
    assert device(browser, interval=None)[1] == [5.0]
    assert browser.who() == (["approver"], ["kbc-bank"])


@pytest.mark.parametrize(
    ("error", "says"), [("access_denied", "refused"), ("expired_token", "in time"), ("invalid_client", "did not sign you in")]
)
def test_a_device_that_is_refused_is_told_why(browser: Browser, error: str, says: str) -> None:
    with pytest.raises(SignInFailed, match=says):
        device(browser, "authorization_pending", error)


def test_a_device_stops_to_ask_when_its_code_has_expired(browser: Browser) -> None:
    with pytest.raises(SignInFailed, match="in time"):
        device(browser, *["authorization_pending"] * 100, expires_in=60)
    assert len(browser.provider.errors) == 100 - 12


def test_a_token_for_another_client_signs_no_device_in(browser: Browser) -> None:
    for claims in ({"aud": "other"}, {"iss": "https://other.example"}, {"exp": 1}):
        browser.provider.claims = claims
        with pytest.raises(SignInFailed):
            device(browser)
    browser.provider.claims = {"groups": ["nobody"]}
    with pytest.raises(NotAllowed):
        device(browser)


def test_a_provider_that_is_away_is_named_and_lets_nobody_in(browser: Browser) -> None:
    assert browser.services.oidc is not None
    away = replace(browser.services, oidc=replace(browser.services.oidc, issuer="http://127.0.0.1:1"))
    with TestClient(create(away, Broker()), base_url="https://x.example") as client:
        answer = client.get("/console/oidc", headers=PAGE, follow_redirects=False)
    assert answer.status_code == 502
    assert "identity provider does not answer" in answer.text, answer.text
