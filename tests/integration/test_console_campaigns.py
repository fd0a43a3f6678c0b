"""The console: a marketer makes a campaign from a spreadsheet, step by step, without JavaScript."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from httpx2 import Response
from openpyxl import Workbook
from starlette.testclient import TestClient

from dispatcher.campaigns import campaign_checks, drafts, overview, schedules, submission
from dispatcher.campaigns.campaign_checks import Outdated
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.domain.campaign import CampaignState
from dispatcher.domain.principal import Role
from dispatcher.identity import audit
from dispatcher.identity.audit import AuditFilter
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.policy.data import CampaignSender
from dispatcher.runtime.services import Services
from dispatcher.web.api.campaigns import DRY_RUN_LOCK
from dispatcher.web.app import create
from tests.support.people import sign_in
from tests.support.services import Broker, Clock, add_people, make_services, person

URL = "https://www.bank.example/loan"
HEADER = ["Klantnummer", "Project", "Amount", "Offer URL", "Remarks"]
ROWS: list[list[object]] = [
    ["anna", "a bike", 5_000, URL, "regular"],
    ["bert", "a car", 12_500, URL, ""],
    ["carl", "a boat", "many", URL, ""],
    ["dora", None, 7_000, URL, ""],
]
OPTIONS = {"template": "loan_offer", "id": "spring-loan", "channels": ["email", "sms"]}


def workbook(header: list[str] = HEADER, rows: Sequence[Sequence[object]] = ROWS) -> bytes:
    book = Workbook()
    for row in (header, *rows):
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


class Marketer:
    """A browser with a signed-in person."""

    def __init__(self, services: Services, client: TestClient, token: str) -> None:
        self.services, self.client, self.token = services, client, token

    def get(self, path: str) -> str:
        answer = self.client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def post(self, path: str, **fields: object) -> Response:
        data = {"form_token": self.token, **fields}
        return self.client.post(path, data=data, headers={"Accept": "text/html"}, follow_redirects=False)

    def upload(self, no: int, content: bytes, name: str = "customers.xlsx") -> Response:
        return self.client.post(
            f"/console/drafts/{no}/audience",
            data={"form_token": self.token},
            files={"file": (name, content)},
            headers={"Accept": "text/html"},
            follow_redirects=False,
        )

    def draft(self, **options: object) -> int:
        answer = self.post("/console/campaigns/new", **{**OPTIONS, **options})
        assert answer.status_code == 303, wrongs(answer)
        found = re.fullmatch(r"/console/drafts/(\d+)/audience", answer.headers["location"])
        assert found
        return int(found[1])

    def assign(self, no: int, *columns: str) -> Response:
        return self.post(f"/console/drafts/{no}/columns", columns=list(columns))


def wrongs(answer: Response) -> dict[str, str]:
    """The errors of a page by the field that they stand beside."""
    return dict(re.findall(r'<p class="wrong" id="([a-z_0-9-]+)-error">([^<]+)</p>', answer.text))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def web(database: str, tmp_path: Path, clock: Clock) -> Iterator[tuple[Services, TestClient]]:
    with make_services(database, clock) as made:
        services = replace(made, audiences=tmp_path)
        add_people(services, *(person(name, number) for number, name in enumerate(("anna", "bert", "carl", "dora"), start=1)))
        with TestClient(create(services, Broker()), base_url="https://dispatcher.example") as client:
            yield services, client


@pytest.fixture
def marketer(web: tuple[Services, TestClient]) -> Marketer:
    services, client = web
    return Marketer(services, client, sign_in(client, services, "mia", [Role.MARKETER]))


def ready(marketer: Marketer, **options: object) -> int:
    """A draft with a file that was read: anna and bert are good, carl is not, dora has no project."""
    no = marketer.draft(**options)
    assert marketer.upload(no, workbook()).headers["location"].endswith("/columns")
    assert marketer.assign(no, "recipient", "data.project", "data.amount", "data.offer_url", "-").status_code == 303
    return no


def test_a_marketer_submits_a_workbook_in_their_own_name(marketer: Marketer) -> None:
    no = ready(marketer)
    page = marketer.get(f"/console/drafts/{no}/audience")
    assert "3\u202frows can be used" in page or "3 rows can be used" in page
    assert '<td class="n">4</td><td>Amount <small>amount</small></td>' in page
    download = marketer.client.get(f"/console/drafts/{no}/faults.csv").text
    assert "4,data.amount," in download
    assert ",Amount" in download  # as the file itself calls it
    assert marketer.post(f"/console/drafts/{no}/check").status_code == 303
    page = marketer.get(f"/console/drafts/{no}/check")
    assert re.search(r"<code>missing_variable</code> <code>project</code>", page)
    answer = marketer.post(f"/console/drafts/{no}/schedule", send_at="2026-12-01T09:30", rate_per_second="2,5")
    assert answer.headers["location"].endswith("/submit")
    assert "2026-12-01 09:30" in marketer.get(f"/console/drafts/{no}/submit")
    answer = marketer.post(f"/console/drafts/{no}/submit")
    assert answer.headers["location"] == "/console/campaigns/spring-loan"
    found = overview.find(marketer.services, "spring-loan")
    assert found is not None
    assert (found.audience, found.invalid, found.submitted_by) == (3, 1, "user:mia")
    assert found.spec.send_at == datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
    assert (found.spec.channels, found.spec.rate_per_second) == (("email", "sms"), 2.5)
    assert drafts.of_owner(marketer.services, "user:mia") == []
    assert ("submit", "spring-loan") in acts(marketer.services)


def acts(services: Services) -> list[tuple[str, str]]:
    return [(row.action, row.object_id) for row in audit.page(services, AuditFilter(), None, 100)]


# -- the form ----------------------------------------------------------------------------------------------------------


def test_errors_of_the_campaign_form_stand_beside_their_fields(marketer: Marketer) -> None:
    answer = marketer.post("/console/campaigns/new", template="loan_offer", id="spring loan", channels=["email"])
    assert (answer.status_code, wrongs(answer)) == (422, {"id": "has characters that are not allowed here: see the help above"})
    answer = marketer.post(
        "/console/campaigns/new",
        **OPTIONS,
        fallback_minutes="60",
        route="all",
        sender="nobody",
        tags="Spring",
        holdout_percent="101",
    )
    assert answer.status_code == 422
    assert wrongs(answer).keys() == {"tags", "holdout_percent"}  # as the form: first what it reads, then what the policy allows
    answer = marketer.post("/console/campaigns/new", **OPTIONS, fallback_minutes="60", route="all", sender="nobody")
    assert wrongs(answer).keys() == {"fallback_after_seconds"} or wrongs(answer).keys() == {"fallback_after_seconds", "sender"}
    assert 'value="60"' in answer.text
    assert drafts.of_owner(marketer.services, "user:mia") == []


def test_a_draft_is_its_owners_and_only_for_their_entities(marketer: Marketer) -> None:
    no = marketer.draft()
    assert marketer.client.post(f"/console/drafts/{no}/delete", data={"form_token": "x"}).status_code == 403
    sign_in(marketer.client, marketer.services, "ann", [Role.APPROVER])
    assert marketer.client.get("/console/campaigns/new").status_code == 403
    sign_in(marketer.client, marketer.services, "max", [Role.MARKETER])
    for path in ("", "/audience", "/columns", "/check", "/examples", "/schedule", "/submit", "/faults.csv"):
        assert marketer.client.get(f"/console/drafts/{no}{path}").status_code == 404
    token = sign_in(marketer.client, marketer.services, "eva", [Role.MARKETER], ["cbc-banque"])
    eva = Marketer(marketer.services, marketer.client, token)
    assert eva.post("/console/campaigns/new", **OPTIONS).status_code == 422
    marketer.client.cookies.clear()
    for path in (f"/console/drafts/{no}/audience", "/console/calendar"):
        assert marketer.client.get(path, follow_redirects=False).status_code == 303


def test_a_template_without_approval_can_be_tried_but_not_submitted(database: str, tmp_path: Path) -> None:
    with make_services(database, approved=False) as made:
        services = replace(made, audiences=tmp_path)
        add_people(services, person("anna", 1))
        with TestClient(create(services, Broker()), base_url="https://dispatcher.example") as client:
            marketer = Marketer(services, client, sign_in(client, services, "mia", [Role.MARKETER]))
            assert "draft, not approved" in marketer.get("/console/campaigns/new")
            no = ready(marketer)
            assert "Submit the campaign" not in marketer.get(f"/console/drafts/{no}/submit")
            assert marketer.post(f"/console/drafts/{no}/submit").status_code == 422
            assert overview.find(services, "spring-loan") is None


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_mapping_is_remembered_per_person_template_and_header(marketer: Marketer) -> None:
    no = ready(marketer)
    corrected = [*ROWS[:2], ["carl", "a boat", 900, URL, ""], ["dora", "a kitchen", 7_000, URL, ""]]
    assert marketer.upload(no, workbook(rows=corrected)).headers["location"].endswith("/audience")
    check = drafts.of_owner(marketer.services, "user:mia")[0].file_check
    assert check is not None
    assert (check["rows"], check["invalid"]) == (4, 0)
    assert marketer.upload(no, workbook(["Id", *HEADER[1:]])).headers["location"].endswith("/columns")
    fitting = workbook(["recipient", "data.project", "data.amount", "data.offer_url"], [row[:4] for row in corrected])
    assert marketer.upload(no, fitting).headers["location"].endswith("/audience")
    other = Marketer(marketer.services, marketer.client, sign_in(marketer.client, marketer.services, "max", [Role.MARKETER]))
    assert other.upload(other.draft(id="other"), workbook()).headers["location"].endswith("/columns")


def test_what_is_no_audience_is_refused_and_the_file_before_stays(marketer: Marketer) -> None:
    no = ready(marketer)
    before = drafts.of_owner(marketer.services, "user:mia")[0]
    assert marketer.upload(no, b"x", "customers.xls").status_code == 422
    assert marketer.post(f"/console/drafts/{no}/audience").status_code == 422
    answer = marketer.assign(no, "recipient", "recipient", "data.amount", "data.offer_url", "-")
    assert (answer.status_code, "has another column already" in answer.text) == (422, True)
    assert drafts.of_owner(marketer.services, "user:mia")[0].upload == before.upload
    marketer.upload(no, b"no workbook")
    assert "cannot be read" in marketer.get(f"/console/drafts/{no}/audience")
    assert marketer.post(f"/console/drafts/{no}/submit").status_code == 422


def test_workers_go_on_with_a_file_whose_columns_were_assigned(marketer: Marketer) -> None:
    no = ready(marketer)
    services = replace(marketer.services, limits=replace(marketer.services.limits, part_rows=1))
    draft = drafts.find(services, no, "user:mia")
    assert draft is not None
    result = submission.submit(services, drafts.submission_of(services, draft), by="user:mia", seconds_max=0)
    while result.status is SubmitStatus.LOADING:  # each step opens the file anew
        assert result.load is not None
        result = submission.load_some(services, result.load, seconds_max=0)
    found = overview.find(services, "spring-loan")
    assert found is not None
    assert (found.audience, found.invalid, found.is_loading) == (3, 1, False)


def test_senders_are_those_that_the_policy_lists(web: tuple[Services, TestClient]) -> None:
    made, _ = web
    bank = replace(
        made.policy.entities["kbc-bank"], campaign_senders={"invest": CampaignSender("KBC Invest")}, reply_to=("a@kbc.example",)
    )
    policy = replace(made.policy, entities={**made.policy.entities, "kbc-bank": bank})
    with TestClient(create(replace(made, policy=policy), Broker()), base_url="https://dispatcher.example") as client:
        marketer = Marketer(made, client, sign_in(client, made, "mia", [Role.MARKETER]))
        page = marketer.get("/console/campaigns/new")
        assert "<option>invest</option>" in page
        assert "<option>a@kbc.example</option>" in page
        no = marketer.draft(sender="invest", reply_to="a@kbc.example")
        assert "<option selected>invest</option>" in marketer.get(f"/console/drafts/{no}")
        assert wrongs(marketer.post("/console/campaigns/new", **OPTIONS, sender="nobody")).keys() == {"sender"}


def test_the_list_of_unreadable_rows_runs_no_formula(marketer: Marketer) -> None:
    no = marketer.draft()
    file = b"recipient,project,=HYPERLINK(1),offer_url\nanna,a bike,many,https://www.bank.example/loan\n"
    assert marketer.upload(no, file, "customers.csv").headers["location"].endswith("/columns")
    assert marketer.assign(no, "recipient", "data.project", "data.amount", "data.offer_url").status_code == 303
    assert ",'=HYPERLINK(1)" in marketer.client.get(f"/console/drafts/{no}/faults.csv").text


def test_a_mended_file_is_added_with_the_columns_of_the_draft(marketer: Marketer) -> None:
    no = ready(marketer, seeds="jana-maes")
    assert marketer.post(f"/console/drafts/{no}/submit").status_code == 303
    mended = workbook(rows=[*ROWS[:2], ["carl", "a boat", 9_000, URL, ""]])
    answer = marketer.client.post(
        "/console/campaigns/spring-loan/rows",
        data={"form_token": marketer.token},
        files={"file": ("mended.xlsx", mended)},
        headers={"Accept": "text/html"},
        follow_redirects=False,
    )
    assert answer.status_code == 303, answer.text
    found = overview.find(marketer.services, "spring-loan")
    assert found is not None
    assert found.audience == 6  # carl, and two who have a row already


# -- what it would do --------------------------------------------------------------------------------------------------


def test_examples_show_profiles_only_with_the_right_and_are_recorded(marketer: Marketer) -> None:
    services = marketer.services
    people = [person("anna", 1, profile={"identity": {"first_name": "Annabel"}}), person("bert", 2)]
    add_people(services, *people)
    no = ready(marketer)
    text = marketer.get(f"/console/drafts/{no}/examples")
    assert "a bike" in text
    assert "Annabel" not in text
    assert "5.49" not in text  # neither the file nor a profile has an interest rate: the template's example would be untrue
    assert ("look", "anna") in acts(services)
    both = sign_in(marketer.client, services, "bea", [Role.MARKETER, Role.COMPLIANCE])
    bea = Marketer(services, marketer.client, both)
    text = bea.get(f"/console/drafts/{ready(bea, id='other')}/examples")
    assert "Annabel" in text
    assert not re.search(r"/[up]/[A-Za-z0-9_-]", text)  # no link that acts for a customer


def test_a_test_send_goes_to_a_tester_in_ones_own_name(marketer: Marketer) -> None:
    no = ready(marketer)
    assert marketer.post(f"/console/drafts/{no}/test", tester="jana-maes").status_code == 303
    assert "user:mia" in marketer.get(f"/console/drafts/{no}/check")
    assert marketer.post(f"/console/drafts/{no}/test", tester="nobody").status_code == 422


# -- time, submission, and afterwards ----------------------------------------------------------------------------------


def test_times_on_days_of_a_clock_change_are_explained(marketer: Marketer) -> None:
    no = marketer.draft()
    answer = marketer.post(f"/console/drafts/{no}/schedule", send_at="2027-03-28T02:30")
    assert (answer.status_code, "take 03:30 or later" in answer.text) == (422, True)
    answer = marketer.post(f"/console/drafts/{no}/schedule", send_at="2027-10-31T02:30")
    assert (answer.status_code, 'value="second"' in answer.text) == (422, True)
    form = {"send_at": "2027-10-31T02:30", "send_at_occurrence": "second", "then": "show"}
    assert marketer.post(f"/console/drafts/{no}/schedule", **form).headers["location"].endswith("/schedule")
    assert drafts.of_owner(marketer.services, "user:mia")[0].form["send_at"] == "2027-10-31T01:30:00+00:00"
    assert "the start is in the quiet hours" in marketer.get(f"/console/drafts/{no}/schedule")
    answer = marketer.post(f"/console/drafts/{no}/schedule", send_at="2027-10-31T02:30", rate_per_second="fast")
    assert wrongs(answer).keys() >= {"send_at"}


def submitted(marketer: Marketer, **options: object) -> str:
    no = ready(marketer, **options)
    marketer.post(f"/console/drafts/{no}/schedule", send_at="2026-12-01T09:30")
    assert marketer.post(f"/console/drafts/{no}/submit").status_code == 303
    return str({**OPTIONS, **options}["id"])


def released(who: Marketer, campaign: str) -> Response:
    """What a press on Release answers."""
    shown = re.search(r'name="shown" value="([^"]+)"', who.get(f"/console/campaigns/{campaign}"))
    return who.post(f"/console/campaigns/{campaign}/release", shown=shown[1] if shown else "")


def test_a_campaign_with_testers_waits_for_another_person(marketer: Marketer) -> None:
    name = submitted(marketer, seeds=["jana-maes"])
    assert 'action="/console/campaigns/spring-loan/release"' not in marketer.get(f"/console/campaigns/{name}")
    assert released(approver(marketer), name).status_code == 303
    found = overview.find(marketer.services, name)
    assert found is not None
    assert (found.state, found.released_by) == (CampaignState.SCHEDULED, "user:ann")


def test_time_and_rate_change_once_and_a_copy_is_a_new_draft(marketer: Marketer) -> None:
    name = submitted(marketer, tags="spring, loan", holdout_percent="10")
    path = f"/console/campaigns/{name}/edit"
    assert 'value="2026-12-01T09:30"' in marketer.get(path)
    answer = marketer.post(path, version="0", send_at="2026-12-02T10:00", rate_per_second="5")
    assert answer.headers["location"] == f"/console/campaigns/{name}"
    found = overview.find(marketer.services, name)
    assert found is not None
    assert (found.spec.send_at, found.spec.rate_per_second) == (datetime(2026, 12, 2, 9, tzinfo=UTC), 5)
    assert marketer.post(path, version="0", send_at="2026-12-03T10:00").status_code == 409  # somebody saw an older page
    assert ("change", name) in acts(marketer.services)
    answer = marketer.post(f"/console/campaigns/{name}/copy")
    assert answer.status_code == 303
    [copy] = drafts.of_owner(marketer.services, "user:mia")
    assert copy.form == {
        "id": f"{name}-2026-11-23",
        "template": "loan_offer",
        "entity": "kbc-bank",
        "channels": ["email", "sms"],
        "tags": ["spring", "loan"],
        "holdout_percent": 10.0,
        "rate_per_second": 5.0,
    }
    assert marketer.post(f"/console/campaigns/{name}/cancel").status_code == 303
    assert "cannot be changed" in marketer.get(path)


def test_a_change_of_the_rate_leaves_the_seconds_of_a_start(marketer: Marketer) -> None:
    start = datetime(2026, 12, 1, 8, 30, 15, tzinfo=UTC)
    form = {
        "id": "exact",
        "template": "loan_offer",
        "channels": ["email"],
        "send_at": start.isoformat(),
        "rate_per_second": 1_234_567 / 8,
    }
    rows = [{"recipient": "anna", "data": {"project": "a bike", "amount": 5_000, "offer_url": URL}}]
    parsed = parse_campaign({**form, "audience": rows}, submission.validation_context(marketer.services))
    submission.submit(marketer.services, parsed, by="api:crm")
    path = "/console/campaigns/exact/edit"
    assert 'value="154320.875"' in marketer.get(path)
    assert marketer.post(path, version="0", send_at="2026-12-01T09:30", rate_per_second="7").status_code == 303
    found = overview.find(marketer.services, "exact")
    assert found is not None
    assert (found.spec.send_at, found.spec.rate_per_second, found.version) == (start, 7, 1)


def test_the_calendar_shows_ones_entities_and_runs_to_come(marketer: Marketer) -> None:
    submitted(marketer)
    form = {"id": "weekly", "cron": "0 9 * * 1", "zone": "Europe/Brussels"}
    campaign = {"template": "loan_offer", "audience": {"upload": "weekly-*"}}
    schedules.add(marketer.services, schedules.parse(marketer.services, {**form, "campaign": campaign}), "user:max")
    text = marketer.get("/console/calendar?month=2026-12")
    assert re.findall(r"<b><time [^>]*>(\d\d:\d\d)</time></b> (?:<a [^>]*>)?([a-z0-9T-]+)", text) == [
        ("09:30", "spring-loan"),
        *(("09:00", f"weekly-2026-12-{day}T0900") for day in ("07", "14", "21", "28")),
    ]
    assert marketer.client.get("/console/calendar?month=2026-13").status_code == 404
    sign_in(marketer.client, marketer.services, "eva", [Role.MARKETER], ["cbc-banque"])
    assert "spring-loan" not in marketer.get("/console/calendar?month=2026-12")


def test_an_entity_of_others_is_named_beside_its_field(web: tuple[Services, TestClient]) -> None:
    services, client = web
    limited = Marketer(services, client, sign_in(client, services, "cleo", [Role.MARKETER], ["cbc-banque"]))
    answer = limited.post("/console/campaigns/new", **OPTIONS, cost_centre="typed before")
    assert (answer.status_code, "choose one of yours" in wrongs(answer)["entity"]) == (422, True)
    assert "typed before" in answer.text
    assert limited.draft(entity="cbc-banque")


def test_who_has_no_command_line_reads_of_none(database: str) -> None:
    with (
        make_services(database, approved=False) as services,
        TestClient(create(services, Broker()), base_url="https://x") as client,
    ):
        marketer = Marketer(services, client, sign_in(client, services, "mia", [Role.MARKETER]))
        assert "Make one from a spreadsheet" in marketer.get("/console")
        no = drafts.create(services, "user:mia", OPTIONS)
        page = marketer.get(f"/console/drafts/{no}/submit")
        assert "an approver approves it on the page Templates" in page
        assert "dispatcher templates" not in page


# -- what the second person sees ---------------------------------------------------------------------------------------


def figures(page: str) -> str:
    """The text of a campaign's page about its dry run, without markup."""
    part = page[page.index('id="dry-run"') :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part[: part.index("A recipient’s messages")]))


