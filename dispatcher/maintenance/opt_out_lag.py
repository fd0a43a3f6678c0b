"""Measures the promise: how long after an opt-out a message that was claimed before it was still under way."""

from __future__ import annotations

from datetime import timedelta

import structlog

from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import opt_out_lag
from dispatcher.runtime.metric_families import OPT_OUT_BOUND_BROKEN, OPT_OUT_TO_LAST_HAND_OFF
from dispatcher.runtime.metrics import RECORDER
from dispatcher.runtime.services import Services

WINDOW = timedelta(minutes=1)

log = structlog.get_logger()


def measure(services: Services) -> None:
    """Once a minute: measure the opt-outs whose claims have all ended, because a lease and the time to settle have passed."""
    limits = services.limits
    ended = services.clock() - timedelta(seconds=limits.lease_seconds + limits.settle_patience_seconds)
    with lend(services.pool) as connection:
        window = opt_out_lag.take_window(connection, ended, WINDOW)
        lags = opt_out_lag.lags(connection, *window) if window is not None else ()
    RECORDER.observe(OPT_OUT_TO_LAST_HAND_OFF, lags)
    # Send deadline, the longest provider call and the settlement are within a lease.
    if broken := sum(seconds > limits.lease_seconds for seconds in lags):
        RECORDER.count(OPT_OUT_BOUND_BROKEN, broken)
        log.error("messages were under way for longer than a lease after an opt-out", opt_outs=broken)
