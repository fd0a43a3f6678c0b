"""Read the tables of quiet hours, frequency caps, cool-downs (`rests`), retries, complaint brake, files, retention, replies and
prices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields

import phonenumbers

from channels.base import Channel
from dispatcher.domain import addresses
from dispatcher.domain.principal import Role
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.policy.data import (
    ComplaintBrake,
    ContractRules,
    CoolDownRules,
    FileRules,
    GlobalControlGroup,
    RetentionPeriod,
    RetentionPeriods,
    RetryPolicy,
    ScheduleRules,
    SmsPrices,
    Tester,
    TextRules,
)
from dispatcher.policy.frequency_caps import FrequencyCap
from dispatcher.policy.grants import CHANNELS, OFFERS
from dispatcher.policy.quiet_hours import PUBLIC_HOLIDAY, WEEKDAYS, QuietHours, public_holidays
from dispatcher.policy.section import Section

UNITS = {"minutes": 60, "hours": 3_600, "days": 86_400}
WINDOW_SECONDS_MAX = 366 * 86_400
RETENTION_DAYS_MAX = 36_500
# Classes that policies of before do not name.
RETENTION_DEFAULTS = {
    "refused_jobs": "30 days",
    "events": "90 days",
    "uploads": "7 days",
    "event_files": "365 days",
    "audit": "10 years",
    "erasure_requests": "10 years",
    "canaries": "400 days",
}
LINT_SEVERITIES = ("error", "warning", "info")
LINT_CODE = re.compile(r"T[0-9]{3}")
TEXT_CHARACTERS_MAX = 4_096  # FCM takes as many bytes for a whole push
AUDIT_DAYS_MIN = 365  # the ledger never deletes a younger row of the audit log
DECISIONS_DAYS_MIN = 365  # the ledger never drops a younger month


def country(top: Section) -> str:
    """The country whose public holidays count; an ISO 3166-1 code."""
    name = top.text("public_holidays")
    try:
        if name:
            public_holidays(name, 2026)
    except NotImplementedError:
        top.fault("public_holidays", "a country such as BE, by its ISO 3166-1 code", name)
    return name


def quiet_hours(table: Section, holidays_of: str) -> dict[Channel, QuietHours]:
    """When channels are silent. `holidays_of` is the country of the public holidays."""
    quiet = {}
    with table:
        for channel in table.each(CHANNELS):
            with table.section(channel) as hours:
                days = hours.strings("silent_days", (*WEEKDAYS, PUBLIC_HOLIDAY), default=())
                weekdays = frozenset(WEEKDAYS.index(day) for day in days if day != PUBLIC_HOLIDAY)
                calendar = holidays_of if PUBLIC_HOLIDAY in days else None
                quiet[Channel(channel)] = QuietHours(hours.clock("from"), hours.clock("to"), weekdays, calendar)
                if len(weekdays) == len(WEEKDAYS):
                    hours.fault("silent_days", "leaves no day; a channel that is never used has no basis instead")
            if {"from", "to"} <= hours.data.keys() and hours.data["from"] == hours.data["to"]:
                table.fault(channel, "from and to must differ; a channel that is never used has no basis instead")
    return quiet


def caps(top: Section) -> Iterator[FrequencyCap]:
    """The frequency caps."""
    names: set[str] = set()
    for table in top.sections("caps"):
        with table:
            cap = FrequencyCap(
                name=table.text("name"),
                maximum=table.integer("max", 1, 10_000),
                channels=frozenset(Channel(name) for name in table.strings("channels", CHANNELS, default=CHANNELS)),
                offer_types=frozenset(table.strings("offer_types", OFFERS, default=OFFERS)),
                rolling_seconds=_window(table),
            )
        if cap.name in names:
            table.fault("name", "another cap has this name; reasons cite it", cap.name)
        names.add(cap.name)
        yield cap


def _window(table: Section) -> float | None:
    """Seconds of a rolling window, or None for a calendar day."""
    window = table.text("window")
    if window == "calendar_day":
        return None
    number, _, unit = window.partition(" ")
    if unit in UNITS and number.isascii() and number.isdigit() and 0 < int(number) * UNITS[unit] <= WINDOW_SECONDS_MAX:
        return float(int(number) * UNITS[unit])
    if window:
        table.fault("window", 'calendar_day, or a length such as "90 minutes", "36 hours" or "7 days", a year at most', window)
    return 0.0


def cool_downs(table: Section) -> dict[Channel, CoolDownRules]:
    """Providers' own limits per person."""
    rules = {}
    with table:
        for channel in table.each(CHANNELS):
            with table.section(channel) as row:
                rules[Channel(channel)] = CoolDownRules(frozenset(row.strings("codes")), 3_600 * row.number("hours", 1, 8_784))
    return rules


