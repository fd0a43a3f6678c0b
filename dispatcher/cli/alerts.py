"""`dispatcher alerts …`: what stands still, told to people."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

import typer

from dispatcher.cli.identity import open_for
from dispatcher.cli.output import BAD_INPUT, REFUSED, Json, JsonLines, err, fail, out, print_json, print_json_line, rows
from dispatcher.domain.audit import AuditAction, AuditNote
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.principal import Right
from dispatcher.embedded import EngineError
from dispatcher.maintenance import alerting
from dispatcher.maintenance.alerting import LOOK_SECONDS, Notice, StandingAlert, Watch
from dispatcher.runtime import bootstrap, notifications
from dispatcher.runtime.services import Services

app = typer.Typer(help="What stands still: tell people, list it, take care of it.", no_args_is_help=True)

COLUMNS = ("number", "kind", "subject", "began_at", "notified_at", "acknowledged_by", "ended_at")


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: JsonLines = False,
) -> None:
    """Look every 10 s, and notify the targets of DISPATCHER_ALERT_TARGETS when something stands still, and when it is over.

    Run one or two, as services of their own: of several, one at a time notifies. Without targets, it prints only.
    """
    shown = Watch(_services, _notifier(as_json), lambda: datetime.now(UTC))
    while True:
        shown.look()
        if once:
            return
        time.sleep(LOOK_SECONDS)


@lru_cache(maxsize=1)
def _services() -> Services:
    try:
        return bootstrap.services()
    except EngineError as error:
        raise LedgerUnavailable(str(error)) from error


def _notifier(as_json: bool) -> Callable[[Notice], bool]:
    targets = bootstrap.settings().alert_targets
    send = notifications.notifier(targets) if targets else None

    def notify(notice: Notice) -> bool:
        delivered = send is None or send(f"dispatcher: {notice.title}", notice.text, notice.is_over)
        state = "over" if notice.is_over else "standstill"
        if as_json:
            print_json_line({"event": state, "title": notice.title, "text": notice.text, "delivered": delivered})
        else:
            out.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {state} {notice.title}: {notice.text}", markup=False, soft_wrap=True)
            if not delivered:
                err.print("no target took the notification; it is sent again at the next look")
        return delivered

    return notify


@app.command("test")
def send_test(as_json: Json = False) -> None:
    """Send a test notification to all targets."""
    targets = bootstrap.settings().alert_targets
    if not targets:
        fail("DISPATCHER_ALERT_TARGETS is not set: it names a file with one Apprise URL in each line", BAD_INPUT)
    delivered = [
        notifications.notifier([target])("dispatcher: test", "This is a test. Nothing stands still.", True) for target in targets
    ]
    if as_json:
        print_json({"targets": len(delivered), "delivered": sum(delivered)})
    else:
        rows(
            "",
            ("target", "result"),
            [(f"line {n}", "took it" if each else "did not take it") for n, each in enumerate(delivered, 1)],
        )
    if not all(delivered):
        raise typer.Exit(REFUSED)


@app.command("list")
def list_alerts(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, open ones first.")] = 50, as_json: Json = False
) -> None:
    """List alerts: open ones, then those that ended in the last 90 days."""
    documents = [_document(alert) for alert in alerting.newest(bootstrap.services(), limit)]
    if as_json:
        print_json({"alerts": documents})
    elif documents:
        rows("", [name.replace("_", " ") for name in COLUMNS], [[each[name] for name in COLUMNS] for each in documents])
    else:
        out.print("no alert")


@app.command()
def acknowledge(number: Annotated[int, typer.Argument(help="The number of an open alert.")], as_json: Json = False) -> None:
    """Say that you take care of an open alert: no more reminders. It ends by itself."""
    services, who = open_for(Right.OPERATE, act=AuditNote(AuditAction.ACKNOWLEDGE, "alert", str(number)))
    if not alerting.acknowledge(services, number, who):
        fail(f"there is no open alert {number} that nobody takes care of", REFUSED)
    if as_json:
        print_json({"number": number, "acknowledged": True})
    else:
        out.print("acknowledged")


def _document(alert: StandingAlert) -> dict[str, object]:
    times = {name: getattr(alert, name) for name in ("began_at", "notified_at", "acknowledged_at", "ended_at")}
    moments = {name: at.isoformat() if at else None for name, at in times.items()}
    return {
        "number": alert.no,
        "kind": alert.kind,
        "subject": alert.subject,
        "text": alert.text,
        "acknowledged_by": alert.acknowledged_by,
        **moments,
    }
