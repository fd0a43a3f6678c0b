"""Previews of a template for its author and its approver: each message as it is rendered, and as it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from channels.base import Channel, Email, PlainContent, Push, Sms, WhatsApp, assemble
from dispatcher.content import ContentRefusal, Template, example_request
from dispatcher.content.message_views import PushView, SmsView, WhatsAppView, push_views, sms_view, whatsapp_view
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.policy import Policy
from dispatcher.runtime.entity_senders import senders_of

NO_DATA: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class MessageSelection:
    """Which message to show, with the values that take the place of examples."""

    channel: Channel
    language: Language
    mode: Mode
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MessagePreview:
    """One message: its content with one view of it, or why it is refused."""

    selection: MessageSelection
    content: PlainContent | None = None
    refused: ContentRefusal | None = None
    sms: SmsView | None = None
    pushes: tuple[PushView, ...] = ()
    whatsapp: WhatsAppView | None = None
    prices: tuple[tuple[str, float, str], ...] = ()  # of an SMS: country, price of the whole text, currency

    @property
    def email(self) -> Email | None:
        """The content, where it is a mail."""
        return self.content if isinstance(self.content, Email) else None


def message_preview(policy: Policy, template: Template, selection: MessageSelection) -> MessagePreview:
    """A message as the entity of the template sends it."""
    chosen, senders = selection, senders_of(policy, template)
    request = example_request(template, chosen.channel, chosen.language, chosen.mode, chosen.data, senders)
    try:
        content = assemble(template.render(request))
    except ContentRefusal as refusal:
        return MessagePreview(selection, refused=refusal)
    if isinstance(content, Sms):
        view = sms_view(content.text)
        return MessagePreview(selection, content, sms=view, prices=_prices(policy, view.segments.count))
    if isinstance(content, Push):
        return MessagePreview(selection, content, pushes=push_views(content))
    if isinstance(content, WhatsApp):
        approved = template.languages[selection.language].whatsapp[template.render_mode(selection.mode)]
        return MessagePreview(selection, content, whatsapp=whatsapp_view(approved, dict(content.variables)))
    return MessagePreview(selection, content)


def selections(template: Template, data: Mapping[str, Any] = NO_DATA, **only: str) -> Iterator[MessageSelection]:
    """The messages of a template. `only` limits `channel`, `language` and `mode` to one value each; an unknown one does not."""
    modes = sorted(template.info.modes)
    channels = [each for each in template.channels if each == only.get("channel")] or list(template.channels)
    languages = [each for each in LANGUAGES if each == only.get("language")] or list(LANGUAGES)
    chosen = [each for each in modes if each == only.get("mode")] or modes
    for channel, language, mode in product(channels, languages, chosen):
        yield MessageSelection(channel, language, mode, data)


def _prices(policy: Policy, segments: int) -> tuple[tuple[str, float, str], ...]:
    prices = policy.sms_prices
    return tuple((country, each * segments, prices.currency) for country, each in prices.per_segment.items()) if prices else ()
