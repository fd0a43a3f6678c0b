"""Writing a template from its own examples: to look at it, and to find at load time what a careful reading misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from traceback import walk_tb
from typing import Any

from channels.base import Channel, Content
from dispatcher.content.errors import ContentRefusal, TemplateError
from dispatcher.content.render_request import MessageLinks, MessageSender, RenderRequest
from dispatcher.content.template import Template
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language

_LINKS = MessageLinks(unsubscribe="https://www.bank.example/u/preview", preferences="https://www.bank.example/p/preview")


def preview(
    catalog: Mapping[str, Template],
    name: str,
    channel: Channel,
    language: Language,
    mode: Mode,
    data: Mapping[str, Any],
    sender: MessageSender | None = None,
    links: MessageLinks = _LINKS,
) -> Content:
    """One message as it would leave, with the template's examples for what `data` does not give. Raises KeyError,
    ContentRefusal."""
    return catalog[name].render(example_request(catalog[name], channel, language, mode, data, sender, links))


def example_request(
    template: Template,
    channel: Channel,
    language: Language,
    mode: Mode,
    data: Mapping[str, Any] | None = None,
    sender: MessageSender | None = None,
    links: MessageLinks = _LINKS,
) -> RenderRequest:
    """A letter made of examples, to which every category the template declares is open."""
    examples = {variable.name: variable.example[language] for variable in template.variables.values()}
    return RenderRequest(
        channel=channel,
        language=language,
        mode=mode,
        categories=frozenset(variable.category for variable in template.variables.values()),
        data={**examples, **(data or {})},
        sender=sender or _sender(template.entity),
        links=links,
    )


def check_examples(template: Template, place: Callable[[str, int], tuple[str, int]]) -> Iterator[TemplateError]:
    """Write every channel, language and mode, with all values and with only the required ones; yield what goes wrong.

    `place` turns a source's name and line into those of the file it stands in.
    """
    optional = {variable.name: None for variable in template.variables.values() if not variable.required}
    absences: tuple[Mapping[str, Any], ...] = ({}, optional) if optional else ({},)
    modes = sorted(template.info.modes)
    for language, channel, mode, data in product(template.editions, template.channels, modes, absences):
        letter = example_request(template, channel, language, mode, data)
        try:
            template.render(letter)
        except ContentRefusal as refusal:
            file, line = _error_place(template, letter, place)
            missing = "" if data is not optional else " without its optional variables"
            yield TemplateError(
                file, line, refusal.variable, "", f"{_MESSAGES[refusal.code]}: {channel}, {mode}, from the examples{missing}"
            )


_MESSAGES: Mapping[ReasonCode, str] = {
    ReasonCode.MISSING_VARIABLE: "is used but may be absent",
    ReasonCode.WITHHELD_VARIABLE: "is used in a mode that it does not declare",
    ReasonCode.CONTENT_GUARD: "the content guard objects",
    ReasonCode.FAULT: "can't be written",
}


def _error_place(template: Template, letter: RenderRequest, place: Callable[[str, int], tuple[str, int]]) -> tuple[str, int]:
    """The file and line at which writing stops; the guard stops nowhere, so the file it looked at."""
    folder = f"{template.name}/{letter.language}"
    whole = (f"{folder}/email.html" if letter.channel is Channel.EMAIL else f"{folder}/texts.toml", 1)
    try:
        template.compose(letter, template.context(letter))
    except Exception as error:  # whatever a text can raise has a line in that text
        frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        texts = [(name, line) for name, line in frames if name.startswith((f"{template.name}/", "_shared/"))]
        return place(*texts[-1]) if texts else whole
    return whole


def _sender(entity: str) -> MessageSender:
    words = entity.split("-")
    return MessageSender(
        " ".join(word.upper() if len(word) <= 3 else word.capitalize() for word in words), f"info@{entity}.example"
    )
