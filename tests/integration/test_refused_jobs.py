"""Jobs that come by Celery and are refused: one row each, with its reason and no value; and jobs in all forms that are accepted."""

from __future__ import annotations

import getpass
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from celery.exceptions import SoftTimeLimitExceeded

from dispatcher import celery_app, tasks
from dispatcher.campaigns import public_tasks, refused_jobs
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.campaigns.refused_jobs import RefusedJobEntry
from dispatcher.campaigns.template_approval import set_approval
from dispatcher.domain.errors import TaskTimeLimit
from dispatcher.domain.refused_job import CAMPAIGN_TASK, TRIGGER_TASK, RefusalReason
from dispatcher.domain.sealed_jobs import public_key, seal
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts
from dispatcher.maintenance import retention
from dispatcher.maintenance.metrics import GAUGES, collect
from dispatcher.runtime.services import Services
from tests.support.command import run_command
from tests.support.services import Clock, add_people, make_services, outbox, person, states

LOAN = {"project": "Zwaantje's boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
JOB = {"key": "k-1", "recipient": "anna", "template": "loan_offer", "data": LOAN}
CAMPAIGN = {
    "id": "spring",
    "template": "loan_offer",
    "channels": ["email"],
    "audience": [{"recipient": "anna", "data": LOAN}],
    "send_at": "2026-11-24T11:00:00Z",
}
TASKS = {TRIGGER_TASK: tasks.trigger, CAMPAIGN_TASK: tasks.submit_campaign}
PLANTED = ("zwaantje", "peeters", "0470123456", "31415.92", "geheim")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(database: str, clock: Clock, tmp_path: Path) -> Iterator[Services]:
    with make_services(database, clock) as made:
        add_people(made, person("anna", 1), person("bert", 2))
        celery_app._per_thread.services = replace(made, audiences=tmp_path)
        yield celery_app._per_thread.services
        del celery_app._per_thread.services


def call(task: str, /, *arguments: Any, **fields: Any) -> None:
    """Call a task as a worker does."""
    TASKS[task].apply(args=arguments, kwargs=fields, throw=True)


def refuse(services: Services, task: str, /, *arguments: Any, **fields: Any) -> RefusedJobEntry:
    """Call a task that refuses; the row of its refusal."""
    with pytest.raises(BadInput):
        call(task, *arguments, **fields)
    return refused_jobs.newest(services, 100)[0]


def sealed(services: Services, task: str, job: Mapping[str, Any]) -> dict[str, str]:
    return {"sealed": seal(task, job, public_key(services.secret.newest))}


def without(job: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name not in names}


# -- accepted ----------------------------------------------------------------------------------------------------------


def test_positional_keyword_and_sealed_arguments_are_the_same_job(services: Services) -> None:
    call(TRIGGER_TASK, JOB)
    call(TRIGGER_TASK, job=JOB)
    call(TRIGGER_TASK, **JOB)
    call(TRIGGER_TASK, sealed(services, TRIGGER_TASK, JOB))
    call(TRIGGER_TASK, **sealed(services, TRIGGER_TASK, JOB))
    call(CAMPAIGN_TASK, campaign=CAMPAIGN)
    call(CAMPAIGN_TASK, CAMPAIGN)
    call(CAMPAIGN_TASK, **CAMPAIGN)
    call(CAMPAIGN_TASK, sealed(services, CAMPAIGN_TASK, CAMPAIGN))
    assert refused_jobs.newest(services, 10, only_open=False) == []
    with lend(services.pool) as connection:
        assert connection.execute("SELECT key FROM triggers").fetchall() == [("k-1",)]
    assert sum(len(outbox(services, channel).sent) for channel in services.providers) == 1
    assert states(services, "spring") == {"pending": 1}


def test_a_key_of_before_the_rotation_still_opens(services: Services) -> None:
    job = sealed(services, TRIGGER_TASK, JOB)
    rotated = replace(services, secret=type(services.secret).of(b"a-newer-secret-that-is-long-enough-too", *services.secret))
    celery_app._per_thread.services = rotated
    call(TRIGGER_TASK, job)
    assert refused_jobs.newest(services, 10) == []


# -- refused -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arguments", "fields", "reason", "shown"),
    [
        (TRIGGER_TASK, [{**JOB, "template": "lone_offer"}], {}, "unknown_template", "did you mean loan_offer?"),
        (TRIGGER_TASK, [{**JOB, "data": {**LOAN, "amount": "much"}}], {}, "invalid_fields", "data.amount: "),
        (TRIGGER_TASK, [without(JOB, "recipient")], {}, "invalid_fields", "recipient: missing"),
        (TRIGGER_TASK, [{**JOB, "recipient": 7}], {}, "invalid_fields", "recipient: input should be a valid string"),
        (TRIGGER_TASK, [{**JOB, "expires": 1}], {}, "invalid_fields", "…: unknown field; did you mean expires_at?"),
        (TRIGGER_TASK, [JOB, JOB], {}, "bad_arguments", "there are 2 arguments; the task takes one, `job`"),
        (TRIGGER_TASK, [], {}, "bad_arguments", "the argument `job` is missing"),
        (TRIGGER_TASK, ["k-1"], {}, "bad_arguments", "`job` should be an object"),
        (TRIGGER_TASK, [JOB], {"channels": ["sms"]}, "bad_arguments", "not a mixture"),
        (TRIGGER_TASK, [], {"job": JOB, "key": "k-1"}, "bad_arguments", "not both"),
        (TRIGGER_TASK, [], {"self": JOB, "task": 1}, "invalid_fields", "key: missing"),
        (TRIGGER_TASK, [{"sealed": "1.aa.bb", "key": "k-1"}], {}, "bad_arguments", "sealed: should be a text, and the only field"),
        (TRIGGER_TASK, [{"sealed": "Zwaantje"}], {}, "cannot_unseal", "sealed: should be a text of the form 1.KEY.BOX"),
        (TRIGGER_TASK, [{"sealed": "1.AAAAAAAA.bb"}], {}, "cannot_unseal", "`dispatcher keys public` prints the present one"),
        (CAMPAIGN_TASK, [{**CAMPAIGN, "rate_per_second": "fast"}], {}, "invalid_fields", "rate_per_second: "),
        (CAMPAIGN_TASK, [], {"campain": CAMPAIGN}, "invalid_fields", "id: missing"),
        (CAMPAIGN_TASK, [{**CAMPAIGN, "audience": "/etc/passwd"}], {}, "invalid_fields", "audience: "),
    ],
)
def test_a_refused_job_is_one_row_with_its_reason(
    services: Services, task: str, arguments: list[Any], fields: dict[str, Any], reason: str, shown: str
) -> None:
    row = refuse(services, task, *arguments, **fields)
    assert (row.task, row.reason, row.count, row.is_open) == (task, reason, 1, True)
    assert shown in "; ".join(map(str, row.errors))
    assert row.last_at == services.clock()
    with lend(services.pool) as connection:
        assert [(alert.provider, alert.code) for alert in alerts.newest(connection)] == [("jobs", f"refused_job:{reason}")]


