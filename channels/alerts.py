"""Alerts: a provider's code that a person should look at, as a warning in the log. They contain nothing of a message.

The program that runs the adapters can call `set_alert_sink` to show alerts elsewhere too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import structlog

AlertCallback: TypeAlias = Callable[[str, str, bool], None]  # provider, code, known

log = structlog.get_logger()
_callbacks: list[AlertCallback] = []


def alert(provider: str, code: str, *, known: bool = True) -> None:
    """Report a code that needs a person. `known` is False for a code that no error table contains."""
    log.warning("provider_code" if known else "unknown_provider_code", provider=provider, code=code)
    for callback in _callbacks:
        callback(provider, code, known)


def set_alert_sink(callback: AlertCallback) -> None:
    """Call `callback` for each alert of this process, in place of the callback set before. It must not raise, and be quick."""
    _callbacks[:] = [callback]
