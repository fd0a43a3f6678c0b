"""The alert rules: for each what it means, and the PromQL expression that shows it.

`python -m docs.monitoring` writes them as rules for Prometheus. They are part of the program, so that it can send alerts
itself where there is no Prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from channels.registry import plugins

DAY = 86_400
RELEASE_DUE = "dispatcher.release_due"


class Urgency(StrEnum):
    """How fast a person must act: at once, or on the same day."""

    CRITICAL = "critical"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert. It fires when `expression` has had values for `minutes`. `text` may use the labels of the expression."""

    name: str
    expression: str
    minutes: int
    severity: Urgency
    text: str

    @property
    def runbook(self) -> str:
        """The name of its page in `docs/how-to/runbooks`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.name).lower()


def _with_webhooks() -> str:
    """The providers that report by webhook, as a regular expression."""
    return "|".join(sorted(name for name, plugin in plugins().items() if plugin.endpoints and plugin.real))


def rules() -> Sequence[AlertRule]:
    """All alert rules."""
    return (
        AlertRule(
            "CampaignStuck",
            "max(dispatcher_campaign_idle_seconds) > 900",
            5,
            Urgency.CRITICAL,
            "A running campaign has due chunks, and nobody has worked on it for 15 minutes.",
        ),
        AlertRule(
            "LaneWithoutWorker",
            "max by (lane) (dispatcher_lane_age_seconds) > 120 "
            "unless on (lane) sum by (lane) (rate(dispatcher_tasks_total[5m])) > 0",
            2,
            Urgency.CRITICAL,
            "Tasks wait in the lane {{ $labels.lane }}, and no worker has finished a task of it for 5 minutes.",
        ),
        AlertRule(
            "BeatAway",
            f'sum(increase(dispatcher_tasks_published_total{{task="{RELEASE_DUE}"}}[2m])) < 1 '
            f'or absent(dispatcher_tasks_published_total{{task="{RELEASE_DUE}"}})',
            2,
            Urgency.CRITICAL,
            "Beat has published nothing for 2 minutes: no campaign starts, and nothing that waits is sent.",
        ),
        AlertRule(
            "EngineAway",
            "min by (engine) (dispatcher_engine_up) == 0",
            1,
            Urgency.CRITICAL,
            "The {{ $labels.engine }} does not answer.",
        ),
        AlertRule(
            "ProviderFailing",
            "sum by (provider, channel) "
            '(rate(dispatcher_provider_results_total{result=~"unavailable|uncertain|misconfigured"}[5m])) '
            "/ sum by (provider, channel) (rate(dispatcher_provider_results_total[5m])) > 0.2",
            5,
            Urgency.CRITICAL,
            "More than a fifth of the messages fail at {{ $labels.provider }} ({{ $labels.channel }}).",
        ),
        AlertRule(
            "ProviderSlow",
            "histogram_quantile(0.95, sum by (provider, channel, le) (rate(dispatcher_provider_seconds_bucket[5m]))) > 5",
            10,
            Urgency.WARNING,
            "One of twenty answers of {{ $labels.provider }} ({{ $labels.channel }}) takes more than 5 seconds.",
        ),
        AlertRule(
            "ChannelStopped",
            "max by (channel) (dispatcher_channel_stopped) == 1",
            1,
            Urgency.CRITICAL,
            "The channel {{ $labels.channel }} is stopped: its keys or settings are wrong.",
        ),
        AlertRule(
            "LedgerRestored",
            'max(dispatcher_standstill{kind="ledger_restored"}) > 0',
            0,
            Urgency.CRITICAL,
            "The ledger was restored to an earlier moment: nothing is sent until a person releases it.",
        ),
        AlertRule(
            "WebhooksSilent",
            "sum by (provider) "
            f'(rate(dispatcher_provider_results_total{{result="accepted",provider=~"{_with_webhooks()}"}}[30m])) > 0 '
            'unless on (provider) sum by (provider) (increase(dispatcher_webhook_calls_total{result="accepted"}[30m])) > 0',
            15,
            Urgency.CRITICAL,
            "{{ $labels.provider }} takes messages, but has reported nothing for 30 minutes: opt-outs and bounces are missing.",
        ),
        AlertRule(
            "WebhooksRefused",
            'sum by (provider) (rate(dispatcher_webhook_calls_total{result!="accepted"}[10m])) > 0.05',
            10,
            Urgency.WARNING,
            "Webhook calls for {{ $labels.provider }} are refused: wrong key, or somebody else calls.",
        ),
        AlertRule(
            "ProviderEventsBehind",
            "max(dispatcher_events_unsettled_age_seconds) > 300",
            5,
            Urgency.CRITICAL,
            "A provider event, which may be an opt-out, has not been applied for 5 minutes.",
        ),
        AlertRule(
            "UnresolvedRising",
            "max(dispatcher_messages_unresolved) > 50 and max(delta(dispatcher_messages_unresolved[30m])) > 0",
            15,
            Urgency.WARNING,
            "More and more messages may have been sent, and nobody knows.",
        ),
        AlertRule(
            # Google's guidelines for senders: stay below 0.1 %, and never reach 0.3 %. Of few messages, one complaint is too many.
            "ComplaintRate",
            'sum by (channel) (increase(dispatcher_messages_total{state="complained"}[6h])) '
            '/ (sum by (channel) (increase(dispatcher_messages_total{state="accepted"}[6h])) > 1000) > 0.001',
            10,
            Urgency.CRITICAL,
            "More than one of a thousand messages by {{ $labels.channel }} is reported as spam.",
        ),
        AlertRule(
            "OutboxLag",
            "max(dispatcher_outbox_age_seconds) > 60",
            5,
            Urgency.WARNING,
            "Events have not been published for a minute: other systems do not hear of opt-outs.",
        ),
        AlertRule(
            "EventEndpointBehind",
            "max by (endpoint) (dispatcher_webhook_lag_seconds) > 900 or max by (endpoint) (dispatcher_webhook_disabled) == 1",
            15,
            Urgency.WARNING,
            "The event endpoint {{ $labels.endpoint }} is 15 minutes behind, or disabled.",
        ),
        AlertRule(
            "OptOutBoundBroken",
            "sum(increase(dispatcher_opt_out_bound_broken_total[1h])) > 0",
            0,
            Urgency.CRITICAL,
            "A message was still under way for longer than a lease after an opt-out.",
        ),
        AlertRule(
            "CanaryOptOutLate",
            "sum by (way) (increase(dispatcher_canary_bound_broken_total[1h])) > 0 "
            'or max(dispatcher_standstill{kind="opt_out_late"}) > 0',
            0,
            Urgency.CRITICAL,
            "A canary recipient got a message later after its opt-out than promised.",
        ),
        AlertRule(
            "CanaryNotMeasured",
            'max(dispatcher_standstill{kind="opt_out_not_measured"}) > 0',
            5,
            Urgency.WARNING,
            "A way out has not been measured with canary recipients for 15 minutes.",
        ),
        AlertRule(
            "CertificateEndsSoon",
            f"min by (certificate) (dispatcher_certificate_end_timestamp_seconds) - time() < {14 * DAY}",
            60,
            Urgency.WARNING,
            "The certificate {{ $labels.certificate }} ends in less than 14 days, or cannot be read.",
        ),
        AlertRule(
            "PartitionMissing",
            f"max(dispatcher_partitions_end_timestamp_seconds) - time() < {15 * DAY}",
            10,
            Urgency.CRITICAL,
            "The ledger has no partitions for the time in 15 days: then nothing can be written.",
        ),
        AlertRule(
            "DiskAlmostFull",
            "min by (instance) (dispatcher_disk_free_bytes / dispatcher_disk_size_bytes) < 0.1",
            10,
            Urgency.CRITICAL,
            "The disk of {{ $labels.instance }} has less than a tenth free.",
        ),
        AlertRule(
            "TargetDown",
            'up{job="dispatcher"} == 0',
            2,
            Urgency.CRITICAL,
            "The process group {{ $labels.instance }} does not answer Prometheus.",
        ),
    )
