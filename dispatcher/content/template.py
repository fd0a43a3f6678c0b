"""A message template, loaded and compiled, and how it becomes the content of one message. Pure once loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import jinja2

from channels.base import Channel, Content, Email, Push, PushOptions, Sms, WhatsApp
from dispatcher.content.declaration import RENDERED, Variable
from dispatcher.content.faults import ContentRefusal
from dispatcher.content.guard import Terms, objection
from dispatcher.content.letter import Letter
from dispatcher.content.sandbox import MissingVariable, WithheldVariable, absent
from dispatcher.content.values import READERS, one_line
from dispatcher.model import Brief, Code, Kind, Language, Mode, OfferType

PLACE = re.compile(r"\{\{(\d+)\}\}")  # a numbered place in an approved WhatsApp text
_IMPERSONAL = frozenset({"product", "partner_offer"})  # data categories that say nothing about the recipient
# Typography that costs: one of these in an SMS turns 160 characters a segment into 70.
_PLAIN = str.maketrans(
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


@dataclass(frozen=True, slots=True)
class Approved:
    """A WhatsApp text as the provider approved it, with places {{1}}, {{2}}, …; `content_sid` is its name there."""

    content_sid: str
    text: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Edition:
    """A template in one language. `parts` are compiled texts, such as "push.title", "email.html" and
    "whatsapp.standard.1"."""

    parts: Mapping[str, jinja2.Template]
    whatsapp: Mapping[Mode, Approved]
    warning: str  # the sentence its regulated topic demands, or ""
    mark: str  # the word that says "advertising"


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One template in all its languages. `digest` changes with any byte that could change a message."""

    brief: Brief
    version: str
    digest: str
    entity: str
    channels: tuple[Channel, ...]
    variables: Mapping[str, Variable]
    editions: Mapping[Language, Edition] = field(repr=False)
    push: PushOptions = field(default_factory=PushOptions)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.brief.template

    def categories(self, mode: Mode) -> frozenset[str]:
        """The data categories that a text in this mode draws on, where the data is there."""
        return frozenset(variable.category for variable in self.variables.values() if mode in variable.modes)

    def objections(self, data: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with a job's data before anything is sent, as (variable, message). A missing value is no fault here:
        the profile may have it."""
        found = [(name, "not declared by the template") for name in data if name not in self.variables]
        for name, variable in self.variables.items():
            try:
                if _given(value := data.get(name)):
                    READERS[variable.type](value)
            except ValueError as error:
                found.append((name, str(error)))
        return found

    def render(self, letter: Letter) -> Content:
        """The content of one message, guarded. Raises ContentRefusal, never anything else, and never with a value in it."""
        try:
            context = self.context(letter)
            content = self.compose(letter, context)
        except ContentRefusal:
            raise
        except MissingVariable as error:
            raise ContentRefusal(Code.MISSING_VARIABLE, error.message or "") from None
        except WithheldVariable as error:
            raise ContentRefusal(Code.WITHHELD_VARIABLE, error.message or "") from None
        except Exception as error:  # a text's fault must end one message, not a chunk; its message may hold a value
            raise ContentRefusal(Code.FAULT, type(error).__name__) from None
        objecting = objection(content, self.shown(content, letter), self.terms(letter, context))
        if objecting:
            raise ContentRefusal(Code.CONTENT_GUARD, objecting)
        return content

    def context(self, letter: Letter) -> Context:
        """The plain dict that every text of this letter is written from."""
        mode = self.written_mode(letter.mode)
        sender, links = letter.sender, letter.links
        context: Context = {
            "mode": mode.value,
            "language": letter.language,
            "channel": letter.channel.value,
            "commercial": self.brief.kind is Kind.COMMERCIAL,
            "warning": self.editions[letter.language].warning,
            "sender": {"name": sender.name, "address": sender.address, "imprint": sender.imprint},
            "links": {"unsubscribe": links.unsubscribe, "preferences": links.preferences},
        }
        for name, variable in self.variables.items():
            context[name] = _value(variable, letter, mode)
        return context

    def written_mode(self, mode: Mode) -> Mode:
        """The mode to write in: the decision's. A service message has one way of writing whatever the reader chose."""
        if mode in self.brief.modes:
            return mode
        if self.brief.kind is Kind.SERVICE:
            return next(written for written in RENDERED if written in self.brief.modes)
        raise ContentRefusal(Code.FAULT, "mode")

    def compose(self, letter: Letter, context: Context) -> Content:
        """Write the texts of the letter's channel, unguarded. Raises whatever Jinja raises."""
        if letter.channel not in self.channels:
            raise ContentRefusal(Code.FAULT, "channel")
        return _COMPOSERS[letter.channel](self, letter, context)

    def shown(self, content: Content, letter: Letter) -> str:
        """What a WhatsApp reader sees: the approved text with its places filled; "" on other channels."""
        if not isinstance(content, WhatsApp):
            return ""
        approved = self.editions[letter.language].whatsapp[self.written_mode(letter.mode)]
        return PLACE.sub(lambda place: content.variables[place[1]], approved.text)

    def terms(self, letter: Letter, context: Context) -> Terms:
        """What this letter is held to by the guard."""
        edition = self.editions[letter.language]
        to_partner = self.brief.offer_type in (OfferType.PARTNER, OfferType.KATE)
        return Terms(
            commercial=self.brief.kind is Kind.COMMERCIAL,
            warning=edition.warning,
            mark=edition.mark,
            sender=letter.sender.name,
            unsubscribe=letter.links.unsubscribe,
            own_links=frozenset({letter.links.unsubscribe, letter.links.preferences}),
            to_partner=to_partner,
            own_hosts=_own_hosts(letter) if to_partner else frozenset(),
            personal=self._personal(context) if to_partner else (),
        )

    def _personal(self, context: Context) -> tuple[str, ...]:
        """Texts about the person, long enough to be told from chance."""
        values = (context[name] for name, variable in self.variables.items() if variable.category not in _IMPERSONAL)
        return tuple(value for value in values if isinstance(value, str) and len(value) > 2)


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())  # an empty CSV cell is no value


