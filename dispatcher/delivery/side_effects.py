"""What a provider's no means for a person's record: dead addresses, and opt-outs that we had not heard of ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from channels.base import Channel, EventKind
from dispatcher.consent import acknowledgement
from dispatcher.delivery.outcomes import Outcome
from dispatcher.domain.opt_out_keywords import ReplyMeaning
from dispatcher.domain.preferences import Change
from dispatcher.domain.recipient import GROUP_OF, Facts, Source
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.consent import events, suppressions
from dispatcher.ledger.delivery import frequency_caps
from dispatcher.ledger.delivery.scheduling import DueChunk
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.policy import Policy
from dispatcher.runtime.services import Services

# Why an address is banned because its owner said no to the provider, and so what their START or resubscribing there lifts. A dead
# address or a complaint is none of these.
BLOCKS = frozenset({ReplyMeaning.STOP, EventKind.OPTED_OUT, "21610", "dropped_unsubscribed"})


NUMBERS = frozenset({Channel.SMS, Channel.WHATSAPP})  # the channels whose addresses are telephone numbers


def suppress(
    connection: Connection, secret: bytes, facts: Facts, outcome: Outcome, channel: Channel, provider: str, now: datetime
) -> None:
    """Ban the person's address on this channel, whoever else has it too; on every channel that takes it, if it is none at all."""
    address = facts.address(channel)
    if address:
        key = address_key(secret, channel, address)
        for each in sorted(NUMBERS) if outcome.everywhere and channel in NUMBERS else [channel]:
            suppress_key(connection, key, each, provider, outcome.reason or "", now)


def suppress_key(connection: Connection, key: bytes, channel: Channel, provider: str, code: str, now: datetime) -> None:
    """Ban an address that is known by its keyed hash."""
    suppressions.suppress(connection, channel, key, code, provider, now)


def drop_devices(connection: Connection, recipient_id: str, tokens: Sequence[str], now: datetime) -> None:
    """Forget the devices on which the app is gone."""
    for token in tokens:
        suppressions.drop_device(connection, recipient_id, token, now)


def rest(connection: Connection, policy: Policy, recipient_id: str, channel: Channel, code: str | None, now: datetime) -> None:
    """Where the code is a provider's limit per person, leave the person alone on this channel for as long as the policy says."""
    cool_downs = policy.cool_downs.get(channel)
    if cool_downs is not None and code in cool_downs.codes:
        frequency_caps.add_cool_down(
            connection, recipient_id, channel, code or "", now + timedelta(seconds=cool_downs.seconds), now
        )


def opt_out(
    services: Services, connection: Connection, recipient_id: str, channel: Channel, provider: str, code: str, entity: str | None
) -> DueChunk | None:
    """Switch the channel's group off for the person, with the provider as the witness; its acknowledgement, if one is due."""
    now, changes = services.clock(), [Change(f"channel:{GROUP_OF[channel]}", "off")]
    ensure_period(connection, period_of(now))
    with connection.transaction():
        recorded = events.record(connection, services.secret, recipient_id, changes, Source.PROVIDER, provider, code, now, now)
        return acknowledgement.acknowledge(services, connection, recipient_id, recorded.events, entity)
