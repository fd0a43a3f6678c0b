"""Decisions are stored in two forms, say the same in both, and never name a skeleton that the ledger lacks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dispatcher.campaigns import submission
from dispatcher.delivery import explanation
from dispatcher.domain.decision_skeleton import CompactRecord, Skeleton, SkeletonKey
from dispatcher.domain.preferences import Change
from dispatcher.embedded import Engines
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger import decision_skeletons
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import events, recipients
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.ledger.delivery import claims, messages
from dispatcher.ledger.delivery.chunks import Chunk
from dispatcher.ledger.delivery.claims import ClaimEntry
from dispatcher.ledger.maintenance.audit import verify
from dispatcher.ledger.migrations import HEAD, migrate
from dispatcher.runtime.services import Services
from tests.conftest import new_database
from tests.support.command import run_command
from tests.support.services import Clock, add_people, make_services, person, states, up_to_the_claim, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
KEY = SkeletonKey("", "send", ("", "", "", None), (), True, frozenset(), (), (), None, None)
BEFORE = "0044"  # the schema before there were skeletons


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        add_people(made, *(person(f"c-{number}", number) for number in range(1, 5)))
        yield made


def form(*people: str, **changes: Any) -> dict[str, Any]:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in people]
    return {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(services: Services, *people: str, **changes: Any) -> None:
    submission.submit(services, parse_campaign(form(*people, **changes), submission.validation_context(services)))


def entries(services: Services, *people: str, **changes: Any) -> tuple[Chunk, list[ClaimEntry]]:
    """A campaign for these people up to the claim."""
    submit(services, *people, **changes)
    return up_to_the_claim(services)


def complete(services: Services) -> Services:
    """The same, as with DISPATCHER_COMPACT_RECORDS=off."""
    return replace(services, compact_records=False)


def stored(services: Services) -> list[Any]:
    """The decisions as they are stored, by recipient."""
    with lend(services.pool) as connection:
        return [row[0] for row in connection.execute("SELECT decision FROM messages ORDER BY recipient_id, leg")]


def shown(services: Services, *people: str, campaign_id: str = "spring") -> list[messages.Message]:
    with lend(services.pool) as connection:
        return [each for person_id in people for each in messages.of_campaign(connection, campaign_id, person_id)]


def skeletons(services: Services) -> int:
    with lend(services.pool) as connection:
        row = connection.execute("SELECT count(*) FROM decision_skeletons").fetchone()
    return row[0] if row else 0


# -- both forms --------------------------------------------------------------------------------------------------------


def test_both_forms_of_a_decision_say_the_same(services: Services) -> None:
    everywhere: dict[str, Any] = {"route": "all", "channels": ["email", "push", "sms"]}
    no_push = person("c-2", 2, push=[])
    add_people(services, no_push)
    submit(services, "c-1", "c-2", **everywhere)
    work(services)
    assert isinstance(services.clock, Clock)
    services.clock.pass_(28 * 86_400)  # no cap counts the first campaign any more
    submit(services, "c-1", "c-2", id="summer", **everywhere)
    work(complete(services))
    compact, whole = shown(services, "c-1", "c-2"), shown(services, "c-1", "c-2", campaign_id="summer")
    assert Counter(type(each) for each in stored(services)) == {list: 6, dict: 6}
    assert [each.decision for each in compact] == [each.decision for each in whole]
    assert {each.decision["is"] for each in compact} == {"send", "refuse"}
    assert [explanation.recorded_decision(services, each) for each in compact] == [
        explanation.recorded_decision(services, each) for each in whole
    ]


def test_events_name_the_template_of_either_form(services: Services) -> None:
    submit(services, "c-1")
    work(services)
    submit(services, "c-2", id="summer")
    work(complete(services))
    with lend(services.pool) as connection:
        rows = connection.execute("SELECT changes FROM outbox WHERE kind = 'message' ORDER BY no").fetchall()
    assert [change[-1] for (changes,) in rows for change in changes] == ["loan_offer", "loan_offer"]


def test_an_access_request_shows_the_whole_decision(services: Services) -> None:
    submit(services, "c-1")
    work(services)
    with lend(services.pool) as connection:
        exported = recipients.export(connection, "c-1")
    (message,) = exported["messages"]
    assert message["decision"] == shown(services, "c-1")[0].decision
    assert message["decision"]["choices"]["offers.own"][1].startswith("consent:")


@pytest.mark.parametrize("form_of", [lambda services: services, complete])
def test_an_opt_out_adds_its_evidence_to_either_form(services: Services, form_of: Callable[[Services], Services]) -> None:
    assert isinstance(services.clock, Clock)
    services.clock.pass_(12 * 3600)  # midnight in Brussels
    submit(services, "c-1", channels=["sms"])
    work(form_of(services))
    (held,) = shown(services, "c-1")
    statement = ConsentStatement("c-1", (Change("offer:own", "none"),), services.clock())
    with lend(services.pool) as connection:
        recorded = events.record(connection, services.secret, statement, Provenance("mobile", "app", "v1"), services.clock())
    (refused,) = shown(services, "c-1")
    stopped = {"code": "choice_none", "evidence": recorded.events[0].evidence, "at": services.clock().isoformat()}
    assert (held.state, refused.state) == ("held", "refused")
    assert refused.decision == {**held.decision, "stopped": stopped}


def test_a_decision_takes_few_bytes(services: Services) -> None:
    submit(services, "c-1")
    work(services)
    with lend(services.pool) as connection:
        row = connection.execute("SELECT pg_column_size(decision) FROM messages").fetchone()
    assert row is not None
    assert row[0] < 65


# -- the skeletons -----------------------------------------------------------------------------------------------------


def test_people_who_are_alike_share_one_skeleton(services: Services) -> None:
    submit(services, "c-1", "c-2", "c-3", "c-4")
    work(services)
    assert states(services)["accepted"] == 4
    assert skeletons(services) == 1


def test_a_claim_that_names_a_lost_skeleton_writes_nothing(services: Services, database: str) -> None:
    submit(services, "c-1")
    work(services)
    chunk, asked = entries(services, "c-2", id="summer")
    with psycopg.connect(database) as owner:  # a restore, while the worker keeps its connection: as behind a pooler
        owner.execute("DELETE FROM decision_skeletons")
    with lend(services.pool) as connection:
        claim = claims.claim(connection, chunk, asked, services.clock())
        assert claim.changed == {0}
        assert not claim.claimed
        assert connection.execute("SELECT FROM messages WHERE recipient_id = 'c-2'").rowcount == 0
        assert len(claims.claim(connection, chunk, asked, services.clock()).claimed) == 1
    assert shown(services, "c-2", campaign_id="summer")[0].decision["is"] == "send"


def test_a_campaign_goes_on_after_a_restore_lost_skeletons(services: Services, database: str) -> None:
    submit(services, "c-1")
    work(services)
    with psycopg.connect(database) as owner:
        owner.execute("DELETE FROM decision_skeletons")
    submit(services, "c-2", id="summer")
    work(services)
    (message,) = shown(services, "c-2", campaign_id="summer")
    assert (message.state, message.decision["is"]) == ("accepted", "send")


def test_a_rolled_back_skeleton_is_not_taken_for_stored(services: Services) -> None:
    chunk, asked = entries(services, "c-1")
    with lend(services.pool) as connection:
        with connection.transaction(force_rollback=True):
            assert claims.claim(connection, chunk, asked, services.clock()).claimed
        assert claims.claim(connection, chunk, asked, services.clock()).claimed
    assert shown(services, "c-1")[0].decision["is"] == "send"


def test_two_workers_store_the_same_skeletons_without_a_deadlock(services: Services) -> None:
    first, second = (Skeleton(KEY, name, f'{{"no": "{name}"}}') for name in ("name-1", "name-2"))
    insert = "INSERT INTO decision_skeletons (name, document) VALUES (%s, %s)"
    answers: list[bool] = []

    def store() -> None:
        with lend(services.pool) as connection:
            answers.append(decision_skeletons.store(connection, [second, first]))

    with lend(services.pool) as other, other.transaction():  # another worker, in the middle of the same
        other.execute(insert, (first.name, first.document))
        waiting = threading.Thread(target=store)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        other.execute(insert, (second.name, second.document))
    waiting.join()
    assert answers == [True]
    assert skeletons(services) == 2


def test_another_skeleton_of_the_same_name_is_never_used(services: Services) -> None:
    chunk, asked = entries(services, "c-1")
    decision = asked[0].decision
    assert isinstance(decision, CompactRecord)
    with lend(services.pool) as connection:
        connection.execute("INSERT INTO decision_skeletons (name, document) VALUES (%s, '{}')", (decision.skeleton.name,))
        with pytest.raises(ValueError, match="the same name"):
            claims.claim(connection, chunk, asked, services.clock())
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)


@pytest.mark.parametrize("statement", ["UPDATE decision_skeletons SET document = '{}'", "DELETE FROM decision_skeletons"])
def test_no_worker_may_change_a_skeleton(services: Services, statement: str) -> None:
    with lend(services.pool) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_changed_and_a_missing_skeleton_are_found(services: Services, database: str) -> None:
    submit(services, "c-1", "c-2")
    work(services)
    (name,) = {stored_decision[0].partition(" ")[0] for stored_decision in stored(services)}
    with psycopg.connect(database, autocommit=True) as owner:
        assert verify(owner, services.secret, services.clock(), 60.0) == []
        owner.execute('UPDATE decision_skeletons SET document = document || \'{"is": "hold"}\'')
        assert verify(owner, services.secret, services.clock(), 60.0) == [f"decision skeleton {name} was changed"]
        owner.execute("DELETE FROM decision_skeletons")
        missing = f"decision skeleton {name} is missing: the decisions of 2 messages need it"
        assert verify(owner, services.secret, services.clock(), 60.0) == [missing]


# -- programs that cannot read compact records -------------------------------------------------------------------------


@pytest.fixture
def old_ledger(running_engines: Engines, numbers: Iterator[int]) -> Iterator[str]:
    """A ledger that programs of before may still use."""
    with new_database(running_engines, next(numbers)) as url:
        migrate(url, BEFORE)
        migrate(url)
        yield url


def test_a_ledger_that_older_programs_may_use_gets_whole_records(old_ledger: str) -> None:
    with make_services(old_ledger, Clock()) as made:
        add_people(made, person("c-1"))
        submit(made, "c-1")
        work(made)
        assert [type(each) for each in stored(made)] == [dict]
        assert skeletons(made) == 0
        assert shown(made, "c-1")[0].decision["is"] == "send"


def test_once_older_programs_are_refused_records_are_compact(old_ledger: str, tmp_path: Path) -> None:
    with psycopg.connect(old_ledger, application_name="dispatcher 1a2b3c4d v0.0.9/0044"):
        refused = run_command(old_ledger, tmp_path, "ledger", "migrate", "--end-upgrade")
        assert refused.returncode != 0
        assert "older versions are still connected: 0.0.9/0044" in refused.stdout + refused.stderr
    assert run_command(old_ledger, tmp_path, "ledger", "migrate", "--end-upgrade").returncode == 0
    with psycopg.connect(old_ledger) as owner:
        assert owner.execute("SELECT oldest_program FROM schema_compatibility").fetchall() == [(HEAD,)]
    with make_services(old_ledger, Clock()) as made:
        add_people(made, person("c-1"))
        submit(made, "c-1")
        work(made)
        assert [type(each) for each in stored(made)] == [list]


def test_a_new_ledger_takes_compact_records_at_once(database: str) -> None:
    with psycopg.connect(database) as owner:
        assert owner.execute("SELECT oldest_program FROM schema_compatibility").fetchall() == [("0046",)]