def test_the_same_call_again_counts_on_its_row_also_when_sealed_anew(services: Services, clock: Clock) -> None:
    bad = {**JOB, "template": "lone_offer"}
    refuse(services, TRIGGER_TASK, bad)
    clock.pass_(60)
    refuse(services, TRIGGER_TASK, **bad)
    refuse(services, TRIGGER_TASK, sealed(services, TRIGGER_TASK, bad))
    refuse(services, TRIGGER_TASK, sealed(services, TRIGGER_TASK, bad))
    (row,) = refused_jobs.newest(services, 10)
    assert (row.count, row.key, (row.last_at - row.first_at).total_seconds()) == (4, "k-1", 60)
    refuse(services, TRIGGER_TASK, {**bad, "key": "k-2"})
    assert [(each.key, each.count) for each in refused_jobs.newest(services, 10)] == [("k-2", 1), ("k-1", 4)]
    (gauge,) = (gauge for gauge in GAUGES if gauge.name == "jobs_refused")
    assert {labels["reason"]: count for labels, count in gauge.samples(collect(services)) if count} == {"unknown_template": 2}


def test_other_content_under_a_used_id_is_refused(services: Services) -> None:
    call(TRIGGER_TASK, JOB)
    assert refuse(services, TRIGGER_TASK, {**JOB, "recipient": "bert"}).reason == "key_conflict"
    call(CAMPAIGN_TASK, CAMPAIGN)
    row = refuse(services, CAMPAIGN_TASK, {**CAMPAIGN, "priority": 9})
    assert (row.reason, row.key, row.is_open) == ("key_conflict", "spring", True)


def test_a_template_without_approval_is_a_reason_of_its_own(services: Services) -> None:
    set_approval(services, "loan_offer", approved=False, actor="tests")
    assert refuse(services, TRIGGER_TASK, JOB).reason == "not_approved"
    assert refuse(services, CAMPAIGN_TASK, CAMPAIGN).reason == "not_approved"


