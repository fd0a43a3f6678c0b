"""Throughput of one worker process whose provider is far away: each answer takes 100 ms, as real providers' do (50 to 200 ms)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import throughput
from benchmarks.environment import BenchEnvironment, baseline_worker, campaign_worker, log_progress, slow_sink, wait_for
from benchmarks.stage_costs import SendSetup
from channels.base import Channel

ANSWER_MILLISECONDS = 100
SETUPS: Mapping[str, SendSetup] = {
    "push": SendSetup(Channel.PUSH),
    "SMS": SendSetup(Channel.SMS),
    "WhatsApp": SendSetup(Channel.WHATSAPP),
    "e-mail batch": SendSetup(Channel.EMAIL, mails_per_request=100),
    "e-mail batch, 1,000 in flight": SendSetup(Channel.EMAIL, mails_per_request=100),
}
IN_FLIGHT: Mapping[str, int] = {"e-mail batch, 1,000 in flight": 1_000}  # with 400, answers after 100 ms allow 4,000 a second
BASELINE_MESSAGES = 30  # it sends one after the other


@dataclass(frozen=True, slots=True)
class DistantRun:
    """Messages per second of one worker process, ours and the baseline's."""

    per_second: float
    baseline_per_second: float


def measure(bench: BenchEnvironment, people: int, repeats: int) -> Mapping[str, DistantRun]:
    """The median of so many campaigns of each channel."""
    with slow_sink(bench, ANSWER_MILLISECONDS) as sink:
        return {name: _measure(bench, name, setup, sink, people, repeats) for name, setup in SETUPS.items()}


def _measure(bench: BenchEnvironment, name: str, setup: SendSetup, sink: str, people: int, repeats: int) -> DistantRun:
    urls = dict.fromkeys(("SENDGRID_BASE_URL", "TWILIO_BASE_URL", "FCM_BASE_URL"), sink)
    in_flight = {"DISPATCHER_IN_FLIGHT": str(IN_FLIGHT[name])} if name in IN_FLIGHT else {}
    mails = {"SENDGRID_MAILS_PER_REQUEST": str(setup.mails_per_request)}
    with bench.running(campaign_worker(1), **mails, **in_flight, **urls) as worker:
        throughput.campaign(bench, worker, setup.channel, min(1_000, people))  # warm-up
        runs = [throughput.campaign(bench, worker, setup.channel, people).per_second for _ in range(repeats)]
    with bench.running(baseline_worker(1), **urls) as worker:
        wait_for("the baseline's worker", throughput.baseline_is_ready, 30)
        throughput.baseline_run(bench, worker, setup.channel, 5)
        baseline = throughput.baseline_run(bench, worker, setup.channel, BASELINE_MESSAGES).per_second
    measured = DistantRun(sorted(runs)[len(runs) // 2], baseline)
    log_progress(f"{name}, answers after {ANSWER_MILLISECONDS} ms: {measured.per_second:,.0f}/s, the baseline {baseline:,.0f}/s")
    return measured
