"""Fault rules, profiles, refused keys and magic addresses of the sandbox."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode, urlsplit

import firebase_admin
import pytest
from firebase_admin import messaging
from google.auth.exceptions import RefreshError
from python_http_client.exceptions import HTTPError
from twilio.base.exceptions import TwilioRestException

from channels.sandbox import SandboxClient, running
from channels.sandbox.profiles import PROFILES
from tests.support.sandbox_clients import (
    ACCOUNT,
    AUTH_TOKEN,
    SENDER,
    get,
    make_mail,
    make_push,
    post_mail,
    sendgrid_client,
    twilio_client,
)


def test_keys_are_checked_and_can_be_refused(sandbox: SandboxClient, firebase_app: firebase_admin.App) -> None:
    assert "mail.send" in json.loads(sendgrid_client(sandbox).client.scopes.get().body)["scopes"]
    assert twilio_client(sandbox).api.v2010.accounts(ACCOUNT).fetch().status == "active"
    with pytest.raises(HTTPError) as refused:
        sendgrid_client(sandbox, "no key").client.scopes.get()
    assert refused.value.status_code == 401
    sandbox.refuse_keys(["SG.key", AUTH_TOKEN, "sandbox@bank.iam.gserviceaccount.com"])
    assert post_mail(sandbox, make_mail())[0] == 401
    with pytest.raises(TwilioRestException) as unknown:
        twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert (unknown.value.status, unknown.value.code) == (401, 20003)
    with pytest.raises(RefreshError):
        messaging.send(make_push("t"), app=firebase_app)
    assert sandbox.counts()["total"] == 0


def test_a_lost_answer_is_a_recorded_message(sandbox: SandboxClient) -> None:
    sandbox.set_faults([{"provider": "sendgrid", "next": 1, "taken": True}, {"provider": "sendgrid", "next": 1}])
    for _ in range(2):  # the first is taken, the second is not; the client cannot tell
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            sendgrid_client(sandbox).send(make_mail())
    assert sandbox.counts()["email"] == 1
    assert post_mail(sandbox, make_mail())[0] == 202


def test_rate_limit_answers_look_like_the_providers(sandbox: SandboxClient, firebase_app: firebase_admin.App) -> None:
    sandbox.set_faults([{"status": 429, "provider": name} for name in ("sendgrid", "twilio", "fcm")])
    with pytest.raises(HTTPError) as mail:
        sendgrid_client(sandbox).send(make_mail())
    assert mail.value.to_dict == {"errors": [{"field": None, "message": "too many requests"}]}
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(mail.value.headers.keys())
    with pytest.raises(TwilioRestException) as text:
        twilio_client(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert text.value.code == 20429
    with pytest.raises(messaging.QuotaExceededError) as push:
        messaging.send(make_push("tok"), app=firebase_app)
    assert push.value.http_response.headers["Retry-After"]
    assert sandbox.counts()["total"] == 0


def test_rules_select_by_address_and_count(sandbox: SandboxClient) -> None:
    sandbox.set_faults(
        [
            {"provider": "twilio", "match": "+32470000007", "error": 21610, "status": 400},
            {
                "provider": "sendgrid",
                "every": 3,
                "status": 503,
                "taken": True,
                "headers": {"X-Odd": "1"},
                "body": "oops",
            },
        ]
    )
    client = twilio_client(sandbox)
    with pytest.raises(TwilioRestException) as refused:
        client.messages.create(to="+32470000007", from_=SENDER, body="x")
    assert refused.value.code == 21610
    assert client.messages.create(to="+32470000008", from_=SENDER, body="x").sid
    statuses = [post_mail(sandbox, make_mail())[0] for _ in range(2)]
    with pytest.raises(HTTPError) as third:
        sendgrid_client(sandbox).send(make_mail())
    assert (statuses, third.value.status_code, third.value.body) == ([202, 202], 503, b"oops")
    assert sandbox.counts()["email"] == 3
    sandbox.clear_faults()
    assert {post_mail(sandbox, make_mail())[0] for _ in range(3)} == {202}


def test_random_faults_repeat_with_the_same_seed() -> None:
    patterns = []
    for seed in (1, 1, 2):
        with running(seed=seed) as sandbox:
            sandbox.set_faults([{"share": 0.5, "status": 500}])
            patterns.append([post_mail(sandbox, make_mail())[0] for _ in range(20)])
    assert patterns[0] == patterns[1] != patterns[2]
    assert set(patterns[0]) == {202, 500}


def test_an_answer_can_be_late_and_cut(sandbox: SandboxClient) -> None:
    sandbox.set_faults([{"provider": "twilio", "cut": 300, "taken": True, "delay_seconds": 0.05}])
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=30)
    headers = {"Authorization": "Basic QUM6dA==", "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"To": "+32470000001", "From": SENDER, "Body": "x"})
    connection.request("POST", "/2010-04-01/Accounts/AC/Messages.json", body, headers)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    assert sandbox.counts()["sms"] == 1


def test_magic_addresses_need_no_rule(sandbox: SandboxClient) -> None:
    assert post_mail(sandbox, make_mail("credits@example.com"))[1]["errors"][0]["message"] == "Maximum credits exceeded"
    assert post_mail(sandbox, make_mail("throttled+3@example.com"))[0] == 429
    assert post_mail(sandbox, make_mail("refused@example.com"))[1]["errors"][0]["field"] == "personalizations.0.to.0.email"
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        sendgrid_client(sandbox).send(make_mail("lost@example.com"))
    assert [line["address"] for line in sandbox.log()] == ["lost@example.com"]


@pytest.mark.parametrize("rules", [{}, [{"surprise": 1}], [{"provider": "smtp"}], [{"share": 2}], [{"every": "x"}], [7]])
def test_an_invalid_rule_is_refused(sandbox: SandboxClient, rules: Any) -> None:
    with pytest.raises(ValueError, match="400"):
        sandbox._request("PUT", "/_sandbox/faults", rules)


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_can_be_chosen_on_its_page(sandbox: SandboxClient, name: str) -> None:
    get(sandbox, "/faults", urlencode({"profile": name}).encode())
    page = get(sandbox, "/faults")
    assert f'value="{name}" aria-pressed="true"' in page
    assert page.count('aria-pressed="true"') == 1
    rules = json.loads(get(sandbox, "/_sandbox/faults"))
    assert len(rules) == len(PROFILES[name][1])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(sandbox, "/faults", urlencode({"profile": name}).encode(), {"Origin": "https://elsewhere.example"})


def test_a_profile_applies_at_once(sandbox: SandboxClient) -> None:
    sandbox.set_profile("down")
    assert post_mail(sandbox, make_mail())[0] == 503
    assert "down" in get(sandbox, "/")
    with pytest.raises(ValueError, match="profile is one of calm, slow"):
        sandbox.set_profile("sunny")
    sandbox.set_profile("calm")
    assert post_mail(sandbox, make_mail())[0] == 202
    sandbox.set_faults([{"provider": "telnyx", "status": 429}])
    assert "own" in get(sandbox, "/faults")
