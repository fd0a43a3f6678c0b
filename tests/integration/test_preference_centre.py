"""The preference centre: it shows the choices in force, records changes with their source, and admits only the link owner."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from string import Formatter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.base import Channel, Email
from dispatcher.domain.preferences import OBJECTIONS, OFFERS, SWITCHES, VALUES, Change, resolve_changes
from dispatcher.domain.recipient import LANGUAGES, Choice, Source
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.web.pages.customer import TEXTS
from dispatcher.web.public.link_route import SubmittedForm
from dispatcher.web.public.preferences import DAYS, requested_changes
from tests.support.form_client import Visits, open_visits
from tests.support.services import NOON, add_people, person

DAY = 86_400.0


@pytest.fixture
def visits(database: str) -> Iterator[Visits]:
    with open_visits(database) as opened:
        add_people(
            opened.services, person("c-1", offers={"own": "standard", "partner": "none"}, channels={"email": True, "push": False})
        )
        yield opened


class Fields(HTMLParser):
    """The fields of a page's form, as a browser would send them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One field."""
        field = dict(attrs)
        if tag == "input" and (field.get("type") == "hidden" or "checked" in field):
            self.sent[field["name"] or ""] = field["value"] or ""


def fill(visits: Visits, link: str, **changes: str | None) -> dict[str, str]:
    """The form at a link, with some fields changed; None clears one. Names are written with _ for : and -."""
    sent = Fields(visits.client.get(link).text).sent
    names = {name.replace(":", "_").replace("-", "_"): name for name in (*VALUES, "keep-off", "page")}
    for name, value in changes.items():
        sent.pop(names[name], None)
        if value is not None:
            sent[names[name]] = value
    return sent


