"""The sandbox keeps the providers' promises, judged by the providers' own clients and validators."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import firebase_admin
import pytest
from firebase_admin import credentials, exceptions, messaging
from google.auth.exceptions import RefreshError
from python_http_client.exceptions import BadRequestsError, HTTPError
from requests.adapters import HTTPAdapter
from sendgrid import SendGridAPIClient
from sendgrid.helpers.eventwebhook import EventWebhook
from sendgrid.helpers.mail import Cc, CustomArg, Header, Mail, Personalization, Substitution, To
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client

from channels.sandbox import SandboxClient, running, write_certificate
from channels.sandbox.profiles import PROFILES
from channels.sandbox.segments import count_segments

ACCOUNT, AUTH_TOKEN = "AC" + "1" * 32, "token-of-the-account"
SENDER = "+3225550100"
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


@pytest.fixture
def sandbox() -> Iterator[SandboxClient]:
    with running() as it:
        yield it


@dataclass
class Webhook:
    """A web server that notes what is posted to it and answers with the given statuses, then with 200."""

    url: str = ""
    calls: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            hook.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(hook.answers.pop(0) if hook.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield hook
    server.shutdown()
    server.server_close()


def twilio(sandbox: SandboxClient, token: str = AUTH_TOKEN) -> Client:
    client = Client(ACCOUNT, token)
    client.api.base_url = sandbox.url
    return client


def sendgrid(sandbox: SandboxClient, key: str = "SG.key") -> SendGridAPIClient:
    return SendGridAPIClient(key, host=sandbox.url)


@pytest.fixture
def fcm(sandbox: SandboxClient, tmp_path: Path) -> Iterator[firebase_admin.App]:
    account = sandbox.service_account(tmp_path / "account.json", project="bank")
    app = firebase_admin.initialize_app(credentials.Certificate(str(account)), {"httpTimeout": 5}, name=str(tmp_path))
    service = messaging._get_messaging_service(app)  # the SDK has no public way to another address ...
    service._fcm_url = f"{sandbox.url}/v1/projects/bank/messages:send"
    service._client.session.mount("http://", HTTPAdapter(max_retries=0))  # ... nor to stop its repeats
    yield app
    firebase_admin.delete_app(app)


def a_mail(to: str = "anne@example.com", **changes: Any) -> dict[str, Any]:
    mail: dict[str, Any] = Mail("bank@example.com", to, "Subject", "text", "<p>html</p>").get()
    return mail | changes


def a_push(token: str, **changes: Any) -> messaging.Message:
    """`token` still is what every server stores; the client's newer `fid` names the same thing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return messaging.Message(token=token, **changes)


def post_mail(sandbox: SandboxClient, mail: object) -> tuple[int, Any]:
    """Send any JSON as a mail; gives status and parsed answer."""
    try:
        return sendgrid(sandbox).client.mail.send.post(request_body=mail).status_code, None
    except HTTPError as refused:
        return refused.status_code, refused.to_dict


def get(sandbox: SandboxClient, path: str, form: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})) -> str:
    request = urllib.request.Request(sandbox.url + path, form, dict(headers))  # noqa: S310  our own sandbox
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        page: str = answer.read().decode()
        return page


# -- the three APIs, through the official clients ----------------------------------------------------------------------


def test_sendgrid_takes_a_mail_and_logs_every_recipient_once(sandbox: SandboxClient) -> None:
    mail = Mail("bank@example.com", "anne@example.com", "Hello", "text", "<p>html</p>")
    mail.add_cc(Cc("bart@example.com"))
    mail.add_custom_arg(CustomArg("message", "m-1"))
    first, second = sendgrid(sandbox).send(mail), sendgrid(sandbox).send(a_mail("chloe@example.com"))
    assert (first.status_code, first.body) == (202, b"")
    assert first.headers["X-Message-Id"] != second.headers["X-Message-Id"]
    assert [(line["address"], line["message_id"]) for line in sandbox.log()] == [
        ("anne@example.com", "m-1"),
        ("bart@example.com", "m-1"),
        ("chloe@example.com", ""),
    ]
    assert sandbox.counts()["email"] == sandbox.counts()["total"] == 3


