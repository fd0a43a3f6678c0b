"""A campaign's sender, reply address and labels: allowed by the policy, in the message, the feed and the lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from channels.base import Channel, Email
from dispatcher.campaigns import dry_run, overview, public_tasks, submission
from dispatcher.campaigns.overview import CampaignFilter
from dispatcher.campaigns.public_tasks import TaskCall
from dispatcher.campaigns.submission import SubmitStatus
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.domain.refused_job import CAMPAIGN_TASK
from dispatcher.intake.campaign import check_campaign, parse_request
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.maintenance import policies
from dispatcher.policy import Policy, parse, shipped
from dispatcher.runtime.services import Services
from tests.support.feed import all_events
from tests.support.services import Clock, add_people, make_services, outbox, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
ALLOWED = """reply_to = ["advice@kbc-bank.example"]
campaign_senders.invest = { name = "KBC Invest", address = "invest@kbc-bank.example", senders = { sms = "KBC Invest" } }
campaign_senders.texts = { senders = { sms = "KBC Texts" } }
"""


def policy_text(allowed: str = ALLOWED) -> str:
    return shipped().replace(
        'contact = "https://www.kbc-bank.example/contact"\n', f'contact = "https://www.kbc-bank.example/contact"\n{allowed}'
    )


def put_in_force(services: Services, text: str) -> Policy:
    with lend(services.pool) as connection:
        policies.store_policy(connection, parse(text).digest, text)
    return parse(text)


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        services = replace(made, policy=put_in_force(made, policy_text()))
        add_people(services, person("c-0", 1))
        yield services


def form(**changes: Any) -> dict[str, Any]:
    rows = [{"recipient": "c-0", "data": OFFER}]
    return {"id": "spring", "template": "loan_offer", "channels": ["email"], "audience": rows, **changes}


def submit(services: Services, **changes: Any) -> SubmitStatus:
    return submission.accept(services, parse_request(form(**changes))).status


def sent_mail(services: Services) -> Email:
    (outbound,) = outbox(services).sent
    assert isinstance(outbound.content, Email)
    return outbound.content


def test_the_mail_has_the_sender_and_reply_address_chosen(services: Services) -> None:
    submit(services, sender="invest", reply_to="advice@kbc-bank.example")
    work(services)
    mail = sent_mail(services)
    assert (mail.sender_name, mail.sender_address) == ("KBC Invest", "invest@kbc-bank.example")
    assert mail.reply_to == "advice@kbc-bank.example"
    assert "KBC Bank" in mail.text  # the text names the company in any case


def test_without_a_choice_the_mail_has_the_entitys_sender(services: Services) -> None:
    submit(services)
    work(services)
    mail = sent_mail(services)
    assert (mail.sender_name, mail.sender_address, mail.reply_to) == ("KBC Bank", "news@kbc-bank.example", "")


def test_the_sms_has_the_sender_chosen(services: Services) -> None:
    submit(services, sender="invest", channels=["sms"])
    work(services)
    assert [each.sender for each in outbox(services, Channel.SMS).sent] == ["KBC Invest"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sender": "inves"},
            "sender: 'inves' is not allowed for kbc-bank; did you mean invest?; the policy allows: invest, texts",
        ),
        ({"sender": "texts"}, "sender: texts says nothing for the channels of this campaign: email"),
        ({"reply_to": "me@else.example"}, "the policy allows: advice@kbc-bank.example"),
        ({"reply_to": "advice@kbc-bank.example", "channels": ["sms"]}, "reply_to: needs the channel email"),
    ],
)
def test_a_sender_that_is_not_allowed_is_refused(services: Services, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as error:
        submit(services, **changes)
    assert message in str(error.value)


def test_another_sender_under_the_same_id_is_a_conflict(services: Services) -> None:
    assert submit(services, sender="invest") is SubmitStatus.NEW
    assert submit(services, sender="invest") is SubmitStatus.KNOWN
    assert submit(services) is SubmitStatus.CONFLICT
    assert submit(services, sender="invest", reply_to="advice@kbc-bank.example") is SubmitStatus.CONFLICT


def test_nothing_is_sent_when_the_policy_drops_the_sender(services: Services) -> None:
    submit(services, sender="invest")
    work(replace(services, policy=put_in_force(services, policy_text("")), random=lambda: 0.5))
    assert states(services) == {"refused": 1}
    assert outbox(services).sent == []


def test_a_dry_run_uses_and_shows_the_sender(services: Services) -> None:
    checked = check_campaign(parse_request(form(sender="invest")), submission.validation_context(services))
    result = dry_run.dry_run(services, checked)
    assert (result.states, result.spec.sender) == ({"sendable": 1}, "invest")
    gone = replace(services, policy=parse(policy_text("")))
    assert dry_run.dry_run(gone, replace(checked, audience=parse_request(form()).rows or ())).states == {"refused": 1}


def test_labels_are_in_events_and_find_campaigns(services: Services) -> None:
    submit(services, tags=["loans", "q4"], cost_centre="CC-4711")
    submit(services, id="summer", tags=["loans"])
    work(services)
    labelled = [event for event in all_events(services) if event["data"].get("cost_centre") == "CC-4711"]
    assert {event["type"] for event in labelled} >= {"dispatcher.campaign.running", "dispatcher.message.accepted"}
    assert all(event["data"]["tags"] == ["loans", "q4"] for event in labelled)

    def listed(*tags: str, cost_centre: str | None = None) -> list[str]:
        return [each.id for each in overview.newest(services, 10, CampaignFilter(tags, cost_centre))]

    assert listed("loans") == ["summer", "spring"]
    assert listed("loans", "q4") == listed(cost_centre="CC-4711") == ["spring"]
    assert listed("q3") == []


def test_a_trigger_has_labels_in_its_events(services: Services) -> None:
    job = {"key": "k-1", "recipient": "c-0", "template": "loan_offer", "data": OFFER, "tags": ["loans"], "cost_centre": "4711"}
    place = submission.accept_trigger(services, job)
    run_chunk(services, place.period, place.chunk)
    (data,) = (event["data"] for event in all_events(services) if event["data"].get("trigger") == "k-1")
    assert (data["tags"], data["cost_centre"]) == (["loans"], "4711")


@pytest.mark.parametrize("tag", ["anne@home.example", "32470123456", "t0470123456", "Anne Peeters", ""])
def test_a_tag_has_no_room_for_personal_data(services: Services, tag: str) -> None:
    with pytest.raises(BadInput, match=r"tags\.0: should be at most 30 small letters"):
        submit(services, tags=[tag])


def test_a_celery_campaign_has_a_sender_and_labels(services: Services) -> None:
    call = TaskCall(CAMPAIGN_TASK, (), form(sender="invest", tags=["loans"]))
    public_tasks.accept_campaign(services, call, 30.0, False)
    work(services)
    assert sent_mail(services).sender_address == "invest@kbc-bank.example"
