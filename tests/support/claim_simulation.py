"""A deterministic simulation of the claim protocol: the same SQL on a real PostgreSQL, the order of the steps drawn from a seed.

Each actor (a worker, a customer who opts out, the periodic sweep, …) runs in a thread of its own and stops at checkpoints: before
it takes a connection, before a message is handed off, after it was. A scheduler lets one actor at a time go on to its next
checkpoint. An actor that is not chosen is frozen, one that is killed goes on no more, and between two steps the clock may jump.
The seed that found a fault finds it again.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg

from channels.base import Channel, ChannelError, Outbound, Receipt, Rejected, Result, StaleClaim, Throttled, Uncertain
from channels.send_window import SendWindow
from dispatcher.campaigns import scheduler
from dispatcher.campaigns.actions import CampaignAction, apply
from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.delivery.reconciliation import resolve_by_hand
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.maintenance.sweep import sweep
from dispatcher.runtime.ledger_watch import LedgerWatch
from dispatcher.runtime.services import DeliveryLimits, Services
from tests.support.services import NOON, Clock, add_people, person

BOUND_SECONDS, LEASE_SECONDS = 5.0, 30.0
STEPS_MAX = 600
LOST_COMMITS = 0.01  # the share of other commits whose answer is lost
OPEN = frozenset({"claimed", "pending", "waiting"})
OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}

# `claimed_at` is the database's clock; in a simulation that clock is the scheduler's.
SIMULATED_CLOCK = """
    CREATE TABLE simulated_clock (at timestamptz NOT NULL);
    INSERT INTO simulated_clock VALUES ('epoch');
    GRANT SELECT, UPDATE ON simulated_clock TO dispatcher_worker;
    CREATE FUNCTION simulate_claimed_at() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.state = 'claimed' THEN NEW.claimed_at := (SELECT at FROM simulated_clock); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER simulated_claimed_at BEFORE INSERT OR UPDATE ON messages
        FOR EACH ROW EXECUTE FUNCTION simulate_claimed_at();
"""
WITHOUT_FENCE = "ALTER SEQUENCE claim_number INCREMENT 10 MINVALUE 1 MAXVALUE 9 CYCLE"  # every claim has the number 1


class Killed(BaseException):
    """Ends an actor's thread at a checkpoint, as kill -9 ends a process."""


class Actor(threading.Thread):
    """One party, stopped at a checkpoint whenever it is not its turn."""

    def __init__(self, stage: Stage, name: str, body: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._stage, self._body = stage, body
        self.turn = threading.Semaphore(0)
        self.done = self.killed = self.has_sent = False
        self.error: BaseException | None = None

    def run(self) -> None:
        """The body, from its first turn on."""
        self.turn.acquire()
        try:
            if not self.killed:
                self._body()
        except (Killed, LedgerUnavailable):
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.done = True
            self._stage.back.release()


class Stage:
    """Lets one actor at a time go on to its next checkpoint."""

    def __init__(self) -> None:
        self.back = threading.Semaphore(0)
        self.actors: list[Actor] = []

    def add(self, name: str, body: Callable[[], object]) -> Actor:
        """A new actor, stopped before its first line."""
        actor = Actor(self, name, body)
        self.actors.append(actor)
        actor.start()
        return actor

    def checkpoint(self) -> None:
        """Where an actor stops; nothing outside of actors."""
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            self.back.release()
            actor.turn.acquire()
            if actor.killed:
                raise Killed

    def step(self, actor: Actor) -> None:
        """Let an actor go on to its next checkpoint, or to its end."""
        actor.turn.release()
        if not self.back.acquire(timeout=120):
            raise AssertionError(f"{actor.name} does not come to its next checkpoint: it waits for a lock")
        if actor.error is not None:
            raise actor.error

    def kill(self, actor: Actor) -> None:
        """End an actor at its checkpoint."""
        actor.killed = True
        self.step(actor)

    def ready(self) -> list[Actor]:
        """Those that can go on."""
        return [actor for actor in self.actors if not actor.done]


class SteppedPool:
    """A pool of connections with a checkpoint before each loan. Now and then the answer to a commit is lost."""

    closed = False

    def __init__(self, pool: Any, stage: Stage, rng: random.Random, lost_settles: float) -> None:
        self._pool, self._stage, self._rng, self._lost_settles = pool, stage, rng, lost_settles

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Any]:
        """See `psycopg_pool.ConnectionPool`."""
        self._stage.checkpoint()
        with self._pool.connection(timeout) as connection:
            yield connection
        actor = threading.current_thread()
        if isinstance(actor, Actor):
            share, actor.has_sent = self._lost_settles if actor.has_sent else LOST_COMMITS, False
            if self._rng.random() < share:
                raise psycopg.OperationalError("the answer to a commit was lost")


