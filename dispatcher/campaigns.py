"""Campaigns and triggers, from submission to the last leg: fan-out, dry runs, and what the clock sets going."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice

from dispatcher.approvals import hold_door
from dispatcher.faults import BadInput, InputFault
from dispatcher.house import House
from dispatcher.ledger import alerts, audience, brakes, campaigns, caps, chunks, consent, conversations, due, misses
from dispatcher.ledger.audience import Fault, Loader, Row, TriggerPlace
from dispatcher.ledger.campaigns import spec_to_json
from dispatcher.ledger.chunks import Candidate, Chunk, Entry
from dispatcher.ledger.due import Due
from dispatcher.ledger.pool import Connection, lend
from dispatcher.model import Choice, Facts, Spec, State
from dispatcher.outcomes import braking
from dispatcher.pipeline import Ahead, caps_since, prepare_all
from dispatcher.submission import Desk, Submission, Trigger

Progress = Callable[[int], None]
RELEASE_BATCH = 5_000
PRUNE_BATCH = 10_000


class KeyTaken(BadInput):
    """A trigger's key was used before, with other content."""


class Taken(StrEnum):
    """What became of a submission."""

    NEW = "new"
    KNOWN = "known"  # the same id with the same content: nothing was done again
    CONFLICT = "conflict"  # the same id with other content: refused


@dataclass(frozen=True, slots=True)
class Admission:
    """A submission's answer: how many rows were taken, and how many could not be read."""

    taken: Taken
    audience: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a campaign would do now: `states` adds up to the audience. Nothing was sent or kept."""

    audience: int
    invalid: int
    states: Counter[str]
    reasons: Counter[str]
    channels: Counter[str]
    variants: Counter[str]  # messages that would leave, by the name of the variant
    needs: tuple[str, ...] = ()  # what people have to do before it can start


def desk(house: House) -> Desk:
    """What submissions are held against, as of now."""
    return Desk(house.catalog, house.policy, house.clock())


# -- coming in ---------------------------------------------------------------------------------------------------------


def submit(house: House, submission: Submission, progress: Progress = lambda _: None, by: str = "") -> Admission:
    """Take a campaign with its whole audience, or nothing of it; it starts when its moment comes.

    `by` names who submits it. One with a large audience waits until somebody else releases it.
    Raises `BadInput`, also for a template that nobody approved and when a file turns out to be unreadable half-way, and
    `LedgerUnavailable`.
    """
    with lend(house.pool) as connection, connection.transaction():
        created = campaigns.create(connection, submission.id, submission.spec, house.clock(), by)
        if created is None:
            return _compare(connection, submission)
        if faults := hold_door(house, connection, submission.spec.templates):
            raise BadInput(*faults)
        no, period = created
        loader = Loader(connection, no, period, submission.spec, house.clock())
        digest = _load(loader, submission, progress)
        campaigns.complete(connection, no, digest, loader.invalid, loader.taken > house.policy.four_eyes_audience_min)
        return Admission(Taken.NEW, loader.taken, loader.invalid)


def _load(loader: Loader, submission: Submission, progress: Progress) -> bytes:
    """Stream the audience into the ledger; the digest of all that was submitted."""
    digest = hashlib.sha256(spec_to_json(submission.spec).encode())
    rows = iter(submission.audience)
    while batch := list(islice(rows, loader.batch_size)):
        for row in batch:
            digest.update(repr(row).encode())
        loader.take([row for row in batch if isinstance(row, Row)])
        loader.note(row for row in batch if isinstance(row, Fault))
        progress(loader.taken)
    return digest.digest()


def _compare(connection: Connection, submission: Submission) -> Admission:
    digest = hashlib.sha256(spec_to_json(submission.spec).encode())
    for row in submission.audience:
        digest.update(repr(row).encode())
    same = campaigns.digest_of(connection, submission.id) == digest.digest()
    return Admission(Taken.KNOWN if same else Taken.CONFLICT)


def take_trigger(house: House, trigger: Trigger) -> TriggerPlace:
    """Take a trigger, once per key. Raises `KeyTaken`, BadInput for a template that nobody approved, and LedgerUnavailable."""
    spec = spec_to_json(trigger.spec)
    with lend(house.pool) as connection:
        if faults := hold_door(house, connection, trigger.spec.templates):
            place = audience.known_trigger(connection, trigger.key, trigger.digest)  # what was taken before stays taken
            if place is None:
                raise BadInput(*faults)
        else:
            place = audience.take_trigger(connection, trigger.key, trigger.digest, spec, trigger.row, house.clock())
    if place is None:
        raise KeyTaken(InputFault("job", 0, "key", "was used before with other content; the same key is the same job"))
    return place


class _Rehearsed(Exception):
    """Ends a rehearsal's transaction, so that nothing of it is kept."""


