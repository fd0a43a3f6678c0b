"""Later news: a message that reached nobody leaves again but arrives once, and failures in a row end an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from channels.base import Again, Channel, Event, EventKind, Inbound, Rejected, Sms, Uncertain, WhatsApp
from channels.providers.twilio import parse_events
from channels.redaction import FIELDS_MAX, LENGTH_MAX, extra
from dispatcher.campaigns import submission
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.inbound import agent_reply, customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.claims import facts_of
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.inbound.soft_bounces import SPAN
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import House
from dispatcher.web.serializers import message_view
from tests.support.services import Clock, add_people, make_house, outbox, person, states, work
from tests.support.signed_webhooks import AUTH_TOKEN, NOW, mail_news, signed_form, text_news

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SERVICE = [{"recipient": "anna", "data": {"received_on": "2026-11-23"}}]
HOUR = 3_600.0
ANNA = "+32470000001"


@pytest.fixture
def house(database: str) -> Iterator[House]:
    with make_house(database, Clock()) as made:
        add_people(made, person("anna", 1))
        yield made


def pass_(house: House, seconds: float) -> None:
    assert isinstance(house.clock, Clock)
    house.clock.pass_(seconds)


def submit(house: House, campaign_id: str = "spring", **changes: Any) -> None:
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["sms"], "audience": [{"recipient": "anna", "data": OFFER}]}
    submission.submit(house, parse_campaign({**form, **changes}, submission.desk(house)))
    work(house)


def message(house: House, campaign_id: str = "spring", leg: int = 0) -> Message:
    with lend(house.pool) as connection:
        return messages.of_campaign(connection, campaign_id, "anna")[leg]


def hear(house: House, status: str, code: str = "", campaign_id: str = "spring", receipt: str | None = None) -> None:
    """A status callback about the message's newest attempt, or that of a receipt."""
    told = message(house, campaign_id)
    sid = receipt or str(told.receipt)
    provider_events.keep(house, text_news(status, code, str(told.ref), "sms", sid, house.clock()))
    provider_events.settle_some(house, lambda _: None)


def campaign(house: House, campaign_id: str = "spring") -> CampaignState:
    with lend(house.pool) as connection:
        found = lifecycle.find(connection, campaign_id)
    assert found is not None
    return found.state


def banned(house: House) -> set[str]:
    with lend(house.pool) as connection:
        return set(facts_of(connection, ["anna"])["anna"].suppressions)


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_finished_campaign_goes_on_for_a_message_that_reached_nobody_and_ends_again(house: House) -> None:
    submit(house)
    assert (states(house), campaign(house)) == ({"accepted": 1}, CampaignState.FINISHED)
    hear(house, "undelivered", "30001")
    assert (states(house), campaign(house)) == ({"waiting": 1}, CampaignState.RUNNING)
    pass_(house, 299)
    work(house)
    assert len(outbox(house, Channel.SMS).sent) == 1
    pass_(house, 300)
    work(house)
    assert (states(house), campaign(house)) == ({"accepted": 1}, CampaignState.FINISHED)
    assert (len(outbox(house, Channel.SMS).sent), message(house).attempts, message(house).receipt) == (2, 2, "sms-2")
    hear(house, "delivered")
    assert states(house) == {"delivered": 1}


def test_a_campaign_that_ended_at_the_same_moment_is_found_running_when_the_message_is_due(house: House, database: str) -> None:
    submit(house)
    hear(house, "undelivered", "30001")
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE campaigns SET state = 'finished'")
    pass_(house, HOUR)
    work(house)
    assert states(house) == {"accepted": 1}


def test_two_workers_that_apply_the_same_news_repeat_a_message_once(house: House, database: str) -> None:
    submit(house)
    ref, now = str(message(house).ref), house.clock()
    for number, receipt in enumerate(("sms-1", None)):  # the second names no attempt, as a mail's news might
        event = Event("twilio", f"e-{number}", Channel.SMS, EventKind.FAILED, now, ref, receipt, "30001", again=Again(60.0, 5))
        provider_events.keep(house, [event])
        provider_events.settle_some(house, lambda _: None)
        until = message(house).until
        pass_(house, 10)
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE provider_events SET settled_at = NULL")  # the other worker had read it before
        provider_events.settle_some(house, lambda _: None)
        assert message(house).until == until


def test_the_provider_that_takes_its_word_back_keeps_a_second_one_from_leaving(house: House) -> None:
    submit(house)
    hear(house, "undelivered", "30003")
    hear(house, "delivered", receipt="sms-1")
    pass_(house, 24 * HOUR)
    work(house)
    assert (states(house), len(outbox(house, Channel.SMS).sent)) == ({"delivered": 1}, 1)