@dataclass
class SimulatedProvider:
    """A provider whose arrivals are the truth. Each hand-off is a checkpoint before and after."""

    channel: Channel
    simulation: Simulation
    name: str = "simulated"

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        simulation = self.simulation
        for outbound in batch:
            simulation.stage.checkpoint()
            if not window.may_start_sending([outbound.id]):
                yield outbound, StaleClaim()
                continue
            result = simulation.result()
            if isinstance(result, Receipt) or (isinstance(result, Uncertain) and simulation.rng.random() < 0.5):
                simulation.arrive(outbound.id)
            simulation.stage.checkpoint()
            yield outbound, result
        if isinstance(actor := threading.current_thread(), Actor):
            actor.has_sent = True  # its next loan is the settle

    def check(self) -> ChannelError | None:
        """It works."""
        return None

    def close(self) -> None:
        """Nothing to let go of."""


class NoWatch(LedgerWatch):
    """Notices no restore: the marks of claims have the database's time, and the simulation has its own."""

    def check(self, *_: Any, **__: Any) -> bool:
        """See `LedgerWatch`."""
        return False

    def note_claim(self, *_: Any, **__: Any) -> bool:
        """See `LedgerWatch`."""
        return True


@dataclass(frozen=True, slots=True)
class SimulatedArrival:
    """A message that reached a person."""

    message_id: str
    recipient_id: str
    at: float