def retry(table: Section) -> RetryPolicy:
    """Limits and waits after failed attempts."""
    with table:
        numbers = RetryPolicy(
            attempts_max=table.integer("attempts_max", 1, 100),
            base_seconds=table.number("base_seconds", 1, 86_400),
            cap_seconds=table.number("cap_seconds", 1, 604_800),
            throttle_seconds=table.number("throttle_seconds", 1, 86_400),
            stopped_seconds=table.number("stopped_seconds", 1, 86_400),
        )
    if numbers.cap_seconds < numbers.base_seconds:
        table.fault("cap_seconds", "not less than base_seconds", numbers.cap_seconds)
    return numbers


def complaint_brake(table: Section) -> ComplaintBrake:
    """When a campaign pauses itself."""
    with table:
        numbers = ComplaintBrake(
            complaint_rate_warn=table.number("complaint_rate_warn", 0, 1),
            complaint_rate_pause=table.number("complaint_rate_pause", 0, 1),
            bounce_rate_pause=table.number("bounce_rate_pause", 0, 1),
            minimum=table.integer("minimum", 1, 10_000_000),
        )
    if numbers.complaint_rate_pause < numbers.complaint_rate_warn:
        table.fault("complaint_rate_pause", "not less than complaint_rate_warn", numbers.complaint_rate_pause)
    return numbers


def file_rules(top: Section, campaigns: Section, files: Section) -> FileRules:
    """How files are read, and which campaigns are refused or wait. Each key has a default."""
    rules = FileRules()
    region = top.text("default_region", rules.default_region)
    if region and region not in phonenumbers.SUPPORTED_REGIONS:
        top.fault("default_region", "a country such as BE, by its ISO 3166-1 code", region)
    return FileRules(
        default_region=region,
        quoted_lines_max=files.integer("quoted_lines_max", 1, 1_000, rules.quoted_lines_max),
        invalid_max_percent=campaigns.number("invalid_max_percent", 0, 100, rules.invalid_max_percent),
        send_at_past_minutes=campaigns.number("send_at_past_minutes", 0, 1_000_000, rules.send_at_past_minutes),
    )


def retention(table: Section) -> RetentionPeriods:
    """How long each class of data is kept."""
    with table:
        periods = RetentionPeriods(**{field.name: _retention_period(table, field.name) for field in fields(RetentionPeriods)})
    if periods.decisions.days < DECISIONS_DAYS_MIN:
        table.fault("decisions", "a year at least", str(periods.decisions))
    if periods.consent.days < periods.decisions.days:
        table.fault("consent", "not shorter than decisions, which cite what people said", str(periods.consent))
    if periods.audit.days < AUDIT_DAYS_MIN:
        table.fault("audit", "a year at least", str(periods.audit))
    for name in ("content", "news", "answers", "refused_jobs", "events", "uploads", "event_files"):
        if getattr(periods, name).days > periods.decisions.days:
            table.fault(name, "not longer than decisions", str(getattr(periods, name)))
    return periods


def testers(table: Section, region: str) -> dict[str, Tester]:
    """The staff who get test sends. `region` is the country of numbers without a country code."""
    read: dict[str, Callable[[str], str]] = {
        "email": addresses.email,
        "sms": lambda text: addresses.mobile_phone(text, region),
        "whatsapp": lambda text: addresses.phone(text, region),
        "push": str.strip,
    }
    found = {}
    with table:
        for name in table.each():
            with table.section(name) as row:
                language = row.strings("language", LANGUAGES)
                recipient = row.text("recipient", "") or None
                named = {channel: row.text(channel) for channel in read if channel in row.data}
                row.each(read)
            normal: dict[Channel, str] = {}
            for channel, text in named.items():
                try:
                    normal[Channel(channel)] = read[channel](text)
                except addresses.InvalidAddress as error:
                    row.fault(channel, f"an address: this one {error}")
            if not named:
                table.fault(name, "an address for at least one channel: email, sms, whatsapp or push")
            if language:
                found[name] = Tester(name, language[0], normal, recipient)
    return found


