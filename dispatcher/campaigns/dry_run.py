"""Dry run: decide and render a whole campaign with the code that sends, in a transaction that is rolled back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias

from msgspec import structs

from channels.base import Sms
from channels.sms_segments import count_segments
from dispatcher.campaigns.audience_loading import NO_ROWS, too_many_invalid
from dispatcher.campaigns.template_approval import approval_errors
from dispatcher.campaigns.whatsapp_templates import whatsapp_needs
from dispatcher.content import Template
from dispatcher.delivery.hand_off import PreparedMessage
from dispatcher.delivery.pipeline import prepare_all, send_limits
from dispatcher.delivery.planned_sends import PlannedSends
from dispatcher.domain.addresses import country_of
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.recipient import Choice, Facts
from dispatcher.intake.campaign import Submission
from dispatcher.ledger.campaigns import lifecycle, whatsapp_templates
from dispatcher.ledger.campaigns.audience import AudienceLoader
from dispatcher.ledger.campaigns.lifecycle import NewCampaign
from dispatcher.ledger.connection import Connection, allow_idle_minute, lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.delivery.candidates import Candidate, gather
from dispatcher.ledger.delivery.chunks import Chunk, chunk_numbers
from dispatcher.ledger.delivery.claims import ClaimEntry
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy, SmsPrices
from dispatcher.runtime.services import Services

UNKNOWN_COUNTRY = "unknown"  # such as a number of a satellite network


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a campaign would do now. `states` adds up to the audience. Nothing was sent or kept."""

    spec: Spec
    audience: int
    invalid: int
    states: Counter[str]
    reasons: Counter[str]
    channels: Counter[str]
    variants: Counter[str]  # messages that would be sent, by the name of the variant
    sms: Counter[str] = field(default_factory=Counter)  # text messages, by their segments and what makes them so many
    needs: tuple[str, ...] = ()  # what people have to do before it can start
    segments: Counter[str] = field(default_factory=Counter)  # of text messages, by the country of the number
    cost: SmsCost | None = None  # None where the policy has no prices
    obstacles: Counter[Obstacle] = field(default_factory=Counter)  # recipients by what is against a channel

    def counts(self) -> dict[str, Any]:
        """Its counts as plain data, each of several the largest first."""
        counters = ("states", "reasons", "channels", "variants", "segments")
        return {
            "audience": self.audience,
            "invalid": self.invalid,
            **{name: dict(getattr(self, name).most_common()) for name in counters},
            "needs": list(self.needs),
        }

    def document(self, is_part: bool) -> dict[str, Any]:
        """What is kept of it: numbers only, and the times that it was decided for. `is_part`: there are more rows than these."""
        times = {name: at.isoformat() if (at := getattr(self.spec, name)) else None for name in ("send_at", "expires_at")}
        return {
            "rows": self.audience + self.invalid,
            "is_part": is_part,
            **self.counts(),
            "cost": asdict(self.cost) if self.cost else None,
            "obstacles": [[each.channel, each.code, each.variable, count] for each, count in self.obstacles.most_common()],
            "as_of": times["send_at"],
            "expires_at": times["expires_at"],
        }


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a channel is not used: a reason code, and the variable that it is about, if any."""

    channel: str
    code: str
    variable: str = ""


Observer: TypeAlias = Callable[[Sequence[PreparedMessage]], None]


def unobserved(_: Sequence[PreparedMessage]) -> None:
    """No observer."""


@dataclass(frozen=True, slots=True)
class SmsCost:
    """What the text messages cost by the policy's prices. `unpriced` counts the segments to countries without a
    price, which are not in the total."""

    currency: str
    total: float
    unpriced: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DryRunCounts:
    """Counts of a dry run under way."""

    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    variants: Counter[str] = field(default_factory=Counter)
    sms: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    obstacles: Counter[Obstacle] = field(default_factory=Counter)

    def add_sizes(self, messages: Iterable[PreparedMessage]) -> None:
        """Count text messages by their segments, and segments by country."""
        for outbound in (outbound for message in messages for outbound in message.outbounds):
            if isinstance(outbound.content, Sms):
                segments = count_segments(outbound.content.text)
                self.sms[str(segments)] += 1
                self.segments[country_of(outbound.address) or UNKNOWN_COUNTRY] += segments.count

    def add(self, spec: Spec, entries: Sequence[ClaimEntry]) -> None:
        """Count by recipient: of several legs, one that would be sent decides."""
        heads: dict[int, tuple[State, str | None]] = {}
        for entry in entries:
            self.obstacles.update(_obstacles(entry))
            if entry.state is State.CLAIMED and entry.channel:
                self.channels[entry.channel] += 1
            if entry.candidate.ref.row not in heads or entry.state is State.CLAIMED:
                heads[entry.candidate.ref.row] = (entry.state, entry.reason)
        for state, reason in heads.values():
            self.states["sendable" if state is State.CLAIMED else state] += 1
            if reason:
                self.reasons[reason] += 1
        self.variants.update(_variants(spec, entries))


class _RollBack(Exception):
    """Ends the transaction of a dry run, so that nothing of it is kept."""


def _obstacles(entry: ClaimEntry) -> set[Obstacle]:
    """What is against channels, also where another channel is used."""
    objections = {Obstacle(channel, code) for code, _, _, *channels in entry.decision.get("reasons", ()) for channel in channels}
    if (content := entry.decision.get("content")) and entry.channel:
        objections.add(Obstacle(entry.channel, content["code"], content["where"]))
    return objections


def dry_run(services: Services, submission: Submission, as_of: datetime | None = None, observe: Observer = unobserved) -> DryRun:
    """Decide and render every message of a campaign, and keep nothing. `observe` is shown the prepared messages of each chunk.

    With `as_of`, decide as at that moment: by its clock, and by the choices recorded until then. Addresses, profiles and
    suppressions are today's, because no history of them is kept.
    """
    period = period_of(services.clock())  # of now, whatever `as_of` is: the month is only a place to load the audience into
    services, spec = at_start(services, as_of), submission.spec
    with lend(services.pool) as connection:
        ensure_period(connection, period)
        try:
            with connection.transaction():
                no = lifecycle.create(connection, NewCampaign(f"{submission.id}?dry-run", spec, period), services.clock()) or 0
                allow_idle_minute(connection)
                loader = AudienceLoader(connection, no, period, spec, services.clock())
                rows = iter(submission.audience)
                while part := list(islice(rows, services.limits.part_rows)):
                    loader.write(part)
                counts = decide_chunks(services, connection, _chunks(connection, submission, no, period), as_of, observe)
                raise _RollBack
        except _RollBack:
            needs = (
                *approval_needs(services, connection, spec, submission.templates),
                *_release_needs(services.policy, loader),
            )
    return dry_run_of(services.policy, spec, counts, (loader.rows_written, loader.invalid), needs)


def at_start(services: Services, as_of: datetime | None) -> Services:
    """The services with the clock of a moment; None stands for now."""
    if as_of is None:
        return services
    moment = as_of
    return replace(services, clock=lambda: moment)


def decide_chunks(
    services: Services,
    connection: Connection,
    chunks: Iterable[Chunk],
    as_of: datetime | None = None,
    observe: Observer = unobserved,
) -> DryRunCounts:
    """Decide and render every message of some chunks of one campaign, in order; write nothing. With `as_of`, by the choices that
    were recorded until then, and by the clock of the services."""
    counts, planned = DryRunCounts(), PlannedSends()
    for chunk in chunks:
        candidates = gather(connection, chunk, limits=send_limits(services, chunk))
        if as_of is not None:
            candidates = _as_of(connection, candidates, as_of)
        messages = prepare_all(services, chunk, candidates, {}, planned)
        counts.add(chunk.spec, [message.entry for message in messages])
        counts.add_sizes(messages)
        observe(messages)
    return counts


def dry_run_of(policy: Policy, spec: Spec, counts: DryRunCounts, rows: tuple[int, int], needs: Iterable[str]) -> DryRun:
    """The result of a dry run. `rows`: those of the audience, and those that cannot be read."""
    audience, invalid = rows
    return DryRun(
        spec=spec,
        audience=audience,
        invalid=invalid,
        states=counts.states,
        reasons=counts.reasons,
        channels=counts.channels,
        variants=counts.variants,
        sms=counts.sms,
        needs=tuple(needs),
        segments=counts.segments,
        cost=_cost(policy.sms_prices, counts.segments),
        obstacles=counts.obstacles,
    )


def _cost(prices: SmsPrices | None, segments: Mapping[str, int]) -> SmsCost | None:
    if prices is None:
        return None
    total = sum(prices.per_segment[country] * count for country, count in segments.items() if country in prices.per_segment)
    unpriced = {country: count for country, count in segments.items() if country not in prices.per_segment}
    return SmsCost(prices.currency, round(total, 4), unpriced)


def approval_needs(services: Services, connection: Connection, spec: Spec, templates: Sequence[Template]) -> Iterator[str]:
    """Which approvals its templates need before the campaign can start: of a person, and of WhatsApp."""
    for error in approval_errors(connection, services.policy, templates):
        yield error.message
    yield from whatsapp_needs(services, connection, spec, templates)


def _release_needs(policy: Policy, loader: AudienceLoader) -> Iterator[str]:
    """Why somebody has to release it, or what is wrong with its audience."""
    if not loader.rows_written and not loader.invalid:
        yield f"its audience {NO_ROWS}; as it is, it will be refused"
    audience_max = policy.four_eyes_audience_min
    if too_many_invalid(policy, loader.invalid, loader.rows_written):
        yield f"somebody other than its submitter has to release it, because {loader.invalid:,} of its rows cannot be read"
    if loader.rows_written > audience_max:
        yield f"somebody other than its submitter has to release it, because it has more than {audience_max:,} recipients"


def _variants(spec: Spec, entries: Sequence[ClaimEntry]) -> Counter[str]:
    name_of = {template: name for name, template in spec.variants}
    templates = (entry.decision["job"][1] for entry in entries if entry.state is State.CLAIMED)
    return Counter(name_of[template] for template in templates if template in name_of)


def _chunks(connection: Connection, submission: Submission, no: int, period: int) -> Iterator[Chunk]:
    approved = {template.digest: 0 for template in submission.templates}  # a dry run may come before any approval
    whatsapp = whatsapp_templates.approved(connection, [template.name for template in submission.templates])
    for number in chunk_numbers(connection, period, no):
        yield Chunk(period, number, submission.spec, no, submission.id, None, approved=approved, whatsapp=whatsapp)


def _as_of(connection: Connection, candidates: Sequence[Candidate], moment: datetime) -> list[Candidate]:
    """The candidates with the choices that were on record at a moment, and with the messages sent until then."""
    people = {candidate.facts.recipient_id for candidate in candidates}
    choices = events.choices_as_of(connection, sorted(people), moment)
    return [structs.replace(candidate, facts=_facts_as_of(candidate.facts, choices, moment)) for candidate in candidates]


def _facts_as_of(facts: Facts, choices_by_person: Mapping[str, Mapping[str, Choice]], moment: datetime) -> Facts:
    choices = choices_by_person.get(facts.recipient_id, {})
    return structs.replace(
        facts,
        offers={subject[6:]: choice for subject, choice in choices.items() if subject.startswith("offer:")},
        switches={subject[8:]: choice for subject, choice in choices.items() if subject.startswith("channel:")},
        object_marketing=choices.get("objection:marketing"),
        object_profiling=choices.get("objection:profiling"),
        sent=tuple(message for message in facts.sent if message.at <= moment),
    )
