"""Resolve unresolved messages: by looking them up at the provider, several times, and else by a person's statement.

A provider's list has texts and times, not our ids. But each text of ours carries a link that no other message carries, so a message
is recognised without guessing. What cannot be known that way stays unresolved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from channels.base import Channel, ChannelError, Event, EventKind, Provider, ProviderRecord, Rejected
from channels.lookup import look_up, supports_lookup
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.delivery.fallback import fallback_at
from dispatcher.domain.campaign import Spec
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.principal import Entities
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery import unresolved
from dispatcher.ledger.delivery.unresolved import UnresolvedFilter, UnresolvedSend
from dispatcher.ledger.inbound import provider_events
from dispatcher.ledger.inbound.provider_events import StatusChange
from dispatcher.runtime.services import Services

BATCH = 20  # look-ups in one run: few enough not to load a provider
BULK = 1_000  # messages that a person resolves in one transaction: well below a second
AGAIN_SECONDS = (600.0, 3_600.0)  # after the first look-up that leaves it open, and after the second; the third is the last
CLOCKS_SECONDS = 60.0  # the provider's clock and ours may differ by so much
NOT_TAKEN = "not_taken"  # at the last look-up the provider knows of no such message
BY_HAND = "by_hand"


class LookupResult(StrEnum):
    """What follows where our message is on no list."""

    ABSENT = "absent"  # no such message was accepted
    UNCLEAR = "unclear"  # one of the listed messages may be ours
    NEVER = "never"  # no provider can be asked about it


@dataclass(frozen=True, slots=True)
class Resolution:
    """The state that an unresolved message gets, and its evidence: who says so (`provider`, `extra`) and by which code."""

    ref: MessageId
    channel: Channel
    spec: Spec | None
    state: State
    provider: str
    code: str
    extra: Mapping[str, str] = field(default_factory=dict)


def ask_some(services: Services, limit: int = BATCH) -> int:
    """Look up the messages whose time has come, until a provider cannot be reached. Returns how many were looked up.

    What was found is stored as provider events, which `dispatcher.inbound.provider_events.apply_batch` applies.
    """
    for count in range(limit):
        with lend(services.pool) as connection:
            send = unresolved.next_to_look_up(connection, services.clock())
        if send is None or not ask(services, send):
            return count
    return limit


def ask(services: Services, send: UnresolvedSend) -> bool:
    """Look up one message; False where the provider cannot be reached now."""
    provider = services.providers[send.channel]
    found = _look_up(services, provider, send)
    if found is None:
        return False
    with lend(services.pool) as connection, connection.transaction():
        conclude(connection, send, provider.name, found, services.clock())
    return True


def _look_up(services: Services, provider: Provider, send: UnresolvedSend) -> ProviderRecord | LookupResult | None:
    """The provider's answer; None where it cannot be reached now."""
    if send.address is None or not supports_lookup(provider):
        return LookupResult.NEVER
    records = look_up(provider, send.address, send.claimed_at - timedelta(seconds=CLOCKS_SECONDS))
    if isinstance(records, ChannelError):
        return LookupResult.NEVER if isinstance(records, Rejected) else None
    until = send.claimed_at + timedelta(seconds=services.limits.lease_seconds + CLOCKS_SECONDS)
    if send.is_restored:  # it may have been sent at any time that the restore lost
        until = services.clock()
    return find(records, marks(services.secret, send.ref), services.public_url, send.receipts, until)


def marks(secret: KeyRing, message_id: MessageId) -> tuple[str, ...]:
    """The link tokens that can be in this message's text and in no other's: those of each key, because the key may be newer."""
    purposes = (UNSUBSCRIBE, PREFERENCES)
    return tuple(message_token(KeyRing.of(key), purpose, str(message_id)) for key in secret for purpose in purposes)


def find(
    records: Sequence[ProviderRecord], marks: Collection[str], our_url: str, former: Collection[str], until: datetime
) -> ProviderRecord | LookupResult:
    """The record whose text has one of the marks, or what its absence means. Pure.

    A text without any link of ours, accepted before `until`, may be ours. `former` are receipts of earlier attempts.
    """
    new = [record for record in records if record.receipt not in former]
    for record in new:
        if any(mark in record.text for mark in marks):
            return record
    unclear = any(record.at <= until and our_url not in record.text for record in new)
    return LookupResult.UNCLEAR if unclear else LookupResult.ABSENT


