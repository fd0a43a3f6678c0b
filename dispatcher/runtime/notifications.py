"""Notifications by Apprise: e-mail, webhooks, Teams, Slack, PagerDuty and many others, each named by a URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dispatcher.runtime.environment import EnvironmentReader

if TYPE_CHECKING:
    import apprise


def read_alert_targets(read: EnvironmentReader) -> tuple[str, ...]:
    """The URLs of Apprise in the file that DISPATCHER_ALERT_TARGETS names, one in each line. They hold passwords: never shown."""
    path = read.file(
        "DISPATCHER_ALERT_TARGETS",
        about="file with one Apprise URL in each line, where `dispatcher alerts watch` sends its alerts; needs the extra `alerts`",
    )
    if path is None:
        return ()
    if find_spec("apprise") is None:
        read.fault("DISPATCHER_ALERT_TARGETS is set, but apprise is not installed: it is the extra `alerts`.")
        return ()
    return tuple(_targets(read, path))


def _targets(read: EnvironmentReader, path: Path) -> Sequence[str]:
    lines = [(number, line.strip()) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)]
    targets = [(number, line) for number, line in lines if line and not line.startswith("#")]
    for number, target in targets:
        if not _make([target]):
            read.fault(f"{path}:{number}: it is no URL that Apprise knows (not shown, it may hold a password).")
    if not targets:
        read.fault(f"DISPATCHER_ALERT_TARGETS is {str(path)!r}: the file names no target.")
    return [target for _, target in targets]


def _make(targets: Sequence[str]) -> apprise.Apprise | None:
    import apprise  # here: an extra

    made = apprise.Apprise()
    return made if all(made.add(target) for target in targets) else None


def notifier(targets: Sequence[str]) -> Callable[[str, str, bool], bool]:
    """A function that sends title and text to all targets, and says whether at least one took it."""
    import apprise  # here: an extra

    each = [made for target in targets if (made := _make([target])) is not None]

    def send(title: str, text: str, is_good: bool) -> bool:
        kind = apprise.NotifyType.SUCCESS if is_good else apprise.NotifyType.FAILURE
        delivered = [bool(one.notify(body=text, title=title, notify_type=kind)) for one in each]  # all of them, not up to the first
        return any(delivered)

    return send
