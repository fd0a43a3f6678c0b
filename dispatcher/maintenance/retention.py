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
from dispatcher.runtime.services import House

ACTOR = "retention"
STEPS_MAX = 100  # of one kind in one run: the rest is the next run's
PROSPECTS_A_STEP = 100

Due = Callable[[Connection, datetime], int]
Step = Callable[[House, Connection, datetime], int]  # clears some of what is older than that; 0 when nothing is left


@dataclass(frozen=True, slots=True)
class Keeping:
    """One kind of data: the policy's term for it, what it is, and how it is counted and cleared."""

    term: str  # the key in [retention]
    what: str
    due: Due
    step: Step


@dataclass(frozen=True, slots=True)
class Standing:
    """How a kind stands: kept for so long, so much of it older than that moment."""

    keeping: Keeping
    kept: Term
    before: datetime
    due: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a run did to a kind."""

    keeping: Keeping
    cleared: int


def _by_ledger(step: Callable[[Connection, datetime, datetime], int]) -> Step:
    return lambda house, connection, before: step(connection, before, house.clock())


def _answers(house: House, connection: Connection, before: datetime) -> int:
    return inbound_messages.forget(connection, house.clock(), before)


def _prospects(house: House, connection: Connection, before: datetime) -> int:
    found = retention.silent_prospects(connection, before, PROSPECTS_A_STEP)
    for recipient_id in found:
        recipients.erase(connection, house.secret, recipient_id, ACTOR, house.clock())
    return len(found)


KEEPINGS = (
    Keeping("content", "campaigns' variables", retention.campaigns_due, _by_ledger(retention.clear_campaign)),
    Keeping("content", "triggers' variables", retention.triggers_due, _by_ledger(retention.clear_triggers)),
    Keeping("news", "what providers tell beyond what is acted on", retention.news_due, _by_ledger(retention.clear_news)),
    Keeping("answers", "words that people answered", inbound_messages.old, _answers),
    Keeping("prospects", "prospects who told us nothing since", retention.prospects_due, _prospects),
    Keeping("decisions", "months of decisions", retention.months_due, _by_ledger(retention.drop_month)),
    Keeping("consent", "what erased people had said", retention.erased_due, _by_ledger(retention.forget_erased)),
)


def standings(house: House) -> list[Standing]:
    """Every kind: how long it is kept, and how much of it is due now. Changes nothing."""
    with lend(house.pool) as connection:
        return [_standing(house, connection, keeping) for keeping in KEEPINGS]


def _standing(house: House, connection: Connection, keeping: Keeping) -> Standing:
    kept: Term = getattr(house.policy.retention, keeping.term)
    before = kept.before(house.clock())
    return Standing(keeping, kept, before, keeping.due(connection, before))


def clear(house: House, steps_max: int = STEPS_MAX) -> Iterator[Cleared]:
    """Clear what is due, kind by kind, and say how much that was; at most so many steps of each kind."""
    for keeping in KEEPINGS:
        before = getattr(house.policy.retention, keeping.term).before(house.clock())
        with lend(house.pool) as connection:
            yield Cleared(keeping, _clear(house, connection, keeping, before, steps_max))


def _clear(house: House, connection: Connection, keeping: Keeping, before: datetime, steps_max: int) -> int:
    cleared = 0
    for _ in range(steps_max):
        step = keeping.step(house, connection, before)
        cleared += step
        if not step:
            break
    return cleared
