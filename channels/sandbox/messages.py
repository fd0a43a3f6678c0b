"""Turning what was kept into messages that a person or a test can read. Nothing here runs while messages arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.sandbox.doubles import doubles
from channels.sandbox.state import SandboxState


def read_message(state: SandboxState, seq: int) -> dict[str, Any] | None:
    """One message with its `content` as its reader gets it (None when no longer kept); None for an unknown number."""
    line = state.log.get(seq)
    if line is None:
        return None
    return line | {"content": read_content(state, seq)}


def read_content(state: SandboxState, seq: int) -> Mapping[str, Any] | None:
    """The content of message `seq`; which keys it has depends on the channel."""
    request = state.requests.find(seq)
    return None if request is None else doubles()[request.provider].read_content(state, request, seq)
