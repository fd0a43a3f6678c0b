"""People sign in: passwords, one-time codes, the pause after failures, sessions, roles and entities."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pyotp
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.domain.errors import NotAllowed, SignInNeeded
from dispatcher.domain.principal import Role, person
from dispatcher.identity import users
from dispatcher.identity.sessions import IDLE_SECONDS, RECENT_SECONDS, SESSION_SECONDS
from dispatcher.identity.users import NewUser
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services
from dispatcher.web.app import create
from tests.support.people import add_user, sign_in
from tests.support.services import Broker, Clock, make_services

PASSWORD = "correct horse battery"
PAGE = {"Accept": "text/html"}


class SignInDesk:
    """A browser, and the program behind it. Jana has a password and all roles."""

    def __init__(self, services: Services, clock: Clock, client: TestClient) -> None:
        self.services, self.clock, self.client = services, clock, client

    def enter(self, name: str = "jana", password: str = PASSWORD, code: str = "", to: str = "", **cookies: str) -> Response:
        """Sign in with a browser that has these cookies alone."""
        self.client.cookies.clear()
        self.client.cookies.update(cookies)
        data = {"name": name, "password": password, "code": code, "to": to}
        return self.client.post("/console/login", data=data, follow_redirects=False)

    def status(self, path: str = "/console") -> int:
        return self.client.get(path, headers=PAGE, follow_redirects=False).status_code

    def token(self, path: str = "/console") -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{64})"', self.client.get(path, headers=PAGE).text)
        assert found
        return found[1]

    def post(self, path: str, token: str, **fields: str) -> Response:
        return self.client.post(path, data={"form_token": token, **fields}, headers=PAGE, follow_redirects=False)


@pytest.fixture
def desk(database: str) -> Iterator[SignInDesk]:
    clock = Clock()
    with make_services(database, clock) as services, TestClient(create(services, Broker()), base_url="https://x.example") as client:
        add_user(services, "jana", password=PASSWORD)
        yield SignInDesk(services, clock, client)


def test_a_password_opens_the_console_in_a_guarded_cookie(desk: SignInDesk) -> None:
    assert [desk.enter(password="wrong").status_code, desk.enter(name="nobody").status_code] == [403, 403]
    assert desk.client.post("/console/login", data={"name": "\0\ud7ff", "password": "\0"}).status_code == 403
    answer = desk.enter(name=" JANA ")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    assert all(part in answer.headers["set-cookie"] for part in ("HttpOnly", "SameSite=strict", "Secure", "Path=/console"))
    assert ">jana</a>" in desk.client.get("/console").text


ELSEWHERE = (
    *("https://e.example", "//e.example", "/console/../v1", "/console//e", "javascript:x", "/console\n", "/console/\\e.example"),
    *(
        "https://e.example/console?a=1",
        "//e.example?/console",
        "?/console",
        "/consolee?a=1",
        "/console@e.example?a=1",
        "/v1?/console",
    ),
    *("/\\e.example/console?a=1", " /console?a=1", "/console\t?a=1", "/console/%2e%2e/v1?a=1", "/console/;//e?a=1"),
)


@pytest.mark.parametrize("to", ELSEWHERE)
def test_signing_in_leads_nowhere_else(desk: SignInDesk, to: str) -> None:
    assert desk.enter(to=to).headers["location"] == "/console"


WRONG_QUERIES = ("a=1\r\nLocation: //e.example", "a=1\n", 'a="><script>', "a='", "a=1#b", "a=%zz", "a=\u2028", "a=" + "x" * 1_000)


@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_a_query_that_no_browser_sends_is_left_out(desk: SignInDesk, query: str) -> None:
    assert desk.enter(to=f"/console/search?{query}").headers["location"] == "/console/search"


@pytest.mark.parametrize(
    "link",
    [
        "/console/search?q=spring%20loan",
        "/console/audit?who=user:jana&since=2026-11-01&object_id=",
        "/console/templates/loan_offer?channel=email&language=nl&mode=tailored",
        "/console/campaigns/spring/results?by=language&step=hour",
    ],
)
def test_a_deep_link_keeps_its_query_at_the_sign_in(desk: SignInDesk, link: str) -> None:
    asked = desk.client.get(link, headers=PAGE, follow_redirects=False)
    page = desk.client.get(asked.headers["location"], headers=PAGE).text
    field = re.search(r'name="to" value="([^"]*)"', page)
    assert field
    assert desk.enter(to=html.unescape(field[1])).headers["location"] == link


def test_failures_are_slowed_by_address_and_name(desk: SignInDesk) -> None:
    assert [desk.enter(f"guess-{number}").status_code for number in range(7)] == [403] * 5 + [429] * 2
    desk.clock.pass_(61)
    assert desk.enter().status_code == 303
    with lend(desk.services.pool) as connection:
        (noted,) = [each for each in alerts.newest(connection) if each.provider == "console"]
        rows = connection.execute("SELECT f::text FROM sign_in_failures f").fetchall()
    assert noted.code == "sign_in_failures"
    assert "somebody guesses" in desk.client.get("/console", headers=PAGE).text
    assert not any("testclient" in text or "jana" in text for (text,) in rows)


def test_who_signed_in_before_is_not_locked_out_by_others(desk: SignInDesk) -> None:
    desk.enter()
    browser = desk.client.cookies["dispatcher_browser"]
    assert [desk.enter(password="guess").status_code for _ in range(6)] == [403] * 5 + [429]
    assert desk.enter(dispatcher_browser=browser).status_code == 303
    assert desk.enter(password="guess", dispatcher_browser=browser).status_code == 429
    assert desk.enter(dispatcher_browser="x").status_code == 429


def test_a_one_time_code_is_taken_once(desk: SignInDesk) -> None:
    enrolment = users.enrol_totp(desk.services, "jana")
    code = pyotp.TOTP(enrolment.secret).at(desk.clock.now)
    assert [desk.enter(code=each).status_code for each in ("", "000000", code, code)] == [403, 403, 303, 403]
    desk.clock.pass_(30)
    assert desk.enter(code=pyotp.TOTP(enrolment.secret).at(desk.clock.now)).status_code == 303
    recovery = enrolment.recovery_codes[3]
    assert [desk.enter(code=each).status_code for each in (recovery.upper(), recovery)] == [303, 403]
    with lend(desk.services.pool) as connection:
        (text,) = connection.execute("SELECT u::text FROM users u").fetchone() or ("",)
    assert not any(secret in text for secret in (enrolment.secret, *enrolment.recovery_codes, PASSWORD))


def test_a_session_ends_idle_by_age_by_logout_and_when_disabled(desk: SignInDesk) -> None:
    desk.enter()
    for _ in range(SESSION_SECONDS // 1500):
        desk.clock.pass_(1500)  # used every 25 minutes
        assert desk.status() == (200 if desk.clock.now < Clock().now + timedelta(seconds=SESSION_SECONDS) else 303)
    desk.clock.pass_(1500)
    assert desk.status() == 303
    desk.enter()
    desk.clock.pass_(IDLE_SECONDS)
    assert desk.status() == 303
    desk.enter()
    copied = dict(desk.client.cookies)
    assert desk.post("/console/logout", desk.token()).headers["location"] == "/console/login"
    desk.client.cookies.update(copied)
    assert desk.status() == 303
    desk.enter()
    users.set_disabled(desk.services, "jana", True, person("user:bart", "Bart", [Role.ADMIN]))
    assert (desk.status(), desk.enter().status_code) == (303, 403)


def test_a_page_that_updates_itself_does_not_keep_a_session_alive(desk: SignInDesk) -> None:
    desk.enter()
    for _ in range(IDLE_SECONDS // 300 - 1):
        desk.clock.pass_(300)
        answer = desk.client.get("/console", headers={"X-Automatic": "1"}, follow_redirects=False)
        assert answer.status_code == 200
    desk.clock.pass_(300)
    assert desk.status() == 303


def test_a_given_password_is_changed_at_the_first_sign_in(desk: SignInDesk) -> None:
    admin = users.principal_of(users.find(desk.services, "jana"))
    given = users.add(desk.services, NewUser("bart", "Bart", "", frozenset({Role.MARKETER}), None), admin)
    desk.enter("bart", given)
    assert desk.client.get("/console", headers=PAGE, follow_redirects=False).headers["location"] == "/console/password"
    token = desk.token("/console/password")
    for old, new, again in (("x", PASSWORD, PASSWORD), (given, "short", "short"), (given, PASSWORD, "x"), (given, given, given)):
        assert desk.post("/console/password", token, old=old, new=new, again=again).status_code == 422
    assert desk.post("/console/password", token, old=given, new=PASSWORD, again=PASSWORD).status_code == 303
    assert desk.status() == 200
    assert [desk.enter("bart", each).status_code for each in (given, PASSWORD)] == [403, 303]


def test_sessions_are_listed_and_revoked_by_their_person_or_an_admin(desk: SignInDesk) -> None:
    desk.enter()
    first = dict(desk.client.cookies)
    desk.enter()
    page = desk.client.get("/console/sessions").text
    ids = re.findall(r"/console/sessions/([0-9a-f]{64})", page)
    assert len(ids) == 2
    with TestClient(create(desk.services, Broker()), base_url="https://x.example") as other:
        token = sign_in(other, desk.services, "carl", [Role.DESK])
        for each in ids:
            assert other.post(f"/console/sessions/{each}", data={"form_token": token}).status_code == 403
    own = re.search(r"this one.*?/sessions/([0-9a-f]{64})", page, re.DOTALL)
    assert own
    (earlier,) = [each for each in ids if each != own[1]]
    assert desk.post(f"/console/sessions/{earlier}", desk.token()).status_code == 303
    assert desk.status() == 200
    desk.client.cookies.clear()
    desk.client.cookies.update(first)
    assert desk.status() == 303


# -- roles and entities ------------------------------------------------------------------------------------------------


def add_campaign(desk: SignInDesk) -> None:
    rows = [{"recipient": "?"}, {"recipient": "?"}]
    form = {"id": "spring", "entity": "kbc-bank", "template": "loan_offer", "channels": ["email"], "audience": rows}
    submit(desk.services, parse_campaign(form, validation_context(desk.services)))


def test_each_page_and_act_needs_its_right_for_the_entity(desk: SignInDesk) -> None:
    add_campaign(desk)
    acts = ("/console/campaigns/spring/release", "/console/campaigns/spring/pause", "/console/templates/loan_offer/approve")
    allowed = {Role.MARKETER: [403, 303, 403], Role.AUDITOR: [403, 403, 403], Role.DESK: [403, 403, 403]}
    for role, expected in allowed.items():
        token = sign_in(desk.client, desk.services, role.value, [role])
        assert [desk.post(path, token).status_code for path in acts] == expected, role
        assert desk.status("/console/inbound-messages") == (200 if role is Role.DESK else 403)
        assert desk.status("/console/unresolved") == (403 if role is Role.MARKETER else 200)
    token = sign_in(desk.client, desk.services, "cbc", entities=["cbc-banque"])
    assert desk.status("/console/campaigns/spring") == 404
    assert desk.post("/console/campaigns/spring/cancel", token).status_code == 404
    assert "spring" not in desk.client.get("/console").text


def test_a_release_needs_a_password_that_was_given_lately(desk: SignInDesk) -> None:
    add_campaign(desk)
    desk.enter()
    desk.clock.pass_(RECENT_SECONDS + 1)
    token = desk.token()
    asked = desk.post("/console/campaigns/spring/release", token)
    assert asked.headers["location"] == "/console/confirm?to=/console/campaigns/spring"
    assert desk.post("/console/confirm", token, password="wrong").status_code == 403
    confirmed = desk.post("/console/confirm", token, password=PASSWORD, to="/console/campaigns/spring")
    assert (confirmed.status_code, confirmed.headers["location"]) == (303, "/console/campaigns/spring")
    assert "location" not in desk.post("/console/campaigns/spring/release", token).headers  # it is answered, and not asked again


def test_nobody_gives_themselves_a_role(desk: SignInDesk) -> None:
    admin = users.principal_of(users.find(desk.services, "jana"))
    with pytest.raises(NotAllowed):
        users.set_roles(desk.services, "JANA", frozenset({Role.MARKETER}), None, admin)
    with pytest.raises(NotAllowed):
        users.set_disabled(desk.services, "user:jana", True, admin)


def test_the_local_person_ends_with_the_first_other_one(database: str) -> None:
    with (
        make_services(database, Clock()) as services,
        TestClient(create(services, Broker()), base_url="https://x.example") as client,
    ):
        password = users.ensure_local(database, services.secret, services.clock())
        assert password == users.ensure_local(database, services.secret, services.clock())
        form = {"name": "local", "password": password}
        assert client.post("/console/login", data=form, follow_redirects=False).status_code == 303
        local = users.shell_principal(services, "root")
        assert local.id == "user:local"  # the shell and the browser are one person for four eyes
        users.add(services, NewUser("ada", "Ada", "", frozenset({Role.ADMIN}), None), local)
        assert client.get("/console", follow_redirects=False).status_code == 303
        assert client.post("/console/login", data=form, follow_redirects=False).status_code == 403
        assert users.ensure_local(database, services.secret, services.clock()) is None
        with pytest.raises(SignInNeeded):
            users.shell_principal(services, "root")


# -- a second factor that a role needs ---------------------------------------------------------------------------------


@pytest.fixture
def strict(database: str) -> Iterator[SignInDesk]:
    """As `desk`, where administrators need a second factor."""
    clock = Clock()
    with make_services(database, clock) as made:
        services = replace(made, policy=replace(made.policy, second_factor_roles=frozenset({"admin"})))
        with TestClient(create(services, Broker()), base_url="https://x.example") as client:
            add_user(services, "jana", password=PASSWORD)
            add_user(services, "dora", [Role.DESK], password=PASSWORD)
            yield SignInDesk(services, clock, client)


def shown_secret(desk: SignInDesk, text: str) -> tuple[pyotp.TOTP, str]:
    """The app with the secret of a page, and the page's sealed field."""
    secret, sealed = re.search(r'<code class="id">(\w+)</code>', text), re.search(r'name="sealed" value="([^"]+)"', text)
    assert secret
    assert sealed
    assert desk.client.get("/console/second-factor").headers["cache-control"] == "no-store"
    return pyotp.TOTP(secret[1]), sealed[1]


