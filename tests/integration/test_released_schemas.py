"""A ledger that was filled at each released schema is migrated to the newest one, and the program goes on with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.campaigns import scheduler, submission
from dispatcher.campaigns.submission import KeyConflict, SubmitStatus
from dispatcher.content import Catalog
from dispatcher.delivery import explanation
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.message_id import MessageId
from dispatcher.embedded import Engines
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_request
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import recipients
from dispatcher.ledger.delivery import messages
from dispatcher.ledger.maintenance import audit, policies
from dispatcher.ledger.migrations import VERSIONS, migrate
from dispatcher.maintenance import retention, sweep
from dispatcher.runtime.services import Services
from dispatcher.runtime.template_versions import TemplateVersions, name_open_versions
from tests.conftest import new_database
from tests.support.released_ledgers import RELEASED, fill_ledger
from tests.support.services import NOON, Clock, make_services, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
EVENING = NOON.replace(hour=21)
RETAINED = {
    "campaigns' variables": 1,
    "triggers' variables": 2,
    "prospects without any contact": 1,
    "months of decisions": 1,
    "consent events of erased people": 1,
}


def test_a_released_revision_never_changes() -> None:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in VERSIONS.glob("[0-9]*.py")}
    changed = {name for name, digest in RELEASED.items() if digests.get(name) != digest}
    assert not changed, f"released revisions are never edited: write a new one instead of changing {sorted(changed)}"
    assert set(digests) == set(RELEASED), "add the new revision and its SHA-256 to RELEASED"


# The newest ledger has the rows of all before it, each written at its own revision and migrated since; the first one has no others.
@pytest.fixture(params=[name[:4] for name in (*tuple(RELEASED)[:1], *tuple(RELEASED)[-1:])])
def services(request: pytest.FixtureRequest, running_engines: Engines, numbers: Iterator[int]) -> Iterator[Services]:
    with new_database(running_engines, next(numbers)) as url:
        fill_ledger(url, request.param)
        migrate(url)
        with make_services(url, Clock(EVENING)) as made:
            with lend(made.pool) as connection:
                policies.adopt(connection, made.policy.digest, "operator", made.clock())
            yield made


def state(services: Services, campaign_id: str) -> CampaignState | None:
    with lend(services.pool) as connection:
        campaign = lifecycle.find(connection, campaign_id)
    return campaign.state if campaign else None


def verify(services: Services) -> list[str]:
    with lend(services.pool) as connection:
        return audit.verify(connection, services.secret, services.clock(), 60)


def submit(services: Services, campaign_id: str, *people: str, **changes: Any) -> SubmitStatus:
    rows = [{"recipient": recipient_id, "data": OFFER} for recipient_id in people]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}
    return submission.accept(services, parse_request(form)).status


def test_old_specs_get_the_keys_that_came_later(services: Services) -> None:
    with lend(services.pool) as connection:
        for table in ("campaigns", "triggers"):
            wanted = "ARRAY['route', 'priority', 'send_at', 'expires_at', 'variants', 'offer_type']"
            assert connection.execute(f"SELECT FROM {table} WHERE NOT spec ?& {wanted}").rowcount == 0
    assert all(due.priority is not None for due in scheduler.due_chunks(services))  # else it is taken for a trigger


def test_replies_that_nobody_had_read_hold_their_numbers(services: Services) -> None:
    with lend(services.pool) as connection:
        unread = connection.execute("SELECT id FROM inbound_texts WHERE may_be_opt_out").fetchall()
    assert unread == [("SM-1",)]


def test_the_program_goes_on_with_it(services: Services) -> None:
    assert isinstance(services.clock, Clock)
    sweep.sweep(services)  # the claim of a lost worker becomes unresolved
    assert verify(services) == []
    assert states(services, "unsure")["unresolved"] == 2
    assert provider_events.apply_batch(services, lambda _: None) == 3
    assert (
        submit(services, "later", "karel", "lies", "anna", send_at="2026-11-24T09:00:00Z", rate_per_second=100)
        is SubmitStatus.CONFLICT
    )

    again = {"send_at": "2026-11-24T09:00:00Z", "rate_per_second": 100.0, "expires_at": "2026-12-24T09:00:00+01:00"}
    assert submit(services, "later", "karel", "lies", "anna", **again) is SubmitStatus.KNOWN  # its digest is of version 1
    job = {"key": "k-1", "recipient": "iris", "template": "loan_offer", "data": OFFER, "channels": ["push", "email"]}
    assert not submission.accept_trigger(services, {**job, "fallback_after_seconds": 7200}).fresh
    with pytest.raises(KeyConflict):
        submission.accept_trigger(services, job)

    services.clock.now = datetime(2026, 11, 26, 11, 0, tzinfo=UTC)  # after quiet hours, retries and `send_at`
    submit(services, "new", "anna", "jan")
    for _ in range(10):
        work(services)
        services.clock.pass_(1)
    assert {name: state(services, name) for name in ("bare", "held", "later", "new", "finished", "standing", "big", "stopped")} == {
        "bare": CampaignState.FINISHED,
        "held": CampaignState.FINISHED,
        "later": CampaignState.FINISHED,
        "new": CampaignState.FINISHED,
        "finished": CampaignState.FINISHED,
        "standing": CampaignState.PAUSED,
        "big": CampaignState.AWAITING_RELEASE,
        "stopped": CampaignState.CANCELLED,
    }
    assert verify(services) == []


def test_open_campaigns_of_before_versions_get_the_version_that_may_be_sent(services: Services) -> None:
    current = services.catalog["loan_offer"].digest
    with lend(services.pool) as connection:
        assert name_open_versions(connection, services.policy, Catalog({})) == 0
        assert name_open_versions(connection, services.policy, services.catalog) == 7
        assert name_open_versions(connection, services.policy, services.catalog) == 0
        named = connection.execute("SELECT id, template_digests FROM campaigns").fetchall()
    ended = {"spring-2014", "stopped"}
    assert {name for name, digests in named if not digests} == ended
    assert all(digests == {"loan_offer": current} for name, digests in named if name not in ended)

    assert isinstance(services.clock, Clock)
    services.clock.now = datetime(2026, 11, 26, 11, 0, tzinfo=UTC)
    for _ in range(3):
        work(replace(services, catalog=Catalog({}), versions=TemplateVersions()))  # a host without templates of its own
        services.clock.pass_(1)
    assert {name: state(services, name) for name in ("bare", "later")} == dict.fromkeys(("bare", "later"), CampaignState.FINISHED)
    assert states(services, "later") == {"accepted": 3}


def test_old_messages_are_still_explained_and_exported(services: Services) -> None:
    with lend(services.pool) as connection:
        for campaign_id, person in (("spring-2014", "c-1"), ("finished", "cleo"), ("held", "anna"), ("stopped", "karel")):
            for message in messages.of_campaign(connection, campaign_id, person):
                told = explanation.explain_message(connection, services.policy, message, "nl")
                assert told.what
        trigger = messages.find(connection, MessageId(202611, 6, 0, 0))
        assert trigger is not None
        assert explanation.explain_message(connection, services.policy, trigger, "en").why
        assert recipients.export(connection, "anna")["messages"]


def test_retention_clears_what_is_old(services: Services) -> None:
    sweep.sweep(services)
    assert {done.data.what: done.cleared for done in retention.clear(services) if done.cleared} == RETAINED
    assert state(services, "spring-2014") is None
    assert verify(services) == []