def conclude(
    connection: Connection, send: UnresolvedSend, provider: str, found: ProviderRecord | LookupResult, now: datetime
) -> None:
    """Store the result of a look-up, in the caller's transaction."""
    if isinstance(found, ProviderRecord):
        provider_events.store(connection, [replace(event, message_id=str(send.ref)) for event in found.events], now)
        unresolved.postpone(connection, send.ref, None)  # its events resolve it, if there are any
    elif found is not LookupResult.NEVER and send.lookups < len(AGAIN_SECONDS):
        unresolved.postpone(connection, send.ref, now + timedelta(seconds=AGAIN_SECONDS[send.lookups]))
    elif found is LookupResult.ABSENT and not send.changed:
        _resolve(connection, [Resolution(send.ref, send.channel, send.spec, State.FAILED, provider, NOT_TAKEN)], now)
    else:
        unresolved.postpone(connection, send.ref, None)


def resolve_by_hand(services: Services, message_id: MessageId, arrived: bool, by: str, entities: Entities = None) -> bool:
    """Resolve an unresolved message of these entities as a person says; False where there is none. `by` is stored with it."""
    state = State.ACCEPTED if arrived else State.FAILED
    with lend(services.pool) as connection, connection.transaction():
        about = unresolved.find(connection, message_id, entities)
        if about is None:
            return False
        channel, spec = about
        return _resolve(connection, [_by_hand(message_id, channel, spec, state, by)], services.clock()) == 1


def resolve_all_by_hand(services: Services, wanted: UnresolvedFilter, arrived: bool, by: str) -> int:
    """Resolve all unresolved messages that match as a person says, with the same consequences as one by one; returns their number.

    Batch by batch: what is resolved stays so after an interruption, and the same call goes on. A message that an event resolves
    meanwhile keeps that state.
    """
    state, total = State.ACCEPTED if arrived else State.FAILED, 0
    while True:
        with lend(services.pool) as connection, connection.transaction():
            batch = unresolved.lock_matching(connection, wanted, BULK)
            resolutions = [_by_hand(ref, channel, spec, state, by) for ref, channel, spec in batch]
            total += _resolve(connection, resolutions, services.clock())
        if not batch:
            return total


def _by_hand(ref: MessageId, channel: Channel, spec: Spec | None, state: State, by: str) -> Resolution:
    return Resolution(ref, channel, spec, state, "person", BY_HAND, {"by": by})


def _resolve(connection: Connection, resolutions: Sequence[Resolution], now: datetime) -> int:
    """Apply resolutions, and store their evidence as provider events. Returns how many: what an event has resolved meanwhile is
    left as it is."""
    statuses = provider_events.lock(connection, [each.ref for each in resolutions])
    applied = [each for each in resolutions if (status := statuses.get(each.ref)) and status.state is State.UNRESOLVED]
    if applied:
        pairs = [(each, statuses[each.ref]) for each in applied]
        provider_events.store(connection, [_evidence(each, status.attempts, now) for each, status in pairs], now)
        provider_events.apply(connection, [_change(each, status.cancelled, now) for each, status in pairs], now)
        unresolved.remove(connection, [each.ref for each in applied])
    return len(applied)


def _evidence(resolution: Resolution, attempts: int, now: datetime) -> Event:
    kind = EventKind.ACCEPTED if resolution.state is State.ACCEPTED else EventKind.FAILED
    event_id = f"{resolution.code}:{resolution.ref}:{attempts}"
    code, extra = resolution.code, resolution.extra
    return Event(resolution.provider, event_id, resolution.channel, kind, now, str(resolution.ref), code=code, extra=extra)


def _change(resolution: Resolution, is_cancelled: bool, now: datetime) -> StatusChange:
    until = None if is_cancelled else fallback_at(resolution.spec, resolution.channel, resolution.state, now)
    reason = None if resolution.state is State.ACCEPTED else resolution.code
    return StatusChange(resolution.ref, resolution.state, reason, until)