def test_also_when_the_message_was_due_but_had_to_wait_for_the_day(house: House) -> None:
    submit(house)
    hear(house, "undelivered", "30003")
    pass_(house, 10 * HOUR)  # 22:00 in Brussels
    work(house)
    assert states(house) == {"held": 1}
    hear(house, "sent", receipt="sms-1")
    assert states(house) == {"held": 1}
    hear(house, "delivered", receipt="sms-1")
    pass_(house, 24 * HOUR)
    work(house)
    assert (states(house), len(outbox(house, Channel.SMS).sent)) == ({"delivered": 1}, 1)


def test_a_no_said_meanwhile_stops_it(house: House) -> None:
    submit(house)
    hear(house, "undelivered", "30001")
    customer_replies.hear(house, lambda _: None, Inbound("SM-in", Channel.SMS, ANNA, "STOP"))
    pass_(house, HOUR)
    work(house)
    assert (states(house), len(outbox(house, Channel.SMS).sent)) == ({"refused": 1}, 1)


def test_a_cancelled_campaign_repeats_nothing_and_falls_back_to_nothing(house: House) -> None:
    for name, code in (("a", "30001"), ("b", "30007")):
        submit(house, name, channels=["sms", "email"], fallback_after_seconds=3600)
        with lend(house.pool) as connection:
            assert lifecycle.cancel(connection, name, house.clock())
        hear(house, "undelivered", code, name)
        pass_(house, 2 * HOUR)
        work(house)
        assert states(house, name) == {"failed": 1}
    assert outbox(house).sent == []


def test_another_channel_that_is_due_sooner_goes_before_a_repetition(house: House) -> None:
    submit(house, "sooner", channels=["sms", "email"], fallback_after_seconds=HOUR)
    hear(house, "undelivered", "30003", "sooner")  # in four hours at the earliest
    submit(house, "later", channels=["sms", "email"], fallback_after_seconds=HOUR)
    hear(house, "undelivered", "30022", "later")  # in a minute
    work(house)
    assert (message(house, "sooner").state, message(house, "sooner", 1).channel) == (State.FAILED, Channel.EMAIL)
    assert message(house, "later").state is State.WAITING


def test_to_the_usa_a_marketing_message_that_meta_held_back_is_not_repeated() -> None:
    for number, again in (("+32470000001", Again(86_400.0, 2)), ("+12025550100", None)):
        form = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "63049", "To": f"whatsapp:{number}"}
        url = "https://bank.example/webhooks/twilio/status?message=m-1"
        (event,) = parse_events(url, *signed_form(url, form), AUTH_TOKEN, NOW)
        assert event.again == again


# -- failures in a row -------------------------------------------------------------------------------------------------


def miss(house: House, number: int, code: str = "30003", kind: EventKind = EventKind.FAILED, strikes: int | None = 3) -> None:
    """News about a message of its own."""
    name = f"c-{number}"
    with lend(house.pool) as connection:
        known = lifecycle.find(connection, name)
    if known is None:
        submit(
            house, name, template="optout_acknowledgement", audience=[{"recipient": "anna", "data": {"received_on": "2026-11-23"}}]
        )
    told = message(house, name)
    event_id = f"{name}-{kind}-{house.clock()}"
    event = Event("twilio", event_id, Channel.SMS, kind, house.clock(), str(told.ref), "SM", code, strikes=strikes)
    provider_events.keep(house, [event])
    provider_events.settle_some(house, lambda _: None)


def test_three_messages_in_a_row_that_found_no_handset_end_a_number(house: House) -> None:
    for number in (1, 1, 1, 2):  # the same message, however often, counts once
        miss(house, number)
        pass_(house, HOUR)
        assert banned(house) == set()
    miss(house, 3)
    assert banned(house) == {"sms"}
    with lend(house.pool) as connection:
        (ban,) = recipients.show(connection, "anna")["suppressions"]
    assert (ban["reason"], ban["source"]) == ("30003", "twilio")


def test_a_delivery_between_them_or_a_week_or_another_reason_begins_the_row_anew(house: House) -> None:
    miss(house, 1)
    miss(house, 2)
    pass_(house, 1)
    miss(house, 4, "", EventKind.DELIVERED, None)
    pass_(house, 1)
    miss(house, 5)
    miss(house, 6)
    miss(house, 7, "30004")
    assert banned(house) == set()
    pass_(house, SPAN.total_seconds())
    miss(house, 8)
    miss(house, 9)
    assert banned(house) == set()
    miss(house, 10)
    assert banned(house) == {"sms"}


