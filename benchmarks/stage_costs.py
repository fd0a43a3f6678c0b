"""A worker's processor time by stage of the pipeline, and the cost of single parts alone, which is the limit."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from benchmarks.environment import BenchEnvironment, database
from benchmarks.resource_usage import cpu_seconds
from benchmarks.throughput import finished, submit
from channels.base import Channel, Content, Email, MergedEmail, Outbound, Provider, Receipt, Result, Sms
from channels.http import HttpRequest, HttpResponse, HttpTransport, TransportError
from channels.providers.fcm import Fcm
from channels.providers.sendgrid import SendGrid
from channels.providers.twilio import TwilioAccount, TwilioSms, TwilioWhatsApp
from channels.resilience.observed import Observed
from channels.send_window import SendWindow, window_of
from dispatcher import content
from dispatcher.campaigns import scheduler
from dispatcher.content import Catalog
from dispatcher.delivery import pipeline
from dispatcher.delivery.batch_metrics import record_claim, record_hand_off, record_outcomes
from dispatcher.delivery.hand_off import hand_off, send_window_for_claim
from dispatcher.delivery.settlement import conclude_all, settle
from dispatcher.domain.decision import Permission, Send
from dispatcher.events import publication
from dispatcher.ledger.connection import Pool, lend, open_pool
from dispatcher.ledger.delivery import claims
from dispatcher.ledger.delivery.candidates import Candidate, gather
from dispatcher.ledger.delivery.chunks import Chunk, find_chunk
from dispatcher.ledger.delivery.scheduling import DueChunk, close
from dispatcher.maintenance import sweep
from dispatcher.policy import decide
from dispatcher.runtime.metrics import start_group
from dispatcher.runtime.services import BATCH_MESSAGES_MAX, COLLECT_AFTER, DeliveryLimits, Services
from dispatcher.runtime.template_versions import TemplateVersions

T = TypeVar("T")
SAMPLE = 10  # mails of each batch that are compared with Jinja's output
STAGES = ("gather", "decide", "render", "claim", "send", "settle", "record")
ALONE = ("rendering", "posting", "rows")
PUBLISH_SECONDS_MAX = 600.0


@dataclass(frozen=True, slots=True)
class StageCosts:
    """Per message: processor microseconds of the worker by stage and of PostgreSQL, SQL statements, and the cost of each part
    alone, with the other side of it (the sink for posting, PostgreSQL for rows). `decide_us` is one decision over all four
    channels; `publish_us` is what publishing one event costs, with PostgreSQL's part."""

    cpu_us: Mapping[str, float]
    postgres_us: float
    statements: float
    alone_us: Mapping[str, float]
    decide_us: float
    publish_us: float

    @property
    def limit_us(self) -> float:
        """The cost of the most expensive part alone: no implementation can be faster."""
        return max(self.alone_us.values())

    @property
    def total_us(self) -> float:
        """Worker and PostgreSQL together."""
        return sum(self.cpu_us.values()) + self.postgres_us


@dataclass(frozen=True, slots=True)
class SendSetup:
    """How a campaign is sent."""

    channel: Channel
    mails_per_request: int = 1
    specialise: bool = True
    batch_messages: int = BATCH_MESSAGES_MAX


