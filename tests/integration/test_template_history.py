"""Versions of templates: history, differences, putting a former one back, two approvers, and the end of approvals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from starlette.testclient import TestClient

from dispatcher.campaigns import actions, submission, template_approval
from dispatcher.campaigns.actions import CampaignAction
from dispatcher.campaigns.template_approval import ApprovalStatus, TemplateVersion
from dispatcher.campaigns.template_history import compare, history_of, put_back
from dispatcher.content import TextDiff, load_sound
from dispatcher.domain.campaign import CampaignState
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.ledger import roles
from dispatcher.ledger.campaigns import lifecycle
from dispatcher.ledger.connection import lend
from dispatcher.maintenance import sweep
from dispatcher.policy import InvalidPolicy, parse, shipped
from dispatcher.runtime.services import Services
from dispatcher.web.api_keys import new_key, read_keys
from dispatcher.web.app import create
from tests.support.people import sign_in
from tests.support.services import NOON, TEMPLATES, Broker, Clock, add_people, load_edited, make_services, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
TWO_PEOPLE = frozenset({"consumer_credit"})


@dataclass
class Author:
    """A folder of templates that is edited, and services that follow it."""

    services: Services
    folder: Path
    clock: Clock

    def edit(self, file: str, old: str, new: str) -> str:
        """Edit a file; returns the digest of the loan offer's new version."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return self.load()

    def load(self) -> str:
        self.services = replace(self.services, catalog=load_edited(self.folder))
        return self.services.catalog["loan_offer"].digest

    def approve(self, actor: str = "Bart", approved: bool = True, **more: Any) -> TemplateVersion:
        return template_approval.set_approval(self.services, "loan_offer", approved, actor, **more)

    def submit(self, campaign_id: str = "spring") -> None:
        rows = [{"recipient": each, "data": OFFER} for each in ("c-1", "c-2")]
        form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows}
        submission.submit(self.services, parse_campaign(form, submission.validation_context(self.services)))

    def campaign(self) -> lifecycle.Campaign:
        with lend(self.services.pool) as connection:
            found = lifecycle.find(connection, "spring")
        assert found is not None
        return found


@pytest.fixture
def author(database: str, tmp_path: Path) -> Iterator[Author]:
    clock = Clock()
    with make_services(database, clock, approved=False) as made:
        add_people(made, person("c-1", 1), person("c-2", 2))
        opened = Author(made, copytree(TEMPLATES, tmp_path / "texts"), clock)
        opened.load()
        yield opened


def words(found: list[TextDiff], **where: str) -> list[tuple[str, str]]:
    """What was removed and added in the texts of this place."""
    return [
        (change.kind, change.text.strip())
        for each in found
        if all(getattr(each, name) == value for name, value in where.items())
        for change in each.changes
        if change.kind != "same"
    ]


def test_the_history_says_who_when_why_and_for_which_campaigns(author: Author) -> None:
    first = author.approve(comment="texts of spring").template.digest
    author.submit()
    author.clock.pass_(3600)
    second = author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    author.approve("Lea")
    author.approve("Bart", approved=False, comment="wrong rate", digest=first)
    present, former = history_of(author.services, "loan_offer")
    assert [(present.digest, present.is_present), (former.digest, former.is_present)] == [(second, True), (first, False)]
    assert [(each.actor, each.approved, each.comment, each.at) for each in former.approvals] == [
        ("Bart", False, "wrong rate", NOON + timedelta(hours=1)),
        ("Bart", True, "texts of spring", NOON),
    ]
    assert [(use.campaign, use.digest) for use in former.campaigns] == [("spring", first)]
    assert present.campaigns == ()


@pytest.mark.parametrize("broken", ["loan_offer", "train_ticket", "_shared"])
def test_faults_in_the_folder_stop_no_withdrawal_and_no_history(author: Author, broken: str) -> None:
    digest = author.services.catalog["loan_offer"].digest
    author.approve()
    file = "legal.toml" if broken == "_shared" else "template.toml"
    (author.folder / broken / file).write_text("kind = ", encoding="utf-8")
    catalog, faults = load_sound(author.folder)
    assert ("loan_offer" in catalog, "coin_offer" in catalog) == (broken == "train_ticket", broken != "_shared")
    assert f"{broken}/{file}" in {fault.file for fault in faults}
    author.services = replace(author.services, catalog=catalog)
    assert author.approve(approved=False, digest=digest[:12]).status is ApprovalStatus.WITHDRAWN
    assert [each.digest for each in history_of(author.services, "loan_offer")] == [digest]