def test_news_of_a_delivery_in_the_same_batch_counts_in_its_order(house: House) -> None:
    for number in (1, 2):
        miss(house, number)
    pass_(house, 60)
    submit(house, "last")
    ref, now = str(message(house, "last").ref), house.clock()
    news = [
        Event("twilio", "a", Channel.SMS, EventKind.FAILED, now, ref, "SM", "30003", strikes=3),
        Event("twilio", "b", Channel.SMS, EventKind.DELIVERED, now - timedelta(seconds=30), ref, "SM"),
    ]
    provider_events.keep(house, news)
    provider_events.settle_some(house, lambda _: None)
    assert banned(house) == set()


def test_a_miss_and_a_later_delivery_in_one_batch_end_the_row_too(house: House) -> None:
    submit(house, "first")
    ref, now = str(message(house, "first").ref), house.clock()
    missed = Event("twilio", "a", Channel.SMS, EventKind.FAILED, now, ref, "SM", "30003", strikes=3)
    provider_events.keep(
        house, [missed, Event("twilio", "b", Channel.SMS, EventKind.DELIVERED, now + timedelta(seconds=1), ref, "SM")]
    )
    provider_events.settle_some(house, lambda _: None)
    pass_(house, 60)
    miss(house, 2)
    miss(house, 3)
    assert banned(house) == set()


def test_twice_blocked_is_a_number_that_wants_no_more(house: House) -> None:
    for number in (1, 2):
        submit(house, f"b-{number}", template="optout_acknowledgement", audience=SERVICE)
        assert banned(house) == set()
        hear(house, "undelivered", "30004", f"b-{number}")
    assert banned(house) == {"sms"}


# -- what no rule knows ------------------------------------------------------------------------------------------------


def test_unknown_fields_of_news_are_kept_without_addresses_shown_and_forgotten_with_the_person(house: House) -> None:
    submit(house, channels=["email"])
    ref = str(message(house).ref)
    row = {
        "event": "bounce",
        "type": "blocked",
        "status": "4.7.1",
        "sg_event_id": "e",
        "message_id": ref,
        "timestamp": 1795431600,
        "email": "anna@example.org",
        "ip": "192.0.2.1",
        "useragent": "Mozilla",
        "url": "https://x/u/token",
        "smtp-id": "<a@b>",
        "reason": "450 <anna@example.org> busy, call +32 470 00 00 01",
        "bounce_classification": "Reputation",
        "tls": 1,
        "day": "2026-11-23",
        "new": {"nested": ["x"]},
    }
    provider_events.keep(house, mail_news(row, now=house.clock()))
    expected = {
        "reason": "450 <…> busy, call …",
        "bounce_classification": "Reputation",
        "tls": "1",
        "day": "2026-11-23",
        "type": "blocked",
        "status": "4.7.1",
        "new": '{"nested": ["x"]}',
    }
    assert message_view(message(house))["events"][0]["extra"] == expected
    with lend(house.pool) as connection:
        exported = recipients.export(connection, "anna")
        assert exported["messages"][0]["events"][0]["extra"] == expected
        assert recipients.erase(connection, house.secret, "anna", "desk", house.clock())
    assert message_view(message(house))["events"][0]["extra"] == {}


def test_twilios_unknown_fields_are_kept_too() -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "sent", "To": ANNA, "From": "+32460000000", "EventType": "READ", "RawDlr": "x"}
    form |= {"ChannelToAddress": ANNA, "ProfileName": "Anna", "WaId": "32470000001"}
    url = "https://bank.example/webhooks/twilio/status?message=m-1"
    (event,) = parse_events(url, *signed_form(url, form), AUTH_TOKEN, NOW)
    assert event.extra == {"EventType": "READ", "RawDlr": "x"}


def test_fields_without_end_are_cut_and_what_can_not_be_kept_is_made_fit() -> None:
    found = extra({f"f{number}": "x" * 10_000 for number in range(100)}, ())
    assert (len(found), {len(value) for value in found.values()}) == (FIELDS_MAX, {LENGTH_MAX})
    assert extra({"a\0": "b\0\ud800"}, ()) == {"a\ufffd": "b\ufffd\ufffd"}


# -- WhatsApp's window -------------------------------------------------------------------------------------------------


def whatsapp(house: House, text: str, text_id: str = "SM-1") -> str | None:
    return customer_replies.hear(house, lambda _: None, Inbound(text_id, Channel.WHATSAPP, ANNA, text)).answer


def window(house: House) -> dict[str, str] | None:
    with lend(house.pool) as connection:
        return recipients.show(connection, "anna").get("whatsapp_window")


