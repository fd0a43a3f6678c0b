"""Single messages as people look at them: find one, list the dead and the unresolved, replay the dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.message import State
from dispatcher.domain.message_id import BadMessageId, MessageId
from dispatcher.domain.principal import Entities
from dispatcher.intake.errors import BadInput, InputError
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import dead_letters, message_list, messages, unresolved
from dispatcher.ledger.delivery.dead_letters import ReplayResult
from dispatcher.ledger.delivery.message_list import ListedMessage, MessageFilter, MessagePage
from dispatcher.ledger.delivery.messages import Message
from dispatcher.ledger.delivery.unresolved import UNKNOWN_PROVIDER, UnresolvedFilter, UnresolvedGroup, UnresolvedRow
from dispatcher.ledger.maintenance import diagnostics
from dispatcher.runtime.services import Services

__all__ = ["DeadMessage", "Message", "UnresolvedRow", "accepted_count", "decided_triggers", "find", "first_in_state", "list_dead"]
__all__ += ["ListedMessage", "MessageFilter", "MessagePage", "list_page"]
__all__ += [
    "UNKNOWN_PROVIDER",
    "UnresolvedFilter",
    "UnresolvedGroup",
    "count_unresolved",
    "list_unresolved",
    "of_campaign",
    "replay",
]

REPLAY_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message whose attempts are spent. `campaign_id` is None for a trigger."""

    ref: MessageId
    campaign_id: str | None
    reason: str | None
    since: datetime


def find(services: Services, message_id: MessageId, entities: Entities = None) -> Message | None:
    """The message of this id; None where there is none of these entities, nor a job that would become it."""
    with lend(services.pool) as connection:
        message = messages.find(connection, message_id)
    return message if message is not None and (entities is None or message.spec.entity in entities) else None


def list_page(services: Services, wanted: MessageFilter, cursor: str | None, limit: int) -> MessagePage:
    """A page of the messages that match, newest first. `cursor` is the last page's `next`. Raises `BadInput`."""
    if cursor is None:
        after = None
    else:
        try:
            after = MessageId.parse(cursor)
        except BadMessageId:
            raise BadInput(InputError("query", 0, "cursor", "should be `next` of the page before")) from None
    with lend(services.pool) as connection:
        return message_list.page(connection, wanted, after, limit)


def of_campaign(services: Services, campaign_id: str, recipient_id: str, entities: Entities = None) -> Sequence[Message]:
    """A campaign's messages for one recipient, leg by leg, where the campaign is one of these entities."""
    with lend(services.pool) as connection:
        found = messages.of_campaign(connection, campaign_id, recipient_id)
    return [each for each in found if entities is None or each.spec.entity in entities]


def decided_triggers(services: Services, keys: Sequence[str]) -> Mapping[str, MessageId]:
    """Message ids by trigger key, for those of these triggers that are decided and, if allowed, handed off."""
    with lend(services.pool) as connection:
        return messages.decided_triggers(connection, keys)


def list_dead(services: Services, campaign_id: str | None, limit: int, entities: Entities = None) -> list[DeadMessage]:
    """The dead messages of a campaign, or all, of these entities, newest first."""
    with lend(services.pool) as connection:
        return [DeadMessage(*row) for row in dead_letters.newest(connection, campaign_id, limit, entities)]


def replay(
    services: Services, message_ids: Sequence[MessageId], campaign_id: str | None = None, entities: Entities = None
) -> ReplayResult:
    """Give dead messages new attempts: those named, and all of the campaign. Returns how many, and why the others were not."""
    with lend(services.pool) as connection:
        dead = dead_letters.newest(connection, campaign_id, REPLAY_MAX, entities) if campaign_id else []
        return dead_letters.replay(connection, [*message_ids, *(ref for ref, *_ in dead)], services.clock(), entities)


def list_unresolved(services: Services, wanted: UnresolvedFilter, limit: int) -> list[UnresolvedRow]:
    """The unresolved messages that match, oldest first."""
    with lend(services.pool) as connection:
        return unresolved.list_unresolved(connection, wanted, limit)


def count_unresolved(services: Services, wanted: UnresolvedFilter) -> list[UnresolvedGroup]:
    """The unresolved messages that match, counted by campaign, channel and provider."""
    with lend(services.pool) as connection:
        return unresolved.count(connection, wanted)


def accepted_count(services: Services) -> int:
    """How many messages a provider accepted, whatever their state now."""
    with lend(services.pool) as connection:
        return diagnostics.handed_over(connection)


def first_in_state(services: Services, campaign_id: str, state: State) -> Message | None:
    """The first message of a campaign in this state."""
    with lend(services.pool) as connection:
        message_id = diagnostics.one_message(connection, campaign_id, state)
        return messages.find(connection, message_id) if message_id else None
