"""The console for people with another language or time zone: whole pages in their language, and times on their clock."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.campaigns import schedules
from dispatcher.campaigns.scheduler import due_chunks
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.identity import users
from dispatcher.web.app import create
from dispatcher.web.console.translation import texts
from tests.integration.test_console import VOID, Visitor, submit_campaign, visitor
from tests.integration.test_console_campaigns import HEADER, Marketer, ready
from tests.support.services import Broker, Clock, add_people, make_services, person

__all__ = ["visitor"]

ENGLISH_ONLY = (
    *("/console/inbound-messages", "/console/unresolved", "/console/refused-jobs"),
    *("/console/webhooks", "/console/operations", "/console/audit"),
)
PAGES = (
    *("/console", "/console/sessions", "/console/password", "/console/calendar", "/console/search?q=none"),
    *("/console/people", "/console/people/anna", "/console/desk", "/console/desk/anna", "/console/campaigns/new"),
    *("/console/campaigns/spring", "/console/campaigns/spring/edit", "/console/campaigns/spring/results", "/console/templates"),
    *(f"/console/templates/loan_offer?channel={channel}&case={case}" for channel in Channel for case in ("examples", "emoji-name")),
    *("/console/messages/202611-1-0-0", "/console/schedules", "/console/schedules/weekly"),
)
STEPS = ("", "/audience", "/columns", "/check", "/schedule", "/submit", "/examples")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\b\d\d:\d\d:\d\d\b")
# What is the same in every language: ids, names of channels, roles and files, codes.
NAMES = re.compile(
    r"\S*[.:@_/*-]\S*|[a-z0-9]+|[^A-Za-z]*|.+ · dispatcher|[a-z]+(, [a-z]+)*|…\w+|November 2026|WhatsApp"
    r"|the program's makers"
)
HEADER_CELLS = set(HEADER)


class Reading(HTMLParser):
    """The visible texts of a page in its own language, and those outside `<time>`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.language = ""
        self.open: list[tuple[str, str]] = []  # tag and language
        self.texts: list[str] = []
        self.outside_time: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        language = named.get("lang") or (self.open[-1][1] if self.open else "")
        if tag == "html":
            self.language = language
        if tag not in VOID or tag == "rect":
            self.open.append((tag, language))
        if language == self.language:
            self.texts += [text for name in ("aria-label", "placeholder", "data-label") if (text := named.get(name))]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<rect/>`: has no text."""

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  the parser's signature
        self.open.pop()

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if text := " ".join(data.split()):
            if "time" not in tags:
                self.outside_time.append(text)
            if self.open and self.open[-1][1] == self.language and not {"code", "time", "option"} & set(tags):
                self.texts.append(text)


def read_as(visitor: Visitor, language: str, zone: str = "") -> None:
    users.set_reading(visitor.services, "user:ops", language, zone)


@pytest.fixture
def reader(database: str, tmp_path: Path) -> Iterator[Visitor]:
    """Signed in, with a campaign that has run and a draft whose dry run is done."""
    broker, clock = Broker(), Clock()
    with make_services(database, clock) as made:
        services = replace(made, audiences=tmp_path)
        add_people(services, *(person(name, number) for number, name in enumerate(("anna", "bert", "carl", "dora"), start=1)))
        with TestClient(create(services, broker), base_url="https://dispatcher.example") as client:
            visitor = Visitor(services, broker, clock, client)
            prepare(visitor)
            yield visitor


def prepare(visitor: Visitor) -> None:
    token = visitor.sign_in()
    submit_campaign(visitor.services)
    campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "weekly-*"}}
    form = {"id": "weekly", "cron": "0 9 * * *", "zone": "Europe/Brussels", "campaign": campaign}
    schedules.add(visitor.services, schedules.parse(visitor.services, form), "user:anna")
    visitor.broker.publish(due_chunks(visitor.services))
    visitor.broker.work(visitor.services)
    marketer = Marketer(visitor.services, visitor.client, token)
    assert marketer.post(f"/console/drafts/{ready(marketer)}/check").status_code == 303


def paths() -> Sequence[str]:
    return (*PAGES, *(f"/console/drafts/1{step}" for step in STEPS))


def test_pages_are_whole_in_each_language(reader: Visitor) -> None:
    read_as(reader, "en")
    english = {path: Reading(reader.get(path)).texts for path in paths()}
    for language in LANGUAGES:
        if language == "en":
            continue
        read_as(reader, language)
        same = set()
        for path in paths():
            page = Reading(reader.get(path))
            assert page.language == language, path
            assert len(page.texts) > 10, path
            same |= {(path, text) for text in untranslated(page.texts, english[path], language)}
        assert sorted(same) == []


def test_an_error_is_in_the_readers_language_with_the_menu(reader: Visitor) -> None:
    for language, title in (("nl", "Hier is niets"), ("fr", "Il n’y a rien ici"), ("de", "Hier ist nichts")):
        read_as(reader, language)
        answer = reader.client.get("/console/campaigns/none", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        page = Reading(answer.text)
        assert (page.language, title in page.texts) == (language, True)
        assert texts(language)["", "Templates"][0] in page.texts
        refused = reader.client.post("/console/campaigns/spring/pause", data={"form_token": "x"}, headers={"Accept": "text/html"})
        assert (refused.status_code, Reading(refused.text).language) == (403, language)


def untranslated(shown: Sequence[str], english: Sequence[str], language: Language) -> set[str]:
    """The texts that are as in English, but for names and for words that the language shares with English."""
    forms = {form for each in texts(language).values() for form in each}
    own = re.compile("|".join(re.sub(r"%\\\(\w+\\\)s", ".+", re.escape(form)) for form in forms))
    same = set(shown) & set(english) - HEADER_CELLS
    return {text for text in same if not own.fullmatch(text) and not NAMES.fullmatch(text)}


def test_a_page_without_translation_is_english_as_a_whole(reader: Visitor) -> None:
    read_as(reader, "en")
    english = {path: Reading(reader.get(path)).texts for path in ENGLISH_ONLY}
    read_as(reader, "nl")
    for path in ENGLISH_ONLY:
        page = Reading(reader.get(path))
        assert page.language == "en", path
        assert page.texts[:10] == english[path][:10], path


def test_every_time_is_on_the_readers_clock(reader: Visitor) -> None:
    read_as(reader, "en", "Pacific/Auckland")
    for path in (*paths(), *ENGLISH_ONLY):
        page = reader.get(path)
        assert [text for text in Reading(page).outside_time if UTC_TIME.search(text)] == [], path
        for utc, shown in re.findall(r'<time datetime="([^"]+)" title="[^"]+ UTC">(\d{4}-\d\d-\d\d \d\d)', page):
            hour = (int(utc[11:13]) + 13) % 24  # summer in New Zealand
            assert int(shown[11:13]) == hour, (path, utc, shown)
    assert "Pacific/Auckland" in reader.get("/console")


def test_a_stranger_reads_the_language_of_the_browser(visitor: Visitor) -> None:
    page = visitor.client.get("/console/login", headers={"Accept": "text/html", "Accept-Language": "fr-BE,en;q=0.5"}).text
    assert ('<html lang="fr">' in page, "Mot de passe" in page) == (True, True)


def test_language_and_zone_are_chosen_on_the_account_page(visitor: Visitor) -> None:
    token = visitor.sign_in()
    answer = visitor.post("/console/sessions", token, language="de", zone="Europe/Lisbon")
    assert answer.status_code == 303
    page = visitor.get("/console/sessions")
    assert ('<html lang="de">' in page, "<option selected>Europe/Lisbon" in page) == (True, True)
    for wrong in ({"language": "it"}, {"zone": "Europe/Brusels"}):
        assert visitor.post("/console/sessions", token, **wrong).status_code == 422
    assert '<html lang="de">' in visitor.get("/console/sessions")
