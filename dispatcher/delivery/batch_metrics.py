"""What a batch adds to the metrics: one call per batch and step, because this is the hot path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from channels.measurements import ACCEPTED
from channels.send_window import SendWindow
from dispatcher.content import take_render_counts
from dispatcher.delivery.settlement import SendResult
from dispatcher.domain.message import Kind, State
from dispatcher.ledger.delivery.claims import CampaignGate, Claim, ClaimEntry
from dispatcher.runtime.metric_families import (
    CLAIM_TO_HAND_OFF,
    HAND_OFF,
    MESSAGES,
    NONE,
    OWN_REASONS,
    RENDERS,
)
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services


def record_claim(kind: Kind, entries: Sequence[ClaimEntry], claim: Claim) -> None:
    """Count what the claim wrote: refused, held, waiting and others. Claimed messages are counted with their outcome."""
    numbers: dict[tuple[str, ...], float] = {}
    if claim.gate is CampaignGate.OPEN:
        for entry in entries:
            if entry.state is not State.CLAIMED and entry.candidate.ref.row not in claim.changed:
                # A stopped channel has the provider's code as its reason: an open set, with one class.
                reason = "misconfigured" if entry.state is State.WAITING else entry.reason or NONE
                labels = (entry.state, entry.channel or NONE, NONE, kind, reason)
                numbers[labels] = numbers.get(labels, 0) + 1
    if numbers:
        RECORDER.count_all(MESSAGES, numbers)
    compiled, by_template = take_render_counts()
    RECORDER.count_all(RENDERS, {("compiled",): compiled, ("template",): by_template})


def record_hand_off(kind: Kind, window: SendWindow, started: float, services: Services) -> None:
    """Record how long the hand-off took, and how long after the claim the last message was started."""
    RECORDER.observe(HAND_OFF, (services.monotonic_clock() - started,), (kind,))
    if window.last_started_at is not None:
        since_claim = window.last_started_at - window.deadline + services.limits.send_deadline_seconds
        RECORDER.observe(CLAIM_TO_HAND_OFF, (since_claim,), (kind,))


def record_outcomes(kind: Kind, concluded: Sequence[SendResult]) -> None:
    """Count the outcomes, and hand on what was collected."""
    # Plain strings: the hash of an enum is computed in Python, each time.
    numbers = Counter(
        (item.outcome.state._value_, item.channel._value_, item.provider, item.outcome.reason, item.result_class)
        for item in concluded
    )
    for (state, channel, provider, code, result_class), number in numbers.items():
        RECORDER.count(MESSAGES, number, (state, channel, provider, kind, _reason(code, result_class)))
    RECORDER.flush()


def _reason(code: str | None, result_class: str) -> str:
    """Our own code, or the class of the provider's."""
    if code in OWN_REASONS:
        return code or NONE
    return NONE if result_class == ACCEPTED else result_class
