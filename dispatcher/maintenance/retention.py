"""How long what is kept, by the policy's terms: what is due now, and its clearing, in steps that a worker may be killed between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.inbound import inbound_messages
from dispatcher.ledger.maintenance import retention
from dispatcher.policy import Term
from dispatcher.runtime.services import Services

ACTOR = "retention"
STEPS_MAX = 100  # of one kind in one run: the rest is the next run's
PROSPECTS_A_STEP = 100

Due = Callable[[Connection, datetime], int]
Step = Callable[[Services, Connection, datetime], int]  # clears some of what is older than that; 0 when nothing is left


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """One kind of data: the policy's term for it, what it is, and how it is counted and cleared."""

    term: str  # the key in [retention]
    what: str
    due: Due
    step: Step


@dataclass(frozen=True, slots=True)
class RetentionBacklog:
    """How a kind stands: kept for so long, so much of it older than that moment."""

    keeping: RetentionClass
    kept: Term
    before: datetime
    due: int


@dataclass(frozen=True, slots=True)
class ClearResult:
    """What a run did to a kind."""

    keeping: RetentionClass
    cleared: int


def _by_ledger(step: Callable[[Connection, datetime, datetime], int]) -> Step:
    return lambda services, connection, before: step(connection, before, services.clock())


def _answers(services: Services, connection: Connection, before: datetime) -> int:
    return inbound_messages.delete_texts(connection, services.clock(), before)


def _prospects(services: Services, connection: Connection, before: datetime) -> int:
    found = retention.silent_prospects(connection, before, PROSPECTS_A_STEP)
    for recipient_id in found:
        recipients.erase(connection, services.secret, recipient_id, ACTOR, services.clock())
    return len(found)


KEEPINGS = (
    RetentionClass("content", "campaigns' variables", retention.campaigns_due, _by_ledger(retention.clear_campaign)),
    RetentionClass("content", "triggers' variables", retention.triggers_due, _by_ledger(retention.clear_triggers)),
    RetentionClass(
        "news",
        "what providers tell beyond what is acted on",
        retention.provider_events_due,
        _by_ledger(retention.clear_provider_events),
    ),
    RetentionClass("answers", "words that people answered", inbound_messages.count_texts, _answers),
    RetentionClass("prospects", "prospects who told us nothing since", retention.prospects_due, _prospects),
    RetentionClass("decisions", "months of decisions", retention.months_due, _by_ledger(retention.drop_month)),
    RetentionClass("consent", "what erased people had said", retention.erased_due, _by_ledger(retention.forget_erased)),
)


def backlogs(services: Services) -> list[RetentionBacklog]:
    """Every kind: how long it is kept, and how much of it is due now. Changes nothing."""
    with lend(services.pool) as connection:
        return [_standing(services, connection, keeping) for keeping in KEEPINGS]


def _standing(services: Services, connection: Connection, keeping: RetentionClass) -> RetentionBacklog:
    kept: Term = getattr(services.policy.retention, keeping.term)
    before = kept.before(services.clock())
    return RetentionBacklog(keeping, kept, before, keeping.due(connection, before))


def clear(services: Services, steps_max: int = STEPS_MAX) -> Iterator[ClearResult]:
    """Clear what is due, kind by kind, and say how much that was; at most so many steps of each kind."""
    for keeping in KEEPINGS:
        before = getattr(services.policy.retention, keeping.term).before(services.clock())
        with lend(services.pool) as connection:
            yield ClearResult(keeping, _clear(services, connection, keeping, before, steps_max))


def _clear(services: Services, connection: Connection, keeping: RetentionClass, before: datetime, steps_max: int) -> int:
    cleared = 0
    for _ in range(steps_max):
        step = keeping.step(services, connection, before)
        cleared += step
        if not step:
            break
    return cleared
