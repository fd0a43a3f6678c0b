"""The rules: small pure functions that return an objection or None. Two tables: about the person, and about one channel.

No rule permits a message. `verdict` looks for the permission, a mode and a basis, separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from channels.base import Channel
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.policy.case import RENEWAL, DecisionCase, RuleObjection, age_years, find_basis, needs_renewal
from dispatcher.policy.frequency_caps import reached_cap
from dispatcher.policy.variants import is_in_global_group, share_percent

PersonRule: TypeAlias = Callable[[DecisionCase], RuleObjection | None]
ChannelRule: TypeAlias = Callable[[DecisionCase, Channel], RuleObjection | None]

# -- about the person and the job --------------------------------------------------------------------------------------


def erased(case: DecisionCase) -> RuleObjection | None:
    """Objects if the person was erased (GDPR art. 17): only the decisions are left."""
    return RuleObjection(ReasonCode.ERASED, "recipient:erased") if case.facts.erased else None


def known(case: DecisionCase) -> RuleObjection | None:
    """Objects if the recipient is unknown, or the facts belong to another person."""
    if case.job.recipient_id != case.facts.recipient_id:
        return RuleObjection(ReasonCode.UNKNOWN_RECIPIENT, "job:recipient_id")
    return None if case.facts.known else RuleObjection(ReasonCode.UNKNOWN_RECIPIENT, "recipient:id")


def duplicate(case: DecisionCase) -> RuleObjection | None:
    """Objects if the audience named this person before: one message per person and campaign."""
    return RuleObjection(ReasonCode.DUPLICATE, case.facts.repeat_of) if case.facts.repeat_of is not None else None


def expiry(case: DecisionCase) -> RuleObjection | None:
    """Objects if the expiry time has passed."""
    expires_at = case.job.expires_at
    return RuleObjection(ReasonCode.EXPIRED, "job:expires_at") if expires_at is not None and expires_at <= case.now else None


def marketing_objection(case: DecisionCase) -> RuleObjection | None:
    """Objects if the person objected to direct marketing (GDPR art. 21(2)-(3)). Any value but "off" is an objection."""
    recorded = case.facts.object_marketing
    if case.service or recorded is None or recorded.value == "off":
        return None
    return RuleObjection(ReasonCode.OBJECTED, recorded.event)


def choice(case: DecisionCase) -> RuleObjection | None:
    """Objects if the customer made no choice for this offer type, or chose "none"."""
    if case.service or case.chosen is not None:
        return None
    if case.choice is None:
        offer = case.job.info.offer_type
        return RuleObjection(ReasonCode.NO_CHOICE, f"recipient:offers.{offer}" if offer else f"template:{case.job.info.template}")
    return RuleObjection(ReasonCode.CHOICE_NONE if case.choice.value == Mode.NONE else ReasonCode.NO_CHOICE, case.choice.event)


def mode(case: DecisionCase) -> RuleObjection | None:
    """Objects if the template has no rendering that the choice allows."""
    if case.mode is not None or (case.chosen is None and not case.service):
        return None
    info, objected = case.job.info, case.facts.object_profiling
    if case.chosen is Mode.TAILORED and objected is not None and not case.profiling:
        return RuleObjection(ReasonCode.MODE_NOT_ALLOWED, objected.event)
    if case.choice is not None and (info.coins or Mode.TAILORED in info.modes):
        return RuleObjection(ReasonCode.MODE_NOT_ALLOWED, case.choice.event)
    return RuleObjection(ReasonCode.MODE_NOT_ALLOWED, f"template:{info.template}")


def age(case: DecisionCase) -> RuleObjection | None:
    """Objects if a minor, or a person of unknown age, would get something under a tailored contract, or Kate Coins.

    A standard rendering is refused too: its basis would be a contract, and a minor cannot be bound by it.
    """
    if case.service or not (case.chosen is Mode.TAILORED or case.job.info.coins):
        return None
    born = case.facts.birth_date
    if born is None:
        return RuleObjection(ReasonCode.AGE_UNKNOWN, "recipient:birth_date")
    adult = age_years(born, case.local.date()) >= case.policy.adult_years
    return None if adult else RuleObjection(ReasonCode.MINOR, "policy:ages.adult_years")


def coins(case: DecisionCase) -> RuleObjection | None:
    """Objects if Kate Coins would go to a person without a current account. (Rule `mode` checks for the tailored choice.)"""
    if case.service or not case.job.info.coins or not case.policy.coins_need_current_account:
        return None
    return None if case.facts.has_current_account else RuleObjection(ReasonCode.NO_CURRENT_ACCOUNT, "recipient:has_current_account")


def approval(case: DecisionCase) -> RuleObjection | None:
    """Objects if no named person approved the exact template version of a commercial message (four eyes)."""
    if case.service or not case.policy.four_eyes_templates or case.job.approval is not None:
        return None
    return RuleObjection(ReasonCode.TEMPLATE_NOT_APPROVED, f"template:{case.job.info.template}")


def household(case: DecisionCase) -> RuleObjection | None:
    """Objects if the partner has the message of a campaign with one message per household.

    A household is two registered partners and nobody else.
    """
    message_id = case.facts.partner_message
    return RuleObjection(ReasonCode.HOUSEHOLD, message_id) if message_id is not None and not case.service else None


def global_control_group(case: DecisionCase) -> RuleObjection | None:
    """Objects if the person is in the control group across campaigns: state `held_out`. The same people in every campaign."""
    if case.service or case.job.campaign_id is None or not is_in_global_group(case.policy.global_group, case.job.recipient_id):
        return None
    return RuleObjection(ReasonCode.GLOBAL_CONTROL_GROUP, "policy:holdout.global_percent")


def control_group(case: DecisionCase) -> RuleObjection | None:
    """Objects if the person is in the control group: state `held_out`, option `holdout_percent`. Always the same people."""
    job = case.job
    if case.service or job.campaign_id is None or job.holdout_percent <= 0:
        return None
    share = share_percent(case.policy.holdout_salt, job.campaign_id, job.recipient_id)
    return RuleObjection(ReasonCode.HELD_OUT, f"campaign:{job.campaign_id}") if share < job.holdout_percent else None


# -- about one channel -------------------------------------------------------------------------------------------------


def basis(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if there is no lawful basis (GDPR art. 6). The evidence is the policy key that would have to allow it."""
    if find_basis(case, channel) is not None:
        return None
    job = case.job
    if job.entity not in case.policy.entities:
        return RuleObjection(ReasonCode.NO_BASIS, f"policy:entities.{job.entity}")
    if case.service:
        return RuleObjection(ReasonCode.NO_BASIS, f"policy:basis.service.{channel}")
    if needs_renewal(case, channel):
        return RuleObjection(ReasonCode.NO_BASIS, RENEWAL)
    value = case.choice.value if case.choice is not None else Mode.NONE
    row = f"policy:basis.{job.info.offer_type}.{value}"
    return RuleObjection(ReasonCode.NO_BASIS, f"{row}.{channel}" if case.row else row)


