"""The counters and histograms that processes record: name, meaning, and for each label the closed set of its values.

A value outside the set is recorded as `other`. So the number of series is bounded, and nothing personal can become a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from channels.base import Channel
from channels.measurements import RESULT_CLASSES
from channels.registry import plugins
from dispatcher.domain.canaries import LagStage, OptOutWay
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind, State

OTHER = "other"
NONE = ""  # the label does not apply
PROVIDER, TASK, LANE = "provider", "task", "lane"  # labels whose sets come from plugins and from Celery's settings

# Reasons that the program itself adds after the decision. Codes of providers are an open set: `result` has their class.
OWN_REASONS = frozenset({"rate_limited", "paused", "interrupted", "worker_lost"})
REASONS = frozenset({NONE, OTHER, *ReasonCode, *RESULT_CLASSES, *OWN_REASONS})

QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
SLOW = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True, eq=False)  # by identity: a key of dictionaries
class Family:
    """One metric; its public name has the prefix `dispatcher_`. With buckets it is a histogram; `is_gauge` makes it a gauge, which
    adds up over the living processes of a group; else it is a counter."""

    name: str
    help: str
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()
    is_gauge: bool = False


_CHANNEL = frozenset({NONE, *Channel})
_OPEN: frozenset[str] = frozenset()  # filled by `label_values`
RENDER_PATHS = frozenset({"compiled", "template"})
WEBHOOK_RESULTS = frozenset({"accepted", "unsigned", "unreadable"})

MESSAGES = Family(
    "messages_total",
    "Changes of messages' states by state, channel, provider, kind and reason.",
    {"state": frozenset(State), "channel": _CHANNEL, "provider": _OPEN, "kind": frozenset({NONE, *Kind}), "reason": REASONS},
)
HAND_OFF = Family(
    "hand_off_seconds", "How long a batch of claimed messages takes at its providers.", {"kind": frozenset(Kind)}, QUICK
)
CLAIM_TO_HAND_OFF = Family(
    "claim_to_hand_off_seconds",
    "From before the claim to the last first byte of its batch; the send deadline bounds it.",
    {"kind": frozenset(Kind)},
    QUICK,
)
OPT_OUT_TO_LAST_HAND_OFF = Family(
    "opt_out_to_last_hand_off_seconds",
    "From an opt-out to the settlement of the last message that was claimed before it; 0 where there was none.",
    {},
    (0.0, *QUICK, 180.0, 600.0),
)
OPT_OUT_BOUND_BROKEN = Family(
    "opt_out_bound_broken_total", "Opt-outs after which a message was claimed, or was settled later than a lease."
)
_WAY = {"way": frozenset(OptOutWay)}
CANARY_OPT_OUT = Family(
    "canary_opt_out_seconds",
    "From the answered opt-out of a canary recipient to its last claim, hand-off and arrival; 0 where there was none after it.",
    {**_WAY, "stage": frozenset(LagStage)},
    (0.0, *QUICK, 180.0, 600.0),
)
CANARY_BOUND_BROKEN = Family(
    "canary_bound_broken_total", "Opt-outs of canary recipients after which a message was under way for too long.", _WAY
)
PROVIDER_SECONDS = Family(
    "provider_seconds",
    "From the start of a batch to each answer of the provider.",
    {"provider": _OPEN, "channel": _CHANNEL},
    QUICK,
)
PROVIDER_RESULTS = Family(
    "provider_results_total",
    "Results of messages at providers, by class of the error.",
    {"provider": _OPEN, "channel": _CHANNEL, "result": RESULT_CLASSES},
)
RATE_LIMITED = Family("rate_limited_total", "Messages that our own rate limit put back.", {"channel": _CHANNEL})
RATE_LIMIT_WAIT = Family(
    "rate_limit_wait_seconds", "The longest wait in a batch that our own rate limit put back.", {"channel": _CHANNEL}, SLOW
)
RENDERS = Family("renders_total", "Rendered messages: along a compiled path, or by the template itself.", {"path": RENDER_PATHS})
WEBHOOK_CALLS = Family(
    "webhook_calls_total", "Calls of providers' webhooks by result.", {"provider": _OPEN, "result": WEBHOOK_RESULTS}
)
PROVIDER_EVENT_LAG = Family(
    "provider_event_lag_seconds", "From the time in a provider's event to its arrival here.", {"provider": _OPEN}, SLOW
)
TASKS = Family(
    "tasks_total",
    "Finished tasks by lane and state.",
    {"task": _OPEN, "lane": _OPEN, "state": frozenset({"succeeded", "failed", "retried"})},
)
TASK_SECONDS = Family("task_seconds", "How long a task runs.", {"task": _OPEN}, QUICK)
TASK_WAIT = Family("task_wait_seconds", "From the publication of a task to its start.", {"task": _OPEN}, QUICK)
TASKS_PUBLISHED = Family("tasks_published_total", "Tasks that this process group put on the broker.", {"task": _OPEN})
POOL_REQUESTS = Family("pool_requests_total", "Connections that were borrowed from the pool of this process group.")
POOL_WAIT = Family("pool_wait_seconds_total", "How long these borrowers waited.")
POOL_CONNECTIONS = Family("pool_connections", "Open connections of the pools of this process group.", is_gauge=True)
POOL_LIMIT = Family("pool_connections_max", "The most connections that these pools open.", is_gauge=True)

FAMILIES = (
    MESSAGES,
    HAND_OFF,
    CLAIM_TO_HAND_OFF,
    OPT_OUT_TO_LAST_HAND_OFF,
    OPT_OUT_BOUND_BROKEN,
    CANARY_OPT_OUT,
    CANARY_BOUND_BROKEN,
    PROVIDER_SECONDS,
    PROVIDER_RESULTS,
    RATE_LIMITED,
    RATE_LIMIT_WAIT,
    RENDERS,
    WEBHOOK_CALLS,
    PROVIDER_EVENT_LAG,
    TASKS,
    TASK_SECONDS,
    TASK_WAIT,
    TASKS_PUBLISHED,
    POOL_REQUESTS,
    POOL_WAIT,
    POOL_CONNECTIONS,
    POOL_LIMIT,
)


@lru_cache(maxsize=256)
def label_values(family: Family, label: str) -> frozenset[str]:
    """The closed set of a label's values. A channel with two providers has both names, joined by `+`."""
    if label == PROVIDER:
        names = frozenset(plugins())
        return names | {f"{first}+{second}" for first in names for second in names if first != second} | {NONE, OTHER}
    if label in (TASK, LANE):
        lanes = lane_by_task()
        return frozenset({*(lanes if label == TASK else lanes.values()), OTHER})
    return family.labels[label] | {OTHER}


@lru_cache(maxsize=1)
def lane_by_task() -> Mapping[str, str]:
    """The lane of each task."""
    import celeryconfig  # here: it imports kombu, which the command line does not need

    return {task: route["queue"] for task, route in celeryconfig.task_routes.items()}