def test_each_personalization_gets_its_own_words(sandbox: SandboxClient) -> None:
    mail = Mail("bank@example.com", subject="Hi -name-", plain_text_content="-name-: -gift-", html_content="<b>-name-</b>")
    for name, gift in (("Anne", "-name-"), ("Bart", "a train")):
        part = Personalization()
        part.add_to(To(f"{name.lower()}@example.com", name))
        part.add_substitution(Substitution("-name-", name))
        part.add_substitution(Substitution("-gift-", gift))
        part.add_substitution(Substitution("-", "a tag within other tags"))
        part.add_custom_arg(CustomArg("message", f"m-{name}"))
        part.add_header(Header("List-Unsubscribe", f"<https://bank.example/u/{name}>"))
        mail.add_personalization(part)
    sendgrid(sandbox).send(mail)
    anne, bart = sorted((sandbox.message(seq) for seq in (1, 2)), key=lambda message: str(message["address"]))
    assert (bart["address"], bart["message_id"]) == ("bart@example.com", "m-Bart")
    assert (bart["content"]["subject"], bart["content"]["text"]) == ("Hi Bart", "Bart: a train")
    assert bart["content"]["headers"] == {"List-Unsubscribe": "<https://bank.example/u/Bart>"}
    assert anne["content"]["html"] == "<b>Anne</b>"
    assert anne["content"]["text"] == "Anne: -name-", "a value is not searched for tags"


PART = {"to": [{"email": "a@example.com"}]}


@pytest.mark.parametrize(
    ("changes", "field_"),
    [
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": [PART] * 1001}, "personalizations"),
        (
            {"personalizations": [PART, PART, PART, {"to": [{"email": "not an address"}]}]},
            "personalizations.3.to.0.email",
        ),
        ({"personalizations": [{"to": []}]}, "personalizations.0.to"),
        ({"personalizations": [{"to": [{"email": "é@example.com"}]}]}, "personalizations.0.to.0.email"),
        ({"personalizations": [PART | {"cc": [{"email": "A@example.com"}]}]}, "personalizations.0"),
        ({"personalizations": [PART | {"custom_args": {"a": "x" * 10_000}}]}, "personalizations.0.custom_args"),
        ({"personalizations": [PART | {"custom_args": {"a": 1}}]}, "personalizations.0.custom_args.a"),
        ({"personalizations": [PART | {"substitutions": {"a": "é" * 5_000}}]}, "personalizations.0.substitutions"),
        ({"personalizations": [PART | {"headers": {"Reply-To": "x"}}]}, "personalizations.0.headers.Reply-To"),
        ({"personalizations": [PART | {"headers": {"X": "a\r\nBcc: b"}}]}, "personalizations.0.headers.X"),
        ({"subject": ""}, "subject"),
        ({"from": {}}, "from.email"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/html", "value": "h"}, {"type": "text/plain", "value": "t"}]}, "content"),
        ({"content": [{"type": "text/html", "value": ""}]}, "content.0.value"),
        ({"categories": ["a", "a"]}, "categories"),
        ({"surprise": 1}, None),
    ],
)
def test_one_fault_refuses_the_whole_mail_and_is_named_by_its_place(
    sandbox: SandboxClient, changes: dict[str, Any], field_: str | None
) -> None:
    status, answer = post_mail(sandbox, a_mail() | changes)
    assert status == 400
    assert field_ in [error["field"] for error in answer["errors"]]
    assert sandbox.counts()["total"] == 0


def test_sendgrids_own_rehearsal_is_checked_and_forgotten(sandbox: SandboxClient) -> None:
    rehearsal = {"mail_settings": {"sandbox_mode": {"enable": True}}}
    assert post_mail(sandbox, a_mail() | rehearsal)[0] == 200
    assert post_mail(sandbox, a_mail("nobody@nowhere") | rehearsal)[0] == 400
    assert sandbox.counts()["total"] == 0


def test_limits_are_reached_but_not_passed(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}], "custom_args": {"message": "x" * 9_993}} for n in range(1_000)]
    assert post_mail(sandbox, a_mail(personalizations=parts))[0] == 202
    assert sandbox.counts()["email"] == 1_000


def test_sendgrid_answers_html_to_what_is_too_large(sandbox: SandboxClient) -> None:
    with pytest.raises(HTTPError) as refused:
        sendgrid(sandbox).send(a_mail(content=[{"type": "text/plain", "value": "x" * 31_000_000}]))
    assert refused.value.status_code == 413
    assert refused.value.body.startswith(b"<html>")


def test_keys_are_checked_and_can_be_withdrawn(sandbox: SandboxClient, fcm: firebase_admin.App) -> None:
    assert "mail.send" in json.loads(sendgrid(sandbox).client.scopes.get().body)["scopes"]
    assert twilio(sandbox).api.v2010.accounts(ACCOUNT).fetch().status == "active"
    with pytest.raises(HTTPError) as refused:
        sendgrid(sandbox, "no key").client.scopes.get()
    assert refused.value.status_code == 401
    sandbox.refuse_keys(["SG.key", AUTH_TOKEN, "sandbox@bank.iam.gserviceaccount.com"])
    assert post_mail(sandbox, a_mail())[0] == 401
    with pytest.raises(TwilioRestException) as unknown:
        twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert (unknown.value.status, unknown.value.code) == (401, 20003)
    with pytest.raises(RefreshError):
        messaging.send(a_push("t"), app=fcm)
    assert sandbox.counts()["total"] == 0


