"""What somebody has to look at: an opt-out after which something arrived too late, and a way that is not measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from dispatcher.domain.canaries import OptOutWay
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.maintenance import canary_lags
from dispatcher.maintenance.canaries.recipients import QUIET

LATE_SHOWN = timedelta(hours=2)  # since the start of its round: a delivery report is waited for for an hour
UNMEASURED_MAX = timedelta(minutes=15)
LOOKED_BACK = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class OptOutFinding:
    """Something about one way out."""

    kind: Literal["opt_out_late", "opt_out_not_measured"]
    way: str
    text: str
    since: datetime


def findings(
    connection: Connection, ways: Sequence[OptOutWay], running_since: datetime | None, now: datetime
) -> Iterator[OptOutFinding]:
    """What has to be looked at now. `ways` are those that should be measured; `running_since`: since when beat runs, if it does."""
    newest_late: dict[str, canary_lags.LateOptOut] = {}
    for late in canary_lags.late(connection, now - LATE_SHOWN, now):
        newest_late.setdefault(late.way, late)
    for way, late in newest_late.items():
        text = (
            f"After an opt-out ({way}) a canary got a message too late: claimed {late.claim_seconds:.1f} s, handed off "
            f"{late.hand_off_seconds:.1f} s, arrived {late.arrival_seconds:.1f} s after the answer; the bound is "
            f"{late.bound_seconds:.0f} s. It is round {late.no}."
        )
        yield OptOutFinding("opt_out_late", way, text, late.answered_at)
    states = {state.way: state for state in canary_lags.way_states(connection, now - LOOKED_BACK)}
    for each in ways:
        state = states.get(each)
        since = state.measured_at or state.first_at if state else running_since
        reason = state.reason if state else None
        if since is not None and now - since > UNMEASURED_MAX and reason != QUIET:
            why = f": {reason}" if reason else ""
            text = f"The opt-out latency of the way {each} is not measured{why}. Do the lanes maintenance and transactional work?"
            yield OptOutFinding("opt_out_not_measured", each, text, since)
