"""A message contains only what the decision and its template allow, whatever the values."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.base import Channel, Email, Push, PushOptions, Sms, WhatsApp
from dispatcher.content import (
    Catalog,
    Template,
    example_request,
    load,
)
from dispatcher.content.values import read_number
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from tests.support.template_folder import LINKS, SECRET, refusal, render_request, small_folder, write

# -- the data of a message ---------------------------------------------------------------------------------------------


def test_every_channel_is_rendered_from_one_request(hello: Template) -> None:
    mail = hello.render(render_request())
    assert isinstance(mail, Email)
    assert (mail.sender_name, mail.sender_address, mail.subject) == ("Bank & Co", "news@bank.example", "R&D for Lotte")
    assert "<title>R&amp;D for Lotte</title>" in mail.html
    assert mail.headers == (
        ("List-Unsubscribe", "<https://bank.example/u/abc?t=1&k=2>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )
    push = hello.render(render_request(channel=Channel.PUSH))
    assert push == Push("Hello", "For roeien. Geld lenen kost geld.", "https://partner.example/boten")
    sms = hello.render(render_request(channel=Channel.SMS, mode=Mode.STANDARD))
    assert isinstance(sms, Sms)
    assert "roeien" not in sms.text
    whatsapp = hello.render(render_request(channel=Channel.WHATSAPP, mode=Mode.STANDARD))
    assert whatsapp == WhatsApp("HX00000000000000000000000000000002", {"1": "Bank & Co", "2": LINKS.unsubscribe})


def test_a_push_behaves_as_its_template_declares(tmp_path: Path) -> None:
    files = small_folder()
    options = '[push]\ncollapse_key = "hello"\nttl_seconds = 3600\npriority = "high"\nsound = "default"\nbadge = 0\n'
    more = 'image = "https://bank.example/i.png"\nicon = "ic"\nandroid_channel = "offers"\n'
    files["hello/template.toml"] = files["hello/template.toml"].replace(
        "[variables.first_name]", f"{options}{more}[variables.first_name]"
    )
    push = load(write(tmp_path, files))["hello"].render(render_request(channel=Channel.PUSH))
    assert isinstance(push, Push)
    assert push.options == PushOptions("hello", 3600, "high", "default", 0, "https://bank.example/i.png", "ic", "offers")


def test_the_job_s_value_overrides_the_profile_s(hello: Template) -> None:
    profile = {"transactions": {"hobby": "zeilen"}, "identity": {"hobby": SECRET}}
    data = {"offer_url": "https://partner.example/boten"}
    push = hello.render(render_request(channel=Channel.PUSH, data={**data, "hobby": "roeien"}, profile=profile))
    assert isinstance(push, Push)
    assert push.body.startswith("For roeien")
    push = hello.render(render_request(channel=Channel.PUSH, data={**data, "hobby": " "}, profile=profile))
    assert isinstance(push, Push)
    assert push.body.startswith("For zeilen")


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("mode", [Mode.TAILORED, Mode.STANDARD])
def test_data_that_the_decision_withholds_reaches_no_text(hello: Template, channel: Channel, mode: Mode) -> None:
    request = render_request(
        channel=channel,
        mode=mode,
        categories=frozenset({"product"}),
        data={"offer_url": "https://partner.example/boten", "first_name": SECRET, "hobby": SECRET, "other": SECRET},
        profile={"identity": {"first_name": SECRET}, "transactions": {"hobby": SECRET}, "product": {"hobby": SECRET}},
    )
    assert SECRET not in str(hello.context(request))
    if mode is Mode.STANDARD or channel is Channel.WHATSAPP:
        assert SECRET not in str(hello.render(request))
    else:
        assert refusal(hello, request) == (ReasonCode.WITHHELD_VARIABLE, "hobby")


def test_a_variable_of_another_mode_reaches_no_text(hello: Template) -> None:
    request = render_request(mode=Mode.STANDARD, data={"hobby": SECRET, "offer_url": "https://partner.example/boten"})
    assert SECRET not in str(hello.context(request)) + str(hello.render(request))


def test_a_missing_variable_refuses_only_texts_that_use_it(hello: Template) -> None:
    request = render_request(channel=Channel.PUSH, data={"offer_url": "https://partner.example/boten"})
    assert refusal(hello, request) == (ReasonCode.MISSING_VARIABLE, "hobby")
    hello.render(replace(request, mode=Mode.STANDARD))
    hello.render(replace(request, channel=Channel.WHATSAPP))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("offer_url", f"javascript:{SECRET}"), ("offer_url", f"https://x@{SECRET}.example"), ("hobby", [SECRET]), ("hobby", True)],
)
def test_a_value_of_the_wrong_type_is_refused_and_not_shown(hello: Template, variable: str, value: Any) -> None:
    request = render_request(data={**render_request().data, variable: value})
    assert refusal(hello, request) == (ReasonCode.FAULT, variable)
    assert [name for name, _ in hello.data_errors(request.data)] == [variable]


def test_a_number_keeps_its_digits_despite_the_cache() -> None:
    for value in (1, 1.0, "1", "1.00", Decimal("1.0"), Decimal(1), 1):
        assert str(read_number(value)) == str(value)
    assert [str(read_number(value)) for value in (-0.0, 0.0, "-0")] == ["0.0", "0.0", "0"]


def test_job_data_is_checked_before_rendering(hello: Template) -> None:
    assert hello.data_errors({"hobby": "x"}) == []
    assert [name for name, _ in hello.data_errors({"hoby": "x"})] == ["hoby"]


def test_a_missing_mode_or_language_is_a_refusal(hello: Template) -> None:
    assert refusal(hello, render_request(mode=Mode.NONE)) == (ReasonCode.FAULT, "mode")
    assert refusal(hello, render_request(language="it"))[0] is ReasonCode.FAULT


def test_a_preview_takes_examples_for_what_is_not_given(catalog: Catalog) -> None:
    push = catalog["hello"].render(example_request(catalog["hello"], Channel.PUSH, "en", Mode.TAILORED))
    assert isinstance(push, Push)
    assert push.body == "For rowing. Money costs money."


# -- hostile values ----------------------------------------------------------------------------------------------------


class Shape(HTMLParser):
    """The tags and attribute names of a page, without its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[Any] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)


@given(value=st.text(min_size=1, max_size=80).filter(str.strip))
@example(value='"><script>alert(1)</script>')
@example(value="' onmouseover='x")
@example(value="Lotte\r\nBcc: all@bank.example")
@example(value="{{ links.unsubscribe }}{% include 'x' %}")
@example(value="\u202eevil\u2028")
@example(value="HTT")
def test_a_hostile_value_stays_a_value(hello: Template, value: str) -> None:
    plain, hostile = (
        hello.render(render_request(data={**render_request().data, "first_name": name, "hobby": name})) for name in ("Lotte", value)
    )
    assert isinstance(plain, Email)
    assert isinstance(hostile, Email)
    assert Shape(hostile.html).tags == Shape(plain.html).tags
    assert not {"\r", "\n", "\u2028", "\u202e", "\0"} & set(hostile.subject)
    assert hostile.headers == plain.headers
