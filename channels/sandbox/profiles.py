"""Weather: sets of fault rules with a name, for whoever wants a provider as it may be on some day without writing rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_DAY: Sequence[Mapping[str, Any]] = (  # every documented way to fail, as often as any other
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
        "a quarter of a second each, one in fifty takes three seconds",
        ({"share": 0.02, "delay_seconds": 3.0}, {"delay_seconds": 0.25}),
    ),
    "flaky": (
        "one request in ten fails, in each documented way alike; some of those messages arrive all the same",
        tuple({"share": round(0.1 / len(_DAY), 4), **rule} for rule in _DAY),
    ),
    "busy": (
        "three in ten are too fast, one in ten takes two seconds",
        ({"share": 0.3, "status": 429}, {"share": 0.1, "delay_seconds": 2.0}),
    ),
    "lossy": (
        "messages arrive, but one answer in ten is lost or cut",
        ({"share": 0.05, "taken": True}, {"share": 0.05, "cut": 40, "taken": True}),
    ),
    "down": ("503 to everybody", ({"status": 503},)),
    "locked": ("401 to everybody, as with a revoked key", ({"status": 401},)),
}
