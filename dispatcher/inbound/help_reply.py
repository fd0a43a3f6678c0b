"""The answer to HELP: who writes, how to stop the messages, where to ask a person. Pure.

Each text fits one SMS of 160 characters (GSM-7) for names and links of ordinary length.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.domain.recipient import Language

_HELP: Mapping[Language, str] = {
    "nl": "{name}: je krijgt berichten zoals je koos. Antwoord STOP om ze per sms en WhatsApp te stoppen. Vragen? {contact}",
    "fr": "{name}: vous recevez les messages choisis. Répondez STOP pour ne plus recevoir SMS ni WhatsApp. Aide: {contact}",
    "de": "{name}: Sie erhalten Nachrichten wie gewählt. Antworten Sie STOP gegen SMS und WhatsApp. Fragen? {contact}",
    "en": "{name}: you get the messages that you chose. Reply STOP to end them by SMS and WhatsApp. Questions? {contact}",
}


def help_text(language: Language, name: str, contact: str) -> str:
    """The answer to HELP in this language; in English where there is no text for it."""
    return _HELP.get(language, _HELP["en"]).format(name=name, contact=contact)
