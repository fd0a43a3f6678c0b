"""Whoever comes by a link in one of our messages: the message says who they are, and only the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.message import OfferType
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Language
from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class LinkOwner:
    """The recipient of a message that was handed over, and what the message was. `offer_type` is None for a service message."""

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
        """The switch that rules the message's channel."""
        return GROUP_OF[self.channel]


def find(connection: Connection, ref: MessageId) -> LinkOwner | None:
    """Who got this message; None where it never left or is not there any more. Needs no job: content is kept for days, links work
    for years."""
    row = connection.execute(
        """
        SELECT r.id, r.language, r.erased_at IS NOT NULL, s.spec->>'entity', m.channel, s.spec->>'offer_type',
               coalesce(m.accepted_at, m.claimed_at)
        FROM messages m
        JOIN recipients r ON r.id = m.recipient_id
        LEFT JOIN campaigns c ON c.no = m.campaign_no
        LEFT JOIN triggers t ON t.chunk = m.chunk AND m.campaign_no IS NULL
        CROSS JOIN LATERAL (SELECT coalesce(c.spec, t.spec) AS spec) s
        WHERE m.period = %s AND m.chunk = %s AND m.row = %s AND m.leg = %s
          AND m.channel IS NOT NULL AND coalesce(m.accepted_at, m.claimed_at) IS NOT NULL
        """,
        (ref.period, ref.chunk, ref.row, ref.leg),
    ).fetchone()
    if row is None:
        return None
    recipient_id, language, erased, entity, channel, offer_type, handed_over_at = row
    offer = OfferType(offer_type) if offer_type else None
    return LinkOwner(ref, recipient_id, language, erased, entity or "", Channel(channel), offer, handed_over_at)
