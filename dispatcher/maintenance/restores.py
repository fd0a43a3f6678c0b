"""After a restore of the ledger: what a person has to decide, and the release that lets claims begin again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import restored_messages, scheduling
from dispatcher.ledger.delivery.restored_messages import OpenWork
from dispatcher.ledger.maintenance import generations
from dispatcher.ledger.maintenance.generations import Generation
from dispatcher.runtime.services import Services

__all__ = ["Generation", "RestoreStatus", "SendDecision", "WorkDecision", "release", "status"]

REOPEN_BATCH = 5_000


class SendDecision(StrEnum):
    """What becomes of open messages at the release."""

    SEND = "send"  # nothing of it was sent in the time that the ledger lost
    UNRESOLVED = "unresolved"  # it may have been sent: look-ups and people resolve it


@dataclass(frozen=True, slots=True)
class WorkDecision:
    """An open campaign, or all triggers, with what is decided about it, or proposed."""

    work: OpenWork
    decision: SendDecision


@dataclass(frozen=True, slots=True)
class RestoreStatus:
    """The last restore. `works` is what its release decides about; empty once it is released."""

    generation: Generation
    works: Sequence[WorkDecision]

    @property
    def is_held(self) -> bool:
        """Whether nothing is sent."""
        return self.generation.released_at is None


def status(services: Services) -> RestoreStatus | None:
    """The last restore; None where the ledger was never restored."""
    with lend(services.pool) as connection:
        generation = generations.last_restore(connection)
        if generation is None:
            return None
        works = restored_messages.open_work(connection) if generation.released_at is None else []
    return RestoreStatus(generation, [WorkDecision(work, _proposal(work, services.clock())) for work in works])


def is_held(services: Services) -> bool:
    """Whether nothing is sent because a restore is not released."""
    with lend(services.pool) as connection:
        return generations.is_held(connection)


def _proposal(work: OpenWork, now: datetime) -> SendDecision:
    """Only what was not due yet cannot have been sent."""
    is_future = work.state == CampaignState.SCHEDULED and work.due_at > now
    return SendDecision.SEND if is_future else SendDecision.UNRESOLVED


def release(services: Services, campaigns: Mapping[str, SendDecision], triggers: SendDecision, by: str) -> RestoreStatus | None:
    """Let claims begin again, with a decision for each open campaign; those that are not named get the proposed one.

    Returns the status before it, with the decisions; None where nothing is held. Raises `BadInput` for a campaign that is not open.
    """
    before = status(services)
    if before is None or not before.is_held:
        return None
    works = list(_decided(before.works, campaigns, triggers))
    now = services.clock()
    with lend(services.pool) as connection:
        while scheduling.reopen_due_messages(connection, now, REOPEN_BATCH):  # the next legs, too: they may have been sent as well
            pass
        doubtful = [each.work for each in works if each.decision is SendDecision.UNRESOLVED]
        nos = [work.campaign_no for work in doubtful if work.campaign_no is not None]
        decisions = {each.work.campaign_id or "": each.decision.value for each in works}
        with connection.transaction():
            if not generations.release(connection, before.generation.no, decisions, by, now):
                return None
            restored_messages.mark(connection, nos, any(work.campaign_no is None for work in doubtful), now)
    return RestoreStatus(before.generation, works)


def _decided(
    works: Sequence[WorkDecision], campaigns: Mapping[str, SendDecision], triggers: SendDecision
) -> Iterator[WorkDecision]:
    unknown = sorted(set(campaigns) - {each.work.campaign_id for each in works if each.work.campaign_id is not None})
    if unknown:
        raise BadInput(*(InputError("--campaign", 0, "", f"there is no open campaign {name}") for name in unknown))
    for each in works:
        campaign_id = each.work.campaign_id
        yield WorkDecision(each.work, triggers if campaign_id is None else campaigns.get(campaign_id, each.decision))
