"""The messages that the linter reads: every channel, language and mode of a template, from its examples, without the guard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from channels.base import Channel, Content, Email, Push, Sms
from dispatcher.content.guard import ContentRequirements
from dispatcher.content.links import text_links
from dispatcher.content.lint.findings import LintFinding, lint_rules
from dispatcher.content.lint.mail_page import MailPage, one_line
from dispatcher.content.lint.marked import MarkedSources, MarkedText, Place
from dispatcher.content.preview import data_sets, example_request
from dispatcher.content.render_request import RenderRequest, Senders
from dispatcher.content.template import Template
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language

_ADDED = "https://"
PARTS: Mapping[Channel, str] = {Channel.PUSH: "push.body", Channel.EMAIL: "email.html", Channel.SMS: "sms.text"}


@dataclass(frozen=True, slots=True)
class LintContext:
    """What the linter takes from the policy: the sender of each language, with the hosts that links may name, for each mode (and
    "service") the data categories that a message may use, the characters that a push may have (0: any number), and the words by
    language of a form of address that is not the bank's. Without `categories` every one is allowed."""

    senders: Senders = field(default_factory=dict)
    categories: Mapping[str, frozenset[str]] = field(default_factory=dict)
    push_title_max: int = 0
    push_body_max: int = 0
    avoided_address: Mapping[Language, tuple[str, ...]] = field(default_factory=dict)


def first_by_language(samples: Iterable[LintSample]) -> Iterable[LintSample]:
    """The first sample of each language: for checks of its sources."""
    firsts: dict[Language, LintSample] = {}
    for sample in samples:
        firsts.setdefault(sample.request.language, sample)
    return firsts.values()


@dataclass(frozen=True)
class LintSample:
    """One message. `text` is what its reader sees: of a mail the text part, of a push title and body. `data_set` says which values
    it has: "" stands for the examples."""

    template: Template
    sources: MarkedSources
    request: RenderRequest
    content: Content
    text: str
    data_set: str = ""
    html: MarkedText | None = None
    marked_text: MarkedText | None = None

    @cached_property
    def page(self) -> MailPage | None:
        """The HTML of a mail."""
        if self.html is None or not self.html.text.strip():
            return None
        return MailPage(self.html, self.template.name, self.place("email.html")[0])

    @cached_property
    def requirements(self) -> ContentRequirements:
        """What the content guard would require."""
        return self.template.requirements(self.request, self.template.values(self.request))

    @cached_property
    def preheader(self) -> str:
        """What a mailbox shows after the subject; "" where none is written."""
        part = self.template.languages[self.request.language].parts.get("email.preheader")
        return one_line(part.render(self.template.context(self.request))) if part else ""

    @property
    def has_generated_text(self) -> bool:
        """Whether the text part of a mail is made from its HTML: what the author wrote is in the HTML, and reported there."""
        return self.sources.is_generated(self.request.language, "email.text")

    @cached_property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """The parts that somebody wrote, each with its text; of the HTML what is shown."""
        return tuple(each for each in self.sent_texts if each[0] != "email.text" or not self.has_generated_text)

    @cached_property
    def sent_texts(self) -> tuple[tuple[str, str], ...]:
        """The same with a text part that is made from the HTML."""
        return tuple(self._read_texts())

    def _read_texts(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.content, Email):
            yield "email.subject", self.content.subject
            if self.preheader:
                yield "email.preheader", self.preheader
            if self.page:
                yield "email.html", self.page.visible_text()
            yield "email.text", self.content.text
        elif isinstance(self.content, Push):
            yield "push.title", self.content.title
            yield "push.body", self.content.body
        elif isinstance(self.content, Sms):
            yield "sms.text", self.content.text
        else:
            yield f"whatsapp.{self.mode}.approved", self.text

    @property
    def mode(self) -> Mode:
        """The mode in which the message is rendered."""
        return self.template.render_mode(self.request.mode)

    @property
    def part(self) -> str:
        """The part that stands for the message in findings about all of it."""
        return PARTS.get(self.request.channel, f"whatsapp.{self.mode}.approved")

    def place(self, part: str) -> Place:
        """Where a part begins in the sources."""
        return self.sources.place(self.request.language, part)

    def line_in(self, part: str, words: str) -> Place:
        """The line of a part's source that has these words; where the part begins if none has."""
        return self.sources.line_of(self.request.language, part, words)

    def place_of(self, part: str, text: str) -> Place:
        """The line of a part on which a text of the message stands; where the part begins if it is not found."""
        marked = {"email.html": self.html, "email.text": self.marked_text}.get(part)
        position = _position(text, marked.text) if marked else -1
        if marked and position >= 0:
            own = [each for each in marked.origin(position) if each[0].startswith(f"{self.template.name}/")]
            if own or marked.origin(position):
                return (own or list(marked.origin(position)))[-1]
        if text.startswith(_ADDED) and position < 0:  # to a host that the text names without it
            return self.place_of(part, text.removeprefix(_ADDED))
        return self.sources.line_of(self.request.language, part, text)

    def declared_in_mail(self, declaration: str) -> Place | None:
        """The line of the mail's own file that has a declaration of CSS, such as "display: none"."""
        source = self.sources.parts[self.request.language].get("email.html")
        name, _, value = declaration.partition(": ")
        pattern = re.compile(rf"(?<![\w-]){re.escape(name)}\s*:\s*{re.escape(value)}", re.IGNORECASE)
        for number, line in enumerate(source.source.split("\n") if source and value else (), 1):
            if source and pattern.search(line):
                return source.place(number)
        return None

    def text_links(self) -> Iterator[tuple[str, str]]:
        """The links outside HTML, each with its part."""
        if isinstance(self.content, Push) and self.content.link:
            yield "push.link", self.content.link
        for part, text in self.texts:
            if part != "email.html":
                hosts = self.requirements.hosts
                for link in text_links(text, *((hosts.own, hosts.partners) if hosts else ())):
                    yield part, link

    def finding(self, code: str, place: Place, field: str, message: str, value: str = "") -> LintFinding:
        """A finding of a rule at a place."""
        return LintFinding(
            file=place[0],
            line=place[1],
            code=code,
            severity=lint_rules()[code].severity,
            field=field,
            value=one_line(value)[:200],
            message=message,
            languages=(self.request.language,),
            channels=(self.request.channel.value,),
            modes=(self.mode.value,),
            templates=(self.template.name,),
        )


