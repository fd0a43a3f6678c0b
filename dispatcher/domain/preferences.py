"""What a person may choose, and which words count. Pure.

A *subject* is what a choice is about: `offer:own|partner|kate`, `channel:email|push|sms_whatsapp`,
`objection:marketing|profiling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dispatcher.domain.message import Mode, OfferType
from dispatcher.domain.recipient import ChannelGroup, Choice, Source
from dispatcher.domain.spelling import did_you_mean

# Each subject's values, from the one that lets the least through to the one that lets the most through.
VALUES: Mapping[str, tuple[str, ...]] = {
    **{f"offer:{offer}": ("none", "standard", "tailored") for offer in OfferType},
    **{f"channel:{group}": ("off", "on") for group in ChannelGroup},
    "objection:marketing": ("on", "off"),
    "objection:profiling": ("on", "off"),
}
DEFAULTS: Mapping[str, str] = {"objection:marketing": "off", "objection:profiling": "off"}  # nobody objects unasked
OFFERS = tuple(subject for subject in VALUES if subject.startswith("offer:"))
SWITCHES = tuple(subject for subject in VALUES if subject.startswith("channel:"))


class BadChoice(ValueError):
    """A subject or value that does not exist, or a time that can't be. `field` names what to mend."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Change:
    """One subject and the value that it shall have. Raises `BadChoice` where either does not exist."""

    subject: str
    value: str

    def __post_init__(self) -> None:
        if self.subject not in VALUES:
            raise BadChoice(self.subject, f"is nothing one can choose{did_you_mean(self.subject, VALUES)}")
        if self.value not in VALUES[self.subject]:
            raise BadChoice(self.subject, f"must be one of {', '.join(VALUES[self.subject])}")


def changes(
    offers: Mapping[str, str] | None = None,
    channels: Mapping[str, bool] | None = None,
    object_marketing: bool | None = None,
    object_profiling: bool | None = None,
) -> tuple[Change, ...]:
    """The changes that a request asks for, in the words of its file, form or command line. Raises `BadChoice`."""
    said = [Change(f"offer:{offer}", str(mode)) for offer, mode in (offers or {}).items()]
    said += [Change(f"channel:{group}", "on" if on else "off") for group, on in (channels or {}).items()]
    for subject, on in (("objection:marketing", object_marketing), ("objection:profiling", object_profiling)):
        if on is not None:
            said.append(Change(subject, "on" if on else "off"))
    return tuple(said)


def restricts(change: Change, current: str | None) -> bool:
    """Whether the change lets less through than what stands now; where nothing does, all but the least widens."""
    values = VALUES[change.subject]
    return values.index(change.value) < (values.index(current) if current in values else 1)


@dataclass(frozen=True, slots=True)
class ResolvedChanges:
    """Which changes of a request count, in the order to write them down, and which a newer word outranks."""

    taken: tuple[Change, ...]
    outranked: tuple[Change, ...] = ()


def resolve_changes(
    current: Mapping[str, Choice], asked: Sequence[Change], said_at: datetime | None, closed: bool = False
) -> ResolvedChanges:
    """Hold a request against what stands.

    What stands already is not said again. Accepting tailored switches on every channel that the request leaves unnamed.
    A change that lets less through always counts, whenever it was said: in doubt, do not send. One that lets more
    through counts unless the person spoke later than `said_at`; with `said_at` None (an import that can't tell) it
    never overrules the person's own word, only an earlier import's. `closed` (an erased person): nothing widens.
    """
    taken: list[Change] = []
    outranked: list[Change] = []

    def hear(change: Change) -> bool:
        standing = current.get(change.subject)
        value = standing.value if standing else DEFAULTS.get(change.subject)
        if value == change.value:
            return False
        counts = restricts(change, value) or not (closed or _is_newer(standing, said_at))
        (taken if counts else outranked).append(change)
        return counts

    last_word = {change.subject: change for change in asked}
    heard = [change for change in last_word.values() if hear(change)]
    if any(change.value == Mode.TAILORED for change in heard):
        for subject in SWITCHES:
            if subject not in last_word:
                hear(Change(subject, "on"))
    return ResolvedChanges(tuple(taken), tuple(outranked))


def _is_newer(standing: Choice | None, said_at: datetime | None) -> bool:
    if standing is None:
        return False
    if said_at is None:
        return standing.source != Source.IMPORT
    return standing.at > said_at