def test_what_was_sealed_for_another_task_does_not_open(services: Services) -> None:
    assert refuse(services, CAMPAIGN_TASK, sealed(services, TRIGGER_TASK, JOB)).reason == "cannot_unseal"


def test_an_error_of_the_program_keeps_the_job_too(services: Services) -> None:
    celery_app._per_thread.services = replace(services, catalog=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NoneType"):
        call(TRIGGER_TASK, JOB)
    (row,) = refused_jobs.newest(services, 10)
    assert (row.reason, row.key) == ("fault", "k-1")


class EndlessCatalog(dict[str, Any]):
    def get(self, *_: object) -> None:
        raise TaskTimeLimit

    __getitem__ = __contains__ = get  # type: ignore[assignment]


def test_a_job_that_runs_out_of_time_is_kept_too(services: Services) -> None:
    celery_app._per_thread.services = replace(services, catalog=EndlessCatalog())  # type: ignore[arg-type]
    with pytest.raises(SoftTimeLimitExceeded):
        call(TRIGGER_TASK, JOB)
    (row,) = refused_jobs.newest(services, 10)
    assert (row.reason, row.key) == ("fault", "k-1")


def test_plain_jobs_are_refused_where_the_setting_requires_sealed_ones(services: Services) -> None:
    celery_app._per_thread.services = replace(services, seal_required=True)
    row = refuse(services, TRIGGER_TASK, JOB)
    assert (row.reason, row.key) == ("not_sealed", "k-1")
    call(TRIGGER_TASK, sealed(services, TRIGGER_TASK, JOB))
    services.clock.pass_(1)  # type: ignore[attr-defined]
    assert refuse(services, CAMPAIGN_TASK, CAMPAIGN).reason == "not_sealed"


def test_of_an_error_in_a_file_only_its_line_is_kept(services: Services, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("recipient,Zwaantje\nc-1,x\n")
    row = refuse(services, CAMPAIGN_TASK, {**CAMPAIGN, "audience": "rows.csv"})
    assert [str(error) for error in row.errors] == [
        "audience: line 1 of the file cannot be read; `dispatcher campaign submit FILE --dry-run` says why"
    ]


def test_a_file_that_is_refused_later_is_recorded_with_its_campaign(services: Services, tmp_path: Path) -> None:
    short = replace(services, limits=replace(services.limits, part_rows=10))
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"recipient": "c-{number}"}}\n' for number in range(35)))
    _, result = public_tasks.accept_campaign(short, TaskCall(CAMPAIGN_TASK, ({**CAMPAIGN, "audience": file.name},), {}), 0, False)
    assert result.load is not None
    file.write_text("other rows\n")
    with pytest.raises(BadInput):
        public_tasks.load_some(short, result.load, 0, is_redelivered=True)
    (row,) = refused_jobs.newest(services, 10)
    assert (row.task, row.key, row.reason) == (CAMPAIGN_TASK, "spring", "invalid_fields")


# -- no value is kept --------------------------------------------------------------------------------------------------

NASTY = {"first_name": "Zwaantje", "Peeters": "0470123456", "amount": "31415.92", "geheim": ["Zwaantje Peeters"]}
DIRTY: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    (TRIGGER_TASK, ({**JOB, "data": NASTY},), {}),
    (TRIGGER_TASK, ({**JOB, "key": "zwaantje@home.example", "template": "Zwaantje"},), {}),
    (TRIGGER_TASK, ({**JOB, "Zwaantje Peeters": 1, "recipient": "Zwaantje Peeters", "channels": ["Zwaantje"]},), {}),
    (TRIGGER_TASK, ({**JOB, "expires_at": "geheim", "fallback_after_seconds": "31415.92"},), {}),
    (TRIGGER_TASK, ("Zwaantje", "+32470123456"), {}),
    (TRIGGER_TASK, (), {"Zwaantje": "Peeters", **JOB}),
    (CAMPAIGN_TASK, ({**CAMPAIGN, "entity": "Zwaantje", "collapse_key": "Zwaantje's Peeters"},), {}),
    (CAMPAIGN_TASK, ({**CAMPAIGN, "audience": "/home/zwaantje/0470123456.csv"},), {}),
    (CAMPAIGN_TASK, ({**CAMPAIGN, "variants": {"Zwaantje": "Peeters", "b": "geheim"}, "template": None},), {}),
    (CAMPAIGN_TASK, ({**CAMPAIGN, "send_at": "2026-11-23T11:00:00+Zwaantje"},), {}),
]


