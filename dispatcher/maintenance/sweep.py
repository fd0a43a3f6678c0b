"""Periodic sweep: look whether the ledger was restored, mark expired claims unresolved, apply the complaint brake, finish
campaigns, count their balances, end loads that do not go on, measure opt-outs and lanes, delete what no longer counts."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.campaigns.audience_loading import end_loads
from dispatcher.campaigns.balance_events import count_balances
from dispatcher.campaigns.complaint_brake import apply_brake
from dispatcher.campaigns.template_approval import expire_approvals
from dispatcher.campaigns.tester_sends import send_due_seeds
from dispatcher.ledger import partitions
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.delivery import cap_reservations, claims, scheduling
from dispatcher.ledger.inbound import soft_bounces, whatsapp_window
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import opt_out_lag, recent_load
from dispatcher.runtime.services import Services

PRUNE_BATCH = 10_000


def sweep(services: Services) -> None:
    """Run one sweep."""
    now = services.clock()
    with lend(services.pool) as connection:
        services.ledger_watch.check(connection, now)
        with connection.transaction():
            scheduling.expire_claims(connection, now, now - timedelta(seconds=services.limits.lease_seconds))
        while lifecycle.cancel_abandoned(connection, services.policy.abandoned_after_days, now):
            pass
        scheduling.close_cancelled(connection, now)
        apply_brake(connection, services.policy.brake, now)
        lifecycle.finish_completed(connection, now)
        cap_reservations.prune(connection, services.policy.caps_since(now) or now, PRUNE_BATCH)
        claims.prune_starts(connection, now - timedelta(days=1))
        for forget in (soft_bounces.prune, whatsapp_window.prune, alerts.prune):
            forget(connection, now)
        partitions.create_ahead(connection, now)
    end_loads(services)
    expire_approvals(services)
    send_due_seeds(services)
    count_balances(services)
    opt_out_lag.measure(services)
    recent_load.record_lanes(services)
