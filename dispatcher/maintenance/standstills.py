"""What stands still: engines that do not answer, beat or workers that send no heartbeat, work that is due and is not done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import Connection, lend
from dispatcher.ledger.maintenance import generations, metrics, progress
from dispatcher.ledger.maintenance.generations import Generation
from dispatcher.ledger.maintenance.heartbeats import Heartbeat, newest_heartbeats
from dispatcher.ledger.maintenance.metrics import Metrics
from dispatcher.ledger.maintenance.progress import IdleCampaign
from dispatcher.maintenance.canaries import watch, ways_out
from dispatcher.maintenance.heartbeats import BEAT, SILENT_SECONDS
from dispatcher.maintenance.policy_in_force import PolicyInForce, halted, halted_text
from dispatcher.maintenance.surroundings import Surroundings, look
from dispatcher.runtime.services import Services

LATE_SECONDS = 20.0  # due work is picked up within a second or two
OVERDUE_MAX = 1_000  # more overdue messages than this mean that they are not picked up
EVENTS_LATE_SECONDS = 60.0
DATABASE_AWAY = "The database does not answer: nothing is accepted, decided or sent until it does."


class Standstill(StrEnum):
    """The kinds of standstill. They are values of a metric's label and of `/readyz`."""

    DATABASE = "database"
    BROKER = "broker"
    NOTHING_RUNS = "nothing_runs"
    BEAT = "beat"
    LANE = "lane"
    CAMPAIGN_NOT_STARTED = "campaign_not_started"
    CAMPAIGN_IDLE = "campaign_idle"
    MESSAGES_OVERDUE = "messages_overdue"
    EVENTS_NOT_APPLIED = "events_not_applied"
    OUTBOX = "outbox"
    CHANNEL_STOPPED = "channel_stopped"
    LEDGER_RESTORED = "ledger_restored"
    POLICY_NOT_IN_FORCE = "policy_not_in_force"
    OPT_OUT_LATE = "opt_out_late"
    OPT_OUT_NOT_MEASURED = "opt_out_not_measured"


@dataclass(frozen=True, slots=True)
class Finding:
    """One standstill. `subject`: the lane, channel or campaign; empty where there is only one. `text` says what it means, and holds
    no secret and no personal data."""

    kind: Standstill
    text: str
    subject: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class SystemState:
    """The state of all components. `heartbeats` and `counts` are empty while the database does not answer."""

    around: Surroundings
    heartbeats: Mapping[str, Heartbeat]
    counts: Metrics | None
    findings: Sequence[Finding]
    looked_at: datetime


def lanes() -> Sequence[str]:
    """All lanes."""
    import celeryconfig  # here: it imports kombu, which the command line does not need

    return celeryconfig.LANES


def examine(services: Services) -> SystemState:
    """Look at everything once. An engine that does not answer costs some seconds at most."""
    now, around = services.clock(), look(services)
    findings = list(_engines(around))
    if not around.engines["database"]:
        return SystemState(around, {}, None, findings, now)
    try:
        with lend(services.pool) as connection:
            heartbeats = newest_heartbeats(connection)
            counts = metrics.metrics(connection, now)
            idle, overdue = progress.idle_campaigns(connection, now), progress.overdue_campaigns(connection, now)
            restore, adopted = generations.last_restore(connection), halted(connection, now)
            is_held = restore is not None and restore.released_at is None
            opt_outs = [] if is_held or adopted is not None else _opt_outs(services, connection, heartbeats, now)
    except LedgerUnavailable:
        return SystemState(around, {}, None, [*findings, _database()], now)
    findings += _silent(heartbeats, around, now)
    findings += _halted(adopted)
    findings += [_restored(restore)] if restore is not None and is_held else _campaigns(idle, overdue, now)
    findings += opt_outs
    findings += _work(counts)
    return SystemState(around, heartbeats, counts, findings, now)


def _opt_outs(services: Services, connection: Connection, heartbeats: Mapping[str, Heartbeat], now: datetime) -> list[Finding]:
    """What of the canaries somebody has to look at. Never while nothing is sent on purpose: then nothing can be measured."""
    ways, beat = ways_out.usable(services), heartbeats.get(BEAT)
    found = watch.findings(connection, ways, beat.first_at if beat else None, now) if ways else ()
    return [Finding(Standstill(each.kind), each.text, each.way, each.since) for each in found]


def is_silent(heartbeat: Heartbeat | None, now: datetime) -> bool:
    """Whether a component has sent no heartbeat for too long, or none ever."""
    return heartbeat is None or now - heartbeat.seen_at > timedelta(seconds=SILENT_SECONDS)


def _database() -> Finding:
    return Finding(Standstill.DATABASE, DATABASE_AWAY)


