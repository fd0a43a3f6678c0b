"""Render a template from its own examples: for previews, and to find errors at load time that static checks miss."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from html import unescape
from itertools import product
from traceback import walk_tb
from typing import Any

from channels.base import Channel, Content, Email, Sms
from channels.sms_segments import Segments, count_segments
from dispatcher.content.declaration import IMPERSONAL_CATEGORIES, IN_A_LINK
from dispatcher.content.errors import ContentRefusal, TemplateError
from dispatcher.content.guard import holds_value, html_faults, links_of
from dispatcher.content.links import host_of, is_within
from dispatcher.content.mail_html import HtmlFault, read_mail_html
from dispatcher.content.render_request import NO_SENDERS, LinkHosts, MessageLinks, MessageSender, RenderRequest, Senders
from dispatcher.content.template import Template
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language

_IN_A_PARTNERS_LINK = "only a whole link, of type url, may vary in a link to a partner: it must be the same for everybody"
_HOST = re.compile(r"\w+:(?://[^/?#]+)?")
TOKEN_CHARACTERS = 43  # of a real link: with shorter ones the segments of an SMS would be counted too low
_LINKS = MessageLinks(*(f"https://www.bank.example/{page}/{'preview'.ljust(TOKEN_CHARACTERS, '0')}" for page in "up"))


def example_request(
    template: Template,
    channel: Channel,
    language: Language,
    mode: Mode,
    data: Mapping[str, Any] | None = None,
    senders: Senders = NO_SENDERS,
) -> RenderRequest:
    """A render request with the template's examples and example links. It allows every declared category.

    `senders` are those of the policy: without them the text names an example sender, of another length than the real one.
    """
    examples = {variable.name: variable.example[language] for variable in template.variables.values()}
    return RenderRequest(
        channel=channel,
        language=language,
        mode=mode,
        categories=frozenset(variable.category for variable in template.variables.values()),
        data={**examples, **(data or {})},
        sender=senders.get(language) or _sender(template.entity),
        links=_LINKS,
    )


def sms_sizes(template: Template, senders: Senders) -> Iterator[tuple[str, Language, Mode, Segments]]:
    """The segments of each SMS of a template, from its examples: (template, language, mode, segments)."""
    for language, mode in product(template.languages, sorted(template.info.modes)) if Channel.SMS in template.channels else ():
        sms = template.render(example_request(template, Channel.SMS, language, mode, None, senders))
        assert isinstance(sms, Sms)  # noqa: S101  the channel's content
        yield template.name, language, mode, count_segments(sms.text)


def check_examples(
    template: Template, place: Callable[[str, int], tuple[str, int]], senders: Senders = NO_SENDERS
) -> Iterator[TemplateError]:
    """Render every channel, language and mode, with all values, with the samples of what has samples, and with only the required
    values; yield the errors.

    `place` maps the name and line of a source to its file and line. With `senders`, links may name their hosts only, and an SMS has
    no more segments than the template declares: the sender's name is a part of its length.
    """
    # By Jinja itself: a compiled path costs ten renderings, and no message has the example sender that it would be for.
    template = replace(template, specialiser=None)
    modes, trials = sorted(template.info.modes), list(data_sets(template))
    for language, channel, mode, (which, data) in product(template.languages, template.channels, modes, trials):
        request = example_request(template, channel, language, mode, data, senders)
        try:
            content = template.render(request)
            if language in senders and (message := too_many_segments(template, request, content)):
                name = str(template.languages[language].parts["sms.text"].name)
                yield TemplateError(*place(name, 1), "sms.text", "", message)
        except ContentRefusal as refusal:
            shown = f"{_MESSAGES[refusal.code]}: {channel}, {mode}, from the examples{which}"
            faults = list(_html_faults(template, request, refusal, shown)) if channel is Channel.EMAIL else []
            if faults:
                yield from faults
            else:
                yield TemplateError(*error_place(template, request, place), refusal.variable, "", shown)


def data_sets(template: Template) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What to try in place of the examples, each with the words for an error."""
    yield "", {}
    optional = {variable.name: None for variable in template.variables.values() if not variable.required}
    if optional:
        yield " without its optional variables", optional
    for number in range(max((len(variable.samples) for variable in template.variables.values()), default=0)):
        sampled = [variable for variable in template.variables.values() if number < len(variable.samples)]
        yield f" with samples, number {number + 1}", {variable.name: variable.samples[number] for variable in sampled}


def too_many_segments(template: Template, request: RenderRequest, content: Content) -> str:
    """The error of an SMS with more segments than the template declares, else "": each segment costs as much as a message."""
    limit = template.segments_max.get(request.language)
    if not isinstance(content, Sms) or limit is None:
        return ""
    segments = count_segments(content.text)
    return f"takes {segments}, more than segments_max = {limit}: {request.mode}" if segments.count > limit else ""


