"""A compact record says exactly what the record says."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from channels.base import Channel
from dispatcher.domain.decision import Decision, Hold, Reason, ReasonCode, Refuse, Send
from dispatcher.domain.decision_skeleton import (
    SOURCES,
    CompactRecord,
    expand,
    skeleton_document,
    skeleton_name,
    with_content,
)
from dispatcher.domain.recipient import Source
from dispatcher.policy import decide, from_record, parse, record, shipped
from dispatcher.policy.compact_record import compact
from dispatcher.policy.rules import RULES
from tests.support.strategies import LONG_AGO, PolicyScenario, recorded_choice, scenarios, sendable

POLICY = parse(shipped())
often = settings(max_examples=settings().max_examples * 3, deadline=None)
CATEGORIES = st.none() | st.frozensets(st.sampled_from(["identity", "product", "transactions", "household"]))


def decision_of(scenario: PolicyScenario) -> Decision:
    return decide(scenario.job, scenario.facts, POLICY, scenario.now)


def compacted(scenario: PolicyScenario, decision: Decision | None = None, used: frozenset[str] | None = None) -> CompactRecord:
    return compact(decision or decision_of(scenario), scenario.facts, POLICY, scenario.job, used)


def recorded(scenario: PolicyScenario, decision: Decision | None = None, used: frozenset[str] | None = None) -> Any:
    """The record as it comes back from a database."""
    return json.loads(json.dumps(record(decision or decision_of(scenario), scenario.facts, POLICY, scenario.job, used)))


def read_back(compact_record: CompactRecord, *added: dict[str, Any]) -> Any:
    """What the ledger's two texts say."""
    skeleton = compact_record.skeleton
    stored = json.loads(compact_record.text())
    assert skeleton_name(stored) == skeleton.name
    return expand([*stored, *added], json.loads(skeleton.document))


@often
@given(scenarios(), CATEGORIES)
def test_a_compact_record_says_what_the_record_says(scenario: PolicyScenario, used: frozenset[str] | None) -> None:
    assert read_back(compacted(scenario, used=used)) == recorded(scenario, used=used) == compacted(scenario, used=used).document()


EVIDENCE = st.one_of(
    st.sampled_from(
        ["consent:1", "consent:01", "consent:", "consent:1 2", "consent:\u0663", "consent:-1", "suppression:5", "inbound:SM1"]
    ),
    st.sampled_from(["policy:caps.week", "rule:age", "job:expires_at", "recipient:email", "template:spring", "campaign:a b", ""]),
    st.integers(min_value=1).map("consent:{}".format),
    st.text(),
)
REASONS = st.lists(
    st.builds(
        Reason, st.sampled_from(ReasonCode), st.sampled_from(Channel), st.sampled_from([*RULES.person, *RULES.channel]), EVIDENCE
    ),
    min_size=1,
    max_size=6,
).map(tuple)
ZONES = st.sampled_from([UTC, UTC, timezone(timedelta(0), "Z"), timezone(timedelta(hours=2)), timezone(-timedelta(hours=5))])
MOMENTS = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001


@often
@given(REASONS, MOMENTS, st.sampled_from([*Source, "a source of later", ""]), EVIDENCE, MOMENTS, st.integers(0, 2))
def test_any_reason_choice_and_moment_comes_back(
    reasons: tuple[Reason, ...], at: datetime, source: str, event: str, until: datetime, kind: int
) -> None:
    scenario, sent = sendable(), decision_of(sendable())
    assert isinstance(sent, Send)
    decision: Decision = (Send(sent.permissions, reasons), Hold(until, reasons), Refuse(reasons))[kind]
    offers = {"own": structs.replace(recorded_choice("tailored", 1), event=event, source=source, at=at)}
    scenario = scenario.with_facts(offers=offers, object_marketing=structs.replace(offers["own"], value="on"))
    assert read_back(compacted(scenario, decision)) == recorded(scenario, decision)


@pytest.mark.parametrize("code", ReasonCode)
def test_each_reason_for_refused_content_comes_back(code: ReasonCode) -> None:
    content = {"content": {"code": code.value, "where": "offer url, line 2"}}
    refused = with_content(compacted(sendable()), code, "offer url, line 2")
    assert isinstance(refused, CompactRecord)
    assert read_back(refused) == recorded(sendable()) | content
    assert with_content(recorded(sendable()), code, "offer url, line 2") == recorded(sendable()) | content


def test_what_is_added_later_is_part_of_the_record() -> None:
    stopped = {"stopped": {"code": "objected", "evidence": "consent:9", "at": "2026-11-23T11:00:00+00:00"}}
    assert read_back(compacted(sendable()), stopped) == recorded(sendable()) | stopped


def test_people_who_differ_only_in_evidence_share_a_skeleton() -> None:
    def at(number: int, source: str, days: int) -> PolicyScenario:
        choice = structs.replace(recorded_choice("tailored", number, source), at=LONG_AGO + timedelta(days=days))
        switch = structs.replace(choice, value="on", event=f"consent:{number + 1}")
        return sendable(channels=(Channel.PUSH,)).with_facts(offers={"own": choice}, switches={"push": switch})

    first, second = compacted(at(7, "mobile", 0)), compacted(at(123456, "branch", 400))
    assert first.skeleton == second.skeleton
    assert first.text() != second.text()
    assert len(second.text()) < 60


@often
@given(scenarios())
def test_a_skeleton_names_no_fact_of_a_person(scenario: PolicyScenario) -> None:
    scenario = replace(scenario, job=replace(scenario.job, campaign_id="a-campaign"))
    skeleton = compacted(scenario).skeleton.document
    for fact in ("consent:", "suppression:", "inbound:", "campaign:", "2025-", "m-0", "m-2", "m-3", '"c-', 'until":"2'):
        assert fact not in skeleton


def test_records_of_different_texts_have_different_skeletons() -> None:
    changes = (
        sendable(),
        sendable(choice="standard"),
        sendable().with_job(entity="kbc-insurance"),
        sendable().with_job(approval=8),
        sendable().with_template(template="autumn"),
        sendable(channels=(Channel.SMS,)),
    )
    assert len({compacted(each).skeleton.name for each in changes}) == len(changes)


def test_each_source_has_a_letter_of_its_own() -> None:
    assert set(SOURCES) == set(Source)
    assert len(set(SOURCES.values())) == len(SOURCES)
    assert not any(letter.isdecimal() or len(letter) != 1 for letter in SOURCES.values())


def test_a_compact_record_can_be_explained() -> None:
    back = from_record(read_back(compacted(sendable())))
    assert back.decision == from_record(recorded(sendable())).decision
    assert skeleton_document(compacted(sendable()).skeleton.key)["is"] == "send"