def deleted_unread(table: Section) -> str:
    """What a reply counts as whose text is deleted before anybody read it."""
    with table:
        values = table.strings("deleted_unread", ("stop", "hold"), default=("stop",))
        if len(values) != 1:
            table.fault("deleted_unread", "stop or hold", table.data.get("deleted_unread"))
    return values[0] if values else "stop"


def global_control_group(holdout: Section) -> GlobalControlGroup:
    """The control group across campaigns; none without its keys."""
    percent = holdout.number("global_percent", 0, 50, default=0.0)
    salt = holdout.text("global_salt", "")
    if percent and not salt:
        holdout.fault("global_salt", 'is missing: a text such as "2026-Q4"; another one selects other people')
    return GlobalControlGroup(percent, salt)


def schedule_rules(table: Section) -> ScheduleRules:
    """How recurring campaigns are approved, and what becomes of missed runs."""
    rules = ScheduleRules()
    with table:
        approval = table.strings("approval", ("run", "definition"), default=(rules.approval,))
        missed = table.strings("missed", ("skip", "late"), default=(rules.missed,))
        late_minutes_max = table.number("late_minutes_max", 1, 10_080, rules.late_minutes_max)
        for key, values, expected in (("approval", approval, "run or definition"), ("missed", missed, "skip or late")):
            if len(values) != 1:
                table.fault(key, expected, table.data.get(key))
    return ScheduleRules("".join(approval[:1]), "".join(missed[:1]), late_minutes_max)


def contract_rules(table: Section) -> ContractRules:
    """The version of the contract in force, and what acceptances of other versions are worth."""
    rules = ContractRules()
    with table:
        version = table.text("version", default=rules.version)
        renewal = table.text("renewal", default=rules.renewal)
        if renewal not in {"", "kept", "required"}:
            table.fault("renewal", "kept or required", renewal)
    return ContractRules(version, renewal)


def sms_prices(table: Section) -> SmsPrices | None:
    """What a segment costs by country; None without the table."""
    if not table.data:
        return None
    with table:
        currency = table.text("currency")
        if currency and not (len(currency) == 3 and currency.isascii() and currency.isupper()):
            table.fault("currency", "a currency such as EUR, by its ISO 4217 code", currency)
        prices = {country: table.number(country, 0, 1_000_000) for country in table.each(phonenumbers.SUPPORTED_REGIONS)}
    return SmsPrices(currency, prices)


def template_checks(table: Section) -> tuple[frozenset[str], TextRules]:
    """The severities and codes of the linter's findings that block the approval of a template, and how texts are to be written."""
    rules = TextRules()
    with table:
        names = table.strings("blocking", default=("error",))
        for name in names:
            if name not in LINT_SEVERITIES and not LINT_CODE.fullmatch(name):
                table.fault("blocking", f"{', '.join(LINT_SEVERITIES)}, or a code such as T104", name)
        title_max = table.integer("push_title_max", 1, TEXT_CHARACTERS_MAX, rules.push_title_max)
        body_max = table.integer("push_body_max", 1, TEXT_CHARACTERS_MAX, rules.push_body_max)
        with table.section("avoided_address", required=False) as words:
            given = list(words.each(LANGUAGES))
            avoided = {language: words.strings(language) for language in LANGUAGES if language in given}
    return frozenset(names), TextRules(title_max, body_max, avoided)


def second_factor_roles(table: Section) -> frozenset[str]:
    """The roles whose people need a second factor."""
    with table:
        return frozenset(table.strings("second_factor", [role.value for role in Role], default=()))


def _retention_period(table: Section, key: str) -> RetentionPeriod:
    text = table.text(key, RETENTION_DEFAULTS.get(key))
    number, _, unit = text.partition(" ")
    if unit in ("days", "years") and number.isascii() and number.isdigit():
        period = RetentionPeriod(int(number), unit)
        if 0 < period.days <= RETENTION_DAYS_MAX:
            return period
    if text:
        table.fault(key, 'a length such as "30 days" or "10 years", a century at most', text)
    return RetentionPeriod(RETENTION_DAYS_MAX, "days")
