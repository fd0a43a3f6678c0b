"""Requests and answers agree with the providers' own API descriptions.

Errors of the descriptions themselves are in `test_api_description_flaws`.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from channels.base import (
    Channel,
    ChannelError,
    EventKind,
    Misconfigured,
    Outbound,
    Push,
    PushOptions,
    Receipt,
    Rejected,
    Uncertain,
    WhatsApp,
)
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.mail_batching import group_mails
from channels.providers.fcm import TTL_SECONDS_MAX, Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import TwilioSms, TwilioWhatsApp
from dispatcher.content import Template, example_request
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES, Language
from tests.support.api_descriptions import (
    MAIL,
    PUSHES,
    TEXTS,
    WEBHOOKS,
    create_operation,
    google_violations,
    load_description,
    media_type,
    message_form,
    operation_of,
    require,
    violations,
)
from tests.support.http_servers import http_answer, http_server
from tests.support.provider_cases import (
    ACCESS_TOKEN,
    ACCOUNT,
    CALLBACK,
    SENDER,
    mailbox,
    phone,
    service_account,
    token,
    twilio_account,
)
from tests.support.services import templates
from tests.support.signed_webhooks import NOW, sendgrid_events, twilio_events

HTTP = HttpTransport()


# -- what leaves -------------------------------------------------------------------------------------------------------

WRITTEN = [
    (name, channel, language, mode)
    for name, template in sorted(templates().items())
    for channel in template.channels
    for language in LANGUAGES
    for mode in sorted(template.info.modes)
]
written = pytest.mark.parametrize(("name", "channel", "language", "mode"), WRITTEN)

TTLS = (None, -5, 0, 1, 3600, TTL_SECONDS_MAX + 1)
SENDERS = (SENDER, "KBC", "MG" + "4" * 32)
ADDRESSES: Mapping[Channel, Callable[[int], str]] = {
    Channel.EMAIL: mailbox,
    Channel.SMS: phone,
    Channel.WHATSAPP: phone,
    Channel.PUSH: token,
}
# Each push option alone, and all together.
ALL_OPTIONS = PushOptions(
    collapse_key="spring-26",
    ttl_seconds=86_400,
    priority="high",
    sound="default",
    badge=0,
    image="https://bank.example/coin.png",
    icon="ic_coin",
    android_channel="offers",
)
OPTIONS = (
    ALL_OPTIONS,
    PushOptions(priority="normal"),
    *(PushOptions(**{option.name: getattr(ALL_OPTIONS, option.name)}) for option in fields(PushOptions)),
)
HOSTILE = 'Zoë "<&>" \\ {{1}} %s [x] \U0001f600'


def messages(template: Template, channel: Channel, language: Language, mode: Mode) -> Iterator[Outbound]:
    """Yield messages with all data and each time to live, without optional data, and with hostile texts."""
    optional = {name: None for name, variable in template.variables.items() if not variable.required}
    hostile = {name: HOSTILE for name, variable in template.variables.items() if variable.type == "text"}
    cases: tuple[tuple[dict[str, Any], int | None], ...] = (*(({}, ttl) for ttl in TTLS), (optional, None), (hostile, None))
    for data, ttl in cases:
        content = template.render(example_request(template, channel, language, mode, data))
        if isinstance(content, WhatsApp):  # the ledger has the id of the account
            content = replace(content, content_sid="HX" + "1" * 32)
        outbound = Outbound("2611-7-3-0", channel, ADDRESSES[channel](1), content, ttl)
        yield outbound
    if isinstance(content, Push):
        yield from (replace(outbound, content=replace(content, options=options)) for options in OPTIONS)


@cache
def adapters(channel: Channel) -> list[Any]:
    """Return the channel's adapter with each set of options. Nothing is sent."""
    if channel is Channel.EMAIL:
        return [SendGrid("SG.key", HTTP)]
    if channel is Channel.PUSH:
        return [Fcm({**service_account(), "token_uri": "https://oauth2.googleapis.com/token"}, HTTP, now=lambda: NOW)]
    make, senders = (TwilioSms, SENDERS) if channel is Channel.SMS else (TwilioWhatsApp, (SENDER, SENDERS[-1]))
    return [make(twilio_account(sender=sender), HTTP, url) for sender, url in itertools.product(senders, (None, CALLBACK))]