def test_who_needs_a_second_factor_sets_it_up_before_anything_else(strict: SignInDesk) -> None:
    strict.enter("dora")
    assert strict.status() == 200  # another role
    strict.enter()
    paths = ("/console", "/console/people", "/console/sessions", "/console/confirm", "/console/live.js?x")
    places = [strict.client.get(path, headers=PAGE, follow_redirects=False).headers.get("location") for path in paths[:4]]
    assert places == ["/console/second-factor"] * 4
    text = strict.client.get("/console/second-factor", headers=PAGE).text
    token = re.search(r'name="form_token" value="(\w+)"', text)
    assert token
    assert strict.post("/console/people", token[1], q="anna").headers["location"] == "/console/second-factor"
    app, sealed = shown_secret(strict, text)
    now = strict.clock.now
    assert strict.post("/console/second-factor", "", sealed=sealed, code=app.at(now)).status_code == 403
    assert strict.post("/console/second-factor", token[1], sealed="x", code=app.at(now)).status_code == 403
    wrong = strict.post("/console/second-factor", token[1], sealed=sealed, code="000000")
    assert (wrong.status_code, app.secret in wrong.text) == (422, True)
    done = strict.post("/console/second-factor", token[1], sealed=sealed, code=app.at(now))
    codes = re.findall(r"<li><code>([a-z0-9-]+)</code>", done.text)
    assert (done.status_code, len(codes), strict.status()) == (200, 8, 200)
    assert strict.post("/console/second-factor", token[1], sealed=sealed, code=app.at(now)).status_code == 403  # nobody replaces it
    assert [strict.enter(code=each).status_code for each in ("", app.at(now), codes[0], codes[0])] == [403, 403, 303, 403]
    users.remove_totp(strict.services, "jana")  # an administrator resets it
    strict.enter()
    assert strict.client.get("/console", follow_redirects=False).headers["location"] == "/console/second-factor"


