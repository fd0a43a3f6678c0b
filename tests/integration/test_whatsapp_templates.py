"""WhatsApp sends approved texts only: push, status and pull against the sandbox, and the refusal of what is not approved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from shutil import copytree

import pytest

from channels.alerts import set_alert_sink
from channels.base import Channel, ChannelError
from channels.http import HttpTransport
from channels.providers.outbox import Outbox
from channels.providers.twilio import PLUGIN, TwilioAccount
from channels.sandbox import SandboxClient, running
from channels.whatsapp_templates import NewContent, TemplateButton
from dispatcher.campaigns import submission, whatsapp_templates
from dispatcher.campaigns.dry_run import dry_run
from dispatcher.campaigns.new_template import write_skeleton
from dispatcher.campaigns.whatsapp_templates import PUSH_LEASE, TemplateApiError, TextStatus
from dispatcher.content import Catalog, NewTemplate
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.campaigns.whatsapp_templates import begin_push
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import alerts
from dispatcher.runtime.alert_sink import alert_sink
from dispatcher.runtime.services import Services
from tests.support.services import TEMPLATES, Clock, add_people, balance, load_edited, make_services, outbox, person, states, work

ACCOUNT, OTHER = "AC" + "1" * 32, "AC" + "2" * 32
DATA = {"project": "a kitchen", "amount": 5_000, "offer_url": "https://www.kbc-bank.example/loan"}


@dataclass
class ApprovalStage:
    """Services whose WhatsApp messages need texts that the sandbox approved."""

    services: Services
    sandbox: SandboxClient
    http: HttpTransport

    def with_account(self, account_sid: str) -> Services:
        """The same services with another account of the provider."""
        assert PLUGIN.make_template_client is not None
        account = TwilioAccount(account_sid, "token", content_base_url=self.sandbox.url)
        return replace(self.services, template_client=PLUGIN.make_template_client(account, self.http))

    def clock(self) -> Clock:
        clock = self.services.clock
        assert isinstance(clock, Clock)
        return clock


@pytest.fixture
def stage(database: str) -> Iterator[ApprovalStage]:
    http = HttpTransport()
    with running() as sandbox, make_services(database) as services:
        made = ApprovalStage(services, sandbox, http)
        only = Catalog({"loan_offer": services.catalog["loan_offer"]})
        made.services = replace(made.with_account(ACCOUNT), catalog=only)
        set_alert_sink(alert_sink(services.pool, services.clock))
        yield made
        set_alert_sink(lambda *_: None)
    http.close()


def submit(services: Services, *channels: str, recipient: str = "c-1") -> None:
    form = {
        "id": "spring",
        "template": "loan_offer",
        "channels": list(channels),
        "audience": [{"recipient": recipient, "data": DATA}],
    }
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def decided(statuses: list[TextStatus]) -> set[str]:
    return {each.status for each in statuses}


def alert_codes(services: Services) -> set[str]:
    with lend(services.pool) as connection:
        return {each.code for each in alerts.newest(connection) if each.provider == "whatsapp"}


def test_a_text_that_whatsapp_has_not_approved_is_refused_before_claim(stage: ApprovalStage) -> None:
    add_people(stage.services, person("c-1"))
    submit(stage.services, "whatsapp")
    work(stage.services)
    assert states(stage.services) == {"refused": 1}
    assert balance(stage.services).reasons == {ReasonCode.WHATSAPP_NOT_APPROVED: 1}
    assert outbox(stage.services, Channel.WHATSAPP).sent == []


def test_a_person_whose_text_is_not_approved_gets_the_next_channel(stage: ApprovalStage) -> None:
    add_people(stage.services, person("c-1"))
    submit(stage.services, "whatsapp", "email")
    work(stage.services)
    assert len(outbox(stage.services, Channel.EMAIL).sent) == 1


def test_a_pushed_text_is_sent_with_the_id_of_its_account(stage: ApprovalStage) -> None:
    services = stage.services
    pushed = whatsapp_templates.push(services)
    assert (len(pushed), decided(pushed)) == (8, {"approved"})
    add_people(services, person("c-1"))
    submit(services, "whatsapp")
    work(services)
    (sent,) = outbox(services, Channel.WHATSAPP).sent
    english = next(each for each in pushed if (each.language, each.mode) == ("en", "tailored"))
    assert sent.content.content_sid == english.content_sid  # type: ignore[union-attr]


def test_another_account_knows_none_of_the_texts(stage: ApprovalStage) -> None:
    whatsapp_templates.push(stage.services)
    other = stage.with_account(OTHER)
    other = replace(other, catalog=stage.services.catalog)
    assert decided(whatsapp_templates.statuses(other)) == {"not pushed"}
    add_people(other, person("c-1"))
    submit(other, "whatsapp")
    work(other)
    assert balance(other).reasons == {ReasonCode.WHATSAPP_NOT_APPROVED: 1}


def test_a_text_that_is_to_be_written_is_not_submitted(stage: ApprovalStage, tmp_path: Path) -> None:
    folder = write_skeleton(tmp_path / "texts", NewTemplate("spring", "loan_offer", "Jana"), Kind.COMMERCIAL).folder.parent
    draft = replace(stage.services, catalog=load_edited(folder))
    with pytest.raises(BadInput, match="texts are still to be written"):
        whatsapp_templates.push(draft, "spring")
    for file in folder.rglob("*.*"):
        text = file.read_text(encoding="utf-8").replace("{# TO WRITE #}", "")
        file.write_text("\n".join(line for line in text.split("\n") if not line.startswith("# TO WRITE")), encoding="utf-8")
    written = replace(stage.services, catalog=load_edited(folder))
    assert decided(whatsapp_templates.statuses(written, "spring")) == {"not pushed"}
    assert decided(whatsapp_templates.push(written, "spring")) == {"approved"}


def test_the_sandbox_gets_no_text_that_is_to_be_written(stage: ApprovalStage, tmp_path: Path) -> None:
    folder = write_skeleton(tmp_path / "texts", NewTemplate("spring", "loan_offer", "Jana"), Kind.COMMERCIAL).folder.parent
    copytree(TEMPLATES / "cashback_paid", folder / "cashback_paid")
    draft = replace(stage.services, catalog=load_edited(folder), whatsapp_is_sandbox=True)
    whatsapp_templates.push_to_sandbox(draft)
    whatsapp_templates.poll(draft)
    assert decided(whatsapp_templates.statuses(draft, "spring")) == {"not pushed"}
    assert decided(whatsapp_templates.statuses(draft, "cashback_paid")) == {"approved"}
    stage.sandbox.set_profile("down")
    whatsapp_templates.poll(draft)  # has nothing to push, and so asks for nothing
    assert "templates_unreadable" not in alert_codes(draft)


def test_two_pushes_do_not_submit_a_text_twice(stage: ApprovalStage) -> None:
    client, texts = stage.services.template_client, whatsapp_templates.statuses(stage.services, "loan_offer")
    assert client is not None
    with lend(stage.services.pool) as connection:
        assert begin_push(connection, client.account, stage.clock()(), stage.clock()() + PUSH_LEASE)
    with pytest.raises(TemplateApiError, match="another push"):
        whatsapp_templates.push(stage.services, "loan_offer")
    whatsapp_templates.poll(replace(stage.services, whatsapp_is_sandbox=True))  # a worker: leaves it to the other one
    assert (client.list_all(), alert_codes(stage.services)) == ([], set())
    stage.clock().now += PUSH_LEASE + timedelta(seconds=1)  # the other process was lost
    assert decided(whatsapp_templates.push(stage.services, "loan_offer")) == {"approved"}
    listed = client.list_all()
    assert not isinstance(listed, ChannelError)
    assert len(listed) == len(texts)


def test_a_second_push_creates_nothing(stage: ApprovalStage) -> None:
    first = whatsapp_templates.push(stage.services)
    second = whatsapp_templates.push(stage.services)
    assert [each.content_sid for each in second] == [each.content_sid for each in first]
    client = stage.services.template_client
    assert client is not None
    assert len(client.list_all()) == 8  # type: ignore[arg-type]


def test_a_push_goes_on_where_a_fault_ended_it(stage: ApprovalStage) -> None:
    stage.sandbox.set_faults([{"provider": "twilio", "match": '"language": "fr"', "next": 1, "taken": True}])
    with pytest.raises(TemplateApiError, match=r"did not create .* loan_offer \(fr"):
        whatsapp_templates.push(stage.services)
    stage.sandbox.clear_faults()
    assert decided(whatsapp_templates.push(stage.services)) == {"approved"}
    client = stage.services.template_client
    assert client is not None
    assert len(client.list_all()) == 8  # type: ignore[arg-type]


def test_offers_are_submitted_as_marketing_and_receipts_as_utility(stage: ApprovalStage) -> None:
    offer = stage.services.catalog["loan_offer"]
    receipt = replace(offer, info=replace(offer.info, template="receipt", kind=Kind.SERVICE, offer_type=None))
    services = replace(stage.services, catalog=Catalog({"loan_offer": offer, "receipt": receipt}))
    pushed = whatsapp_templates.push(services)
    assert {(each.template, each.category) for each in pushed} == {("loan_offer", "MARKETING"), ("receipt", "UTILITY")}
    assert services.template_client is not None
    listed = {each.content_sid: each.category for each in services.template_client.list_all()}  # type: ignore[union-attr]
    assert listed == {each.content_sid: each.category for each in pushed}


@pytest.mark.parametrize("status", ["rejected", "paused", "disabled"])
def test_what_whatsapp_takes_back_is_refused_and_alerted(stage: ApprovalStage, status: str) -> None:
    services = stage.services
    english = next(e for e in whatsapp_templates.push(services) if (e.language, e.mode) == ("en", "tailored"))
    stage.sandbox.set_template_status(english.content_sid, status, "ABUSIVE_CONTENT")
    refreshed = whatsapp_templates.refresh(services)
    changed = next(each for each in refreshed if each.content_sid == english.content_sid)
    assert (changed.status, changed.rejection_reason) == (status, "ABUSIVE_CONTENT")
    assert alert_codes(services) == {f"template_{status}"}
    add_people(services, person("c-1"))
    submit(services, "whatsapp")
    work(services)
    assert balance(services).reasons == {ReasonCode.WHATSAPP_NOT_APPROVED: 1}


def test_a_text_in_another_category_is_not_sent(stage: ApprovalStage) -> None:
    services = stage.services
    client = services.template_client
    assert client is not None
    (first, *_) = whatsapp_templates.push(services)
    listed = client.list_all()
    assert not isinstance(listed, Exception)
    moved = [replace(each, category="UTILITY") if each.content_sid == first.content_sid else each for each in listed]

    class Moved:
        account = client.account if client else ""

        def list_all(self) -> object:
            return moved

    services = replace(services, template_client=Moved())  # type: ignore[arg-type]
    (changed, *rest) = whatsapp_templates.refresh(services)
    assert (changed.status, changed.is_approved, decided(rest)) == ("recategorised", False, {"approved"})


def test_pull_finds_what_the_account_has(stage: ApprovalStage) -> None:
    services = stage.services
    pushed = whatsapp_templates.push(services)
    with lend(services.pool) as connection:
        connection.execute("DELETE FROM whatsapp_templates")
    assert decided(whatsapp_templates.statuses(services)) == {"not pushed"}
    pulled = whatsapp_templates.pull(services)
    assert [(each.content_sid, each.status) for each in pulled] == [(each.content_sid, "approved") for each in pushed]


def test_an_id_in_a_file_counts_only_with_its_text(stage: ApprovalStage) -> None:
    services = stage.services
    client = services.template_client
    assert client is not None
    template = services.catalog["loan_offer"]
    text = template.languages["en"].whatsapp
    local = next(iter(text.items()))
    created = client.create(NewContent("made_by_hand", "en", local[1].text, local[1].buttons, {"1": "x", "2": "y", "3": "z"}))
    assert isinstance(created, str)

    def with_sid(sid: str) -> Services:
        changed = {**template.languages["en"].whatsapp, local[0]: replace(local[1], content_sid=sid)}
        languages = {**template.languages, "en": replace(template.languages["en"], whatsapp=changed)}
        return replace(services, catalog=Catalog({"loan_offer": replace(template, languages=languages)}))

    assert [each.content_sid for each in whatsapp_templates.pull(with_sid("HX" + "9" * 32)) if each.content_sid] == []
    assert [each.content_sid for each in whatsapp_templates.pull(with_sid(created)) if each.content_sid] == [created]


def test_a_changed_text_or_button_needs_another_approval(stage: ApprovalStage) -> None:
    text = next(iter(stage.services.catalog["loan_offer"].languages["en"].whatsapp.values()))
    kind = stage.services.catalog["loan_offer"].info.kind
    changed = [
        replace(text, text=text.text + "!"),
        replace(text, buttons=(TemplateButton("Stop now", payload="STOP"),)),
        replace(text, buttons=(TemplateButton("Stop now", payload="START"),)),
    ]
    assert len({each.digest(kind) for each in (text, *changed)}) == 4
    assert replace(text, content_sid="HX" + "9" * 32).digest(kind) == text.digest(kind)


def test_the_maintenance_step_asks_at_most_once_a_minute(stage: ApprovalStage) -> None:
    services = stage.services
    stage.sandbox.set_review("pending")
    (text, *_) = whatsapp_templates.push(services)
    stage.sandbox.set_template_status(text.content_sid, "approved")
    whatsapp_templates.poll(services)
    assert whatsapp_templates.statuses(services)[0].status == "pending"
    stage.clock().pass_(61)
    whatsapp_templates.poll(services)
    assert whatsapp_templates.statuses(services)[0].status == "approved"


def test_the_maintenance_step_survives_a_provider_that_is_away(stage: ApprovalStage) -> None:
    whatsapp_templates.push(stage.services)
    stage.clock().pass_(1_000)
    stage.sandbox.set_profile("down")
    whatsapp_templates.poll(stage.services)
    assert alert_codes(stage.services) == {"templates_unreadable"}
    assert decided(whatsapp_templates.statuses(stage.services)) == {"approved"}


def test_the_maintenance_step_pushes_only_to_the_sandbox(stage: ApprovalStage) -> None:
    whatsapp_templates.poll(stage.services)
    assert decided(whatsapp_templates.statuses(stage.services)) == {"not pushed"}
    whatsapp_templates.poll(replace(stage.services, whatsapp_is_sandbox=True))
    assert decided(whatsapp_templates.statuses(stage.services)) == {"approved"}


def test_a_dry_run_shows_what_is_not_approved(stage: ApprovalStage) -> None:
    services = stage.services
    add_people(services, person("c-1"))
    form = {"id": "spring", "template": "loan_offer", "channels": ["whatsapp"], "audience": [{"recipient": "c-1", "data": DATA}]}
    campaign = parse_campaign(form, submission.validation_context(services))
    before = dry_run(services, campaign)
    assert before.reasons == {ReasonCode.WHATSAPP_NOT_APPROVED: 1}
    assert any("dispatcher templates whatsapp push loan_offer" in need for need in before.needs)
    whatsapp_templates.push(services)
    after = dry_run(services, parse_campaign(form, submission.validation_context(services)))
    assert (after.states, after.needs) == ({"sendable": 1}, ())


def test_check_names_the_line_of_a_text_that_is_not_approved(stage: ApprovalStage) -> None:
    faults = whatsapp_templates.unapproved_texts(stage.services)
    assert len(faults) == 8
    source = stage.services.catalog["loan_offer"].source
    for fault in faults:
        assert source[fault.file].split("\n")[fault.line - 1] == f"[{fault.field}]"
    whatsapp_templates.push(stage.services)
    assert whatsapp_templates.unapproved_texts(stage.services) == []


def test_an_unknown_template_is_named(stage: ApprovalStage) -> None:
    for action in (whatsapp_templates.push, whatsapp_templates.pull, whatsapp_templates.refresh):
        with pytest.raises(BadInput, match="did you mean loan_offer"):
            action(stage.services, "loan_ofer")


def test_without_a_provider_that_approves_nothing_is_refused(stage: ApprovalStage) -> None:
    services = replace(stage.services, template_client=None)
    add_people(services, person("c-1"))
    submit(services, "whatsapp")
    work(services)
    assert isinstance(services.providers[Channel.WHATSAPP], Outbox)
    assert len(outbox(services, Channel.WHATSAPP).sent) == 1
