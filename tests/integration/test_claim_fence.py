"""What a claim guarantees: only its owner settles, once, with all that follows, and nothing that changed in between is sent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from channels.base import Channel, Event, EventKind, OptedOut, Outbound, Result, StaleClaim, Throttled
from channels.providers.outbox import Outbox
from channels.send_window import SendWindow
from dispatcher.campaigns import scheduler
from dispatcher.campaigns.submission import submit, take_trigger, validation_context
from dispatcher.campaigns.template_approval import set_approval
from dispatcher.delivery.pipeline import prepare, run_chunk
from dispatcher.domain.errors import LedgerUnavailable
from dispatcher.domain.message import State
from dispatcher.domain.preferences import Change
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, events, suppressions
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import claims, messages, settlements
from dispatcher.ledger.delivery.candidates import gather
from dispatcher.ledger.delivery.chunks import find_chunk
from dispatcher.ledger.delivery.claims import Claim
from dispatcher.ledger.delivery.settlements import Settlement
from dispatcher.ledger.keyed_hash import address_key
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock) -> Iterator[Services]:
    with make_services(database, clock) as made:
        yield made


def start(services: Services, people: int = 1, **changes: Any) -> list[str]:
    """A campaign by e-mail, or with `changes`, for c-0, c-1, …"""
    ids = [f"c-{number}" for number in range(people)]
    add_people(services, *(person(id_, number) for number, id_ in enumerate(ids)))
    rows = [{"recipient": id_, "data": OFFER} for id_ in ids]
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    submit(services, parse_campaign(form, validation_context(services)))
    return ids


def claim_all(services: Services) -> Claim:
    """What a worker does until the moment of the first hand-off."""
    (due,) = scheduler.due_chunks(services)
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        candidates = gather(connection, chunk)
    entries = [prepare(services, chunk, candidate, {}).entry for candidate in candidates]
    with lend(services.pool) as connection:
        return claims.claim(connection, chunk, entries, services.clock())


def outcome(claim: Claim, state: State, receipt: str | None = None) -> list[Settlement]:
    return [Settlement(ref, state, None, None, receipt, "outbox", attempt_spent=True) for ref in sorted(claim.claimed)]


def row(services: Services, columns: str) -> tuple[Any, ...]:
    with lend(services.pool) as connection:
        statement = f"SELECT {columns} FROM messages ORDER BY period, chunk, row, leg LIMIT 1"  # noqa: S608  columns of a test
        found = connection.execute(statement.encode()).fetchone()
    assert found is not None
    return found


# -- the fence ---------------------------------------------------------------------------------------------------------


def test_a_settle_of_another_claim_changes_nothing(services: Services) -> None:
    start(services)
    claim = claim_all(services)
    with lend(services.pool) as connection:
        settlements.settle(connection, claim.number + 1, outcome(claim, State.WAITING), services.clock())
        assert row(services, "state, attempts") == ("claimed", 0)
        settlements.settle(connection, claim.number, outcome(claim, State.ACCEPTED, "r-1"), services.clock())
    assert row(services, "state, attempts, receipt, claim_no") == ("accepted", 1, "r-1", None)


def test_a_settle_that_committed_is_never_repeated(services: Services, clock: Clock) -> None:
    """A is throttled and settled; another worker claims A again; the first settle is repeated. A must stay claimed."""
    start(services)
    first = claim_all(services)
    waiting = [replace(each, until=clock.now) for each in outcome(first, State.WAITING)]
    with lend(services.pool) as connection:
        settlements.settle(connection, first.number, waiting, clock.now)
        clock.pass_(1)
        second = claim_all(services)
        assert second.number > first.number
        settlements.settle(connection, first.number, waiting, clock.now)
    assert row(services, "state, claim_no, attempts") == ("claimed", second.number, 1)


def test_a_late_settle_still_tells_what_became_of_an_expired_claim(services: Services, clock: Clock) -> None:
    start(services)
    claim = claim_all(services)
    with lend(services.pool) as connection:
        assert claims.record_claim_start(connection, claim.number)
        connection.execute("UPDATE messages SET claimed_at = %s", (clock.now,))
    clock.pass_(services.limits.lease_seconds + 1)
    work(services)
    assert states(services) == {"unresolved": 1}
    with lend(services.pool) as connection:
        settlements.settle(connection, claim.number, outcome(claim, State.ACCEPTED, "r-1"), services.clock())
    assert states(services) == {"accepted": 1}


@dataclass
class FailsAfterTheCommit:
    """A pool that loses the answer to one commit."""

    pool: Any
    fails_at: int
    loans: int = 0
    closed: bool = False

    def connection(self, timeout: float | None = None) -> Any:
        self.loans += 1
        return self._lose(timeout) if self.loans == self.fails_at else self.pool.connection(timeout)

    def _lose(self, timeout: float | None) -> Any:
        outer = self

        class Losing:
            def __enter__(self) -> Any:
                self.inner = outer.pool.connection(timeout)
                return self.inner.__enter__()

            def __exit__(self, *error: Any) -> None:
                self.inner.__exit__(*error)
                raise psycopg.OperationalError("the answer was lost")

        return Losing()


@pytest.mark.parametrize("fails_at", range(1, 8))
def test_a_lost_answer_anywhere_neither_doubles_nor_loses(services: Services, clock: Clock, fails_at: int) -> None:
    start(services, 2)
    outbox(services).answers["c-1@example.org"] = Throttled("slow", "", 1.0)
    (due,) = scheduler.due_chunks(services)
    flaky = replace(services, pool=FailsAfterTheCommit(services.pool, fails_at))  # type: ignore[arg-type]
    try:
        run_chunk(flaky, due.period, due.number)
    except LedgerUnavailable:
        with lend(services.pool) as connection:
            connection.execute("UPDATE messages SET claimed_at = %s WHERE state = 'claimed'", (clock.now,))
    outbox(services).answers.clear()
    for _ in range(3):
        clock.pass_(services.limits.lease_seconds + 1)
        work(services)
    sent = [outbound.address for outbound in outbox(services).sent]
    assert len(sent) == len(set(sent))
    assert set(states(services)) <= {"accepted", "unresolved"}
    assert states(services).get("accepted", 0) + states(services).get("unresolved", 0) == 2


# -- all that follows, in the same transaction -------------------------------------------------------------------------


def test_an_opt_out_at_sending_holds_for_all_owners_of_a_number(services: Services) -> None:
    add_people(services, person("c-1", 7), person("c-2", 7))
    outbox(services, Channel.SMS).answers["+32470000007"] = OptedOut("21610")
    form = {"id": "spring", "template": "loan_offer", "channels": ["sms"], "audience": [{"recipient": "c-1", "data": OFFER}]}
    submit(services, parse_campaign(form, validation_context(services)))
    work(services)
    with lend(services.pool) as connection:
        for owner in ("c-1", "c-2"):
            last = events.history(connection, owner)[-1]
            assert (last.subject, last.new_value, last.source) == ("channel:sms_whatsapp", "off", "provider")


def test_an_opt_out_of_a_provider_event_holds_for_all_owners(services: Services) -> None:
    start(services)
    add_people(services, person("twin", 0, email="c-0@example.org"))
    work(services)
    with lend(services.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "c-0")[0].ref)
    provider_events.store_events(services, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.OPTED_OUT, services.clock(), ref)])
    provider_events.apply_batch(services, lambda _: None)
    with lend(services.pool) as connection:
        assert events.history(connection, "twin")[-1].subject == "channel:email"


def test_a_settle_without_its_side_effects_does_not_commit(services: Services, database: str) -> None:
    """The suppression can't be written: then the message is not failed either, and both come with the repetition."""
    start(services)
    outbox(services).answers[""] = OptedOut("dropped_unsubscribed")
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("REVOKE INSERT ON suppressions FROM dispatcher_worker")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            work(services)
        assert row(services, "state") == ("claimed",)
        admin.execute("GRANT INSERT ON suppressions TO dispatcher_worker")


