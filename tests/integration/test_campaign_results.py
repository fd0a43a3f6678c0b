"""The results of a campaign: counts that add up, the control group as drawn, conversions, and files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from channels.base import Channel, Event, EventKind
from dispatcher.campaigns import conversions, overview, result_files, results, submission
from dispatcher.campaigns.results import CampaignResults
from dispatcher.consent import preferences, recipients
from dispatcher.consent.link_owner import owner_of_token
from dispatcher.consent.link_tokens import UNSUBSCRIBE, message_token
from dispatcher.consent.preferences import PreferenceChange
from dispatcher.domain.campaign_results import Dimension, Measure, Occurrences, Step
from dispatcher.domain.message import State
from dispatcher.domain.message_id import MessageId
from dispatcher.domain.preferences import Change
from dispatcher.domain.proportions import Verdict
from dispatcher.domain.recipient import Source
from dispatcher.inbound import provider_events
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.conversions import ConversionContext, read_row
from dispatcher.intake.errors import BadInput
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import erasure, events
from dispatcher.ledger.consent.events import ConsentStatement, Provenance
from dispatcher.policy.variants import share_percent
from dispatcher.runtime.services import Services
from tests.support.services import NOON, Clock, add_people, balance, make_services, person, work

OFFER = {"project": "a boat", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PEOPLE = [f"c-{number}" for number in range(40)]
HOLDOUT = 25


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock()) as made:
        yield made


def drawn(campaign_id: str, services: Services) -> set[str]:
    """Who is in the control group."""
    salt = services.policy.holdout_salt
    return {each for each in PEOPLE if share_percent(salt, campaign_id, each) < HOLDOUT}


def submit(services: Services, people: Sequence[str] = PEOPLE, **changes: Any) -> None:
    form = {"id": "spring", "template": "loan_offer", "channels": ["email"], "holdout_percent": HOLDOUT}
    rows = [{"recipient": each, "data": OFFER} for each in people]
    context = submission.validation_context(services)
    submission.submit(services, parse_campaign({**form, "audience": rows, **changes}, context))
    work(services)


def run(services: Services, **changes: Any) -> CampaignResults:
    """A campaign of people of two languages, one of whom chose no offers, and its results."""
    languages = ("nl", "fr")
    people = [person(each, number, language=languages[number % 2]) for number, each in enumerate(PEOPLE)]
    add_people(services, *people, person("none", 99, offers={"own": "none"}))
    submit(services, [*PEOPLE, "none"], **changes)
    return found(services)


def found(services: Services, by: Dimension | None = None) -> CampaignResults:
    made = results.of_campaign(services, "spring", by)
    assert made is not None
    return made


def report(services: Services, *kinds: EventKind, channel: Channel = Channel.EMAIL, minutes: int = 5) -> None:
    """The provider's reports about each accepted message, in this order, a minute apart; of the last kind about every other one."""
    with lend(services.pool) as connection:
        refs = connection.execute(
            "SELECT concat_ws('-', period, chunk, row, leg), receipt, provider FROM messages WHERE state = 'accepted' ORDER BY 1"
        ).fetchall()
    told = [
        Event(provider, f"{ref}-{kind}", channel, kind, NOON + timedelta(minutes=minutes + place), ref, receipt)
        for place, kind in enumerate(kinds)
        for ref, receipt, provider in (refs if kind is not kinds[-1] else refs[::2])
    ]
    provider_events.store_events(services, told)
    while provider_events.apply_batch(services, lambda _: None):
        pass


def opt_out(services: Services, who: str, at: datetime, source: Source = Source.MOBILE) -> None:
    with lend(services.pool) as connection:
        statement = ConsentStatement(who, (Change("channel:email", "off"),), at)
        events.record(connection, services.secret, statement, Provenance(source, "tests"), at)


def import_rows(services: Services, *rows: dict[str, Any]) -> conversions.ConversionImport:
    campaign = overview.find(services, "spring")
    assert campaign is not None
    context = ConversionContext("loan", services.clock(), conversions.zone(services))
    return conversions.record(services, campaign, (read_row(line, row, context) for line, row in enumerate(rows, 1)))


# -- counts ------------------------------------------------------------------------------------------------------------


