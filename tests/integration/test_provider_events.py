"""Provider events: a message that reached nobody is sent again and arrives once; failures in a row suppress an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from channels.base import Channel, Event, EventKind, InboundText, Rejected, RetryHint, Sms, Uncertain, WhatsApp
from channels.event_fields import FIELDS_MAX, LENGTH_MAX, extra_fields
from channels.providers.twilio import parse_events
from dispatcher.campaigns import submission
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message import State
from dispatcher.inbound import agent_reply, customer_replies, provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, recipients
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.candidates import facts_of
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.inbound.soft_bounces import SPAN
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.maintenance import sweep
from dispatcher.runtime.services import Services
from dispatcher.web.serializers.messages import message_view
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work
from tests.support.signed_webhooks import AUTH_TOKEN, NOW, sendgrid_events, signed_form, twilio_events

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SERVICE = [{"recipient": "anna", "data": {"received_on": "2026-11-23"}}]
HOUR = 3_600.0
ANNA = "+32470000001"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, person("anna", 1))
        yield made


def pass_(services: Services, seconds: float) -> None:
    assert isinstance(services.clock, Clock)
    services.clock.pass_(seconds)


def submit(services: Services, campaign_id: str = "spring", **changes: Any) -> None:
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["sms"], "audience": [{"recipient": "anna", "data": OFFER}]}
    submission.submit(services, parse_campaign({**form, **changes}, submission.validation_context(services)))
    work(services)


def message(services: Services, campaign_id: str = "spring", leg: int = 0) -> Message:
    with lend(services.pool) as connection:
        return messages.of_campaign(connection, campaign_id, "anna")[leg]


def hear(services: Services, status: str, code: str = "", campaign_id: str = "spring", receipt: str | None = None) -> None:
    """A status callback about the message's newest attempt, or that of a receipt."""
    told = message(services, campaign_id)
    sid = receipt or str(told.receipt)
    provider_events.store_events(services, twilio_events(status, code, str(told.ref), "sms", sid, services.clock()))
    provider_events.apply_batch(services, lambda _: None)


def campaign(services: Services, campaign_id: str = "spring") -> CampaignState:
    with lend(services.pool) as connection:
        found = lifecycle.find(connection, campaign_id)
    assert found is not None
    return found.state


def banned(services: Services) -> set[str]:
    with lend(services.pool) as connection:
        return set(facts_of(connection, ["anna"])["anna"].suppressions)


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_finished_campaign_goes_on_for_a_message_that_reached_nobody_and_ends_again(services: Services) -> None:
    submit(services)
    assert (states(services), campaign(services)) == ({"accepted": 1}, CampaignState.FINISHED)
    hear(services, "undelivered", "30001")
    assert (states(services), campaign(services)) == ({"waiting": 1}, CampaignState.RUNNING)
    pass_(services, 299)
    work(services)
    assert len(outbox(services, Channel.SMS).sent) == 1
    pass_(services, 300)
    work(services)
    assert (states(services), campaign(services)) == ({"accepted": 1}, CampaignState.FINISHED)
    assert (len(outbox(services, Channel.SMS).sent), message(services).attempts, message(services).receipt) == (2, 2, "sms-2")
    hear(services, "delivered")
    assert states(services) == {"delivered": 1}


def test_a_campaign_that_ended_at_the_same_moment_is_found_running_when_the_message_is_due(
    services: Services, database: str
) -> None:
    submit(services)
    hear(services, "undelivered", "30001")
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE campaigns SET state = 'finished'")
    pass_(services, HOUR)
    work(services)
    assert states(services) == {"accepted": 1}


def test_two_workers_that_apply_the_same_news_repeat_a_message_once(services: Services, database: str) -> None:
    submit(services)
    ref, now = str(message(services).ref), services.clock()
    for number, receipt in enumerate(("sms-1", None)):  # the second names no attempt, as an event of a mail may do
        event = Event(
            "twilio", f"e-{number}", Channel.SMS, EventKind.FAILED, now, ref, receipt, "30001", retry_hint=RetryHint(60.0, 5)
        )
        provider_events.store_events(services, [event])
        provider_events.apply_batch(services, lambda _: None)
        until = message(services).until
        pass_(services, 10)
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE provider_events SET settled_at = NULL")  # the other worker had read it before
        provider_events.apply_batch(services, lambda _: None)
        assert message(services).until == until


def test_the_provider_that_takes_its_word_back_keeps_a_second_one_from_leaving(services: Services) -> None:
    submit(services)
    hear(services, "undelivered", "30003")
    hear(services, "delivered", receipt="sms-1")
    pass_(services, 24 * HOUR)
    work(services)
    assert (states(services), len(outbox(services, Channel.SMS).sent)) == ({"delivered": 1}, 1)