def test_twilio_takes_lists_and_shows_messages(sandbox: SandboxClient) -> None:
    client = twilio(sandbox)
    callback = "https://bank.example/webhooks/twilio/status?" + urlencode({"message": "m 1"})
    sms = client.messages.create(to="+32470000001", from_=SENDER, body="Vous êtes prêt €", status_callback=callback)
    whatsapp = client.messages.create(
        to="whatsapp:+32470000001",
        messaging_service_sid="MG" + "2" * 32,
        content_sid="HX" + "3" * 32,
        content_variables=json.dumps({"1": "Anne"}),
    )
    assert (sms.status, sms.num_segments, sms.direction, sms.to) == ("queued", "1", "outbound-api", "+32470000001")
    assert sms.date_created is not None
    assert (whatsapp.status, whatsapp.from_, len(whatsapp.sid or "")) == ("accepted", None, 34)
    assert sms.sid != whatsapp.sid
    assert [message.sid for message in client.messages.list(to="+32470000001")] == [sms.sid]
    assert [message.sid for message in client.messages.list()] == [whatsapp.sid, sms.sid]
    assert client.messages.list(to="+32470000001", date_sent_after=sms.date_created.replace(year=2100)) == []
    assert client.messages(sms.sid or "").fetch().body == "Vous êtes prêt €"
    assert [(line["channel"], line["message_id"]) for line in sandbox.log()] == [("sms", "m 1"), ("whatsapp", "")]


def test_a_name_is_never_given_twice_not_even_by_another_run(sandbox: SandboxClient) -> None:
    first = twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x").sid
    with running() as other:
        second = twilio(other).messages.create(to="+32470000001", from_=SENDER, body="x").sid
        assert first != second
        with pytest.raises(TwilioRestException) as unknown:
            twilio(other).messages(first or "").fetch()
    assert unknown.value.code == 20404


def test_a_list_of_messages_is_turned_page_by_page(sandbox: SandboxClient) -> None:
    client = twilio(sandbox)
    sids = [client.messages.create(to="+32470000001", from_=SENDER, body=str(n)).sid for n in range(5)]
    assert [message.sid for message in client.messages.list(to="+32470000001", page_size=2)] == sids[::-1]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": "0470000001"}, 21211),
        ({"to": "+15005550001"}, 21211),
        ({"to": "+15005550004"}, 21610),
        ({"to": "+15005550009"}, 21614),
        ({"to": "+32460920429"}, 20429),
        ({"to": "whatsapp:+32460963007", "from_": "whatsapp:" + SENDER}, 63007),
        ({"to": "whatsapp:+32470000001"}, 63007),
        ({"from_": "+15005550008"}, 21611),
        ({"from_": "a name that is too long"}, 21212),
        ({"from_": None}, 21603),
        ({"body": None}, 21602),
        ({"body": "x" * 1601}, 21617),
        ({"body": None, "content_sid": "HX1"}, 21655),
        ({"body": None, "content_sid": "HX" + "3" * 32, "content_variables": '{"1": 1}'}, 21656),
    ],
)
def test_twilio_refuses_with_its_codes(sandbox: SandboxClient, changes: dict[str, Any], code: int) -> None:
    fields = {"to": "+32470000001", "from_": SENDER, "body": "x"} | changes
    with pytest.raises(TwilioRestException) as refused:
        twilio(sandbox).messages.create(**{name: value for name, value in fields.items() if value is not None})
    assert refused.value.code == code
    assert refused.value.status == (429 if code == 20429 else 400)
    assert sandbox.counts()["total"] == 0


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("x" * 306, 2),
        ("€" * 80, 1),
        ("x" * 152 + "€" * 5, 2),
        ("x" * 152 + "€" + "x" * 151, 2),
        ("x" * 152 + "€" + "x" * 152, 3),
        ("ç" * 70, 1),
        ("ç" * 71, 2),
        ("é" * 160, 1),
        ("x" * 66 + "👋" + "x" * 65, 2),
        ("x" * 66 + "👋" + "x" * 66, 3),
    ],
)
def test_segments_are_counted_as_the_network_counts(text: str, segments: int) -> None:
    assert count_segments(text) == segments


