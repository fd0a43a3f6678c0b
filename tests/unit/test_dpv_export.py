"""The export of consent as JSON-LD: correct, well-formed, and a contract is never exported as a consent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.consent import dpv_export
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.policy import parse, shipped

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
POLICY = parse(shipped())
PSEUDONYM = "0123456789abcdef"

# The terms of DPV 2.1 and its extensions that the export uses. Each is in the published vocabulary.
TERMS = {
    *("dpv:AcceptContract", "dpv:TerminateContract", "dpv:ConsentGiven", "dpv:ConsentRefused", "dpv:ConsentWithdrawn"),
    *("dpv:LegitimateInterestObjected", "dpv:LegitimateInterestNotObjected", "dpv:OptingInToProcess", "dpv:OptingOutFromProcess"),
    *("dpv:ConsentRecord", "dpv:ConsentReceipt", "dpv:DataSubject", "dpv:DataController", "dpv:DataProcessor", "dpv:Process"),
    *("dpv:Notice", "dpv:DirectMarketing", "dpv:PersonalisedAdvertising", "dpv:Personalisation"),
    *("dpv:hasConsentStatus", "dpv:hasContractControl", "dpv:hasStatus", "dpv:hasInvolvement", "dpv:hasIndicationMethod"),
    *("dpv:isIndicatedAtTime", "dpv:isIndicatedBy", "dpv:hasNotice", "dpv:hasName", "dpv:hasContact", "dpv:hasProcess"),
    *("dpv:hasDataSubject", "dpv:hasDataController", "dpv:hasDataProcessor", "dpv:hasJurisdiction", "dpv:hasApplicableLaw"),
    *("dpv:hasLegalBasis", "dpv:hasPurpose", "dpv:hasRight", "dpv:hasRecordOfActivity"),
    *("eu-gdpr:A6-1-a", "eu-gdpr:A6-1-f", "eu-gdpr:A6-1-b-contract-performance", "eu-gdpr:A7-3", "eu-gdpr:A21"),
    *("legal-eu:law-GDPR", "loc:BE", "dct:identifier", "dct:conformsTo", "dct:created", "dct:modified", "dct:issued"),
    *("dct:publisher", "dct:references", "dct:title", "dct:description", "xsd:dateTime"),
}


def consent_events(*steps: tuple[str, str | None, str]) -> list[ConsentEvent]:
    """Events of one person, an hour apart: (subject, old value, new value)."""
    return [
        ConsentEvent(10 + place, "c-1", place, subject, old, new, "branch", "desk-7", "v3", at - timedelta(days=1), at)
        for place, (subject, old, new) in enumerate(steps, start=1)
        for at in [NOW + timedelta(hours=place)]
    ]


EVENTS = consent_events(
    ("offer:own", None, "tailored"),
    ("channel:email", None, "on"),
    ("offer:own", "tailored", "standard"),
    ("offer:own", "standard", "none"),
    ("channel:email", "on", "off"),
    ("objection:marketing", None, "on"),
    ("objection:profiling", None, "on"),
)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


def document(events: list[ConsentEvent]) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(dpv_export.export(POLICY, PSEUDONYM, events, NOW)))
    return written


def records(events: list[ConsentEvent]) -> dict[str, dict[str, Any]]:
    receipt = document(events)["@graph"][-1]
    return {record["dpv:hasProcess"]["dct:title"]: record for record in receipt["dpv:hasRecordOfActivity"]}


def test_the_tailored_contract_is_exported_as_a_contract() -> None:
    (record,) = records(consent_events(("offer:own", None, "tailored"))).values()
    assert record["dpv:hasProcess"]["dpv:hasLegalBasis"] == ["eu-gdpr:A6-1-b-contract-performance"]
    assert record["dpv:hasProcess"]["dpv:hasPurpose"] == "dpv:PersonalisedAdvertising"
    (event,) = record["dpv:hasRecordOfActivity"]
    assert event["dpv:hasContractControl"] == ["dpv:AcceptContract"]
    assert "Consent" not in json.dumps(event)


@pytest.mark.parametrize(
    ("step", "statuses"),
    [
        ((None, "tailored"), {"AcceptContract"}),
        (("tailored", "standard"), {"TerminateContract", "ConsentGiven", "LegitimateInterestNotObjected"}),
        (("tailored", "none"), {"TerminateContract", "ConsentRefused", "LegitimateInterestObjected"}),
        (("standard", "none"), {"ConsentWithdrawn", "LegitimateInterestObjected"}),
        (("standard", "tailored"), {"AcceptContract", "ConsentWithdrawn"}),
        ((None, "none"), {"ConsentRefused", "LegitimateInterestObjected"}),
        (("none", "standard"), {"ConsentGiven", "LegitimateInterestNotObjected"}),
    ],
)
def test_each_change_is_exported_as_what_it_did(step: tuple[str | None, str], statuses: set[str]) -> None:
    (record,) = records(consent_events(("offer:own", *step))).values()
    (event,) = record["dpv:hasRecordOfActivity"]
    relations = ("dpv:hasContractControl", "dpv:hasConsentStatus", "dpv:hasStatus")
    assert {status for relation in relations for status in event.get(relation, ())} == {f"dpv:{word}" for word in statuses}


def test_a_record_says_who_when_where_and_for_what() -> None:
    records_ = records(EVENTS)
    assert list(records_) == ["channel:email", "objection:marketing", "objection:profiling", "offer:own"]
    own = records_["offer:own"]
    assert own["@type"] == "dpv:ConsentRecord"
    assert own["dpv:hasDataSubject"] == f"urn:dispatcher:person:{PSEUDONYM}"
    assert own["dpv:hasDataController"][0] == "urn:dispatcher:party:kbc-bank-nv"
    assert (own["dct:created"], own["dct:modified"]) == ("2026-11-23T10:00:00+00:00", "2026-11-23T13:00:00+00:00")
    assert [event["dct:identifier"] for event in own["dpv:hasRecordOfActivity"]] == ["consent:11", "consent:13", "consent:14"]
    first = own["dpv:hasRecordOfActivity"][0]
    assert first["dpv:isIndicatedAtTime"] == "2026-11-22T10:00:00+00:00"
    assert first["dpv:hasIndicationMethod"] == "branch, recorded by desk-7"
    assert first["dpv:hasNotice"]["dct:identifier"] == "v3"
    assert "dpv:hasLegalBasis" not in own["dpv:hasProcess"]  # nothing is sent, so there is no basis
    involvements = [event["dpv:hasInvolvement"] for event in records_["channel:email"]["dpv:hasRecordOfActivity"]]
    assert involvements == [["dpv:OptingInToProcess"], ["dpv:OptingOutFromProcess"]]


def test_the_export_is_json_ld_of_known_terms_without_dead_links() -> None:
    written = document(EVENTS)
    context = written["@context"]
    prefixes = {name for name, value in context.items() if isinstance(value, str)}
    all_nodes = list(nodes(written["@graph"]))
    defined = {node["@id"] for node in all_nodes if "@id" in node}
    assert len(defined) == len([node for node in all_nodes if "@id" in node])
    words = re.findall(r'"((?:dpv|eu-gdpr|loc|dct|xsd):[\w-]+)"', json.dumps(written))
    assert set(words) <= TERMS
    assert {word.partition(":")[0] for word in words} <= prefixes
    for node in all_nodes:
        assert all(key.startswith("@") or key in TERMS for key in node)
        for key, value in node.items():
            if context.get(key) == {"@type": "@id"}:
                links = value if isinstance(value, list) else [value]
                assert all(link in TERMS or link in defined or link.startswith(dpv_export.PROFILE) for link in links), (key, links)
            elif context.get(key) == {"@type": "xsd:dateTime"}:
                assert datetime.fromisoformat(value).tzinfo is not None


def test_the_export_does_not_identify_the_person() -> None:
    assert "c-1" not in json.dumps(document(EVENTS))
    assert document([])["@graph"][-1]["dpv:hasRecordOfActivity"] == []
