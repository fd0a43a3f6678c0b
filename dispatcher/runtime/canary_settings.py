"""Settings of canary recipients: whether they opt out every minute, and how they reach the ways out."""

from __future__ import annotations

from dataclasses import dataclass, field

from channels.base import Channel
from dispatcher.runtime.environment import EnvironmentReader

WEB_URL = "DISPATCHER_CANARY_WEB_URL"


@dataclass(frozen=True, slots=True)
class CanarySettings:
    """How canaries reach the ways out. Without `api_key`, the API is not measured. `sandbox_channels` go through the sandbox.
    `web_url` is where the web application is, if workers do not reach it at its public address.
    """

    api_key: str = field(default="", repr=False)
    sandbox_url: str = ""
    sandbox_channels: frozenset[Channel] = frozenset()
    web_url: str = ""


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
    web_url = read.text(
        WEB_URL, about="where the maintenance worker reaches the web application for canaries, if not at DISPATCHER_PUBLIC_URL"
    )
    if web_url:  # inside a network that is ours, such as that of the containers
        web_url = read.url(WEB_URL, "http://web:8000", in_the_clear=True)
    return CanarySettings(api_key, sandbox_url, sandbox_channels, web_url) if is_on else None
