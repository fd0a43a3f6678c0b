"""A decision as a compact record: what `record` writes as a document, as the key of its skeleton and its values.

It says exactly the same. Nothing is built that many messages share: each message costs a key, which is looked up in memory.
"""

from __future__ import annotations

from datetime import UTC

from dispatcher.domain.decision import Decision, Hold, Send
from dispatcher.domain.decision_skeleton import CONSENT, EPOCH, SECOND, SOURCES, CompactRecord, Place, SkeletonKey, skeleton_of
from dispatcher.domain.message import Job
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.policy.data import Policy
from dispatcher.policy.record import DECISION_NAMES, supporting_choices

# Evidence that begins so is one of few texts; any other is a value.
_SHARED = ("policy:", "rule:", "recipient:", "template:", "job:")
_PREFIX = len(CONSENT)


def compact(decision: Decision, facts: Facts, policy: Policy, job: Job, used: frozenset[str] | None = None) -> CompactRecord:
    """The same as `record`, as key and values: nothing is built that many messages share."""
    values = _Values()
    place = values.place
    info = job.info
    legs: tuple[tuple[str, str, str, Place], ...] = ()
    categories: frozenset[str] = frozenset()
    if isinstance(decision, Send):
        permissions = decision.permissions
        legs = tuple([(each.channel, each.mode, each.basis, place(each.evidence)) for each in permissions])
        allowed = permissions[0].categories
        categories = allowed if used is None else allowed & used
    key = SkeletonKey(
        policy.digest,
        DECISION_NAMES[type(decision)],
        (job.entity, info.template, info.kind, info.offer_type),
        legs,
        used is not None,
        categories,
        tuple([(each.code, each.channel, each.rule, place(each.evidence)) for each in decision.reasons]),
        tuple([values.choice(*each) for each in supporting_choices(decision, facts, policy, job)]),
        job.approval or None,
        values.text(decision.until.isoformat()) if isinstance(decision, Hold) else None,
    )
    return CompactRecord(skeleton_of(key), " ".join(values.numbers), tuple(values.texts))


class _Values:
    """Collects the values of one record."""

    __slots__ = ("_places", "numbers", "texts")

    def __init__(self) -> None:
        self.numbers: list[str] = []
        self.texts: list[str] = []
        self._places: dict[str, Place] = {}  # of the evidence so far: a choice is often cited several times

    def place(self, evidence: str) -> Place:
        """The place of evidence that is a value; other evidence stays as it is."""
        place = self._places.get(evidence)
        if place is not None:
            return place
        if evidence[:_PREFIX] == CONSENT and (number := evidence[_PREFIX:]).isdecimal():
            place = len(self.numbers)
            self.numbers.append(number)
        elif evidence.startswith(_SHARED):
            return evidence
        else:
            place = self.text(evidence)
        self._places[evidence] = place
        return place

    def text(self, value: str) -> Place:
        """The place of any other value."""
        self.texts.append(value)
        return ~(len(self.texts) - 1)

    def choice(self, subject: str, choice: Choice) -> tuple[str, str, Place, Place, Place]:
        """A choice with places for its event, source and moment."""
        event, numbers, at = self.place(choice.event), self.numbers, choice.at
        letter = SOURCES.get(choice.source)
        if letter is None or at.tzinfo is not UTC:
            return subject, choice.value, event, self.text(choice.source), self.text(at.isoformat(timespec="seconds"))
        count = len(numbers)
        numbers += letter, str((at - EPOCH) // SECOND)
        return subject, choice.value, event, count, count + 1