def test_also_when_the_message_was_due_but_had_to_wait_for_the_day(services: Services) -> None:
    submit(services)
    hear(services, "undelivered", "30003")
    pass_(services, 10 * HOUR)  # 22:00 in Brussels
    work(services)
    assert states(services) == {"held": 1}
    hear(services, "sent", receipt="sms-1")
    assert states(services) == {"held": 1}
    hear(services, "delivered", receipt="sms-1")
    pass_(services, 24 * HOUR)
    work(services)
    assert (states(services), len(outbox(services, Channel.SMS).sent)) == ({"delivered": 1}, 1)


def test_a_no_said_meanwhile_stops_it(services: Services) -> None:
    submit(services)
    hear(services, "undelivered", "30001")
    customer_replies.handle_reply(services, lambda _: None, InboundText("SM-in", Channel.SMS, ANNA, "STOP"))
    pass_(services, HOUR)
    work(services)
    assert (states(services), len(outbox(services, Channel.SMS).sent)) == ({"refused": 1}, 1)


def test_a_cancelled_campaign_repeats_nothing_and_falls_back_to_nothing(services: Services) -> None:
    for name, code in (("a", "30001"), ("b", "30007")):
        submit(services, name, channels=["sms", "email"], fallback_after_seconds=3600)
        with lend(services.pool) as connection:
            assert lifecycle.cancel(connection, name, services.clock())
        hear(services, "undelivered", code, name)
        pass_(services, 2 * HOUR)
        work(services)
        assert states(services, name) == {"failed": 1}
    assert outbox(services).sent == []


def test_another_channel_that_is_due_sooner_goes_before_a_repetition(services: Services) -> None:
    submit(services, "sooner", channels=["sms", "email"], fallback_after_seconds=HOUR)
    hear(services, "undelivered", "30003", "sooner")  # in four hours at the earliest
    submit(services, "later", channels=["sms", "email"], fallback_after_seconds=HOUR)
    hear(services, "undelivered", "30022", "later")  # in a minute
    work(services)
    assert (message(services, "sooner").state, message(services, "sooner", 1).channel) == (State.FAILED, Channel.EMAIL)
    assert message(services, "later").state is State.WAITING


def test_to_the_usa_a_marketing_message_that_meta_held_back_is_not_repeated() -> None:
    for number, retry_hint in (("+32470000001", RetryHint(86_400.0, 2)), ("+12025550100", None)):
        form = {"MessageSid": "SM1", "MessageStatus": "undelivered", "ErrorCode": "63049", "To": f"whatsapp:{number}"}
        url = "https://bank.example/webhooks/twilio/status?message=m-1"
        (event,) = parse_events(url, *signed_form(url, form), AUTH_TOKEN, NOW)
        assert event.retry_hint == retry_hint


# -- failures in a row -------------------------------------------------------------------------------------------------


def miss(services: Services, number: int, code: str = "30003", kind: EventKind = EventKind.FAILED, strikes: int | None = 3) -> None:
    """An event about another message."""
    name = f"c-{number}"
    with lend(services.pool) as connection:
        known = lifecycle.find(connection, name)
    if known is None:
        submit(
            services,
            name,
            template="optout_acknowledgement",
            audience=[{"recipient": "anna", "data": {"received_on": "2026-11-23"}}],
        )
    told = message(services, name)
    event_id = f"{name}-{kind}-{services.clock()}"
    event = Event("twilio", event_id, Channel.SMS, kind, services.clock(), str(told.ref), "SM", code, soft_bounce_limit=strikes)
    provider_events.store_events(services, [event])
    provider_events.apply_batch(services, lambda _: None)


def test_three_messages_in_a_row_that_found_no_handset_end_a_number(services: Services) -> None:
    for number in (1, 1, 1, 2):  # the same message, however often, counts once
        miss(services, number)
        pass_(services, HOUR)
        assert banned(services) == set()
    miss(services, 3)
    assert banned(services) == {"sms"}
    with lend(services.pool) as connection:
        (ban,) = recipients.show(connection, "anna")["suppressions"]
    assert (ban["reason"], ban["source"]) == ("30003", "twilio")


def test_a_delivery_between_them_or_a_week_or_another_reason_begins_the_row_anew(services: Services) -> None:
    miss(services, 1)
    miss(services, 2)
    pass_(services, 1)
    miss(services, 4, "", EventKind.DELIVERED, None)
    pass_(services, 1)
    miss(services, 5)
    miss(services, 6)
    miss(services, 7, "30004")
    assert banned(services) == set()
    pass_(services, SPAN.total_seconds())
    miss(services, 8)
    miss(services, 9)
    assert banned(services) == set()
    miss(services, 10)
    assert banned(services) == {"sms"}


