"""Texts written along a known path are, byte for byte, what the template itself writes; where that is not sure, it writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup, escape
from structlog.testing import capture_logs

from channels.base import Channel, MailTemplate, MergedEmail, TextTemplate
from dispatcher.content import Catalog, ContentRefusal, MessageLinks, RenderRequest, Template, example_request, load
from dispatcher.content.environment import absent, environment
from dispatcher.content.guard import ContentRequirements, GapRoles, objection, precheck
from dispatcher.content.specialiser.compiled_path import RenderPlan, Texts
from dispatcher.content.specialiser.decision_tree import RenderedParts, Specialiser
from dispatcher.content.specialiser.syntax_check import followable
from dispatcher.content.specialiser.tracer import Trace, Untraceable
from dispatcher.domain.recipient import LANGUAGES
from tests.support.services import TEMPLATES, templates

NEVER, ALWAYS = 1.0, 0.0  # dice: no text is written both ways, every text is

MACROS = """\
{% macro show(it) %}<i>{{ it }}</i>{% endmacro %}
{% macro guess(who) %}{% if who == "Anna" %}it is{% else %}{{ who }}{% endif %}{% endmacro %}
{% macro wrap() %}<p>{{ caller() }}</p>{% endmacro %}
{% macro loud(x, y="Anna") %}{{ x | upper }}{% if y %}{{ y }}{% endif %}{% endmacro %}
"""
LAYOUT = "<head>{% block head %}{{ a }}{% endblock %}</head>{% block body %}{% endblock %}{% if sender.name %}!{% endif %}"
PIECE = "{% if a %}[{{ a }}]{% endif %}"


class SpecialiserSetup:
    """One template of two parts (HTML and plain), and the paths that its readers have left."""

    def __init__(self, source: str, random: float = NEVER, **options: Any) -> None:
        sources = dict.fromkeys(("t.html", "t.txt"), source)
        self.env = environment(
            {**sources, "macros.html": MACROS, "layout.html": LAYOUT, "piece.txt": PIECE, "names.txt": "{% set name = a ~ '' %}"}
        )
        self.specialiser = Specialiser("t", "digest", lambda: random, **options)
        self.finish: Any = {}

    def plan(self) -> RenderPlan:
        return RenderPlan({name: self.env.get_template(name) for name in ("t.html", "t.txt")}, context, self.finish)

    def write(self, values: Mapping[str, Any]) -> RenderedParts:
        return self.specialiser.write("key", values, self.plan)


def context(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a template is told: the values, a constant, and names whose values are absent."""
    missing = {name: absent(name, UndefinedError, required=name == "r") for name in ("m", "r")}
    links = {"unsubscribe": values["links.unsubscribe"]}
    return {**missing, **values, "language": "nl", "mode": "tailored", "sender": {"name": "Bank & Co"}, "links": links}


def person(**changes: Any) -> dict[str, Any]:
    base = {"a": "Ben", "b": "Bo", "n": Decimal(3), "d": date(2026, 11, 23), "links.unsubscribe": "https://bank.example/u/1?a&b"}
    return base | changes


def outcome(texts: Any) -> Texts | type[Exception]:
    """What a call wrote, or which error it made."""
    try:
        found = texts()
        return found.texts() if isinstance(found, RenderedParts) else dict(found)
    except Exception as error:
        return type(error)


def assert_alike(setup: SpecialiserSetup, people: Iterable[Mapping[str, Any]]) -> None:
    for values in people:
        ordinary = outcome(lambda values=values: setup.plan().texts(values))
        assert outcome(lambda values=values: setup.write(values)) == ordinary


# -- byte for byte -----------------------------------------------------------------------------------------------------

