"""A compiled message template, and how it is rendered to the content of one message. Pure once loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import jinja2

from channels.base import Channel, Content, Email, MailTemplate, MergedEmail, Push, PushOptions, Sms, WhatsApp
from channels.whatsapp_templates import TemplateButton
from dispatcher.content.declaration import IMPERSONAL_CATEGORIES, RENDER_MODES, TemplateVariable
from dispatcher.content.environment import MissingVariable, WithheldVariable, missing_value
from dispatcher.content.errors import ContentRefusal, TemplateError
from dispatcher.content.guard import ContentRequirements, failed_check, squeezed
from dispatcher.content.links import gsm_typography
from dispatcher.content.partner_links import Partners, partner_links
from dispatcher.content.path_check import GapRoles, PathCheck, precheck
from dispatcher.content.render_counts import COUNTS
from dispatcher.content.render_request import PREFERENCES, UNSUBSCRIBE, MessageSender, RenderRequest, RenderValues
from dispatcher.content.specialiser.compiled_path import CompiledPath, RenderPlan
from dispatcher.content.specialiser.decision_tree import RenderedParts, Specialiser
from dispatcher.content.themes import NEUTRAL, Theme
from dispatcher.content.values import READERS, one_line
from dispatcher.domain.decision import ReasonCode
from dispatcher.domain.message import Kind, Mode, OfferType, TemplateInfo
from dispatcher.domain.notation import ambiguous_number, placeholder
from dispatcher.domain.recipient import Language

PLACEHOLDER = re.compile(r"\{\{(\d+)\}\}")  # a numbered placeholder in an approved WhatsApp text

_EMPTY: Mapping[str, Any] = {}
Context: TypeAlias = dict[str, Any]
ValueReader: TypeAlias = tuple[
    str, str, Callable[[Any], Any]
]  # a variable's name, its category, and the function that reads its value

PARTNER_LINK = "partner_link"  # the check that objects to a link to a partner from the recipient's profile


@dataclass(frozen=True, slots=True)
class WhatsAppTemplate:
    """A WhatsApp text as the provider approves it, with placeholders {{1}}, {{2}}, …

    `content_sid` is the provider's id, where the file names one. The ledger keeps the ids that are used, by account.
    """

    content_sid: str
    text: str
    placeholders: tuple[str, ...]
    buttons: tuple[TemplateButton, ...] = ()

    @property
    def links(self) -> tuple[str, ...]:
        """The addresses of its buttons."""
        return tuple(button.url for button in self.buttons if button.url)

    def digest(self, kind: Kind) -> str:
        """SHA-256 of what WhatsApp approves: the text and the buttons, as marketing or not. A change needs another approval."""
        document = [kind.value, self.text, [[button.title, button.payload, button.url] for button in self.buttons]]
        return hashlib.sha256(json.dumps(document, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class LocalizedTemplate:
    """A template in one language. `parts` are compiled texts, such as "push.title", "email.html" and
    "whatsapp.standard.1"."""

    parts: Mapping[str, jinja2.Template]
    whatsapp: Mapping[Mode, WhatsAppTemplate]
    warning: str  # the sentence that its regulated topic requires, or ""
    mark: str  # the word that says "advertising"


@dataclass(frozen=True, slots=True)
class CompiledMail:
    """What is stored with a compiled path of a mail: the template of its mails, and the guard's precheck of it."""

    mail_template: MailTemplate
    path_check: PathCheck | None


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """One template in all languages. `digest` changes with any byte that could change a message. Without a `specialiser`
    Jinja renders every text.
    """

    info: TemplateInfo
    version: str
    author: str  # who wrote it; "" if not declared
    digest: str
    entity: str
    channels: tuple[Channel, ...]
    variables: Mapping[str, TemplateVariable]
    languages: Mapping[Language, LocalizedTemplate] = field(repr=False)
    push: PushOptions = field(default_factory=PushOptions)
    segments_max: Mapping[Language, int] = field(default_factory=dict)  # of an SMS, by language
    themes: Mapping[str, Theme] = field(default_factory=dict, repr=False)  # by entity
    source: Mapping[str, str] = field(default_factory=dict, repr=False)  # the files that `digest` is computed over, by name
    translations: str = field(default="", repr=False)  # its translations.toml, which changes no message
    translation_faults: tuple[TemplateError, ...] = ()  # texts that are not translated, or stale: they block approval
    specialiser: Specialiser | None = field(default=None, repr=False)
    _personal: tuple[str, ...] = field(init=False, repr=False)  # the variables that are about the person

    def __post_init__(self) -> None:
        personal = tuple(each.name for each in self.variables.values() if each.category not in IMPERSONAL_CATEGORIES)
        object.__setattr__(self, "_personal", personal)  # the way to derive a field of a frozen class

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.info.template

    def categories(self, mode: Mode) -> frozenset[str]:
        """The data categories that a text in this mode may use, if there is data."""
        return frozenset(variable.category for variable in self.variables.values() if mode in variable.modes)

    def data_errors(self, data: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The errors of a job's data, as (variable, message). A missing value is no error: the profile may have it."""
        errors = [(name, "not declared by the template") for name in data if name not in self.variables]
        for name, variable in self.variables.items():
            try:
                if _has_value(value := data.get(name)):
                    if variable.type == "money" and isinstance(value, str) and (reason := ambiguous_number(value)):
                        raise ValueError(reason)
                    READERS[variable.type](value)
                    if variable.category == "identity" and (reason := placeholder(value)):
                        errors.append((name, reason))
            except ValueError as error:
                errors.append((name, str(error)))
        return errors

    def render(self, request: RenderRequest) -> Content:
        """The content of one message that passes the guard. Raises only `ContentRefusal`, which never contains a value."""
        try:
            values = self.values(request)
            rendered = self.render_parts(request, values)
            content = _COMPOSERS[request.channel](self, request, rendered)
        except ContentRefusal:
            raise
        except MissingVariable as error:
            raise ContentRefusal(ReasonCode.MISSING_VARIABLE, error.message or "") from None
        except WithheldVariable as error:
            raise ContentRefusal(ReasonCode.WITHHELD_VARIABLE, error.message or "") from None
        except Exception as error:  # an error in a text must stop one message, not a chunk; its message may contain a value
            raise ContentRefusal(ReasonCode.FAULT, type(error).__name__) from None
        if self._passes_precheck(content, request, values, rendered):
            return content
        failed = failed_check(content, self.visible_text(content, request), self.requirements(request, values))
        if failed:
            raise ContentRefusal(ReasonCode.CONTENT_GUARD, failed)
        return content

    def values(self, request: RenderRequest) -> RenderValues:
        """The values that the texts of this request may use, by name: variables that have a value, and the reader's links."""
        data, profile, hosts = request.data, request.profile, request.sender.hosts
        values = RenderValues(request.links)
        for name, category, read in _allowed_readers(self, self.render_mode(request.mode), request.categories):
            value = data.get(name)
            if value is None or not _has_value(value):
                value = profile.get(category, _EMPTY).get(name)
                if value is None or not _has_value(value):
                    continue
                if hosts and isinstance(value, str) and self.has_unlisted_link(name, value, hosts.partners):
                    raise ContentRefusal(ReasonCode.CONTENT_GUARD, PARTNER_LINK)  # it may be another for each person
            try:
                values[name] = read(value)
            except ValueError:
                raise ContentRefusal(ReasonCode.FAULT, name) from None
        return values

    def has_unlisted_link(self, name: str, value: object, partners: Partners) -> bool:
        """Whether a value of this variable has a link to a partner that its declaration does not list."""
        links = partner_links(value, partners)
        if not links:
            return False
        variable = self.variables.get(name)
        listed = {each for link in (variable.links if variable else ()) for each in partner_links(link, partners)}
        return not listed.issuperset(links)

    def context(self, request: RenderRequest) -> Context:
        """The Jinja context of all texts of this request."""
        return self._context(request, self.values(request))

    def _context(self, request: RenderRequest, values: Mapping[str, Any]) -> Context:
        mode, sender = self.render_mode(request.mode), request.sender
        theme = self.themes.get(sender.entity or self.entity, NEUTRAL)
        imprint = sender.imprint or theme.imprint.get(request.language, "")
        context: Context = {
            "mode": mode.value,
            "language": request.language,
            "channel": request.channel.value,
            "commercial": self.info.kind is Kind.COMMERCIAL,
            "warning": self.languages[request.language].warning,
            "sender": {"name": sender.name, "address": sender.address, "imprint": imprint},
            "theme": theme.values(request.language),
            "links": {"unsubscribe": values[UNSUBSCRIBE], "preferences": values[PREFERENCES]},
        }
        for name, variable in self.variables.items():
            allowed = variable.category in request.categories and mode in variable.modes
            missing = MissingVariable if allowed else WithheldVariable
            context[name] = values[name] if name in values else missing_value(name, missing, required=variable.required)
        return context

    def render_mode(self, mode: Mode) -> Mode:
        """The mode to render in: the decision's. A service message has one rendering, whatever the reader chose."""
        if mode in self.info.modes:
            return mode
        if self.info.kind is Kind.SERVICE:
            return next(each for each in RENDER_MODES if each in self.info.modes)
        raise ContentRefusal(ReasonCode.FAULT, "mode")

    def compose(self, request: RenderRequest, context: Context) -> Content:
        """Render the texts of the request's channel with Jinja and without the guard. Raises whatever Jinja raises."""
        return _COMPOSERS[request.channel](self, request, RenderedParts(self._plan(request).render(context)))

    def render_parts(self, request: RenderRequest, values: Mapping[str, Any]) -> RenderedParts:
        """Render the texts of the request's channel, along a compiled path if there is one. Raises whatever Jinja raises."""
        if self.specialiser is None:
            COUNTS.by_template += 1
            return RenderedParts(self._plan(request).texts(values))
        key = (request.channel, request.language, self.render_mode(request.mode), request.sender)
        return self.specialiser.render(key, values, lambda: self._plan(request))

    def _plan(self, request: RenderRequest) -> RenderPlan:
        """The parts of the request's channel, and how to render them."""
        if request.channel not in self.channels:
            raise ContentRefusal(ReasonCode.FAULT, "channel")
        localized = self.languages[request.language]
        names = _PARTS.get(request.channel) or _whatsapp_parts(localized, self.render_mode(request.mode))
        return RenderPlan(
            parts={name: localized.parts[name] for name in names},
            context=lambda values: self._context(request, values),
            postprocess=_POSTPROCESS if request.channel is not Channel.WHATSAPP else dict.fromkeys(names, one_line),
            attach=lambda path: self._compile_mail(path, request) if request.channel is Channel.EMAIL else None,
            complete=_with_links,
        )

    def _compile_mail(self, path: CompiledPath, request: RenderRequest) -> CompiledMail:
        """The template of the mails of a new path, and the guard's precheck of it."""
        mail_template = MailTemplate(*(path.parts[part] for part in _PARTS[Channel.EMAIL]))
        roles = GapRoles(
            in_html=frozenset(path.html_gaps),
            unsubscribe_html=path.gaps(UNSUBSCRIBE, in_html=True),
            preferences_html=path.gaps(PREFERENCES, in_html=True),
            unsubscribe_text=path.gaps(UNSUBSCRIBE, in_html=False),
            preferences_text=path.gaps(PREFERENCES, in_html=False),
        )
        return CompiledMail(mail_template, precheck(mail_template, self.requirements(request, {}), roles))

    def _passes_precheck(
        self, content: Content, request: RenderRequest, values: Mapping[str, Any], rendered: RenderedParts
    ) -> bool:
        """Whether the precheck of the path already shows that this message passes the guard."""
        if rendered.path is None or not isinstance(content, MergedEmail):
            return False
        path_check = rendered.path.attachment.path_check
        return path_check is not None and path_check.passes(content, lambda: self.requirements(request, values))

    def visible_text(self, content: Content, request: RenderRequest) -> str:
        """What a WhatsApp reader sees: the approved text with its placeholders filled; "" on other channels."""
        if not isinstance(content, WhatsApp):
            return ""
        approved = self.languages[request.language].whatsapp[self.render_mode(request.mode)]
        text = PLACEHOLDER.sub(lambda place: content.variables[place[1]], approved.text)
        return "\n".join((text, *approved.links))

    def requirements(self, request: RenderRequest, values: Mapping[str, Any]) -> ContentRequirements:
        """What the guard requires of this message."""
        localized, sender = self.languages[request.language], request.sender
        to_partner = self.info.offer_type in (OfferType.PARTNER, OfferType.KATE)
        warning = localized.warning
        return ContentRequirements(
            commercial=self.info.kind is Kind.COMMERCIAL,
            warning=gsm_typography(warning) if warning and request.channel is Channel.SMS else warning,
            mark=localized.mark,
            sender=sender.name,
            links=request.links,
            to_partner=to_partner,
            own_hosts=_own_hosts(sender, request.links.hosts) if to_partner or sender.hosts else frozenset(),
            personal=self._personal if to_partner or sender.hosts else (),
            values=values,
            hosts=sender.hosts,
        )


def _has_value(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())  # an empty CSV cell counts as no value


@lru_cache(maxsize=256)
def _allowed_readers(template: Template, mode: Mode, categories: frozenset[str]) -> tuple[ValueReader, ...]:
    """The variables of a text in this mode whose categories are allowed."""
    return tuple(
        (variable.name, variable.category, READERS[variable.type])
        for variable in template.variables.values()
        if mode in variable.modes and variable.category in categories
    )


@lru_cache(maxsize=256)
def _own_hosts(sender: MessageSender, hosts_of_links: frozenset[str]) -> frozenset[str]:
    allowed = sender.hosts.own if sender.hosts else frozenset[str]()
    return frozenset({sender.address.rpartition("@")[2], *hosts_of_links, *allowed})


def _with_links(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values.with_links() if isinstance(values, RenderValues) else values


def _whatsapp_parts(localized: LocalizedTemplate, mode: Mode) -> tuple[str, ...]:
    """The parts of a WhatsApp message."""
    return tuple(f"whatsapp.{mode.value}.{place}" for place in localized.whatsapp[mode].placeholders)


_PARTS: Mapping[Channel, tuple[str, ...]] = {
    Channel.PUSH: ("push.title", "push.body", "push.link"),
    Channel.EMAIL: ("email.subject", "email.html", "email.text"),
    Channel.SMS: ("sms.text",),
}
_POSTPROCESS: Mapping[str, Callable[[str], str]] = {"push.title": one_line, "email.subject": one_line, "sms.text": gsm_typography}


def _push(template: Template, request: RenderRequest, rendered: RenderedParts) -> Push:  # noqa: ARG001  one shape for all
    texts = rendered.texts()
    return Push(title=texts["push.title"], body=texts["push.body"], link=texts["push.link"], options=template.push)


def _email(template: Template, request: RenderRequest, rendered: RenderedParts) -> Email | MergedEmail:
    sender = request.sender
    from_name = sender.from_name or sender.name
    headers: tuple[tuple[str, str], ...] = ()
    if template.info.kind is Kind.COMMERCIAL:  # RFC 8058: both, or mail clients offer no button
        headers = (
            ("List-Unsubscribe", f"<{request.links.unsubscribe}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        )
    if rendered.path is not None:
        mail_template = rendered.path.attachment.mail_template
        return MergedEmail(from_name, sender.address, mail_template, rendered.values_by_tag, headers, sender.reply_to)
    subject, html, text = rendered.texts().values()
    return Email(from_name, sender.address, subject, html, text, headers, sender.reply_to)


def _sms(template: Template, request: RenderRequest, rendered: RenderedParts) -> Sms:  # noqa: ARG001  one shape for all
    return Sms(text=rendered.texts()["sms.text"])


def _whatsapp(template: Template, request: RenderRequest, rendered: RenderedParts) -> WhatsApp:
    approved = template.languages[request.language].whatsapp[template.render_mode(request.mode)]
    values = dict(zip(approved.placeholders, map(squeezed, rendered.texts().values()), strict=True))
    return WhatsApp(content_sid=approved.content_sid, variables=values)


_COMPOSERS: Mapping[Channel, Callable[[Template, RenderRequest, RenderedParts], Content]] = {
    Channel.PUSH: _push,
    Channel.EMAIL: _email,
    Channel.SMS: _sms,
    Channel.WHATSAPP: _whatsapp,
}
