"""Where links may lead, what they may say about the reader, and that a partner's link is the same for everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.base import Channel, Sms, WhatsApp
from channels.sms_segments import count_segments
from dispatcher.content import LinkHosts, Template, check, load
from dispatcher.content.guard import ContentRequirements, failed_check
from dispatcher.content.links import _SMS_REPLACEMENTS, gsm_typography, text_links, words_with_links
from dispatcher.content.render_request import MessageLinks
from dispatcher.domain.decision import ReasonCode
from dispatcher.intake.campaign import ValidationContext, parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import Trigger, parse_trigger
from dispatcher.policy.reading import parse, shipped
from dispatcher.runtime.consistency import disagreements
from tests.support.services import shipped_templates
from tests.support.template_folder import LINKS, SENDER, refusal, render_request, small_folder, write

HOSTS = LinkHosts(frozenset({"bank.example"}), {"partner.example": frozenset({"campaign"})})


def own_offer(folder: dict[str, str]) -> dict[str, str]:
    """The folder with an offer of the bank itself, to which the rules for partners did not apply."""
    folder["hello/template.toml"] = folder["hello/template.toml"].replace('"partner"', '"own"')
    return folder


@pytest.fixture(params=[False, True], ids=["jinja", "specialised"])
def template(request: pytest.FixtureRequest, tmp_path: Path) -> Template:
    random = (lambda: 1.0) if request.param else None
    return load(write(tmp_path, own_offer(small_folder())), random)["hello"]


def request_with(channel: Channel, **data: Any) -> Any:
    base = render_request(channel=channel, sender=replace(SENDER, hosts=HOSTS))
    return replace(base, data={**base.data, **data})


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize(
    ("link", "check_name"),
    [
        ("https://tracker.example/o.gif", "link_host"),
        ("https://bank.example.tracker.example/", "link_host"),
        ("https://notbank.example/", "link_host"),
        ("https://partner.example/?u=roeien", "link_leak"),
        ("https://partner.example/?campaign=1&u=2", "link_leak"),
        ("https://www.partner.example/a#2", "link_leak"),
        ("https://partner.example/roeien", "link_leak"),
    ],
)
def test_a_link_that_the_policy_does_not_allow_is_refused(template: Template, channel: Channel, link: str, check_name: str) -> None:
    for _ in range(2):
        assert refusal(template, request_with(channel, offer_url=link)) == (ReasonCode.CONTENT_GUARD, check_name)


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize(
    "link",
    [
        "https://bank.example",
        "https://www.bank.example/loan?c=1#x",
        "https://partner.example/boats",
        "https://www.partner.example/?campaign=7",
    ],
)
def test_own_links_and_partners_links_pass(template: Template, channel: Channel, link: str) -> None:
    for _ in range(2):
        assert template.render(request_with(channel, offer_url=link))


@pytest.mark.parametrize("channel", [Channel.EMAIL, Channel.SMS, Channel.PUSH])
def test_a_link_in_a_value_is_a_link(template: Template, channel: Channel) -> None:
    request = request_with(channel, hobby="roeien HTTPS://tracker.example/o", offer_url="https://bank.example/x")
    for _ in range(2):
        assert refusal(template, request) == (ReasonCode.CONTENT_GUARD, "link_host")


PARTNERS_LINKS = """
    www.partner.example/?u=42|partner.example/?u=42|PARTNER.example/?u=42|https:/partner.example/?u=42|//partner.example/?u=42
    ftp://partner.example/?u=42|intent://partner.example/?u=42#x|https：//partner.example/?u=42|http\\\\partner.example/?u=42
    https:\u200b//part\u00adner.example/?u=42|ht\u00adtps://partner.example/?u=42|partner。example/?u=42|ｐartner.example/?u=42
    partner.example./?u=42|partner.ex\u2060ample:443/?u=42|part\ufe0fner.example/?u=42
"""
FOREIGN_LINKS = """
    www.tracker.test|tracker.com/x|ftp://tracker.test/x|//tracker.test|bank.example.tracker.be/x|https:\u200b//tracker.example/o
    www.tracker\u2024test/x|https://bank.example@partner.example/x|https://partner.example@bank.example/x
    https://tracker.test\\@bank.example/x|https://tracker.test\\.bank.example/x|https://tracker.test%5c@bank.example/x
    https:\\tracker.test\\x|https:///tracker.test|https://tracker.test%2f.bank.example|http://[|https://[bank.example]@a/