def rehearse(house: House, submission: Submission, as_of: datetime | None = None) -> Rehearsal:
    """Decide and write every message of a campaign as it would be now, through the same code, then forget it all.

    With `as_of`, as at that moment: by its clock, and by what people had said until then. Addresses, profiles and
    suppressions are today's, for of those no history is kept.
    """
    if as_of is not None:
        moment = as_of
        house = replace(house, clock=lambda: moment)
    states: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    channels_: Counter[str] = Counter()
    variants: Counter[str] = Counter()
    with lend(house.pool) as connection:
        try:
            with connection.transaction():
                no, period = campaigns.create(connection, f"{submission.id}?rehearsal", submission.spec, house.clock()) or (0, 0)
                loader = Loader(connection, no, period, submission.spec, house.clock())
                _load(loader, submission, lambda _: None)
                ahead = Ahead()
                for chunk in _chunks_of(house, connection, submission, no, period):
                    candidates = chunks.gather(connection, chunk, since=caps_since(house, chunk))
                    if as_of is not None:
                        candidates = _as_of(connection, candidates, as_of)
                    entries = [item.entry for item in prepare_all(house, chunk, candidates, {}, ahead)]
                    _count(entries, states, reasons, channels_)
                    variants.update(_variants(submission.spec, entries))
                raise _Rehearsed
        except _Rehearsed:
            needs = tuple(_needs(house, connection, submission.spec, loader.taken))
            return Rehearsal(loader.taken, loader.invalid, states, reasons, channels_, variants, needs)


def _needs(house: House, connection: Connection, spec: Spec, audience: int) -> Iterator[str]:
    """What stands between the campaign and its start: approvals of its texts, and a second person's release."""
    for fault in hold_door(house, connection, spec.templates):
        yield fault.message
    most = house.policy.four_eyes_audience_min
    if audience > most:
        yield f"somebody else than its submitter has to release it, for it has more than {most:,} recipients"


def _variants(spec: Spec, entries: Sequence[Entry]) -> Counter[str]:
    name_of = {template: name for name, template in spec.variants}
    leaving = (entry.decision["job"][1] for entry in entries if entry.state is State.CLAIMED)
    return Counter(name_of[template] for template in leaving if template in name_of)


def _chunks_of(house: House, connection: Connection, submission: Submission, no: int, period: int) -> Iterator[Chunk]:
    approved = {template.digest: 0 for template in house.catalog.values()}  # a rehearsal may come before any approval
    for number in chunks.numbers_of(connection, period, no):
        yield Chunk(period, number, submission.spec, no, submission.id, None, approved=approved)


def _as_of(connection: Connection, candidates: Sequence[Candidate], moment: datetime) -> list[Candidate]:
    """The candidates with the choices that were on record at a moment, and what they had been sent by then."""
    people = {candidate.facts.recipient_id for candidate in candidates}
    then = consent.choices_as_of(connection, sorted(people), moment)
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


def _count(entries: Sequence[Entry], states: Counter[str], reasons: Counter[str], channels_: Counter[str]) -> None:
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


# -- what the clock sets going -----------------------------------------------------------------------------------------


def due_chunks(house: House) -> list[Due]:
    """Start what is due: scheduled campaigns, held and waiting messages. Returns the chunks to put on the broker now."""
    now = house.clock()
    with lend(house.pool) as connection:
        campaigns.start_due(connection, now)
        due.release_parked(connection, now, RELEASE_BATCH)
        return due.take_due(connection, now, now - timedelta(seconds=house.limits.lease_seconds), house.limits.window_chunks)


def next_chunk(house: House, chunk: Chunk) -> list[Due]:
    """What takes the place of a chunk just worked on; also notices a campaign's end."""
    if chunk.campaign_no is None:
        return []
    with lend(house.pool) as connection:
        following = due.take_next(connection, chunk, house.clock())
        if not following:
            campaigns.finish_ended(connection, house.clock(), chunk.campaign_no)
        return following


def sweep(house: House) -> None:
    """Put right what a lost worker left behind, and end campaigns in which nothing is left to do."""
    now = house.clock()
    with lend(house.pool) as connection:
        with connection.transaction():
            due.resolve_orphans(connection, now, now - timedelta(seconds=house.limits.lease_seconds))
        due.close_stopped(connection, now)
        _brake(house, connection)
        campaigns.finish_ended(connection, now)
        caps.prune(connection, house.policy.caps_since(now) or now, PRUNE_BATCH)
        for forget in (misses.forget, conversations.forget, alerts.forget):
            forget(connection, now)


def _brake(house: House, connection: Connection) -> None:
    """Stop campaigns that too many people complain about, or whose mail comes back; each says so in its note."""
    for standing in brakes.standings(connection):
        found = braking(house.policy.brake, standing.taken, standing.complained, standing.bounced)
        if found is None:
            continue
        if found.pause:
            brakes.stop(connection, standing, found.note, house.clock())
        elif found.note != standing.note:
            brakes.warn(connection, standing, found.note)