def test_a_set_up_belongs_to_its_session(strict: SignInDesk) -> None:
    strict.enter()
    _, sealed = shown_secret(strict, strict.client.get("/console/second-factor", headers=PAGE).text)
    strict.enter()
    text = strict.client.get("/console/second-factor", headers=PAGE).text
    app, _ = shown_secret(strict, text)
    token = re.search(r'name="form_token" value="(\w+)"', text)
    assert token
    assert strict.post("/console/second-factor", token[1], sealed=sealed, code=app.at(strict.clock.now)).status_code == 403


def test_settling_in_bulk_needs_a_password_given_lately(desk: SignInDesk) -> None:
    desk.enter()
    token = desk.token()
    form = {"was": "failed", "campaign": "spring"}
    assert desk.post("/console/unresolved", token, **form).headers["location"] == "/console/unresolved"
    desk.clock.pass_(RECENT_SECONDS + 1)
    assert desk.post("/console/unresolved", token, **form).headers["location"] == "/console/confirm?to=/console/unresolved"


def test_another_site_signs_nobody_in(desk: SignInDesk) -> None:
    data = {"name": "jana", "password": PASSWORD}
    places = ("cross-site", "same-site", "same-origin", "none")
    answers = [
        desk.client.post("/console/login", data=data, headers={"Sec-Fetch-Site": each}, follow_redirects=False) for each in places
    ]
    assert [each.status_code for each in answers] == [403, 403, 303, 303]


def test_guesses_of_the_present_password_are_slowed(desk: SignInDesk) -> None:
    desk.enter()
    token, new = desk.token("/console/password"), "a long word of my own"
    texts = [desk.post("/console/password", token, old=f"a wrong guess {each}", new=new, again=new).text for each in range(7)]
    assert ["Too many" in text for text in texts] == [False] * 5 + [True] * 2
    desk.clock.pass_(61)
    assert desk.post("/console/password", token, old=PASSWORD, new=new, again=new).status_code == 303


def test_failures_of_others_do_not_hold_up_a_change_of_password(desk: SignInDesk) -> None:
    desk.enter()
    session, new = dict(desk.client.cookies), "a long word of my own"
    assert [desk.enter(name, "guess").status_code for name in ("jana", "bart", "cleo") for _ in range(2)] == [403] * 5 + [429]
    desk.client.cookies.update(session)
    assert desk.post("/console/password", desk.token("/console/password"), old=PASSWORD, new=new, again=new).status_code == 303