"""
NO_LINKS = """
    Booking.com|en/of 12.000|s.v.p./n.v.t.|info@partner.example|1.250,50|partner.example|www.bank.example/a?b=c|bank.example/c-5.
    M.Janssens/P.Peeters|31.12.2026|https://bank.example/x?to=a.be/c
"""


def links(lines: str) -> list[str]:
    return [text.strip(" \n") for line in lines.split("\n") for text in line.split("|") if text.strip(" \n")]


@pytest.mark.parametrize("channel", [Channel.EMAIL, Channel.SMS, Channel.PUSH])
@pytest.mark.parametrize(
    ("link", "check_name"),
    [*((each, "link_leak") for each in links(PARTNERS_LINKS)), *((each, "link_host") for each in links(FOREIGN_LINKS))],
)
def test_a_link_needs_no_scheme_to_be_one(template: Template, channel: Channel, link: str, check_name: str) -> None:
    assert template.render(request_with(channel, hobby="zeil", offer_url="https://bank.example/x"))
    request = request_with(channel, hobby=f"zeil {link}", offer_url="https://bank.example/x")
    assert refusal(template, request) == (ReasonCode.CONTENT_GUARD, check_name)


@pytest.mark.parametrize("channel", [Channel.EMAIL, Channel.SMS, Channel.PUSH])
@pytest.mark.parametrize("text", links(NO_LINKS))
def test_a_name_or_number_with_dots_is_no_link(template: Template, channel: Channel, text: str) -> None:
    for _ in range(2):
        assert template.render(request_with(channel, hobby=f"zeil {text}", offer_url="https://bank.example/x"))


def test_a_link_of_text_and_value_is_refused(tmp_path: Path) -> None:
    files = own_offer(small_folder())
    branch = "{% if hobby == 'tracker' %}{{ hobby }}.example/c-5{% endif %}"
    files["hello/nl/email.txt"] += f"\n{{% if mode == 'tailored' %}}{branch}{{% endif %}}"
    template = load(write(tmp_path, files), lambda: 1.0)["hello"]
    request = request_with(Channel.EMAIL, offer_url="https://bank.example/x")
    assert template.render(request)
    for _ in range(2):
        assert refusal(template, replace(request, data={**request.data, "hobby": "tracker"})) == (
            ReasonCode.CONTENT_GUARD,
            "link_host",
        )


CAPITALS = "HTTPS://partner.example/?customer=42"


@pytest.mark.parametrize(
    ("channel", "old"),
    [
        (Channel.SMS, "{{ offer_url }} {{ warning }}"),
        (Channel.PUSH, '"{{ offer_url }}"'),
        (Channel.WHATSAPP, "Dear {{1}}, see {{2}} or {{3}}."),
    ],
)
def test_capitals_do_not_hide_a_partners_link(tmp_path: Path, channel: Channel, old: str) -> None:
    files = small_folder()
    texts = files["hello/fr/texts.toml"]
    assert old in texts
    new = f'"{CAPITALS}"' if channel is Channel.PUSH else f"{CAPITALS} {old}"
    if channel is Channel.WHATSAPP:
        new = old.replace("Dear", f"Dear {CAPITALS}")
    files["hello/fr/texts.toml"] = texts.replace(old, new)
    assert {fault.field for fault in check(write(tmp_path, files))} == {"link_leak"}


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("hello/fr/email.html", "<p title", '<img src="https://bank.example/o.gif?u={{ first_name }}" width="1">\n<p title', 4),
        ("hello/fr/email.html", "<p title", "{{ button('https://bank.example/?u=' ~ (hobby or '')) }}\n<p title", 4),
        ("hello/fr/email.html", "<p title", '<td background="https://bank.example/{{ first_name or 1 }}">x</td>\n<p title', 4),
        ("hello/fr/texts.toml", "{{ offer_url }} {{ warning }}", "HTTPS://bank.example/{{ hobby }} {{ warning }}", 11),
        ("hello/fr/texts.toml", 'link = "{{ offer_url }}"', 'link = "https://bank.example/?{{ first_name or 1 }}"', 4),
        ("hello/fr/email.txt", "{{ warning }}", "www.bank.example/{{ first_name or 1 }} {{ warning }}", 1),
    ],
)
def test_no_link_holds_data_about_the_person(tmp_path: Path, file: str, old: str, new: str, line: int) -> None:
    files = own_offer(small_folder())
    assert old in files[file]
    files[file] = files[file].replace("{% if mode == 'tailored' %}{{ hobby }}{% endif %}", "").replace(old, new, 1)
    if "hobby" in new:
        files["hello/template.toml"] = files["hello/template.toml"].replace('modes = ["tailored"]\n', "")
    faults = check(write(tmp_path, files))
    assert (file, line) in {(fault.file, fault.line) for fault in faults if "about the person" in fault.message}, faults


def test_the_check_names_a_host_that_the_policy_does_not_allow(tmp_path: Path) -> None:
    files = small_folder()
    files["hello/fr/email.html"] = files["hello/fr/email.html"].replace("<p title", '<img src="https://t.example/a.png">\n<p title')
    policy = parse(shipped())
    faults = disagreements(policy, load(write(tmp_path, files)).values())
    assert {(fault.file, fault.line, fault.value) for fault in faults} == {("hello/fr/email.html", 4, "https://t.example/a.png")}
    assert disagreements(parse(shipped()), shipped_templates().values()) == []


def test_hosts_in_the_policy_are_checked() -> None:
    with pytest.raises(ValueError, match=r"entities\.kbc-bank\.hosts.*without https"):
        parse(shipped().replace('hosts = ["bank.example"]', 'hosts = ["https://bank.example"]', 1))


def campaign(links: list[str], policy: str = "", partners: Sequence[str] = ()) -> list[Any]:
    """The rows of a campaign of a partner, with these links."""
    rows = [
        {
            "recipient": f"c-{number}",
            "data": {"partner": partners[number] if partners else "Train Shop", "discount": 40, "offer_url": link},
        }
        for number, link in enumerate(links)
    ]
    form: Mapping[str, Any] = {"id": "trains", "template": "train_ticket", "audience": rows}
    context = ValidationContext(shipped_templates(), parse(policy or shipped()), datetime(2026, 11, 23, tzinfo=UTC))
    return list(parse_campaign(form, context).audience)


def test_a_partners_link_is_the_same_for_the_whole_audience() -> None:
    train = "https://tickets.train.example/r"
    assert len(campaign([train, "HTTPS://Tickets.train.example/r", train])) == 3
    assert len(campaign([f"https://www.bank.example/{number}" for number in range(3)])) == 3
    with pytest.raises(BadInput) as caught:
        campaign([train, train, f"{train}/c-5", train, f"{train}?c=6"])
    assert [(error.line, error.field) for error in caught.value.faults] == [(3, "data.offer_url"), (5, "data.offer_url")]
    assert "line 1" in caught.value.faults[0].message


def test_the_policy_names_parameters_that_may_differ() -> None:
    policy = shipped().replace('"train.example" = []', '"train.example" = ["seat"]')
    links = [f"https://tickets.train.example/r?seat={number}&a=b" for number in range(3)]
    assert len(campaign(links, policy)) == 3
    with pytest.raises(BadInput):
        campaign([*links, "https://tickets.train.example/r?seat=1&a=c"], policy)


@pytest.mark.parametrize("gap", ["\n", "\t", "     ", " \r\n  ", "\u00a0" * 6])
def test_a_whatsapp_variable_has_no_blanks_that_meta_refuses(tmp_path: Path, gap: str) -> None:
    files = small_folder()
    texts = files["hello/nl/texts.toml"]
    quoted = '1 = "{{ sender.name }}"'
    files["hello/nl/texts.toml"] = texts.replace(quoted, f"1 = '''{{{{ sender.name }}}}{gap}x'''")
    content = load(write(tmp_path, files))["hello"].render(render_request(channel=Channel.WHATSAPP))
    assert isinstance(content, WhatsApp)
    value = content.variables["1"]
    assert value.split() == ["Bank", "&", "Co", "x"]
    assert not any(refused in value for refused in ("\n", "\t", "\r", " " * 5, "\u00a0" * 5))


@pytest.mark.parametrize("specialised", [False, True])
def test_characters_that_nobody_sees_leave_a_text_message(tmp_path: Path, specialised: bool) -> None:
    template = load(write(tmp_path, small_folder()), (lambda: 1.0) if specialised else None)["hello"]
    base = render_request(channel=Channel.SMS)
    request = replace(base, data={**base.data, "hobby": "roe\u200bi\u00aden\ufeff zee\u2011zeilen\u2060"})
    for _ in range(2):
        content = template.render(request)
        assert isinstance(content, Sms)
        assert "roeien zee-zeilen" in content.text
        assert count_segments(content.text).encoding == "GSM-7"


def test_own_links_of_the_reader_pass(template: Template) -> None:
    assert LINKS.unsubscribe.startswith("https://bank.example/")
    for channel in Channel:
        assert template.render(request_with(channel))


# -- links to partners that no audience can be compared with -----------------------------------------------------------

TRAIN = "https://tickets.train.example/weekend"


def trigger(**data: Any) -> Trigger:
    form = {"key": "k-1", "recipient": "c-1", "template": "train_ticket", "data": {"partner": "Train Shop", "discount": 40, **data}}
    return parse_trigger(form, ValidationContext(shipped_templates(), parse(shipped()), datetime(2026, 11, 23, tzinfo=UTC)))


def test_a_triggers_partner_links_are_listed_in_the_template() -> None:
    for link in (TRAIN, "HTTPS://Tickets.train.example/weekend", "https://www.bank.example/c-5"):
        assert trigger(offer_url=link).row.data["offer_url"] == link
    for data in (
        {"offer_url": f"{TRAIN}/c-5"},
        {"offer_url": "https://c-5.train.example/weekend"},
        {"offer_url": TRAIN, "partner": f"see {TRAIN}/c-5."},
    ):
        with pytest.raises(BadInput) as caught:
            trigger(**data)
        name = "partner" if "partner" in data else "offer_url"
        assert [error.field for error in caught.value.faults] == [f"data.{name}"]
        assert f"variables.{name}.links" in caught.value.faults[0].message


def test_a_link_inside_a_text_is_compared_too() -> None:
    assert len(campaign([TRAIN] * 3, partners=["Trains"] * 3)) == 3
    with pytest.raises(BadInput) as caught:
        campaign([TRAIN] * 3, partners=[f"Trains, {TRAIN}/{n}" for n in range(3)])
    assert [(error.line, error.field) for error in caught.value.faults] == [(2, "data.partner"), (3, "data.partner")]


HIDDEN = """
    https:\u200b//train.example/r/|ht\u00adtps://train.example/r/|www.train.example/r/|train.example/r/|https:/train.example/r/
    tr–ain.example/|//train.example/r/|ftp://train.example/r/|intent://train.example/r/|https：//train.example/r/
    train.example./r/|see TRAIN.example/|tr\u00adain.example/|tra\u200bin.example/