# These look at written text, or do what can't be followed: run once with marks in the place of values, each would go wrong.
NASTY = (
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
# These look harmless, and turn out otherwise when they are followed.
DECEPTIVE = (
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
# These can be followed, and must be: they are what templates are made of.
FOLLOWED = (
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


@pytest.mark.parametrize("source", [*NASTY, *DECEPTIVE, *FOLLOWED])
def test_a_path_is_taken_only_where_it_writes_what_the_template_writes(source: str) -> None:
    assert_alike(SpecialiserSetup(source), (*PEOPLE, *PEOPLE))


@pytest.mark.parametrize("source", NASTY)
def test_what_looks_at_written_text_is_known_by_its_syntax(source: str) -> None:
    assert not followable(SpecialiserSetup(source).env.get_template("t.html"))


@pytest.mark.parametrize("source", DECEPTIVE)
def test_what_can_t_be_followed_is_written_by_its_template(source: str) -> None:
    setup = SpecialiserSetup(source)
    assert outcome(lambda: setup.write(person())) == outcome(lambda: setup.plan().texts(person()))
    assert setup.specialiser.paths == 1
    setup.finish = {"t.txt": str.upper}  # no path was kept that could have spared the finish
    assert outcome(lambda: setup.write(person())) == outcome(lambda: setup.plan().texts(person()))


@pytest.mark.parametrize("source", FOLLOWED)
def test_people_with_the_same_answers_share_a_path(source: str) -> None:
    setup = SpecialiserSetup(source)
    first, second = setup.write(person()), setup.write(person(a="Bea", d=date(2027, 1, 1)))
    assert first.path is second.path is not None
    assert setup.specialiser.paths == 1


NAMES = st.sampled_from(
    ["a", "a", "b", "x", "x", "n", "(n | money)", "(d | date)", "(m or b)", "links.unsubscribe", "sender.name", "'Anna'"]
)
TESTS = st.sampled_from(["{} == 'Anna'", "{}", "not {}", "n > 2 and {}", "{} is defined", "{} in ['Anna', b]", "{} != x"])


def tame(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions out of smaller ones, that give values as templates do."""
    filters = ["upper", "trim", "length", "default('z')", "default(a, true)", "capitalize", "lower"]
    return st.one_of(
        st.builds("({} | {})".format, inner, st.sampled_from(filters)),
        st.builds("({} {} {})".format, inner, st.sampled_from(["or", "and", "=="]), inner),
        st.builds(lambda test, a, b, c: f"({a} if {test.format(b)} else {c})", TESTS, inner, inner, inner),
    )


def wild(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions that may look at what was written."""
    written = st.sampled_from(["({} ~ b)", "(a ~ {})", "show({})", "guess({})", "({} | first)", "({} | join('-'))"])
    return tame(inner) | st.builds(str.format, written, inner)


def statements(expressions: st.SearchStrategy[str], captured: str) -> st.SearchStrategy[str]:
    """Texts with these expressions; `captured` is the name that holds written text."""

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


TAME = statements(st.recursive(NAMES, tame, max_leaves=4), "y")
WILD = statements(st.recursive(NAMES, wild, max_leaves=4), "x")
SOURCES = TAME | WILD | WILD.map("{{% filter upper %}}{}{{% endfilter %}}".format)
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
def test_any_template_and_any_data_give_the_same_text_or_the_same_error(source: str, people: list[dict[str, Any]]) -> None:
    setup = SpecialiserSetup("{% from 'macros.html' import show, guess, wrap %}{% set x = b %}" + source)
    assert_alike(setup, (*people, *({**one, **another} for one in people for another in people)))


# -- the checks that stay ----------------------------------------------------------------------------------------------


def test_a_path_that_does_not_hold_for_hostile_values_is_not_taken() -> None:
    for length in (8, 800):
        setup = SpecialiserSetup("{{ a }} and {{ b }}")
        setup.finish = {"t.txt": lambda text, length=length: text[:length]}  # not character by character, as a finish has to be
        assert setup.write(person()).path is None
        assert_alike(setup, PEOPLE)


def test_words_that_are_no_unicode_make_no_path() -> None:
    setup = SpecialiserSetup("x {{ a }}")
    setup.finish = {"t.txt": lambda text: text.replace("x", "\ud800")}
    assert setup.write(person()).path is None


@pytest.mark.parametrize(
    "ask", [repr, hash, len, iter, int, float, lambda x: x[0], lambda x: x + 1, lambda x: x(), lambda x: x < "\ue0f0"]
)
def test_what_a_value_can_t_note_it_does_not_answer(ask: Callable[[Any], Any]) -> None:
    (traced,) = Trace({"a": "Anna"}).context().values()
    with pytest.raises((Untraceable, TypeError)):
        ask(traced)


def test_a_difference_found_later_ends_it_and_tells_a_person_without_a_value() -> None:
    setup, words = SpecialiserSetup("{{ a }}", random=ALWAYS), ["first"]
    setup.finish = {"t.txt": lambda text: f"{text}"}
    assert setup.write(person(a="Secret")).path is not None
    setup.finish = {"t.txt": lambda text: text + words[0]}  # the world has changed behind the template's back
    with capture_logs() as logs:
        assert setup.write(person(a="Secret")).texts()["t.txt"] == "Secretfirst"
    assert [(entry["event"], entry["template"], entry["digest"]) for entry in logs] == [("specialised_text_differs", "t", "digest")]
    assert "Secret" not in str(logs)
    assert setup.specialiser.off
    assert setup.write(person()).path is None


def test_an_error_found_later_is_a_difference_too() -> None:
    setup = SpecialiserSetup("{{ a }}", random=ALWAYS)
    assert setup.write(person()).path is not None
    setup.finish = {"t.txt": int}
    with capture_logs() as logs, pytest.raises(ValueError, match="int"):
        setup.write(person())
    assert [entry["event"] for entry in logs] == ["specialised_text_differs"]


def test_most_texts_are_written_once() -> None:
    setup = SpecialiserSetup("{{ a }}", random=0.5)
    setup.write(person())
    setup.finish = {"t.txt": str.upper}
    assert setup.write(person()).path is not None


def test_paths_are_few_whatever_the_template_asks() -> None:
    setup = SpecialiserSetup("".join(f"{{% if a == '{number}' %}}{number}{{% endif %}}" for number in range(20)), paths_max=8)
    assert_alike(setup, [person(a=str(number)) for number in range(20)])
    assert setup.specialiser.paths == 8


def test_a_path_remembers_words_and_never_values() -> None:
    setup = SpecialiserSetup("{% if a == 'Anna' or n > 2 %}{{ a }}{{ a | upper }}{{ n | money }}{% endif %}")
    written = setup.write(person(a="Zephyrine", n=Decimal(917263)))
    assert written.path is not None
    assert not any(value in repr(written.path) for value in ("Zephyrine", "ZEPHYRINE", "917263", "bank.example"))


# -- whole messages ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def specialised() -> Catalog:
    return load(TEMPLATES, lambda: NEVER)


def said(template: Template, wanted: RenderRequest) -> Any:
    try:
        content = template.render(wanted)
        return content.assemble() if isinstance(content, MergedEmail) else content
    except ContentRefusal as refusal:
        return refusal.code, refusal.variable


TEXTS = st.sampled_from(
    [
        "Anna",
        "",
        "<b>\"'&",
        "x href=",
        "https://evil.example/?u=1",
        "\u202eleft",
        "Zo\u00eb \U0001f600",
        "a" * 1_001,
        "\ue0f0<aZ0>\ue0f1",
    ]
)
ADDRESSES = st.sampled_from(
    [
        "https://www.bank.example/x",
        "https://p.example/?a=1&b=2",
        "https://p.example/Anna",
        "javascript:x",
        "https://p.example/a=",
        "http://p.example",
    ]
)
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "text": TEXTS | st.text(max_size=5),
    "money": st.sampled_from([0, 1, 1.5, "12.50", "-3", "x", 10**12]),
    "number": st.sampled_from([0, 1, 2, 48.5, "7"]),
    "date": st.dates() | st.sampled_from(["2027-03-31", "tomorrow"]),
    "url": ADDRESSES,
}


@st.composite
def letters(draw: st.DrawFn, name: str) -> RenderRequest:
    """A letter from a template's examples, with some of its values replaced or taken away."""
    template = templates()[name]
    modes = sorted(template.info.modes)
    wanted = example_request(
        template, draw(st.sampled_from(template.channels)), draw(st.sampled_from(LANGUAGES)), draw(st.sampled_from(modes))
    )
    changed = draw(st.lists(st.sampled_from(sorted(template.variables)), max_size=4))
    data = {variable: draw(st.none() | VALUES[template.variables[variable].type]) for variable in changed}
    categories = wanted.categories - draw(st.sampled_from([frozenset(), frozenset(), frozenset({"identity"}), wanted.categories]))
    links = draw(
        st.sampled_from(
            [
                wanted.links,
                MessageLinks("http://127.0.0.1/u/a?x=1&y", "http://127.0.0.1/p/a"),
                MessageLinks("", ""),
                MessageLinks("https://b.example/u=", "x"),
            ]
        )
    )
    return replace(wanted, data={**wanted.data, **data}, categories=categories, links=links)


@pytest.mark.parametrize("name", sorted(templates()))
def test_every_message_is_what_its_template_writes_and_is_refused_alike(name: str) -> None:
    @given(letters(name))
    @settings(max_examples=60, deadline=None)
    def alike(wanted: RenderRequest) -> None:
        assert said(specialised()[name], wanted) == said(templates()[name], wanted)

    alike()


@pytest.mark.parametrize("name", sorted(templates()))
def test_shipped_mails_are_put_together_from_pieces(name: str) -> None:
    template = specialised()[name]
    for language in LANGUAGES:
        for mode in template.info.modes:
            mail = template.render(example_request(template, Channel.EMAIL, language, mode))
            retry_hint = template.render(example_request(template, Channel.EMAIL, language, mode, {"first_name": "Noor"}))
            assert isinstance(mail, MergedEmail)
            assert isinstance(retry_hint, MergedEmail)
            assert mail.template is retry_hint.template


# -- the guard ---------------------------------------------------------------------------------------------------------

NAMED = ("hobby", "url", "unsubscribe", "preferences")
SOUND = ("WARNING MARK SENDER ", '<a href="', "{unsubscribe}", '">x</a>')
CLAUSES: tuple[tuple[str, ...], ...] = (
    *((word,) for word in ('href="', '"', "h", "ref", "=", "https:", "//p.example/", "javascript:", " ", "https://p.example/?q")),
    *((f"{{{name}}}",) for name in NAMED),
    *(('<a href="', f"{{{name}}}", '">') for name in NAMED),
    ('<a href="https://p.example/', "{hobby}", '">'),
    ('<a href="', "{unsubscribe}", 'x">'),
    ('<img src="', "{url}", "?", "{hobby}", '">'),
    ('<p title="h', "{hobby}", '="javascript:">'),
    ('<p title="', "{hobby}", '">javascript:"'),
    ("<p class=href=", "{hobby}", '"javascript:"'),
    ('<a href="https:\0', "{hobby}", '">'),
    ("see https://p.example/", "{hobby}"),
)
TYPED = (
    "",
    "roeien",
    "href=",
    "x src=",
    "ref",
    "=",
    "https://p.example/x",
    "https://p.example/?q",
    "javascript:x",
    "'\"<",
    "https://p.example/=",
)


def gapped(pieces: Sequence[str], first: int) -> TextTemplate:
    """A text whose pieces in braces are gaps, numbered from `first`."""
    words, gaps = [""], []
    for piece in pieces:
        if piece[1:-1] in NAMED:
            gaps.append(first + NAMED.index(piece[1:-1]))
            words.append("")
        else:
            words[-1] += piece
    return TextTemplate(tuple(words), tuple(gaps))


PIECES = st.lists(st.sampled_from(CLAUSES), max_size=4).map(lambda clauses: [piece for clause in clauses for piece in clause])


HARMLESS = {"hobby": "roeien", "url": "https://p.example/x", "unsubscribe": "https://own.example/u?1", "preferences": "x"}


@example(['<a href="https://p.example/', "{hobby}", '">'], [], HARMLESS, True, 4)
@example(['<a href="https:\0', "{hobby}", '">'], [], HARMLESS, True, 4)
@example(['<a href="javascript:x">'], [], HARMLESS, False, 4)
@example(['<a href="', "{preferences}", 'x">'], [], HARMLESS, False, 4)
@example(['<p title="h', "{hobby}", '="javascript:">'], [], HARMLESS | {"hobby": "ref"}, False, 4)
@given(
    PIECES,
    PIECES,
    st.fixed_dictionaries({name: st.sampled_from(TYPED) for name in NAMED}),
    st.booleans(),
    st.sampled_from(range(5)),
)
@settings(max_examples=400, deadline=None)
def test_who_vouches_for_a_mail_says_no_more_than_the_guard(
    html: list[str], text: list[str], typed: dict[str, str], to_partner: bool, left_out: int
) -> None:
    sound = [piece for number, piece in enumerate(SOUND) if number != left_out]
    form = MailTemplate(
        gapped(["Hello"], 0), gapped([*sound, *html], 4), gapped(["WARNING MARK SENDER ", "{unsubscribe}", *text], 0)
    )
    values = (*(typed[name] for name in NAMED), *(str(escape(typed[name])) for name in NAMED))
    mail = MergedEmail("S", "s@x.example", form, values)
    own = frozenset({typed["unsubscribe"], typed["preferences"]})
    terms = ContentRequirements(
        True, "WARNING", "MARK", "SENDER", typed["unsubscribe"], own, to_partner, frozenset({"own.example"}), ("roeien",)
    )
    unsubscribe, preferences = (4 + NAMED.index(name) for name in ("unsubscribe", "preferences"))
    roles = GapRoles(frozenset(range(4, 8)), frozenset({unsubscribe}), frozenset({preferences}), frozenset({unsubscribe - 4}))
    voucher = precheck(form, terms, roles)
    if voucher is not None and voucher.passes(mail, lambda: terms):
        assert objection(mail, "", terms) is None


def test_nobody_vouches_for_a_value_that_html_does_not_escape() -> None:
    link, unsubscribe = ('<a href="', "{unsubscribe}", '">x</a>'), NAMED.index("unsubscribe")
    text = gapped(["{unsubscribe}"], 0)
    terms = ContentRequirements(True, "", "", "", "https://own.example/u")
    roles = GapRoles(frozenset({4 + unsubscribe}), frozenset({4 + unsubscribe}), frozenset(), frozenset({unsubscribe}))
    sound = gapped(link, 4)
    raw = TextTemplate((*sound.words, ""), (*sound.gaps, NAMED.index("hobby")))
    assert precheck(MailTemplate(text, sound, text), terms, roles)
    assert precheck(MailTemplate(text, raw, text), terms, roles) is None


@pytest.mark.parametrize("name", sorted(templates()))
def test_the_guard_vouches_for_the_mails_that_are_sent_every_day(name: str) -> None:
    template = specialised()[name]
    wanted = example_request(template, Channel.EMAIL, "fr", max(template.info.modes))
    values = template.values(wanted)
    written = template.written(wanted, values)
    mail = template.render(wanted)
    assert isinstance(mail, MergedEmail)
    assert written.path
    assert written.path.kept.voucher.passes(mail, lambda: template.terms(wanted, values))