def test_news_of_a_delivery_in_the_same_batch_counts_in_its_order(services: Services) -> None:
    for number in (1, 2):
        miss(services, number)
    pass_(services, 60)
    submit(services, "last")
    ref, now = str(message(services, "last").ref), services.clock()
    news = [
        Event("twilio", "a", Channel.SMS, EventKind.FAILED, now, ref, "SM", "30003", soft_bounce_limit=3),
        Event("twilio", "b", Channel.SMS, EventKind.DELIVERED, now - timedelta(seconds=30), ref, "SM"),
    ]
    provider_events.store_events(services, news)
    provider_events.apply_batch(services, lambda _: None)
    assert banned(services) == set()


def test_a_miss_and_a_later_delivery_in_one_batch_end_the_row_too(services: Services) -> None:
    submit(services, "first")
    ref, now = str(message(services, "first").ref), services.clock()
    missed = Event("twilio", "a", Channel.SMS, EventKind.FAILED, now, ref, "SM", "30003", soft_bounce_limit=3)
    provider_events.store_events(
        services, [missed, Event("twilio", "b", Channel.SMS, EventKind.DELIVERED, now + timedelta(seconds=1), ref, "SM")]
    )
    provider_events.apply_batch(services, lambda _: None)
    pass_(services, 60)
    miss(services, 2)
    miss(services, 3)
    assert banned(services) == set()


def test_twice_blocked_is_a_number_that_wants_no_more(services: Services) -> None:
    for number in (1, 2):
        submit(services, f"b-{number}", template="optout_acknowledgement", audience=SERVICE)
        assert banned(services) == set()
        hear(services, "undelivered", "30004", f"b-{number}")
    assert banned(services) == {"sms"}


# -- what no rule knows ------------------------------------------------------------------------------------------------


def test_unknown_fields_of_news_are_kept_without_addresses_shown_and_forgotten_with_the_person(services: Services) -> None:
    submit(services, channels=["email"])
    ref = str(message(services).ref)
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
    provider_events.store_events(services, sendgrid_events(row, now=services.clock()))
    expected = {
        "reason": "450 <…> busy, call …",
        "bounce_classification": "Reputation",
        "tls": "1",
        "day": "2026-11-23",
        "type": "blocked",
        "status": "4.7.1",
        "new": '{"nested": ["x"]}',
    }
    assert message_view(message(services))["events"][0]["extra"] == expected
    with lend(services.pool) as connection:
        exported = recipients.export(connection, "anna")
        assert exported["messages"][0]["events"][0]["extra"] == expected
        assert erasure.erase(connection, services.secret, "anna", "desk", services.clock())
    assert message_view(message(services))["events"][0]["extra"] == {}


def test_twilios_unknown_fields_are_kept_too() -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "sent", "To": ANNA, "From": "+32460000000", "EventType": "READ", "RawDlr": "x"}
    form |= {"ChannelToAddress": ANNA, "ProfileName": "Anna", "WaId": "32470000001"}
    url = "https://bank.example/webhooks/twilio/status?message=m-1"
    (event,) = parse_events(url, *signed_form(url, form), AUTH_TOKEN, NOW)
    assert event.extra == {"EventType": "READ", "RawDlr": "x"}


def test_fields_without_end_are_cut_and_what_can_not_be_kept_is_made_fit() -> None:
    found = extra_fields({f"f{number}": "x" * 10_000 for number in range(100)}, ())
    assert (len(found), {len(value) for value in found.values()}) == (FIELDS_MAX, {LENGTH_MAX})
    assert extra_fields({"a\0": "b\0\ud800"}, ()) == {"a\ufffd": "b\ufffd\ufffd"}


# -- WhatsApp's window -------------------------------------------------------------------------------------------------


def whatsapp(services: Services, text: str, text_id: str = "SM-1") -> str | None:
    return customer_replies.handle_reply(services, lambda _: None, InboundText(text_id, Channel.WHATSAPP, ANNA, text)).answer


def window(services: Services) -> dict[str, str] | None:
    with lend(services.pool) as connection:
        return recipients.show(connection, "anna").get("whatsapp_window")


def test_what_a_person_writes_by_whatsapp_opens_a_window_of_a_day_for_an_answer_in_free_words(services: Services) -> None:
    assert window(services) is None
    customer_replies.handle_reply(services, lambda _: None, InboundText("SM-0", Channel.SMS, ANNA, "hallo?"))
    assert window(services) is None
    assert whatsapp(services, "Where is my branch?") is None
    assert window(services) == {"heard_at": "2026-11-23T11:00:00+00:00", "open_until": "2026-11-24T11:00:00+00:00"}
    sms, text = customer_replies.waiting(services, 10)
    assert (sms.answer_until, text.answer_until) == (None, services.clock() + timedelta(hours=24))
    pass_(services, HOUR)
    whatsapp(services, "Hello?", "SM-2")
    assert customer_replies.waiting(services, 10)[1].answer_until == services.clock() + timedelta(
        hours=24
    )  # of the conversation, not of the text


