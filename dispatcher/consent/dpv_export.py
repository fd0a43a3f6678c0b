"""A person's choices as machine-readable consent records and a receipt. Only `export_person` does I/O.

ISO/IEC TS 27560:2023 in the terms of the Data Privacy Vocabulary (DPV 2.1, profile dpv-27560), as JSON-LD. One record covers one
subject with all its consent events; the receipt holds the records.

Accepting the tailored contract is not consent: such an event accepts a contract, and its basis is the performance of the contract
(GDPR art. 6.1.b). The policy says on which bases a standard choice rests. The person is named by a pseudonym.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from dispatcher.consent import preferences
from dispatcher.domain.message import Mode
from dispatcher.ledger import keyed_hash
from dispatcher.ledger.consent.hash_chain import ConsentEvent
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services

Node = dict[str, Any]
PROFILE = "https://w3id.org/dpv/schema/dpv-27560#"
_TIME = {"@type": "xsd:dateTime"}
_REFERENCE = {"@type": "@id"}

CONTEXT: Mapping[str, Any] = {
    "dpv": "https://w3id.org/dpv#",
    "legal-eu": "https://w3id.org/dpv/legal/eu#",
    "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
    "loc": "https://w3id.org/dpv/loc#",
    "dct": "http://purl.org/dc/terms/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "dct:created": _TIME,
    "dct:modified": _TIME,
    "dct:issued": _TIME,
    "dpv:isIndicatedAtTime": _TIME,
    **dict.fromkeys(
        (
            *("dct:conformsTo", "dct:publisher", "dpv:hasDataSubject", "dpv:hasDataController", "dpv:hasDataProcessor"),
            *("dpv:hasJurisdiction", "dpv:hasApplicableLaw", "dpv:hasLegalBasis", "dpv:hasPurpose", "dpv:hasRight"),
            *("dpv:hasConsentStatus", "dpv:hasContractControl", "dpv:hasStatus", "dpv:hasInvolvement", "dpv:isIndicatedBy"),
        ),
        _REFERENCE,
    ),
}

# Keys: names in the policy. A soft opt-in rests on legitimate interest (recital 47).
BASES: Mapping[str, str] = {
    "contract": "eu-gdpr:A6-1-b-contract-performance",
    "legitimate_interest": "eu-gdpr:A6-1-f",
    "soft_opt_in": "eu-gdpr:A6-1-f",
    "consent": "eu-gdpr:A6-1-a",
}
CONSENT, INTEREST = BASES["consent"], BASES["legitimate_interest"]
_PURPOSE: Mapping[str, str] = {Mode.TAILORED: "dpv:PersonalisedAdvertising", Mode.STANDARD: "dpv:DirectMarketing"}
_RIGHTS = {CONSENT: "eu-gdpr:A7-3", INTEREST: "eu-gdpr:A21"}  # to withdraw consent; to object


def export_person(services: Services, recipient_id: str) -> Node:
    """The JSON-LD document of one person. Raises `UnknownRecipient`."""
    events = preferences.history(services, recipient_id)
    return export(services.policy, keyed_hash.pseudonym(services.secret, recipient_id), events, services.clock())


def export(policy: Policy, pseudonym: str, events: Sequence[ConsentEvent], now: datetime) -> Node:
    """The JSON-LD document: controllers, a record for each subject, and the receipt. `events` are of one person."""
    data_subject = f"urn:dispatcher:person:{pseudonym}"
    by_subject = groupby(sorted(events, key=lambda event: event.subject), key=lambda event: event.subject)
    records = [_record(policy, data_subject, subject, list(group)) for subject, group in by_subject]
    receipt = {
        "@id": f"urn:dispatcher:receipt:{pseudonym}:{_format_time(now)}",
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": f"{pseudonym}:{_format_time(now)}",
        "dct:conformsTo": f"{PROFILE}receipt",
        "dct:issued": _format_time(now),
        "dct:publisher": [_party_id(name) for name in _controllers(policy)],
        "dpv:hasRecordOfActivity": records,
    }
    return {"@context": dict(CONTEXT), "@graph": [{"@id": data_subject, "@type": "dpv:DataSubject"}, *_parties(policy), receipt]}


def _parties(policy: Policy) -> Iterator[Node]:
    contacts = {name: entity.contact for entity in policy.entities.values() for name in entity.controllers}
    for name in _controllers(policy):
        party = {"@id": _party_id(name), "@type": "dpv:DataController", "dpv:hasName": name}
        yield {**party, "dpv:hasContact": contacts[name]}
    for name in _processors(policy):
        yield {"@id": _party_id(name), "@type": "dpv:DataProcessor", "dpv:hasName": name}


def _controllers(policy: Policy) -> list[str]:
    return list(dict.fromkeys(name for entity in policy.entities.values() for name in entity.controllers))


def _processors(policy: Policy) -> list[str]:
    return list(dict.fromkeys(entity.processor for entity in policy.entities.values()))


def _party_id(name: str) -> str:
    return "urn:dispatcher:party:" + "-".join(name.lower().split())


def _record(policy: Policy, data_subject: str, subject: str, events: Sequence[ConsentEvent]) -> Node:
    """All events about one subject, oldest first; `dpv:hasProcess` is the choice in force."""
    events = sorted(events, key=lambda event: event.seq)
    pseudonym = data_subject.rpartition(":")[2]
    return {
        "@id": f"urn:dispatcher:record:{pseudonym}:{subject}",
        "@type": "dpv:ConsentRecord",
        "dct:identifier": f"{pseudonym}:{subject}",
        "dct:conformsTo": f"{PROFILE}record",
        "dct:created": _format_time(events[0].recorded_at),
        "dct:modified": _format_time(events[-1].recorded_at),
        "dpv:hasDataSubject": data_subject,
        "dpv:hasDataController": [_party_id(name) for name in _controllers(policy)],
        "dpv:hasDataProcessor": [_party_id(name) for name in _processors(policy)],
        "dpv:hasJurisdiction": "loc:BE",
        "dpv:hasApplicableLaw": "legal-eu:law-GDPR",
        "dpv:hasProcess": _process(policy, subject, events[-1].new_value),
        "dpv:hasRecordOfActivity": [_event(policy, data_subject, event) for event in events],
    }


def _process(policy: Policy, subject: str, value: str) -> Node:
    """What the value in force allows: a purpose with its bases, or the purpose alone where it allows nothing."""
    kind, _, what = subject.partition(":")
    process = {"@type": "dpv:Process", "dct:title": subject, "dct:description": value}
    if kind != "offer":
        return {**process, "dpv:hasPurpose": "dpv:DirectMarketing" if subject != "objection:profiling" else "dpv:Personalisation"}
    found = bases(policy, what, value)
    process["dpv:hasPurpose"] = _PURPOSE.get(value, "dpv:DirectMarketing")
    if not found:
        return process
    rights = [_RIGHTS[basis] for basis in found if basis in _RIGHTS]
    return {**process, "dpv:hasLegalBasis": found, **({"dpv:hasRight": rights} if rights else {})}


def bases(policy: Policy, offer: str, choice: str) -> list[str]:
    """The legal bases, in DPV's terms, that the policy allows for a message of this offer type and choice."""
    rows = [tables.get(offer, {}).get(choice, {}) for tables in policy.basis.values()]
    return list(dict.fromkeys(BASES[one.basis] for row in rows for permissions in row.values() for one in permissions))


