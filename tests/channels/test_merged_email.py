"""A merged e-mail equals the plain mail: when assembled, and byte for byte in the request."""

from __future__ import annotations

import json

import pytest

from channels.base import Channel, Email, MailTemplate, MergedEmail, Outbound, TextTemplate
from channels.http import HttpTransport
from channels.providers.sendgrid import SendGrid

FORM = MailTemplate(
    TextTemplate(("Dear ", "!"), (0,)),
    TextTemplate(("<p>’", '</p><a href="', '">', "</a>"), (1, 2, 1)),
    TextTemplate(("", " \\u0000 "), (0,)),
)
HEADERS = (("X-Test", "1"),)
NASTY = ("", '"', "\\", "\\u0000", "a\0b", "é’€", "\U0001f600", "</script>\u2028", "\x7f\t", "x" * 50)


@pytest.fixture(scope="module")
def adapter() -> SendGrid:
    return SendGrid("SG.key", HttpTransport())


def of_pieces(*values: str) -> MergedEmail:
    return MergedEmail("KBC", "news@mail.example", FORM, values, HEADERS)


def as_written(*values: str) -> Email:
    subject, html, text = (part.fill(values) for part in (FORM.subject, FORM.html, FORM.text))
    return Email("KBC", "news@mail.example", subject, html, text, HEADERS)


@pytest.mark.parametrize("value", NASTY)
def test_its_request_is_the_same_to_the_byte(adapter: SendGrid, value: str) -> None:
    values = ("Élise", value, "https://x.example/?a=b&c")
    mails = (of_pieces(*values), as_written(*values))
    quick, plain = (adapter.build(Outbound("202611-1-0-0", Channel.EMAIL, "a@x.example", mail)).body for mail in mails)
    assert quick == plain
    assert json.loads(quick)["content"][1]["value"] == as_written(*values).html


def test_it_assembles_to_the_plain_mail() -> None:
    assert of_pieces("a", "b", "c").assemble() == as_written("a", "b", "c")