def waiting(marketer: Marketer, **options: object) -> str:
    """A campaign that waits for its release, with the dry run of its draft."""
    no = ready(marketer, seeds=["jana-maes"], **options)
    assert marketer.post(f"/console/drafts/{no}/check").status_code == 303
    assert marketer.post(f"/console/drafts/{no}/submit").status_code == 303
    return str({**OPTIONS, **options}["id"])


def approver(marketer: Marketer, name: str = "ann", roles: Sequence[Role] = (Role.APPROVER,)) -> Marketer:
    token = sign_in(marketer.client, marketer.services, name, roles)
    return Marketer(marketer.services, marketer.client, token)


def test_who_releases_sees_the_dry_run_of_who_submitted(marketer: Marketer) -> None:
    name = waiting(marketer)
    ann = approver(marketer)
    page = ann.get(f"/console/campaigns/{name}")
    shown = figures(page)
    assert "by user:mia" in shown
    assert "Recipients who get a message 2 Recipients in the file 3 Rows that cannot be read 1" in shown
    assert "missing_variable project a variable that the text needs is missing" in shown
    assert "sms 0 messages" not in shown
    assert "SMS segments" not in shown  # both get an e-mail
    assert "Quiet hours" in shown
    assert "Also planned for that day" in shown
    assert 'href="/console/templates/loan_offer"' in page
    assert 'role="alert"' not in page[page.index('id="dry-run"') : page.index("Run it again")]


