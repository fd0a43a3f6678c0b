"""What a send result or a provider event means for a person's record: suppressions, opt-outs, dead devices, cool-downs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from channels.base import Channel, EventKind
from dispatcher.consent import acknowledgement
from dispatcher.delivery.outcomes import Outcome
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.opt_out_keywords import ReplyMeaning
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import GROUP_OF, Source
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import events, recipients, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.consent.suppressions import Suppression
from dispatcher.ledger.delivery import cool_downs
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.inbound.phone_owners import last_entity
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy

# Reasons of suppressions that follow from the owner's own opt-out: START, or resubscribing at the provider, lifts these and no
# others. A dead address and a complaint are not among them.
OPT_OUT_REASONS = frozenset({ReplyMeaning.STOP, EventKind.OPTED_OUT, "21610", "dropped_unsubscribed"})

PHONE_CHANNELS = frozenset({Channel.SMS, Channel.WHATSAPP})


@dataclass(frozen=True, slots=True)
class ProviderOptOut:
    """An opt-out that a provider reported. `entity` is the company in whose name it is acknowledged.

    It holds for everybody who has the address: which of several owners opted out cannot be known. `recipient_id` is None where the
    report names no message of ours. `message` is the one that the opt-out answers; None where that is not known.
    """

    recipient_id: str | None
    address_key: bytes | None  # None for push
    channel: Channel
    provider: str
    code: str
    entity: str | None
    message: MessageId | None = None


def suppressions_after(key: bytes, outcome: Outcome, channel: Channel, provider: str) -> list[Suppression]:
    """The suppressions of this address that an outcome asks for: on its channel, or on all channels that share it. Pure.

    A suppression holds for everybody who has the address.
    """
    channels = sorted(PHONE_CHANNELS) if outcome.everywhere and channel in PHONE_CHANNELS else [channel]
    return [Suppression(each, key, outcome.reason or "", provider) for each in channels]


def drop_devices(connection: Connection, recipient_id: str, tokens: Sequence[str], now: datetime) -> None:
    """Delete the devices on which the app is gone."""
    for token in tokens:
        suppressions.drop_device(connection, recipient_id, token, now)


def is_cool_down(policy: Policy, channel: Channel, code: str | None) -> bool:
    """Whether the code is a provider's limit per person."""
    return channel in policy.cool_downs and code in policy.cool_downs[channel].codes


def start_cool_down(
    connection: Connection, policy: Policy, recipient_id: str, channel: Channel, code: str | None, now: datetime
) -> None:
    """Where the code is a provider's limit per person, send the person nothing on this channel for as long as the policy says."""
    rules = policy.cool_downs.get(channel)
    if rules is not None and is_cool_down(policy, channel, code):
        cool_downs.add(connection, recipient_id, channel, code or "", now + timedelta(seconds=rules.seconds), now)


def opt_out(connection: Connection, secret: KeyRing, context: ValidationContext, reported: ProviderOptOut) -> list[DueChunk]:
    """Switch the channel's group off for all owners of the address, the provider as source. Returns the acknowledgements due."""
    now, off = context.now, (Change(f"channel:{GROUP_OF[reported.channel]}", "off"),)
    owners = {reported.recipient_id} if reported.recipient_id is not None else set[str]()
    if reported.address_key is not None:
        owners.update(recipients.with_address(connection, reported.channel, reported.address_key))
    entity = reported.entity if reported.recipient_id is not None else last_entity(connection, sorted(owners), reported.channel)
    statements = [
        ConsentStatement(owner, off, now, message=reported.message if owner == reported.recipient_id else None)
        for owner in sorted(owners)
    ]
    ensure_period(connection, period_of(now))
    with connection.transaction():
        recorded = events.record_all(
            connection, secret, statements, Provenance(Source.PROVIDER, reported.provider, reported.code), now
        )
        due = [
            acknowledgement.acknowledge(connection, context, recipient_id, result.events, entity)
            for recipient_id, result in recorded.items()
        ]
    return [chunk for chunk in due if chunk is not None]
