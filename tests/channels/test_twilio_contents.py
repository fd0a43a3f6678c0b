"""Templates of WhatsApp: the client of Twilio's Content API, and its double, checked with the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client
from twilio.rest.content.v1.content import ContentList
from twilio.rest.content.v1.content.approval_create import ApprovalCreateList

from channels.base import ChannelError, Misconfigured, Throttled, Uncertain
from channels.http import HttpTransport
from channels.providers.twilio import PLUGIN, TwilioAccount
from channels.sandbox import SandboxClient, running
from channels.twilio_content import TwilioContent
from channels.whatsapp_templates import Category, NewContent, TemplateButton, TemplateStatus
from tests.support.api_descriptions import load_description
from tests.support.sandbox_clients import ACCOUNT, AUTH_TOKEN, SENDER, twilio_client

STOP, SITE = TemplateButton("STOP", payload="STOP"), TemplateButton("Site", url="https://bank.example/loan")
HELLO = NewContent("hello_standard_1", "nl", "Dag {{1}}, tot gauw!", examples={"1": "Lotte"})
CONTENT = "twilio_content_v1"


@pytest.fixture
def contents(sandbox: SandboxClient) -> Iterator[TwilioContent]:
    http = HttpTransport()
    assert PLUGIN.make_template_client is not None
    client = PLUGIN.make_template_client(
        TwilioAccount(ACCOUNT, AUTH_TOKEN, base_url=sandbox.url, content_base_url=sandbox.url), http
    )
    assert isinstance(client, TwilioContent)
    yield client
    http.close()


def create(contents: TwilioContent, template: NewContent = HELLO) -> str:
    sid = contents.create(template)
    assert isinstance(sid, str), sid
    return sid


def official(sandbox: SandboxClient) -> Client:
    client = twilio_client(sandbox)
    client.content.base_url = sandbox.url
    return client


@pytest.mark.parametrize("buttons", [(), (STOP,), (SITE,), (STOP, SITE)])
def test_a_created_template_is_listed_as_it_was_created(contents: TwilioContent, buttons: tuple[TemplateButton, ...]) -> None:
    sid = create(contents, NewContent(HELLO.name, HELLO.language, HELLO.text, buttons, HELLO.examples))
    (listed,) = contents.list_all()  # type: ignore[misc]
    assert (listed.content_sid, listed.name, listed.language, listed.text) == (sid, HELLO.name, "nl", HELLO.text)
    assert (listed.buttons, listed.status) == (buttons, TemplateStatus.UNSUBMITTED)
    assert contents.submit(sid, HELLO.name, Category.MARKETING) is None
    (listed,) = contents.list_all()  # type: ignore[misc]
    assert (listed.status, listed.category) == (TemplateStatus.APPROVED, "MARKETING")


def test_the_official_client_works_with_the_double(sandbox: SandboxClient) -> None:
    client = official(sandbox)
    created = client.content.v1.contents.create(
        ContentList.ContentCreateRequest(
            {
                "friendly_name": "hello",
                "language": "en",
                "variables": {"1": "Emma"},
                "types": ContentList.Types({"twilio/text": {"body": "Hi {{1}}, see you!"}}),
            }
        )
    )
    approval = client.content.v1.contents(created.sid).approval_create.create(
        ApprovalCreateList.ContentApprovalRequest({"name": "hello", "category": "UTILITY"})
    )
    assert approval.status == "received"
    assert client.content.v1.contents(created.sid).approval_fetch().fetch().whatsapp["status"] == "approved"
    assert [each.sid for each in client.content.v1.content_and_approvals.list()] == [created.sid]
    assert client.content.v1.contents(created.sid).delete()
    with pytest.raises(TwilioRestException, match="not found"):
        client.content.v1.contents(created.sid).fetch()


@pytest.mark.parametrize("buttons", [(), (STOP,), (SITE,), (STOP, SITE)])
def test_requests_are_as_twilio_describes_them(contents: TwilioContent, buttons: tuple[TemplateButton, ...]) -> None:
    description = load_description(CONTENT)
    template = NewContent(HELLO.name, HELLO.language, HELLO.text, buttons, HELLO.examples)
    for request, schema in (
        (contents.creation(template), "ContentCreateRequest"),
        (contents.submission("HX" + "1" * 32, HELLO.name, Category.UTILITY), "ContentApprovalRequest"),
    ):
        root = {"$ref": f"#/components/schemas/{schema}", "components": description["components"]}
        assert list(Draft202012Validator(root).iter_errors(json.loads(request.body))) == []


def test_a_long_list_is_read_page_by_page(contents: TwilioContent) -> None:
    sids = [create(contents, NewContent(f"hello_{number}", "nl", "Dag, tot gauw!")) for number in range(201)]
    listed = contents.list_all()
    assert not isinstance(listed, ChannelError)
    assert [each.content_sid for each in listed] == sids


@pytest.mark.parametrize(
    ("rule", "error"),
    [({"status": 429}, Throttled), ({"status": 401}, Misconfigured), ({"status": 500}, Uncertain), ({"taken": True}, Uncertain)],
)
def test_faults_are_returned_as_errors(
    contents: TwilioContent, sandbox: SandboxClient, rule: dict[str, object], error: type[ChannelError]
) -> None:
    sandbox.set_faults([{"provider": "twilio", **rule}])
    assert isinstance(contents.create(HELLO), error)
    assert isinstance(contents.list_all(), ChannelError)


@pytest.mark.parametrize(
    ("status", "code"), [("approved", None), ("pending", 63016), ("rejected", 63016), ("paused", 63041), (None, 63027)]
)
def test_only_an_approved_template_is_delivered(
    contents: TwilioContent, sandbox: SandboxClient, status: str | None, code: int | None
) -> None:
    sid = create(contents) if status else "HX" + "0" * 32
    if status:
        assert contents.submit(sid, HELLO.name, Category.UTILITY) is None
        sandbox.set_template_status(sid, status)
    message = twilio_client(sandbox).messages.create(
        to="whatsapp:+32470000001", from_=f"whatsapp:{SENDER}", content_sid=sid, content_variables='{"1": "Anne"}'
    )
    fetched = twilio_client(sandbox).messages(message.sid or "").fetch()
    assert (fetched.status, fetched.error_code) == (("undelivered", code) if code else ("read", None))


def test_the_review_rejects_what_it_is_told_to(contents: TwilioContent, sandbox: SandboxClient) -> None:
    sandbox.set_review("rejected", "ABUSIVE_CONTENT")
    assert contents.submit(create(contents), HELLO.name, Category.MARKETING) is None
    (listed,) = contents.list_all()  # type: ignore[misc]
    assert (listed.status, listed.rejection_reason) == (TemplateStatus.REJECTED, "ABUSIVE_CONTENT")


def test_templates_survive_a_restart_of_the_sandbox(tmp_path: Path) -> None:
    http = HttpTransport()
    assert PLUGIN.make_template_client is not None
    for run in range(2):
        with running(state_folder=tmp_path) as sandbox:
            client = PLUGIN.make_template_client(TwilioAccount(ACCOUNT, AUTH_TOKEN, content_base_url=sandbox.url), http)
            if run == 0:
                assert isinstance(client.create(HELLO), str)
            listed = client.list_all()
            assert not isinstance(listed, ChannelError)
            assert [each.text for each in listed] == [HELLO.text]
    http.close()
