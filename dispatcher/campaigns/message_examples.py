"""Examples of a campaign's messages from real rows: one for each language and channel, taken from a dry run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from channels.base import Channel, Email, Push, Sms, WhatsApp, assemble
from dispatcher.content import ContentRefusal, Template, example_request
from dispatcher.delivery.hand_off import PreparedMessage
from dispatcher.domain.message import Mode, State
from dispatcher.domain.recipient import Language
from dispatcher.runtime.entity_senders import senders
from dispatcher.runtime.services import Services

EXAMPLE_ROWS_MAX = 5_000  # among which examples are looked for
_TOKEN = re.compile(r"(/[up]/)[A-Za-z0-9_~.-]{16,}")


@dataclass(frozen=True, slots=True)
class Example:
    """A message as a recipient would get it, as text. `is_real`: with the recipient's own profile; else the profile's values are
    the template's examples, if anybody in the audience has such a value. Links that act for the recipient are cut."""

    recipient: str
    language: Language
    channel: Channel
    mode: Mode
    title: str
    text: str
    is_real: bool


@dataclass(frozen=True, slots=True)
class ExampleCollector:
    """The first message for each language and channel of a dry run. `keep` is its observer."""

    _found: dict[tuple[str, str], tuple[PreparedMessage, str]] = field(default_factory=dict)
    _in_profiles: set[str] = field(default_factory=set)

    def keep(self, messages: Sequence[PreparedMessage]) -> None:
        """Keep those of these messages that are the first of their language and channel."""
        for message in messages:
            entry = message.entry
            if entry.state is State.CLAIMED and message.outbounds and entry.channel:
                self._in_profiles.update(*entry.candidate.facts.profile.values())
                self._found.setdefault((entry.candidate.facts.language, entry.channel), (message, entry.decision["job"][1]))

    def examples(self, services: Services, templates: Mapping[str, Template], with_profiles: bool) -> list[Example]:
        """The messages as text, by language and channel. With `with_profiles` they are what the recipients would get.

        Without, only the row's own values are real. Optional variables that neither the row nor any profile of the audience has are
        left out: a message would else show here what no recipient gets, such as the representative example of a loan.
        """
        in_profiles = None if with_profiles else self._in_profiles
        found = [self._found[key] for key in sorted(self._found)]
        return [_example(services, message, templates[name], in_profiles) for message, name in found]


def _example(services: Services, message: PreparedMessage, template: Template, in_profiles: Set[str] | None) -> Example:
    """The example of a message. `in_profiles`: what profiles have, for a person who may not see their values."""
    entry, outbound = message.entry, message.outbounds[0]
    facts, mode = entry.candidate.facts, Mode(entry.decision["legs"][0][1])
    content, is_real = outbound.content, True
    if in_profiles is not None:
        entity = entry.decision["job"][0]
        names = senders(services.policy.entities[entity], entity)
        request = example_request(template, outbound.channel, facts.language, mode, entry.candidate.data, names)
        optional = {name for name, variable in template.variables.items() if not variable.required}
        absent = optional - in_profiles - entry.candidate.data.keys()
        request = replace(request, data={name: value for name, value in request.data.items() if name not in absent})
        try:
            content, is_real = template.render(request), False
        except ContentRefusal as refusal:
            return Example(facts.recipient_id, facts.language, outbound.channel, mode, "", f"{refusal.code}", is_real=False)
    title, text = _texts(content)
    return Example(
        facts.recipient_id, facts.language, outbound.channel, mode, _TOKEN.sub(r"\1…", title), _TOKEN.sub(r"\1…", text), is_real
    )


def _texts(content: Any) -> tuple[str, str]:
    """The title and the text of a message."""
    match assemble(content):
        case Email(subject=subject, text=text):
            return subject, text
        case Push(title=title, body=body):
            return title, body
        case Sms(text=text):
            return "", text
        case WhatsApp() as message:
            return "", message.text or "\n".join(f"{number}: {value}" for number, value in sorted(message.variables.items()))
