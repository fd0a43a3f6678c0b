"""The rules: small pure functions that object or stay silent. Two tables: about the person, and about one channel.

No rule permits anything. That is the part of the basis, which `verdict` asks for on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import TypeAlias

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import SentMessage
from dispatcher.policy.case import DecisionCase, Objection, age_years
from dispatcher.policy.case import basis as basis_of
from dispatcher.policy.data import FrequencyCap

PersonRule: TypeAlias = Callable[[DecisionCase], Objection | None]
MIDNIGHT = time(0, 0)
ChannelRule: TypeAlias = Callable[[DecisionCase, Channel], Objection | None]

# -- about the person and the job --------------------------------------------------------------------------------------


def erased(case: DecisionCase) -> Objection | None:
    """GDPR art. 17: of an erased person only the decisions are left."""
    return Objection(ReasonCode.ERASED, "recipient:erased") if case.facts.erased else None


def known(case: DecisionCase) -> Objection | None:
    """We know the recipient, and the facts are this person's and nobody else's."""
    if case.job.recipient_id != case.facts.recipient_id:
        return Objection(ReasonCode.UNKNOWN_RECIPIENT, "job:recipient_id")
    return None if case.facts.known else Objection(ReasonCode.UNKNOWN_RECIPIENT, "recipient:id")


def duplicate(case: DecisionCase) -> Objection | None:
    """One message per person and campaign, however often the audience names the person."""
    return Objection(ReasonCode.DUPLICATE, case.facts.repeat_of) if case.facts.repeat_of is not None else None


def expiry(case: DecisionCase) -> Objection | None:
    """Rather not than late."""
    expires_at = case.job.expires_at
    return Objection(ReasonCode.EXPIRED, "job:expires_at") if expires_at is not None and expires_at <= case.now else None


def objection(case: DecisionCase) -> Objection | None:
    """GDPR art. 21(2)-(3): whoever objects to direct marketing gets none. Anything but a clear "off" objects."""
    said = case.facts.object_marketing
    if case.service or said is None or said.value == "off":
        return None
    return Objection(ReasonCode.OBJECTED, said.event)


def choice(case: DecisionCase) -> Objection | None:
    """The customer chose how to hear of this type of offer, and did not choose "none"."""
    if case.service or case.chosen is not None:
        return None
    if case.choice is None:
        offer = case.job.info.offer_type
        return Objection(ReasonCode.NO_CHOICE, f"recipient:offers.{offer}" if offer else f"template:{case.job.info.template}")
    return Objection(ReasonCode.CHOICE_NONE if case.choice.value == Mode.NONE else ReasonCode.NO_CHOICE, case.choice.event)


def mode(case: DecisionCase) -> Objection | None:
    """The template has a rendering that the choice allows."""
    if case.mode is not None or (case.chosen is None and not case.service):
        return None
    info, objected = case.job.info, case.facts.object_profiling
    if case.chosen is Mode.TAILORED and objected is not None and not case.profiling:
        return Objection(ReasonCode.MODE_NOT_ALLOWED, objected.event)
    if case.choice is not None and (info.coins or Mode.TAILORED in info.modes):
        return Objection(ReasonCode.MODE_NOT_ALLOWED, case.choice.event)
    return Objection(ReasonCode.MODE_NOT_ALLOWED, f"template:{info.template}")


def age(case: DecisionCase) -> Objection | None:
    """Minors, and people whose age we don't know, get nothing under a tailored contract, and no coins.

    That holds for a standard rendering too: its basis would be a contract that a minor can't be held to.
    """
    if case.service or not (case.chosen is Mode.TAILORED or case.job.info.coins):
        return None
    born = case.facts.birth_date
    if born is None:
        return Objection(ReasonCode.AGE_UNKNOWN, "recipient:birth_date")
    adult = age_years(born, case.local.date()) >= case.policy.adult_years
    return None if adult else Objection(ReasonCode.MINOR, "policy:ages.adult_years")


def coins(case: DecisionCase) -> Objection | None:
    """Kate Coins need a current account; that they need the tailored choice is `mode`'s business."""
    if case.service or not case.job.info.coins or not case.policy.coins_need_current_account:
        return None
    return None if case.facts.has_current_account else Objection(ReasonCode.NO_CURRENT_ACCOUNT, "recipient:has_current_account")


def approval(case: DecisionCase) -> Objection | None:
    """Four eyes: a commercial text leaves only in the very wording that a named person approved."""
    if case.service or not case.policy.four_eyes_templates or case.job.approval is not None:
        return None
    return Objection(ReasonCode.TEMPLATE_NOT_APPROVED, f"template:{case.job.info.template}")


def household(case: DecisionCase) -> Objection | None:
    """One message per household, where the campaign says so. Of registered partners only: nobody else shares a household here."""
    got = case.facts.partner_message
    return Objection(ReasonCode.HOUSEHOLD, got) if got is not None and not case.service else None


def control_group(case: DecisionCase) -> Objection | None:
    """A share of each campaign's audience is left alone on purpose, always the same people."""
    job = case.job
    if case.service or job.campaign_id is None or job.holdout_percent <= 0:
        return None
    drawn = share_percent(case.policy.holdout_salt, job.campaign_id, job.recipient_id)
    return Objection(ReasonCode.HELD_OUT, f"campaign:{job.campaign_id}") if drawn < job.holdout_percent else None


