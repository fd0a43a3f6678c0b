"""Alerts that the program sends itself, without Prometheus: about each standstill, and about its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.ledger.connection import allow_idle_minute, lend
from dispatcher.ledger.maintenance import standing_alerts
from dispatcher.ledger.maintenance.standing_alerts import StandingAlert
from dispatcher.maintenance.standstills import DATABASE_AWAY, Finding, Standstill, examine
from dispatcher.runtime.services import Services

__all__ = ["LOOK_SECONDS", "Notice", "StandingAlert", "Watch", "acknowledge", "newest"]

LOOK_SECONDS = 10.0
HOLD = timedelta(seconds=10)  # no notification about what is over at the next look
REPEAT = timedelta(hours=1)  # while nobody acknowledges it
KEPT = timedelta(days=90)

Notify = Callable[["Notice"], bool]  # whether it was delivered


@dataclass(frozen=True, slots=True)
class Notice:
    """What a notification says. It holds no personal data."""

    title: str
    text: str
    is_over: bool


@dataclass(slots=True)
class Watch:
    """Looks at the program from time to time, and notifies people. Of several watchers one at a time does.

    While the ledger is away, nothing can be recorded: each watcher then notifies by itself, once.
    """

    services: Callable[[], Services]  # made at first use; raises `LedgerUnavailable` as long as they cannot be made
    notify: Notify
    clock: Callable[[], datetime]
    away_since: datetime | None = None
    away_notified: bool = False

    def look(self) -> list[Notice]:
        """Look once; returns the notices that were delivered."""
        now = self.clock()
        try:
            services = self.services()
            findings = examine(services).findings
            if any(finding.kind is Standstill.DATABASE for finding in findings):
                return self._away(now)
            return self._back(now) + self._recorded(services, findings, now)
        except LedgerUnavailable:
            return self._away(now)

    def _recorded(self, services: Services, findings: Sequence[Finding], now: datetime) -> list[Notice]:
        with lend(services.pool) as connection, connection.transaction():
            if not standing_alerts.take_lock(connection):
                return []
            allow_idle_minute(connection)  # notifications are sent meanwhile
            standing_alerts.update(connection, {(each.kind, each.subject): each.text for each in findings}, now)
            due = [(alert, _notice(alert)) for alert in standing_alerts.to_notify(connection, now, HOLD, REPEAT)]
            delivered = [(alert, notice) for alert, notice in due if self.notify(notice)]
            standing_alerts.mark_notified(connection, [alert.no for alert, _ in delivered], now)
            standing_alerts.prune(connection, now - KEPT)
        return [notice for _, notice in delivered]

    def _away(self, now: datetime) -> list[Notice]:
        self.away_since = self.away_since or now
        if self.away_notified or now - self.away_since < HOLD:
            return []
        notice = Notice(Standstill.DATABASE, f"{DATABASE_AWAY} Since {self.away_since:%Y-%m-%d %H:%M:%S} UTC.", is_over=False)
        self.away_notified = self.notify(notice)
        return [notice] if self.away_notified else []

    def _back(self, now: datetime) -> list[Notice]:
        if self.away_notified and self.away_since is not None:
            text = f"The database answers again, after {int((now - self.away_since).total_seconds())} s."
            notice = Notice(Standstill.DATABASE, text, is_over=True)
            if not self.notify(notice):
                return []  # tried again at the next look
            self.away_since, self.away_notified = None, False
            return [notice]
        self.away_since = None
        return []


def _notice(alert: StandingAlert) -> Notice:
    title = f"{alert.kind} {alert.subject}".strip()
    if alert.ended_at is not None:
        return Notice(title, f"Over since {alert.ended_at:%Y-%m-%d %H:%M:%S} UTC: {alert.text}", is_over=True)
    return Notice(title, f"{alert.text} Since {alert.began_at:%Y-%m-%d %H:%M:%S} UTC.", is_over=False)


def newest(services: Services, limit: int) -> list[StandingAlert]:
    """Open alerts, then ended ones, each the newest first."""
    with lend(services.pool) as connection:
        return standing_alerts.newest(connection, limit)


def acknowledge(services: Services, number: int, by: str) -> bool:
    """Record who takes care of an open alert: no more reminders. False where there is none, or somebody does already."""
    with lend(services.pool) as connection:
        return standing_alerts.acknowledge(connection, number, by, services.clock())