def test_what_changed_since_the_dry_run_is_said(marketer: Marketer, clock: Clock) -> None:
    name = waiting(marketer)
    more = [*ROWS[:2], ["carl", "a boat", 900, URL, ""]]
    added = marketer.client.post(
        f"/console/campaigns/{name}/rows",
        data={"form_token": marketer.token},
        files={"file": ("more.xlsx", workbook(rows=more))},
        follow_redirects=False,
    )
    assert added.status_code == 303
    clock.pass_(60)
    ann = approver(marketer)
    page = ann.get(f"/console/campaigns/{name}")
    assert "The audience has changed since this dry run" in page
    assert "more than an hour" not in page
    assert ann.post(f"/console/campaigns/{name}/dry-run").headers["location"] == f"/console/campaigns/{name}#dry-run"
    shown = figures(ann.get(f"/console/campaigns/{name}"))
    assert "by user:ann" in shown
    assert "Recipients who get a message 3" in shown
    assert "The audience has changed" not in shown
    assert "Earlier dry runs" in shown
    assert ("dry_run", name) in acts(marketer.services)
    clock.pass_(3_700)
    assert "more than an hour old" in approver(marketer).get(f"/console/campaigns/{name}")


def test_a_dry_run_of_a_campaign_counts_what_one_of_its_draft_counts(marketer: Marketer) -> None:
    add_people(marketer.services, person("bert", 2, email=None), person("eva", 5, email="anna@example.org"))
    name = waiting(marketer, holdout_percent="30")
    approver(marketer).post(f"/console/campaigns/{name}/dry-run")
    found = overview.find(marketer.services, name)
    assert found is not None
    newest, first = campaign_checks.newest(marketer.services, found)
    assert newest.counts == first.counts
    assert (newest.templates, newest.policy) == (first.templates, first.policy)