def share_percent(salt: str, campaign_id: str, recipient_id: str) -> float:
    """A number from 0 up to 100, evenly spread over people, always the same for one person in one campaign."""
    digest = hashlib.blake2b("\0".join((salt, campaign_id, recipient_id)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * 100


def variant_of(salt: str, variants: Sequence[tuple[str, str]], campaign_id: str, recipient_id: str) -> str:
    """The template of an A/B test that a person gets: evenly spread, always the same, and drawn apart from the control group."""
    drawn = share_percent(f"{salt}/variants", campaign_id, recipient_id)
    return variants[min(int(drawn * len(variants) / 100), len(variants) - 1)][1]


# -- about one channel -------------------------------------------------------------------------------------------------


def basis(case: DecisionCase, channel: Channel) -> Objection | None:
    """GDPR art. 6: none, no send. The evidence is the place in the policy that would have to allow it."""
    if basis_of(case, channel) is not None:
        return None
    job = case.job
    if job.entity not in case.policy.entities:
        return Objection(ReasonCode.NO_BASIS, f"policy:entities.{job.entity}")
    if case.service:
        return Objection(ReasonCode.NO_BASIS, f"policy:basis.service.{channel}")
    said = case.choice.value if case.choice is not None else Mode.NONE
    row = f"policy:basis.{job.info.offer_type}.{said}"
    return Objection(ReasonCode.NO_BASIS, f"{row}.{channel}" if case.row else row)


def switch(case: DecisionCase, channel: Channel) -> Objection | None:
    """The customer's switch for this channel is on. Never touched is not on."""
    if case.service:
        return None
    group = case.policy.groups[channel]
    said = case.facts.switches.get(group)
    if said is None:
        return Objection(ReasonCode.CHANNEL_OFF, f"recipient:switches.{group}")
    return None if said.value == "on" else Objection(ReasonCode.CHANNEL_OFF, said.event)


def suppression(case: DecisionCase, channel: Channel) -> Objection | None:
    """The address is not banned: no hard bounce, complaint or STOP."""
    evidence = case.facts.suppressions.get(channel)
    return Objection(ReasonCode.SUPPRESSED, evidence) if evidence is not None else None


def address(case: DecisionCase, channel: Channel) -> Objection | None:
    """There is somewhere to send to."""
    there = case.facts.devices if channel is Channel.PUSH else case.facts.address(channel)
    return None if there else Objection(ReasonCode.NO_ADDRESS, f"recipient:{channel}")


def push_permission(case: DecisionCase, channel: Channel) -> Objection | None:
    """At least one device on which the system lets the app show a notification."""
    if channel is not Channel.PUSH or not case.facts.devices:
        return None
    allowed = any(device.permission for device in case.facts.devices)
    return None if allowed else Objection(ReasonCode.NO_OS_PERMISSION, "recipient:push.permission")


def frequency(case: DecisionCase, channel: Channel) -> Objection | None:
    """Not more often than each cap allows. What is counted was reserved at its claim; the gate sees to it that none is missed."""
    offer, sent = case.job.info.offer_type, case.facts.sent
    if case.service or not sent:
        return None
    for cap in case.policy.caps:
        if len(sent) >= cap.most and channel in cap.channels and offer in cap.offer_types:  # fewer can't reach it: not counted
            counted = sum(
                one.channel in cap.channels and one.offer_type in cap.offer_types and _within(cap, one, case) for one in sent
            )
            if counted >= cap.most:
                return Objection(ReasonCode.FREQUENCY_CAPPED, f"policy:caps.{cap.name}")
    return None


def _within(cap: FrequencyCap, one: SentMessage, case: DecisionCase) -> bool:
    if cap.rolling_seconds is None:
        return one.at.astimezone(case.local.tzinfo).date() == case.local.date()
    return (case.now - one.at).total_seconds() < cap.rolling_seconds


def rest(case: DecisionCase, channel: Channel) -> Objection | None:
    """Not where the provider takes no more advertising for this person for now; calling it a service message would be a lie."""
    resting = case.facts.cool_downs.get(channel)
    if case.service or resting is None or resting.until <= case.now:
        return None
    return Objection(ReasonCode.FREQUENCY_CAPPED, f"provider:{resting.code}")


def quiet_hours(case: DecisionCase, channel: Channel) -> Objection | None:
    """Not at night, by the recipient's clock, and not on silent days; the one rule that only delays."""
    quiet = case.policy.quiet_hours.get(channel)
    if case.service or quiet is None or not quiet.at(case.local):
        return None
    until, local = case.now, case.local
    while quiet.at(local):  # from night to day, over a run of silent days; the policy leaves at least one weekday open
        until = next_time(until, quiet.end if quiet.covers(local.time()) else MIDNIGHT, local.tzinfo)
        local = until.astimezone(local.tzinfo)
    return Objection(ReasonCode.QUIET_HOURS, f"policy:quiet_hours.{channel}", until)


def next_time(after: datetime, clock: time, where: tzinfo | None) -> datetime:
    """The next moment, in UTC, at which the wall clock there shows this time; the later one where it shows it twice.

    A time that the spring change skips is taken as if the clock had not changed: some minutes after the gap.
    """
    local = after.astimezone(where)
    days = 0 if local.time() < clock else 1
    wall = datetime.combine(local.date() + timedelta(days=days), clock, tzinfo=where)
    return max(wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC))


# -- the tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules by name. The names appear in reasons, so they stay."""

    person: Mapping[str, PersonRule]
    channel: Mapping[str, ChannelRule]


RULES = Rules(
    person={
        "erased": erased,
        "known": known,
        "duplicate": duplicate,
        "expiry": expiry,
        "objection": objection,
        "choice": choice,
        "mode": mode,
        "age": age,
        "coins": coins,
        "approval": approval,
        "household": household,
        "control_group": control_group,
    },
    channel={
        "basis": basis,
        "switch": switch,
        "suppression": suppression,
        "address": address,
        "push_permission": push_permission,
        "frequency": frequency,
        "rest": rest,
        "quiet_hours": quiet_hours,
    },
)
