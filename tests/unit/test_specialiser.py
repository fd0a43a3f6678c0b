"""Compiled paths give the template's own output, byte for byte; where that is not certain, Jinja renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup
from structlog.testing import capture_logs

from dispatcher.content.environment import environment, missing_value
from dispatcher.content.specialiser.compiled_path import RenderPlan, Texts
from dispatcher.content.specialiser.decision_tree import RenderedParts, Specialiser
from dispatcher.content.specialiser.syntax_check import is_traceable
from dispatcher.content.specialiser.tracer import Trace, Untraceable

NEVER, ALWAYS = 1.0, 0.0  # random numbers: render no text both ways, or every text

MACROS = """\
{% macro show(it) %}<i>{{ it }}</i>{% endmacro %}
{% macro guess(who) %}{% if who == "Anna" %}it is{% else %}{{ who }}{% endif %}{% endmacro %}
{% macro wrap() %}<p>{{ caller() }}</p>{% endmacro %}
{% macro loud(x, y="Anna") %}{{ x | upper }}{% if y %}{{ y }}{% endif %}{% endmacro %}
"""

LAYOUT = "<head>{% block head %}{{ a }}{% endblock %}</head>{% block body %}{% endblock %}{% if sender.name %}!{% endif %}"

PIECE = "{% if a %}[{{ a }}]{% endif %}"


class SpecialiserSetup:
    """One template with two parts (HTML and plain text), and its compiled paths."""

    def __init__(self, source: str, random: float = NEVER, **options: Any) -> None:
        sources = dict.fromkeys(("t.html", "t.txt"), source)
        self.env = environment(
            {**sources, "macros.html": MACROS, "layout.html": LAYOUT, "piece.txt": PIECE, "names.txt": "{% set name = a ~ '' %}"}
        )
        self.specialiser = Specialiser("t", "digest", lambda: random, **options)
        self.postprocess: Any = {}

    def plan(self) -> RenderPlan:
        return RenderPlan({name: self.env.get_template(name) for name in ("t.html", "t.txt")}, context, self.postprocess)

    def write(self, values: Mapping[str, Any]) -> RenderedParts:
        return self.specialiser.render("key", values, self.plan)


def context(values: Mapping[str, Any]) -> dict[str, Any]:
    """The Jinja context: the values, constants, and names without a value."""
    missing = {name: missing_value(name, UndefinedError, required=name == "r") for name in ("m", "r")}
    links = {"unsubscribe": values["links.unsubscribe"]}
    return {**missing, **values, "language": "nl", "mode": "tailored", "sender": {"name": "Bank & Co"}, "links": links}


def person(**changes: Any) -> dict[str, Any]:
    base = {"a": "Ben", "b": "Bo", "n": Decimal(3), "d": date(2026, 11, 23), "links.unsubscribe": "https://bank.example/u/1?a&b"}
    return base | changes


def result_of(texts: Any) -> Texts | type[Exception]:
    """The texts that a call returns, or the class of its error."""
    try:
        found = texts()
        return found.texts() if isinstance(found, RenderedParts) else dict(found)
    except Exception as error:
        return type(error)


def assert_equal_output(setup: SpecialiserSetup, people: Iterable[Mapping[str, Any]]) -> None:
    for values in people:
        ordinary = result_of(lambda values=values: setup.plan().texts(values))
        assert result_of(lambda values=values: setup.write(values)) == ordinary


# -- byte for byte -----------------------------------------------------------------------------------------------------


# These inspect output, or cannot be traced: with marks in place of values, each would give a wrong result.
INSPECTING = (
    '{% set x %}{{ a }}{% endset %}{% if x == "Anna" %}yes{% else %}no{% endif %}',
    "{% set x %}{{ a }}{% endset %}{{ x | length }}",
    "{% set x %}{{ a }}{% endset %}{% if x %}full{% else %}empty{% endif %}",
    '{% set x = a ~ "" %}{% if x == "Anna" %}yes{% endif %}{{ x | upper }}',
    '{% set x = a ~ b %}{% set y = x %}{% if y == "AnnaBo" %}yes{% endif %}',
    "{% if a ~ b %}full{% else %}empty{% endif %}",
    '{% if (a ~ "") == "Anna" %}yes{% endif %}',
    '{{ "yes" if a ~ "" == "Anna" else "no" }}',
    "{{ (a ~ b) | length }}",
    "{{ (a ~ b) | upper }}",
    "{{ (a ~ b) | first }}{{ (a ~ b) | last }}",
    "{% filter upper %}{{ a }}{% endfilter %}",
    "{% filter length %}{{ a }}{% endfilter %}",
    "{% set x | upper %}{{ a }}{% endset %}{{ x }}",
    "{{ a | first }}{{ a | last }}",
    '{{ [a, b] | join("-") | upper }}',
    '{{ a | join("-") }}',
    "{{ a[0] }}",
    "{{ a[:1] }}",
    "{{ a + b }}",
    "{{ n + 1 }}{{ n * 2 }}{{ -n }}",
    "{% for c in a %}{{ c }}.{% endfor %}",
    "{% for c in [a ~ '', b] %}{% if c == 'Anna' %}yes{% endif %}{% endfor %}",
    "{% for c in [a, b] if c ~ '' == 'Anna' %}{{ c }}{% endfor %}",
    "{% with x = a ~ '' %}{% if x == 'Anna' %}yes{% endif %}{% endwith %}",
    "{% from 'macros.html' import guess %}{{ guess(a ~ '') }}",
    "{% from 'macros.html' import guess as g %}{{ g(who=a ~ '') }}",
    "{% from 'macros.html' import show, guess %}{{ guess(show(a)) }}{{ show(guess(a)) }}",
    "{% from 'macros.html' import loud %}{{ loud('x', a ~ '') }}{{ loud(a ~ b) }}",
    "{% from 'macros.html' import guess %}{{ guess(*[a ~ '']) }}",
    "{% from 'names.txt' import name as n2 with context %}{% if n2 == 'Anna' %}yes{% endif %}",
    "{% from 'macros.html' import wrap %}{% set x %}{% call wrap() %}{{ a }}{% endcall %}{% endset %}{{ x | length }}",
    "{% from 'macros.html' import wrap %}{% if wrap(caller=a) %}x{% endif %}",
    "{% macro m(x) %}{{ x ~ '' == 'Anna' }}{% endmacro %}{{ m(a) }}",
    "{% macro m() %}{{ varargs[0] }}{{ varargs | length }}{{ kwargs | length }}{% endmacro %}{{ m(a) }}",
    "{% macro m() %}{{ caller(a ~ '') }}{% endmacro %}{% call(x) m() %}{{ x == 'Anna' }}{% endcall %}",
    "{% macro m(x, y=a ~ '') %}{{ y == 'Anna' }}{% endmacro %}{{ m(1) }}",
    "{% extends 'layout.html' %}{% block head %}{{ super() | length }}{{ super() | upper }}{% endblock %}",
    "{% extends 'layout.html' %}{% block body %}{% if self.head() == '' %}x{% endif %}{% endblock %}",
    "{{ a is string }}{{ n is number }}{{ a is lower }}{{ n is odd }}{{ a is sameas a }}",
    "{{ {a: 1} }}",
    "{{ a.upper() }}",
    "{{ '%s' % a }}",
    "{% set ns = namespace(x=a) %}{% set ns.x = b %}{{ ns.x }}",
    "{{ a | default(a ~ '', true) | length }}",
)

# These pass the syntax check, and turn out to be untraceable when they are traced.
UNTRACEABLE = (
    "\ue0f0 {{ a }}",
    "{{ a == '\ue0f0' }}",
    "{{ a in 'Anna Ben' }}",
    "{{ [a] }}{{ (a, b) }}{{ links }}",
    "{{ a | money }}{{ n | date }}{{ d | percent }}",
    "{{ r }}",
    "{% if r %}x{% endif %}",
    "{{ m }}",
    "{{ a == r }}{{ links == a }}{{ a > 1 }}",
)

# These must be traceable: templates consist of them.
TRACEABLE = (
    "plain words \u20ac <b>",
    "{{ a }} and {{ b }}, {{ n }}, {{ d }}, {{ links.unsubscribe }} {{ sender.name }}",
    "{% if a %}Dear {{ a }}{% else %}Hello{% endif %}",
    "{{ a or b or 'nobody' }}{{ a and b }}{{ not a }}",
    "{{ n | money }} {{ n | number }} {{ n | percent }} {{ d | date }}",
    "{{ a | upper }}{{ a | lower | capitalize }}{{ a | trim }}{{ a | length }}",
    "{% if a | length > 5 %}long{% endif %}{% if a | trim | upper == 'ANNA' %}A{% endif %}",
    "{% if n != 1 %}s{% endif %}{{ (n | number) ~ ' coins' if n != 1 else '1 coin' }}",
    "{% if n > 2 and n <= 10 or a == b %}x{% endif %}{{ n == n }}{{ 1 < n < 5 }}",
    "{% if a in ['Anna', b] %}x{% endif %}{% if 'nn' in a %}y{% endif %}{{ a not in [b] }}",
    "{{ a ~ ' & ' ~ b }}{{ 'x' ~ a }}",
    "{% set x = a %}{% if x == 'Anna' %}{{ x }}{% endif %}{% set y %}<{{ a }}>{% endset %}{{ y }}{{ y ~ a }}",
    "{% for x in ['one', 'two'] %}{{ loop.index }}{{ x }}{{ a }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for x in [a, b] if x != 'Anna' %}{{ x }}{% else %}none{% endfor %}",
    "{% with x = b %}{% if x %}{{ x }}{% endif %}{% endwith %}",
    "{% from 'macros.html' import show, wrap %}{{ show(a) }}{% call wrap() %}{{ a }}<b>{{ show(b) }}</b>{% endcall %}",
    "{% from 'macros.html' import guess, loud as l %}{{ guess(a) }}{{ guess('Anna') }}{{ l(a, y=b) }}",
    "{% extends 'layout.html' %}{% block head %}{{ super() }}{{ super() }}{% endblock %}{% block body %}{{ b }}{% endblock %}",
    "{% include 'piece.txt' %}{{ b }}",
    "{{ m or 'friend' }}{% if m %}{{ m }}{% endif %}{{ m | default('friend') }}",
    "{{ a | default(b, true) }}{{ m is defined }}{{ a is none }}",
    "{% if a %}{% for x in [n | money] %}{{ loop.index }}{% endfor %}{% endif %}",
    "{% if r is defined %}{{ r }}{% endif %}{{ r | default(a) }}",
)

PEOPLE = (
    *(person(a=a, b=b) for a in ("Ben", "Anna", "", "\ue0f0<aZ0>\ue0f1", "<&>\"'") for b in ("Bo", "", "Anna")),
    *(person(n=Decimal(n)) for n in ("0", "1", "-2.5", "1000000")),
    person(a="\ue0f0&lt;aZ1&gt;\ue0f1", b="\x00\u00df\U0001f600", d=date(1, 1, 1), n=7),
    person(a="\ud800", n=Decimal("1E+40")),
    person(a=Markup("<b>"), b=None),
    person(a=["Anna"], n=True, d="2026-11-23"),
    {key: value for key, value in person().items() if key != "a"},
)


@pytest.mark.parametrize("source", [*INSPECTING, *UNTRACEABLE, *TRACEABLE])
def test_a_compiled_path_gives_the_template_s_own_output(source: str) -> None:
    assert_equal_output(SpecialiserSetup(source), (*PEOPLE, *PEOPLE))


@pytest.mark.parametrize("source", INSPECTING)
def test_a_template_that_inspects_output_is_not_traceable(source: str) -> None:
    assert not is_traceable(SpecialiserSetup(source).env.get_template("t.html"))


@pytest.mark.parametrize("source", UNTRACEABLE)
def test_an_untraceable_template_is_rendered_by_jinja(source: str) -> None:
    setup = SpecialiserSetup(source)
    assert result_of(lambda: setup.write(person())) == result_of(lambda: setup.plan().texts(person()))
    assert setup.specialiser.paths == 1
    setup.postprocess = {"t.txt": str.upper}  # shows that no path is stored: postprocessing has an effect
    assert result_of(lambda: setup.write(person())) == result_of(lambda: setup.plan().texts(person()))


@pytest.mark.parametrize("source", TRACEABLE)
def test_people_with_the_same_answers_share_a_path(source: str) -> None:
    setup = SpecialiserSetup(source)
    first, second = setup.write(person()), setup.write(person(a="Bea", d=date(2027, 1, 1)))
    assert first.path is second.path is not None
    assert setup.specialiser.paths == 1


NAMES = st.sampled_from(
    ["a", "a", "b", "x", "x", "n", "(n | money)", "(d | date)", "(m or b)", "links.unsubscribe", "sender.name", "'Anna'"]
)

TESTS = st.sampled_from(["{} == 'Anna'", "{}", "not {}", "n > 2 and {}", "{} is defined", "{} in ['Anna', b]", "{} != x"])


def traceable_expression(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Traceable expressions, composed of smaller ones."""
    filters = ["upper", "trim", "length", "default('z')", "default(a, true)", "capitalize", "lower"]
    return st.one_of(
        st.builds("({} | {})".format, inner, st.sampled_from(filters)),
        st.builds("({} {} {})".format, inner, st.sampled_from(["or", "and", "=="]), inner),
        st.builds(lambda test, a, b, c: f"({a} if {test.format(b)} else {c})", TESTS, inner, inner, inner),
    )


