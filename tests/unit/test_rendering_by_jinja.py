"""Jinja with this program's shorter functions writes what Jinja writes by itself."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, StrictUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup, escape

from dispatcher.content.environment import TemplateEnvironment, environment

SOURCES = {
    "macros.html": """
{% macro plain(words, colour="#00568f") %}<p style="color:{{ colour }}">{{ words }}{{ name }}</p>{% endmacro %}
{% macro box(title) %}<div title="{{ title }}">{{ caller(title) }}</div>{% endmacro %}
""",
    "layout.html": "<html>{{ name }}{% block body %}{% endblock %}</html>",
    "mail.html": """{% extends "layout.html" %}{% from "macros.html" import box, plain with context %}
{% macro own(words) %}<b>{{ words }}</b>{% endmacro %}
{% block body %}{{ plain(name) }}{{ plain("R&D", colour=name) }}{{ own(plain(1)) }}
{% for each in [name, 2, "<i>"] %}{% call(title) box(each) %}{{ title }}{{ own(each) }}{{ loop.index }}{% endcall %}{% endfor %}
{% set kept %}{{ name }}<br>{% endset %}{{ kept }}{{ name ~ "<" }}{{ name | upper }}{% endblock %}""",
    "mail.txt": '{% from "macros.html" import plain with context %}{{ name }}{{ plain(name) }}',
}


class Marked:
    """An object with HTML of its own."""

    def __html__(self) -> str:
        return "<hr>"


@given(st.text() | st.sampled_from(["<b>", "'\"&", "", "a\0<"]))
def test_texts_equal_those_of_jinja_by_itself(name: str) -> None:
    ours = environment(SOURCES)
    plain = ImmutableSandboxedEnvironment(
        loader=DictLoader(SOURCES),
        autoescape=ours.autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for part in ("mail.html", "mail.txt"):
        assert ours.get_template(part).render(name=name) == plain.get_template(part).render(name=name)


@given(st.text() | st.sampled_from([Markup("<b>&"), Markup(""), 1, 1.5, Decimal("1.50"), None, True, Marked(), "<'\">&"]))
def test_output_is_escaped_as_by_markupsafe(value: object) -> None:
    assert str(TemplateEnvironment.escape_output(value)) == str(escape(value))


@pytest.mark.parametrize("source", ["{{ name() }}", "{{ name.upper() }}", "{{ ''.join(['a']) }}"])
def test_only_macros_and_blocks_can_be_called(source: str) -> None:
    template = environment({"a.html": source}).get_template("a.html")
    with pytest.raises(SecurityError):
        template.render(name="x")