def test_a_campaign_from_elsewhere_gets_its_dry_run_on_demand(marketer: Marketer) -> None:
    services = marketer.services
    rows = [
        {"recipient": who, "data": {"project": "a bike", "amount": 900, "offer_url": URL}} for who in ("anna", "bert", "nobody")
    ]
    form = {"id": "by-api", "template": "loan_offer", "channels": ["email"], "seeds": ["jana-maes"], "audience": rows}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)), by="api:crm")
    ann = approver(marketer)
    assert "No dry run of this campaign was made" in ann.get("/console/campaigns/by-api")
    assert ann.post("/console/campaigns/by-api/dry-run").status_code == 303
    shown = figures(ann.get("/console/campaigns/by-api"))
    assert "Recipients who get a message 2" in shown
    assert "unknown_recipient no recipient has this id 1" in shown
    assert released(ann, "by-api").status_code == 303
    page = ann.get("/console/campaigns/by-api")
    assert re.search(r"<details><summary>Show the figures</summary>", page)
    assert approver(marketer, "dirk", [Role.DESK]).post("/console/campaigns/by-api/dry-run").status_code == 403


def test_a_dry_run_keeps_no_data_of_customers(marketer: Marketer, database: str) -> None:
    name = waiting(marketer)
    approver(marketer).post(f"/console/campaigns/{name}/dry-run")
    with psycopg.connect(database) as connection:
        kept = str(connection.execute("SELECT to_jsonb(r) FROM campaign_dry_runs r").fetchall())
        assert kept.count("'made_at'") == 2
        for text in ("anna", "bert", "a bike", URL, "example.org"):
            assert text not in kept
        connection.execute("DELETE FROM audience_faults; DELETE FROM campaigns")
        assert connection.execute("SELECT FROM campaign_dry_runs").fetchall() == []  # as a month that is forgotten