def test_results_add_up_to_the_balance_and_the_series(services: Services) -> None:
    run(services)
    report(services, EventKind.DELIVERED, EventKind.READ)
    counted, states = found(services), balance(services).states
    total = counted.total
    assert total.recipients == counted.campaign.audience == len(PEOPLE) + 1
    assert (total.held_out, total.refused) == (states[State.HELD_OUT], states[State.REFUSED])
    assert total.accepted == total.delivered == states[State.DELIVERED] + states[State.READ]
    assert total.read == states[State.READ] > 0
    for measure in (Measure.ACCEPTED, Measure.DELIVERED, Measure.READ, Measure.REFUSED, Measure.FAILED):
        assert sum(point.counts.get(measure, 0) for point in counted.series) == getattr(total, measure), measure
    by_minute = {point.at: point.counts.get(Measure.DELIVERED, 0) for point in counted.series}
    assert by_minute[NOON + timedelta(minutes=5)] == total.delivered  # when the provider says, also of those that were read later


@pytest.mark.parametrize("by", Dimension)
def test_the_groups_add_up_to_the_messages(services: Services, by: Dimension) -> None:
    run(services)
    report(services, EventKind.DELIVERED, EventKind.READ)
    counted = found(services, by)
    if by is not Dimension.VARIANT:
        assert sum(group.tally.read for group in counted.groups) == counted.total.read > 0
        assert sum(group.tally.accepted for group in counted.groups) == counted.total.accepted
    names = {
        Dimension.CHANNEL: {"email"},
        Dimension.LANGUAGE: {"nl", "fr", "en"},
        Dimension.ENTITY: {"kbc-bank"},
        Dimension.DOMAIN: {"example.org"},
        Dimension.VARIANT: set(),
    }
    assert {group.name for group in counted.groups} == names[by]


def test_who_is_drawn_counts_as_held_out_whatever_the_channels(services: Services) -> None:
    people = [person(each, number, channels={"email": True, "push": number % 2 == 0}) for number, each in enumerate(PEOPLE)]
    add_people(services, *people)
    for route in ("first", "all"):
        submit(services, id=route, route=route, channels=["push", "email"])
        made = results.of_campaign(services, route)
        assert made is not None
        assert made.total.held_out == len(drawn(route, services)) > 0
        assert made.total.attempted == made.total.accepted == len(PEOPLE) - made.total.held_out


def test_a_recipient_with_two_messages_counts_once(services: Services) -> None:
    run(services, channels=["push", "email"], route="all", holdout_percent=0)
    report(services, EventKind.DELIVERED)
    counted = found(services, Dimension.CHANNEL)
    assert counted.total.accepted == len(PEOPLE)
    assert {group.name: group.tally.accepted for group in counted.groups} == {"email": len(PEOPLE), "push": len(PEOPLE)}


def test_a_small_domain_is_not_named(services: Services) -> None:
    rare = person("rare", 98, email="jan@jansen.example")
    add_people(services, *(person(each, number) for number, each in enumerate(PEOPLE)), rare)
    submit(services, [*PEOPLE, "rare"], holdout_percent=0)
    groups = {group.name: group.tally.accepted for group in found(services, Dimension.DOMAIN).groups}
    assert groups == {"example.org": len(PEOPLE), "other": 1}


def test_opt_outs_count_for_a_week_and_not_from_imports(services: Services) -> None:
    run(services)
    control = sorted(drawn("spring", services))
    sent = [each for each in PEOPLE if each not in control]
    opt_out(services, sent[0], NOON + timedelta(days=6))
    opt_out(services, control[0], NOON + timedelta(days=6))
    opt_out(services, sent[1], NOON + timedelta(days=8))
    opt_out(services, sent[2], NOON + timedelta(days=6), Source.IMPORT)
    total = found(services).total
    assert (total.opted_out, total.held_out_opted_out) == (1, 1)


def sent_ref(services: Services, campaign_id: str, who: str) -> MessageId:
    with lend(services.pool) as connection:
        row = connection.execute(
            "SELECT m.period, m.chunk, m.row, m.leg FROM messages m JOIN campaigns c ON c.no = m.campaign_no"
            " WHERE c.id = %s AND m.recipient_id = %s",
            (campaign_id, who),
        ).fetchone()
    assert row is not None
    return MessageId(*row)