def _event(policy: Policy, data_subject: str, event: ConsentEvent) -> Node:
    node: Node = {
        "@id": f"urn:dispatcher:{event.evidence}",
        "dct:identifier": event.evidence,
        "dct:description": f"{event.subject}: {event.old_value or 'unsaid'} to {event.new_value}",
        "dct:created": _format_time(event.recorded_at),
        "dpv:isIndicatedBy": data_subject,
        "dpv:hasIndicationMethod": f"{event.source}, recorded by {event.actor}",
    }
    if event.dated:
        node["dpv:isIndicatedAtTime"] = _format_time(event.said_at)
    else:  # nobody knows when the person said it
        node["dpv:hasIndicationMethod"] = f"{event.source}, according to files, taken over by {event.actor}"
    if event.contract_version:
        name = f"tailored contract, version {event.contract_version}"
        node["dct:references"] = {"@id": f"urn:dispatcher:contract:{event.contract_version}", "dct:identifier": name}
    if event.wording:
        node["dpv:hasNotice"] = {"@type": "dpv:Notice", "dct:identifier": event.wording}
    for relation, status in _event_statuses(policy, event):
        node.setdefault(relation, []).append(status)
    return node


def _event_statuses(policy: Policy, event: ConsentEvent) -> Iterable[tuple[str, str]]:
    """What the event did, in DPV's terms: to a contract, to consent, to a legitimate interest, to a channel."""
    kind, _, what = event.subject.partition(":")
    if kind == "channel":
        return [("dpv:hasInvolvement", "dpv:OptingInToProcess" if event.new_value == "on" else "dpv:OptingOutFromProcess")]
    if kind == "objection":
        objects = "dpv:LegitimateInterestObjected" if event.new_value == "on" else "dpv:LegitimateInterestNotObjected"
        return [("dpv:hasStatus", objects)]
    return [*_contract_statuses(event), *_standard_statuses(policy, what, event)]


def _contract_statuses(event: ConsentEvent) -> Iterator[tuple[str, str]]:
    if event.new_value == Mode.TAILORED:
        yield "dpv:hasContractControl", "dpv:AcceptContract"
    elif event.old_value == Mode.TAILORED:
        yield "dpv:hasContractControl", "dpv:TerminateContract"


def _standard_statuses(policy: Policy, offer: str, event: ConsentEvent) -> Iterator[tuple[str, str]]:
    """Standard messages rest on consent, on legitimate interest or on both, by the policy; the choice none ends or refuses both."""
    found = bases(policy, offer, Mode.STANDARD)
    given, ended = event.new_value == Mode.STANDARD, event.new_value == Mode.NONE
    if CONSENT in found and given:
        yield "dpv:hasConsentStatus", "dpv:ConsentGiven"
    if CONSENT in found and (ended or event.old_value == Mode.STANDARD):
        yield "dpv:hasConsentStatus", "dpv:ConsentWithdrawn" if event.old_value == Mode.STANDARD else "dpv:ConsentRefused"
    if INTEREST in found and (given or ended):
        yield "dpv:hasStatus", "dpv:LegitimateInterestNotObjected" if given else "dpv:LegitimateInterestObjected"


def _format_time(at: datetime) -> str:
    return at.isoformat()
