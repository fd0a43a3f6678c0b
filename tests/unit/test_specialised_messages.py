"""Messages of the shipped templates along compiled paths: equal to those by Jinja, and prechecked correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markupsafe import escape

from channels.base import Channel, MailTemplate, MergedEmail, TextTemplate
from dispatcher.content import Catalog, ContentRefusal, MessageLinks, RenderRequest, Template, example_request
from dispatcher.content.guard import ContentRequirements, failed_check
from dispatcher.content.path_check import GapRoles, precheck
from dispatcher.domain.recipient import LANGUAGES
from tests.support.services import specialised_templates, templates

# -- whole messages ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def specialised() -> Catalog:
    return specialised_templates(lambda: 1.0)  # never renders a text both ways


def render_result(template: Template, request: RenderRequest) -> Any:
    try:
        content = template.render(request)
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
def render_requests(draw: st.DrawFn, name: str) -> RenderRequest:
    """A render request from a template's examples, with some values replaced or removed."""
    template = templates()[name]
    modes = sorted(template.info.modes)
    request = example_request(
        template, draw(st.sampled_from(template.channels)), draw(st.sampled_from(LANGUAGES)), draw(st.sampled_from(modes))
    )
    changed_names = draw(st.lists(st.sampled_from(sorted(template.variables)), max_size=4))
    data = {variable: draw(st.none() | VALUES[template.variables[variable].type]) for variable in changed_names}
    categories = request.categories - draw(st.sampled_from([frozenset(), frozenset(), frozenset({"identity"}), request.categories]))
    links = draw(
        st.sampled_from(
            [
                request.links,
                MessageLinks("http://127.0.0.1/u/a?x=1&y", "http://127.0.0.1/p/a"),
                MessageLinks("", ""),
                MessageLinks("https://b.example/u=", "x"),
            ]
        )
    )
    return replace(request, data={**request.data, **data}, categories=categories, links=links)


@pytest.mark.parametrize("name", sorted(templates()))
def test_specialised_messages_equal_jinja_s_messages(name: str) -> None:
    @given(render_requests(name))
    @settings(max_examples=60, deadline=None)
    def equal(request: RenderRequest) -> None:
        assert render_result(specialised()[name], request) == render_result(templates()[name], request)

    equal()


@pytest.mark.parametrize("name", sorted(templates()))
def test_shipped_mails_use_compiled_paths(name: str) -> None:
    template = specialised()[name]
    for language in LANGUAGES:
        for mode in template.info.modes:
            mail = template.render(example_request(template, Channel.EMAIL, language, mode))
            second = template.render(example_request(template, Channel.EMAIL, language, mode, {"first_name": "Noor"}))
            assert isinstance(mail, MergedEmail)
            assert isinstance(second, MergedEmail)
            assert mail.template is second.template


# -- the precheck ------------------------------------------------------------------------------------------------------


GAP_NAMES = ("hobby", "url", "unsubscribe", "preferences")

SOUND = ("WARNING MARK SENDER ", '<a href="', "{unsubscribe}", '">x</a>')

CLAUSES: tuple[tuple[str, ...], ...] = (
    *((word,) for word in ('href="', '"', "h", "ref", "=", "https:", "//p.example/", "javascript:", " ", "https://p.example/?q")),
    *((f"{{{name}}}",) for name in GAP_NAMES),
    *(('<a href="', f"{{{name}}}", '">') for name in GAP_NAMES),
    ('<a href="https://p.example/', "{hobby}", '">'),
    ('<a href="', "{unsubscribe}", 'x">'),
    ('<img src="', "{url}", "?", "{hobby}", '">'),
    ('<p title="h', "{hobby}", '="javascript:">'),
    ('<p title="', "{hobby}", '">javascript:"'),
    ("<p class=href=", "{hobby}", '"javascript:"'),
    ('<a href="https:\0', "{hobby}", '">'),
    ("see https://p.example/", "{hobby}"),
)

