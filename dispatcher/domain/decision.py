"""Decisions: send, hold or refuse, with reason codes and evidence. Pure: frozen types without input or output."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from channels.base import Channel
from dispatcher.domain.message import Mode


class ReasonCode(StrEnum):
    """Why a message was refused or held, strongest first: when several rules object, the first code here is the headline.

    The codes are public and do not change; marketing tools count by them. A provider's rejection has the provider's code instead.
    """

    ERASED = "erased"
    UNKNOWN_RECIPIENT = "unknown_recipient"
    CANCELLED = "cancelled"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    OBJECTED = "objected"
    CHOICE_NONE = "choice_none"
    NO_CHOICE = "no_choice"
    MODE_NOT_ALLOWED = "mode_not_allowed"
    NO_BASIS = "no_basis"
    MINOR = "minor"
    AGE_UNKNOWN = "age_unknown"
    NO_CURRENT_ACCOUNT = "no_current_account"
    CHANNEL_OFF = "channel_off"
    SUPPRESSED = "suppressed"
    NO_ADDRESS = "no_address"
    NO_OS_PERMISSION = "no_os_permission"
    WITHHELD_VARIABLE = "withheld_variable"
    MISSING_VARIABLE = "missing_variable"
    CONTENT_GUARD = "content_guard"
    TEMPLATE_NOT_APPROVED = "template_not_approved"
    WHATSAPP_NOT_APPROVED = "whatsapp_not_approved"
    HOUSEHOLD = "household"
    ONE_PER_ADDRESS = "one_per_address"
    GLOBAL_CONTROL_GROUP = "global_control_group"
    HELD_OUT = "held_out"
    FREQUENCY_CAPPED = "frequency_capped"
    UNREAD_ANSWER = "unread_answer"
    QUIET_HOURS = "quiet_hours"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule's objection on one channel. `evidence` identifies the fact behind it, such as "consent:12" or "policy:<key>"."""

    code: ReasonCode
    channel: Channel
    rule: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Permission:
    """Permission to send on a channel, in a mode, on a lawful basis. `evidence` identifies the choice or policy key behind it."""

    channel: Channel
    mode: Mode
    basis: str  # "contract" | "legitimate_interest" | "soft_opt_in" | "consent" | "service"
    evidence: str
    categories: frozenset[str]  # data categories that may be used


@dataclass(frozen=True, slots=True)
class Send:
    """Send now, with these permissions (one for route "first"). `reasons` says why other requested channels are not used."""

    permissions: tuple[Permission, ...]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Do not send now; decide again at `until`."""

    until: datetime
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never send. At least one reason per requested channel."""

    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


Decision: TypeAlias = Send | Hold | Refuse


_RANK = {code: rank for rank, code in enumerate(ReasonCode)}


CONTROL_GROUPS = frozenset({ReasonCode.GLOBAL_CONTROL_GROUP, ReasonCode.HELD_OUT})


def headline(reasons: tuple[Reason, ...]) -> Reason:
    """The strongest reason, by the order of `ReasonCode`; among equals that of the first requested channel.

    But a control group, where one channel is kept back by nothing else: without it the person had got the message there, and every
    comparison of the two groups counts on that.
    """
    strongest: dict[Channel, Reason] = {}
    for reason in reasons:
        before = strongest.get(reason.channel)
        if before is None or _RANK[reason.code] < _RANK[before.code]:
            strongest[reason.channel] = reason
    held_out = [reason for reason in strongest.values() if reason.code in CONTROL_GROUPS]
    return min(held_out or strongest.values(), key=lambda reason: _RANK[reason.code])
