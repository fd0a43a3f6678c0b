"""Profiles: named sets of fault rules, to try common provider problems without writing rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FAILURES: Sequence[Mapping[str, Any]] = (  # each documented way to fail, with equal shares
    {"status": 429},
    {"status": 503},
    {"status": 500, "taken": True},
    {"status": 400},
    {},
    {"taken": True},
    {"cut": 40, "taken": True},
)

PROFILES: Mapping[str, tuple[str, Sequence[Mapping[str, Any]]]] = {
    "calm": ("nothing goes wrong", ()),
    "slow": (
        "each request takes a quarter of a second, one in fifty takes three seconds",
        ({"share": 0.02, "delay_seconds": 3.0}, {"delay_seconds": 0.25}),
    ),
    "flaky": (
        "one request in ten fails, in every documented way; some of those messages still arrive",
        tuple({"share": round(0.1 / len(_FAILURES), 4), **rule} for rule in _FAILURES),
    ),
    "busy": (
        "three requests in ten get 429, one in ten takes two seconds",
        ({"share": 0.3, "status": 429}, {"share": 0.1, "delay_seconds": 2.0}),
    ),
    "lossy": (
        "messages arrive, but one answer in ten is lost or cut",
        ({"share": 0.05, "taken": True}, {"share": 0.05, "cut": 40, "taken": True}),
    ),
    "down": ("503 to every request", ({"status": 503},)),
    "locked": ("401 to every request, as with a revoked key", ({"status": 401},)),
}