def test_who_releases_sees_examples_and_is_recorded(marketer: Marketer) -> None:
    services = marketer.services
    profiles = {"identity": {"first_name": "Annabel"}}
    add_people(services, person("anna", 1, profile=profiles), person("bert", 2, language="nl"))
    name = waiting(marketer)
    path = f"/console/campaigns/{name}/examples"
    ann = approver(marketer)
    assert path in ann.get(f"/console/campaigns/{name}")
    text = ann.get(path)
    assert "a bike" in text
    assert "Annabel" not in text
    assert not re.search(r'class="id">(anna|bert)<', text)  # the audit log has it
    assert not re.search(r"/[up]/[A-Za-z0-9_-]", text)  # no link that acts for a customer
    assert ("look", "anna") in acts(services)
    assert "Annabel" in approver(marketer, "bea", [Role.APPROVER, Role.COMPLIANCE]).get(path)
    for who, role in (("max", Role.MARKETER), ("adam", Role.ADMIN)):
        other = approver(marketer, who, [role])
        assert path not in other.get(f"/console/campaigns/{name}")
        assert other.client.get(path).status_code == 403
    mia = approver(marketer, "mia", [Role.MARKETER])
    assert re.search(r'class="id">(anna|bert)<', mia.get(path))


def test_no_dry_run_is_made_of_a_campaign_that_ended(marketer: Marketer) -> None:
    name = waiting(marketer)
    mia = approver(marketer, "mia", [Role.MARKETER])
    mia.post(f"/console/campaigns/{name}/cancel")
    assert f"{name}/dry-run" not in mia.get(f"/console/campaigns/{name}")
    answer = mia.post(f"/console/campaigns/{name}/dry-run")
    assert (answer.status_code, "no dry run can be made" in answer.text) == (409, True)
    answer = mia.client.get(f"/console/campaigns/{name}/examples", headers={"Accept": "text/html"})
    assert (answer.status_code, "no dry run can be made" in answer.text, f"{name}/results" in answer.text) == (409, True, True)