def _restored(restore: Generation) -> Finding:
    """Campaigns that do not go on are its consequence."""
    moment = f"to {restore.restored_to:%Y-%m-%d %H:%M} UTC" if restore.restored_to else "to an earlier moment"
    text = f"The ledger was restored {moment}: nothing is sent until a person runs `dispatcher restore release`."
    return Finding(Standstill.LEDGER_RESTORED, text, since=restore.began_at)


def halts(services: Services) -> list[Finding]:
    """The standstill of workers with another policy, if there is one: it concerns every campaign."""
    with lend(services.pool) as connection:
        return list(_halted(halted(connection, services.clock())))


def _halted(current: PolicyInForce | None) -> Iterator[Finding]:
    if current is not None:
        yield Finding(Standstill.POLICY_NOT_IN_FORCE, halted_text(current), since=current.at)


def _engines(around: Surroundings) -> Iterator[Finding]:
    if not around.engines["database"]:
        yield _database()
    if not around.engines.get("broker", True):
        yield Finding(Standstill.BROKER, "The broker does not answer: what is accepted waits in the ledger, and nothing is sent.")


def _silent(heartbeats: Mapping[str, Heartbeat], around: Surroundings, now: datetime) -> Iterator[Finding]:
    """Beat and lanes without a heartbeat. Where no component ever sent one, nothing was started yet: that is no standstill."""
    if not heartbeats:
        return
    components = (BEAT, *lanes())
    started_at = min(heartbeat.first_at for heartbeat in heartbeats.values())
    if now - started_at < timedelta(seconds=SILENT_SECONDS):
        return  # the others may still be starting
    silent = [component for component in components if is_silent(heartbeats.get(component), now)]
    newest = max(heartbeat.seen_at for heartbeat in heartbeats.values())
    if len(silent) == len(components) and around.lanes and not any(lane.tasks for lane in around.lanes.values()):
        silent = [BEAT]  # it puts nothing on the lanes
    if len(silent) == len(components):
        text = "Neither beat nor any worker sends a heartbeat: they are stopped or frozen, or cut off from the broker."
        yield Finding(Standstill.NOTHING_RUNS, text, since=newest)
        return
    for component in silent:
        since = heartbeats[component].seen_at if component in heartbeats else None
        if component == BEAT:
            yield Finding(
                Standstill.BEAT, "Beat sends no heartbeat: no campaign starts, and nothing that waits is sent.", since=since
            )
        else:
            text = f"No worker of the lane {component} sends a heartbeat: none runs, or it is frozen."
            yield Finding(Standstill.LANE, text, component, since)


def _campaigns(idle: Sequence[IdleCampaign], overdue: Sequence[IdleCampaign], now: datetime) -> Iterator[Finding]:
    late = now - timedelta(seconds=LATE_SECONDS)
    for campaign in overdue:
        if campaign.since < late:
            text = f"The campaign {campaign.id} should have started and has not. Do beat and the lane clock work?"
            yield Finding(Standstill.CAMPAIGN_NOT_STARTED, text, campaign.id, campaign.since)
    waiting = [campaign for campaign in idle if campaign.since < late]
    for campaign in waiting:
        text = f"The campaign {campaign.id} has due messages and makes no progress"
        text += "; others do, and may go first." if len(waiting) < len(idle) else ". Do workers of the lane campaign work?"
        yield Finding(Standstill.CAMPAIGN_IDLE, text, campaign.id, campaign.since)


def _work(counts: Metrics) -> Iterator[Finding]:
    now = counts.counted_at
    if counts.messages_overdue > OVERDUE_MAX:
        text = f"Overdue messages: {counts.messages_overdue:,}. Do beat and the lane clock work?"
        yield Finding(Standstill.MESSAGES_OVERDUE, text)
    oldest = counts.oldest_unsettled_at
    if oldest is not None and now - oldest > timedelta(seconds=EVENTS_LATE_SECONDS):
        text = f"Provider events that are not applied, perhaps opt-outs: {counts.events_unsettled:,}. Does the lane inbound work?"
        yield Finding(Standstill.EVENTS_NOT_APPLIED, text, since=oldest)
    oldest = counts.outbox_oldest_at
    if oldest is not None and now - oldest > timedelta(seconds=EVENTS_LATE_SECONDS):
        text = f"Events that other systems do not hear of: {counts.outbox_rows:,}. Does the lane clock work?"
        yield Finding(Standstill.OUTBOX, text, since=oldest)
    for stop in counts.stops:
        text = f"{stop.channel}: {stop.provider} answered {stop.code}, so its keys or settings are wrong. Its messages wait."
        yield Finding(Standstill.CHANNEL_STOPPED, text, stop.channel, stop.since)
