"""Campaigns and triggers, from submission to the last leg: fan-out, dry runs, and what the clock sets going."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dispatcher.campaigns.submission import load_audience
from dispatcher.campaigns.template_approval import approval_errors
from dispatcher.delivery.pipeline import PendingSends, caps_since, prepare_all
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.intake.campaign import Submission
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.campaigns.audience import AudienceLoader
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.claims import Candidate, Chunk, ClaimEntry
from dispatcher.runtime.services import Services


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a campaign would do now: `states` adds up to the audience. Nothing was sent or kept."""

    audience: int
    invalid: int
    states: Counter[str]
    reasons: Counter[str]
    channels: Counter[str]
    variants: Counter[str]  # messages that would leave, by the name of the variant
    needs: tuple[str, ...] = ()  # what people have to do before it can start


class _RollBack(Exception):
    """Ends a rehearsal's transaction, so that nothing of it is kept."""


def dry_run(services: Services, submission: Submission, as_of: datetime | None = None) -> DryRun:
    """Decide and write every message of a campaign as it would be now, through the same code, then forget it all.

    With `as_of`, as at that moment: by its clock, and by what people had said until then. Addresses, profiles and
    suppressions are today's, for of those no history is kept.
    """
    if as_of is not None:
        moment = as_of
        services = replace(services, clock=lambda: moment)
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    channels_: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    with lend(services.pool) as connection:
        try:
            with connection.transaction():
                no, period = lifecycle.create(connection, f"{submission.id}?rehearsal", submission.spec, services.clock()) or (0, 0)
                loader = AudienceLoader(connection, no, period, submission.spec, services.clock())
                load_audience(loader, submission, lambda _: None)
                ahead = PendingSends()
                for chunk in _chunks_of(services, connection, submission, no, period):
                    candidates = claims.gather(connection, chunk, since=caps_since(services, chunk))
                    if as_of is not None:
                        candidates = _as_of(connection, candidates, as_of)
                    entries = [item.entry for item in prepare_all(services, chunk, candidates, {}, ahead)]
                    _count(entries, states, reasons, channels_)
                    variants.update(_variants(submission.spec, entries))
                raise _RollBack
        except _RollBack:
            needs = tuple(_needs(services, connection, submission.spec, loader.taken))
            return DryRun(loader.taken, loader.invalid, states, reasons, channels_, variants, needs)


def _needs(services: Services, connection: Connection, spec: Spec, audience: int) -> Iterator[str]:
    """What stands between the campaign and its start: approvals of its texts, and a second person's release."""
    for fault in approval_errors(services, connection, spec.templates):
        yield fault.message
    most = services.policy.four_eyes_audience_min
    if audience > most:
        yield f"somebody else than its submitter has to release it, for it has more than {most:,} recipients"


def _variants(spec: Spec, entries: Sequence[ClaimEntry]) -> Counter[str]:
    name_of = {template: name for name, template in spec.variants}
    leaving = (entry.decision["job"][1] for entry in entries if entry.state is State.CLAIMED)
    return Counter(name_of[template] for template in leaving if template in name_of)


def _chunks_of(services: Services, connection: Connection, submission: Submission, no: int, period: int) -> Iterator[Chunk]:
    approved = {template.digest: 0 for template in services.catalog.values()}  # a rehearsal may come before any approval
    for number in claims.chunk_numbers(connection, period, no):
        yield Chunk(period, number, submission.spec, no, submission.id, None, approved=approved)


def _as_of(connection: Connection, candidates: Sequence[Candidate], moment: datetime) -> list[Candidate]:
    """The candidates with the choices that were on record at a moment, and what they had been sent by then."""
    people = {candidate.facts.recipient_id for candidate in candidates}
    then = events.choices_as_of(connection, sorted(people), moment)
    return [replace(candidate, facts=_facts_then(candidate.facts, then, moment)) for candidate in candidates]


def _facts_then(facts: Facts, then: Mapping[str, Mapping[str, Choice]], moment: datetime) -> Facts:
    said = then.get(facts.recipient_id, {})
    return replace(
        facts,
        offers={subject[6:]: choice for subject, choice in said.items() if subject.startswith("offer:")},
        switches={subject[8:]: choice for subject, choice in said.items() if subject.startswith("channel:")},
        object_marketing=said.get("objection:marketing"),
        object_profiling=said.get("objection:profiling"),
        sent=tuple(one for one in facts.sent if one.at <= moment),
    )


def _count(entries: Sequence[ClaimEntry], states: Counter[str], reasons: Counter[str], channels_: Counter[str]) -> None:
    """Count by recipient: with several legs, one that would leave decides."""
    heads: dict[int, tuple[State, str | None]] = {}
    for entry in entries:
        if entry.state is State.CLAIMED and entry.channel:
            channels_[entry.channel] += 1
        if entry.candidate.ref.row not in heads or entry.state is State.CLAIMED:
            heads[entry.candidate.ref.row] = (entry.state, entry.reason)
    for state, reason in heads.values():
        states["sendable" if state is State.CLAIMED else state] += 1
        if reason:
            reasons[reason] += 1
