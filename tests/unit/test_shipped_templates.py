"""The shipped templates: each renders with all data that the policy allows, and meets the legal and technical requirements."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from channels.base import Channel, Email, Push, Sms, WhatsApp
from dispatcher import policy
from dispatcher.content import Catalog, ContentRefusal, RenderRequest, Template, count_segments, example_request, load
from dispatcher.content.legal import read_legal
from dispatcher.content.template import PLACEHOLDER
from dispatcher.delivery.whatsapp_texts import texts_of
from dispatcher.domain.message import Kind, Mode, OfferType
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.runtime.consistency import disagreements
from tests.support.services import shipped_templates

FOLDER = Path(__file__).parents[2] / "templates"
SHIPPED = {
    "loan_offer": ("commercial", OfferType.OWN, {Mode.TAILORED, Mode.STANDARD}),
    "insurance_offer": ("commercial", OfferType.OWN, {Mode.TAILORED, Mode.STANDARD}),
    "train_ticket": ("commercial", OfferType.PARTNER, {Mode.TAILORED, Mode.STANDARD}),
    "coin_offer": ("commercial", OfferType.KATE, {Mode.TAILORED}),
    "coin_earned": ("commercial", OfferType.KATE, {Mode.TAILORED}),
    "cashback_paid": ("service", None, {Mode.STANDARD}),
    "coin_conversion": ("service", None, {Mode.STANDARD}),
    "optout_acknowledgement": ("service", None, {Mode.STANDARD}),
    "choice_confirmation": ("service", None, {Mode.STANDARD}),
    "preference_link": ("service", None, {Mode.STANDARD}),
}
COUNTED = {"coin_offer": "coins", "coin_earned": "coins_earned", "cashback_paid": "coins_used", "coin_conversion": "coins_total"}
EVERY = [
    (name, channel, language, mode)
    for name, (_, _, modes) in SHIPPED.items()
    for channel in Channel
    for language in LANGUAGES
    for mode in sorted(modes)
]
every = pytest.mark.parametrize(("name", "channel", "language", "mode"), EVERY)
commercial = pytest.mark.parametrize("name", [name for name, (kind, _, _) in SHIPPED.items() if kind == "commercial"])
service = pytest.mark.parametrize("name", [name for name, (kind, _, _) in SHIPPED.items() if kind == "service"])


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return shipped_templates()


def allowed(template: Template, mode: Mode) -> frozenset[str]:
    """The data categories that the shipped policy allows for a template."""
    kind = "service" if template.info.kind is Kind.SERVICE else mode.value
    return policy.parse(policy.shipped()).categories[kind]


def render_request(template: Template, channel: Channel, language: Language, mode: Mode) -> RenderRequest:
    """A render request with the template's examples, limited to the data that the shipped policy allows."""
    return replace(example_request(template, channel, language, mode), categories=allowed(template, mode))


