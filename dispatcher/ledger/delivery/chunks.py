"""SQL of chunks: what a task works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from channels.base import Channel
from dispatcher.domain.campaign import CampaignState, Spec
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.campaigns import template_approvals, whatsapp_templates
from dispatcher.ledger.campaigns.whatsapp_templates import NO_TEXTS, ApprovedTexts
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.message_key import (
    SPEC,
    join_origin,
)
from dispatcher.ledger.spec_codec import spec_from_json


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a task works on. `campaign_state` is None for a trigger. `stopped_channels`: each with the provider's code.
    `approved`: the template versions that may be sent, each digest with the number of its approval. `digests`: the version of each
    template that it was accepted with; a template that is missing here has the version of the folder.
    """

    period: int
    number: int
    spec: Spec
    campaign_no: int | None
    campaign_id: str | None
    campaign_state: CampaignState | None
    stopped_channels: Mapping[Channel, str] = field(default_factory=dict)
    approved: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    whatsapp: ApprovedTexts = NO_TEXTS  # the WhatsApp texts that may be sent
    is_restored: bool = False  # its jobs without a message may have been sent in the time that the ledger lost

    def ref(self, row: int, leg: int) -> MessageId:
        """The id of the message of this job and leg."""
        return MessageId(self.period, self.number, row, leg)


def find_chunk(connection: Connection, period: int, number: int) -> Chunk | None:
    """A chunk with the spec that its jobs share; None where there is none."""
    row = connection.execute(
        f"""
        SELECT s.spec, s.no, s.id, s.state, (SELECT jsonb_object_agg(channel, code) FROM channel_stops),
               {template_approvals.IN_FORCE}, s.digests, {whatsapp_templates.APPROVED}, s.is_restored
        FROM (
            SELECT {SPEC} AS spec, coalesce(c.template_digests, t.template_digests) AS digests, c.no, c.id, c.state, k.is_restored
            FROM chunks k {join_origin("k")} WHERE k.period = %s AND k.chunk = %s
        ) s
        """,
        (period, number),
    ).fetchone()
    if row is None:
        return None
    spec, no, campaign_id, state, stops, approved, digests, whatsapp, is_restored = row
    stopped_channels = {Channel(channel): code for channel, code in (stops or {}).items()}
    state = CampaignState(state) if state else None
    return Chunk(
        period,
        number,
        spec_from_json(spec),
        no,
        campaign_id,
        state,
        stopped_channels,
        approved or {},
        digests or {},
        whatsapp_templates.approved_texts(whatsapp),
        is_restored,
    )


def chunk_numbers(connection: Connection, period: int, campaign_no: int) -> list[int]:
    """The numbers of a campaign's chunks, in the order of its audience."""
    rows = connection.execute(
        "SELECT chunk FROM chunks WHERE period = %s AND campaign_no = %s ORDER BY chunk", (period, campaign_no)
    )
    return [row[0] for row in rows]


def open_chunks(connection: Connection, period: int, campaign_no: int) -> list[tuple[int, int]]:
    """The chunks of a campaign in which something is left to do, in the order of its audience: number, and number of jobs."""
    rows = connection.execute(
        "SELECT chunk, size FROM chunks WHERE period = %s AND campaign_no = %s AND done_at IS NULL ORDER BY chunk",
        (period, campaign_no),
    )
    return [(number, size) for number, size in rows]
