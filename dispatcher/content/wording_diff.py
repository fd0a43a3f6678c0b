"""What readers see differently in two versions of a template: word by word, for each language, channel and mode. Pure.

Both versions are rendered with their examples, and with the samples. So a change of a macro or of the layout is shown where it has
an effect, and a change without any effect is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import unescape
from itertools import product

from channels.base import Channel, Content, Email, Push, Sms, assemble
from dispatcher.content.errors import ContentRefusal
from dispatcher.content.preview import data_sets, example_request
from dispatcher.content.render_request import NO_SENDERS, Senders
from dispatcher.content.template import Template
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import Language

_WORDS = re.compile(r"\s+|[^\s]+")
_UNSEEN = re.compile(r"(?is)<(style|head|script)\b.*?</\1>|<!--.*?-->")
_BLOCK = re.compile(r"(?i)</(?:p|h\d|tr|li|div|caption|table)>|<br\s*/?>")
_LINK = re.compile(r"(?i)<a\b[^>]*?href=\"([^\"]*)\"[^>]*>")
_IMAGE = re.compile(r"(?i)<img\b[^>]*?>")
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class WordChange:
    """A piece of a text: `kind` is same, removed or added."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class TextDiff:
    """A text that two versions show differently. `data` says which values it was rendered with; "" for the examples."""

    language: Language
    channel: Channel
    mode: Mode
    part: str
    data: str
    changes: tuple[WordChange, ...]


def differences(old: Template, new: Template, senders: Senders = NO_SENDERS) -> list[TextDiff]:
    """The texts that differ, by language, channel and mode, as the `senders` of the policy send them.

    A text that only one version has is all removed, or all added.
    A part that differs in the same words with several values is listed once.
    """
    found: dict[tuple[object, ...], TextDiff] = {}
    channels = dict.fromkeys((*old.channels, *new.channels))
    modes = sorted(old.info.modes | new.info.modes)
    for language, channel, mode in product(new.languages, channels, modes):
        before, after = (_texts(each, language, channel, mode, senders) for each in (old, new))
        for data, part in dict.fromkeys((*before, *after)):
            changes = word_changes(before.get((data, part), ""), after.get((data, part), ""))
            key = (language, channel, mode, part, tuple(each for each in changes if each.kind != "same"))
            if any(each.kind != "same" for each in changes):
                found.setdefault(key, TextDiff(language, channel, mode, part, data, changes))
    return list(found.values())


def word_changes(old: str, new: str) -> tuple[WordChange, ...]:
    """The pieces of two texts: what is the same, what was removed, what was added. Blanks are kept, and lines count as words."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    return tuple(_pieces(before, after))


def _pieces(before: list[str], after: list[str]) -> Iterator[WordChange]:
    for kind, first, last, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            yield WordChange("same", "".join(before[first:last]))
            continue
        if first < last:
            yield WordChange("removed", "".join(before[first:last]))
        if start < end:
            yield WordChange("added", "".join(after[start:end]))


def _texts(template: Template, language: Language, channel: Channel, mode: Mode, senders: Senders) -> dict[tuple[str, str], str]:
    """What readers see, by the values and the part. A message that cannot be rendered has the reason as its text."""
    if channel not in template.channels or mode not in template.info.modes:
        return {}
    texts: dict[tuple[str, str], str] = {}
    for which, data in data_sets(template):
        request = example_request(template, channel, language, mode, data, senders)
        try:
            content = assemble(template.render(request))
        except ContentRefusal as refusal:
            texts[which.strip(), "refused"] = f"{refusal.code}: {refusal.variable}"
            continue
        for part, text in _parts(content, template.visible_text(content, request)).items():
            texts[which.strip(), part] = text
    return texts


def _parts(content: Content, shown: str) -> Mapping[str, str]:
    match content:
        case Email():
            return {"subject": content.subject, "html": seen_in_html(content.html), "text": content.text}
        case Push():
            return {"title": content.title, "body": content.body, "link": content.link}
        case Sms():
            return {"text": content.text}
    return {"text": shown}


def seen_in_html(html: str) -> str:
    """What a reader sees of a mail's HTML: its words, the addresses of links and images, a line for each block."""
    text = _UNSEEN.sub("", html)
    text = _LINK.sub(lambda link: f"[{link[1]}] ", text)
    text = _IMAGE.sub(lambda image: f" [{_attribute(image[0], 'src')} {_attribute(image[0], 'alt')}] ", text)
    text = unescape(_TAG.sub(" ", _BLOCK.sub("\n", text)))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _attribute(element: str, name: str) -> str:
    found = re.search(rf'(?i)\b{name}="([^"]*)"', element)
    return found[1] if found else ""