def test_a_bounce_bans_the_address_that_was_written_to(services: Services) -> None:
    start(services)
    work(services)
    with lend(services.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "c-0")[0].ref)
    add_people(services, person("c-0", 0, email="new@example.org"))
    provider_events.store_events(services, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.BOUNCED, services.clock(), ref)])
    provider_events.apply_batch(services, lambda _: None)
    with lend(services.pool) as connection:
        assert suppressions.in_force(connection, Channel.EMAIL, address_key(services.secret, "email", "c-0@example.org"))
        assert not suppressions.in_force(connection, Channel.EMAIL, address_key(services.secret, "email", "new@example.org"))


def test_a_complaint_after_an_erasure_bans_the_address(services: Services) -> None:
    start(services)
    work(services)
    with lend(services.pool) as connection:
        ref = str(messages.of_campaign(connection, "spring", "c-0")[0].ref)
        erasure.erase(connection, services.secret, "c-0", "tests", services.clock())
    provider_events.store_events(services, [Event("sendgrid", "e-1", Channel.EMAIL, EventKind.COMPLAINED, services.clock(), ref)])
    provider_events.apply_batch(services, lambda _: None)
    with lend(services.pool) as connection:
        assert suppressions.in_force(connection, Channel.EMAIL, address_key(services.secret, "email", "c-0@example.org"))


# -- what changed between gather and claim -----------------------------------------------------------------------------


class Interrupted(Exception):
    """In place of a soft time limit, or of any error that does not come from the data."""


class InterruptedOutbox(Outbox):
    """Ends the batch with an exception after some messages, or does something else in the middle of it."""

    def __init__(self, after: int, act: Any) -> None:
        super().__init__(Channel.EMAIL)
        self.after, self.act = after, act

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        for outbound, result in super().send(batch, window):
            yield outbound, result
            if len(self.sent) == self.after:
                self.act()