GAP_VALUES = (
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
        if piece[1:-1] in GAP_NAMES:
            gaps.append(first + GAP_NAMES.index(piece[1:-1]))
            words.append("")
        else:
            words[-1] += piece
    return TextTemplate(tuple(words), tuple(gaps))


PIECES = st.lists(st.sampled_from(CLAUSES), max_size=4).map(lambda clauses: [piece for clause in clauses for piece in clause])

HARMLESS = {"hobby": "roeien", "url": "https://p.example/x", "unsubscribe": "https://own.example/u?1", "preferences": "x"}


@example(['<a href="https://p.example/', "{hobby}", '">'], [], HARMLESS, True, 4)
@example(['<a href="https:\0', "{hobby}", '">'], [], HARMLESS, True, 4)
@example([], ["="], HARMLESS | {"unsubscribe": "https://p.example/?q"}, True, 4)
@example(['<a href="javascript:x">'], [], HARMLESS, False, 4)
@example(['<a href="', "{preferences}", 'x">'], [], HARMLESS, False, 4)
@example(['<p title="h', "{hobby}", '="javascript:">'], [], HARMLESS | {"hobby": "ref"}, False, 4)
@given(
    PIECES,
    PIECES,
    st.fixed_dictionaries({name: st.sampled_from(GAP_VALUES) for name in GAP_NAMES}),
    st.booleans(),
    st.sampled_from(range(5)),
)
@settings(max_examples=400, deadline=None)
def test_the_precheck_passes_only_what_the_guard_passes(
    html: list[str], text: list[str], gap_values: dict[str, str], to_partner: bool, left_out: int
) -> None:
    parts = [piece for number, piece in enumerate(SOUND) if number != left_out]
    form = MailTemplate(
        gapped(["Hello"], 0), gapped([*parts, *html], 4), gapped(["WARNING MARK SENDER ", "{unsubscribe}", *text], 0)
    )
    values = (*(gap_values[name] for name in GAP_NAMES), *(str(escape(gap_values[name])) for name in GAP_NAMES))
    mail = MergedEmail("S", "s@x.example", form, values)
    links = MessageLinks(gap_values["unsubscribe"], gap_values["preferences"])
    hobby = {"hobby": "roeien"}
    requirements = ContentRequirements(
        True, "WARNING", "MARK", "SENDER", links, to_partner, frozenset({"own.example"}), ("hobby",), hobby
    )
    unsubscribe, preferences = (4 + GAP_NAMES.index(name) for name in ("unsubscribe", "preferences"))
    roles = GapRoles(frozenset(range(4, 8)), frozenset({unsubscribe}), frozenset({preferences}), frozenset({unsubscribe - 4}))
    path_check = precheck(form, requirements, roles)
    if path_check is not None and path_check.passes(mail, lambda: requirements):
        assert failed_check(mail, "", requirements) is None


def test_the_precheck_rejects_values_that_are_not_escaped() -> None:
    link, unsubscribe = ('<a href="', "{unsubscribe}", '">x</a>'), GAP_NAMES.index("unsubscribe")
    text = gapped(["{unsubscribe}"], 0)
    requirements = ContentRequirements(True, "", "", "", MessageLinks("https://own.example/u", ""))
    roles = GapRoles(frozenset({4 + unsubscribe}), frozenset({4 + unsubscribe}), frozenset(), frozenset({unsubscribe}))
    parts = gapped(link, 4)
    raw = TextTemplate((*parts.literals, ""), (*parts.gaps, GAP_NAMES.index("hobby")))
    assert precheck(MailTemplate(text, parts, text), requirements, roles)
    assert precheck(MailTemplate(text, raw, text), requirements, roles) is None


@pytest.mark.parametrize("name", sorted(templates()))
def test_shipped_mails_pass_the_precheck(name: str) -> None:
    template = specialised()[name]
    request = example_request(template, Channel.EMAIL, "fr", max(template.info.modes))
    values = template.values(request)
    rendered = template.render_parts(request, values)
    mail = template.render(request)
    assert isinstance(mail, MergedEmail)
    assert rendered.path
    assert rendered.path.attachment.path_check.passes(mail, lambda: template.requirements(request, values))
