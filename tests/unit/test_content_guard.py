"""The content guard accepts correct messages and names the check that a wrong one fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channels.base import Content, Email, Push, Sms, WhatsApp
from dispatcher.content import (
    MessageLinks,
    Template,
)
from dispatcher.content.guard import ContentRequirements, failed_check
from dispatcher.domain.decision import ReasonCode
from tests.support.template_folder import refusal, render_request

TERMS = ContentRequirements(
    commercial=True,
    warning="L'argent coûte.",
    mark="Publicité",
    sender="Bank & Co",
    links=MessageLinks("https://bank.example/u/abc?t=1&k=2", ""),
    to_partner=True,
    own_hosts=frozenset({"bank.example"}),
    personal=("hobby",),
    values={"hobby": "rowing"},
)

GOOD_MAIL = Email(
    "Bank & Co",
    "news@bank.example",
    "Hello",
    html='Publicité Bank &amp; Co L&#39;argent coûte. <a href="https://bank.example/u/abc?t=1&amp;k=2">x</a><a href="https://partner.example/a">y</a>',
    text="Publicité Bank & Co L'argent coûte. https://bank.example/u/abc?t=1&k=2 https://partner.example/a",
)

GOOD_SMS = Sms("Bank & Co: L'argent coûte. https://bank.example/u/abc?t=1&k=2 https://partner.example/a")

GOOD_PUSH = Push("Hello", "L'argent coûte.", "https://partner.example/a")


@pytest.mark.parametrize("content", [GOOD_MAIL, GOOD_SMS, GOOD_PUSH])
def test_the_guard_accepts_a_correct_message(content: Content) -> None:
    assert failed_check(content, "", TERMS) is None
    assert failed_check(WhatsApp("HX", {"1": "a"}), GOOD_SMS.text, TERMS) is None


def changed(content: Email, part: str, old: str, new: str) -> Email:
    before = getattr(content, part)
    assert old in before
    return replace(content, **{part: before.replace(old, new)})


@pytest.mark.parametrize("part", ["html", "text"])
@pytest.mark.parametrize(
    ("old", "new", "guard"),
    [
        ("coûte", "coute", "credit_warning"),
        ("Bank &", "Bonk &", "sender_named"),
        ("Publicité", "Information", "advertising_mark"),
        ("/u/abc", "/u/abd", "way_out"),
        ("partner.example/a", "partner.example/a?c=42", "link_leak"),
        ("partner.example/a", "partner.example/a#42", "link_leak"),
        ("partner.example/a", "partner.example/%72owing", "link_leak"),
        ("partner.example/a", "bank.example.partner.example/?a", "link_leak"),
    ],
)
def test_the_guard_checks_both_parts_of_a_mail(part: str, old: str, new: str, guard: str) -> None:
    assert failed_check(changed(GOOD_MAIL, part, old, new), "", TERMS) == guard


@pytest.mark.parametrize(
    ("content", "guard"),
    [
        (replace(GOOD_MAIL, subject=""), "one_line_subject"),
        (replace(GOOD_MAIL, subject="Hello\nBcc: x"), "one_line_subject"),
        (changed(GOOD_MAIL, "html", "https://partner.example/a", "javascript:x"), "link_scheme"),
        (Sms(GOOD_SMS.text.replace("coûte", "coute")), "credit_warning"),
        (Sms(GOOD_SMS.text.replace("/u/", "/v/")), "way_out"),
        (Sms(GOOD_SMS.text.replace("Bank", "")), "sender_named"),
        (Sms(GOOD_SMS.text + "/rowing"), "link_leak"),
        (Sms(GOOD_SMS.text + "a" * 1_600), "sms_length"),
        (replace(GOOD_PUSH, body="Hello"), "credit_warning"),
        (replace(GOOD_PUSH, body=GOOD_PUSH.body + "€" * 1_400), "push_size"),
        (replace(GOOD_PUSH, link="https://partner.example/a?c=42"), "link_leak"),
        (WhatsApp("HX", {"1": " "}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a\nb"}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a\tb"}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a     b"}), "whatsapp_variable"),
        (WhatsApp("HX", {"1": "a"}), "credit_warning"),
    ],
)
def test_the_guard_names_the_failed_check(content: Content, guard: str) -> None:
    assert failed_check(content, "", TERMS) == guard


def test_a_service_message_needs_no_unsubscribe_link() -> None:
    service = ContentRequirements(commercial=False, warning="", mark="Publicité", sender="Bank")
    assert failed_check(Sms("Your choice is recorded."), "", service) is None


def test_a_rendering_that_fails_the_guard_is_refused(hello: Template) -> None:
    request = render_request(data={**render_request().data, "offer_url": "https://partner.example/?customer=42"})
    assert refusal(hello, request) == (ReasonCode.CONTENT_GUARD, "link_leak")
