"""Held to the providers' own descriptions: what leaves validates, what may come back is understood.

The descriptions have faults. Each of them is in FLAWS with what is done about it; a test sees that it is still there, so that the
table shrinks when a provider mends one.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest

from channels.base import Channel, ChannelError, EventKind, Misconfigured, Outbound, Push, PushOptions, Receipt, Rejected, Uncertain
from channels.http import HttpRequest, HttpResponse, HttpTransport
from channels.mail_batching import batches
from channels.providers.fcm import TTL_SECONDS_MAX, Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import API, TwilioSms, TwilioWhatsApp
from dispatcher.content import Template, example_request
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES, Language
from tests.support.api_descriptions import description, faults, google_faults, need, operation_of
from tests.support.http_servers import http_answer, http_server
from tests.support.provider_cases import ACCESS_TOKEN, ACCOUNT, CALLBACK, SENDER, mailbox, phone, service_account, token
from tests.support.services import templates
from tests.support.signed_webhooks import NOW, mail_news, text_news

MAIL, TEXTS, PUSHES, WEBHOOKS = "tsg_mail_v3", "twilio_api_v2010", "fcm_v1_discovery", "tsg_webhooks_v3"
HTTP = HttpTransport()


# -- what is wrong with the descriptions, and what is done about it ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flaw:
    """One fault of a description. `seen` shows that it is (still) there; `mend` is what this program does about it."""

    where: str
    what: str
    mend: str
    seen: Callable[[], bool]


def _mail_fields() -> dict[str, Any]:
    found: dict[str, Any] = _body(description(MAIL)["components"]["requestBodies"]["PostMailSend"])["schema"]["properties"]
    return found


def _body(holder: Mapping[str, Any]) -> dict[str, Any]:
    (content,) = holder["content"].values()
    return cast(dict[str, Any], content)


def _create() -> dict[str, Any]:
    return cast(dict[str, Any], description(TEXTS)["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"])


def _form() -> dict[str, Any]:
    return _body(_create()["requestBody"])


FLAWS = (
    Flaw(
        "SendGrid mail/send",
        "custom_args of the whole mail is a string",
        "ours stand in the personalization, where they are an object",
        lambda: _mail_fields()["custom_args"]["type"] == "string",
    ),
    Flaw(
        "SendGrid mail/send",
        "sections are left out",
        "we send none",
        lambda: "sections" not in _mail_fields(),
    ),
    Flaw(
        "SendGrid mail/send",
        "headers may hold anything, though twelve names are refused and values are strings",
        "channels.checks refuses them first",
        lambda: "additionalProperties" not in _mail_fields()["headers"],
    ),
    Flaw(
        "SendGrid mail/send",
        "the 202 has no header, though X-Message-Id is the mail's name",
        "no name, no receipt: such an answer is Uncertain",
        lambda: "headers" not in description(MAIL)["paths"]["/v3/mail/send"]["post"]["responses"]["202"],
    ),
    Flaw(
        "SendGrid mail/send",
        "415 and 429 are left out",
        "read from the errors page: tests/channels/test_reactions.py",
        lambda: {"415", "429"}.isdisjoint(description(MAIL)["paths"]["/v3/mail/send"]["post"]["responses"]),
    ),
    Flaw(
        "SendGrid mail/send",
        "the examples of errors write the word null where the field is null",
        "only names of our own fields are taken over as hints",
        lambda: (
            _body(description(MAIL)["components"]["responses"]["PostMailSend400"])["examples"]["Unauthorized request"]["value"][
                "errors"
            ][0]["field"]
            == "null"
        ),
    ),
    Flaw(
        "SendGrid",
        "nullable, a word of OpenAPI 3.0, in a 3.1 document",
        "descriptions.closed reads it as a type",
        lambda: description(MAIL)["components"]["schemas"]["ErrorResponse"]["properties"]["errors"]["items"]["properties"]["field"][
            "nullable"
        ],
    ),
    Flaw(
        "Twilio Messages",
        "To and From are phone-number, though alphanumeric senders and whatsapp: addresses are right",
        "the format's check knows them",
        lambda: _form()["schema"]["properties"]["From"]["format"] == "phone-number",
    ),
    Flaw(
        "Twilio Messages",
        "array fields have no encoding",
        "we send none of them",
        lambda: "encoding" not in _form(),
    ),
    Flaw(
        "Twilio Messages",
        "ValidityPeriod has no bounds, its text says 1 to 36000",
        "the adapter keeps to the text",
        lambda: "maximum" not in _form()["schema"]["properties"]["ValidityPeriod"],
    ),
    Flaw(
        "Twilio Messages",
        "the first example sends Tags, which the schema lacks",
        "we send none",
        lambda: "Tags" in _form()["examples"]["create"]["value"] and "Tags" not in _form()["schema"]["properties"],
    ),
    Flaw(
        "Twilio Messages",
        "no error answer is described",
        "read from the error dictionary: tests/channels/test_reactions.py",
        lambda: set(_create()["responses"]) == {"201"},
    ),
    Flaw(
        "Twilio Messages",
        "the status partially_delivered is listed but not explained",
        "an UNKNOWN event, shown to a person",
        lambda: "partially_delivered" not in description(TEXTS)["components"]["schemas"]["message_enum_status"]["description"],
    ),
    Flaw(
        "FCM",
        "names are given in camelCase only, though snake_case is read as well and Google's own SDK sends it",
        "compared after a change of case",
        lambda: "fcm_options" not in description(PUSHES)["schemas"]["WebpushConfig"]["properties"],
    ),
    Flaw(
        "FCM",
        "no error answer is described",
        "read from the ErrorCode page: tests/channels/test_reactions.py",
        lambda: not any("Error" in name for name in description(PUSHES)["schemas"]),
    ),
    Flaw(
        "FCM",
        "the text on priority says normal and high, though the values listed are NORMAL and HIGH",
        "capitals leave",
        lambda: (
            description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["priority"]["enum"] == ["NORMAL", "HIGH"]
            and '"normal"' in description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["priority"]["description"]
        ),
    ),
    Flaw(
        "FCM",
        "the sizes (4,096 bytes, 28 days) are in prose only or missing",
        "the adapter keeps to them, and counts bytes as Google was seen to: tests/channels/test_fcm.py",
        lambda: "maximum" not in description(PUSHES)["schemas"]["AndroidConfig"]["properties"]["ttl"],
    ),
)


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: f"{flaw.where}: {flaw.what}")
def test_each_listed_flaw_is_still_there(flaw: Flaw) -> None:
    assert flaw.seen(), f"mended by the provider; take it off the list (it was handled so: {flaw.mend})"


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
# Each option of a push alone, and all together.
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
    """With all data and each time to live, without what is optional, with hostile texts."""
    optional = {name: None for name, variable in template.variables.items() if not variable.required}
    hostile = {name: HOSTILE for name, variable in template.variables.items() if variable.type == "text"}
    cases: tuple[tuple[dict[str, Any], int | None], ...] = (*(({}, ttl) for ttl in TTLS), (optional, None), (hostile, None))
    for data, ttl in cases:
        content = template.render(example_request(template, channel, language, mode, data))
        outbound = Outbound("2611-7-3-0", channel, ADDRESSES[channel](1), content, ttl)
        yield outbound
    if isinstance(content, Push):
        yield from (replace(outbound, content=replace(content, options=options)) for options in OPTIONS)


@cache
def adapters(channel: Channel) -> list[Any]:
    """The channel's adapter with each set of options. Nothing is sent."""
    if channel is Channel.EMAIL:
        return [SendGrid("SG.key", HTTP)]
    if channel is Channel.PUSH:
        return [Fcm({**service_account(), "token_uri": "https://oauth2.googleapis.com/token"}, HTTP, now=lambda: NOW)]
    make, senders = (TwilioSms, SENDERS) if channel is Channel.SMS else (TwilioWhatsApp, (SENDER, SENDERS[-1]))
    return [make(ACCOUNT, "token", *each) for each in itertools.product(senders, (HTTP,), (API,), (None, CALLBACK))]


