"""Every decision can be stored in few bytes, read back unchanged, and explained to the customer in four languages."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode, Refuse, Send
from dispatcher.domain.message import Mode, OfferType, State
from dispatcher.domain.recipient import LANGUAGES, Source
from dispatcher.policy import Explanation, decide, explain, from_record, parse, record, shipped
from dispatcher.policy.explanations import messages
from dispatcher.policy.grants import BASES
from tests.support.strategies import PolicyScenario, recorded_choice, scenarios, sendable

POLICY = parse(shipped())
often = settings(max_examples=settings().max_examples * 3 // 2, deadline=None)


def record_of(scenario: PolicyScenario, used: list[str] | None = None) -> dict[str, Any]:
    """The record as it comes back from a database."""
    decision = decide(scenario.job, scenario.facts, POLICY, scenario.now)
    back: dict[str, Any] = json.loads(json.dumps(record(decision, scenario.facts, POLICY, scenario.job, used)))
    return back


def explanation_of(scenario: PolicyScenario, language: str = "en", **later: Any) -> Explanation:
    return explain(record_of(scenario, ["identity", "transactions"]), language, POLICY, **later)


# -- the record --------------------------------------------------------------------------------------------------------


@often
@given(scenarios())
def test_a_decision_survives_being_kept(scenario: PolicyScenario) -> None:
    decision = decide(scenario.job, scenario.facts, POLICY, scenario.now)
    back = from_record(record_of(scenario))
    assert type(back.decision) is type(decision)
    assert set(back.decision.reasons) == set(decision.reasons)
    if isinstance(decision, Send) and isinstance(back.decision, Send):
        assert back.decision.permissions == decision.permissions
    if isinstance(decision, Refuse) and isinstance(back.decision, Refuse):
        assert back.decision.headline.code is decision.headline.code
    assert back.policy_digest == POLICY.digest
    info = scenario.job.info
    assert (back.entity, back.template, back.kind, back.offer_type) == (
        scenario.job.entity,
        info.template,
        info.kind,
        info.offer_type,
    )


@often
@given(scenarios())
def test_a_record_and_its_story_hold_no_address(scenario: PolicyScenario) -> None:
    everything = json.dumps(record_of(scenario)) + explain(record_of(scenario), "nl", POLICY).text
    assert "someone@" not in everything
    assert "+32470" not in everything
    assert "old" not in json.loads(json.dumps(record_of(scenario))).values()


def test_a_record_is_small() -> None:
    for scenario in (sendable(), sendable(choice="standard"), sendable().with_facts(offers={"own": recorded_choice("none", 5)})):
        assert len(json.dumps(record_of(scenario, ["identity", "product"]), separators=(",", ":"))) < 440


def test_a_record_cites_the_approval_of_its_text() -> None:
    assert record_of(sendable().with_job(approval=12))["approval"] == 12
    assert "approval" not in record_of(sendable(None).with_job(approval=None))


def test_what_the_text_used_is_never_more_than_what_was_allowed() -> None:
    back = from_record(record_of(sendable(choice="standard"), ["identity", "transactions"]))
    assert (set(back.categories), back.used) == ({"identity"}, True)
    assert from_record(record_of(sendable(choice="standard"))).used is False
    assert from_record(record_of(sendable(), [])).used is True


def test_a_record_keeps_the_choices_it_rests_on_and_no_others() -> None:
    scenario = sendable(channels=(Channel.EMAIL, Channel.SMS)).with_facts(
        object_profiling=recorded_choice("on", 9), object_marketing=recorded_choice("off", 8)
    )
    assert from_record(record_of(scenario)).choices.keys() == {"offers.own", "switches.email", "object_profiling"}
    refused = scenario.with_facts(switches={"email": recorded_choice("off", 7)}, object_marketing=recorded_choice("on", 8))
    assert from_record(record_of(refused)).choices.keys() == {
        "offers.own",
        "switches.email",
        "object_profiling",
        "object_marketing",
    }
    assert from_record(record_of(sendable(None))).choices == {}


# -- the texts ---------------------------------------------------------------------------------------------------------


def leaves(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, str):
            yield f"{path}{key}", value


def places(sentence: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_tells_the_same_with_the_same_places(language: str) -> None:
    ours, english = dict(leaves(messages(language))), dict(leaves(messages("en")))
    assert ours.keys() == english.keys()
    assert {key: places(text) - {"day"} for key, text in ours.items()} == {
        key: places(text) - {"day"} for key, text in english.items()
    }
    assert len(messages(language)["form"]["months"]) == 12


def test_there_are_words_for_everything_that_can_happen() -> None:
    english = messages("en")
    assert set(ReasonCode) <= english["why"].keys()
    assert set(State) == english["state"].keys()
    assert set(Source) == english["source"].keys()
    assert set(Channel) == english["channel"].keys()
    assert {*OfferType, "other"} == english["offer"].keys()
    assert {basis for bases in BASES.values() for basis in bases} | {"contract_version"} == english["basis"].keys()
    assert frozenset[str]().union(*POLICY.categories.values()) == english["category"].keys()


BEFORE = {None, State.PENDING, State.HELD, State.REFUSED, State.EXPIRED, State.CANCELLED, State.HELD_OUT}


@often
@given(scenarios(), st.sampled_from(LANGUAGES), st.sampled_from([None, *State]), st.sampled_from([None, "21614", *ReasonCode]))
def test_every_story_is_whole_sentences(scenario: PolicyScenario, language: str, state: State | None, reason: str | None) -> None:
    if not isinstance(decide(scenario.job, scenario.facts, POLICY, scenario.now), Send) and state not in BEFORE:
        state = None  # nothing arrives that was not sent
    explanation = explanation_of(scenario, language, state=state, reason=reason)
    assert explanation.what
    assert explanation.who
    assert explanation.contact or scenario.job.entity not in POLICY.entities
    assert not re.search(r"[{}]|None(?! of)|  | ,|\bconsent:\d|policy:", explanation.text)
    for part in (explanation.what, explanation.why, explanation.data, explanation.change, explanation.who):
        assert all(sentence[0].isupper() and sentence[-1] == "." for sentence in part)


# -- the stories -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "pieces"),
    [
        ("nl", ["1 maart 2025", "in de mobiele app", "berichten op maat", "contract", "je verrichtingen", "bezorgd"]),
        ("fr", ["1er mars 2025", "dans l’application mobile", "sur mesure", "contrat", "vos opérations", "remis"]),
        (
            "de",
            ["1. März 2025", "in der mobilen App", "maßgeschneiderte", "Vertrag", "Ihre Kontobewegungen", "zugestellt"],
        ),
        ("en", ["1 March 2025", "in the mobile app", "tailored", "contract", "your transactions", "delivered"]),
    ],
)
def test_a_sent_message_tells_choice_source_date_basis_data_and_who(language: str, pieces: list[str]) -> None:
    explanation = explanation_of(sendable(), language, state=State.DELIVERED)
    who = ["KBC Bank", "KBC Bank NV", "KBC Group NV", "https://www.kbc-bank.example/contact"]
    assert [piece for piece in pieces + who if piece not in explanation.text] == []
    assert explanation.change


def test_a_refusal_names_the_choice_and_what_would_have_changed_it() -> None:
    explanation = explanation_of(sendable().with_facts(offers={"own": recorded_choice("none", 5, "branch")}))
    assert explanation.why == ("You chose on 1 March 2025 in a branch not to hear about offers from the bank and the insurer.",)
    assert len(explanation.change) == 1
    assert "could have received it" in explanation.change[0]
    assert explanation.data == ()


def test_only_what_alone_would_have_changed_the_outcome_is_promised() -> None:
    scenario = sendable(channels=(Channel.PUSH, Channel.EMAIL)).with_facts(
        devices=(), switches={"email": recorded_choice("off", 9, "live")}
    )
    assert explanation_of(scenario).change == ("You would have received it if messages by e-mail were switched on.",)
    assert isinstance(
        decide(scenario.job, scenario.with_facts(switches={"email": recorded_choice("on", 10)}).facts, POLICY, scenario.now), Send
    )
    both = scenario.with_facts(email=None)
    assert explanation_of(both).change == ("All of these reasons together kept the message from being sent.",)


def test_an_objection_to_profiling_is_told_as_such() -> None:
    tailored_only = sendable().with_template(modes=frozenset({Mode.TAILORED}))
    explanation = explanation_of(tailored_only.with_facts(object_profiling=recorded_choice("on", 9, "touch")))
    assert "personal profile" in explanation.why[0]
    assert "in the web bank" in explanation.why[0]
    standard = explanation_of(sendable().with_facts(object_profiling=recorded_choice("on", 9)))
    assert "It was written in its standard form." in standard.why


def test_what_came_after_the_decision_is_told_too() -> None:
    later = explanation_of(sendable(), state=State.REFUSED, reason="objected")
    assert later.why == ("You objected to commercial messages.",)
    assert later.data == ()
    lost = explanation_of(sendable(channels=(Channel.EMAIL,)), state=State.UNRESOLVED, reason="lost_answer")
    assert "never get it twice" in lost.text
    assert "lost_answer" in lost.text


def test_a_held_message_says_until_when_by_the_local_clock() -> None:
    night = PolicyScenario(sendable(channels=(Channel.SMS,)).job, sendable().facts, datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    assert "24 November 2026, 09:00" in explanation_of(night).what[0]


def test_of_a_stranger_there_is_one_thing_to_say() -> None:
    explanation = explanation_of(sendable().with_facts(known=False, offers={}, switches={}, email=None, devices=()))
    assert len(explanation.why) == 1


def test_the_legs_of_one_decision_are_told_one_by_one() -> None:
    scenario = sendable(route="all")
    one = explanation_of(scenario, state=State.DELIVERED, channel=Channel.SMS).what
    assert one == ("We sent you this message by text message, and it was delivered.",)
    assert " and by WhatsApp" in explanation_of(scenario, state=State.DELIVERED).what[0]


def test_a_story_outlives_the_entity_it_is_about() -> None:
    gone = parse(shipped().replace("[entities.kbc-bank]", "[entities.kbc-renamed]").replace('"kbc-bank"', '"kbc-renamed"'))
    explanation = explain(record_of(sendable()), "fr", gone)
    assert "kbc-bank" in explanation.who[0]
    assert explanation.contact == ()