def test_a_dry_run_of_what_changed_meanwhile_is_not_kept(marketer: Marketer) -> None:
    name = waiting(marketer)
    before = overview.find(marketer.services, name)
    assert before is not None
    marketer.post(f"/console/campaigns/{name}/cancel")
    with pytest.raises(BadInput, match="was not kept"):
        campaign_checks.run(marketer.services, before, "user:ann")
    assert len(campaign_checks.newest(marketer.services, before)) == 1


def test_examples_wait_for_a_dry_run_on_their_own_page(marketer: Marketer) -> None:
    name = waiting(marketer)
    no = marketer.draft(id="other")
    marketer.upload(no, workbook())  # its columns are remembered
    with DRY_RUN_LOCK:
        for path in (f"campaigns/{name}", f"drafts/{no}"):
            answer = marketer.client.get(f"/console/{path}/examples", headers={"Accept": "text/html"})
            assert (answer.status_code, f'action="/console/{path}/' in answer.text) == (429, True)
            assert "Another dry run is under way. Try again in a moment.<" in answer.text


def test_examples_name_their_language_in_that_of_the_reader(marketer: Marketer) -> None:
    name = waiting(marketer)
    answer = marketer.client.get(f"/console/campaigns/{name}/examples", headers={"Accept-Language": "nl"})
    assert re.search(r"<h2>email, (Nederlands|Frans|Duits|Engels), <small>", answer.text)