def opted_out(services: Services, campaign_id: str) -> tuple[int, int]:
    """Of one campaign: the count, and the sum of the series."""
    made = results.of_campaign(services, campaign_id)
    assert made is not None
    return made.total.opted_out, sum(point.counts.get(Measure.OPTED_OUT, 0) for point in made.series)


def two_campaigns(services: Services) -> None:
    add_people(services, *(person(each, number) for number, each in enumerate(PEOPLE)))
    assert isinstance(services.clock, Clock)
    submit(services, id="first", holdout_percent=0)
    services.clock.now += timedelta(hours=2)
    submit(services, id="second", holdout_percent=0)
    services.clock.now += timedelta(hours=2)


def test_an_opt_out_counts_for_the_campaign_of_its_link(services: Services) -> None:
    two_campaigns(services)
    link = message_token(services.secret, UNSUBSCRIBE, str(sent_ref(services, "first", PEOPLE[0])))
    owner = owner_of_token(services, UNSUBSCRIBE, link)
    assert owner is not None
    change = [Change("channel:email", "off")]
    preferences.record(
        services, lambda _: None, PreferenceChange(PEOPLE[0], change, Source.UNSUBSCRIBE, "recipient", message=owner.ref)
    )
    assert (opted_out(services, "first"), opted_out(services, "second")) == ((1, 1), (0, 0))


def test_an_opt_out_elsewhere_counts_for_the_last_message(services: Services) -> None:
    two_campaigns(services)
    opt_out(services, PEOPLE[0], services.clock())
    opt_out(services, PEOPLE[1], NOON + timedelta(hours=1))  # said before the second campaign
    assert (opted_out(services, "first"), opted_out(services, "second")) == ((1, 1), (1, 1))


def test_a_report_of_an_opt_out_counts_for_its_message(services: Services) -> None:
    two_campaigns(services)
    ref = sent_ref(services, "first", PEOPLE[0])
    told = Event("sendgrid", "e-1", Channel.EMAIL, EventKind.OPTED_OUT, services.clock(), str(ref), None)
    provider_events.store_events(services, [told])
    while provider_events.apply_batch(services, lambda _: None):
        pass
    assert (opted_out(services, "first"), opted_out(services, "second")) == ((1, 1), (0, 0))


def test_a_campaign_of_an_earlier_version_is_counted_as_then(services: Services) -> None:
    run(services)
    report(services, EventKind.READ)  # without a report of the delivery
    report(services, EventKind.DELIVERED, EventKind.COMPLAINED, minutes=9)
    opt_out(services, sorted(set(PEOPLE) - drawn("spring", services))[0], NOON + timedelta(hours=1))
    recorded = found(services)
    with lend(services.pool) as connection:
        connection.execute("UPDATE campaigns SET results_recorded = false")
        connection.execute("DELETE FROM report_minutes")
        connection.execute("DELETE FROM opt_out_origins")
    assert found(services).series == recorded.series
    assert found(services).total == replace(recorded.total, opted_out_in_window=found(services).total.opted_out_in_window)


def test_the_lift_counts_opt_outs_of_other_campaigns_too(services: Services) -> None:
    run(services)
    assert isinstance(services.clock, Clock)
    services.clock.now += timedelta(days=1)
    submit(services, id="other", holdout_percent=0, channels=["push"])
    for who in (min(set(PEOPLE) - drawn("spring", services)), min(drawn("spring", services))):
        opt_out(services, who, services.clock())
    (lift,) = found(services).lifts
    assert (found(services).total.opted_out, opted_out(services, "other")) == (0, (2, 2))
    assert (lift.treated.count, lift.control.count) == (1, 1)


@pytest.mark.parametrize(
    ("span", "step"), [(timedelta(hours=2), Step.MINUTE), (timedelta(days=2), Step.HOUR), (timedelta(days=40), Step.DAY)]
)
def test_a_series_has_a_readable_step_and_no_gaps(span: timedelta, step: Step) -> None:
    happened = [Occurrences(Measure.READ, NOON, 2), Occurrences(Measure.READ, NOON + span, 3)]
    chosen, points = results.series(happened)
    assert chosen is step
    assert sum(point.counts.get(Measure.READ, 0) for point in points) == 5
    gaps = {after.at - before.at for before, after in pairwise(points)}
    assert gaps == {timedelta(**{f"{step}s": 1})}
    assert points[-1].counts == {Measure.READ: 3}