def test_looking_shows_what_stands_and_changes_nothing(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    shown = Fields(visits.client.get(link).text).sent
    assert visits.client.head(link).status_code == 200
    assert {name: value for name, value in shown.items() if name != "page"} == {
        "offer:own": "standard",
        "offer:partner": "none",
        "channel:email": "on",
    }
    assert not visits.said("c-1")


def test_a_change_is_recorded_as_the_persons_own_word(visits: Visits) -> None:
    link, before = visits.write("c-1").preferences, visits.values("c-1")
    answer = visits.client.post(
        link, data=fill(visits, link, offer_partner="standard", channel_email=None, objection_marketing="on")
    )
    assert answer.status_code == 200
    after = {"offer:partner": "standard", "channel:email": "off", "objection:marketing": "on"}
    assert visits.values("c-1") == {**before, **after}
    for event in visits.said("c-1"):
        assert (event.source, event.actor, event.wording) == (Source.PREFERENCE_CENTRE, "recipient", "preferences 2 en")
    assert 'role="status"' in answer.text
    for word in ("Offers from partners: <strong>Standard", "E-mail: <strong>off", "on this page", "23 November 2026"):
        assert word in answer.text


def test_saving_without_a_change_says_so_and_writes_nothing(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    answer = visits.client.post(link, data=fill(visits, link))
    assert "Nothing was changed" in answer.text
    assert not visits.said("c-1")


def test_accepting_tailored_switches_all_channels_on_but_those_switched_off_beside_it(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    page = visits.client.get(link).text
    assert "switches on all three channels" in page
    form = fill(visits, link, offer_own="tailored", channel_email=None, keep_off="channel:push")
    answer = visits.client.post(link, data=form)
    values = visits.values("c-1")
    assert [values[subject] for subject in SWITCHES] == ["off", "off", "on"]
    assert "these channels are now on:" in answer.text


def test_a_page_overtaken_by_another_choice_is_shown_anew(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    form = fill(visits, link, offer_own="tailored")
    record(visits, Change("offer:own", "none"))
    answer = visits.client.post(link, data=form)
    assert answer.status_code == 409
    assert "changed elsewhere in the meantime" in answer.text
    assert Fields(answer.text).sent["offer:own"] == "none"
    assert visits.values("c-1")["offer:own"] == "none"
    assert visits.client.post(link, data={**Fields(answer.text).sent, "offer:own": "standard"}).status_code == 200
    assert visits.values("c-1")["offer:own"] == "standard"


def test_news_that_is_no_choice_does_not_overtake_a_page(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    form = fill(visits, link, offer_own="none")
    add_people(visits.services, person("c-1", language="fr", offers={}, channels={}))
    assert visits.client.post(link, data=form).status_code == 200
    assert visits.values("c-1")["offer:own"] == "none"


def record(visits: Visits, change: Change) -> None:
    """The person speaks elsewhere."""
    now = visits.clock()
    with lend(visits.services.pool) as connection:
        events.record(
            connection,
            visits.services.secret,
            ConsentStatement("c-1", (change,), now),
            Provenance(Source.BRANCH, "teller"),
            now,
        )


# -- access ------------------------------------------------------------------------------------------------------------


def test_a_form_must_come_from_the_page_of_the_same_message(visits: Visits) -> None:
    add_people(visits.services, person("c-2", 2))
    link, other = visits.write("c-1").preferences, visits.write("c-2").preferences
    own, foreign = fill(visits, link, offer_own="none"), fill(visits, other, offer_own="none")
    for form in ({**own, "page": ""}, {**own, "page": "made-up"}, {**own, "page": foreign["page"]}, {"offer:own": "none"}):
        answer = visits.client.post(link, data=form)
        assert answer.status_code == 400
        assert "We could not read your choice" in answer.text
    assert not visits.said("c-1")


def test_an_unsubscribe_link_does_not_open_the_preference_centre(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    assert visits.client.get(link.replace("/u/", "/p/")).status_code == 404


def test_a_link_works_for_its_time_and_then_says_how_to_go_on(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    form = fill(visits, link, offer_own="none")
    visits.clock.pass_(DAYS * DAY)
    assert visits.client.get(link).status_code == 200
    visits.clock.pass_(DAY)
    for answer in (visits.client.get(link), visits.client.post(link, data=form)):
        assert answer.status_code == 410
        assert "This link has expired" in answer.text
        assert "90 days" in answer.text
        assert "in our app" in answer.text
    assert not visits.said("c-1")


def test_an_erased_person_finds_a_friendly_page(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    form = fill(visits, link, offer_own="tailored")
    with lend(visits.services.pool) as connection:
        erasure.erase(connection, visits.services.secret, "c-1", "tests", visits.clock())
    for answer in (visits.client.get(link), visits.client.post(link, data=form)):
        assert "Your data have been erased" in answer.text
    assert visits.values("c-1")["offer:own"] == "none"


@pytest.mark.parametrize("field", [{"offer:own": "all"}, {"channel:email": "yes"}, {"objection:marketing": "1"}])
def test_values_that_the_page_does_not_offer_are_refused(visits: Visits, field: dict[str, str]) -> None:
    link = visits.write("c-1").preferences
    assert visits.client.post(link, data={**fill(visits, link), **field}).status_code == 400
    assert not visits.said("c-1")


def test_the_page_does_not_say_who_the_person_is(visits: Visits) -> None:
    add_people(visits.services, person("somebody", 2))
    link = visits.write("somebody").preferences
    page = visits.client.get(link).text
    assert not re.search(r"somebody|example\.org|32470|device-somebody", page)


# -- what follows ------------------------------------------------------------------------------------------------------


def test_several_noes_of_one_request_are_acknowledged_once(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    visits.client.post(link, data=fill(visits, link, offer_own="none", channel_email=None))
    visits.broker.work(visits.services)
    (_, acknowledgement) = visits.sent()
    assert isinstance(acknowledgement.content, Email)
    assert "of certain kinds or through certain channels" in acknowledgement.content.text


def test_a_yes_is_not_acknowledged_as_a_no(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    answer = visits.client.post(link, data=fill(visits, link, offer_own="tailored"))
    assert "We confirm this" not in answer.text
    assert not visits.broker.dues


def test_what_is_switched_on_here_may_be_sent(visits: Visits) -> None:
    link = visits.write("c-1").preferences
    visits.client.post(link, data=fill(visits, link, channel_push="on", offer_partner="standard"))
    visits.write("c-1", "train_ticket", Channel.PUSH)
    assert len(visits.sent(Channel.PUSH)) == 1


# -- the form's arithmetic ---------------------------------------------------------------------------------------------

choices = st.fixed_dictionaries({}, optional={subject: st.sampled_from(values) for subject, values in VALUES.items()})


@given(standing=choices, wanted=choices, keep=st.frozensets(st.sampled_from(SWITCHES)))
def test_what_the_form_showed_when_sent_is_what_stands_after(
    standing: dict[str, str], wanted: dict[str, str], keep: frozenset[str]
) -> None:
    """The expected result: offers and objections as sent; a channel as sent, unless tailored is new and no form said off."""
    now = {subject: Choice(value, "consent:1", Source.IMPORT, NOON) for subject, value in standing.items()}
    sent: dict[str, tuple[str, ...]] = {name: (value,) for name, value in wanted.items() if name in OFFERS or value == "on"}
    form = SubmittedForm({**sent, "keep-off": tuple(keep)})
    after = dict(standing)
    after.update({change.subject: change.value for change in resolve_changes(now, requested_changes(form, now), NOON).accepted})
    newly_tailored = any(wanted.get(offer) == "tailored" != standing.get(offer) for offer in OFFERS)
    for offer in OFFERS:
        assert after.get(offer) == wanted.get(offer, standing.get(offer))
    for objection in OBJECTIONS:
        assert after.get(objection, "off") == wanted.get(objection, "off")
    for switch in SWITCHES:
        ticked, was_on = wanted.get(switch) == "on", standing.get(switch) == "on"
        said_off = not ticked and (was_on or switch in keep)
        assert (after.get(switch) == "on") == (ticked or (newly_tailored and not said_off))


# -- the texts ---------------------------------------------------------------------------------------------------------


def leaves(texts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its place."""
    for name, value in texts.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_with_the_same_blanks(language: str) -> None:
    theirs, english = dict(leaves(TEXTS[language])), dict(leaves(TEXTS["en"]))
    assert theirs.keys() == english.keys()
    for place, text in theirs.items():
        assert text.strip() == text != ""
        assert {name for _, name, _, _ in Formatter().parse(text)} == {name for _, name, _, _ in Formatter().parse(english[place])}
    assert theirs["version"] == english["version"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_source_and_choice_has_words(language: str) -> None:
    assert set(TEXTS[language]["sources"]) == {source.value for source in Source}
    for subject in VALUES:
        kind, _, what = subject.partition(":")
        assert TEXTS[language][f"{kind}s"][what]