def switch(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if the customer's switch for this channel is not on. A switch that was never set counts as off."""
    if case.service:
        return None
    group = case.policy.groups[channel]
    recorded = case.facts.switches.get(group)
    if recorded is None:
        return RuleObjection(ReasonCode.CHANNEL_OFF, f"recipient:switches.{group}")
    return None if recorded.value == "on" else RuleObjection(ReasonCode.CHANNEL_OFF, recorded.event)


def suppression(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if the address is suppressed, after a hard bounce, a complaint or STOP."""
    evidence = case.facts.suppressions.get(channel)
    return RuleObjection(ReasonCode.SUPPRESSED, evidence) if evidence is not None else None


UNREAD_CHECK = timedelta(minutes=5)  # a message that waits for a reply to be read is decided again so often


def unread_answer(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects while a reply that may be an opt-out is unread (GDPR art. 21(3)). It delays: the reply may say anything."""
    evidence = case.facts.unread_replies.get(channel)
    if case.service or evidence is None:
        return None
    return RuleObjection(ReasonCode.UNREAD_ANSWER, evidence, case.now + UNREAD_CHECK)


def whatsapp_approval(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if WhatsApp has not approved the text in the person's language and mode, or its status is unknown."""
    if channel is not Channel.WHATSAPP or case.mode is None:  # without a mode there is no text: rule `mode` objects
        return None
    if (case.facts.language, case.mode) in case.job.whatsapp_texts:
        return None
    return RuleObjection(ReasonCode.WHATSAPP_NOT_APPROVED, f"template:{case.job.info.template}")


def address(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if the recipient has no address on this channel."""
    addresses = case.facts.devices if channel is Channel.PUSH else case.facts.address(channel)
    return None if addresses else RuleObjection(ReasonCode.NO_ADDRESS, f"recipient:{channel}")


def push_permission(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if no device allows the app to show notifications."""
    if channel is not Channel.PUSH or not case.facts.devices:
        return None
    allowed = any(device.permission for device in case.facts.devices)
    return None if allowed else RuleObjection(ReasonCode.NO_OS_PERMISSION, "recipient:push.permission")


def one_per_address(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if the address has the campaign's message through another recipient, or may have it. The first claim gets it."""
    message_id = case.facts.address_messages.get(channel)
    if case.service or message_id is None or not case.policy.one_per_address:
        return None
    return RuleObjection(ReasonCode.ONE_PER_ADDRESS, message_id)


def frequency(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if a cap is reached. A message is reserved when it is claimed; the claim gate makes the count complete."""
    offer, sent = case.job.info.offer_type, case.facts.sent
    if case.service or not sent:
        return None
    cap = reached_cap(case.policy.caps, sent, channel, offer, case.now, case.local)
    return RuleObjection(ReasonCode.FREQUENCY_CAPPED, f"policy:caps.{cap.name}") if cap is not None else None


def rest(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects while the provider accepts no advertising for this person (cool-down).

    Do not work around it by sending as a service message: that would be deception.
    """
    cool_down = case.facts.cool_downs.get(channel)
    if case.service or cool_down is None or cool_down.until <= case.now:
        return None
    return RuleObjection(ReasonCode.FREQUENCY_CAPPED, f"provider:{cool_down.code}")


def quiet_hours(case: DecisionCase, channel: Channel) -> RuleObjection | None:
    """Objects if it is a quiet hour or a silent day by the recipient's clock. It delays."""
    quiet = case.policy.quiet_hours.get(channel)
    if case.service or quiet is None or not quiet.at(case.local):
        return None
    return RuleObjection(ReasonCode.QUIET_HOURS, f"policy:quiet_hours.{channel}", quiet.until(case.local))


# -- the tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules by name. The names appear in recorded reasons, so they must not change."""

    person: Mapping[str, PersonRule]
    channel: Mapping[str, ChannelRule]


RULES = Rules(
    person={
        "erased": erased,
        "known": known,
        "duplicate": duplicate,
        "expiry": expiry,
        "objection": marketing_objection,
        "choice": choice,
        "mode": mode,
        "age": age,
        "coins": coins,
        "approval": approval,
        "household": household,
        "global_control_group": global_control_group,
        "control_group": control_group,
    },
    channel={
        "basis": basis,
        "switch": switch,
        "suppression": suppression,
        "unread_answer": unread_answer,
        "whatsapp_approval": whatsapp_approval,
        "address": address,
        "push_permission": push_permission,
        "one_per_address": one_per_address,
        "frequency": frequency,
        "rest": rest,
        "quiet_hours": quiet_hours,
    },
)
