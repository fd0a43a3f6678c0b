"""Settling what may have gone: by asking the provider, with patience, and else by a person's word.

A provider's list tells texts and times, not our ids. But a text of ours carries a link that no other message carries, so that it is
recognised without guessing; what can't be known that way stays unresolved.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum

from channels.base import Channel, ChannelError, Event, EventKind, ProviderRecord, Rejected
from channels.lookup import look_up, supports_lookup
from dispatcher.consent.link_tokens import PREFERENCES, UNSUBSCRIBE, message_token
from dispatcher.delivery.outcomes import fallback_at
from dispatcher.domain.campaign import Spec
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery import unresolved
from dispatcher.ledger.delivery.unresolved import UnresolvedSend
from dispatcher.ledger.inbound import provider_events
from dispatcher.ledger.inbound.provider_events import StatusChange
from dispatcher.runtime.services import Services

BATCH = 20  # questions a turn: a provider shall not notice them
AGAIN_SECONDS = (600.0, 3_600.0)  # after the first answer that leaves the doubt, and after the second; a third is the last
CLOCKS_SECONDS = 60.0  # by so much the provider's clock and ours may differ
NOT_TAKEN = "not_taken"  # the provider, asked for the last time, knows of no such message
BY_HAND = "by_hand"


def ask_some(services: Services, most: int = BATCH) -> int:
    """Ask about the messages whose time has come, until a provider is out of reach; says of how many. What was found is kept as the
    provider's news, which `inbound.settle_some` applies.
    """
    for count in range(most):
        with lend(services.pool) as connection:
            doubt = unresolved.take(connection, services.clock())
        if doubt is None or not ask(services, doubt):
            return count
    return most


def ask(services: Services, doubt: UnresolvedSend) -> bool:
    """Ask about one; False where the provider could not be asked just now."""
    provider = services.providers[doubt.channel]
    finding: ProviderRecord | LookupResult = LookupResult.NEVER
    if doubt.address is not None and supports_lookup(provider):
        told = look_up(provider, doubt.address, doubt.claimed_at - timedelta(seconds=CLOCKS_SECONDS))
        if isinstance(told, ChannelError) and not isinstance(told, Rejected):
            return False
        if not isinstance(told, ChannelError):
            until = doubt.claimed_at + timedelta(seconds=services.engine.lease_seconds + CLOCKS_SECONDS)
            finding = find(told, marks(services, doubt.ref), services.public_url, doubt.receipts, until)
    with lend(services.pool) as connection, connection.transaction():
        conclude(services, connection, doubt, provider.name, finding)
    return True


class LookupResult(StrEnum):
    """What there is to conclude without our message on a list."""

    ABSENT = "absent"  # no such message was taken
    UNCLEAR = "unclear"  # one of those may be ours
    NEVER = "never"  # nobody can be asked about it


def marks(services: Services, ref: MessageId) -> tuple[str, str]:
    """What stands in this message's text and in no other's."""
    return message_token(services.secret, UNSUBSCRIBE, str(ref)), message_token(services.secret, PREFERENCES, str(ref))


def find(
    traces: Sequence[ProviderRecord], marked: Collection[str], our_url: str, former: Collection[str], until: datetime
) -> ProviderRecord | LookupResult:
    """The message whose text is `marked`, or what its absence means. Pure.

    A text without any link of ours, taken before `until`, can't be told apart. `former` are receipts of earlier attempts.
    """
    new = [trace for trace in traces if trace.receipt not in former]
    for trace in new:
        if any(mark in trace.text for mark in marked):
            return trace
    unclear = any(trace.at <= until and our_url not in trace.text for trace in new)
    return LookupResult.UNCLEAR if unclear else LookupResult.ABSENT


def conclude(
    services: Services, connection: Connection, doubt: UnresolvedSend, provider: str, finding: ProviderRecord | LookupResult
) -> None:
    """Write an answer down, in the caller's transaction."""
    now = services.clock()
    if isinstance(finding, ProviderRecord):
        provider_events.store(connection, [replace(each, message_id=str(doubt.ref)) for each in finding.events], now)
        unresolved.postpone(connection, doubt.ref, None)  # its news will tell, if it tells anything
    elif finding is not LookupResult.NEVER and doubt.asked < len(AGAIN_SECONDS):
        unresolved.postpone(connection, doubt.ref, now + timedelta(seconds=AGAIN_SECONDS[doubt.asked]))
    elif finding is LookupResult.ABSENT and not doubt.changed:
        _settle(connection, doubt.ref, doubt.channel, doubt.spec, State.FAILED, provider, NOT_TAKEN, {}, now)
    else:
        unresolved.postpone(connection, doubt.ref, None)


def settle_by_hand(services: Services, ref: MessageId, arrived: bool, by: str) -> bool:
    """Take a person's word for what became of an unresolved message; False where it is in doubt no more. `by` is kept with it."""
    state = State.ACCEPTED if arrived else State.FAILED
    with lend(services.pool) as connection, connection.transaction():
        about = unresolved.find(connection, ref)
        if about is None:
            return False
        channel, spec = about
        return _settle(connection, ref, channel, spec, state, "person", BY_HAND, {"by": by}, services.clock())


def _settle(
    connection: Connection,
    ref: MessageId,
    channel: Channel,
    spec: Spec | None,
    state: State,
    provider: str,
    code: str,
    extra: dict[str, str],
    now: datetime,
) -> bool:
    """Move an unresolved message, and keep why as news of it. A message that real news has reached meanwhile is left as it is."""
    standing = provider_events.lock(connection, [ref]).get(ref)
    if standing is None or standing.state is not State.UNRESOLVED:
        return False
    kind = EventKind.ACCEPTED if state is State.ACCEPTED else EventKind.FAILED
    news = Event(provider, f"{code}:{ref}:{standing.attempts}", channel, kind, now, str(ref), code=code, extra=extra)
    until = None if standing.cancelled else fallback_at(spec, channel, state, now)
    provider_events.store(connection, [news], now)
    provider_events.apply(connection, [StatusChange(ref, state, None if state is State.ACCEPTED else code, until)], now)
    unresolved.remove(connection, [ref])
    return True
