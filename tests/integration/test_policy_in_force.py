"""One policy is in force: a process with another one does not decide, and a command puts a new one in force."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from channels.base import Channel
from dispatcher.campaigns import tester_sends
from dispatcher.campaigns.submission import submit, validation_context
from dispatcher.campaigns.template_approval import ApprovalStatus, set_approval
from dispatcher.campaigns.tester_sends import TestRequest, send_due_seeds
from dispatcher.cli.campaigns import wait_for
from dispatcher.cli.output import CommandFailure
from dispatcher.domain.errors import PolicyNotInForce
from dispatcher.domain.message import Mode
from dispatcher.intake.campaign import parse_campaign
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts, policies
from dispatcher.ledger.maintenance.heartbeats import record_heartbeats
from dispatcher.maintenance.heartbeats import BEAT
from dispatcher.maintenance.policy_in_force import NOT_IN_FORCE, PolicyWatch, find
from dispatcher.maintenance.standstills import Standstill, examine
from dispatcher.policy import parse, shipped
from dispatcher.runtime.bootstrap import check_keys_and_policy
from dispatcher.runtime.services import Services
from dispatcher.runtime.settings import Settings
from dispatcher.web.app import create
from tests.support.command import SECRET, run_command
from tests.support.people import sign_in
from tests.support.services import Broker, add_people, make_services, outbox, person, policy_without_quiet_hours

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
SLOW = timedelta(hours=1)  # a test may take longer than a heartbeat counts
JANA = '[testers.jana]\nlanguage = "fr"\nemail = "jana@kbc-bank.example"\nsms = "+32470000091"\n'
TESTERS = parse(f"{shipped()}\n{JANA}").testers


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    """A process with the shipped policy, which it put in force."""
    with make_services(database) as made:
        with lend(made.pool) as connection:
            policies.adopt(connection, made.policy.digest, policies.FIRST_START, made.clock(), only_first=True)
        add_people(made, person("anna"))
        yield made


@pytest.fixture
def other(services: Services, tmp_path: Path) -> Services:
    """A process with another policy."""
    text = policy_without_quiet_hours(tmp_path).read_text(encoding="utf-8")
    changed = replace(services, policy=parse(text))
    with lend(services.pool) as connection:
        policies.store_policy(connection, changed.policy.digest, text)
    return changed


def send(services: Services) -> None:
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": [{"recipient": "anna", "data": OFFER}]}
    submit(services, parse_campaign(form, validation_context(services)))


def adopt(services: Services) -> str | None:
    with lend(services.pool) as connection:
        before = policies.adopt(connection, services.policy.digest, "operator", services.clock())
    return before.digest if before else None


def test_a_campaign_is_accepted_under_the_policy_in_force_only(services: Services, other: Services) -> None:
    with pytest.raises(PolicyNotInForce) as raised:
        send(other)
    message = str(raised.value)
    assert services.policy.digest[:12] in message
    assert "dispatcher policy adopt" in message
    assert adopt(other) == services.policy.digest
    send(other)
    with pytest.raises(PolicyNotInForce):
        send(services)


def test_a_policy_that_is_not_in_force_approves_and_tests_nothing(other: Services) -> None:
    own = replace(other, policy=replace(other.policy, testers=TESTERS))
    request = TestRequest(own.catalog["loan_offer"], Channel.SMS, "fr", Mode.STANDARD, "Bart")
    with pytest.raises(PolicyNotInForce):
        tester_sends.send_test(own, own.policy.testers["jana"], request)
    assert outbox(own, Channel.SMS).sent == []
    with pytest.raises(PolicyNotInForce):
        set_approval(own, "train_ticket_offer", True, "Bart")
    assert set_approval(own, "loan_offer", False, "Bart").status is ApprovalStatus.WITHDRAWN
    adopt(own)
    assert tester_sends.send_test(own, own.policy.testers["jana"], request) is not None


def test_a_sweep_under_another_policy_sends_no_seed(services: Services, other: Services) -> None:
    own = replace(other, policy=replace(other.policy, testers=TESTERS))
    form: dict[str, Any] = {"id": "spring", "template": "loan_offer", "channels": ["email"], "seeds": ["jana"]}
    form["audience"] = [{"recipient": "anna", "data": OFFER}]
    accepted = replace(services, policy=replace(services.policy, testers=TESTERS))
    submit(accepted, parse_campaign(form, validation_context(accepted)))
    assert send_due_seeds(own) == 0
    adopt(own)
    assert send_due_seeds(own) > 0


def test_a_start_with_another_policy_does_not_put_it_in_force(services: Services, other: Services) -> None:
    with lend(services.pool) as connection:
        policies.adopt(connection, other.policy.digest, policies.FIRST_START, other.clock(), only_first=True)
    current = find(services)
    assert current is not None
    assert (current.digest, current.actor) == (services.policy.digest, policies.FIRST_START)


def test_a_worker_halts_with_an_alert_and_goes_on_when_its_policy_is_adopted(services: Services, other: Services) -> None:
    seconds = [100.0]
    timed = replace(other, monotonic_clock=lambda: seconds[0])
    watch = PolicyWatch()
    with pytest.raises(PolicyNotInForce):
        watch.require(timed)
    with lend(services.pool) as connection:
        assert [alert.code for alert in alerts.newest(connection)] == [NOT_IN_FORCE]
    adopt(other)
    watch.require(timed)
    adopt(services)
    watch.require(timed)  # within the second
    seconds[0] += 1.0
    with pytest.raises(PolicyNotInForce):
        watch.require(timed)


def halt(services: Services, other: Services) -> Services:
    """A campaign is accepted, then another policy is put in force, and a worker meets it. Returns its services."""
    send(services)
    adopt(other)
    later = replace(services, clock=lambda: datetime.now(UTC) + SLOW)
    with pytest.raises(PolicyNotInForce):
        PolicyWatch().require(later)
    return replace(services, clock=lambda: datetime.now(UTC))


def test_everybody_who_waits_is_told_that_workers_have_halted(
    services: Services, other: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    halted, seconds = halt(services, other), [0.0]
    timed = replace(halted, monotonic_clock=lambda: seconds[0], sleep=lambda pause: seconds.append(seconds.pop() + pause))
    with pytest.raises(CommandFailure) as failed:
        wait_for(timed, "spring", timeout=30)
    told = f"started with another policy than {other.policy.digest[:12]}"
    assert "campaign spring has not ended after 30 s" in str(failed.value)
    assert told in " ".join(str(failed.value).split())
    assert told in " ".join(capsys.readouterr().err.split())  # already after 10 s
    [finding] = [each for each in examine(halted).findings if each.kind is Standstill.POLICY_NOT_IN_FORCE]
    assert told in finding.text
    adopt(replace(halted, clock=lambda: datetime.now(UTC) + 2 * SLOW))  # back: they go on
    assert [each for each in examine(halted).findings if each.kind is Standstill.POLICY_NOT_IN_FORCE] == []


def test_a_campaign_says_that_workers_have_halted(services: Services, other: Services, database: str, tmp_path: Path) -> None:
    halted = halt(services, other)
    told = f"started with another policy than {other.policy.digest[:12]}"
    client = TestClient(create(halted, Broker()))
    sign_in(client, halted)
    assert told in client.get("/console/campaigns/spring").text
    assert told in " ".join(run(database, tmp_path, "campaign", "show", "spring").stderr.split())


def test_an_adoption_says_that_running_workers_halt(services: Services, database: str, tmp_path: Path) -> None:
    changed = policy_without_quiet_hours(tmp_path)
    with lend(services.pool) as connection:
        record_heartbeats(connection, {BEAT: datetime.now(UTC) + SLOW}, "worker-1:4711")
    adopted = run(database, tmp_path, "policy", "adopt", policy=changed)
    assert "they halt. Restart `dispatcher up`" in " ".join(adopted.stderr.split())
    again = run(database, tmp_path, "policy", "adopt", policy=changed)
    assert "halt" not in again.stderr


def run(database: str, folder: Path, *arguments: str, policy: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run_command(database, folder, *arguments, **({"DISPATCHER_POLICY": str(policy)} if policy else {}))


def test_commands_that_decide_need_the_policy_in_force_and_adopt_another(services: Services, database: str, tmp_path: Path) -> None:
    changed = policy_without_quiet_hours(tmp_path)
    opt_out = ("preferences", "set", "anna", "--email", "off", "--source", "branch", "--actor", "clerk")
    assert run(database, tmp_path, *opt_out, policy=changed).returncode == 0  # an opt-out is recorded under any policy
    refused = run(database, tmp_path, "ledger", "retention", "--clear", policy=changed)
    assert refused.returncode == 1
    assert services.policy.digest[:12] in refused.stderr
    assert "dispatcher policy adopt" in refused.stderr
    assert "Traceback" not in refused.stderr
    shown = run(database, tmp_path, "policy", "show", "--json", policy=changed)
    assert (shown.returncode, json.loads(shown.stdout)["in_force"]) == (1, services.policy.digest)
    assert "is in force now" in run(database, tmp_path, "policy", "adopt", policy=changed).stdout
    assert run(database, tmp_path, "ledger", "retention", "--clear", policy=changed).returncode == 0
    assert run(database, tmp_path, "ledger", "retention", "--clear").returncode == 1


@pytest.mark.parametrize("is_embedded", [True, False])
def test_up_adopts_an_edited_policy_where_it_is_alone(
    services: Services, database: str, tmp_path: Path, *, is_embedded: bool
) -> None:
    changed = policy_without_quiet_hours(tmp_path)
    settings = Settings.from_environment(
        {"DISPATCHER_POLICY": str(changed), "DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEY": SECRET}
    )
    said: list[str] = []
    if is_embedded:
        check_keys_and_policy(replace(settings, database_url=None), database, said.append)
        assert len(said) == 1
        assert services.policy.digest[:12] in said[0]
        assert parse(changed.read_text(encoding="utf-8")).digest[:12] in said[0]
    else:
        with pytest.raises(PolicyNotInForce):
            check_keys_and_policy(settings, database, said.append)
