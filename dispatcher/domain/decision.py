"""The nouns of the house: frozen, plain, known to everyone. Pure: the standard library and `channels.base` only.

Words are those of GLOSSARY.md: a *job* is a request that may end in no message; a *message* is one leg of a job on one
channel; a *reason* says why not, with the evidence behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from channels.base import Channel
from dispatcher.domain.message import Mode


class ReasonCode(StrEnum):
    """Why a message was refused or held, strongest first: when several rules object, the earliest here is the headline.

    Stable words; marketing tools count by them. A provider's refusal carries the provider's own code instead.
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
    HOUSEHOLD = "household"
    HELD_OUT = "held_out"
    FREQUENCY_CAPPED = "frequency_capped"
    QUIET_HOURS = "quiet_hours"
    FAULT = "fault"


# -- what is decided ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule's objection on one channel. `evidence` names the fact behind it ("consent:12", "suppression:4", "policy:<key>")."""

    code: ReasonCode
    channel: Channel
    rule: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Permission:
    """A permission: this channel, in this mode, on this basis. `evidence` names the choice or policy key it rests on."""

    channel: Channel
    mode: Mode
    basis: str  # "contract" | "legitimate_interest" | "soft_opt_in" | "consent" | "service"
    evidence: str
    categories: frozenset[str]  # data categories that may be used


@dataclass(frozen=True, slots=True)
class Send:
    """Leave now, on these legs (one for route "first"); `reasons` says why other asked channels were passed over."""

    legs: tuple[Permission, ...]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now, but decide again at `until`."""

    until: datetime
    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not, and not later. At least one reason per asked channel."""

    reasons: tuple[Reason, ...]

    @property
    def headline(self) -> Reason:
        """The reason that the balance counts."""
        return headline(self.reasons)


Decision: TypeAlias = Send | Hold | Refuse


_RANK = {code: rank for rank, code in enumerate(ReasonCode)}


def headline(reasons: tuple[Reason, ...]) -> Reason:
    """The strongest reason, by the order of `ReasonCode`; among equals the first asked channel's."""
    return min(reasons, key=lambda reason: _RANK[reason.code])
