"""What a person should hear of: a warning in the log with the provider's code, and never anything of the message.

Who runs the adapters may `set_alert_sink`, to show alerts where people look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import structlog

AlertCallback: TypeAlias = Callable[[str, str, bool], None]  # provider, code, known

log = structlog.get_logger()
_callbacks: list[AlertCallback] = []


def alert(provider: str, code: str, *, known: bool = True) -> None:
    """Tell of a code that calls for a person. `known` is False where nobody has yet said what should follow from it."""
    log.warning("provider_code" if known else "unknown_provider_code", provider=provider, code=code)
    for listener in _callbacks:
        listener(provider, code, known)


def set_alert_sink(listener: AlertCallback) -> None:
    """Hear of all alerts of this process from now on, in place of who listened before. It must not raise, nor take long."""
    _callbacks[:] = [listener]
