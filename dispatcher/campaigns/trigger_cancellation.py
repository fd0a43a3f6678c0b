"""Cancel a trigger by its message id or its key."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.ledger.campaigns import trigger_cancel
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.delivery.messages import Message
from dispatcher.runtime.services import Services


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The trigger's first message after the call, and why it could not be cancelled, or None."""

    message: Message
    refusal: str | None


def cancel_by_key(services: Services, key: str, entities: Entities = None) -> CancelResult | None:
    """Cancel the trigger with this key as `cancel` does; None where there is none."""
    with lend(services.pool) as connection:
        ref = trigger_cancel.place_of(connection, key)
    return cancel(services, ref, entities) if ref is not None else None


def cancel(services: Services, ref: MessageId, entities: Entities = None) -> CancelResult | None:
    """Cancel what of a trigger is not handed off; None where there is no message of this id and these entities.

    One that is cancelled already needs no change. A message that is being sent, or was sent, cannot be cancelled.
    """
    with lend(services.pool) as connection:
        present = messages.find(connection, ref) if entities is not None else None
        if entities is not None and (present is None or present.spec.entity not in entities):
            return None
        is_trigger = trigger_cancel.is_trigger(connection, ref)
        cancelled = bool(is_trigger) and trigger_cancel.cancel(connection, ref, services.clock())
        message = messages.find(connection, ref)
    if message is None or is_trigger is None:
        return None
    if not is_trigger:
        return CancelResult(message, "it belongs to a campaign; cancel the campaign")
    done = cancelled or message.state is State.CANCELLED
    return CancelResult(message, None if done else f"cannot cancel a message that is {message.state}")