# -- conversions -------------------------------------------------------------------------------------------------------


def test_each_row_of_conversions_is_in_one_count(services: Services) -> None:
    run(services)
    clock = services.clock
    assert isinstance(clock, Clock)
    clock.pass_(2 * 86_400)
    rows = [
        {"recipient": "c-1", "at": "2026-11-24"},
        {"recipient": "c-1", "at": "2026-11-23T14:00:00+01:00"},
        {"recipient": "c-2", "at": "2026-11-24 09:00"},
        {"recipient": "c-3", "at": "2026-11-22"},
        {"recipient": "elsewhere", "at": "2026-11-24"},
        {"recipient": "c-4", "at": "yesterday"},
        {"recipient": "c-4", "at": "2026-12-24"},
        {"recipient": "c-4", "at": "2026-11-24", "goal": "opt_outs"},
    ]
    earlier = {"recipient": "c-2", "at": "2026-11-23T13:30"}
    first, second = import_rows(services, *rows), import_rows(services, *rows)
    assert import_rows(services, earlier).known == import_rows(services, {**earlier, "at": "2026-11-24"}).known == 1
    assert (first.new, first.known, first.before_start, first.not_in_audience, first.invalid) == (2, 1, 1, 1, 3)
    assert (second.new, second.known) == (0, 3)
    assert [(error.line, error.field) for error in first.errors] == [(6, "at"), (7, "at"), (8, "goal")]
    with lend(services.pool) as connection:
        times = dict(connection.execute("SELECT recipient_id, at FROM conversions").fetchall())
    assert times["c-1"] == datetime(2026, 11, 23, 13, tzinfo=UTC)  # the first time
    assert times["c-2"] == datetime(2026, 11, 23, 12, 30, tzinfo=UTC)  # in the policy's time zone


def test_the_lift_compares_the_attempted_with_the_drawn(services: Services) -> None:
    run(services)
    control = drawn("spring", services)
    sent = [each for each in PEOPLE if each not in control]
    report(services, EventKind.BOUNCED)  # some failed: they stay in their group
    import_rows(services, *({"recipient": each, "at": "2026-11-23"} for each in (*sent, "none", min(control))))
    loan, opt_outs = found(services).lifts
    assert (loan.outcome, opt_outs.outcome) == ("loan", "opt_outs")
    assert (loan.treated.count, loan.treated.total) == (len(sent), len(sent))
    assert (loan.control.count, loan.control.total) == (1, len(control))
    assert loan.difference is not None
    assert loan.difference.verdict is Verdict.HIGHER
    assert opt_outs.difference is not None
    assert opt_outs.difference.verdict is Verdict.NO_DIFFERENCE_YET


def test_without_a_control_group_there_is_no_lift(services: Services) -> None:
    assert run(services, holdout_percent=0).lifts == []


def test_a_conversion_is_exported_and_erased_with_the_person(services: Services) -> None:
    run(services)
    import_rows(services, {"recipient": "c-1", "at": "2026-11-23"})
    assert [each["campaign"] for each in recipients.export(services, "c-1")["conversions"]] == ["spring"]
    with lend(services.pool) as connection:
        erasure.erase(connection, services.secret, "c-1", "tests", services.clock())
        assert connection.execute("SELECT FROM conversions").fetchall() == []


# -- files -------------------------------------------------------------------------------------------------------------


def test_csv_and_parquet_hold_the_same_numbers(services: Services, tmp_path: Path) -> None:
    run(services)
    report(services, EventKind.DELIVERED, EventKind.READ)
    counted = found(services, Dimension.LANGUAGE)
    for name in ("results.csv", "results.parquet"):
        assert result_files.write(counted, tmp_path / name) > 50
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        text = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert [int(row["count"] or 0) for row in text] == [row["count"] or 0 for row in table]
    totals = {row["measure"]: row for row in table if row["part"] == "total"}
    assert (totals["read"]["count"], totals["read"]["of"]) == (counted.total.read, counted.total.accepted)
    assert totals["read"]["low"] < totals["read"]["rate"] < totals["read"]["high"]
    assert {row["at"] for row in table if row["part"] == "series"} >= {NOON}


def test_a_file_of_another_type_is_refused(services: Services, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"should end in \.csv or \.parquet"):
        result_files.write(run(services), tmp_path / "results.xlsx")
