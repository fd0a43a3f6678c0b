"""An adapter that stores messages in memory, for tests. It keeps the same contract as the adapters of real providers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from channels.base import Channel, ChannelError, Email, Outbound, Push, Receipt, Result, Sms, StaleClaim, Uncertain, WhatsApp
from channels.registry import ProviderPlugin
from channels.send_window import SendWindow
from channels.validation import check_content

_CONTENT_TYPES: Mapping[Channel, Any] = {
    Channel.EMAIL: Email,
    Channel.SMS: Sms,
    Channel.WHATSAPP: WhatsApp,
    Channel.PUSH: Push,
}


class Outbox:
    """`sent` holds all messages in order, with mails assembled. `answers` maps an address to an error; "" stands for all others.

    With `Uncertain` the answer was lost, so that message is in `sent` too.
    """

    name = "outbox"

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.sent: list[Outbound] = []
        self.answers: dict[str, ChannelError] = {}

    def send(self, batch: Sequence[Outbound], window: SendWindow) -> Iterator[tuple[Outbound, Result]]:
        """See `channels.base.Provider`."""
        for outbound in batch:
            yield outbound, self._take(outbound) if window.may_start_sending([outbound.id]) else StaleClaim()

    def check(self) -> ChannelError | None:
        """Return the error set for all addresses, if there is one."""
        return self.answers.get("")

    def close(self) -> None:
        """Do nothing: `sent` stays."""

    def _take(self, outbound: Outbound) -> Result:
        try:
            content = check_content(outbound, self.channel, _CONTENT_TYPES[self.channel])
        except ChannelError as refusal:
            return refusal.with_traceback(None)
        answer = self.answers.get(outbound.address) or self.answers.get("")
        if answer is not None and not isinstance(answer, Uncertain):
            return answer
        self.sent.append(replace(outbound, content=content))
        return answer or Receipt(f"{self.channel}-{len(self.sent)}")


PLUGIN = ProviderPlugin(
    name=Outbox.name,
    needs=dict.fromkeys(Channel, ()),
    variable_prefixes=(),
    read_account=lambda _: None,
    make_adapter=lambda _, context: Outbox(context.channel),
    real=False,
)