def _position(text: str, whole: str) -> int:
    """Where a text stands in another, -1 if it does not: not within a longer number."""
    number = (r"(?<![0-9.,])" if text[:1].isdigit() else "", r"(?![0-9]|[.,][0-9])" if text[-1:].isdigit() else "")
    found = re.search(re.escape(text).join(number), whole) if any(number) else None
    return found.start() if found else whole.find(text)


def read_samples(template: Template, context: LintContext) -> list[LintSample]:
    """The messages of a template, with all examples and with each set of other values. Those that cannot be rendered are left out:
    loading reports them."""
    sources = MarkedSources(template)
    modes, sets = sorted(template.info.modes), list(data_sets(template))
    samples = []
    for language, channel, mode, (which, data) in product(template.languages, template.channels, modes, sets):
        request = lint_request(template, channel, language, mode, context)
        sample = _sample(template, sources, replace(request, data={**request.data, **data}), which)
        if sample is not None:
            samples.append(sample)
    return samples


def lint_request(template: Template, channel: Channel, language: Language, mode: Mode, context: LintContext) -> RenderRequest:
    """A render request with the template's examples and the sender that the policy names."""
    return example_request(template, channel, language, mode, None, context.senders)


def _sample(template: Template, sources: MarkedSources, request: RenderRequest, which: str) -> LintSample | None:
    html = marked_text = None
    try:
        values = template.context(request)
        content = template.compose(request, values)
        if request.channel is Channel.EMAIL:
            html = sources.render(request.language, "email.html", values)
            marked_text = sources.render(request.language, "email.txt", values)
        shown = template.visible_text(content, request)
    except Exception:  # an error of a template can be any; loading reports it
        return None
    if isinstance(content, Push):
        shown = f"{content.title} {content.body}"
    elif isinstance(content, Email | Sms):
        shown = content.text
    return LintSample(template, sources, request, content, shown, which, html, marked_text)


def with_all_values(samples: Iterable[LintSample]) -> list[LintSample]:
    """The samples with all examples."""
    return [each for each in samples if not each.data_set]


def rendered(template: Template, request: RenderRequest, **data: Any) -> Content | None:
    """A message with other values; None if it cannot be rendered."""
    try:
        changed = replace(request, data={**request.data, **data})
        return template.compose(changed, template.context(changed))
    except Exception:  # as above
        return None