@written
def test_every_request_validates(name: str, channel: Channel, language: Language, mode: Mode) -> None:
    for outbound in messages(templates()[name], channel, language, mode):
        for adapter in adapters(channel):
            CHECKS[channel](adapter.build(outbound))


@pytest.mark.parametrize("name", sorted(templates()))
def test_mails_in_batches_validate(name: str) -> None:
    template = templates()[name]
    mails = [
        replace(mail, id=f"{mail.id}-{number}", address=mailbox(number))
        for mode in sorted(template.info.modes)
        for number, mail in enumerate(itertools.chain(*(messages(template, Channel.EMAIL, tongue, mode) for tongue in LANGUAGES)))
    ]
    made = list(batches(mails, 1_000))
    assert len(made) < len(mails) / 2
    for batch in made:
        check_mail(adapters(Channel.EMAIL)[0].build_batch(batch))


def header(request: HttpRequest, name: str) -> str:
    (value,) = (line.partition(": ")[2] for line in request.headers if line.lower().startswith(f"{name}: "))
    return value


def check_mail(request: HttpRequest) -> None:
    document = description(MAIL)
    _, operation = operation_of(request, document)
    body = document["components"]["requestBodies"][operation["requestBody"]["$ref"].rpartition("/")[2]]
    assert header(request, "content-type") in body["content"]
    assert document["components"]["securitySchemes"]["BearerAuth"]["scheme"] == "bearer"
    assert header(request, "authorization").startswith("Bearer ")
    assert faults(json.loads(request.body), _body(body)["schema"], MAIL) == []