def check_links_for_personal_data(template: Template) -> Iterator[TemplateError]:
    """Render with a probe for each text about the person; yield the links, other than the reader's own, that hold one.

    A static check sees only variables that are written in the link itself.
    """
    probes = {name: f"Zq{number}xqz" for number, name in enumerate(template.variables)}
    personal = [each for each in template.variables.values() if each.category not in IMPERSONAL_CATEGORIES]
    data = {each.name: probes[each.name] for each in personal if each.type == "text"}
    data |= {each.name: f"https://www.bank.example/{probes[each.name]}" for each in personal if each.type == "url"}
    for language, channel, mode in product(template.languages, template.channels, sorted(template.info.modes)) if data else ():
        request = example_request(template, channel, language, mode, data)
        try:
            content = template.compose(request, template.context(request))
        except Exception:  # noqa: S112  `check_examples` reports it
            continue
        for link in links_of(content, template.visible_text(content, request)):
            for name in data if link not in (_LINKS.unsubscribe, _LINKS.preferences) else ():
                if holds_value(link, (probes[name],)):
                    fault = HtmlFault(0, name, link.partition(probes[name])[0], "")
                    file = f"{template.name}/{language}/texts.toml"
                    place = _line_of(template, language, fault) if channel is Channel.EMAIL else (file, 1)
                    yield TemplateError(*place, name, "", f"{IN_A_LINK}: {channel}, {mode}")


def check_links_to_partners(template: Template, hosts: LinkHosts) -> Iterator[TemplateError]:
    """Render with a probe for each text and number; yield the links to partners, or to a host with a probe in it, that hold one.

    Such a link could be another for each person, and no comparison of the values would see it: they are no links themselves.
    """
    texts = {name: f"zq{place}xqz" for place, name in enumerate(template.variables) if template.variables[name].type == "text"}
    numbers = {
        name: 73_190_400 + place for place, name in enumerate(template.variables) if template.variables[name].type == "number"
    }
    probes: dict[str, Any] = {**texts, **numbers}
    for language, channel, mode in product(template.languages, template.channels, sorted(template.info.modes)) if probes else ():
        request = example_request(template, channel, language, mode, probes)
        try:
            content = template.compose(request, template.context(request))
        except Exception:  # noqa: S112  `check_examples` reports it
            continue
        for link in links_of(content, template.visible_text(content, request), hosts.own, hosts.partners):
            host = host_of(link)
            for name, probe in probes.items():
                if holds_value(host if not is_within(host, hosts.partners) else link, (str(probe),)):
                    fault = HtmlFault(0, name, link.partition(str(probe))[0], "")
                    file = f"{template.name}/{language}/texts.toml"
                    place = _line_of(template, language, fault) if channel is Channel.EMAIL else (file, 1)
                    yield TemplateError(*place, name, "", f"{_IN_A_PARTNERS_LINK}: {channel}, {mode}")


def _html_faults(template: Template, request: RenderRequest, refusal: ContentRefusal, shown: str) -> Iterator[TemplateError]:
    """Why the guard refuses the HTML of a mail: each fault at the first line of the sources that holds its value."""
    if refusal.code is not ReasonCode.CONTENT_GUARD:
        return
    mail = template.compose(request, template.context(request))
    assert isinstance(mail, Email)  # noqa: S101  the template has no specialiser here
    for name, faults in html_faults(read_mail_html(mail.html), template.requirements(request, template.values(request))):
        for fault in faults if name == refusal.variable else ():
            file, line = _line_of(template, request.language, fault)
            yield TemplateError(file, line, name, fault.value, f"{fault.name} {fault.message}: {shown}")


def _line_of(template: Template, language: Language, fault: HtmlFault) -> tuple[str, int]:
    """The first line that holds the fault's value, or else its host or its element: of the mail's own file, then of the shared
    files, then of the declaration, which holds the examples."""
    own = f"{template.name}/{language}/email.html"
    shared = sorted(file for file in template.source if file.endswith(".html") and not file.startswith(f"{template.name}/"))
    host = _HOST.match(fault.value)
    for words in (fault.value, host[0] if host else "", f"<{fault.name.split()[0].strip('<')}"):
        for file in (own, *shared, f"{template.name}/template.toml") if words else ():
            for number, line in enumerate(template.source.get(file, "").split("\n"), 1):
                if words in unescape(line):
                    return file, number
    return own, 1


_MESSAGES: Mapping[ReasonCode, str] = {
    ReasonCode.MISSING_VARIABLE: "is used but may be absent",
    ReasonCode.WITHHELD_VARIABLE: "is used in a mode that it does not declare",
    ReasonCode.CONTENT_GUARD: "the content guard objects",
    ReasonCode.FAULT: "can't be rendered",
}


def error_place(template: Template, request: RenderRequest, place: Callable[[str, int], tuple[str, int]]) -> tuple[str, int]:
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