def test_fcm_takes_a_push_through_the_official_client(sandbox: SandboxClient, fcm: firebase_admin.App) -> None:
    push = a_push("tok", notification=messaging.Notification("Title", "Body"), data={"message": "m-1"})
    first, second = messaging.send(push, app=fcm), messaging.send(push, app=fcm)
    assert first != second
    assert first.startswith("projects/bank/messages/")
    messaging.send(push, dry_run=True, app=fcm)
    assert [(line["address"], line["message_id"], line["receipt"]) for line in sandbox.log(provider="fcm")] == [
        ("tok", "m-1", first),
        ("tok", "m-1", second),
    ]


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("unregistered-1", messaging.UnregisteredError),
        ("mismatch-1", messaging.SenderIdMismatchError),
        ("quota-1", messaging.QuotaExceededError),
        ("thirdparty-1", messaging.ThirdPartyAuthError),
        ("invalid-1", exceptions.InvalidArgumentError),
        ("badfield-1", exceptions.InvalidArgumentError),
        ("unavailable-1", exceptions.UnavailableError),
        ("internal-1", exceptions.InternalError),
        ("denied-1", exceptions.PermissionDeniedError),
        ("unauthenticated-1", exceptions.UnauthenticatedError),
    ],
)
def test_each_fcm_error_has_its_class(fcm: firebase_admin.App, token: str, error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        messaging.send(a_push(token, data={"a": "b"}), app=fcm)
    assert type(refused.value) is error


def test_an_invalid_token_and_an_invalid_field_can_be_told_apart(fcm: firebase_admin.App) -> None:
    details = []
    for message in (a_push("invalid"), a_push("badfield")):
        with pytest.raises(exceptions.InvalidArgumentError) as refused:
            messaging.send(message, app=fcm)
        error = refused.value.http_response.json()["error"]
        details.append([detail["@type"].rpartition(".")[2] for detail in error["details"]])
    assert details == [["FcmError", "BadRequest"], ["BadRequest"]]


def test_a_push_has_4096_bytes(fcm: firebase_admin.App) -> None:
    assert messaging.send(a_push("tok", data={"k": "é" * 2_047}), app=fcm)
    with pytest.raises(exceptions.InvalidArgumentError, match="too big"):
        messaging.send(a_push("tok", data={"kkk": "é" * 2_047}), app=fcm)


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_a_recorded_message(sandbox: SandboxClient) -> None:
    sandbox.set_faults([{"provider": "sendgrid", "next": 1, "taken": True}, {"provider": "sendgrid", "next": 1}])
    for _ in range(2):  # the first is taken, the second is not; the client cannot know
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            sendgrid(sandbox).send(a_mail())
    assert sandbox.counts()["email"] == 1
    assert post_mail(sandbox, a_mail())[0] == 202


def test_throttling_looks_like_the_providers_own(sandbox: SandboxClient, fcm: firebase_admin.App) -> None:
    sandbox.set_faults([{"status": 429, "provider": name} for name in ("sendgrid", "twilio", "fcm")])
    with pytest.raises(HTTPError) as mail:
        sendgrid(sandbox).send(a_mail())
    assert mail.value.to_dict == {"errors": [{"field": None, "message": "too many requests"}]}
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(mail.value.headers.keys())
    with pytest.raises(TwilioRestException) as text:
        twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert text.value.code == 20429
    with pytest.raises(messaging.QuotaExceededError) as push:
        messaging.send(a_push("tok"), app=fcm)
    assert push.value.http_response.headers["Retry-After"]
    assert sandbox.counts()["total"] == 0


def test_rules_choose_by_address_count_and_provider_code(sandbox: SandboxClient) -> None:
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
    client = twilio(sandbox)
    with pytest.raises(TwilioRestException) as refused:
        client.messages.create(to="+32470000007", from_=SENDER, body="x")
    assert refused.value.code == 21610
    assert client.messages.create(to="+32470000008", from_=SENDER, body="x").sid
    statuses = [post_mail(sandbox, a_mail())[0] for _ in range(2)]
    with pytest.raises(HTTPError) as third:
        sendgrid(sandbox).send(a_mail())
    assert (statuses, third.value.status_code, third.value.body) == ([202, 202], 503, b"oops")
    assert sandbox.counts()["email"] == 3
    sandbox.clear_faults()
    assert {post_mail(sandbox, a_mail())[0] for _ in range(3)} == {202}


def test_a_share_of_faults_is_the_same_for_the_same_seed() -> None:
    patterns = []
    for seed in (1, 1, 2):
        with running(seed=seed) as sandbox:
            sandbox.set_faults([{"share": 0.5, "status": 500}])
            patterns.append([post_mail(sandbox, a_mail())[0] for _ in range(20)])
    assert patterns[0] == patterns[1] != patterns[2]
    assert set(patterns[0]) == {202, 500}


def test_an_answer_can_be_cut_and_late(sandbox: SandboxClient) -> None:
    sandbox.set_faults([{"provider": "twilio", "cut": 300, "taken": True, "delay_seconds": 0.05}])
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=5)
    headers = {"Authorization": "Basic QUM6dA==", "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"To": "+32470000001", "From": SENDER, "Body": "x"})
    connection.request("POST", "/2010-04-01/Accounts/AC/Messages.json", body, headers)
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()
    assert sandbox.counts()["sms"] == 1


def test_magic_addresses_need_no_rule(sandbox: SandboxClient) -> None:
    assert post_mail(sandbox, a_mail("credits@example.com"))[1]["errors"][0]["message"] == "Maximum credits exceeded"
    assert post_mail(sandbox, a_mail("throttled+3@example.com"))[0] == 429
    assert post_mail(sandbox, a_mail("refused@example.com"))[1]["errors"][0]["field"] == "personalizations.0.to.0.email"
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        sendgrid(sandbox).send(a_mail("lost@example.com"))
    assert [line["address"] for line in sandbox.log()] == ["lost@example.com"]


@pytest.mark.parametrize("rules", [{}, [{"surprise": 1}], [{"provider": "smtp"}], [{"share": 2}], [{"every": "x"}], [7]])
def test_a_rule_that_cannot_be_meant_is_refused(sandbox: SandboxClient, rules: Any) -> None:
    with pytest.raises(ValueError, match="400"):
        sandbox._request("PUT", "/_sandbox/faults", rules)


# -- events ------------------------------------------------------------------------------------------------------------


def test_mail_events_verify_with_the_official_validator(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url + "/webhooks/sendgrid", delay_seconds=0)
    receipt = sendgrid(sandbox).send(a_mail(custom_args={"message": "m-1"})).headers["X-Message-Id"]
    for name in ("bounce", "blocked", "spam", "dropped", "silent"):
        sendgrid(sandbox).send(a_mail(f"{name}@example.com"))
    sandbox.wait_for_events()
    validator = EventWebhook(sandbox.sendgrid_webhook_public_key)
    events = []
    for _, headers, body in webhook.calls:
        proof = [headers[f"x-twilio-email-event-webhook-{part}"] for part in ("signature", "timestamp")]
        assert validator.verify_signature(body, *proof)
        assert not validator.verify_signature(body + " ", *proof)
        events += json.loads(body)
    told = [(event["email"].split("@")[0], event["event"], event.get("type")) for event in events]
    assert told == [
        ("anne", "processed", None),
        ("anne", "delivered", None),
        ("bounce", "processed", None),
        ("bounce", "bounce", "bounce"),
        ("blocked", "processed", None),
        ("blocked", "bounce", "blocked"),
        ("spam", "processed", None),
        ("spam", "delivered", None),
        ("spam", "spamreport", None),
        ("dropped", "dropped", None),
    ]
    assert len({event["sg_event_id"] for event in events}) == len(events)
    assert events[0]["message"] == "m-1"
    assert events[0]["sg_message_id"].startswith(receipt + ".")


def test_many_mail_events_travel_together(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0)
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    post_mail(sandbox, a_mail(personalizations=parts))
    sandbox.wait_for_events()
    sizes = [len(json.loads(body)) for _, _, body in webhook.calls]
    assert sum(sizes) == 2_000
    assert max(sizes) <= 1_000
    assert len(sizes) <= 4


def test_status_callbacks_verify_and_follow_the_number(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(delay_seconds=0)
    client = twilio(sandbox)
    for to, from_ in (
        ("+32470000001", SENDER),
        ("+32460930003", SENDER),
        ("+32460900000", SENDER),
        ("whatsapp:+32470000001", "whatsapp:" + SENDER),
        ("whatsapp:+32460963016", "whatsapp:" + SENDER),
    ):
        client.messages.create(to=to, from_=from_, body="x", status_callback=webhook.url + f"/status?message={to[-3:]}")
        sandbox.wait_for_events()
    validator = RequestValidator(AUTH_TOKEN)
    told: dict[str, list[str]] = {}
    for path, headers, body in webhook.calls:
        form = dict(parse_qsl(body))
        assert validator.validate(webhook.url + path, form, headers["x-twilio-signature"])
        assert not validator.validate(webhook.url + path, form | {"To": "+1"}, headers["x-twilio-signature"])
        told.setdefault(form["To"], []).append(form["MessageStatus"] + form.get("ErrorCode", ""))
    assert told == {
        "+32470000001": ["queued", "sent", "delivered"],
        "+32460930003": ["queued", "sent", "undelivered30003"],
        "+32460900000": ["queued"],
        "whatsapp:+32470000001": ["queued", "sent", "delivered", "read"],
        "whatsapp:+32460963016": ["queued", "sent", "undelivered63016"],
    }


def test_events_can_come_twice_and_out_of_order_with_the_same_identity(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0, duplicate_share=1, out_of_order=True)
    for _ in range(10):
        sendgrid(sandbox).send(a_mail())
    sandbox.wait_for_events()
    events = [event for _, _, body in webhook.calls for event in json.loads(body)]
    assert len(events) == 40
    assert len({event["sg_event_id"] for event in events}) == 20
    assert [event["event"] for event in events] != ["processed", "processed", "delivered", "delivered"] * 10


def test_a_webhook_that_fails_is_asked_again(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(sendgrid_url=webhook.url, delay_seconds=0, retries=2, retry_seconds=0.01)
    webhook.answers += [500, 503, 200, 500, 500, 500]
    for _ in range(2):
        sendgrid(sandbox).send(a_mail())
        sandbox.wait_for_events()
    assert sandbox.counts()["events"] == {"posted": 2, "failed": 2, "retried": 4, "dropped": 0, "pending": 0}


def test_a_reply_reaches_the_account_and_stop_closes_the_number(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(twilio_inbound_url=webhook.url + "/inbound", delay_seconds=0)
    client = twilio(sandbox)
    client.messages.create(to="+32470000001", from_=SENDER, body="x")
    sandbox.reply("+32470000001", SENDER, "Stop ")
    sandbox.reply("+32470000001", "whatsapp:" + SENDER, "Hallo", channel="whatsapp")
    sandbox.wait_for_events()
    forms = [dict(parse_qsl(body)) for _, _, body in webhook.calls]
    (path, headers, _), form = webhook.calls[0], forms[0]
    assert RequestValidator(AUTH_TOKEN).validate(webhook.url + path, form, headers["x-twilio-signature"])
    assert (form["From"], form["To"], form["Body"], form["AccountSid"]) == ("+32470000001", SENDER, "Stop ", ACCOUNT)
    assert forms[1]["From"] == "whatsapp:+32470000001"
    with pytest.raises(TwilioRestException) as refused:
        client.messages.create(to="+32470000001", from_=SENDER, body="x")
    assert refused.value.code == 21610
    sandbox.reply("+32470000001", SENDER, "start")
    assert client.messages.create(to="+32470000001", from_=SENDER, body="x").sid


# -- the log -----------------------------------------------------------------------------------------------------------


def test_a_restarted_sandbox_still_knows_its_arrivals(tmp_path: Path) -> None:
    with running(state_folder=tmp_path) as before:
        post_mail(before, a_mail())
        sid = twilio(before).messages.create(to="+32470000001", from_=SENDER, body="Bonjour").sid or ""
        key, lines = before.sendgrid_webhook_public_key, list(before.log())
    with (tmp_path / "arrivals.jsonl").open("a") as file:
        file.write('{"seq":3,"provider":"twi')  # the process died while it wrote
    with running(state_folder=tmp_path) as after:
        assert list(after.log()) == lines
        assert after.sendgrid_webhook_public_key == key
        assert twilio(after).messages(sid).fetch().body == "Bonjour"
        assert [message.sid for message in twilio(after).messages.list(to="+32470000001")] == [sid]
        assert twilio(after).messages.create(to="+32470000001", from_=SENDER, body="x").sid != sid
        assert after.counts()["sms"] == 2
        assert [line["seq"] for line in after.log()] == [1, 2, 3]


@contextmanager
def a_process(state: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox started from the command line: the process, and the last word of the line with which it says it is ready."""
    command = [sys.executable, "-m", "channels.sandbox", "--port", str(port), "--state", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, (process.stdout.readline().split() or [""])[-1]
        finally:
            process.kill()


def test_a_killed_process_forgets_no_message_it_answered_for(tmp_path: Path) -> None:
    with a_process(tmp_path) as (process, url):
        assert post_mail(SandboxClient(url), a_mail())[0] == 202
        process.kill()
        process.wait()
        with a_process(tmp_path, port := urlsplit(url).port or 0) as (_, retry_hint):
            assert retry_hint == url
            assert [line["address"] for line in SandboxClient(url).log()] == ["anne@example.com"]
            with a_process(tmp_path / "other", port) as (third, _):
                assert (third.wait(), third.stderr.read() if third.stderr else "") == (
                    2,
                    f"the sandbox cannot start on 127.0.0.1:{port}: Address already in use\n",
                )


def test_the_log_is_read_from_any_point_and_can_be_forgotten(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    for _ in range(5):
        post_mail(sandbox, a_mail(personalizations=parts))
    twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    assert [line["seq"] for line in sandbox.log()] == list(range(1, 5_002))
    assert [line["seq"] for line in sandbox.log(after=4_999)] == [5_000, 5_001]
    assert [line["seq"] for line in sandbox.log(provider="twilio")] == [5_001]
    assert len({line["digest"] for line in sandbox.log(provider="sendgrid")}) == 1
    sandbox.clear_log()
    assert (list(sandbox.log()), sandbox.counts()["total"]) == ([], 0)
    post_mail(sandbox, a_mail())
    assert [line["seq"] for line in sandbox.log()] == [5_002]


# -- HTTP --------------------------------------------------------------------------------------------------------------


def talk(sandbox: SandboxClient, sent: bytes, pieces: int = 1) -> bytes:
    """Send raw bytes in so many pieces; gives all that comes back until the sandbox closes."""
    with socket.create_connection(("127.0.0.1", urlsplit(sandbox.url).port or 0), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = -(-len(sent) // pieces)
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def raw_mail(body: bytes, *headers: str) -> bytes:
    lines = ("POST /v3/mail/send HTTP/1.1", "Authorization: Bearer SG.k", "Content-Type: application/json", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_requests_are_understood_however_they_are_cut_and_packed(sandbox: SandboxClient) -> None:
    body = json.dumps(a_mail()).encode()
    plain = raw_mail(body, f"Content-Length: {len(body)}")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:], b""))
    chunked = raw_mail(chunks, "Transfer-Encoding: chunked")
    packed = gzip.compress(body)
    zipped = raw_mail(packed, f"Content-Length: {len(packed)}", "Content-Encoding: gzip", "Connection: close")
    for pieces in (1, 40):
        answers = talk(sandbox, plain + chunked + plain + zipped, pieces)
        assert answers.count(b"HTTP/1.1 202 Accepted") == 4
    assert sandbox.counts()["email"] == 8
    assert len({line["receipt"] for line in sandbox.log()}) == 8


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 what\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70_000])
def test_nonsense_is_answered_with_400(sandbox: SandboxClient, sent: bytes) -> None:
    assert talk(sandbox, sent).startswith(b"HTTP/1.1 400")
    assert sandbox.counts()["total"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "key"),
    [
        ("GET", "/v3/nothing", 404, "errors"),
        ("GET", "/v3/mail/send", 405, "errors"),
        ("POST", "/2010-04-01/Accounts/AC1/Nothing.json", 404, "code"),
        ("PUT", "/v1/projects/bank/messages:send", 405, "error"),
        ("PUT", "/_sandbox/log", 405, "error"),
    ],
)
def test_unknown_ways_get_each_providers_own_no(sandbox: SandboxClient, method: str, path: str, status: int, key: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert key in json.loads(answer.read())


def test_it_speaks_tls_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    authority, certificate, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    with running(ssl_context=context) as sandbox:
        trusting = SandboxClient(sandbox.url, trust=ssl.create_default_context(cafile=str(authority)))
        assert trusting.counts()["total"] == 0


# -- the inbox ---------------------------------------------------------------------------------------------------------


def test_the_inbox_shows_hostile_content_as_words(sandbox: SandboxClient, fcm: firebase_admin.App) -> None:
    mail = Mail("bank@example.com", To("anne@example.com", HOSTILE), f"Subject {HOSTILE}", HOSTILE, HOSTILE)
    sendgrid(sandbox).send(mail)
    twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body=HOSTILE)
    variables = json.dumps({"1": HOSTILE})
    twilio(sandbox).messages.create(
        to="whatsapp:+32470000001", from_="whatsapp:" + SENDER, content_sid="HX" + "3" * 32, content_variables=variables
    )
    push = messaging.Notification(HOSTILE, HOSTILE)
    messaging.send(a_push(HOSTILE, notification=push, data={HOSTILE: HOSTILE}), app=fcm)
    for path in ("/", "/?q=" + urlencode({"": HOSTILE})[1:], *(f"/messages/{seq}" for seq in range(1, 5))):
        page = get(sandbox, path)
        assert "alert(" in page or path.startswith("/?q")
        assert "<script" not in page
        assert "<img" not in page
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in get(sandbox, "/messages/1")


def test_the_inbox_shows_each_message_as_its_reader_gets_it(sandbox: SandboxClient, fcm: firebase_admin.App) -> None:
    sandbox.set_content("HX" + "3" * 32, "Hallo {{1}}, uw ticket naar {{2}}")
    sendgrid(sandbox).send(a_mail("anne@example.com"))
    twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="ç" * 71)
    twilio(sandbox).messages.create(
        to="whatsapp:+32470000002",
        from_="whatsapp:" + SENDER,
        content_sid="HX" + "3" * 32,
        content_variables=json.dumps({"1": "Bart", "2": "Gent"}),
    )
    messaging.send(a_push("tok", notification=messaging.Notification("Title", "Body")), app=fcm)
    assert "&lt;p&gt;html&lt;/p&gt;" in get(sandbox, "/messages/1")
    assert "2 (UCS-2, 71 characters)" in get(sandbox, "/messages/2")
    assert "Hallo Bart, uw ticket naar Gent" in get(sandbox, "/messages/3")
    assert "Title" in get(sandbox, "/messages/4")
    everything, only_push, found = get(sandbox, "/"), get(sandbox, "/?channel=push"), get(sandbox, "/?q=ANNE%40")
    assert all(f"/messages/{seq}" in everything for seq in range(1, 5))
    assert [f"/messages/{seq}" in only_push for seq in (1, 4)] == [False, True]
    assert [f"/messages/{seq}" in found for seq in (1, 4)] == [True, False]
    assert "bounce" in get(sandbox, "/guide")
    assert "--paper" in get(sandbox, "/inbox.css")


def test_the_stop_button_sends_the_reply_and_only_from_our_own_page(sandbox: SandboxClient, webhook: Webhook) -> None:
    sandbox.set_events(twilio_inbound_url=webhook.url, delay_seconds=0)
    twilio(sandbox).messages.create(to="+32470000001", from_=SENDER, body="x")
    form = urlencode({"seq": 1, "text": "STOP"}).encode()
    for path, body in (("/reply", form), ("/_sandbox/reply", b'{"from":"+32470000001","to":"+1","text":"STOP"}')):
        with pytest.raises(urllib.error.HTTPError):
            get(sandbox, path, body, {"Origin": "https://elsewhere.example"})
    assert "blocked" in get(sandbox, "/reply", form)
    sandbox.wait_for_events()
    assert [dict(parse_qsl(body))["Body"] for _, _, body in webhook.calls] == ["STOP"]


@pytest.mark.parametrize("name", PROFILES)
def test_each_profile_can_be_chosen_on_its_page_and_is_in_force_at_once(sandbox: SandboxClient, name: str) -> None:
    get(sandbox, "/faults", urlencode({"profile": name}).encode())
    page = get(sandbox, "/faults")
    assert f'value="{name}" aria-pressed="true"' in page
    assert page.count('aria-pressed="true"') == 1
    rules = json.loads(get(sandbox, "/_sandbox/faults"))
    assert len(rules) == len(PROFILES[name][1])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(sandbox, "/faults", urlencode({"profile": name}).encode(), {"Origin": "https://elsewhere.example"})


def test_a_profile_is_what_it_says(sandbox: SandboxClient) -> None:
    sandbox.set_profile("down")
    assert post_mail(sandbox, a_mail())[0] == 503
    assert "down" in get(sandbox, "/")
    with pytest.raises(ValueError, match="profile is one of calm, slow"):
        sandbox.set_profile("sunny")
    sandbox.set_profile("calm")
    assert post_mail(sandbox, a_mail())[0] == 202
    sandbox.set_faults([{"provider": "telnyx", "status": 429}])
    assert "own" in get(sandbox, "/faults")


def test_the_list_follows_what_comes_when_asked_to(sandbox: SandboxClient) -> None:
    for path, seconds in (("/?follow=1", "2"), ("/", None)):
        with urllib.request.urlopen(sandbox.url + path) as answer:  # noqa: S310
            assert answer.headers["Refresh"] == seconds


def test_a_push_shows_how_it_behaves_on_each_platform(sandbox: SandboxClient) -> None:
    message = {
        "token": "t-1",
        "notification": {"title": "Hello", "body": "You", "image": "https://bank.example/i.png"},
        "android": {"collapse_key": "spring", "notification": {"notification_count": 3}},
        "apns": {"payload": {"aps": {"sound": "coin.caf"}}},
    }
    body = json.dumps({"message": message}).encode()
    get(sandbox, "/v1/projects/p/messages:send", body, {"Authorization": "Bearer x"})
    page = get(sandbox, "/messages/1")
    for told in ("payload.aps.sound", "coin.caf", "notification.notification_count", "spring", "https://bank.example/i.png"):
        assert told in page
    assert '<b class="badge-count"' in page


def test_old_content_goes_but_the_arrival_stays(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}]} for n in range(1_000)]
    for _ in range(21):
        post_mail(sandbox, a_mail(personalizations=parts))
    assert sandbox.message(1)["content"] is None
    assert sandbox.message(21_000)["content"]["to"] == [{"email": "a999@example.com"}]
    assert sandbox.counts()["email"] == 21_000
    assert "no longer stored" in get(sandbox, "/messages/1")


def test_bad_requests_of_the_client_say_what_they_miss(sandbox: SandboxClient) -> None:
    with pytest.raises(BadRequestsError):
        sendgrid(sandbox).client.mail.send.post(request_body=["not", "a", "mail"])
    with pytest.raises(ValueError, match="surprise"):
        sandbox.set_events(surprise=1)