@pytest.mark.parametrize(("rate", "shown"), [("20", "20/s"), ("0.5", "0.5/s"), ("", "as fast as the channels allow")])
def test_a_rate_has_no_decimals_that_nobody_entered(marketer: Marketer, rate: str, shown: str) -> None:
    no = ready(marketer)
    marketer.post(f"/console/drafts/{no}/schedule", send_at="2026-12-01T09:30", rate_per_second=rate)
    marketer.post(f"/console/drafts/{no}/submit")
    assert f"<dd>{shown}</dd>" in marketer.get("/console/campaigns/spring-loan")


def test_who_has_no_row_is_not_told_to_go_on_without(marketer: Marketer) -> None:
    no = marketer.draft()
    content = b"recipient,project,amount,offer_url\n,a bike,900,https://www.bank.example/loan\n"
    marketer.upload(no, content, "customers.csv")
    marketer.assign(no, "recipient", "data.project", "data.amount", "data.offer_url")
    page = marketer.get(f"/console/drafts/{no}/audience")
    assert "Correct the file and upload it again below." in page
    assert "You can go on without these rows" not in page
    assert "<td>recipient</td>" in page  # not twice
    assert "Download line numbers and reasons (CSV): 1 row" in page


def test_another_policy_template_or_time_makes_a_dry_run_outdated(marketer: Marketer) -> None:
    name = waiting(marketer)
    services = marketer.services

    def outdated(services: Services, **changes: object) -> list[Outdated]:
        found = overview.find(services, name)
        assert found is not None
        made = replace(campaign_checks.newest(services, found)[0], **changes)  # type: ignore[arg-type]
        return campaign_checks.outdated(services, found, made)

    assert outdated(services) == []
    assert outdated(replace(services, policy=replace(services.policy, digest="other"))) == [Outdated.POLICY]
    assert outdated(services, templates={"loan_offer": "other"}) == [Outdated.TEMPLATE]
    answer = marketer.post(f"/console/campaigns/{name}/edit", version="0", expires_at="2026-12-05T10:00")
    assert answer.status_code == 303
    assert outdated(services) == [Outdated.TIME]
    assert "start or the end has been changed" in approver(marketer).get(f"/console/campaigns/{name}")


