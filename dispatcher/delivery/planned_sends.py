"""Planned sends: messages of this run that will be claimed. Later messages to the same person, partner or address are decided as if
they were sent. The claim gate checks the same again, for the messages of other workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from channels.base import Channel
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import Kind
from dispatcher.domain.recipient import GROUP_OF, ChannelGroup, Facts, SentMessage
from dispatcher.ledger.delivery.candidates import Candidate
from dispatcher.ledger.delivery.claims import ClaimEntry

Address: TypeAlias = tuple[ChannelGroup, str]


class PlannedToAddress(NamedTuple):
    """A planned send to an address: whose it is, and the message's id."""

    recipient_id: str
    message: SentMessage
    message_id: str


def may_interact(spec: Spec) -> bool:
    """Whether one message of the job may decide over another of the same run."""
    if spec.kind is Kind.SERVICE:
        return False
    return spec.route == "all" or spec.one_per_household or any(channel is not Channel.PUSH for channel in spec.channels)


@dataclass(frozen=True, slots=True)
class PlannedSends:
    """The planned sends by person and by address. Addresses are compared as `keyed_hash.address_key` compares them."""

    sent: dict[str, tuple[SentMessage, ...]] = field(default_factory=dict)
    message_by_person: dict[str, str] = field(default_factory=dict)  # recipient id -> message id
    to_address: dict[Address, tuple[PlannedToAddress, ...]] = field(default_factory=dict)

    def add_to(self, candidate: Candidate, channels: Iterable[Channel]) -> Candidate:
        """The candidate, with the planned sends among its facts. `channels` are those that its campaign asks for."""
        facts = candidate.facts
        sent, partner_message = self.sent.get(facts.recipient_id), self.message_by_person.get(candidate.partner or "")
        matches = list(self._to_addresses_of(facts, channels)) if self.to_address else []
        if sent is None and partner_message is None and not matches:
            return candidate
        others = {planned.message_id: planned.message for _, planned in matches}
        messages = {
            channel.value: planned.message_id for channel, planned in reversed(matches) if planned.message.channel is channel
        }
        return replace(
            candidate,
            facts=replace(
                facts,
                sent=(*facts.sent, *(sent or ()), *(replace(message, own=False) for message in others.values())),
                partner_message=facts.partner_message or partner_message,
                address_messages={**messages, **facts.address_messages},
            ),
        )

    def note(self, entry: ClaimEntry, offer_type: str | None, now: datetime) -> None:
        """Remember a planned send."""
        facts = entry.candidate.facts
        if entry.channel is not None and offer_type is not None:
            message = SentMessage(0, now, entry.channel, offer_type)
            self.sent[facts.recipient_id] = (*self.sent.get(facts.recipient_id, ()), message)
            address = _address(facts, entry.channel)
            if address is not None:
                planned = PlannedToAddress(facts.recipient_id, message, str(entry.candidate.ref))
                self.to_address[address] = (*self.to_address.get(address, ()), planned)
        if entry.candidate.partner is not None:
            self.message_by_person[facts.recipient_id] = str(entry.candidate.ref)

    def _to_addresses_of(self, facts: Facts, channels: Iterable[Channel]) -> Iterator[tuple[Channel, PlannedToAddress]]:
        for channel in channels:
            address = _address(facts, channel)
            for planned in self.to_address.get(address, ()) if address is not None else ():
                if planned.recipient_id != facts.recipient_id:
                    yield channel, planned


def _address(facts: Facts, channel: Channel) -> Address | None:
    """The address on this channel in the form that is compared; None for push, whose devices have no key in the ledger."""
    address = facts.address(channel)
    if not address:
        return None
    return GROUP_OF[channel], address.lower() if channel is Channel.EMAIL else address
