"""Settle: what follows from the providers' results, written in one transaction that only the claim's own number opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from channels.base import Channel, Outbound, Result
from channels.measurements import result_class
from dispatcher.delivery import side_effects
from dispatcher.delivery.fallback import fallback_at
from dispatcher.delivery.hand_off import PreparedMessage
from dispatcher.delivery.outcomes import Outcome, conclude, dead_addresses, fold
from dispatcher.delivery.side_effects import ProviderOptOut
from dispatcher.domain.campaign import Spec
from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.intake.campaign import ValidationContext
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.consent import address_keys, suppressions
from dispatcher.ledger.consent.address_keys import Address
from dispatcher.ledger.delivery import settlements
from dispatcher.ledger.delivery.candidates import Candidate
from dispatcher.ledger.delivery.settlements import Settlement
from dispatcher.ledger.maintenance import stopped_channels
from dispatcher.ledger.partitions import ensure_period, period_of
from dispatcher.runtime.services import Services


@dataclass(frozen=True, slots=True)
class SendResult:
    """The outcome of one message, and its dead addresses (devices, for a push)."""

    candidate: Candidate
    channel: Channel
    provider: str
    outcome: Outcome
    dead_addresses: tuple[str, ...]
    result_class: str = ""  # of the provider's result, for metrics

    @property
    def settlement(self) -> Settlement:
        """The outcome in the form of the ledger."""
        outcome = self.outcome
        return Settlement(
            self.candidate.ref, outcome.state, outcome.reason, outcome.until, outcome.receipt, self.provider, outcome.attempt_spent
        )


def conclude_all(
    services: Services, spec: Spec, claimed: Sequence[PreparedMessage], results: Mapping[str, list[tuple[Outbound, Result]]]
) -> list[SendResult]:
    """The outcome of each message from the provider's results."""
    now = services.clock()
    concluded = []
    for item in claimed:
        candidate, channel = item.entry.candidate, item.entry.channel
        assert channel is not None  # noqa: S101  a claimed entry has one
        answers = results[str(candidate.ref)]
        result = fold([result for _, result in answers])
        outcome = conclude(result, candidate.attempts, now, services.random, services.policy.retry)
        if outcome.until is None and (until := fallback_at(spec, channel, outcome.state, now)) is not None:
            outcome = replace(outcome, until=until)
        dead = tuple(outbound.address for outbound in dead_addresses(answers))
        concluded.append(SendResult(candidate, channel, services.providers[channel].name, outcome, dead, result_class(result)))
    return concluded


def settle(services: Services, entity: str, claim_number: int, concluded: Sequence[SendResult]) -> None:
    """Write the outcomes. Receipts must not get lost, so writing is repeated for a while where the ledger is unavailable.

    A repetition is safe: what the first try committed has left the claim, so the second finds nothing of it.
    """
    waited_seconds = 0.0
    while True:
        try:
            with lend(services.pool) as connection:
                return settle_once(services, entity, claim_number, connection, concluded)
        except LedgerUnavailable:
            if waited_seconds >= services.limits.settle_patience_seconds:
                raise
        services.sleep(1.0)
        waited_seconds += 1.0


def settle_once(
    services: Services, entity: str, claim_number: int, connection: Connection, concluded: Sequence[SendResult]
) -> None:
    """Write all states in one statement, and in the same transaction what follows for the recipients: suppressions, opt-outs with
    their acknowledgements, dead devices, cool-downs, stopped channels.
    """
    now = services.clock()
    context = ValidationContext(services.catalog, services.policy, now)
    rows = [item.settlement for item in concluded]
    affected = sorted((item for item in concluded if _has_side_effects(item, context)), key=_recipient_id)
    if not affected:
        settlements.settle(connection, claim_number, rows, now)
        return
    ensure_period(connection, period_of(now))  # an acknowledgement may be this month's first job
    with connection.transaction():
        keys = address_keys.in_use(connection, services.secret, {each for item in affected if (each := _address(item))})
        address_keys.lock_owners(connection, [_recipient_id(item) for item in affected], keys.values())
        for item in affected:
            address = _address(item)
            key = keys[address] if address is not None else None
            _apply_side_effects(connection, services.secret, context, entity, item, key)
        settlements.settle(connection, claim_number, rows, now)


def _recipient_id(item: SendResult) -> str:
    return item.candidate.facts.recipient_id


def _has_side_effects(item: SendResult, context: ValidationContext) -> bool:
    outcome = item.outcome
    return bool(
        item.dead_addresses
        or outcome.suppress
        or outcome.opt_out
        or outcome.stop_channel
        or side_effects.is_cool_down(context.policy, item.channel, outcome.reason)
    )


def _address(item: SendResult) -> Address | None:
    """The address that was written to; None for push."""
    address = item.candidate.facts.address(item.channel)
    return (item.channel, address) if address else None


def _apply_side_effects(
    connection: Connection, secret: KeyRing, context: ValidationContext, entity: str, item: SendResult, key: bytes | None
) -> None:
    facts, outcome, now = item.candidate.facts, item.outcome, context.now
    if item.channel is Channel.PUSH:
        side_effects.drop_devices(connection, facts.recipient_id, item.dead_addresses, now)
    elif outcome.suppress and key is not None:
        suppressions.suppress_all(connection, side_effects.suppressions_after(key, outcome, item.channel, item.provider), now)
    side_effects.start_cool_down(connection, context.policy, facts.recipient_id, item.channel, outcome.reason, now)
    if outcome.opt_out:  # the acknowledgements are in the ledger; the scheduler puts them on the broker
        reported = ProviderOptOut(facts.recipient_id, key, item.channel, item.provider, outcome.reason or "", entity)
        side_effects.opt_out(connection, secret, context, reported)
    if outcome.stop_channel:
        stopped_channels.stop(connection, item.channel, item.provider, outcome.reason or "", now)
