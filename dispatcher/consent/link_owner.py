"""Who a link in one of our messages belongs to: its token names the message, and the message its recipient."""

from __future__ import annotations

from dispatcher.consent.link_tokens import BadToken, read_message_token
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import link_owner
from dispatcher.ledger.consent.link_owner import LinkOwner
from dispatcher.runtime.services import Services

__all__ = ["LinkOwner", "owner_of_token"]


def owner_of_token(services: Services, purpose: str, token: str) -> LinkOwner | None:
    """The owner of a link; None for a token that is not ours or made for another purpose, or whose message is gone."""
    try:
        message_id = MessageId.parse(read_message_token(services.secret, purpose, token))
    except BadToken:
        return None
    with lend(services.pool) as connection:
        return link_owner.find(connection, message_id)
