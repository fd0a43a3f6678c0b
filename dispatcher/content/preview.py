"""Render a template from its own examples: for previews, and to find errors at load time that static checks miss."""

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
) -> Content:
    """One message as it would be sent, with the template's examples for values that `data` does not give. Raises KeyError,
    ContentRefusal."""
    return catalog[name].render(example_request(catalog[name], channel, language, mode, data))


def example_request(
    template: Template,
    channel: Channel,
    language: Language,
    mode: Mode,
    data: Mapping[str, Any] | None = None,
) -> RenderRequest:
    """A render request with the template's examples, an example sender and example links. It allows every declared category."""
    examples = {variable.name: variable.example[language] for variable in template.variables.values()}
    return RenderRequest(
        channel=channel,
        language=language,
        mode=mode,
        categories=frozenset(variable.category for variable in template.variables.values()),
        data={**examples, **(data or {})},
        sender=_sender(template.entity),
        links=_LINKS,
    )


def check_examples(template: Template, place: Callable[[str, int], tuple[str, int]]) -> Iterator[TemplateError]:
    """Render every channel, language and mode, with all values and with only the required ones; yield the errors.

    `place` maps the name and line of a source to its file and line.
    """
    optional = {variable.name: None for variable in template.variables.values() if not variable.required}
    absences: tuple[Mapping[str, Any], ...] = ({}, optional) if optional else ({},)
    modes = sorted(template.info.modes)
    for language, channel, mode, data in product(template.languages, template.channels, modes, absences):
        request = example_request(template, channel, language, mode, data)
        try:
            template.render(request)
        except ContentRefusal as refusal:
            file, line = _error_place(template, request, place)
            missing = "" if data is not optional else " without its optional variables"
            yield TemplateError(
                file, line, refusal.variable, "", f"{_MESSAGES[refusal.code]}: {channel}, {mode}, from the examples{missing}"
            )


_MESSAGES: Mapping[ReasonCode, str] = {
    ReasonCode.MISSING_VARIABLE: "is used but may be absent",
    ReasonCode.WITHHELD_VARIABLE: "is used in a mode that it does not declare",
    ReasonCode.CONTENT_GUARD: "the content guard objects",
    ReasonCode.FAULT: "can't be rendered",
}


def _error_place(template: Template, request: RenderRequest, place: Callable[[str, int], tuple[str, int]]) -> tuple[str, int]:
    """The file and line at which rendering fails. A failed guard check has no line, so the whole file."""
    folder = f"{template.name}/{request.language}"
    whole_file = (f"{folder}/email.html" if request.channel is Channel.EMAIL else f"{folder}/texts.toml", 1)
    try:
        template.compose(request, template.context(request))
    except Exception as error:  # any error of a text has a line in that text
        frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        frames_in_texts = [(name, line) for name, line in frames if name.startswith((f"{template.name}/", "_shared/"))]
        return place(*frames_in_texts[-1]) if frames_in_texts else whole_file
    return whole_file


def _sender(entity: str) -> MessageSender:
    words = entity.split("-")
    return MessageSender(
        " ".join(word.upper() if len(word) <= 3 else word.capitalize() for word in words), f"info@{entity}.example"
    )
