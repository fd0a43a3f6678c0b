"""The worker's processor time by stage, through the pipeline's own functions, and what its parts would cost alone: the limit."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks.ground import Ground, database
from benchmarks.meters import cpu_seconds
from benchmarks.rows import finished, submit
from channels.base import Channel, Provider
from channels.fcm import Fcm
from channels.http import Fault, Http, Request, Response
from channels.sendgrid import SendGrid
from channels.twilio import TwilioSms, TwilioWhatsApp
from dispatcher import campaigns, pipeline
from dispatcher.house import COLLECT_AFTER, House
from dispatcher.ledger import chunks
from dispatcher.ledger.chunks import Candidate, Chunk
from dispatcher.ledger.due import close
from dispatcher.ledger.pool import ROLE, lend
from dispatcher.model import Leg, Send
from dispatcher.policy import decide

T = TypeVar("T")
STAGES = ("gather", "decide", "render", "claim", "send", "settle")
ALONE = ("rendering", "posting", "rows")


@dataclass(frozen=True, slots=True)
class Stages:
    """Per message: the worker's own processor microseconds by stage, SQL statements, and each part alone with everything it needs
    counted (the sink's time for posting, PostgreSQL's for rows)."""

    cpu_us: Mapping[str, float]
    statements: float
    alone_us: Mapping[str, float]

    @property
    def limit_us(self) -> float:
        """What the dearest part alone costs: nothing can be faster."""
        return max(self.alone_us.values())


class Counting(psycopg.Cursor[tuple[Any, ...]]):
    """A cursor that counts its statements."""

    statements = 0

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Count, then execute."""
        Counting.statements += 1
        return super().execute(*arguments, **options)