@written
def test_every_request_validates(name: str, channel: Channel, language: Language, mode: Mode) -> None:
    for outbound in messages(templates()[name], channel, language, mode):
        for adapter in adapters(channel):
            CHECKS[channel](adapter.build(outbound))


@pytest.mark.parametrize("name", sorted(templates()))
def test_batched_mails_validate(name: str) -> None:
    template = templates()[name]
    mails = [
        replace(mail, id=f"{mail.id}-{number}", address=mailbox(number))
        for mode in sorted(template.info.modes)
        for number, mail in enumerate(itertools.chain(*(messages(template, Channel.EMAIL, tongue, mode) for tongue in LANGUAGES)))
    ]
    made = list(group_mails(mails, 1_000))
    assert len(made) < len(mails) / 2
    for batch in made:
        check_mail(adapters(Channel.EMAIL)[0].build_batch(batch))


def header(request: HttpRequest, name: str) -> str:
    (value,) = (line.partition(": ")[2] for line in request.headers if line.lower().startswith(f"{name}: "))
    return value


def check_mail(request: HttpRequest) -> None:
    document = load_description(MAIL)
    _, operation = operation_of(request, document)
    body = document["components"]["requestBodies"][operation["requestBody"]["$ref"].rpartition("/")[2]]
    assert header(request, "content-type") in body["content"]
    assert document["components"]["securitySchemes"]["BearerAuth"]["scheme"] == "bearer"
    assert header(request, "authorization").startswith("Bearer ")
    assert violations(json.loads(request.body), media_type(body)["schema"], MAIL) == []


def check_text(request: HttpRequest) -> None:
    document = load_description(TEXTS)
    _, operation = operation_of(request, document)
    _check_basic(request, document)
    assert header(request, "content-type") in operation["requestBody"]["content"]
    schema = message_form()["schema"]
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)
    fields = dict(pairs)
    assert len(fields) == len(pairs)
    typed: dict[str, Any] = {
        name: int(value) if schema["properties"][name].get("type") == "integer" else value for name, value in fields.items()
    }
    assert violations(typed, schema, TEXTS) == []
    assert ("From" in typed) != ("MessagingServiceSid" in typed)
    assert ("Body" in typed) != ("ContentSid" in typed)
    assert 1 <= typed.get("ValidityPeriod", 1) <= 36_000
    assert all(isinstance(value, str) for value in json.loads(fields.get("ContentVariables", "{}")).values())


