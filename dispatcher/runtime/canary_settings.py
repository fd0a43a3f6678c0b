"""Settings of canary recipients: whether they opt out every minute, and how they reach the ways out."""

from __future__ import annotations

from dataclasses import dataclass, field

from channels.base import Channel
from dispatcher.runtime.environment import EnvironmentReader


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """How canaries reach the ways out. Without `api_key`, the API is not measured. `sandbox_channels` go through the sandbox."""

    api_key: str = field(default="", repr=False)
    sandbox_url: str = ""
    sandbox_channels: frozenset[Channel] = frozenset()


def read_canaries(read: EnvironmentReader, sandbox_channels: frozenset[Channel], sandbox_url: str) -> CanarySettings | None:
    """The settings; None where canaries are off."""
    is_on = (
        read.choice(
            "DISPATCHER_CANARIES",
            ("off", "on"),
            "off",
            about="`on`: canary recipients opt out every minute in each way, and the time until nothing more arrives is measured",
        )
        == "on"
    )
    api_key = read.secret(
        "DISPATCHER_CANARY_API_KEY", about="an API key with the right `preferences`, for the canary that opts out by API"
    )
    return CanarySettings(api_key, sandbox_url, sandbox_channels) if is_on else None