class Page(HTMLParser):
    """The structure of a mail: open tags, seen tags, attributes, links, and the visible text."""

    VOID = frozenset({"meta", "br", "img", "hr", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes.setdefault(tag, dict(attrs))
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += "" if "style" in self.open else data


def test_the_shipped_templates_are_these(catalog: Catalog) -> None:
    declared = {name: (t.info.kind.value, t.info.offer_type, set(t.info.modes)) for name, t in catalog.items()}
    assert declared == SHIPPED
    assert catalog["loan_offer"].info.topic == "consumer_credit"
    assert {name for name, template in catalog.items() if template.info.coins} == {"coin_offer", "coin_earned"}
    assert all(set(template.channels) == set(Channel) for template in catalog.values())
    assert catalog["optout_acknowledgement"].channels[0] is Channel.EMAIL


@every
def test_each_is_rendered_with_what_the_policy_allows(
    catalog: Catalog, name: str, channel: Channel, language: Language, mode: Mode
) -> None:
    content = catalog[name].render(render_request(catalog[name], channel, language, mode))
    shown = " ".join(str(getattr(content, each.name)) for each in fields(content) if each.name != "options")
    assert "None" not in shown
    assert "{{" not in shown
    assert "{%" not in shown


def test_an_acknowledgement_needs_no_data(catalog: Catalog) -> None:
    template = catalog["optout_acknowledgement"]
    for channel in Channel:
        for language in LANGUAGES:
            bare = replace(render_request(template, channel, language, Mode.NONE), data={}, categories=frozenset())
            assert template.render(bare)


@pytest.mark.parametrize("scope", ["own", "partner", "kate", "email", "push", "sms_whatsapp", "all"])
def test_an_acknowledgement_names_the_scope_of_the_opt_out(catalog: Catalog, scope: str) -> None:
    template = catalog["optout_acknowledgement"]
    request = render_request(template, Channel.EMAIL, "en", Mode.STANDARD)
    mail = template.render(replace(request, data={"scope": scope}))
    assert isinstance(mail, Email)
    words = {
        "own": "our own offers",
        "partner": "partners’ offers",
        "kate": "Kate Coins",
        "email": "e-mails",
        "push": "push",
        "sms_whatsapp": "WhatsApp",
    }
    assert words.get(scope, "receive commercial messages.") in mail.text
    assert words.get(scope, "receive commercial messages.") in mail.html


@pytest.mark.parametrize(("name", "language", "mode"), sorted({(name, language, mode) for name, _, language, mode in EVERY}))
def test_a_mail_is_a_whole_accessible_page(catalog: Catalog, name: str, language: Language, mode: Mode) -> None:
    template = catalog[name]
    mail = template.render(render_request(template, Channel.EMAIL, language, mode))
    assert isinstance(mail, Email)
    page = Page(mail.html)
    assert page.open == []
    assert page.attributes["html"]["lang"] == language
    assert page.seen.count("h1") == 1
    assert "title" in page.seen
    assert not {"script", "form"} & set(page.seen)
    logo = template.themes[template.entity].values(language)
    [picture] = page.pictures  # the same address for everybody, so it tells nobody who opened the mail
    assert [picture[name] for name in ("src", "alt", "width", "height")] == [
        logo[f"logo_{name}"] for name in ("url", "alt", "width", "height")
    ]
    assert page.attributes["meta"]["charset"] == "utf-8"
    assert 'name="color-scheme" content="light dark"' in mail.html
    assert template.themes[template.entity].imprint[language] in page.words
    assert template.themes[template.entity].imprint[language] in mail.text
    assert mail.html.count("<table") == mail.html.count('role="presentation"') + mail.html.count("<caption")
    assert mail.subject in page.words
    assert all(link.startswith("https://") for link in page.links)
    assert 7_000 < len(mail.html.encode()) < 22_000  # Gmail cuts a mail at 102 KB


@pytest.mark.parametrize("language", LANGUAGES)
def test_credit_is_never_advertised_without_its_warning(catalog: Catalog, language: Language) -> None:
    template = catalog["loan_offer"]
    file = "_shared/legal.toml"
    legal, _ = read_legal(file, {file: (FOLDER / file).read_text(encoding="utf-8")})
    warning = legal.topics["consumer_credit"][language]
    assert warning not in policy.shipped()  # the sentence is in one place only
    for mode in template.info.modes:
        mail, sms, push, whatsapp = (
            template.render(render_request(template, channel, language, mode))
            for channel in (Channel.EMAIL, Channel.SMS, Channel.PUSH, Channel.WHATSAPP)
        )
        assert isinstance(mail, Email)
        assert isinstance(sms, Sms)
        assert isinstance(push, Push)
        assert warning in mail.text
        assert warning in Page(mail.html).words
        assert warning.replace("û", "u") in sms.text  # the spelling of 1990, in the short alphabet
        assert warning in push.body
        assert warning in template.visible_text(whatsapp, render_request(template, Channel.WHATSAPP, language, mode))
        assert "%" not in sms.text + push.title + push.body  # a rate would require the representative example


def test_a_loan_shows_the_full_representative_example_or_no_rate(catalog: Catalog) -> None:
    template = catalog["loan_offer"]
    request = render_request(template, Channel.EMAIL, "en", Mode.STANDARD)
    complete = template.render(request)
    assert isinstance(complete, Email)
    assert all(figure in complete.text for figure in ("€10,000", "5.49%", "48 months", "€231.91", "€11,131.68"))
    parts = [name for name, variable in template.variables.items() if name.startswith("example_") or "rate" in name]
    assert len(parts) == 6
    for part in parts:
        partial = template.render(replace(request, data={**request.data, part: None}))
        assert isinstance(partial, Email)
        assert "%" not in partial.text
        assert "5.49%" not in partial.html


@commercial
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_commercial_message_has_its_unsubscribe_link(catalog: Catalog, name: str, language: Language) -> None:
    template = catalog[name]
    for mode in template.info.modes:
        request = render_request(template, Channel.EMAIL, language, mode)
        mail = template.render(request)
        assert isinstance(mail, Email)
        assert [header for header, _ in mail.headers] == ["List-Unsubscribe", "List-Unsubscribe-Post"]
        assert {request.links.unsubscribe, request.links.preferences} <= set(Page(mail.html).links)
        sms = template.render(replace(request, channel=Channel.SMS))
        assert isinstance(sms, Sms)
        assert request.links.unsubscribe in sms.text
        whatsapp = template.render(replace(request, channel=Channel.WHATSAPP))
        assert isinstance(whatsapp, WhatsApp)
        assert request.links.unsubscribe in whatsapp.variables.values()


@service
def test_a_service_mail_is_no_advertising(catalog: Catalog, name: str) -> None:
    template = catalog[name]
    request = render_request(template, Channel.EMAIL, "en", Mode.STANDARD)
    mail = template.render(request)
    assert isinstance(mail, Email)
    assert mail.headers == ()
    assert "Advertising" not in mail.html + mail.text
    assert "This is a service message, not advertising." in mail.text
    assert not {"offer_url", "valid_until"} & set(template.variables)  # it offers nothing
    assert request.links.unsubscribe not in mail.html + mail.text


@pytest.mark.parametrize(("name", "language", "mode"), sorted({(name, language, mode) for name, _, language, mode in EVERY}))
def test_an_sms_has_few_segments(catalog: Catalog, name: str, language: Language, mode: Mode) -> None:
    sms = catalog[name].render(render_request(catalog[name], Channel.SMS, language, mode))
    assert isinstance(sms, Sms)
    result = count_segments(sms.text)
    assert (result.encoding, result.forced_by) == ("GSM-7", "")
    assert result.count <= catalog[name].segments_max[language] <= 2


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", COUNTED)
def test_a_number_of_coins_has_its_grammar(catalog: Catalog, name: str, language: Language) -> None:
    template, variable = catalog[name], COUNTED[name]
    assert {0, 1} < set(template.variables[variable].samples)  # so that loading tries them
    for number, word in ((0, "Kate Coin" if language == "fr" else "Kate Coins"), (1, "Kate Coin"), (2, "Kate Coins")):
        for channel in Channel:
            request = render_request(template, channel, language, max(template.info.modes))
            request = replace(request, data={**request.data, variable: number, "coins_total": number})
            request = replace(request, data={each: request.data[each] for each in template.variables})
            content = template.render(request)
            shown = f"{content} {template.visible_text(content, request)}"
            for found in re.findall(r"(?<![0-9.,])(\d+) (Kate Coins?)\b", shown):
                assert found == (str(number), word)
            mail = template.render(replace(request, channel=Channel.EMAIL))
            assert isinstance(mail, Email)
            assert f"{number} {word}" in mail.text or not number


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_without_a_name_reads_well(catalog: Catalog, language: Language) -> None:
    for template in catalog.values():
        for channel, mode in product(Channel, template.info.modes):
            request = render_request(template, channel, language, mode)
            content = template.render(replace(request, data={**request.data, "first_name": None}))
            shown = f"{getattr(content, 'subject', '')} {getattr(content, 'text', '')} {template.visible_text(content, request)}"
            for bad in (" ,", "Dear ,", "Dear,", "Dag Dag", " !,", "  "):
                assert bad not in re.sub(r"\n", "|", shown.strip()), (template.name, channel)
            assert getattr(content, "subject", "A")[:1].isupper() or getattr(content, "subject", "1")[:1].isdigit()


def test_a_push_shows_no_amount_of_the_customer(catalog: Catalog) -> None:
    for name in ("cashback_paid", "coin_conversion", "coin_earned"):
        for language, mode in product(LANGUAGES, catalog[name].info.modes):
            push = catalog[name].render(render_request(catalog[name], Channel.PUSH, language, mode))
            assert isinstance(push, Push)
            shown = push.title + push.body
            assert "€" not in shown
            assert "23" not in shown  # the number of coins that the customer has


def test_whatsapp_texts_name_no_account_and_offers_have_a_stop(catalog: Catalog) -> None:
    approved = [
        text for template in catalog.values() for edition in template.languages.values() for text in edition.whatsapp.values()
    ]
    assert ({text.content_sid for text in approved}, len(approved)) == ({""}, 52)
    for template in catalog.values():
        payloads = [[button.payload for button in text.buttons] for _, _, text in texts_of(template)]
        assert payloads == [["STOP"] if template.info.kind is Kind.COMMERCIAL else []] * len(payloads)
    assert all(set(PLACEHOLDER.findall(text.text)) == set(text.placeholders) for text in approved)


@commercial
def test_standard_renderings_use_no_profile(catalog: Catalog, name: str) -> None:
    template = catalog[name]
    if Mode.STANDARD not in template.info.modes:
        return
    request = render_request(template, Channel.EMAIL, "fr", Mode.STANDARD)
    tailored = {name: "Zephyrine" for name, v in template.variables.items() if v.category not in request.categories}
    assert tailored
    assert "Zephyrine" not in str(template.render(replace(request, data={**request.data, **tailored})))
    assert template.categories(Mode.STANDARD) <= allowed(template, Mode.STANDARD)


@commercial
@pytest.mark.parametrize("value", ['"><img src=x onerror=alert(1)>', "a\r\nBcc: x@y.example", "{{ links }}", "&#x3c;b>"])
def test_hostile_values_stay_values(catalog: Catalog, name: str, value: str) -> None:
    template = catalog[name]
    texts: dict[str, Any] = {v.name: value for v in template.variables.values() if v.type == "text"}
    for mode in template.info.modes:
        request = render_request(template, Channel.EMAIL, "de", mode)
        plain, hostile = template.render(request), template.render(replace(request, data={**request.data, **texts}))
        assert isinstance(plain, Email)
        assert isinstance(hostile, Email)
        assert Page(hostile.html).seen == Page(plain.html).seen
        assert "\n" not in hostile.subject
        assert "\r" not in hostile.subject


def test_a_partner_s_link_carries_nothing_about_the_reader(catalog: Catalog) -> None:
    template = catalog["train_ticket"]
    for link in ("https://tickets.train.example/?c=1", "https://tickets.train.example/#1", "https://tickets.train.example/lotte"):
        request = render_request(template, Channel.EMAIL, "nl", Mode.TAILORED)
        with pytest.raises(ContentRefusal, match="content_guard: link_leak"):
            template.render(replace(request, data={**request.data, "offer_url": link}))


def test_templates_and_policy_agree(catalog: Catalog) -> None:
    rules = policy.parse(policy.shipped())
    assert disagreements(rules, catalog.values()) == []
    loan = catalog["loan_offer"]
    strange = replace(loan, entity="kbc-bnak", info=replace(loan.info, topic="gambling", product=None))
    request = [f"{fault.field} = {fault.value}: {fault.message}" for fault in disagreements(rules, [strange])]
    assert request[0] == "entity = kbc-bnak: is not in the policy; did you mean kbc-bank?"
    assert request[1].startswith("topic = gambling: is not in the policy")


def test_the_checks_of_a_start_use_no_path_of_a_template() -> None:
    """Each template has a limited number of compiled paths, for messages."""
    templates = load(FOLDER, lambda: 0.5).values()
    assert disagreements(policy.parse(policy.shipped()), templates) == []
    assert {each.specialiser.paths for each in templates if each.specialiser} == {0}


@pytest.mark.parametrize("topic", [None, "gambling"])
def test_an_offer_of_a_loan_must_declare_its_topic(catalog: Catalog, topic: str | None) -> None:
    loan = catalog["loan_offer"]
    bare = replace(loan, info=replace(loan.info, topic=topic))
    rules = policy.parse(policy.shipped())
    assert "must be 'consumer_credit': the policy demands it for offers of a loan" in {
        fault.message for fault in disagreements(rules, [bare])
    }
