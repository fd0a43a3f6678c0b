"""The policy file: all errors are reported at once, and the policy has the values of the file."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from channels.base import Channel
from dispatcher.domain.canaries import OptOutWay
from dispatcher.domain.decision import Hold, ReasonCode, Send
from dispatcher.policy import InvalidPolicy, RetryPolicy, SmsPrices, decide, parse, parse_former, shipped
from tests.support.policy_decisions import POLICY, codes
from tests.support.strategies import (
    sendable,
)


def faults_of(*changes: tuple[str, str]) -> list[str]:
    text = shipped()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(InvalidPolicy) as caught:
        parse(text, "bank.toml")
    return [str(fault) for fault in caught.value.faults]


def test_all_errors_of_a_policy_file_are_reported_at_once() -> None:
    faults = faults_of(
        ("adult_years = 18", "adult_yaers = 18"),
        ("cap_seconds = 3600", "cap_seconds = 3"),
        ('whatsapp = "contract"', 'whatsap = "contract"'),
        ("from = 21:00:00", "from = 08:00:00"),
    )
    assert faults == [
        "bank.toml: ages.adult_years: is missing",
        "bank.toml: ages.adult_yaers: unknown key; did you mean adult_years?",
        "bank.toml: basis.own.tailored.whatsap: unknown key; did you mean whatsapp?",
        "bank.toml: quiet_hours.push: from and to must differ; a channel that is never used has no basis instead",
        "bank.toml: retry.cap_seconds = 3.0: not less than base_seconds",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('email = "consent"', 'email = "soft_opt_in"', "basis.partner.standard.email = 'soft_opt_in'"),
        ('email = "contract"', 'email = "legitimate_interest"', "basis.own.tailored.email = 'legitimate_interest'"),
        ('"preference_centre", "import"]', '"provider"]', "consent.sources = 'provider'"),
        ('sms_whatsapp = ["sms", "whatsapp"]', 'sms_whatsapp = ["sms"]', "channel_groups.sms_whatsapp: must hold"),
        (
            'standard = ["identity",',
            'standard = ["shoe_size", "identity",',
            "categories.standard = ['shoe_size']: standard may not use more than tailored does",
        ),
        ("adult_years = 18", "adult_years = true", "ages.adult_years = True: a whole number"),
        (
            'default_zone = "Europe/Brussels"',
            'default_zone = "Europe/Brusels"',
            "bank.toml: default_zone = 'Europe/Brusels': a time zone such as Europe/Brussels",
        ),
        ("[holdout]", "[holdout", "bank.toml: the file: is not TOML: "),
        ("on = 2026-11-23", 'on = "soon"', "signed.on = 'soon': a date such as"),
        ("needs_current_account = true", 'needs_current_account = "yes"', "true or false"),
        (
            'sender_address = "news@kbc-bank.example"',
            'sender_address = "news"',
            "bank.toml: entities.kbc-bank.sender_address = 'news': an e-mail address",
        ),
        (
            'controllers = ["KBC Bank NV"]',
            "controllers = []",
            "bank.toml: entities.kbc-bank.controllers: at least one company that answers",
        ),
        ("[basis.own.tailored]", "[basis.own.tailord]", "basis.own.tailord: unknown key; did you mean tailored?"),
        ('push = "service"', 'push = "servise"', "basis.service.push = 'servise': unknown; did you mean service?"),
        ('email = ["email"]', 'email = ["emial"]', "channel_groups.email = 'emial': unknown; did you mean email?"),
        ('sold_by = ["kbc-insurance"]', 'sold_by = ["kbc-insurence"]', "did you mean kbc-insurance?"),
        (
            'analogous = ["insurance"]',
            'analogous = ["insurence"]',
            "soft_opt_in.products.insurance.analogous = 'insurence': unknown; did you mean",
        ),
        ("[coins]", "[[coins]]", "bank.toml: coins = [{'needs_current_account': True}]: a table"),
        ('by = "nobody (example policy)"', 'by = " "', "signed.by = ' ': a text in quotes"),
        ('service = ["identity"', 'service = [7, "identity"', "'partner_offer', 'coins', 'contact']: a list of words"),
        (
            'service = ["identity"',
            'service = ["identity", "identity"',
            "'identity', 'language', 'product', 'partner_offer', 'coins', 'contact']: each word once",
        ),
        ("base_seconds = 30", "base_seconds = 0", "retry.base_seconds = 0: a number from 1 to 86400"),
        ('window = "7 days"', 'window = "7 dayz"', "caps.1.window = '7 dayz': calendar_day, or a length such as"),
        ('window = "7 days"', 'window = "0 days"', "caps.1.window = '0 days'"),
        ('window = "7 days"', "", "caps.1.window: is missing"),
        ("max = 7", "max = 0", "caps.1.max = 0: a whole number"),
        ('name = "a_week"', 'name = "text_messages_a_day"', "caps.2.name = 'text_messages_a_day': another cap has this name"),
        ('channels = ["sms", "whatsapp"]\nmax', 'channels = ["smss"]\nmax', "did you mean sms?"),
        ('public_holidays = "BE"', 'public_holidays = "Atlantis"', "public_holidays = 'Atlantis': a country such as BE"),
        ('silent_days = ["sunday", "pub', 'silent_days = ["sonday", "pub', "did you mean sunday?"),
        (
            'silent_days = ["sunday", "pub',
            'silent_days = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "pub',
            "quiet_hours.sms.silent_days: leaves no day",
        ),
        ("complaint_rate_pause = 0.003", "complaint_rate_pause = 0.0003", "complaint_rate_pause = 0.0003: not less than"),
        ("audience_min = 500_000", "audience_min = -1", "four_eyes.audience_min = -1: a whole number"),
        (
            '{ products = ["loan"] }',
            '{ products = ["laon"] }',
            "topics.consumer_credit.products = 'laon': unknown; did you mean loan?",
        ),
        (
            "contact =",
            'senders = { sms = "A far too long name" }\ncontact =',
            "entities.kbc-bank.senders.sms = 'A far too long name': a number",
        ),
        ("contact =", 'senders = { whatsapp = "KBC" }\ncontact =', "entities.kbc-bank.senders.whatsapp = 'KBC': a number such as"),
        ("contact =", 'senders = { push = "KBC" }\ncontact =', "entities.kbc-bank.senders.push: unknown key"),
        (
            'channels = ["sms", "whatsapp"]\nmax',
            'offer_types = ["onw"]\nmax',
            "caps.2.offer_types = 'onw': unknown; did you mean own?",
        ),
        ('channels = ["sms", "whatsapp"]\nmax', 'chanels = ["sms"]\nmax', "caps.2.chanels: unknown key; did you mean channels?"),
        ('window = "7 days"', 'window = "367 days"', "caps.1.window = '367 days': calendar_day, or a length"),
        ("push = { from = 21", "pusch = { from = 21", "quiet_hours.pusch: unknown key; did you mean push?"),
        ("from = 21:00:00", 'from = "21:00"', "quiet_hours.push.from = '21:00': a time such as 21:00:00"),
        ("whatsapp = { codes", "whatsup = { codes", "rests.whatsup: unknown key; did you mean whatsapp?"),
        (
            'blocking = ["error"]',
            'blocking = ["eror"]',
            "template_checks.blocking = 'eror': error, warning, info, or a code such as T104",
        ),
        ("push_title_max = 65", "push_title_max = 0", "template_checks.push_title_max = 0: a whole number from 1 to 4096"),
        ("en = []", "en = [1]", "template_checks.avoided_address.en = [1]: a list of words"),
        ("en = []", "em = []", "template_checks.avoided_address.em: unknown key"),
        ("templates = true", 'templates = "loan_offer"', "four_eyes.templates = 'loan_offer': true or false"),
        ('content = "30 days"', 'content = "a month"', "retention.content = 'a month': a length such as"),
        ('content = "30 days"', 'content = "0 days"', "retention.content = '0 days'"),
        ('content = "30 days"', 'content = "3651 days"', "retention.content = '3651 days': not longer than decisions"),
        ('news = "30 days"', 'news = "101 years"', "retention.news = '101 years': a length such as"),
        ('answers = "30 days"', 'anwsers = "30 days"', "retention.anwsers: unknown key; did you mean answers?"),
        ('decisions = "10 years"', 'decisions = "364 days"', "retention.decisions = '364 days': a year at least"),
        ('consent = "10 years"', 'consent = "9 years"', "retention.consent = '9 years': not shorter than decisions"),
        ("attempts_max = 6", "attempts_max = 6.5", "retry.attempts_max = 6.5: a whole number from 1 to 100"),
    ],
)
def test_a_contradictory_or_unlawful_policy_is_refused(old: str, new: str, fault: str) -> None:
    assert any(fault in line for line in faults_of((old, new)))


BOUNDS = [
    ("max = 7", "caps.1.max", 1, 10_000),
    ("attempts_max = 6", "retry.attempts_max", 1, 100),
    ("base_seconds = 30", "retry.base_seconds", 1, 3600),  # more would exceed cap_seconds
    ("cap_seconds = 3600", "retry.cap_seconds", 30, 604_800),  # less would fall below base_seconds
    ("throttle_seconds = 60", "retry.throttle_seconds", 1, 86_400),
    ("stopped_seconds = 300", "retry.stopped_seconds", 1, 86_400),
    (
        "complaint_rate_warn = 0.001",
        "brake.complaint_rate_warn",
        0,
        0.003,
    ),  # the limit for a warning must not exceed the limit for a pause
    ("complaint_rate_pause = 0.003", "brake.complaint_rate_pause", 0.001, 1),
    ("bounce_rate_pause = 0.05", "brake.bounce_rate_pause", 0, 1),
    ("minimum = 1000", "brake.minimum", 1, 10_000_000),
    ("audience_min = 500_000", "four_eyes.audience_min", 0, 1_000_000_000),
    ("adult_years = 18", "ages.adult_years", 1, 120),
    ("hours = 24", "rests.whatsapp.hours", 1, 8_784),
]


@pytest.mark.parametrize(("written", "key", "least", "most"), BOUNDS)
def test_a_number_is_accepted_only_within_its_bounds(written: str, key: str, least: float, most: float) -> None:
    name = written.partition(" = ")[0]
    for right in (least, most):
        parse(shipped().replace(written, f"{name} = {right}", 1))
    below = least - 1 if isinstance(least, int) else least / 2
    for wrong in (below, most + 1):
        faults = faults_of((written, f"{name} = {wrong}"))
        assert any(fault.startswith(f"bank.toml: {key} = ") or "not less than" in fault for fault in faults)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ('window = "7 days"', 'window = "366 days"'),
        ('window = "7 days"', 'window = "1 minutes"'),
        ('decisions = "10 years"', 'decisions = "3650 days"'),
        ('consent = "10 years"', 'consent = "100 years"'),
        ('consent = "10 years"', 'consent = "36500 days"'),
        ('content = "30 days"', 'content = "10 years"'),
        ('content = "30 days"', 'content = "1 days"'),
    ],
)
def test_a_length_of_time_is_accepted_within_its_bounds(written: str, right: str) -> None:
    parse(shipped().replace(written, right, 1))


@pytest.mark.parametrize("wrong", ["100 years 1", "101 years", "36501 days", "-1 days", "1  days", "days", "٣ days", "1.5 years"])
def test_a_malformed_length_of_time_is_refused(wrong: str) -> None:
    [fault] = faults_of(('consent = "10 years"', f'consent = "{wrong}"'))
    assert fault.startswith(f"bank.toml: retention.consent = {wrong!r}: a length such as")


def test_decisions_are_kept_for_at_least_a_year() -> None:
    shorter = shipped().replace('decisions = "10 years"', 'decisions = "1 years"')
    assert parse(shorter).retention.decisions.days == 365


def test_a_policy_needs_an_entity_and_lists_one_error_per_line() -> None:
    text = shipped()
    start, end = text.index("[entities.kbc-bank]"), text.index("[basis.own.tailored]")
    with pytest.raises(InvalidPolicy) as caught:
        parse(f"entities = {{}}\n{text[:start]}{text[end:]}")
    lines = str(caught.value).splitlines()
    assert "policy.toml: entities: at least one entity" in lines
    assert len(lines) == len(caught.value.faults) > 1


def test_caps_are_a_list_of_tables_that_may_be_empty() -> None:
    before, _, after = shipped().partition("[[caps]]")
    rest = after[after.index("[rests]") :]
    assert parse(f"caps = []\n{before}{rest}").caps == ()
    with pytest.raises(InvalidPolicy) as caught:
        parse(f"caps = 7\n{before}{rest}")
    assert str(caught.value) == "policy.toml: caps = 7: tables headed [[caps]], or caps = []"


def test_the_policy_has_the_values_of_the_file() -> None:
    policy = parse(shipped().replace("cap_seconds = 3600", "cap_seconds = 30"))
    assert policy.retry == RetryPolicy(6, 30.0, 30.0, 60.0, 300.0)
    assert (policy.default_zone, policy.adult_years, policy.signed_on) == ("Europe/Brussels", 18, date(2026, 11, 23))
    assert policy.entities["kbc-insurance"].names["fr"] == "KBC Assurances"
    assert policy.topics == {"consumer_credit": {"loan"}}
    assert len(policy.digest) == 64


def test_a_term_is_counted_by_the_calendar() -> None:
    leap, noon = datetime(2028, 2, 29, 12, tzinfo=UTC), datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert POLICY.retention.prospects.before(leap) == datetime(2023, 2, 28, 12, tzinfo=UTC)
    assert POLICY.retention.decisions.before(noon) == datetime(2016, 11, 23, 12, tzinfo=UTC)
    assert POLICY.retention.content.before(noon) == datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert str(POLICY.retention.decisions) == "10 years"


def test_a_missing_table_is_one_error_and_not_one_per_key() -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse("")
    places = [fault.key for fault in caught.value.faults]
    assert len(places) == len(set(places)) == 22
    assert all(fault.expected == "is missing" for fault in caught.value.faults)


def test_an_entity_may_add_a_cell_to_the_tables_of_bases() -> None:
    text = shipped()
    start, end = text.index("[basis.kate.tailored]"), text.index("[basis.service]")
    opened = '[entities.kbc-bank.basis.kate.tailored]\nemail = "contract"\n[entities.kbc-bank.basis.partner.tailored]\nsms = []\n'
    policy = parse(text[:start] + opened + text[end:])
    kate = policy.basis["kbc-bank"]["kate"]
    assert {choice: set(row) for choice, row in kate.items()} == {"tailored": {Channel.EMAIL}}
    assert "kate" not in policy.basis["cbc-banque"]
    partner = policy.basis["kbc-bank"]["partner"]
    assert (partner["tailored"][Channel.SMS], len(partner["tailored"][Channel.EMAIL]), len(partner["standard"])) == ((), 1, 4)


def test_an_entity_may_have_its_own_senders_for_text_messages() -> None:
    text = shipped().replace("contact =", 'senders = { sms = "KBC", whatsapp = "+32460000002" }\ncontact =', 1)
    assert parse(text).entities["kbc-bank"].senders == {Channel.SMS: "KBC", Channel.WHATSAPP: "+32460000002"}
    assert POLICY.entities["kbc-bank"].senders == {}


def test_a_former_policy_still_gives_entities_zone_and_age() -> None:
    older = (
        shipped()
        .partition("[retention]")[0]
        .replace("KBC Bank NV", "Kredietbank NV")
        .replace("adult_years = 18", "adult_years = 21")
    )
    with pytest.raises(InvalidPolicy):
        parse(older)
    former = parse_former(older, POLICY)
    assert (former.entities["kbc-bank"].controllers, former.adult_years, former.retention) == (
        ("Kredietbank NV",),
        21,
        POLICY.retention,
    )
    assert former.digest == hashlib.sha256(older.encode()).hexdigest()
    assert parse_former(older.replace("Europe/Brussels", "Europe/Lisbon"), POLICY).default_zone == "Europe/Lisbon"
    assert parse_former(shipped(), POLICY) == parse(shipped())
    for unreadable in ("", "[", "default_zone = 7\n[ages]\nadult_years = 'x'"):
        fallback = parse_former(unreadable, POLICY)
        assert (fallback.entities, fallback.default_zone, fallback.adult_years) == (
            POLICY.entities,
            POLICY.default_zone,
            POLICY.adult_years,
        )


def test_an_entity_may_empty_a_single_cell_of_the_bases() -> None:
    text = shipped().replace(
        "# [entities.kbc-insurance.basis.own.standard]\n# whatsapp",
        "[entities.kbc-insurance.basis.own.standard]\nwhatsapp",
    )
    policy = parse(text)
    assert policy.digest != POLICY.digest
    scenario = sendable(choice="standard", route="all").with_job(entity="kbc-insurance")
    decision = decide(scenario.job, scenario.facts, policy, scenario.now)
    assert isinstance(decision, Send)
    assert {reason.channel for reason in decision.reasons} == {Channel.WHATSAPP}
    assert codes(decision) == {ReasonCode.NO_BASIS}
    assert decide(scenario.with_job(entity="kbc-bank").job, scenario.facts, policy, scenario.now).reasons == ()


@pytest.mark.parametrize("unknown", [None, "", "Mars/Olympus", "../etc/passwd", "Europe"])
def test_an_unknown_zone_becomes_the_policys_default(unknown: str | None) -> None:
    policy = replace(POLICY, default_zone="Pacific/Auckland")  # 13 hours ahead of UTC in November
    scenario = sendable(channels=(Channel.SMS,)).with_facts(timezone=unknown)
    late, noon = datetime(2026, 11, 23, 8, 0, tzinfo=UTC), datetime(2026, 11, 22, 23, 0, tzinfo=UTC)
    assert isinstance(decide(scenario.job, scenario.facts, policy, late), Hold)
    assert isinstance(decide(scenario.job, scenario.facts, policy, noon), Send)


def test_prices_of_text_messages_are_read_by_country() -> None:
    assert parse(shipped()).sms_prices is None
    prices = parse(shipped() + '\n[sms_prices]\ncurrency = "EUR"\nBE = 0.08\n').sms_prices
    assert prices == SmsPrices("EUR", {"BE": 0.08})
    with pytest.raises(InvalidPolicy) as caught:
        parse(shipped() + '\n[sms_prices]\ncurrency = "euro"\nBE = -1\nBelgium = 1\n', "bank.toml")
    assert [fault.key for fault in caught.value.faults] == ["sms_prices.currency", "sms_prices.BE", "sms_prices.Belgium"]


def test_each_canary_has_addresses_of_its_own() -> None:
    text = (
        shipped().replace("# [canaries.one_click]", "[canaries.one_click]").replace('# email = "canary-one', 'email = "canary-one')
    )
    assert parse(text).canaries.addresses == {OptOutWay.ONE_CLICK: {Channel.EMAIL: "canary-one-click@kbc-bank.example"}}
    assert parse(shipped()).canaries.addresses == {}
    faulty = (
        '[canaries.api]\nemail = "canary-one-click@kbc-bank.example"\nsms = "12"\n[canaries.stop]\nsms = "+32470000001"\n\n# -- reg'
    )
    with pytest.raises(InvalidPolicy) as caught:
        parse(text.replace("# -- reg", faulty, 1), "bank.toml")
    assert [fault.key for fault in caught.value.faults] == ["canaries.api.sms", "canaries.api.email", "canaries.stop"]
