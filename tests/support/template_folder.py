"""A small template folder without faults, and render requests for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channels.base import Channel
from dispatcher.content import (
    ContentRefusal,
    MessageLinks,
    MessageSender,
    RenderRequest,
    Template,
)
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES

SECRET = "Zephyrine"  # a value that must not appear where it is not allowed

LINKS = MessageLinks("https://bank.example/u/abc?t=1&k=2", "https://bank.example/p/abc")

SENDER = MessageSender("Bank & Co", "news@bank.example")

ALL = frozenset({"identity", "transactions", "product"})

LEGAL = """\
[advertising]
nl = "Reclame"
fr = "Publicité"
de = "Werbung"
en = "Advertising"

[topics.consumer_credit]
nl = "Geld lenen kost geld."
fr = "L'argent coûte de l'argent."
de = "Geld kostet Geld."
en = "Money costs money."

[push]
withheld_categories = ["balance"]
"""

DECLARATION = """\
name = "hello"
version = "1"
kind = "commercial"
entity = "kbc-bank"
offer_type = "partner"
modes = ["tailored", "standard"]
channels = ["push", "email", "sms", "whatsapp"]
topic = "consumer_credit"

[variables.first_name]
category = "identity"
required = false
example = "Ann"

[variables.hobby]
category = "transactions"
modes = ["tailored"]
example = "rowing"

[variables.offer_url]
category = "product"
type = "url"
example = "https://partner.example/boats"
"""

TEXTS = """\
[push]
title = "Hello"
body = "{% if mode == 'tailored' %}For {{ hobby }}. {% endif %}{{ warning }}"
link = "{{ offer_url }}"

[email]
subject = "R&D {% if first_name %}for {{ first_name }}{% endif %}"
preheader = "Look"

[sms]
text = "{{ sender.name }}: {% if mode == 'tailored' %}{{ hobby }}{% endif %} {{ offer_url }} {{ warning }} {{ links.unsubscribe }}"

[whatsapp.tailored]
content_sid = "HX00000000000000000000000000000001"
approved = "Dear {{1}}, see {{2}} or {{3}}. WARNING"
1 = "{{ sender.name }}"
2 = "{{ offer_url }}"
3 = "{{ links.unsubscribe }}"

[whatsapp.standard]
content_sid = "HX00000000000000000000000000000002"
approved = "Dear {{1}}, see {{2}}. WARNING"
1 = "{{ sender.name }}"
2 = "{{ links.unsubscribe }}"
"""

LAYOUT = """\
<html lang="{{ language }}"><head><title>{% block title %}{% endblock %}</title></head>
<body><i>{% block preheader %}{% endblock %}</i>
{% block body %}{% endblock %}
<p>MARK {{ sender.name }} {{ warning }} <a href="{{ links.unsubscribe }}">x</a></p></body></html>
"""

HTML = """\
{% extends "_shared/layout.html" %}
{% from "_shared/macros.html" import button %}
{% block body %}
<p title="{{ first_name or '' }}">{{ first_name or "" }}{% if mode == "tailored" %} {{ hobby }}{% endif %}</p>
{{ button(offer_url) }}
{% endblock %}
"""

MAIL_TEXT = "MARK {{ sender.name }} {% if mode == 'tailored' %}{{ hobby }}{% endif %} {{ warning }} {{ links.unsubscribe }}"


def small_folder() -> dict[str, str]:
    """The files of the smallest folder that uses every feature of templates, without faults."""
    marks = dict(zip(LANGUAGES, ("Reclame", "Publicité", "Werbung", "Advertising"), strict=True))
    warnings = dict(
        zip(
            LANGUAGES,
            ("Geld lenen kost geld.", "L'argent coûte de l'argent.", "Geld kostet Geld.", "Money costs money."),
            strict=True,
        )
    )
    files = {
        "_shared/legal.toml": LEGAL,
        "_shared/macros.html": '{% macro button(url) %}<a href="{{ url }}">go</a>{% endmacro %}',
        "hello/template.toml": DECLARATION,
        "notes.md": "is ignored",
    }
    files["_shared/layout.html"] = LAYOUT.replace("MARK", "Reclame Publicité Werbung Advertising")
    for language in LANGUAGES:
        files[f"hello/{language}/texts.toml"] = TEXTS.replace("WARNING", warnings[language])
        files[f"hello/{language}/email.html"] = HTML
        files[f"hello/{language}/email.txt"] = MAIL_TEXT.replace("MARK", marks[language])
    return files


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def render_request(**changes: Any) -> RenderRequest:
    base = RenderRequest(
        channel=Channel.EMAIL,
        language="nl",
        mode=Mode.TAILORED,
        categories=ALL,
        data={"first_name": "Lotte", "hobby": "roeien", "offer_url": "https://partner.example/boten"},
        sender=SENDER,
        links=LINKS,
    )
    return replace(base, **changes)


def refusal(template: Template, request: RenderRequest) -> tuple[ReasonCode, str]:
    with pytest.raises(ContentRefusal) as caught:
        template.render(request)
    assert SECRET not in str(caught.value)
    return caught.value.code, caught.value.variable