def any_expression(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions that may inspect output."""
    rendered = st.sampled_from(["({} ~ b)", "(a ~ {})", "show({})", "guess({})", "({} | first)", "({} | join('-'))"])
    return traceable_expression(inner) | st.builds(str.format, rendered, inner)


def statements(expressions: st.SearchStrategy[str], captured: str) -> st.SearchStrategy[str]:
    """Sources with these expressions; `captured` is the name of a captured block."""

    def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("{}{}".format, inner, inner),
            st.builds(
                lambda test, e, a, b: f"{{% if {test.format(e)} %}}{a}{{% else %}}{b}{{% endif %}}",
                TESTS,
                expressions,
                inner,
                inner,
            ),
            st.builds("{{% for x in [{}, 'two', {}] %}}{{{{ loop.index }}}}{}{{% endfor %}}".format, expressions, NAMES, inner),
            st.builds(lambda a, b: f"{{% set {captured} %}}{a}{{% endset %}}{b}{{{{ {captured} }}}}", inner, inner),
            st.builds("{{% set x = {} %}}{}".format, expressions, inner),
            st.builds("{{% with x = {} %}}{}{{% endwith %}}".format, expressions, inner),
            st.builds("{{% call wrap() %}}{}{{% endcall %}}".format, inner),
        )

    shown = st.sampled_from(["{{{{ {} }}}}", "{{{{ {} ~ ' & ' ~ b }}}}", "{{{{ show({}) }}}}", "{{{{ guess({}) }}}}"])
    leaves = st.builds(str.format, shown, expressions) | st.sampled_from(["<b>", " & ", "<aZ0>"])
    return st.recursive(leaves, nested, max_leaves=5)


TRACEABLE_SOURCES = statements(st.recursive(NAMES, traceable_expression, max_leaves=4), "y")

ANY_SOURCES = statements(st.recursive(NAMES, any_expression, max_leaves=4), "x")

SOURCES = TRACEABLE_SOURCES | ANY_SOURCES | ANY_SOURCES.map("{{% filter upper %}}{}{{% endfilter %}}".format)

HOSTILE = st.sampled_from(["Anna", "", "<&\"'>", "\ue0f0<aZ0>\ue0f1", "&amp;", "n", " \u00df\u0130 ", "\U0001f600" * 40]) | st.text(
    max_size=6
)

NUMBERS = st.sampled_from([Decimal(0), Decimal(1), Decimal("-2.50"), 3])

STRANGE = {"a": st.none() | HOSTILE.map(Markup) | st.booleans(), "n": st.just(2.5), "d": st.just("x")}

PERSONS = st.one_of(
    *[st.fixed_dictionaries({"links.unsubscribe": HOSTILE, "a": HOSTILE, "b": HOSTILE, "n": NUMBERS, "d": st.dates()})] * 4,
    st.fixed_dictionaries({"links.unsubscribe": HOSTILE, "b": HOSTILE}, optional=STRANGE),
)


@given(SOURCES, st.lists(PERSONS, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_template_and_data_give_the_same_text_or_error(source: str, people: list[dict[str, Any]]) -> None:
    setup = SpecialiserSetup("{% from 'macros.html' import show, guess, wrap %}{% set x = b %}" + source)
    assert_equal_output(setup, (*people, *({**one, **another} for one in people for another in people)))


# -- checks at run time ------------------------------------------------------------------------------------------------


def test_a_path_that_fails_for_hostile_values_is_not_used() -> None:
    for length in (8, 800):
        setup = SpecialiserSetup("{{ a }} and {{ b }}")
        setup.postprocess = {
            "t.txt": lambda text, length=length: text[:length]
        }  # not character by character, which a postprocess must be
        assert setup.write(person()).path is None
        assert_equal_output(setup, PEOPLE)


def test_text_that_is_not_unicode_makes_no_path() -> None:
    setup = SpecialiserSetup("x {{ a }}")
    setup.postprocess = {"t.txt": lambda text: text.replace("x", "\ud800")}
    assert setup.write(person()).path is None


@pytest.mark.parametrize(
    "operation", [repr, hash, len, iter, int, float, lambda x: x[0], lambda x: x + 1, lambda x: x(), lambda x: x < "\ue0f0"]
)
def test_a_traced_value_refuses_what_it_cannot_record(operation: Callable[[Any], Any]) -> None:
    (traced,) = Trace({"a": "Anna"}).context().values()
    with pytest.raises((Untraceable, TypeError)):
        operation(traced)


def test_a_later_difference_disables_paths_and_logs_no_value() -> None:
    setup, suffix = SpecialiserSetup("{{ a }}", random=ALWAYS), ["first"]
    setup.postprocess = {"t.txt": lambda text: f"{text}"}
    assert setup.write(person(a="Secret")).path is not None
    setup.postprocess = {"t.txt": lambda text: text + suffix[0]}  # the result of the template changes
    with capture_logs() as logs:
        assert setup.write(person(a="Secret")).texts()["t.txt"] == "Secretfirst"
    assert [(entry["event"], entry["template"], entry["digest"]) for entry in logs] == [("specialised_text_differs", "t", "digest")]
    assert "Secret" not in str(logs)
    assert setup.specialiser.disabled
    assert setup.write(person()).path is None


def test_a_later_error_counts_as_a_difference() -> None:
    setup = SpecialiserSetup("{{ a }}", random=ALWAYS)
    assert setup.write(person()).path is not None
    setup.postprocess = {"t.txt": int}
    with capture_logs() as logs, pytest.raises(ValueError, match="int"):
        setup.write(person())
    assert [entry["event"] for entry in logs] == ["specialised_text_differs"]


def test_most_texts_are_rendered_once() -> None:
    setup = SpecialiserSetup("{{ a }}", random=0.5)
    setup.write(person())
    setup.postprocess = {"t.txt": str.upper}
    assert setup.write(person()).path is not None


def test_the_number_of_paths_is_limited() -> None:
    setup = SpecialiserSetup("".join(f"{{% if a == '{number}' %}}{number}{{% endif %}}" for number in range(20)), paths_max=8)
    assert_equal_output(setup, [person(a=str(number)) for number in range(20)])
    assert setup.specialiser.paths == 8


def test_a_path_stores_text_and_never_values() -> None:
    setup = SpecialiserSetup("{% if a == 'Anna' or n > 2 %}{{ a }}{{ a | upper }}{{ n | money }}{% endif %}")
    rendered = setup.write(person(a="Zephyrine", n=Decimal(917263)))
    assert rendered.path is not None
    assert not any(value in repr(rendered.path) for value in ("Zephyrine", "ZEPHYRINE", "917263", "bank.example"))