def check_text(request: HttpRequest) -> None:
    document = description(TEXTS)
    _, operation = operation_of(request, document)
    _check_basic(request, document)
    assert header(request, "content-type") in operation["requestBody"]["content"]
    schema = _form()["schema"]
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True)
    fields = dict(pairs)
    assert len(fields) == len(pairs)
    typed: dict[str, Any] = {
        name: int(value) if schema["properties"][name].get("type") == "integer" else value for name, value in fields.items()
    }
    assert faults(typed, schema, TEXTS) == []
    assert ("From" in typed) != ("MessagingServiceSid" in typed)
    assert ("Body" in typed) != ("ContentSid" in typed)
    assert 1 <= typed.get("ValidityPeriod", 1) <= 36_000
    assert all(isinstance(value, str) for value in json.loads(fields.get("ContentVariables", "{}")).values())


def _check_basic(request: HttpRequest, document: Mapping[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["accountSid_authToken"]["scheme"] == "basic"
    scheme, _, secret = header(request, "authorization").partition(" ")
    assert (scheme, base64.b64decode(secret)) == ("Basic", f"{ACCOUNT}:token".encode())


def check_push(request: HttpRequest) -> None:
    document = description(PUSHES)
    method = document["resources"]["projects"]["resources"]["messages"]["methods"]["send"]
    path = urlsplit(request.url).path.removeprefix("/")
    assert request.url.startswith(document["rootUrl"])
    assert re.fullmatch(re.escape(method["flatPath"]).replace(r"\{projectsId\}", "[^/]+"), path)
    assert method["httpMethod"] == "POST"
    assert request.body
    body = camel(json.loads(request.body), document["schemas"], method["request"]["$ref"])
    assert google_faults(body, method["request"]["$ref"], PUSHES) == []
    targets = {"token", "fid", "topic", "condition"}
    assert len(targets & body["message"].keys()) == 1


def camel(value: Any, schemas: Mapping[str, Any], name: str) -> Any:
    """The document with the names of its messages' fields in camelCase; names that are data (headers, `data`) stay."""
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
    schema = _body(description(MAIL)["components"]["requestBodies"]["PostMailSend"])["schema"]
    assert [found.partition(":")[0] for found in faults(mail, schema, MAIL)] == ["$.personalizations[0]"]
    push = {"message": {"token": "t", "android": {"ttl": "1 hour", "tag": "x"}}}
    assert len(google_faults(push, "SendMessageRequest", PUSHES)) == 2


def test_a_check_asks_what_the_descriptions_know() -> None:
    with http_server(lambda request, _: ACCESS_TOKEN if request.path == "/token" else http_answer(200, b"{}")) as server:
        here = f"http://127.0.0.1:{server.port}"
        TwilioSms(ACCOUNT, "token", SENDER, HTTP, here).check()
        Fcm({**service_account(), "token_uri": f"{here}/token"}, HTTP, here).check()
    account, _, push = server.arrived
    operation_of(HttpRequest(f"https://api.twilio.com{account.path}", ()), description(TEXTS))
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


def test_every_described_answer_of_sendgrid_is_understood() -> None:
    document = description(MAIL)
    adapter, described = adapters(Channel.EMAIL)[0], document["paths"]["/v3/mail/send"]["post"]["responses"]
    assert set(described) == {"202", *MAIL_ANSWERS}
    assert adapter.parse(HttpResponse(202, (b"HTTP/1.1 202 Accepted\r\n", b"X-Message-Id: abc\r\n"))) == Receipt("abc")
    for status, expected in MAIL_ANSWERS.items():
        answer = _body(document["components"]["responses"][described[status]["$ref"].rpartition("/")[2]])
        for example in answer["examples"].values():
            assert faults(example["value"], answer["schema"], MAIL) == []
            result = adapter.parse(HttpResponse(int(status), (), json.dumps(example["value"]).encode()))
            assert type(result) is expected


def test_every_described_answer_of_twilio_is_understood() -> None:
    answer = _body(_create()["responses"]["201"])
    (adapter, *_) = adapters(Channel.SMS)
    for example in answer["examples"].values():
        assert faults(example["value"], answer["schema"], TEXTS) == []
        assert adapter.parse(HttpResponse(201, (), json.dumps(example["value"]).encode())) == Receipt(example["value"]["sid"])


def test_every_described_status_of_twilio_is_known_or_shown_to_a_person() -> None:
    described = description(TEXTS)["components"]["schemas"]["message_enum_status"]["enum"]
    unknown = {status for status in described if text_news(status)[0].kind is EventKind.UNKNOWN}
    assert unknown == {"receiving", "received", "partially_delivered"}  # the first two are of messages to us


def test_a_described_answer_of_fcm_is_a_receipt() -> None:
    message = {"name": "projects/bank/messages/0:1500415314455276%31bd1c9631bd1c96"}
    assert google_faults(message, "Message", PUSHES) == []
    assert adapters(Channel.PUSH)[0].parse(HttpResponse(200, (), json.dumps(message).encode())) == Receipt(message["name"])


def test_every_event_that_sendgrid_can_be_told_to_send_is_known() -> None:
    settings = description(WEBHOOKS)["components"]["schemas"]["EventWebhookRequest"]["properties"]
    events = {name for name, field in settings.items() if field["type"] == "boolean"} - {"enabled"}
    assert len(events) == 11
    words = {"spam_report": "spamreport"}  # the setting's name and the event's differ
    assert all(mail_news({"event": words.get(event, event)})[0].kind is not EventKind.UNKNOWN for event in events)


def test_the_content_ids_of_the_templates_are_of_the_described_shape() -> None:
    pattern = description("twilio_content_v1")["paths"]["/v1/Content/{Sid}"]["get"]["parameters"][0]["schema"]["pattern"]
    shapes = [
        approved.content_sid
        for template in templates().values()
        for edition in template.languages.values()
        for approved in edition.whatsapp.values()
    ]
    assert shapes
    assert all(re.fullmatch(pattern, sid) for sid in shapes)


def test_a_request_that_the_descriptions_do_not_know_is_found() -> None:
    mail = next(messages(templates()["loan_offer"], Channel.EMAIL, "fr", Mode.STANDARD))
    request = adapters(Channel.EMAIL)[0].build(mail)
    for url in (request.url + "s", request.url.replace("api.sendgrid.com", "api.sendgrid.net")):
        with pytest.raises(AssertionError):
            check_mail(replace(request, url=url))


def test_absent_descriptions_are_said_and_fail_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"descriptions are not here: .*/x.json"):
        need(tmp_path / "x.json")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="descriptions are not here"):
        need(tmp_path / "x.json")
    need(tmp_path)