def test_an_interrupted_batch_keeps_its_receipts_and_gives_back_the_rest(services: Services, clock: Clock) -> None:
    start(services, 10)

    def interrupt() -> None:
        raise Interrupted

    provider = InterruptedOutbox(6, interrupt)
    interrupted = replace(services, providers={**services.providers, Channel.EMAIL: provider})
    (due,) = scheduler.due_chunks(services)
    with pytest.raises(Interrupted):
        run_chunk(interrupted, due.period, due.number)
    assert states(services) == {"accepted": 6, "waiting": 4}
    clock.pass_(3600)
    work(services)
    assert states(services) == {"accepted": 10}


def test_a_claim_past_its_deadline_gives_back_the_rest_without_an_attempt(services: Services, clock: Clock) -> None:
    start(services, 10)
    seconds = [0.0]
    provider = InterruptedOutbox(6, lambda: seconds.__setitem__(0, 11.0))
    frozen = replace(services, providers={**services.providers, Channel.EMAIL: provider}, monotonic_clock=lambda: seconds[0])
    (due,) = scheduler.due_chunks(services)
    run_chunk(frozen, due.period, due.number)
    assert states(services) == {"accepted": 6, "waiting": 4}
    with lend(services.pool) as connection:
        found = connection.execute("SELECT DISTINCT attempts, reason FROM messages WHERE state = 'waiting'").fetchall()
    assert found == [(0, StaleClaim().code)]
    clock.pass_(60)
    work(services)
    assert states(services) == {"accepted": 10}


def test_a_withdrawn_approval_stops_a_running_chunk(services: Services) -> None:
    start(services, 10)
    provider = InterruptedOutbox(2, lambda: set_approval(services, "loan_offer", approved=False, actor="somebody"))
    small = replace(
        services,
        providers={**services.providers, Channel.EMAIL: provider},
        limits=replace(services.limits, batch_messages_max=2),
    )
    (due,) = scheduler.due_chunks(services)
    run_chunk(small, due.period, due.number)
    assert states(services) == {"accepted": 2, "pending": 8}
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, "spring")
    assert campaign is not None
    assert "withdrawn" in campaign.note


def test_an_approval_withdrawn_before_the_claim_stops_a_trigger(services: Services) -> None:
    add_people(services, person("c-0"))
    job = {"key": "k-1", "recipient": "c-0", "template": "loan_offer", "data": OFFER, "channels": ["email"]}
    place = take_trigger(services, parse_trigger(job, validation_context(services)))
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, place.period, place.chunk)
        assert chunk is not None
        entries = [prepare(services, chunk, candidate, {}).entry for candidate in gather(connection, chunk)]
        approval = chunk.approved[services.catalog["loan_offer"].digest]
        set_approval(services, "loan_offer", approved=False, actor="somebody")
        claim = claims.claim(connection, chunk, entries, services.clock(), approval=approval)
    assert (claim.claimed, claim.changed) == (frozenset(), frozenset({0}))
    run_chunk(services, place.period, place.chunk)
    assert row(services, "state, reason") == ("refused", "template_not_approved")


def test_a_ban_that_bumped_no_version_is_seen_by_the_claim(services: Services) -> None:
    """The ban commits after the look, and does not touch the person: it was set for the address before the person had it."""
    start(services)
    (due,) = scheduler.due_chunks(services)
    key = address_key(services.secret, "email", "c-0@example.org")
    with lend(services.pool) as connection:
        chunk = find_chunk(connection, due.period, due.number)
        assert chunk is not None
        entries = [prepare(services, chunk, candidate, {}).entry for candidate in gather(connection, chunk)]
        connection.execute(
            "INSERT INTO suppressions (channel, address_key, reason, source) VALUES ('email', %s, 'bounced', 'sendgrid')", (key,)
        )
        claim = claims.claim(connection, chunk, entries, services.clock())
    assert (claim.claimed, claim.changed) == (frozenset(), frozenset({0}))
    run_chunk(services, due.period, due.number)
    assert row(services, "state, reason") == ("refused", "suppressed")


# -- a worker that is cut off in the middle of a transaction -----------------------------------------------------------


def test_an_opt_out_does_not_wait_for_a_worker_that_was_cut_off(services: Services) -> None:
    """A worker holds the person's row in an open transaction and stops: the server ends its session."""
    start(services)
    waited: list[float] = []

    def work_and_be_cut_off() -> None:
        with lend(services.pool) as cut_off, cut_off.transaction():
            cut_off.execute("SELECT FROM recipients WHERE id = 'c-0' FOR NO KEY UPDATE")
            started, now = time.monotonic(), services.clock()
            with lend(services.pool) as connection:
                change = Change("objection:marketing", "on")
                events.record(
                    connection, services.secret, ConsentStatement("c-0", (change,), now), Provenance("mobile", "tests"), now
                )
            waited.append(time.monotonic() - started)

    with pytest.raises(LedgerUnavailable):
        work_and_be_cut_off()
    assert 3 < waited[0] < 8