def test_a_difference_is_shown_word_by_word_where_it_is_seen(author: Author) -> None:
    first = author.approve().template.digest
    author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    found = compare(author.services, "loan_offer", first[:12])
    assert {(each.language, each.channel, each.mode, each.part) for each in found} == {("en", "email", "standard", "subject")}
    assert words(found) == [("removed", "plans"), ("added", "home")]
    author.edit("_shared/macros.html", "{{ words }}</a>", "{{ words }} now</a>")  # a macro that every language uses
    found = compare(author.services, "loan_offer", first)
    assert {each.language for each in found if each.part == "html"} == {"nl", "fr", "de", "en"}
    assert ("added", "now") in words(found, language="nl", part="html")


def test_what_no_reader_sees_is_no_difference(author: Author) -> None:
    first = author.approve().template.digest
    second = author.edit("loan_offer/template.toml", 'version = "1"', 'version = "2"  # not seen')
    assert first != second
    assert compare(author.services, "loan_offer", first) == []


def test_a_digest_of_no_version_is_refused(author: Author) -> None:
    author.approve()
    for digest in ("0" * 12, author.services.catalog["loan_offer"].digest[:11]):
        with pytest.raises(BadInput, match="is the digest of no version of loan_offer"):
            compare(author.services, "loan_offer", digest)


def test_a_version_that_is_put_back_keeps_its_approval(author: Author) -> None:
    (author.folder / "loan_offer" / "notes.md").write_text("of the author")
    first = author.approve().template.digest
    author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    author.edit("loan_offer/nl/email.txt", "{% endblock %}", "Tot snel.\n{% endblock %}")
    restored = put_back(author.services, "loan_offer", first[:12], author.folder)
    assert restored.files == ("loan_offer/en/texts.toml", "loan_offer/nl/email.txt")
    assert (restored.is_exact, restored.version.status) == (True, ApprovalStatus.APPROVED)
    assert author.load() == first
    assert (author.folder / "loan_offer" / "notes.md").exists()
    assert not [path for path in author.folder.iterdir() if path.name.startswith(".")]
    author.submit()


def test_with_other_shared_files_a_version_put_back_is_a_new_one(author: Author) -> None:
    first = author.approve().template.digest
    author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    others = author.services.catalog["coin_earned"].digest
    author.edit("_shared/macros.html", "{{ words }}</a>", "{{ words }} now</a>")
    shared = author.services.catalog["coin_earned"].digest
    restored = put_back(author.services, "loan_offer", first, author.folder)
    assert (restored.is_exact, restored.version.status) == (False, ApprovalStatus.WAITING)
    author.load()
    assert author.services.catalog["coin_earned"].digest == shared != others  # shared files stay


def test_a_version_that_the_shared_files_no_longer_fit_stays_out(author: Author) -> None:
    first = author.approve().template.digest
    author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    macros = author.folder / "_shared" / "macros.html"
    for file in author.folder.rglob("email.html"):
        file.write_text(file.read_text(encoding="utf-8").replace("figure", "sum"), encoding="utf-8")
    macros.write_text(macros.read_text(encoding="utf-8").replace("macro figure", "macro sum"), encoding="utf-8")
    before = author.load()
    with pytest.raises(
        BadInput, match=r"with the present shared files, the former version has faults: loan_offer/de/email\.html:2"
    ):
        put_back(author.services, "loan_offer", first, author.folder)
    assert author.load() == before


# -- two people --------------------------------------------------------------------------------------------------------


def test_a_regulated_topic_needs_two_people(author: Author) -> None:
    author.services = replace(author.services, policy=replace(author.services.policy, second_approver_topics=TWO_PEOPLE))
    first = author.approve("Bart", comment="checked with legal")
    assert (first.status, first.approval) == (ApprovalStatus.WAITING, None)
    assert author.approve(" Bart ").status is ApprovalStatus.WAITING  # the same person
    with pytest.raises(BadInput, match="makers wrote loan_offer"):
        author.approve("The program's makers")
    with pytest.raises(BadInput, match="is not approved"):
        author.submit()
    second = author.approve("Lea", comment="fine")
    assert second.status is ApprovalStatus.APPROVED
    assert second.approval is not None
    assert (second.approval.first_actor, second.approval.actor, second.approval.comment) == ("Bart", "Lea", "fine")
    author.submit()
    other = template_approval.set_approval(author.services, "train_ticket", True, "Bart")
    assert other.status is ApprovalStatus.APPROVED  # of no such topic


