"""SendGrid's double keeps the API's contract, checked with the official client."""

from __future__ import annotations

from typing import Any

import pytest
from python_http_client.exceptions import HTTPError
from sendgrid.helpers.mail import Cc, CustomArg, Header, Mail, Personalization, Substitution, To

from channels.sandbox import SandboxClient
from tests.support.sandbox_clients import (
    make_mail,
    post_mail,
    sendgrid_client,
)


def test_a_mail_is_taken_and_each_recipient_logged_once(sandbox: SandboxClient) -> None:
    mail = Mail("bank@example.com", "anne@example.com", "Hello", "text", "<p>html</p>")
    mail.add_cc(Cc("bart@example.com"))
    mail.add_custom_arg(CustomArg("message", "m-1"))
    first, second = sendgrid_client(sandbox).send(mail), sendgrid_client(sandbox).send(make_mail("chloe@example.com"))
    assert (first.status_code, first.body) == (202, b"")
    assert first.headers["X-Message-Id"] != second.headers["X-Message-Id"]
    assert [(line["address"], line["message_id"]) for line in sandbox.log()] == [
        ("anne@example.com", "m-1"),
        ("bart@example.com", "m-1"),
        ("chloe@example.com", ""),
    ]
    assert sandbox.counts()["email"] == sandbox.counts()["total"] == 3


def test_each_personalization_has_its_own_text(sandbox: SandboxClient) -> None:
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
    sendgrid_client(sandbox).send(mail)
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
def test_one_problem_refuses_the_mail_and_is_named(sandbox: SandboxClient, changes: dict[str, Any], field_: str | None) -> None:
    status, answer = post_mail(sandbox, make_mail() | changes)
    assert status == 400
    assert field_ in [error["field"] for error in answer["errors"]]
    assert sandbox.counts()["total"] == 0


def test_sandbox_mode_checks_a_mail_without_recording(sandbox: SandboxClient) -> None:
    sandbox_mode = {"mail_settings": {"sandbox_mode": {"enable": True}}}
    assert post_mail(sandbox, make_mail() | sandbox_mode)[0] == 200
    assert post_mail(sandbox, make_mail("nobody@nowhere") | sandbox_mode)[0] == 400
    assert sandbox.counts()["total"] == 0


def test_a_request_at_the_limits_is_taken(sandbox: SandboxClient) -> None:
    parts = [{"to": [{"email": f"a{n}@example.com"}], "custom_args": {"message": "x" * 9_993}} for n in range(1_000)]
    assert post_mail(sandbox, make_mail(personalizations=parts))[0] == 202
    assert sandbox.counts()["email"] == 1_000


def test_a_too_large_request_is_answered_in_html(sandbox: SandboxClient) -> None:
    with pytest.raises(HTTPError) as refused:
        sendgrid_client(sandbox).send(make_mail(content=[{"type": "text/plain", "value": "x" * 31_000_000}]))
    assert refused.value.status_code == 413
    assert refused.value.body.startswith(b"<html>")
