"""Choices: subjects and their values, and which changes take effect. Pure.

A *subject* is what a choice is about: `offer:own|partner|kate`, `channel:email|push|sms_whatsapp`,
`objection:marketing|profiling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import ChannelGroup, Choice, Source
from dispatcher.domain.spelling import did_you_mean

# Each subject's values, from the most restrictive to the least.
VALUES: Mapping[str, tuple[str, ...]] = {
    **{f"offer:{offer}": ("none", "standard", "tailored") for offer in OfferType},
    **{f"channel:{group}": ("off", "on") for group in ChannelGroup},
    "objection:marketing": ("on", "off"),
    "objection:profiling": ("on", "off"),
}
DEFAULTS: Mapping[str, str] = {"objection:marketing": "off", "objection:profiling": "off"}  # an objection has to be made
OFFERS = tuple(subject for subject in VALUES if subject.startswith("offer:"))
OBJECTIONS = tuple(DEFAULTS)
SWITCHES = tuple(subject for subject in VALUES if subject.startswith("channel:"))


class BadChoice(ValueError):
    """A subject or value that does not exist, or an impossible time. `field` names the field to correct."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Change:
    """One subject and its new value. Raises `BadChoice` if either does not exist."""

    subject: str
    value: str

    def __post_init__(self) -> None:
        if self.subject not in VALUES:
            raise BadChoice(self.subject, f"unknown subject{did_you_mean(self.subject, VALUES)}")
        if self.value not in VALUES[self.subject]:
            raise BadChoice(self.subject, f"must be one of {', '.join(VALUES[self.subject])}")


def changes(
    offers: Mapping[str, str] | None = None,
    channels: Mapping[str, bool] | None = None,
    object_marketing: bool | None = None,
    object_profiling: bool | None = None,
) -> tuple[Change, ...]:
    """The changes of a request, from the fields of its file, form or command line. Raises `BadChoice`."""
    requested = [_change(f"offer:{offer}", str(mode)) for offer, mode in (offers or {}).items()]
    requested += [_change(f"channel:{group}", "on" if on else "off") for group, on in (channels or {}).items()]
    for subject, on in (("objection:marketing", object_marketing), ("objection:profiling", object_profiling)):
        if on is not None:
            requested.append(_change(subject, "on" if on else "off"))
    return tuple(requested)


_change = lru_cache(maxsize=256)(Change)  # the same few for every row of an import


def restricts(change: Change, current: str | None) -> bool:
    """Whether the change is more restrictive than the current value. Without one, only the most restrictive value is."""
    values = VALUES[change.subject]
    return values.index(change.value) < (values.index(current) if current in values else 1)


@dataclass(frozen=True, slots=True)
class ResolvedChanges:
    """The changes of a request that take effect, in the order to record them, and those that a newer choice overrides."""

    accepted: tuple[Change, ...]
    superseded: tuple[Change, ...] = ()


def resolve_changes(
    current: Mapping[str, Choice],
    requested: Sequence[Change],
    stated_at: datetime | None,
    closed: bool = False,
    contract_version: str = "",
) -> ResolvedChanges:
    """Compare the requested changes with the current choices.

    A value that is in force already is not recorded again, unless the person accepts another version of the contract; that
    switches nothing on. Choosing "tailored" switches on every channel that the request does not name. A more restrictive change
    always takes effect, whatever its time: in doubt, do not send. Any other change takes effect unless the person chose after
    `stated_at`. If `stated_at` is None (an import without a time), it never overrides the person's own choice, only an earlier
    import's. `closed` (an erased person): only restrictive changes.
    """
    accepted: list[Change] = []
    superseded: list[Change] = []

    def apply(change: Change) -> bool:
        existing = current.get(change.subject)
        value = existing.value if existing else DEFAULTS.get(change.subject)
        if value == change.value and not _renews(existing, change, contract_version):
            return False
        takes_effect = restricts(change, value) or not (closed or _is_newer(existing, stated_at))
        (accepted if takes_effect else superseded).append(change)
        return takes_effect and value != change.value

    last_per_subject = {change.subject: change for change in requested}
    applied = [change for change in last_per_subject.values() if apply(change)]
    if any(change.value == Mode.TAILORED for change in applied):
        for subject in SWITCHES:
            if subject not in last_per_subject:
                apply(Change(subject, "on"))
    return ResolvedChanges(tuple(accepted), tuple(superseded))


def _renews(existing: Choice | None, change: Change, contract_version: str) -> bool:
    """Whether the change, with the value in force, accepts another version of the contract than the choice on record."""
    is_acceptance = existing is not None and change.value == Mode.TAILORED and bool(contract_version)
    return is_acceptance and existing is not None and existing.contract_version != contract_version


def _is_newer(existing: Choice | None, stated_at: datetime | None) -> bool:
    """Whether the existing choice was made after `stated_at`; for None: whether the person made it."""
    if existing is None:
        return False
    if stated_at is None:
        return existing.source != Source.IMPORT
    return existing.at > stated_at