def _check_basic(request: HttpRequest, document: Mapping[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["accountSid_authToken"]["scheme"] == "basic"
    scheme, _, secret = header(request, "authorization").partition(" ")
    assert (scheme, base64.b64decode(secret)) == ("Basic", f"{ACCOUNT}:token".encode())


def check_push(request: HttpRequest) -> None:
    document = load_description(PUSHES)
    method = document["resources"]["projects"]["resources"]["messages"]["methods"]["send"]
    path = urlsplit(request.url).path.removeprefix("/")
    assert request.url.startswith(document["rootUrl"])
    assert re.fullmatch(re.escape(method["flatPath"]).replace(r"\{projectsId\}", "[^/]+"), path)
    assert method["httpMethod"] == "POST"
    assert request.body
    body = camel(json.loads(request.body), document["schemas"], method["request"]["$ref"])
    assert google_violations(body, method["request"]["$ref"], PUSHES) == []
    targets = {"token", "fid", "topic", "condition"}
    assert len(targets & body["message"].keys()) == 1


def camel(value: Any, schemas: Mapping[str, Any], name: str) -> Any:
    """Return the document with field names in camelCase; names that are data (headers, `data`) stay."""
    fields = schemas[name]["properties"]
    found = {}
    for key, item in value.items():
        field = re.sub(r"_([a-z])", lambda letter: letter[1].upper(), key)
        inner = fields.get(field, {}).get("$ref")
        found[field] = camel(item, schemas, inner) if inner else item
    return found


CHECKS: Mapping[Channel, Callable[[HttpRequest], None]] = {
    Channel.EMAIL: check_mail,
    Channel.SMS: check_text,
    Channel.WHATSAPP: check_text,
    Channel.PUSH: check_push,
}


def test_a_misspelt_field_does_not_validate() -> None:
    mail = {"personalizations": [{"to": [{"email": "a@b.example"}], "custom_arg": {}}], "from": {"email": "a@b.example"}}
    schema = media_type(load_description(MAIL)["components"]["requestBodies"]["PostMailSend"])["schema"]
    assert [found.partition(":")[0] for found in violations(mail, schema, MAIL)] == ["$.personalizations[0]"]
    push = {"message": {"token": "t", "android": {"ttl": "1 hour", "tag": "x"}}}
    assert len(google_violations(push, "SendMessageRequest", PUSHES)) == 2


def test_checks_use_described_operations() -> None:
    with http_server(lambda request, _: ACCESS_TOKEN if request.path == "/token" else http_answer(200, b"{}")) as server:
        here = f"http://127.0.0.1:{server.port}"
        TwilioSms(twilio_account(here), HTTP).check()
        Fcm({**service_account(), "token_uri": f"{here}/token"}, HTTP, here).check()
    account, _, push = server.arrived
    operation_of(HttpRequest(f"https://api.twilio.com{account.path}", ()), load_description(TEXTS))
    check_push(HttpRequest(f"https://fcm.googleapis.com{push.path}", (), push.body))


# -- what comes back ---------------------------------------------------------------------------------------------------

MAIL_ANSWERS: Mapping[str, type[ChannelError]] = {
    "400": Rejected,
    "401": Misconfigured,
    "403": Misconfigured,
    "404": Misconfigured,
    "405": Misconfigured,
    "413": Rejected,
    "500": Uncertain,
}


def test_every_described_sendgrid_answer_is_parsed() -> None:
    document = load_description(MAIL)
    adapter, described = adapters(Channel.EMAIL)[0], document["paths"]["/v3/mail/send"]["post"]["responses"]
    assert set(described) == {"202", *MAIL_ANSWERS}
    assert adapter.parse(HttpResponse(202, (b"HTTP/1.1 202 Accepted\r\n", b"X-Message-Id: abc\r\n"))) == Receipt("abc")
    for status, expected in MAIL_ANSWERS.items():
        answer = media_type(document["components"]["responses"][described[status]["$ref"].rpartition("/")[2]])
        for example in answer["examples"].values():
            assert violations(example["value"], answer["schema"], MAIL) == []
            result = adapter.parse(HttpResponse(int(status), (), json.dumps(example["value"]).encode()))
            assert type(result) is expected


def test_every_described_twilio_answer_is_parsed() -> None:
    answer = media_type(create_operation()["responses"]["201"])
    (adapter, *_) = adapters(Channel.SMS)
    for example in answer["examples"].values():
        assert violations(example["value"], answer["schema"], TEXTS) == []
        assert adapter.parse(HttpResponse(201, (), json.dumps(example["value"]).encode())) == Receipt(example["value"]["sid"])


def test_every_described_twilio_status_has_a_kind() -> None:
    described = load_description(TEXTS)["components"]["schemas"]["message_enum_status"]["enum"]
    unknown = {status for status in described if twilio_events(status)[0].kind is EventKind.UNKNOWN}
    assert unknown == {"receiving", "received", "partially_delivered"}  # the first two belong to inbound messages


def test_a_described_answer_of_fcm_is_a_receipt() -> None:
    message = {"name": "projects/bank/messages/0:1500415314455276%31bd1c9631bd1c96"}
    assert google_violations(message, "Message", PUSHES) == []
    assert adapters(Channel.PUSH)[0].parse(HttpResponse(200, (), json.dumps(message).encode())) == Receipt(message["name"])


def test_every_selectable_sendgrid_event_is_known() -> None:
    settings = load_description(WEBHOOKS)["components"]["schemas"]["EventWebhookRequest"]["properties"]
    events = {name for name, field in settings.items() if field["type"] == "boolean"} - {"enabled"}
    assert len(events) == 11
    words = {"spam_report": "spamreport"}  # the setting's name and the event's differ
    assert all(sendgrid_events({"event": words.get(event, event)})[0].kind is not EventKind.UNKNOWN for event in events)


def test_an_undescribed_request_is_detected() -> None:
    mail = next(messages(templates()["loan_offer"], Channel.EMAIL, "fr", Mode.STANDARD))
    request = adapters(Channel.EMAIL)[0].build(mail)
    for url in (request.url + "s", request.url.replace("api.sendgrid.com", "api.sendgrid.net")):
        with pytest.raises(AssertionError):
            check_mail(replace(request, url=url))


def test_missing_descriptions_skip_locally_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"descriptions are not here: .*/x.json"):
        require(tmp_path / "x.json")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="descriptions are not here"):
        require(tmp_path / "x.json")
    require(tmp_path)
