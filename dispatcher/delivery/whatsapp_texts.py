"""Which WhatsApp texts of a template may be sent, and the ContentSid of each. Fail closed: a text that is not known is not sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product

from channels.base import Content, WhatsApp
from dispatcher.content import Template
from dispatcher.content.template import WhatsAppTemplate
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language
from dispatcher.ledger.campaigns.whatsapp_templates import ApprovedTexts, TextKey

ContentSids = Mapping[tuple[str, Mode], str]  # by language and mode


def texts_of(template: Template) -> Iterator[tuple[Language, Mode, WhatsAppTemplate]]:
    """The WhatsApp texts of a template; none if it does not use the channel."""
    for language, mode in product(template.languages, sorted(template.info.modes)):
        text = template.languages[language].whatsapp.get(mode)
        if text is not None:
            yield language, mode, text


def text_key(account: str, template: Template, language: str, mode: Mode, text: WhatsAppTemplate) -> TextKey:
    """The ledger's key of a text in an account."""
    return TextKey(account, template.name, language, mode.value, text.digest(template.info.kind))


@lru_cache(maxsize=256)  # one chunk after the other, each with a few templates
def content_sids(template: Template, approved: ApprovedTexts, account: str | None) -> ContentSids:
    """The texts that may be sent, each with its ContentSid.

    `account` is None where messages go to no provider that needs approvals: then all texts are, with the ids of their files.
    """
    texts = [(language, mode, text) for language, mode, text in texts_of(template)]
    if account is None:
        return {(language, mode): text.content_sid for language, mode, text in texts}
    keys = {(language, mode): text_key(account, template, language, mode, text) for language, mode, text in texts}
    return {place: approved.content_sids[key] for place, key in keys.items() if key in approved.content_sids}


@lru_cache(maxsize=256)
def allowed_texts(template: Template, approved: ApprovedTexts, account: str | None) -> frozenset[tuple[str, Mode]]:
    """The languages and modes of `content_sids`."""
    return frozenset(content_sids(template, approved, account))


def with_content_sid(content: Content, sids: ContentSids, language: str, mode: Mode) -> Content:
    """The content with the ContentSid of this account; other content as it is."""
    if not isinstance(content, WhatsApp):
        return content
    return WhatsApp(sids[language, mode], content.variables)
