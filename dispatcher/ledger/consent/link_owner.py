"""Who clicked a link in one of our messages. The link holds a message id only; the ledger knows its recipient."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.message import OfferType
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Language
from dispatcher.ledger.connection import Connection, fetch_one
from dispatcher.ledger.message_key import ENTITY, SPEC, is_message, join_origin, key_values


@dataclass(frozen=True, slots=True)
class LinkOwner:
    """The recipient of a message that was handed off, and what the message was. `offer_type` is None for a service message."""

    ref: MessageId
    recipient_id: str
    language: Language
    erased: bool
    entity: str
    channel: Channel
    offer_type: OfferType | None
    handed_over_at: datetime

    @property
    def group(self) -> ChannelGroup:
        """The channel group of the message's channel."""
        return GROUP_OF[self.channel]


def find(connection: Connection, ref: MessageId) -> LinkOwner | None:
    """Who got this message; None where it was never handed off or is deleted.

    Does not need the job: its content is kept for days, and links have to work for years.
    """
    row = fetch_one(
        connection,
        f"""
        SELECT r.id, r.language, r.erased_at IS NOT NULL AS erased, {ENTITY} AS entity, m.channel,
               {SPEC}->>'offer_type' AS offer_type, coalesce(m.accepted_at, m.claimed_at) AS handed_over_at
        FROM messages m JOIN recipients r ON r.id = m.recipient_id {join_origin("m")}
        WHERE {is_message("m")} AND m.channel IS NOT NULL AND coalesce(m.accepted_at, m.claimed_at) IS NOT NULL
        """,
        key_values(ref),
    )
    if row is None:
        return None
    return LinkOwner(
        ref=ref,
        recipient_id=row["id"],
        language=row["language"],
        erased=row["erased"],
        entity=row["entity"] or "",
        channel=Channel(row["channel"]),
        offer_type=OfferType(row["offer_type"]) if row["offer_type"] else None,
        handed_over_at=row["handed_over_at"],
    )