def test_help_is_answered_within_it_and_a_call_repeated_a_day_later_opens_none(services: Services) -> None:
    assert "Reply STOP" in str(whatsapp(services, "HELP"))
    pass_(services, 23 * HOUR)
    assert "Reply STOP" in str(whatsapp(services, "HELP"))
    pass_(services, HOUR)
    assert whatsapp(services, "HELP") is None
    assert whatsapp(services, "HELP", "SM-2") is not None


def test_the_window_goes_with_the_person_and_with_time(services: Services, database: str) -> None:
    def known() -> int:
        with psycopg.connect(database) as connection:
            (count,) = connection.execute("SELECT count(*) FROM conversations").fetchone() or (0,)
            return int(count)

    whatsapp(services, "Hello?")
    with lend(services.pool) as connection:
        assert "whatsapp_window" in recipients.export(connection, "anna")
        erasure.erase(connection, services.secret, "anna", "desk", services.clock())
    assert known() == 0
    whatsapp(services, "Hello?", "SM-2")
    assert known() == 1
    pass_(services, 25 * HOUR)
    sweep.sweep(services)
    assert known() == 0


def reply(services: Services, text_id: str = "SM-1", text: str = "Rue Haute 1, open until 5.") -> str | None:
    return agent_reply.answer(services, text_id, text, "desk 7")


def test_a_person_answers_in_free_words_within_the_window_and_once(services: Services) -> None:
    whatsapp(services, "Where is my branch?")
    pass_(services, 23 * HOUR)
    assert reply(services, text=" ") == reply(services, text="x" * 1001) == agent_reply.BAD_LENGTH
    assert reply(services) is None
    (left,) = outbox(services, Channel.WHATSAPP).sent
    assert (left.id, left.address, left.content) == ("answer:SM-1", ANNA, WhatsApp(text="Rue Haute 1, open until 5."))
    assert customer_replies.waiting(services, 10) == []
    assert reply(services) == agent_reply.NOT_WAITING
    customer_replies.handle_reply(services, lambda _: None, InboundText("SM-2", Channel.SMS, ANNA, "Where?"))
    pass_(services, 100 * HOUR)
    assert reply(services, "SM-2") is None  # an SMS has no window
    assert outbox(services, Channel.SMS).sent[0].content == Sms("Rue Haute 1, open until 5.")


def test_what_may_not_or_can_not_be_answered_is_told_and_waits(services: Services) -> None:
    whatsapp(services, "Where is my branch?")
    pass_(services, 24 * HOUR)
    assert reply(services) == agent_reply.WINDOW_OVER
    whatsapp(services, "Hello?", "SM-2")  # opens it again, for the first text too
    with lend(services.pool) as connection:
        stopped_channels.stop(connection, Channel.WHATSAPP, "twilio", "63007", services.clock())
        assert reply(services) == agent_reply.STOPPED
        stopped_channels.lift(connection, Channel.WHATSAPP, services.clock())
    outbox(services, Channel.WHATSAPP).answers[""] = Rejected("63016")
    assert reply(services) == "the provider did not accept it: 63016"
    assert [text.id for text in customer_replies.waiting(services, 10)] == ["SM-1", "SM-2"]
    outbox(services, Channel.WHATSAPP).answers[""] = Uncertain("timeout")
    assert reply(services) == agent_reply.MAYBE_SENT
    assert [text.id for text in customer_replies.waiting(services, 10)] == [
        "SM-2"
    ]  # it may have been sent, so it is not sent again
    whatsapp(services, "STOP", "SM-3")
    assert reply(services, "SM-2") == agent_reply.SUPPRESSED
    customer_replies.handle_reply(services, lambda _: None, InboundText("SM-4", Channel.SMS, "+32479999999", "Who is this?"))
    assert reply(services, "SM-4") == agent_reply.NO_NUMBER


def test_erasing_a_person_ends_the_count_of_failures(services: Services, database: str) -> None:
    miss(services, 1)
    with lend(services.pool) as connection:
        (failure,) = recipients.export(connection, "anna")["failures_in_a_row"]
        assert (failure["channel"], failure["code"]) == ("sms", "30003")
        assert "address_key" not in json.dumps(failure)
        erasure.erase(connection, services.secret, "anna", "desk", services.clock())
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT FROM misses").fetchall() == []
