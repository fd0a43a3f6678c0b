"""A second implementation of the policy, simple and slow, written from the rules of the field and not from `dispatcher.policy`.

It shares no code, table or file with the real one: where they differ, one of them is wrong. It contains the numbers of
the shipped policy, and a global control group of a tenth.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from channels.base import Channel
from dispatcher.domain.message import Job
from dispatcher.domain.recipient import Facts

STRONGEST_FIRST = """
erased unknown_recipient cancelled duplicate expired objected choice_none no_choice mode_not_allowed no_basis minor
age_unknown no_current_account channel_off suppressed no_address no_os_permission template_not_approved whatsapp_not_approved
household one_per_address global_control_group held_out frequency_capped unread_answer quiet_hours
""".split()  # noqa: SIM905 - a list of strings is not easier to read
CONTROL_GROUPS = {"global_control_group", "held_out"}  # people who would have got the message on one channel at least
QUIET = {"push": ("21:00", "08:00"), "sms": ("20:00", "09:00"), "whatsapp": ("20:00", "09:00")}
PUBLIC_HOLIDAYS = """
2026-01-01 2026-04-06 2026-05-01 2026-05-14 2026-05-25 2026-07-21 2026-08-15 2026-11-01 2026-11-11 2026-12-25 2027-01-01
""".split()  # noqa: SIM905 - Belgium's public holidays, without Sundays
ENTITIES = ("kbc-bank", "cbc-banque", "kbc-insurance")
SELLERS = {
    "loan": {"kbc-bank", "cbc-banque"},
    "mortgage": {"kbc-bank", "cbc-banque"},
    "savings": {"kbc-bank", "cbc-banque"},
    "investment": {"kbc-bank", "cbc-banque"},
    "insurance": {"kbc-insurance"},
}
PRODUCT_GROUPS = ({"loan", "mortgage"}, {"savings", "investment"}, {"insurance"})
CONSENT_SOURCES = {"mobile", "touch", "live", "branch", "preference_centre", "import"}


@dataclass
class ExpectedDecision:
    """The expected verdict, with the strongest reason of a refusal, and the permissions or the end of a hold."""

    verdict: str
    headline: str | None = None
    permissions: tuple[tuple[str, str, str], ...] = ()  # channel, mode, basis
    until: datetime | None = None


def expected_decision(job: Job, facts: Facts, now: datetime) -> ExpectedDecision:
    """The decision that the rules require."""
    permissions, refusals, holds, drawn = [], [], [], []
    held_for: set[str] = set()
    for channel in job.channels:
        codes = refusal_codes(job, facts, now, channel)
        delays = delays_until(job, facts, now, channel)
        until = max(delays.values(), default=None)
        if not codes and until is not None and job.expires_at is not None and job.expires_at <= until:
            codes = {"expired"}
        if codes:
            refusals += [*codes, *delays]
            drawn += [*codes] if codes <= CONTROL_GROUPS | {"frequency_capped"} and codes & CONTROL_GROUPS else []
        elif until is not None:
            holds.append(until)
            held_for |= delays.keys()
        else:
            permissions.append((channel.value, rendered_mode(job, facts) or "?", basis(job, facts, channel) or "?"))
    if permissions:
        return ExpectedDecision("Send", permissions=tuple(permissions) if job.route == "all" else (permissions[0],))
    if holds:
        return ExpectedDecision("Hold", min(held_for, key=STRONGEST_FIRST.index), until=min(holds))
    return ExpectedDecision("Refuse", min(drawn or refusals, key=STRONGEST_FIRST.index))


def refusal_codes(job: Job, facts: Facts, now: datetime, channel: Channel) -> set[str]:
    """The codes of all refusals on this channel; not of delays."""
    codes = {
        "erased": facts.erased,
        "unknown_recipient": not facts.known or facts.recipient_id != job.recipient_id,
        "duplicate": facts.repeat_of is not None,
        "expired": job.expires_at is not None and not now < job.expires_at,
        "no_basis": basis(job, facts, channel) is None,
        "suppressed": channel.value in facts.suppressions,
        "no_address": not reachable(facts, channel),
        "no_os_permission": channel.value == "push"
        and len(facts.devices) > 0
        and not [device for device in facts.devices if device.permission],
        "mode_not_allowed": rendered_mode(job, facts) is None
        and (is_service(job) or chosen(job, facts) in ("tailored", "standard")),
    }
    mode = rendered_mode(job, facts)
    if channel.value == "whatsapp" and mode is not None:
        approved_texts = {f"{language}/{text_mode.value}" for language, text_mode in job.whatsapp_texts}
        codes["whatsapp_not_approved"] = f"{facts.language}/{mode}" not in approved_texts
    if not is_service(job):
        codes |= commercial_codes(job, facts, now, channel)
    return {code for code, applies in codes.items() if applies}


def commercial_codes(job: Job, facts: Facts, now: datetime, channel: Channel) -> dict[str, bool]:
    """The codes of the rules for commercial messages only."""
    choice = chosen(job, facts)
    years = age(facts, now)
    adults_only = job.info.coins or choice == "tailored"
    group = "sms_whatsapp" if channel.value in ("sms", "whatsapp") else channel.value
    return {
        "objected": objects(facts.object_marketing),
        "choice_none": choice == "none",
        "no_choice": choice not in ("tailored", "standard", "none"),
        "minor": adults_only and years is not None and years < 18,
        "age_unknown": adults_only and years is None,
        "no_current_account": job.info.coins and not facts.has_current_account,
        "channel_off": group not in facts.switches or facts.switches[group].value != "on",
        "template_not_approved": job.approval is None,
        "household": facts.partner_message is not None,
        "one_per_address": channel.value in facts.address_messages,
        "global_control_group": in_global_control_group(job),
        "held_out": in_control_group(job),
        "frequency_capped": cap_reached(facts, now, channel) or cool_down_runs(facts, now, channel),
    }


def is_service(job: Job) -> bool:
    return job.info.kind.value == "service"


def chosen(job: Job, facts: Facts) -> str | None:
    for offer, choice in facts.offers.items():
        if offer == job.info.offer_type:
            return choice.value
    return None


def objects(choice: object) -> bool:
    return choice is not None and getattr(choice, "value", "") != "off"


def rendered_mode(job: Job, facts: Facts) -> str | None:
    """The mode in which the message would be rendered."""
    modes = {mode.value for mode in job.info.modes}
    if is_service(job):
        return "standard" if "standard" in modes else None
    choice = chosen(job, facts)
    profiling_allowed = not objects(facts.object_profiling)
    if job.info.coins and not (choice == "tailored" and profiling_allowed):
        return None
    if choice == "tailored" and profiling_allowed and "tailored" in modes:
        return "tailored"
    if choice in ("tailored", "standard") and "standard" in modes:
        return "standard"
    return None


def basis(job: Job, facts: Facts, channel: Channel) -> str | None:
    """The lawful basis: the contract if it was accepted; otherwise what the e-privacy rules allow."""
    if job.entity not in ENTITIES:
        return None
    if is_service(job):
        return "service"
    choice = chosen(job, facts)
    if choice == "tailored":
        return "contract"
    if choice != "standard":
        return None
    if channel.value == "push":
        return "legitimate_interest"
    if job.info.offer_type == "own" and bought_analogous_product(job, facts):
        return "soft_opt_in"
    return "consent" if facts.offers[job.info.offer_type or ""].source in CONSENT_SOURCES else None


def bought_analogous_product(job: Job, facts: Facts) -> bool:
    for group_ in PRODUCT_GROUPS:
        for product in group_ & facts.purchased:
            sellers = [entity for entity in facts.entities if entity in SELLERS[product]]
            if job.info.product in group_ and sellers == [job.entity]:
                return True
    return False


def reachable(facts: Facts, channel: Channel) -> bool:
    if channel.value == "push":
        return len(facts.devices) > 0
    return bool({"email": facts.email, "sms": facts.phone, "whatsapp": facts.whatsapp}[channel.value])


def recipient_zone(facts: Facts) -> ZoneInfo:
    try:
        return ZoneInfo(facts.timezone or "Europe/Brussels")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("Europe/Brussels")


def age(facts: Facts, now: datetime) -> int | None:
    """Count birthdays one by one. In other years, the birthday of 29 February is 1 March."""
    birth_date, today = facts.birth_date, now.astimezone(recipient_zone(facts)).date()
    if birth_date is None:
        return None
    years = 0
    while birthday(birth_date, birth_date.year + years + 1) <= today:
        years += 1
    return years


def birthday(birth_date: date, year: int) -> date:
    try:
        return birth_date.replace(year=year)
    except ValueError:
        return date(year, 3, 1)


def in_control_group(job: Job) -> bool:
    if job.campaign_id is None:
        return False
    seed = b"2026" + b"\0" + job.campaign_id.encode() + b"\0" + job.recipient_id.encode()
    number = int(hashlib.blake2b(seed, digest_size=8).hexdigest(), 16)
    return number * 100 < job.holdout_percent * 2**64


def in_global_control_group(job: Job) -> bool:
    """A tenth of all people, in this quarter, in every campaign."""
    seed = b"2026-Q4/global" + b"\0" + b"\0" + job.recipient_id.encode()
    return job.campaign_id is not None and int(hashlib.blake2b(seed, digest_size=8).hexdigest(), 16) * 10 < 2**64


def cap_reached(facts: Facts, now: datetime, channel: Channel) -> bool:
    """Seven messages in any seven days; two text messages on one day of the recipient's calendar. A message to somebody else counts
    where it used the mailbox or number that this message would use."""
    textual = ("sms", "whatsapp")
    received = [
        message
        for message in facts.sent
        if message.own or message.channel == channel or {message.channel.value, channel.value} == set(textual)
    ]
    week = [message for message in received if message.at + timedelta(days=7) > now]
    today = [
        message
        for message in received
        if message.at.astimezone(recipient_zone(facts)).date() == now.astimezone(recipient_zone(facts)).date()
    ]
    texts = [message for message in today if message.channel.value in textual]
    return len(week) >= 7 or (channel.value in textual and len(texts) >= 2)


def cool_down_runs(facts: Facts, now: datetime, channel: Channel) -> bool:
    return any(name == channel.value and now < cool_down.until for name, cool_down in facts.cool_downs.items())


def delays_until(job: Job, facts: Facts, now: datetime, channel: Channel) -> dict[str, datetime]:
    """The codes of all delays on this channel, each with its end: the night, and a reply that somebody still has to read."""
    ends = {"quiet_hours": quiet_until(job, facts, now, channel), "unread_answer": None}
    if not is_service(job) and channel.value in facts.unread_replies:
        ends["unread_answer"] = now + timedelta(seconds=300)
    return {code: end for code, end in ends.items() if end is not None}


def quiet_until(job: Job, facts: Facts, now: datetime, channel: Channel) -> datetime | None:
    """Step forward, minute by minute, until the recipient's wall clock shows an allowed time."""
    if is_service(job) or channel.value not in QUIET:
        return None
    start, end = QUIET[channel.value]
    moment = now.astimezone(UTC)
    while (
        start <= (clock := moment.astimezone(recipient_zone(facts)).strftime("%H:%M"))
        or clock < end
        or is_silent_day(moment, facts, channel)
    ):
        moment = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return None if moment == now else moment


def is_silent_day(moment: datetime, facts: Facts, channel: Channel) -> bool:
    """Text messages are silent on Sundays and public holidays; push is not."""
    day = moment.astimezone(recipient_zone(facts))
    return channel.value in ("sms", "whatsapp") and (day.strftime("%A") == "Sunday" or day.strftime("%Y-%m-%d") in PUBLIC_HOLIDAYS)
