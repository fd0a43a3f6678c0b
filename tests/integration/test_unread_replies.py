"""A reply that may be an opt-out and that nobody has read: advertising to its number waits, service messages go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.base import Channel, Rejected
from dispatcher.campaigns import submission
from dispatcher.delivery import pipeline
from dispatcher.domain import opt_out_keywords
from dispatcher.domain.message import State
from dispatcher.inbound import agent_reply, customer_replies
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure
from dispatcher.ledger.consent import events as consent
from dispatcher.ledger.delivery import claims, messages
from dispatcher.ledger.delivery.candidates import facts_of, gather
from dispatcher.ledger.delivery.chunks import find_chunk
from dispatcher.ledger.delivery.claims import ClaimEntry
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import retention
from dispatcher.policy import parse, shipped
from dispatcher.policy.rules import UNREAD_CHECK
from tests.support.services import add_people, balance, outbox, person, states, work
from tests.support.webhook_front import ANNA, KEYS, Front, open_front

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
DAY = 86_400.0
UNCLEAR = "Laat me met rust!"


@pytest.fixture
def front(database: str) -> Iterator[Front]:
    with open_front(database, KEYS) as opened:
        policy = replace(opened.services.policy, one_per_address=False)  # anna and bert have one number
        opened.services = replace(opened.services, policy=policy)
        add_people(opened.services, person("anna", 1), person("bert", 1), person("carl", 2))
        yield opened


def submit(front: Front, name: str = "spring", *, people: tuple[str, ...] = ("anna",), start: bool = True, **changes: Any) -> None:
    service = changes.get("template", "loan_offer") != "loan_offer"
    data = {"received_on": "2026-11-23"} if service else OFFER
    audience = [{"recipient": each, "data": data} for each in people]
    form = {"id": name, "template": "loan_offer", "channels": ["sms"], "audience": audience, **changes}
    submission.submit(front.services, parse_campaign(form, submission.validation_context(front.services)))
    if start:
        work(front.services)


def pass_(front: Front, seconds: float) -> None:
    front.services.clock.pass_(seconds)  # type: ignore[attr-defined]
    work(front.services)


def message(front: Front, recipient: str = "anna", name: str = "spring") -> Message:
    with lend(front.services.pool) as connection:
        return messages.of_campaign(connection, name, recipient)[0]


def close(front: Front, *, stop: bool = False) -> None:
    (waiting,) = customer_replies.waiting(front.services, 10)
    assert customer_replies.close_unclear_message(front.services, front.broker.publish, waiting.id, "desk-7", stop=stop)


# -- held --------------------------------------------------------------------------------------------------------------


def test_an_unread_answer_holds_advertising_to_its_number_until_somebody_has_read_it(front: Front) -> None:
    front.text(UNCLEAR)
    submit(front, "spring", people=("anna", "bert", "carl"))
    submit(front, "whats", people=("anna", "bert", "carl"), channels=["whatsapp"])
    for name in ("spring", "whats"):
        assert states(front.services, name) == {"accepted": 1, "held": 2}
        assert balance(front.services, name).reasons == {"unread_answer": 2}
    held = message(front)
    assert (held.state, held.reason, held.attempts) == (State.HELD, "unread_answer", 0)
    assert held.decision["reasons"] == [["unread_answer", "unread_answer", "inbound:SM1", "sms"]]
    pass_(front, 2 * 3_600)
    assert states(front.services) == {"accepted": 1, "held": 2}
    close(front)
    pass_(front, UNREAD_CHECK.total_seconds())
    assert states(front.services) == {"accepted": 3}
    assert states(front.services, "whats") == {"accepted": 1, "refused": 2}  # the number got its two text messages of the day


def test_a_whatsapp_reply_holds_sms_too(front: Front) -> None:
    front.text(UNCLEAR, f"whatsapp:{ANNA}")
    submit(front)
    assert states(front.services) == {"held": 1}


def test_somebody_imported_later_with_the_number_is_held(front: Front) -> None:
    front.text(UNCLEAR, "+32470000009")
    add_people(front.services, person("dora", 9), person("emma", 8, whatsapp="+32470000009"))
    submit(front, people=("dora", "emma"))
    assert states(front.services) == {"held": 1, "accepted": 1}  # emma has the number for WhatsApp only
    submit(front, "whats", people=("dora", "emma"), channels=["whatsapp"])
    assert states(front.services, "whats") == {"held": 2}


def test_service_messages_and_other_channels_go_on(front: Front) -> None:
    front.text(UNCLEAR)
    submit(front, "service", template="optout_acknowledgement", people=("anna", "bert"))
    assert states(front.services, "service") == {"accepted": 2}
    submit(front, "mail", channels=["sms", "email"])
    assert (message(front, name="mail").channel, message(front, name="mail").state) == (Channel.EMAIL, State.ACCEPTED)


def test_a_harmless_reply_and_a_clear_one_hold_nothing(front: Front) -> None:
    front.text("Merci!")
    front.text("HELP")
    submit(front)
    assert states(front.services) == {"accepted": 1}


def test_a_reply_that_an_operator_calls_an_opt_out_is_one(front: Front) -> None:
    front.text(UNCLEAR)
    submit(front, people=("anna", "bert"))
    close(front, stop=True)
    pass_(front, UNREAD_CHECK.total_seconds())
    assert states(front.services) == {"refused": 2}
    assert [front.switch(name) for name in ("anna", "bert")] == ["off", "off"]
    assert front.banned("anna") == {"sms"}


def test_an_answer_ends_the_hold_and_one_that_was_not_sent_does_not(front: Front) -> None:
    front.text(UNCLEAR)
    submit(front)
    (waiting,) = customer_replies.waiting(front.services, 10)
    outbox(front.services, Channel.SMS).answers[ANNA] = Rejected("30007")
    assert agent_reply.answer(front.services, waiting.id, "Hallo", "desk-7") is not None
    pass_(front, UNREAD_CHECK.total_seconds())
    assert states(front.services) == {"held": 1}
    outbox(front.services, Channel.SMS).answers.clear()
    assert agent_reply.answer(front.services, waiting.id, "Hallo", "desk-7") is None
    pass_(front, UNREAD_CHECK.total_seconds())
    assert states(front.services) == {"accepted": 1}


def test_one_of_two_replies_that_is_read_does_not_end_the_hold(front: Front) -> None:
    front.text(UNCLEAR)
    front.text("En wel nu")
    submit(front)
    first, second = customer_replies.waiting(front.services, 10)
    for number, left in ((first, {"held": 1}), (second, {"accepted": 1})):
        customer_replies.close_unclear_message(front.services, front.broker.publish, number.id, "desk-7", stop=False)
        pass_(front, UNREAD_CHECK.total_seconds())
        assert states(front.services) == left


def test_a_held_message_expires_in_time(front: Front) -> None:
    front.text(UNCLEAR)
    submit(front, expires_at="2026-11-23T12:00:00Z")
    assert states(front.services) == {"held": 1}
    pass_(front, 3_600)
    assert states(front.services) == {"expired": 1}


# -- the claim gate ----------------------------------------------------------------------------------------------------


def claim_after(front: Front, say: str, template: str = "loan_offer") -> tuple[int, set[int]]:
    """Decide a batch, then let a reply come, then claim what was decided. Returns how many were claimed, and the changed rows."""
    submit(front, "gate", people=("anna", "bert", "carl"), template=template, start=False)
    with lend(front.services.pool) as connection:
        row = connection.execute("SELECT period, chunk FROM chunks ORDER BY chunk DESC LIMIT 1").fetchone()
        assert row is not None
        chunk = find_chunk(connection, *row)
        assert chunk is not None
        connection.execute("UPDATE campaigns SET state = 'running'")
        candidates = gather(connection, chunk, None, pipeline.send_limits(front.services, chunk))
        entries: list[ClaimEntry] = [item.entry for item in pipeline.prepare_all(front.services, chunk, candidates, {})]
        assert {entry.state for entry in entries} == {State.CLAIMED}
        front.text(say)
        claim = claims.claim(connection, chunk, entries, front.services.clock(), pipeline.send_limits(front.services, chunk))
    return len(claim.claimed), set(claim.changed)


def test_what_is_claimed_after_a_reply_was_stored_does_not_leave(front: Front) -> None:
    assert claim_after(front, UNCLEAR) == (1, {0, 1})


def test_a_harmless_reply_does_not_disturb_a_claim(front: Front) -> None:
    assert claim_after(front, "Merci") == (3, set())


def test_a_reply_does_not_disturb_a_claim_of_service_messages(front: Front) -> None:
    assert claim_after(front, UNCLEAR, "optout_acknowledgement") == (3, set())


# -- deleted unread ----------------------------------------------------------------------------------------------------


def clear(front: Front) -> dict[str, int]:
    return {done.data.policy_key: done.cleared for done in retention.clear(front.services)}


def texts(database: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT words, closed_by FROM inbound_texts ORDER BY id").fetchall()


def alert_codes(front: Front) -> list[str]:
    with lend(front.services.pool) as connection:
        return [alert.code for alert in alerts.newest(connection)]


def test_a_reply_deleted_unread_counts_as_a_stop(front: Front, database: str) -> None:
    front.text(UNCLEAR)
    front.text("Dank u")
    submit(front)
    pass_(front, 31 * DAY)
    assert clear(front)["answers"] == 2
    assert texts(database) == [(None, "nobody"), (None, "nobody")]
    pass_(front, UNREAD_CHECK.total_seconds())
    assert (states(front.services), front.switch("anna"), front.switch("bert")) == ({"refused": 1}, "off", "off")
    with lend(front.services.pool) as connection:
        said = consent.history(connection, "anna")[-1]
    assert (said.source, said.actor) == ("inbound", "nobody")
    assert alert_codes(front) == ["deleted_unread"]
    assert front.banned("anna") == {"sms"}
    work(front.services)
    assert [sent.id for sent in outbox(front.services).sent] != []  # the acknowledgement, by e-mail


def test_by_the_policy_a_reply_deleted_unread_holds_until_a_person_closes_it(front: Front, database: str) -> None:
    policy = parse(shipped().replace('deleted_unread = "stop"', 'deleted_unread = "hold"'))
    object.__setattr__(policy, "digest", front.services.policy.digest)
    holding = replace(front, services=replace(front.services, policy=policy))
    front.text(UNCLEAR)
    front.text("Dank u")
    pass_(front, 31 * DAY)
    assert clear(holding)["answers"] == 2
    assert texts(database) == [(None, None), (None, "nobody")]
    assert alert_codes(front) == ["deleted_unread"]
    submit(front)
    assert (states(front.services), front.switch("anna")) == ({"held": 1}, "on")
    (waiting,) = customer_replies.waiting(front.services, 10)
    assert waiting.text == ""
    close(front)
    pass_(front, UNREAD_CHECK.total_seconds())
    assert states(front.services) == {"accepted": 1}


def test_an_erasure_does_not_end_the_hold_of_others_with_the_number(front: Front, database: str) -> None:
    front.text(UNCLEAR)
    with lend(front.services.pool) as connection:
        erasure.erase(connection, front.services.secret, "anna", "tests", front.services.clock())
    assert texts(database) == [(None, None)]
    submit(front, people=("bert",))
    assert states(front.services) == {"held": 1}
    pass_(front, 31 * DAY)
    clear(front)
    pass_(front, UNREAD_CHECK.total_seconds())
    assert (states(front.services), front.switch("bert")) == ({"refused": 1}, "off")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_no_reply_whatever_its_text_is_followed_by_advertising_unless_it_is_harmless(front: Front, text: str) -> None:
    """Each text is a STOP, harmless, or holds its number."""
    number = f"+3247100{front.texts:04}"
    front.text(text, number)
    add_people(front.services, person(f"p-{front.texts}", 1, phone=number, whatsapp=None))
    with lend(front.services.pool) as connection:
        facts = facts_of(connection, [f"p-{front.texts}"])[f"p-{front.texts}"]
    meaning = opt_out_keywords.classify(text)
    free = meaning in {"help", "start"} or (meaning == "unclear" and not opt_out_keywords.may_be_opt_out(text))
    assert bool(facts.suppressions or facts.unread_replies) is not free
