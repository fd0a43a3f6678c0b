"""A message template, loaded and compiled, and how it becomes the content of one message. Pure once loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jinja2

from channels.base import Channel, Content, Email, MailTemplate, MergedEmail, Push, PushOptions, Sms, WhatsApp
from dispatcher.content.declaration import RENDER_MODES, Variable
from dispatcher.content.environment import MissingVariable, WithheldVariable, missing_value
from dispatcher.content.errors import ContentRefusal
from dispatcher.content.guard import ContentRequirements, GapRoles, PathCheck, failed_check, host_of, precheck
from dispatcher.content.render_request import RenderRequest
from dispatcher.content.specialiser.compiled_path import CompiledPath, RenderPlan
from dispatcher.content.specialiser.decision_tree import RenderedParts, Specialiser
from dispatcher.content.values import READERS, one_line
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind, Mode, OfferType, TemplateInfo
from dispatcher.domain.recipient import Language

PLACEHOLDER = re.compile(r"\{\{(\d+)\}\}")  # a numbered place in an approved WhatsApp text
_IMPERSONAL_CATEGORIES = frozenset({"product", "partner_offer"})  # data categories that say nothing about the recipient
# Typography that costs: one of these in an SMS turns 160 characters a segment into 70.
_SMS_REPLACEMENTS = str.maketrans(
    {
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "–": "-",
        "—": "-",
        "…": "...",
    }
)

Context: TypeAlias = dict[str, Any]
VariableReader: TypeAlias = tuple[str, str, Callable[[Any], Any]]  # a variable's name and category, and what reads its value

_UNSUBSCRIBE, _PREFERENCES = "links.unsubscribe", "links.preferences"  # among values; no variable has a point in its name


@dataclass(frozen=True, slots=True)
class WhatsAppTemplate:
    """A WhatsApp text as the provider approved it, with places {{1}}, {{2}}, …; `content_sid` is its name there."""

    content_sid: str
    text: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedTemplate:
    """A template in one language. `parts` are compiled texts, such as "push.title", "email.html" and
    "whatsapp.standard.1"."""

    parts: Mapping[str, jinja2.Template]
    whatsapp: Mapping[Mode, WhatsAppTemplate]
    warning: str  # the sentence its regulated topic demands, or ""
    mark: str  # the word that says "advertising"


@dataclass(frozen=True, slots=True)
class CompiledMail:
    """What is kept with a path through a mail: the form of its mails, and who vouches for them."""

    form: MailTemplate
    voucher: PathCheck | None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One template in all its languages. `digest` changes with any byte that could change a message. Without a `specialiser`
    every text is written the ordinary way.
    """

    info: TemplateInfo
    version: str
    author: str  # who wrote it; "" where it doesn't say
    digest: str
    entity: str
    channels: tuple[Channel, ...]
    variables: Mapping[str, Variable]
    editions: Mapping[Language, LocalizedTemplate] = field(repr=False)
    push: PushOptions = field(default_factory=PushOptions)
    specialiser: Specialiser | None = field(default=None, repr=False)
    _readings: Mapping[Mode, tuple[VariableReader, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        readings = {
            mode: tuple((each.name, each.category, READERS[each.type]) for each in self.variables.values() if mode in each.modes)
            for mode in RENDER_MODES
        }
        object.__setattr__(self, "_readings", readings)  # the way to derive a field of a frozen class

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.info.template

    def categories(self, mode: Mode) -> frozenset[str]:
        """The data categories that a text in this mode draws on, where the data is there."""
        return frozenset(variable.category for variable in self.variables.values() if mode in variable.modes)

    def objections(self, data: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with a job's data before anything is sent, as (variable, message). A missing value is no fault here:
        the profile may have it."""
        found = [(name, "not declared by the template") for name in data if name not in self.variables]
        for name, variable in self.variables.items():
            try:
                if _has_value(value := data.get(name)):
                    READERS[variable.type](value)
            except ValueError as error:
                found.append((name, str(error)))
        return found

    def render(self, letter: RenderRequest) -> Content:
        """The content of one message, guarded. Raises ContentRefusal, never anything else, and never with a value in it."""
        try:
            values = self.values(letter)
            written = self.written(letter, values)
            content = _COMPOSERS[letter.channel](self, letter, written)
        except ContentRefusal:
            raise
        except MissingVariable as error:
            raise ContentRefusal(ReasonCode.MISSING_VARIABLE, error.message or "") from None
        except WithheldVariable as error:
            raise ContentRefusal(ReasonCode.WITHHELD_VARIABLE, error.message or "") from None
        except Exception as error:  # a text's fault must end one message, not a chunk; its message may hold a value
            raise ContentRefusal(ReasonCode.FAULT, type(error).__name__) from None
        if self._vouched(content, letter, values, written):
            return content
        objecting = failed_check(content, self.shown(content, letter), self.terms(letter, values))
        if objecting:
            raise ContentRefusal(ReasonCode.CONTENT_GUARD, objecting)
        return content

    def values(self, letter: RenderRequest) -> Context:
        """What this letter's texts may be told about its reader, by name: the variables that there are, and the reader's links."""
        data, profile, categories = letter.data, letter.profile, letter.categories
        values: Context = {}
        for name, category, read in self._readings[self.written_mode(letter.mode)]:
            if category not in categories:
                continue
            value = data.get(name)
            if not _has_value(value):
                value = profile.get(category, {}).get(name)
                if not _has_value(value):
                    continue
            try:
                values[name] = read(value)
            except ValueError:
                raise ContentRefusal(ReasonCode.FAULT, name) from None
        values[_UNSUBSCRIBE] = letter.links.unsubscribe
        values[_PREFERENCES] = letter.links.preferences
        return values

    def context(self, letter: RenderRequest) -> Context:
        """The plain dict that every text of this letter is written from."""
        return self._context(letter, self.values(letter))

    def _context(self, letter: RenderRequest, values: Mapping[str, Any]) -> Context:
        mode, sender = self.written_mode(letter.mode), letter.sender
        context: Context = {
            "mode": mode.value,
            "language": letter.language,
            "channel": letter.channel.value,
            "commercial": self.info.kind is Kind.COMMERCIAL,
            "warning": self.editions[letter.language].warning,
            "sender": {"name": sender.name, "address": sender.address, "imprint": sender.imprint},
            "links": {"unsubscribe": values[_UNSUBSCRIBE], "preferences": values[_PREFERENCES]},
        }
        for name, variable in self.variables.items():
            allowed = variable.category in letter.categories and mode in variable.modes
            missing = MissingVariable if allowed else WithheldVariable
            context[name] = values[name] if name in values else missing_value(name, missing, required=variable.required)
        return context

    def written_mode(self, mode: Mode) -> Mode:
        """The mode to write in: the decision's. A service message has one way of writing whatever the reader chose."""
        if mode in self.info.modes:
            return mode
        if self.info.kind is Kind.SERVICE:
            return next(written for written in RENDER_MODES if written in self.info.modes)
        raise ContentRefusal(ReasonCode.FAULT, "mode")

    def compose(self, letter: RenderRequest, context: Context) -> Content:
        """Write the texts of the letter's channel, unguarded and the ordinary way. Raises whatever Jinja raises."""
        return _COMPOSERS[letter.channel](self, letter, RenderedParts(self._plan(letter).rendered(context)))

    def written(self, letter: RenderRequest, values: Mapping[str, Any]) -> RenderedParts:
        """The texts of the letter's channel, along a known path where there is one. Raises whatever Jinja raises."""
        if self.specialiser is None:
            return RenderedParts(self._plan(letter).texts(values))
        key = (letter.channel, letter.language, self.written_mode(letter.mode), letter.sender)
        return self.specialiser.write(key, values, lambda: self._plan(letter))

    def _plan(self, letter: RenderRequest) -> RenderPlan:
        """The parts of the letter's channel, and what they are written from."""
        if letter.channel not in self.channels:
            raise ContentRefusal(ReasonCode.FAULT, "channel")
        edition = self.editions[letter.language]
        names = _PARTS.get(letter.channel) or _whatsapp_parts(edition, self.written_mode(letter.mode))
        return RenderPlan(
            parts={name: edition.parts[name] for name in names},
            context=lambda values: self._context(letter, values),
            finish=_POSTPROCESS if letter.channel is not Channel.WHATSAPP else dict.fromkeys(names, one_line),
            keep=lambda path: self._known(path, letter) if letter.channel is Channel.EMAIL else None,
        )

    def _known(self, path: CompiledPath, letter: RenderRequest) -> CompiledMail:
        """The form of the mails of a new path, and the guard's word for it."""
        form = MailTemplate(*(path.parts[part] for part in _PARTS[Channel.EMAIL]))
        roles = GapRoles(
            in_html=frozenset(path.html_gaps),
            unsubscribe_html=path.gaps(_UNSUBSCRIBE, in_html=True),
            preferences_html=path.gaps(_PREFERENCES, in_html=True),
            unsubscribe_text=path.gaps(_UNSUBSCRIBE, in_html=False),
        )
        return CompiledMail(form, precheck(form, self.terms(letter, {}), roles))

    def _vouched(self, content: Content, letter: RenderRequest, values: Mapping[str, Any], written: RenderedParts) -> bool:
        """Whether the guard need not read this message, because it knows its path."""
        if written.path is None or not isinstance(content, MergedEmail):
            return False
        voucher = written.path.kept.voucher
        return voucher is not None and voucher.passes(content, lambda: self.terms(letter, values))

    def shown(self, content: Content, letter: RenderRequest) -> str:
        """What a WhatsApp reader sees: the approved text with its places filled; "" on other channels."""
        if not isinstance(content, WhatsApp):
            return ""
        approved = self.editions[letter.language].whatsapp[self.written_mode(letter.mode)]
        return PLACEHOLDER.sub(lambda place: content.variables[place[1]], approved.text)

    def terms(self, letter: RenderRequest, values: Mapping[str, Any]) -> ContentRequirements:
        """What this letter is held to by the guard."""
        edition = self.editions[letter.language]
        to_partner = self.info.offer_type in (OfferType.PARTNER, OfferType.KATE)
        return ContentRequirements(
            commercial=self.info.kind is Kind.COMMERCIAL,
            warning=edition.warning,
            mark=edition.mark,
            sender=letter.sender.name,
            unsubscribe=letter.links.unsubscribe,
            own_links=frozenset({letter.links.unsubscribe, letter.links.preferences}),
            to_partner=to_partner,
            own_hosts=_own_hosts(letter) if to_partner else frozenset(),
            personal=self._personal(values) if to_partner else (),
        )

    def _personal(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Texts about the person, long enough to be told from chance."""
        personal = (
            values.get(name) for name, variable in self.variables.items() if variable.category not in _IMPERSONAL_CATEGORIES
        )
        return tuple(value for value in personal if isinstance(value, str) and len(value) > 2)


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())  # an empty CSV cell is no value


def _own_hosts(letter: RenderRequest) -> frozenset[str]:
    hosts = (host_of(letter.links.unsubscribe), host_of(letter.links.preferences))
    return frozenset({letter.sender.address.rpartition("@")[2], *(host for host in hosts if host)})


def _whatsapp_parts(edition: LocalizedTemplate, mode: Mode) -> tuple[str, ...]:
    """The parts of a WhatsApp message."""
    return tuple(f"whatsapp.{mode.value}.{place}" for place in edition.whatsapp[mode].places)


def _gsm_typography(text: str) -> str:
    return text.translate(_SMS_REPLACEMENTS)


_PARTS: Mapping[Channel, tuple[str, ...]] = {
    Channel.PUSH: ("push.title", "push.body", "push.link"),
    Channel.EMAIL: ("email.subject", "email.html", "email.text"),
    Channel.SMS: ("sms.text",),
}
_POSTPROCESS: Mapping[str, Callable[[str], str]] = {"push.title": one_line, "email.subject": one_line, "sms.text": _gsm_typography}


def _push(template: Template, letter: RenderRequest, written: RenderedParts) -> Push:  # noqa: ARG001  one shape for all
    texts = written.texts()
    return Push(title=texts["push.title"], body=texts["push.body"], link=texts["push.link"], options=template.push)


def _email(template: Template, letter: RenderRequest, written: RenderedParts) -> Email | MergedEmail:
    sender = letter.sender
    headers: tuple[tuple[str, str], ...] = ()
    if template.info.kind is Kind.COMMERCIAL:  # RFC 8058: both, or mail clients offer no button
        headers = (
            ("List-Unsubscribe", f"<{letter.links.unsubscribe}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        )
    if written.path is not None:
        return MergedEmail(sender.name, sender.address, written.path.kept.form, written.values_by_tag, headers)
    subject, html, text = written.texts().values()
    return Email(sender.name, sender.address, subject, html, text, headers)


def _sms(template: Template, letter: RenderRequest, written: RenderedParts) -> Sms:  # noqa: ARG001  one shape for all
    return Sms(text=written.texts()["sms.text"])


def _whatsapp(template: Template, letter: RenderRequest, written: RenderedParts) -> WhatsApp:
    approved = template.editions[letter.language].whatsapp[template.written_mode(letter.mode)]
    values = dict(zip(approved.places, written.texts().values(), strict=True))
    return WhatsApp(content_sid=approved.content_sid, variables=values)


_COMPOSERS: Mapping[Channel, Callable[[Template, RenderRequest, RenderedParts], Content]] = {
    Channel.PUSH: _push,
    Channel.EMAIL: _email,
    Channel.SMS: _sms,
    Channel.WHATSAPP: _whatsapp,
}
