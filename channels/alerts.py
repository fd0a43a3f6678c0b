"""What a person should hear of: a warning in the log with the provider's code, and never anything of the message."""

from __future__ import annotations

import structlog

log = structlog.get_logger()


def alert(provider: str, code: str, *, known: bool = True) -> None:
    """Tell of a code that calls for a person. `known` is False where nobody has yet said what should follow from it."""
    log.warning("provider_code" if known else "unknown_provider_code", provider=provider, code=code)
