"""The way out of a message: looking changes nothing, asking once is enough, and the no is acknowledged once."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import Channel, Email
from dispatcher.campaigns import scheduler
from dispatcher.consent.link_tokens import UNSUBSCRIBE, message_token
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, suppressions
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.web.pages.customer import TEXTS
from dispatcher.web.public.link_route import accepted
from tests.support.form_client import Visits, open_visits
from tests.support.services import add_people, person

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def visits(database: str) -> Iterator[Visits]:
    with open_visits(database) as opened:
        add_people(opened.services, person("c-1"))
        yield opened


def test_looking_changes_nothing(visits: Visits) -> None:
    link, before = visits.write("c-1").unsubscribe, visits.values("c-1")
    for method in ("GET", "HEAD", "GET"):
        answer = visits.client.request(method, link)
        assert answer.status_code == 200
    assert visits.values("c-1") == before
    assert not visits.said("c-1")


@pytest.mark.parametrize(
    "added",
    [
        *(
            ".",
            ")",
            "%3E",
            "=",
            ".)",
            "%E2%80%9D",
            "%E2%80%9C",
            "%E2%80%A6",
            "%3C",
            "%3C/a%3E",
            "%20",
            "%C2%A0",
            "%0D%0A",
            "%E2%80%8B",
        ),
        *("_", "-", "|", "~", "`", "&", "&gt;", "%EF%BC%89", "%E3%80%82", "%3D3D", "/", "%2F", "-----", "A"),
    ],
)
def test_what_mail_programs_add_to_a_link_does_not_break_it(visits: Visits, added: str) -> None:
    link = visits.write("c-1").unsubscribe
    assert visits.client.get(link + added).status_code == 200
    assert visits.client.post(link + added, data=ONE_CLICK).status_code == 200
    assert visits.values("c-1")["channel:email"] == "off"


@pytest.mark.parametrize("multipart", [False, True])
def test_one_click_switches_the_messages_channel_off_without_login_redirect_or_cookie(visits: Visits, multipart: bool) -> None:
    link, before = visits.write("c-1").unsubscribe, visits.values("c-1")
    body = {"files": {name: (None, value) for name, value in ONE_CLICK.items()}} if multipart else {"data": ONE_CLICK}
    for _ in range(2):
        answer = visits.client.post(link, **body)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
    assert visits.values("c-1") == {**before, "channel:email": "off"}
    (event,) = visits.said("c-1")
    assert (event.source, event.actor, event.wording) == ("unsubscribe", "recipient", "list-unsubscribe one-click")


@pytest.mark.parametrize(
    ("channel", "template", "press", "expected"),
    [
        (Channel.EMAIL, "loan_offer", "offer", ("offer:own", "none")),
        (Channel.EMAIL, "loan_offer", "channel", ("channel:email", "off")),
        (Channel.SMS, "loan_offer", "channel", ("channel:sms_whatsapp", "off")),
        (Channel.EMAIL, "train_ticket", "offer", ("offer:partner", "none")),
        (Channel.EMAIL, "loan_offer", "everything", ("objection:marketing", "on")),
    ],
)
def test_the_page_stops_what_is_pressed_and_nothing_else(
    visits: Visits, channel: Channel, template: str, press: str, expected: tuple[str, str]
) -> None:
    add_people(visits.services, person("c-2", 2, offers={"own": "tailored", "partner": "standard"}))
    link, before = visits.write("c-2", template, channel).unsubscribe, visits.values("c-2")
    answer = visits.client.post(link, data={"stop": press})
    assert visits.values("c-2") == {**before, expected[0]: expected[1]}
    assert visits.said("c-2")[0].wording == "unsubscribe 2 en"
    assert "/p/" in answer.text
    assert "Already switched off" in visits.client.get(link).text


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_speak_the_recipients_language_unless_asked_otherwise(visits: Visits, language: str) -> None:
    add_people(visits.services, person("c-2", 2, language=language))
    link = visits.write("c-2").unsubscribe
    page = visits.client.get(link, headers={"Accept-Language": "es"})
    assert f'<html lang="{language}">' in page.text
    assert TEXTS[language]["unsubscribe"]["heading"] in page.text
    assert '<html lang="fr">' in visits.client.get(f"{link}?lang=fr").text
    onward = visits.client.post(f"{link}?lang=fr", data={"stop": "channel"}).text
    assert ("?lang=fr" in onward.partition('class="onward"')[2].partition(">")[0]) == (language != "fr")


def test_pages_and_tokens_say_nothing_about_the_person(visits: Visits) -> None:
    add_people(visits.services, person("somebody", 2))
    link = visits.write("somebody").unsubscribe
    pages = [visits.client.get(link), visits.client.post(link, data={"stop": "everything"}), visits.client.get("/u/nonsense")]
    for page in pages:
        assert "somebody" not in page.text
        assert "example.org" not in page.text
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["X-Robots-Tag"] == "noindex"
        assert page.headers["X-Frame-Options"] == "DENY"
        assert "script" not in page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


def test_old_mail_still_works_when_its_content_is_gone(visits: Visits, database: str) -> None:
    link = visits.write("c-1").unsubscribe
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM jobs")
    visits.clock.pass_(5 * 365 * 86_400)
    assert visits.client.post(link, data=ONE_CLICK).status_code == 200
    assert visits.values("c-1")["channel:email"] == "off"


def test_an_erased_person_finds_a_friendly_page(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    with lend(visits.services.pool) as connection:
        erasure.erase(connection, visits.services.secret, "c-1", "tests", visits.clock())
    for answer in (visits.client.get(link), visits.client.post(link, data=ONE_CLICK)):
        assert answer.status_code == 200
        assert "Your data have been erased" in answer.text
        assert "in our app" not in answer.text
    assert not visits.broker.dues


@pytest.mark.parametrize(("header", "language"), [("fr-BE,fr;q=0.9,en;q=0.8", "fr"), ("es, de;q=0.1", "de"), ("x;q=z,,;", "en")])
def test_a_bad_token_is_answered_in_plain_words_in_the_visitors_language(visits: Visits, header: str, language: str) -> None:
    unused = message_token(visits.services.secret, UNSUBSCRIBE, "202611-999-0-0")
    preferences = visits.write("c-1").preferences.rpartition("/")[2]
    for token in ("nonsense", "é%00", unused, preferences, "A" * 2000):
        for answer in (
            visits.client.get(f"/u/{token}", headers={"Accept-Language": header}),
            visits.client.post(f"/u/{token}", data=ONE_CLICK, headers={"Accept-Language": header}),
        ):
            assert answer.status_code == 404
            assert TEXTS[language]["notices"]["unknown"]["title"] in answer.text
            assert f'lang="{language}"' in answer.text
    assert not visits.said("c-1")
    assert accepted(header) == language


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"", 400),
        ("application/x-www-form-urlencoded", b"stop=all", 400),
        ("application/x-www-form-urlencoded", b"stop=channel&stop=offer", 400),
        ("application/x-www-form-urlencoded", b"stop=\xff", 400),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 100), 400),
        ("application/x-www-form-urlencoded", b"stop=" + b"a" * 20_000, 413),
        ("multipart/form-data", b"stop=channel", 400),
        (
            "multipart/form-data; boundary=x; charset=made-up",
            b'--x\r\nContent-Disposition: form-data; name="stop"\r\n\r\n?\r\n--x--',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="stop"; filename="a"\r\n\r\n1\r\n--x--',
            400,
        ),
        ("application/json", b'{"stop": "channel"}', 400),
    ],
)
def test_what_cannot_be_read_changes_nothing(visits: Visits, content_type: str, body: bytes, status: int) -> None:
    link = visits.write("c-1").unsubscribe
    answer = visits.client.post(link, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert "<h1>We could not read your choice</h1>" in answer.text
    assert not visits.said("c-1")


def test_no_body_ends_in_a_fault_of_ours(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=200), st.sampled_from(["multipart/form-data; boundary=x", "multipart/x", "text/plain", ""]))
    def call(body: bytes, content_type: str) -> None:
        posted = visits.client.post(link, content=body, headers={"Content-Type": content_type})
        assert posted.status_code == 400

    call()


def test_a_ledger_that_is_away_is_said_so() -> None:
    with open_visits("postgresql://nobody@127.0.0.1:1/nothing", wait_seconds_max=0.1) as visits:
        link = f"/u/{message_token(visits.services.secret, UNSUBSCRIBE, '202611-1-0-0')}"
        for answer in (visits.client.get(link), visits.client.post(link, data=ONE_CLICK)):
            assert answer.status_code == 503
            assert "Please try again in a moment" in answer.text
            assert answer.headers["Retry-After"] == "60"


# -- the acknowledgement -----------------------------------------------------------------------------------------------


def test_a_no_is_acknowledged_by_one_mail(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    for _ in range(3):
        visits.client.post(link, data=ONE_CLICK)
    assert len(visits.broker.dues) == 1
    visits.broker.work(visits.services)
    (_, acknowledgement) = visits.sent()
    assert isinstance(acknowledgement.content, Email)
    assert "commercial e-mails" in acknowledgement.content.text
    assert "November 2026" in acknowledgement.content.text


def test_the_acknowledgement_comes_in_the_name_that_the_message_had(visits: Visits) -> None:
    link = visits.write("c-1", entity="cbc-banque").unsubscribe
    assert "CBC Banque" in visits.client.get(link).text
    visits.client.post(link, data=ONE_CLICK)
    visits.broker.work(visits.services)
    assert [sent.content.sender_name for sent in visits.sent() if isinstance(sent.content, Email)] == ["CBC Banque"] * 2


def test_another_no_is_another_request(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    for press in ("offer", "channel", "everything"):
        visits.client.post(link, data={"stop": press})
    visits.broker.work(visits.services)
    assert len(visits.sent()) == 4


def test_no_acknowledgement_goes_to_a_suppressed_address_or_to_none(visits: Visits) -> None:
    add_people(visits.services, person("c-2", 2, email=None))
    by_text, by_mail = visits.write("c-2", channel=Channel.SMS).unsubscribe, visits.write("c-1").unsubscribe
    with lend(visits.services.pool) as connection:
        key = address_key(visits.services.secret, "email", "c-1@example.org")
        suppressions.suppress(connection, Channel.EMAIL, key, "bounce", "tests", visits.clock())
    visits.client.post(by_mail, data=ONE_CLICK)
    visits.client.post(by_text, data={"stop": "channel"})
    visits.broker.work(visits.services)
    assert len(visits.sent()) == 1
    assert [len(visits.sent(channel)) for channel in (Channel.SMS, Channel.WHATSAPP, Channel.PUSH)] == [1, 0, 0]


def test_a_broker_that_is_away_costs_neither_the_no_nor_its_acknowledgement(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    visits.broker.away = True
    assert visits.client.post(link, data=ONE_CLICK).status_code == 200
    assert visits.values("c-1")["channel:email"] == "off"
    visits.broker.away = False
    visits.clock.pass_(visits.services.limits.lease_seconds + 1)
    visits.broker.publish(scheduler.due_chunks(visits.services))
    visits.broker.work(visits.services)
    assert len(visits.sent()) == 2


def test_what_was_prepared_before_the_no_is_not_sent(visits: Visits) -> None:
    link = visits.write("c-1").unsubscribe
    prepared = visits.prepare("c-1", channel=Channel.PUSH)
    visits.client.post(link, data={"stop": "everything"})
    run_chunk(visits.services, prepared.period, prepared.chunk)
    assert not visits.sent(Channel.PUSH)