def _value(variable: Variable, letter: Letter, mode: Mode) -> Any:
    if variable.category not in letter.categories or mode not in variable.modes:
        return absent(variable.name, WithheldVariable, required=variable.required)
    value = letter.data.get(variable.name)
    if not _given(value):
        value = letter.profile.get(variable.category, {}).get(variable.name)
    if not _given(value):
        return absent(variable.name, MissingVariable, required=variable.required)
    try:
        return READERS[variable.type](value)
    except ValueError:
        raise ContentRefusal(Code.FAULT, variable.name) from None


def _own_hosts(letter: Letter) -> frozenset[str]:
    hosts = (urlsplit(letter.links.unsubscribe).hostname, urlsplit(letter.links.preferences).hostname)
    return frozenset({letter.sender.address.rpartition("@")[2], *(host for host in hosts if host)})


def _push(template: Template, letter: Letter, context: Context) -> Push:
    parts = template.editions[letter.language].parts
    title, body, link = (parts[f"push.{part}"].render(context) for part in ("title", "body", "link"))
    return Push(title=one_line(title), body=body, link=link, options=template.push)


def _email(template: Template, letter: Letter, context: Context) -> Email:
    parts = template.editions[letter.language].parts
    headers: tuple[tuple[str, str], ...] = ()
    if template.brief.kind is Kind.COMMERCIAL:  # RFC 8058: both, or mail clients offer no button
        headers = (
            ("List-Unsubscribe", f"<{letter.links.unsubscribe}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        )
    return Email(
        sender_name=letter.sender.name,
        sender_address=letter.sender.address,
        subject=one_line(parts["email.subject"].render(context)),
        html=parts["email.html"].render(context),
        text=parts["email.text"].render(context),
        headers=headers,
    )


def _sms(template: Template, letter: Letter, context: Context) -> Sms:
    text = template.editions[letter.language].parts["sms.text"].render(context)
    return Sms(text=text.translate(_PLAIN))


def _whatsapp(template: Template, letter: Letter, context: Context) -> WhatsApp:
    edition, mode = template.editions[letter.language], template.written_mode(letter.mode)
    approved = edition.whatsapp[mode]
    values = {place: one_line(edition.parts[f"whatsapp.{mode.value}.{place}"].render(context)) for place in approved.places}
    return WhatsApp(content_sid=approved.content_sid, variables=values)


_COMPOSERS: Mapping[Channel, Callable[[Template, Letter, Context], Content]] = {
    Channel.PUSH: _push,
    Channel.EMAIL: _email,
    Channel.SMS: _sms,
    Channel.WHATSAPP: _whatsapp,
}
