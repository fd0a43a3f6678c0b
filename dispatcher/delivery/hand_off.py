"""Hand-off: give claimed messages to their providers, until the claim's deadline, and keep every result whatever ends the batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from channels.base import Channel, Outbound, Provider, Result, Unavailable, Uncertain
from channels.send_window import Seconds, SendWindow
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import Pool, lend
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.claims import ClaimEntry


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A candidate with its decision and, where it may be sent, what is handed over: one outbound, or one per device."""

    entry: ClaimEntry
    outbounds: tuple[Outbound, ...] = ()


@dataclass(slots=True)
class HandOff:
    """The results by message id, in pairs with what was handed over, and what ended the batch before its end, if anything did."""

    results: dict[str, list[tuple[Outbound, Result]]] = field(default_factory=lambda: defaultdict(list))
    interruption: BaseException | None = None


def claim_window(pool: Pool, claim_number: int, deadline: float, seconds: Seconds) -> SendWindow:
    """The window of a claim. Its start is recorded in the ledger before the first byte leaves; if it cannot be, nothing leaves."""
    return SendWindow(deadline, seconds, partial(_start, pool, claim_number))


def _start(pool: Pool, claim_number: int) -> bool:
    try:
        with lend(pool) as connection:
            return claims.start(connection, claim_number)
    except LedgerUnavailable:
        return False


def hand_off(providers: Mapping[Channel, Provider], claimed: Sequence[PreparedMessage], window: SendWindow) -> HandOff:
    """Hand over the claimed messages, provider by provider. Each gets a result, also where a time limit or an error ends the batch.

    What was answered keeps its answer. Without an answer, a message of which a byte may have left is `Uncertain`, any other is
    `Unavailable`: it was never on the wire.
    """
    outbounds = [outbound for item in claimed for outbound in item.outbounds]
    by_channel: dict[Channel, list[Outbound]] = defaultdict(list)
    for outbound in outbounds:
        by_channel[outbound.channel].append(outbound)
    done, answered = HandOff(), set[int]()
    try:
        for channel, waiting in by_channel.items():
            for outbound, result in providers[channel].send(waiting, window):
                done.results[outbound.id].append((outbound, result))
                answered.add(id(outbound))
    except BaseException as error:
        done.interruption = error
    for outbound in outbounds:
        if id(outbound) not in answered:
            started = outbound.id in window.started
            done.results[outbound.id].append((outbound, Uncertain("interrupted") if started else Unavailable("interrupted")))
    return done