class Recording(Http):
    """The transport, which also keeps what it sends."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requests: list[Request] = []

    def exchange(self, calls: Iterable[tuple[T, Request]]) -> Generator[tuple[T, Response | Fault]]:
        """Keep, then send."""
        return super().exchange(self._kept(calls))

    def _kept(self, calls: Iterable[tuple[T, Request]]) -> Iterator[tuple[T, Request]]:
        for tag, request in calls:
            self.requests.append(request)
            yield tag, request


def _adapters(ground: Ground, http: Http, mails_per_request: int) -> dict[Channel, Provider]:
    """As `bootstrap` makes them, over a transport of ours."""
    account, token, number = (os.environ[f"TWILIO_{name}"] for name in ("ACCOUNT_SID", "AUTH_TOKEN", "SMS_SENDER"))
    callback = f"{ground.house.public_url}/webhooks/twilio/status"
    return {
        Channel.EMAIL: SendGrid("SG.sink", http, ground.sink, mails_per_request=mails_per_request),
        Channel.SMS: TwilioSms(account, token, number, http, ground.sink, callback),
        Channel.WHATSAPP: TwilioWhatsApp(account, token, number, http, ground.sink, callback),
        Channel.PUSH: Fcm(os.environ["GOOGLE_APPLICATION_CREDENTIALS"], http, ground.sink),
    }


def measure(ground: Ground, channel: Channel, people: int, mails_per_request: int) -> Stages:
    """A campaign in this process, stage by stage."""
    options = {"autocommit": True, "options": f"-c timezone=UTC -c role={ROLE}", "cursor_factory": Counting}
    with ConnectionPool(
        os.environ["DISPATCHER_DATABASE_URL"], min_size=1, max_size=2, kwargs=options, check=ConnectionPool.check_connection
    ) as pool:
        http = Recording(concurrency=200)
        for _ in http.exchange((None, Request(f"{ground.sink}/count", ())) for _ in range(200)):
            pass  # connections stand, as they do in a worker
        http.requests.clear()
        house = replace(ground.house, pool=pool, providers=_adapters(ground, http, mails_per_request))
        ground.forget_caps()
        name = submit(house, ground, channel, people)
        dues = campaigns.due_chunks(house)
        spent = dict.fromkeys(STAGES, 0.0)
        Counting.statements = 0
        gc.collect()
        gc.freeze()  # as workers do
        gc.set_threshold(*COLLECT_AFTER)
        for due in dues:
            _chunk(house, due.period, due.number, spent)
        statements = Counting.statements
        campaigns.sweep(house)
        assert finished(house, name), "every message was to be settled"
    alone = {"rendering": spent["render"] / people, "posting": _posting(ground, http.requests, people), "rows": _rows(ground, name)}
    return Stages(
        {stage: seconds / people * 1e6 for stage, seconds in spent.items()},
        statements / people,
        {part: seconds * 1e6 for part, seconds in alone.items()},
    )


@contextmanager
def _clocked(spent: dict[str, float], stage: str) -> Iterator[None]:
    started = time.process_time()
    yield
    spent[stage] += time.process_time() - started


def _chunk(house: House, period: int, number: int, spent: dict[str, float]) -> None:
    """As `pipeline.run_chunk` does it."""
    with lend(house.pool) as connection, _clocked(spent, "gather"):
        chunk = chunks.find(connection, period, number)
        assert chunk
        since = pipeline.caps_since(house, chunk)
        candidates = chunks.gather(connection, chunk, None, since)
    for batch in pipeline.batches(candidates, house.limits.batch_messages_max):
        _batch(house, chunk, batch, spent)
    with lend(house.pool) as connection, _clocked(spent, "settle"):
        close(connection, chunk, house.clock())


def _batch(house: House, chunk: Chunk, batch: Sequence[Candidate], spent: dict[str, float]) -> None:
    """As `pipeline.work` does it, with the rendering done once more to tell it from the decision."""
    with _clocked(spent, "decide"):
        prepared = pipeline.prepare_all(house, chunk, batch, {})
    legs = [_leg(house, chunk, candidate) for candidate in batch]
    rendering = dict.fromkeys(STAGES, 0.0)
    template = house.catalog[chunk.spec.template]
    with _clocked(rendering, "render"):
        for candidate, leg in zip(batch, legs, strict=True):
            template.render(pipeline.letter_of(house, chunk, candidate, leg))
    spent["render"] += rendering["render"]
    spent["decide"] -= rendering["render"]
    with lend(house.pool) as connection, _clocked(spent, "claim"):
        now, since = house.clock(), pipeline.caps_since(house, chunk)
        claim = chunks.claim(connection, chunk, [item.entry for item in prepared], now, since)
    assert len(claim.won) == len(batch)
    with _clocked(spent, "send"):
        results = pipeline.send(house, prepared)
    with _clocked(spent, "settle"):
        pipeline.settle(house, chunk, pipeline.conclude_all(house, chunk, prepared, results))


def _leg(house: House, chunk: Chunk, candidate: Candidate) -> Leg:
    decision = decide(pipeline.job_of(house, chunk, candidate), candidate.facts, house.policy, house.clock())
    assert isinstance(decision, Send), decision
    return decision.legs[0]


# -- the parts alone ---------------------------------------------------------------------------------------------------


def _posting(ground: Ground, requests: Sequence[Request], messages: int) -> float:
    """Seconds per message to post the same bytes and do nothing else, both ends counted."""
    http = Http(concurrency=32)
    for _ in range(2):  # the first time pays for the connections
        own, theirs = time.process_time(), cpu_seconds(ground.meters.sink)
        for _ in http.exchange((None, request) for request in requests):
            pass
        own, theirs = time.process_time() - own, cpu_seconds(ground.meters.sink) - theirs
    http.close()
    return (own + theirs) / messages


def _rows(ground: Ground, name: str) -> float:
    """Seconds per message to copy the same finished rows into PostgreSQL, a hundred a transaction, both ends counted."""
    with database() as connection:
        rows = connection.execute(
            "SELECT m.* FROM messages m JOIN campaigns c ON c.no = m.campaign_no WHERE c.id = %s", (name,)
        ).fetchall()
        columns = [(*row[:-1], psycopg.types.json.Jsonb(row[-1])) for row in rows]
        connection.execute("DROP TABLE IF EXISTS bench_twin")
        connection.execute("CREATE TABLE bench_twin (LIKE messages INCLUDING ALL)")
        own, theirs = time.process_time(), cpu_seconds(ground.meters.postgres)
        for start in range(0, len(columns), 100):
            with connection.cursor() as cursor, cursor.copy("COPY bench_twin FROM STDIN") as copy:
                for row in columns[start : start + 100]:
                    copy.write_row(row)
        own, theirs = time.process_time() - own, cpu_seconds(ground.meters.postgres) - theirs
        connection.execute("DROP TABLE bench_twin")
    return (own + theirs) / len(columns)
