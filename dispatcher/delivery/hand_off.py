"""Hand-off: give claimed messages to their providers, until the claim's deadline, and keep every result whatever ends the batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from channels.base import Channel, Outbound, Provider, Result, Unavailable, Uncertain
from channels.send_window import SendWindow
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import Pool, lend
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.claims import ClaimEntry
from dispatcher.runtime.services import Services


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A candidate with its decision and, where it may be sent, what is handed off: one outbound, or one per device."""

    entry: ClaimEntry
    outbounds: tuple[Outbound, ...] = ()


@dataclass(slots=True)
class HandOffResult:
    """The results by message id, in pairs with what was handed off, and the error that ended the batch early, if any."""

    results: dict[str, list[tuple[Outbound, Result]]] = field(default_factory=lambda: defaultdict(list))
    interruption: BaseException | None = None


def send_window_for_claim(services: Services, claim_number: int, deadline: float) -> SendWindow:
    """The send window of a claim. The first byte is sent only after the ledger has recorded the claim start.

    If the ledger cannot record the start, nothing is sent.
    """
    start = partial(_start, services.pool, claim_number)
    return SendWindow(deadline, services.monotonic_clock, start, is_draining=services.is_draining)


def _start(pool: Pool, claim_number: int) -> bool:
    try:
        with lend(pool) as connection:
            return claims.record_claim_start(connection, claim_number)
    except LedgerUnavailable:
        return False


def hand_off(providers: Mapping[Channel, Provider], claimed: Sequence[PreparedMessage], window: SendWindow) -> HandOffResult:
    """Hand off the claimed messages, provider by provider. Each gets a result, also where a time limit or an error ends the batch.

    A message with a result keeps it. Without one: `Uncertain` if sending had started, else `Unavailable`.
    """
    outbounds = [outbound for item in claimed for outbound in item.outbounds]
    by_channel: dict[Channel, list[Outbound]] = defaultdict(list)
    for outbound in outbounds:
        by_channel[outbound.channel].append(outbound)
    hand_off_result, with_result = HandOffResult(), set[int]()
    try:
        for channel, outbounds_of_channel in by_channel.items():
            for outbound, result in providers[channel].send(outbounds_of_channel, window):
                hand_off_result.results[outbound.id].append((outbound, result))
                with_result.add(id(outbound))
    except BaseException as interruption:
        hand_off_result.interruption = interruption
    for outbound in outbounds:
        if id(outbound) not in with_result:
            error: Result = Uncertain("interrupted") if outbound.id in window.started else Unavailable("interrupted")
            hand_off_result.results[outbound.id].append((outbound, error))
    return hand_off_result
