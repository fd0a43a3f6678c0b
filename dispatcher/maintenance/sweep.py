"""Campaigns and triggers, from submission to the last leg: fan-out, dry runs, and what the clock sets going."""

from __future__ import annotations

from datetime import timedelta

from dispatcher.campaigns.complaint_brake import brake_verdict
from dispatcher.ledger.campaigns import complaint_brake, lifecycle
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.delivery import frequency_caps, scheduling
from dispatcher.ledger.inbound import soft_bounces, whatsapp_window
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.services import Services

PRUNE_BATCH = 10_000


def sweep(services: Services) -> None:
    """Put right what a lost worker left behind, and end campaigns in which nothing is left to do."""
    now = services.clock()
    with lend(services.pool) as connection:
        with connection.transaction():
            scheduling.expire_claims(connection, now, now - timedelta(seconds=services.engine.lease_seconds))
        scheduling.close_cancelled(connection, now)
        _brake(services, connection)
        lifecycle.finish_ended(connection, now)
        frequency_caps.prune(connection, services.policy.caps_since(now) or now, PRUNE_BATCH)
        for forget in (soft_bounces.prune, whatsapp_window.prune, alerts.prune):
            forget(connection, now)


def _brake(services: Services, connection: Connection) -> None:
    """Stop campaigns that too many people complain about, or whose mail comes back; each says so in its note."""
    for standing in complaint_brake.campaign_rates(connection):
        found = brake_verdict(services.policy.brake, standing.taken, standing.complained, standing.bounced)
        if found is None:
            continue
        if found.pause:
            complaint_brake.stop(connection, standing, found.note, services.clock())
        elif found.note != standing.note:
            complaint_brake.warn(connection, standing, found.note)