"""


@pytest.mark.parametrize("link", links(HIDDEN))
def test_a_partners_link_is_compared_as_it_is_read(link: str) -> None:
    policy = shipped().replace('"train.example" = []', '"train.example" = [], "tr-ain.example" = []')
    assert len(campaign([TRAIN] * 3, policy, partners=[f"Gent {link}c-2"] * 3)) == 3
    with pytest.raises(BadInput) as caught:
        campaign([TRAIN] * 3, policy, partners=[f"Gent {link}c-{n}" for n in range(3)])
    assert [error.line for error in caught.value.faults] == [2, 3]
    with pytest.raises(BadInput):
        trigger(offer_url=TRAIN, partner=f"Gent {link.replace('–', '')}c-2")


def test_a_name_within_a_partners_host_is_a_link() -> None:
    with pytest.raises(BadInput):
        campaign([TRAIN] * 2, partners=["c-1.train.example", "c-2.train.example"])


def test_the_name_of_a_partners_host_is_no_link() -> None:
    assert len(campaign([TRAIN] * 3, partners=["Train.example", "www.train.example", "Train"])) == 3
    assert trigger(offer_url=TRAIN, partner="Train.example")


@pytest.mark.parametrize("channel", Channel)
def test_a_partners_link_from_the_profile_must_be_listed(tmp_path: Path, channel: Channel) -> None:
    files = own_offer(small_folder())
    listed = 'links = ["https://partner.example/boats"]\nexample = "https://partner.example/boats"'
    files["hello/template.toml"] = files["hello/template.toml"].replace('example = "https://partner.example/boats"', listed)
    template = load(write(tmp_path, files))["hello"]
    base = request_with(channel)

    def from_profile(link: str) -> Any:
        data = {name: value for name, value in base.data.items() if name != "offer_url"}
        return replace(base, data=data, profile={"product": {"offer_url": link}})

    for link in ("https://partner.example/boats", "https://bank.example/c-5"):
        assert template.render(from_profile(link))
    assert refusal(template, from_profile("https://partner.example/c-5")) == (ReasonCode.CONTENT_GUARD, "partner_link")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('link = "{{ offer_url }}"', 'link = "https://tickets.train.example/{{ code }}"'),
        ("{{ button(offer_url) }}", '<a href="https://tickets.train.example/{{ code }}">x</a>'),
        ("{{ button(offer_url) }}", '<a href="https://{{ code }}.train.example/">x</a>'),
        ("{{ button(offer_url) }}", '{% set place = "r/" ~ code %}<a href="https://train.example/{{ place }}">x</a>'),
        ("{{ button(offer_url) }}", '<a href="https://train.example/{{ number }}">x</a>'),
    ],
)
def test_a_template_puts_no_value_into_a_partners_link(tmp_path: Path, old: str, new: str) -> None:
    files = small_folder()
    files["hello/template.toml"] += '\n[variables.code]\ncategory = "product"\nexample = "x"\n'
    files["hello/template.toml"] += '\n[variables.number]\ncategory = "product"\ntype = "number"\nexample = 7\n'
    assert disagreements(parse(shipped()), load(write(tmp_path, files)).values()) == []
    for file in ("hello/nl/texts.toml", "hello/nl/email.html"):
        files[file] = files[file].replace(old, new)
    faults = disagreements(parse(shipped()), load(write(tmp_path / "broken", files)).values())
    assert {fault.field for fault in faults if "the same for everybody" in fault.message} == {
        "number" if "number" in new else "code"
    }


@pytest.mark.parametrize(
    "links", ["[]", '"https://partner.example/"', '["http://partner.example/"]', str([f"https://p.example/{n}" for n in range(21)])]
)
def test_a_declaration_lists_a_few_links(tmp_path: Path, links: str) -> None:
    files = small_folder()
    files["hello/template.toml"] = files["hello/template.toml"].replace('type = "url"', f'type = "url"\nlinks = {links}')
    assert {fault.field for fault in check(write(tmp_path, files))} == {"variables.offer_url.links"}


PIECES = st.sampled_from(
    [
        *"abz019 \n.:/\\@-_…é’€½",
        "\u00ad",
        "\u200b",
        "\u3002",
        "\uff0e",
        "\u2024",
        "\uff1a",
        "\u00a0",
        "www.",
        "http",
        "://",
        "be",
        "kbc",
    ]
)


@example("kbc.\u00adbe")
@example("kbc\uff0ebe")
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_cheap_look_finds_every_text_with_a_link(text: str) -> None:
    surely = "https://x.example/ "  # beside it a text is read in full
    assert text_links(f"{surely}\n{text}", {"kbc.be"})[1:] == text_links(text, {"kbc.be"})


@example("www. kbc.be \u00ad//kbc.be")
@example("kbc\uff0ebe at kbc\u3002be")
@given(st.lists(PIECES | st.sampled_from([" ", "\n", "@", "\u0338", "\u00b4"]), max_size=12).map("".join))
def test_the_words_of_a_text_hold_all_its_links(text: str) -> None:
    in_words = [link for word in words_with_links(text) for link in text_links(word, {"kbc.be"})]
    assert sorted(in_words) == sorted(text_links(text, {"kbc.be"}))


@given(st.text(st.sampled_from([*_SMS_REPLACEMENTS, "a", "\n", "é", "€", "\U0001f600"])))
def test_replacements_for_an_sms_are_those_of_the_table(text: str) -> None:
    assert gsm_typography(text) == text.translate({ord(old): new for old, new in _SMS_REPLACEMENTS.items()})


def test_what_stands_at_the_readers_link_is_checked() -> None:
    own = "https://bank.example/u/abc"
    requirements = ContentRequirements(
        True, "", "", "Bank", MessageLinks(own, ""), to_partner=True, own_hosts=frozenset({"bank.example"}), hosts=HOSTS
    )
    assert failed_check(Sms(f"Bank {own} {own}"), "", requirements) is None
    for text in (f"//evil.example/{own}", f"{own}\nhttps://evil.example/a", f"{own} evil.example/a", f"https://evil.example?{own}"):
        assert failed_check(Sms(f"Bank {own} {text}"), "", requirements) == "link_host"