@dataclass
class Simulation:
    """One schedule: a campaign for a few people, workers on the same chunk, and whatever may happen at the same time."""

    services: Services
    seed: int
    people: int = 3
    lost_settles: float = 0.1  # the share whose answer is lost
    stage: Stage = field(default_factory=Stage)
    arrivals: list[SimulatedArrival] = field(default_factory=list)
    opted_out: dict[str, float] = field(default_factory=dict)
    cancelled: float | None = None
    now: float = 0.0
    owners: dict[int, str] = field(default_factory=dict)  # by row of the audience

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.campaign = f"s{self.seed}"
        self.ids = [f"{self.campaign}-{number}" for number in range(self.people)]
        self.clock = Clock(NOON)
        self._setup = replace(self.services, clock=self.clock)
        self.pool = SteppedPool(self.services.pool, self.stage, self.rng, self.lost_settles)
        limits = replace(DeliveryLimits(), batch_messages_max=2, lease_seconds=LEASE_SECONDS, send_deadline_seconds=self._bound())
        self.world = replace(
            self._setup,
            pool=self.pool,  # type: ignore[arg-type]  # it lends connections, and that is all that is asked of it
            providers={channel: SimulatedProvider(channel, self) for channel in Channel},
            monotonic_clock=lambda: self.now,
            limits=limits,
            ledger_watch=NoWatch(),
        )

    def _bound(self) -> float:
        return self.services.limits.send_deadline_seconds

    # -- what the provider sees --------------------------------------------------------------------------------------

    def result(self) -> Result:
        """The provider's answer to the next message."""
        draw = self.rng.random()
        if draw < 0.6:
            return Receipt(f"r-{self.rng.random()}")
        if draw < 0.8:
            return Throttled("slow_down", "", 1.0)
        return Uncertain("lost") if draw < 0.9 else Rejected("no")

    def arrive(self, message_id: str) -> None:
        """Note an arrival."""
        self.arrivals.append(SimulatedArrival(message_id, self.owners[MessageId.parse(message_id).row], self.now))

    # -- the schedule ------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Play one schedule; a sentence for each error at its end."""
        self._set_clock()
        self._submit()
        self._cast()
        for _ in range(STEPS_MAX):
            ready = self.stage.ready()
            if not ready:
                break
            draw = self.rng.random()
            if draw < 0.12:
                self._jump(self.rng.choice((0.3, 2.0, 4.0, 7.0, 40.0)))
            elif draw < 0.15 and (workers := [actor for actor in ready if actor.name.startswith("worker")]):
                self.stage.kill(self.rng.choice(workers))
            else:
                self.stage.step(self.rng.choice(ready))
        for actor in self.stage.ready():
            self.stage.kill(actor)
        self._finish()
        faults = self._check()
        self._clear()
        return faults

    def _submit(self) -> None:
        add_people(self._setup, *(person(id_, number) for number, id_ in enumerate(self.ids)))
        form = {
            "id": self.campaign,
            "template": "loan_offer",
            "channels": ["email", "sms"],
            "fallback_after_seconds": 100_000,
            "audience": [{"recipient": id_, "data": OFFER} for id_ in self.ids],
        }
        submit(self._setup, parse_campaign(form, validation_context(self._setup)))
        with lend(self.services.pool) as connection:
            rows = connection.execute(
                "SELECT j.row, j.recipient_id FROM jobs j JOIN campaigns c ON c.no = j.campaign_no WHERE c.id = %s",
                (self.campaign,),
            )
            self.owners = dict(rows.fetchall())

    def _cast(self) -> None:
        for number in range(3):
            self.stage.add(f"worker {number}", self._work)
        self.stage.add("sweep", self._sweep)
        for id_ in self.ids:
            if self.rng.random() < 0.4:
                self.stage.add(f"opt-out {id_}", partial(self._opt_out, id_))
        if self.rng.random() < 0.25:
            self.stage.add("cancel", self._cancel)
        if self.rng.random() < 0.5:
            self.stage.add("person", self._resolve_by_hand)

    def _work(self) -> None:
        for _ in range(4):
            self.stage.checkpoint()
            for due in scheduler.due_chunks(self.world):
                run_chunk(self.world, due.period, due.number)

    def _sweep(self) -> None:
        for _ in range(4):
            self.stage.checkpoint()
            sweep(self.world)

    def _opt_out(self, recipient_id: str) -> None:
        self.stage.checkpoint()
        now = self.clock()
        change = Change("objection:marketing", "on")
        with lend(self.pool) as connection:  # type: ignore[arg-type]
            events.record(
                connection,
                self.services.secret,
                ConsentStatement(recipient_id, (change,), now),
                Provenance("mobile", "simulation"),
                now,
            )
        self.opted_out[recipient_id] = self.now

    def _cancel(self) -> None:
        self.stage.checkpoint()
        apply(self.world, self.campaign, CampaignAction.CANCEL, "simulation")
        self.cancelled = self.now

    def _resolve_by_hand(self) -> None:
        for _ in range(3):
            self.stage.checkpoint()
            for message_id, state in self._messages():
                if state == "unresolved" and message_id not in {arrival.message_id for arrival in self.arrivals}:
                    resolve_by_hand(self.world, MessageId.parse(message_id), arrived=False, by="simulation")

    def _jump(self, seconds: float) -> None:
        self.now += seconds
        self.clock.now = NOON + timedelta(seconds=self.now)
        self._set_clock()

    def _set_clock(self) -> None:
        with lend(self.services.pool) as connection:
            connection.execute("UPDATE simulated_clock SET at = %s", (self.clock(),))

    def _finish(self) -> None:
        """What beat and workers do later, without further trouble, until nothing is left to do."""
        for _ in range(6):
            self._jump(LEASE_SECONDS * 4)
            if not self._is_open():
                return
            sweep(self.world)
            while dues := scheduler.due_chunks(self.world):
                for due in dues:
                    run_chunk(self.world, due.period, due.number)

    def _clear(self) -> None:
        """Leave nothing to do for the next schedule, whose clock starts anew."""
        with lend(self.services.pool) as connection:
            connection.execute("UPDATE messages SET until = NULL WHERE until IS NOT NULL")
            connection.execute("UPDATE chunks SET done_at = now() WHERE done_at IS NULL")
            connection.execute("UPDATE campaigns SET state = 'finished' WHERE state <> 'finished'")

    # -- the promise -------------------------------------------------------------------------------------------------

    def _messages(self) -> list[tuple[str, str]]:
        with lend(self.services.pool) as connection:
            rows = connection.execute(
                "SELECT m.period, m.chunk, m.row, m.leg, m.state FROM messages m JOIN campaigns c ON c.no = m.campaign_no"
                " WHERE c.id = %s ORDER BY 1, 2, 3, 4",
                (self.campaign,),
            ).fetchall()
        return [(str(MessageId(*key)), state) for *key, state in rows]

    def _is_open(self) -> bool:
        """Whether a job has no message yet, or a message no last state. What is left open after all rounds is a fault."""
        messages = self._messages()
        rows = {MessageId.parse(message_id).row for message_id, _ in messages}
        return len(rows) < self.people or any(state in OPEN for _, state in messages)

    def _never_started(self) -> list[str]:
        """Unresolved messages of a claim without a start. One that a settle made unresolved has left its claim."""
        with lend(self.services.pool) as connection:
            rows = connection.execute(
                "SELECT m.period, m.chunk, m.row, m.leg FROM messages m JOIN campaigns c ON c.no = m.campaign_no"
                " LEFT JOIN claim_starts s ON s.claim_no = m.claim_no AND NOT s.is_revoked"
                " WHERE c.id = %s AND m.state = 'unresolved' AND m.claim_no IS NOT NULL AND s.claim_no IS NULL",
                (self.campaign,),
            ).fetchall()
        return [str(MessageId(*key)) for key in rows]

    def _check(self) -> list[str]:
        return [*self._doubles(), *self._late(), *self._wrong_ends()]

    def _doubles(self) -> Iterator[str]:
        for message_id, count in Counter(arrival.message_id for arrival in self.arrivals).items():
            if count > 1:
                yield f"{message_id} arrived {count} times"
        for recipient_id, count in Counter(arrival.recipient_id for arrival in self.arrivals).items():
            if count > 1:
                yield f"{recipient_id} got {count} messages"

    def _late(self) -> Iterator[str]:
        for arrival in self.arrivals:
            for what, at in (("opt-out", self.opted_out.get(arrival.recipient_id)), ("cancel", self.cancelled)):
                if at is not None and arrival.at > at + BOUND_SECONDS:
                    yield f"{arrival.message_id} arrived {arrival.at - at:.1f} s after the {what}"

    def _wrong_ends(self) -> Iterator[str]:
        arrived, messages = {arrival.message_id for arrival in self.arrivals}, self._messages()
        for message_id, state in messages:
            if state in OPEN:
                yield f"{message_id} is {state} at the end"
            if message_id in arrived and state not in {"accepted", "unresolved", "failed"}:
                yield f"{message_id} arrived and is {state}"
        for message_id in self._never_started():
            yield f"{message_id} is unresolved and its claim was never started"
        if len({MessageId.parse(message_id).row for message_id, _ in messages}) != self.people:
            yield f"{self.people} jobs, messages {messages}"