def test_what_a_person_writes_by_whatsapp_opens_a_window_of_a_day_for_an_answer_in_free_words(house: House) -> None:
    assert window(house) is None
    customer_replies.hear(house, lambda _: None, Inbound("SM-0", Channel.SMS, ANNA, "hallo?"))
    assert window(house) is None
    assert whatsapp(house, "Where is my branch?") is None
    assert window(house) == {"heard_at": "2026-11-23T11:00:00+00:00", "open_until": "2026-11-24T11:00:00+00:00"}
    sms, text = customer_replies.waiting(house, 10)
    assert (sms.answer_until, text.answer_until) == (None, house.clock() + timedelta(hours=24))
    pass_(house, HOUR)
    whatsapp(house, "Hello?", "SM-2")
    assert customer_replies.waiting(house, 10)[1].answer_until == house.clock() + timedelta(
        hours=24
    )  # of the conversation, not of the text


def test_help_is_answered_within_it_and_a_call_repeated_a_day_later_opens_none(house: House) -> None:
    assert "Reply STOP" in str(whatsapp(house, "HELP"))
    pass_(house, 23 * HOUR)
    assert "Reply STOP" in str(whatsapp(house, "HELP"))
    pass_(house, HOUR)
    assert whatsapp(house, "HELP") is None
    assert whatsapp(house, "HELP", "SM-2") is not None


def test_the_window_goes_with_the_person_and_with_time(house: House, database: str) -> None:
    def known() -> int:
        with psycopg.connect(database) as connection:
            (count,) = connection.execute("SELECT count(*) FROM conversations").fetchone() or (0,)
            return int(count)

    whatsapp(house, "Hello?")
    with lend(house.pool) as connection:
        assert "whatsapp_window" in recipients.export(connection, "anna")
        recipients.erase(connection, house.secret, "anna", "desk", house.clock())
    assert known() == 0
    whatsapp(house, "Hello?", "SM-2")
    assert known() == 1
    pass_(house, 25 * HOUR)
    sweep.sweep(house)
    assert known() == 0


def reply(house: House, text_id: str = "SM-1", words: str = "Rue Haute 1, open until 5.") -> str | None:
    return agent_reply.answer(house, text_id, words, "desk 7")


def test_a_person_answers_in_free_words_within_the_window_and_once(house: House) -> None:
    whatsapp(house, "Where is my branch?")
    pass_(house, 23 * HOUR)
    assert reply(house, words=" ") == reply(house, words="x" * 1001) == agent_reply.NO_WORDS
    assert reply(house) is None
    (left,) = outbox(house, Channel.WHATSAPP).sent
    assert (left.id, left.address, left.content) == ("answer:SM-1", ANNA, WhatsApp(text="Rue Haute 1, open until 5."))
    assert customer_replies.waiting(house, 10) == []
    assert reply(house) == agent_reply.NOT_WAITING
    customer_replies.hear(house, lambda _: None, Inbound("SM-2", Channel.SMS, ANNA, "Where?"))
    pass_(house, 100 * HOUR)
    assert reply(house, "SM-2") is None  # an SMS has no window
    assert outbox(house, Channel.SMS).sent[0].content == Sms("Rue Haute 1, open until 5.")


def test_what_may_not_or_can_not_be_answered_is_told_and_waits(house: House) -> None:
    whatsapp(house, "Where is my branch?")
    pass_(house, 24 * HOUR)
    assert reply(house) == agent_reply.WINDOW_OVER
    whatsapp(house, "Hello?", "SM-2")  # opens it again, for the first text too
    with lend(house.pool) as connection:
        stopped_channels.stop(connection, Channel.WHATSAPP, "twilio", "63007", house.clock())
        assert reply(house) == agent_reply.STOPPED
        stopped_channels.lift(connection, Channel.WHATSAPP)
    outbox(house, Channel.WHATSAPP).answers[""] = Rejected("63016")
    assert reply(house) == "not taken by the provider: 63016"
    assert [text.id for text in customer_replies.waiting(house, 10)] == ["SM-1", "SM-2"]
    outbox(house, Channel.WHATSAPP).answers[""] = Uncertain("timeout")
    assert reply(house) == agent_reply.DOUBTFUL
    assert [text.id for text in customer_replies.waiting(house, 10)] == ["SM-2"]  # it may have left, so nobody sends it again
    whatsapp(house, "STOP", "SM-3")
    assert reply(house, "SM-2") == agent_reply.BANNED
    customer_replies.hear(house, lambda _: None, Inbound("SM-4", Channel.SMS, "+32479999999", "Who is this?"))
    assert reply(house, "SM-4") == agent_reply.NO_NUMBER


def test_erasing_a_person_ends_the_count_of_failures(house: House, database: str) -> None:
    miss(house, 1)
    with lend(house.pool) as connection:
        (failure,) = recipients.export(connection, "anna")["failures_in_a_row"]
        assert (failure["channel"], failure["code"]) == ("sms", "30003")
        assert "address_key" not in json.dumps(failure)
        recipients.erase(connection, house.secret, "anna", "desk", house.clock())
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT FROM misses").fetchall() == []
