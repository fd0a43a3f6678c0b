"""Every decision can be kept in few bytes, read back unchanged, and told to the customer in four languages."""

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
from tests.support.strategies import Scenario, recorded_choice, scenarios, sendable

POLICY = parse(shipped())
often = settings(max_examples=settings().max_examples * 3 // 2, deadline=None)


def kept(scene: Scenario, used: list[str] | None = None) -> dict[str, Any]:
    """The record as it comes back from a database."""
    decision = decide(scene.job, scene.facts, POLICY, scene.now)
    back: dict[str, Any] = json.loads(json.dumps(record(decision, scene.facts, POLICY, scene.job, used)))
    return back


def told(scene: Scenario, language: str = "en", **later: Any) -> Explanation:
    return explain(kept(scene, ["identity", "transactions"]), language, POLICY, **later)


# -- the record --------------------------------------------------------------------------------------------------------


@often
@given(scenarios())
def test_a_decision_survives_being_kept(scene: Scenario) -> None:
    decision = decide(scene.job, scene.facts, POLICY, scene.now)
    back = from_record(kept(scene))
    assert type(back.decision) is type(decision)
    assert set(back.decision.reasons) == set(decision.reasons)
    if isinstance(decision, Send) and isinstance(back.decision, Send):
        assert back.decision.legs == decision.legs
    if isinstance(decision, Refuse) and isinstance(back.decision, Refuse):
        assert back.decision.headline.code is decision.headline.code
    assert back.policy_digest == POLICY.digest
    info = scene.job.info
    assert (back.entity, back.template, back.kind, back.offer_type) == (
        scene.job.entity,
        info.template,
        info.kind,
        info.offer_type,
    )


@often
@given(scenarios())
def test_a_record_and_its_story_hold_no_address(scene: Scenario) -> None:
    everything = json.dumps(kept(scene)) + explain(kept(scene), "nl", POLICY).text
    assert "someone@" not in everything
    assert "+32470" not in everything
    assert "old" not in json.loads(json.dumps(kept(scene))).values()


def test_a_record_is_small() -> None:
    for scene in (sendable(), sendable(choice="standard"), sendable().with_facts(offers={"own": recorded_choice("none", 5)})):
        assert len(json.dumps(kept(scene, ["identity", "product"]), separators=(",", ":"))) < 440


def test_a_record_cites_the_approval_of_its_text() -> None:
    assert kept(sendable().with_job(approval=12))["approval"] == 12
    assert "approval" not in kept(sendable(None).with_job(approval=None))


def test_what_the_text_used_is_never_more_than_what_was_allowed() -> None:
    back = from_record(kept(sendable(choice="standard"), ["identity", "transactions"]))
    assert (set(back.categories), back.used) == ({"identity"}, True)
    assert from_record(kept(sendable(choice="standard"))).used is False
    assert from_record(kept(sendable(), [])).used is True


def test_a_record_keeps_the_choices_it_rests_on_and_no_others() -> None:
    scene = sendable(channels=(Channel.EMAIL, Channel.SMS)).with_facts(
        object_profiling=recorded_choice("on", 9), object_marketing=recorded_choice("off", 8)
    )
    assert from_record(kept(scene)).choices.keys() == {"offers.own", "switches.email", "object_profiling"}
    refused = scene.with_facts(switches={"email": recorded_choice("off", 7)}, object_marketing=recorded_choice("on", 8))
    assert from_record(kept(refused)).choices.keys() == {
        "offers.own",
        "switches.email",
        "object_profiling",
        "object_marketing",
    }
    assert from_record(kept(sendable(None))).choices == {}


# -- the words ---------------------------------------------------------------------------------------------------------


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
    assert {basis for bases in BASES.values() for basis in bases} == english["basis"].keys()
    assert frozenset[str]().union(*POLICY.categories.values()) == english["category"].keys()


BEFORE = {None, State.PENDING, State.HELD, State.REFUSED, State.EXPIRED, State.CANCELLED, State.HELD_OUT}


@often
@given(scenarios(), st.sampled_from(LANGUAGES), st.sampled_from([None, *State]), st.sampled_from([None, "21614", *ReasonCode]))
def test_every_story_is_whole_sentences(scene: Scenario, language: str, state: State | None, reason: str | None) -> None:
    if not isinstance(decide(scene.job, scene.facts, POLICY, scene.now), Send) and state not in BEFORE:
        state = None  # nothing arrives that was not sent
    story = told(scene, language, state=state, reason=reason)
    assert story.what
    assert story.who
    assert story.contact or scene.job.entity not in POLICY.entities
    assert not re.search(r"[{}]|None(?! of)|  | ,|\bconsent:\d|policy:", story.text)
    for part in (story.what, story.why, story.data, story.change, story.who):
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
    story = told(sendable(), language, state=State.DELIVERED)
    who = ["KBC Bank", "KBC Bank NV", "KBC Group NV", "https://www.kbc-bank.example/contact"]
    assert [piece for piece in pieces + who if piece not in story.text] == []
    assert story.change


def test_a_refusal_names_the_choice_and_what_would_have_changed_it() -> None:
    story = told(sendable().with_facts(offers={"own": recorded_choice("none", 5, "branch")}))
    assert story.why == ("You chose on 1 March 2025 in a branch not to hear about offers from the bank and the insurer.",)
    assert len(story.change) == 1
    assert "could have received it" in story.change[0]
    assert story.data == ()


def test_only_what_alone_would_have_changed_the_outcome_is_promised() -> None:
    scene = sendable(channels=(Channel.PUSH, Channel.EMAIL)).with_facts(
        devices=(), switches={"email": recorded_choice("off", 9, "live")}
    )
    assert told(scene).change == ("You would have received it if messages by e-mail were switched on.",)
    assert isinstance(
        decide(scene.job, scene.with_facts(switches={"email": recorded_choice("on", 10)}).facts, POLICY, scene.now), Send
    )
    both = scene.with_facts(email=None)
    assert told(both).change == ("All of these reasons count; every one of them would have had to be different.",)


def test_an_objection_to_profiling_is_told_as_such() -> None:
    tailored_only = sendable().with_brief(modes=frozenset({Mode.TAILORED}))
    story = told(tailored_only.with_facts(object_profiling=recorded_choice("on", 9, "touch")))
    assert "personal profile" in story.why[0]
    assert "in the web bank" in story.why[0]
    standard = told(sendable().with_facts(object_profiling=recorded_choice("on", 9)))
    assert "It was written in its standard form." in standard.why


def test_what_came_after_the_decision_is_told_too() -> None:
    later = told(sendable(), state=State.REFUSED, reason="objected")
    assert later.why == ("You objected to commercial messages.",)
    assert later.data == ()
    lost = told(sendable(channels=(Channel.EMAIL,)), state=State.UNRESOLVED, reason="lost_answer")
    assert "never get it twice" in lost.text
    assert "lost_answer" in lost.text


def test_a_held_message_says_until_when_by_the_local_clock() -> None:
    night = Scenario(sendable(channels=(Channel.SMS,)).job, sendable().facts, datetime(2026, 11, 23, 20, 0, tzinfo=UTC))
    assert "24 November 2026, 09:00" in told(night).what[0]


def test_of_a_stranger_there_is_one_thing_to_say() -> None:
    story = told(sendable().with_facts(known=False, offers={}, switches={}, email=None, devices=()))
    assert len(story.why) == 1


def test_the_legs_of_one_decision_are_told_one_by_one() -> None:
    scene = sendable(route="all")
    one = told(scene, state=State.DELIVERED, channel=Channel.SMS).what
    assert one == ("We sent you this message by text message, and it was delivered.",)
    assert " and by WhatsApp" in told(scene, state=State.DELIVERED).what[0]


def test_a_story_outlives_the_entity_it_is_about() -> None:
    gone = parse(shipped().replace("[entities.kbc-bank]", "[entities.kbc-renamed]").replace('"kbc-bank"', '"kbc-renamed"'))
    story = explain(kept(sendable()), "fr", gone)
    assert "kbc-bank" in story.who[0]
    assert story.contact == ()