def test_a_first_approval_can_be_withdrawn(author: Author) -> None:
    author.services = replace(author.services, policy=replace(author.services.policy, second_approver_topics=TWO_PEOPLE))
    author.approve("Bart")
    assert author.approve("Bart", approved=False).status is ApprovalStatus.WITHDRAWN
    assert author.approve("Lea").status is ApprovalStatus.WAITING  # is now the first
    assert author.approve("Bart").status is ApprovalStatus.APPROVED


def test_an_unknown_topic_for_two_people_is_an_error() -> None:
    text = shipped().replace("second_approver = []", 'second_approver = ["consumer_credits"]')
    with pytest.raises(InvalidPolicy, match=r"four_eyes\.second_approver = 'consumer_credits': unknown"):
        parse(text)


# -- the end of approvals ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[roles.FULL, roles.TASKS])
def sweeping(request: pytest.FixtureRequest, database: str, author: Author) -> Iterator[Callable[[], None]]:
    """The sweep, as a process of each role runs it, with approvals that end after ten days."""
    author.services = replace(author.services, policy=replace(author.services.policy, approval_days=10))
    roles.create(database)
    with make_services(database, author.clock, approved=False, role=request.param) as made:
        yield lambda: sweep.sweep(replace(made, policy=author.services.policy))


def test_an_approval_ends_and_its_campaigns_pause(author: Author, sweeping: Callable[[], None]) -> None:
    author.approve()
    author.submit()
    with lend(author.services.pool) as connection:
        lifecycle.start_due(connection, author.clock())
    author.clock.pass_(10 * 86_400)
    sweeping()
    assert author.campaign().state is CampaignState.RUNNING  # to the day
    author.clock.pass_(1)
    sweeping()
    sweeping()
    assert (author.campaign().state, author.campaign().note) == (
        CampaignState.PAUSED,
        "paused itself: the approval of loan_offer has expired after 10 days",
    )
    [[ended, _]] = [version.approvals for version in history_of(author.services, "loan_offer")]
    assert (ended.actor, ended.approved, ended.comment) == ("policy", False, "expired: four_eyes.approval_days")
    work(author.services)
    assert states(author.services) == {"pending": 2}
    author.approve("Lea")
    actions.apply(author.services, "spring", CampaignAction.RESUME, "Lea")
    work(author.services)
    assert states(author.services) == {"accepted": 2}


# -- by HTTP and at the console ----------------------------------------------------------------------------------------


def test_history_and_differences_are_shown(author: Author, tmp_path: Path) -> None:
    first = author.approve(comment="<b>terms</b>").template.digest
    author.submit()
    author.edit("loan_offer/en/texts.toml", "A loan for your plans", "A loan for your home")
    key, line = new_key("Bart", ["console", "templates"])
    (tmp_path / "keys.toml").write_text(line)
    app = create(author.services, Broker(), read_keys(tmp_path / "keys.toml"))
    with TestClient(app, base_url="https://dispatcher.example") as client:
        headers = {"Authorization": f"Bearer {key}"}
        versions = client.get("/v1/templates/loan_offer/history", headers=headers).json()["versions"]
        assert [each["campaigns"][0]["id"] for each in versions if each["digest"] == first] == ["spring"]
        found = client.get(f"/v1/templates/loan_offer/diff/{first}", headers=headers).json()["differences"]
        assert [change["text"].strip() for change in found[0]["changes"] if change["kind"] == "added"] == ["home"]
        assert client.get(f"/v1/templates/loan_offer/diff/{'0' * 64}", headers=headers).status_code == 422
        sign_in(client, author.services, "Bart")
        page = client.get("/console/templates/loan_offer").text
        assert "&lt;b&gt;terms&lt;/b&gt;" in page
        shown = client.get(f"/console/templates/loan_offer/diff/{first}").text
        assert "<del>plans</del><ins>home</ins>" in shown
