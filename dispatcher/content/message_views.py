"""How a message looks where it arrives: an SMS with its segments, a push as it is cut, a WhatsApp text with its values. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from channels.base import Push
from channels.sms_segments import Segments, count_segments, is_gsm
from channels.whatsapp_templates import TemplateButton
from dispatcher.content.template import PLACEHOLDER, WhatsAppTemplate

# What is shown before a text is cut, in characters: (name, system, title, body). Neither system publishes a number: the widths of
# letters, the size of the text and the device decide. These are the numbers by which senders write.
# Bodies: Braze, "Push message and image formats" (lock screen of iOS 160, banner 80; lock screen of Android 49, drawer 597).
# Titles: APNs by Tencent Cloud, "Notification title and content length limits" (40); Android by Airship's guide (65).
PUSH_LIMITS = (
    ("iOS, lock screen", "ios", 40, 160),
    ("iOS, banner", "ios", 40, 80),
    ("Android, collapsed", "android", 65, 49),
    ("Android, expanded", "android", 65, 597),
)
WIDTHS = (("desktop", 720), ("phone", 375))  # CSS pixels: the reading pane of a desktop mail program, and an iPhone
_DARK = re.compile(r"\(\s*prefers-color-scheme\s*:\s*dark\s*\)", re.IGNORECASE)
_LIGHT = re.compile(r"\(\s*prefers-color-scheme\s*:\s*light\s*\)", re.IGNORECASE)
_COLOR_SCHEME = re.compile(r"(?<![\w-])color-scheme\s*:\s*light dark", re.IGNORECASE)
_TRUE, _FALSE = "(min-width: 0px)", "(max-width: 0px)"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of a text. `is_marked`: it forces UCS-2, or is the value of a placeholder."""

    text: str
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class SmsView:
    """An SMS. `forcing` are the characters that GSM-7 lacks, each once."""

    pieces: tuple[TextPiece, ...]
    segments: Segments
    forcing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PushView:
    """A push on one screen: what is shown, and what is cut off."""

    name: str
    system: str
    title: str
    title_rest: str
    body: str
    body_rest: str


@dataclass(frozen=True, slots=True)
class WhatsAppView:
    """A WhatsApp message: the approved text with its values, and its buttons."""

    pieces: tuple[TextPiece, ...]
    buttons: tuple[TemplateButton, ...]
    content_sid: str

    @property
    def text(self) -> str:
        """The text as one string."""
        return "".join(each.text for each in self.pieces)


def sms_view(text: str) -> SmsView:
    """An SMS with its segments."""
    pieces = tuple(TextPiece("".join(group), forces) for forces, group in groupby(text, lambda each: not is_gsm(each)))
    return SmsView(pieces, count_segments(text), tuple(dict.fromkeys(each for each in text if not is_gsm(each))))


def push_views(push: Push) -> tuple[PushView, ...]:
    """A push on each screen of PUSH_LIMITS."""
    return tuple(
        PushView(name, system, *_cut(push.title, title_limit), *_cut(push.body, body_limit))
        for name, system, title_limit, body_limit in PUSH_LIMITS
    )


def _cut(text: str, limit: int) -> tuple[str, str]:
    """What is shown, and the rest; a cut text ends in an ellipsis that takes the last place."""
    return (text, "") if len(text) <= limit else (text[: limit - 1], text[limit - 1 :])


def whatsapp_view(approved: WhatsAppTemplate, values: dict[str, str]) -> WhatsAppView:
    """An approved text with the values of one message, by placeholder."""
    pieces: list[TextPiece] = []
    position = 0
    for place in PLACEHOLDER.finditer(approved.text):
        pieces += [TextPiece(approved.text[position : place.start()]), TextPiece(values.get(place[1], place[0]), is_marked=True)]
        position = place.end()
    pieces.append(TextPiece(approved.text[position:]))
    return WhatsAppView(tuple(each for each in pieces if each.text), approved.buttons, approved.content_sid)


def with_scheme(html: str, scheme: str) -> str:
    """The HTML of a mail as a client in light or dark mode reads it, in any browser: its style sheet has the answer."""
    dark, light = (_TRUE, _FALSE) if scheme == "dark" else (_FALSE, _TRUE)
    return _COLOR_SCHEME.sub(f"color-scheme: {scheme}", _LIGHT.sub(light, _DARK.sub(dark, html)))
