"""Frequency caps: how many commercial messages a person or an address may get in a time window, and which cap is reached. Pure.

The numbers are in `[[caps]]` of `policy.toml`. The ledger counts what was sent in cap reservations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from channels.base import Channel
from dispatcher.domain.recipient import GROUP_OF, SentMessage

CALENDAR_DAY_SECONDS_MAX = 2 * 86_400.0


@dataclass(frozen=True, slots=True)
class FrequencyCap:
    """At most `maximum` commercial messages to one person or address, of some offer types on some channels, within a window.

    The window is rolling (`rolling_seconds`), or the calendar day in the person's time zone (None).
    """

    name: str
    maximum: int
    channels: frozenset[Channel]
    offer_types: frozenset[str]
    rolling_seconds: float | None

    @property
    def reach_seconds(self) -> float:
        """How far back a message may count in any time zone. A calendar day can have 25 hours; two days are always enough."""
        return CALENDAR_DAY_SECONDS_MAX if self.rolling_seconds is None else self.rolling_seconds

    def counts(self, message: SentMessage, now: datetime, local: datetime) -> bool:
        """Whether this message counts now. `local` is the same moment on the person's clock."""
        if message.channel not in self.channels or message.offer_type not in self.offer_types:
            return False
        if self.rolling_seconds is None:
            return message.at.astimezone(local.tzinfo).date() == local.date()
        return (now - message.at).total_seconds() < self.rolling_seconds


def reached_cap(
    caps: Sequence[FrequencyCap],
    sent: Sequence[SentMessage],
    channel: Channel,
    offer_type: str | None,
    now: datetime,
    local: datetime,
) -> FrequencyCap | None:
    """The first cap that allows no further message of this offer type on this channel, or None.

    Besides the person's own messages, those to other recipients count where this one would go to the same address.
    """
    for cap in caps:
        if len(sent) < cap.maximum or channel not in cap.channels or offer_type not in cap.offer_types:
            continue  # fewer messages than the maximum need no count
        if (
            sum(cap.counts(message, now, local) for message in sent if message.own or _same_address(message, channel))
            >= cap.maximum
        ):
            return cap
    return None


def _same_address(message: SentMessage, channel: Channel) -> bool:
    """Whether a message to another recipient went to the address of this channel. SMS and WhatsApp reach the same number."""
    return GROUP_OF[message.channel] is GROUP_OF[channel]