class StatementCounter(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that counts its statements."""

    statements = 0

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Count, then execute."""
        StatementCounter.statements += 1
        return super().execute(*arguments, **options)


class RecordingTransport(HttpTransport):
    """A transport that also records its requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requests: list[HttpRequest] = []

    def exchange(
        self, calls: Iterable[tuple[T, HttpRequest]], may_send: Callable[[T], bool] = lambda _: True
    ) -> Generator[tuple[T, HttpResponse | TransportError]]:
        """Record, then send."""
        return super().exchange(self._record(calls), may_send)

    def _record(self, calls: Iterable[tuple[T, HttpRequest]]) -> Iterator[tuple[T, HttpRequest]]:
        for tag, request in calls:
            self.requests.append(request)
            yield tag, request


def _adapters(bench: BenchEnvironment, http: HttpTransport, mails_per_request: int) -> dict[Channel, Provider]:
    """The adapters as `bootstrap` makes them, with the given transport."""
    sid, token, number = (os.environ[f"TWILIO_{name}"] for name in ("ACCOUNT_SID", "AUTH_TOKEN", "SMS_SENDER"))
    account = TwilioAccount(sid, token, number, number, bench.sink)
    callback = f"{bench.services.public_url}/webhooks/twilio/status"
    return {
        Channel.EMAIL: SendGrid("SG.sink", http, bench.sink, mails_per_request=mails_per_request),
        Channel.SMS: TwilioSms(account, http, callback),
        Channel.WHATSAPP: TwilioWhatsApp(account, http, callback),
        Channel.PUSH: Fcm(os.environ["GOOGLE_APPLICATION_CREDENTIALS"], http, bench.sink),
    }


def measure(bench: BenchEnvironment, setup: SendSetup, people: int) -> StageCosts:
    """Run a campaign in this process, stage by stage."""
    _start_metrics(bench.home / "metrics")
    with _counting_pool() as pool:
        http = RecordingTransport(concurrency=200)
        for _ in http.exchange((None, HttpRequest(f"{bench.sink}/count", ())) for _ in range(200)):
            pass  # opens the connections, as in a running worker
        http.requests.clear()
        providers = _adapters(bench, http, setup.mails_per_request)
        limits = DeliveryLimits(batch_messages_max=setup.batch_messages)
        services = replace(
            bench.services,
            pool=pool,
            providers=providers,
            catalog=catalog(specialise=setup.specialise),
            versions=TemplateVersions(),
            limits=limits,
        )
        bench.forget_caps()
        name = submit(services, bench, setup.channel, people)
        publication.publish(services, PUBLISH_SECONDS_MAX)  # what earlier rows left
        due_chunks = scheduler.due_chunks(services)
        clocks = dict.fromkeys((*STAGES, "rendering"), 0.0)
        decide_us = _decision_us(services, due_chunks[0])
        gc.collect()
        gc.freeze()  # as workers do
        gc.set_threshold(*COLLECT_AFTER)
        StatementCounter.statements, postgres = 0, cpu_seconds(bench.meters.postgres)
        for due in due_chunks:
            _chunk(services, due, clocks)
        statements, postgres = StatementCounter.statements, cpu_seconds(bench.meters.postgres) - postgres
        publish_us = _publish_us(bench, services)
        sweep.sweep(services)
        assert finished(services, name), "not every message is settled"
    rendering = clocks.pop("rendering")
    alone = {"rendering": rendering / people, "posting": _posting(bench, http.requests, people), "rows": _rows(bench, name)}
    return StageCosts(
        cpu_us={stage: seconds / people * 1e6 for stage, seconds in clocks.items()},
        postgres_us=postgres / people * 1e6,
        statements=statements / people,
        alone_us={part: seconds * 1e6 for part, seconds in alone.items()},
        decide_us=decide_us,
        publish_us=publish_us,
    )


@lru_cache(maxsize=1)
def _start_metrics(folder: Path) -> None:
    """Record as a worker with DISPATCHER_METRICS_PORT does: once a second at most, numbers go to its files."""
    start_group(folder)


def _publish_us(bench: BenchEnvironment, services: Services) -> float:
    """Microseconds for each event to publish what the campaign left in the outbox."""
    postgres, started = cpu_seconds(bench.meters.postgres), time.process_time()
    published = publication.publish(services, PUBLISH_SECONDS_MAX)
    return (time.process_time() - started + cpu_seconds(bench.meters.postgres) - postgres) / published * 1e6


@contextmanager
def _counting_pool() -> Iterator[Pool]:
    """The ledger's pool, as in workers, with a count of statements."""
    with open_pool(os.environ["DISPATCHER_DATABASE_URL"]) as pool:
        assert isinstance(pool.kwargs, dict)
        pool.kwargs["cursor_factory"] = StatementCounter
        yield pool


@lru_cache(maxsize=2)
def catalog(*, specialise: bool) -> Catalog:
    """The templates as a worker with this setting has them."""
    return content.load(Path("templates"), random.random if specialise else None)


def _decision_us(services: Services, due: DueChunk) -> float:
    """Microseconds of one decision over all four channels; the best of some rounds, because it is short."""
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk
        candidates = gather(connection, chunk)
    pipeline.prepare_all(services, chunk, candidates[:200], {})  # compiles templates and paths, as in a running worker
    jobs = [(replace(pipeline.job_of(services, chunk, each), channels=tuple(Channel)), each.facts) for each in candidates]
    best, now = float("inf"), services.clock()
    for _ in range(5):
        started = time.process_time()
        for job, facts in jobs:
            decide(job, facts, services.policy, now)
        best = min(best, time.process_time() - started)
    return best / len(jobs) * 1e6


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.process_time()
    yield
    seconds[stage] += time.process_time() - started


def _chunk(services: Services, due: DueChunk, seconds: dict[str, float]) -> None:
    """The same steps as `pipeline.run_chunk` and its task."""
    with lend(services.pool) as connection, _timed(seconds, "gather"):
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk
        limits = pipeline.send_limits(services, chunk)
        candidates = gather(connection, chunk, None, limits)
    for batch in pipeline.batches(candidates, services.limits.batch_messages_max):
        _batch(services, chunk, batch, seconds)
    with _timed(seconds, "settle"):
        with lend(services.pool) as connection:
            close(connection, chunk, services.clock())
        scheduler.next_chunk(services, chunk)


def _batch(services: Services, chunk: Chunk, batch: Sequence[Candidate], seconds: dict[str, float]) -> None:
    """The same steps as `pipeline.process_batch`, with a second rendering, to measure it apart from the decision."""
    with _timed(seconds, "decide"):
        prepared = pipeline.prepare_all(services, chunk, batch, {})
    render_requests = [pipeline.request_for(services, chunk, candidate, _leg(services, chunk, candidate)) for candidate in batch]
    template, rendering_seconds = services.catalog[chunk.spec.template], dict.fromkeys(("render", "rendering"), 0.0)
    with _timed(rendering_seconds, "rendering"):
        with _timed(rendering_seconds, "render"):
            contents = [template.render(request) for request in render_requests]
        texts = [_texts(content) for content in contents]
    ordinary = catalog(specialise=False)[chunk.spec.template]
    assert texts[:SAMPLE] == [_texts(ordinary.render(request)) for request in render_requests[:SAMPLE]], (
        "a specialised mail differs"
    )
    seconds["render"] += rendering_seconds["render"]
    seconds["rendering"] += rendering_seconds["rendering"]
    seconds["decide"] -= rendering_seconds["render"]
    with lend(services.pool) as connection, _timed(seconds, "claim"):
        now, limits = services.clock(), pipeline.send_limits(services, chunk)
        claim = claims.claim(connection, chunk, [item.entry for item in prepared], now, limits)
    assert len(claim.claimed) == len(batch)
    with _timed(seconds, "send"):
        deadline = services.monotonic_clock() + services.limits.send_deadline_seconds
        window = send_window_for_claim(services, claim.number, deadline)
        started = services.monotonic_clock()
        done = hand_off(services.providers, prepared, window)
    with _timed(seconds, "settle"):
        concluded = conclude_all(services, chunk.spec, prepared, done.results)
        settle(services, chunk.spec.entity, claim.number, concluded)
    with _timed(seconds, "record"):
        record_claim(chunk.spec.kind, [item.entry for item in prepared], claim)
        record_hand_off(chunk.spec.kind, window, started, services)
        record_outcomes(chunk.spec.kind, concluded)
    seconds["record"] += _observing_seconds(len(batch))


def _observing_seconds(messages: int) -> float:
    """What `Observed` adds to the send stage: a batch at a provider that does nothing, with it and without, in turn."""
    batch, plain = [Outbound(str(number), Channel.EMAIL, "", Sms("")) for number in range(messages)], NoProvider()
    best = {False: float("inf"), True: float("inf")}
    for is_observed in (False, True) * 3:
        provider: Provider = Observed(plain) if is_observed else plain
        started = time.process_time()
        for _ in provider.send(batch, window_of(60.0)):
            pass
        best[is_observed] = min(best[is_observed], time.process_time() - started)
    return max(0.0, best[True] - best[False])


class NoProvider:
    """Takes each message and does nothing. Each has an answer of its own, which is the most expensive case to observe."""

    name, channel = "outbox", Channel.EMAIL

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        assert window.is_open()
        for outbound in batch:
            yield outbound, Receipt("x")

    def check(self) -> None:
        """Nothing to check."""

    def close(self) -> None:
        """Nothing to close."""


def _texts(content: Content) -> tuple[str, ...]:
    """The complete texts of a mail; nothing for other messages."""
    mail = content.assemble() if isinstance(content, MergedEmail) else content
    return (mail.subject, mail.html, mail.text) if isinstance(mail, Email) else ()


def _leg(services: Services, chunk: Chunk, candidate: Candidate) -> Permission:
    decision = decide(pipeline.job_of(services, chunk, candidate), candidate.facts, services.policy, services.clock())
    assert isinstance(decision, Send), decision
    return decision.permissions[0]


# -- the parts alone ---------------------------------------------------------------------------------------------------


def _posting(bench: BenchEnvironment, requests: Sequence[HttpRequest], messages: int) -> float:
    """Seconds per message to post the same bytes and do nothing else, for client and sink together."""
    http = HttpTransport(concurrency=32)
    for _ in range(2):  # the first round opens the connections
        own_seconds, other_seconds = time.process_time(), cpu_seconds(bench.meters.sink)
        for _ in http.exchange((None, request) for request in requests):
            pass
        own_seconds, other_seconds = time.process_time() - own_seconds, cpu_seconds(bench.meters.sink) - other_seconds
    http.close()
    return (own_seconds + other_seconds) / messages


def _rows(bench: BenchEnvironment, name: str) -> float:
    """Seconds per message to copy the same rows into PostgreSQL, a hundred per transaction, for client and server together."""
    with database() as connection:
        rows = connection.execute("SELECT m.* FROM messages m JOIN campaigns c ON c.no = m.campaign_no WHERE c.id = %s", (name,))
        is_json = [column.type_display == "jsonb" for column in rows.description or ()]
        columns = [tuple(Jsonb(cell) if json else cell for cell, json in zip(row, is_json, strict=True)) for row in rows]
        connection.execute("DROP TABLE IF EXISTS bench_twin")
        connection.execute("CREATE TABLE bench_twin (LIKE messages INCLUDING ALL)")
        own_seconds, other_seconds = time.process_time(), cpu_seconds(bench.meters.postgres)
        for start in range(0, len(columns), 100):
            with connection.cursor() as cursor, cursor.copy("COPY bench_twin FROM STDIN") as copy:
                for row in columns[start : start + 100]:
                    copy.write_row(row)
        own_seconds, other_seconds = time.process_time() - own_seconds, cpu_seconds(bench.meters.postgres) - other_seconds
        connection.execute("DROP TABLE bench_twin")
    return (own_seconds + other_seconds) / len(columns)
