"""Stored requests as messages that a person or a test can read. Runs only when somebody reads, not when messages arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.sandbox.doubles import doubles
from channels.sandbox.state import SandboxState


def read_message(state: SandboxState, seq: int) -> dict[str, Any] | None:
    """Return a message with its `content` as the recipient sees it (None if no longer stored); None for an unknown number."""
    line = state.log.get(seq)
    if line is None:
        return None
    return line | {"content": read_content(state, seq)}


def read_content(state: SandboxState, seq: int) -> Mapping[str, Any] | None:
    """Return the content of message `seq`; its keys depend on the channel."""
    request = state.requests.find(seq)
    return None if request is None else doubles()[request.provider].read_content(state, request, seq)