@pytest.mark.parametrize("seal_it", [False, True], ids=["plain", "sealed"])
def test_no_value_of_a_refused_job_is_in_ledger_log_or_error(
    services: Services, seal_it: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    with structlog.testing.capture_logs() as entries:
        for task, arguments, fields in DIRTY:
            job = {**fields, **(arguments[0] if arguments and isinstance(arguments[0], dict) else {})}
            with pytest.raises(BadInput) as raised:
                call(task, sealed(services, task, job)) if seal_it else call(task, *arguments, **fields)
            said.append(str(raised.value))
    with lend(services.pool) as connection:
        stored = connection.execute("SELECT * FROM refused_jobs").fetchall()
        stored += connection.execute("SELECT * FROM alerts").fetchall()
    text = json.dumps([stored, said, entries, caplog.text], default=str).lower()
    assert len(refused_jobs.newest(services, 100)) == len(DIRTY)
    assert [word for word in PLANTED if word in text] == []


# -- mended, closed, deleted -------------------------------------------------------------------------------------------


def test_a_job_that_was_sent_again_and_accepted_is_mended(services: Services, clock: Clock) -> None:
    refuse(services, TRIGGER_TASK, {**JOB, "template": "lone_offer"})
    refuse(services, CAMPAIGN_TASK, {**CAMPAIGN, "priority": 99})
    assert len(refused_jobs.newest(services, 10)) == 2
    clock.pass_(60)
    call(TRIGGER_TASK, JOB)
    call(CAMPAIGN_TASK, CAMPAIGN)
    assert refused_jobs.newest(services, 10) == []
    assert {row.mended_at for row in refused_jobs.newest(services, 10, only_open=False)} == {clock.now}
    call(TRIGGER_TASK, JOB)  # the same again is the same
    assert collect(services).jobs_refused[RefusalReason.UNKNOWN_TEMPLATE] == 0


def test_a_closed_job_comes_back_when_it_is_refused_again(services: Services) -> None:
    row = refuse(services, TRIGGER_TASK, {**JOB, "template": "lone_offer"})
    assert refused_jobs.close(services, row.no, "desk-7")
    assert not refused_jobs.close(services, row.no + 1, "desk-7")
    (closed,) = refused_jobs.newest(services, 10, only_open=False)
    assert (closed.closed_by, refused_jobs.newest(services, 10)) == ("desk-7", [])
    assert refuse(services, TRIGGER_TASK, {**JOB, "template": "lone_offer"}).count == 2


def test_refused_jobs_are_deleted_after_their_retention_period(services: Services, clock: Clock) -> None:
    refuse(services, TRIGGER_TASK, {**JOB, "template": "lone_offer"})
    clock.pass_(30 * 86_400 - 1)
    refuse(services, TRIGGER_TASK, {**JOB, "key": "k-2", "template": "lone_offer"})
    clock.pass_(2)
    assert {done.data.what: done.cleared for done in retention.clear(services)}["refused jobs"] == 1
    assert [row.key for row in refused_jobs.newest(services, 10)] == ["k-2"]


# -- shown -------------------------------------------------------------------------------------------------------------


def test_the_command_lists_and_closes(services: Services, database: str, tmp_path: Path) -> None:
    row = refuse(services, TRIGGER_TASK, {**JOB, "template": "lone_offer"})
    document = json.loads(run_command(database, tmp_path, "job", "refused", "--json").stdout)["jobs"][0]
    assert (document["number"], document["state"], document["key"], document["reason"]) == (
        row.no,
        "open",
        "k-1",
        "unknown_template",
    )
    assert document["errors"] == [{"field": "template", "message": "unknown template '…'; did you mean loan_offer?"}]
    assert "did you mean loan_offer?" in run_command(database, tmp_path, "job", "refused").stdout
    assert run_command(database, tmp_path, "job", "close", str(row.no)).stdout == "closed\n"
    assert run_command(database, tmp_path, "job", "close", "99").returncode == 1
    assert run_command(database, tmp_path, "job", "refused").stdout == "no refused job is open\n"
    (closed,) = json.loads(run_command(database, tmp_path, "job", "refused", "--all", "--json").stdout)["jobs"]
    assert (closed["state"], closed["closed_by"]) == ("closed", f"os:{getpass.getuser()}")