def test_what_was_added_after_the_look_is_not_released(marketer: Marketer) -> None:
    name = waiting(marketer)
    path = f"/console/campaigns/{name}"
    ann = approver(marketer)
    shown = re.search(r'name="shown" value="([^"]+)"', ann.get(path))
    assert shown
    mia = approver(marketer, "mia", [Role.MARKETER])
    file = workbook(rows=[["carl", "a boat", 900, URL, ""]])
    data = {"form_token": mia.token}
    assert (
        mia.client.post(f"{path}/rows", data=data, files={"file": ("more.xlsx", file)}, follow_redirects=False).status_code == 303
    )
    ann = approver(marketer)
    assert ann.post(f"{path}/release").status_code == 409  # from a page of before marks, which showed no dry run
    answer = ann.post(f"{path}/release", shown=shown[1])
    assert (answer.status_code, "was not released" in answer.text) == (409, True)
    assert answer.text.index("was not released") < answer.text.index("<dt>")  # on a phone nobody looks further down
    found = overview.find(marketer.services, name)
    assert found is not None
    assert found.state is CampaignState.AWAITING_RELEASE
    again = re.search(r'name="shown" value="([^"]+)"', answer.text)
    assert again
    assert ann.post(f"{path}/release", shown=again[1]).status_code == 303
    found = overview.find(marketer.services, name)
    assert found is not None
    assert found.released_by == "user:ann"
