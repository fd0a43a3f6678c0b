"""`template.toml`: what a template declares about itself, such as kind, topic, channels and the category of each variable.

The declaration is binding: a caller cannot relabel an offer as a receipt, and a variable reaches a text only if the decision
allows its category.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from channels.base import Channel, PushOptions
from dispatcher.content import themes
from dispatcher.content.errors import TemplateError
from dispatcher.content.toml import Document, Path
from dispatcher.content.values import READERS
from dispatcher.domain.message import Kind, Mode, OfferType, TemplateInfo
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean, nearest

RENDER_MODES = (Mode.TAILORED, Mode.STANDARD)  # the modes in which a message can be rendered
RESERVED: Mapping[str, frozenset[str]] = {  # names that every text may use besides its variables, with their attributes
    "mode": frozenset(),
    "language": frozenset(),
    "channel": frozenset(),
    "commercial": frozenset(),
    "warning": frozenset(),
    "sender": frozenset({"name", "address", "imprint"}),
    "links": frozenset({"unsubscribe", "preferences"}),
    "theme": themes.NAMES,
}
IMPERSONAL_CATEGORIES = frozenset({"product", "partner_offer"})  # data categories that say nothing about the recipient
IN_A_LINK = "data about the person may stand in no link: a company that gets the address would learn it"
_KEYS = (
    "name",
    "version",
    "author",
    "kind",
    "entity",
    "offer_type",
    "modes",
    "channels",
    "topic",
    "coins",
    "product",
    "push",
    "sms",
    "variables",
)
_VARIABLE_KEYS = ("category", "type", "required", "modes", "example", "links", "samples")
_STAND_INS: Mapping[str, Any] = {  # in place of a faulty example, so that the rest of the template is checked, too
    "text": "Example",
    "number": 2,
    "money": 20,
    "date": "2026-01-31",
    "url": "https://www.bank.example/",
}
_LINKS_MAX = 20  # a list of everybody's links is what it must not be
_PUSH_KEYS = tuple(PushOptions.__slots__)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")
_COLLAPSE_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")  # web push's Topic, the narrowest (RFC 8030)
_SEGMENTS_MAX = 10  # a text of Twilio has at most 1,600 characters
_ENTITY = re.compile(r"[a-z][a-z0-9-]*\Z")


@dataclass(frozen=True, slots=True)
class TemplateVariable:
    """A variable of a template. `modes` are those whose texts may use it; `example` has a value per language, for previews.

    `links` are the links to partners that the variable may have in a trigger, or from the profile. `samples` are further
    values to try when templates are loaded, such as 0 and 1 of what is counted.
    """

    name: str
    category: str
    type: str
    required: bool
    modes: frozenset[Mode]
    example: Mapping[Language, Any]
    links: tuple[str, ...] = ()
    samples: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """A whole `template.toml`."""

    info: TemplateInfo
    version: str
    author: str  # who wrote it, and so cannot approve it; "" if not declared
    entity: str
    channels: tuple[Channel, ...]
    variables: Mapping[str, TemplateVariable]
    push: PushOptions
    segments_max: Mapping[Language, int] = field(default_factory=dict)  # of an SMS; no limit for a language that is not in it


def read_declaration(name: str, document: Document, topics: Iterable[str]) -> tuple[Declaration, list[TemplateError]]:
    """Read the declaration of the folder `name`. `topics` are the regulated topics. If there are faults, use the result only
    to find more."""
    reader = _Reader(document)
    reader.check_keys((), _KEYS)
    if reader.text(("name",)) not in ("", name):
        reader.fault(("name",), f"must be the folder's name, {name!r}")
    kind = reader.choice(("kind",), [kind.value for kind in Kind])
    offer_type = _offer_type(reader, kind)
    modes = frozenset(
        Mode(mode) for mode in reader.choices(("modes",), [mode.value for mode in RENDER_MODES], default=["standard"])
    )
    if has_faulty_modes(reader.faults):  # one error, and not one for each variable and text of the other modes
        modes = modes or frozenset(RENDER_MODES)
    channels = tuple(Channel(channel) for channel in reader.choices(("channels",), [channel.value for channel in Channel]))
    topic = reader.choice(("topic",), list(topics), required=False)
    info = TemplateInfo(
        template=name,
        kind=Kind(kind or Kind.COMMERCIAL),
        offer_type=offer_type,
        modes=modes,
        topic=topic or None,
        coins=reader.boolean(("coins",), default=False),
        product=reader.text(("product",), required=False) or None,
    )
    if info.coins and modes != {Mode.TAILORED}:
        reader.fault(("modes",), "Kate Coins need the tailored contract: modes must be ['tailored']")
    declaration = Declaration(
        info=info,
        version=reader.text(("version",)),
        author=reader.text(("author",), required=False),
        entity=reader.text(("entity",), pattern=_ENTITY),
        channels=channels,
        variables={key: _variable(reader, key, modes) for key in reader.tables(("variables",))},
        push=_push(reader),
        segments_max=_segments_max(reader),
    )
    return declaration, reader.faults


def has_faulty_modes(faults: Iterable[TemplateError]) -> bool:
    """Whether the modes of a template cannot be read: then nothing can be said of what it lacks in one of them."""
    return any(fault.field == "modes" for fault in faults)


def _offer_type(reader: _Reader, kind: str) -> OfferType | None:
    path = ("offer_type",)
    if kind != Kind.SERVICE:
        value = reader.choice(path, [offer.value for offer in OfferType])
        return OfferType(value) if value else None
    if reader.get(path) is not None:
        reader.fault(path, "a service message offers nothing: leave it out")
    return None


def _push(reader: _Reader) -> PushOptions:
    """The table `push`: how notifications of this template behave. A campaign may set another collapse key."""
    path = ("push",)
    if not isinstance(reader.get(path), Mapping | None):
        reader.fault(path, "must be a table")
        return PushOptions()
    reader.check_keys(path, _PUSH_KEYS)
    collapse_key, image = (reader.text((*path, key), required=False) for key in ("collapse_key", "image"))
    if collapse_key and not _COLLAPSE_KEY.match(collapse_key):
        reader.fault((*path, "collapse_key"), "must be at most 32 letters, digits, - and _")
    if image and not image.startswith("https://"):
        reader.fault((*path, "image"), "must be an https address")
    return PushOptions(
        collapse_key=collapse_key,
        ttl_seconds=reader.integer((*path, "ttl_seconds"), maximum=28 * 86_400),
        priority=reader.choice((*path, "priority"), ("high", "normal"), required=False),
        sound=reader.text((*path, "sound"), required=False),
        badge=reader.integer((*path, "badge"), maximum=9_999),
        image=image,
        icon=reader.text((*path, "icon"), required=False),
        android_channel=reader.text((*path, "android_channel"), required=False),
    )


def _segments_max(reader: _Reader) -> Mapping[Language, int]:
    """The table `sms`: how many segments a text may take, the same for all languages or one for each."""
    path = ("sms", "segments_max")
    if not isinstance(reader.get(("sms",)), Mapping | None):
        reader.fault(("sms",), "must be a table")
        return {}
    reader.check_keys(("sms",), path[1:])
    value = reader.get(path)
    limits = value if isinstance(value, Mapping) else dict.fromkeys(LANGUAGES, value)
    if value is None:
        return {}
    if set(limits) != set(LANGUAGES) or not all(type(limit) is int and 0 < limit <= _SEGMENTS_MAX for limit in limits.values()):
        reader.fault(path, f"must be a whole number from 1 to {_SEGMENTS_MAX}, or one for each of {', '.join(LANGUAGES)}")
        return {}
    return dict(limits)


def _variable(reader: _Reader, name: str, modes: frozenset[Mode]) -> TemplateVariable:
    path = ("variables", name)
    if not _IDENTIFIER.match(name) or name in RESERVED:
        reader.fault(path, "is reserved" if name in RESERVED else "must be a lower-case word such as first_name")
    reader.check_keys(path, _VARIABLE_KEYS)
    kind = reader.choice((*path, "type"), READERS, required=False) or "text"
    known = RENDER_MODES if has_faulty_modes(reader.faults) else [mode for mode in RENDER_MODES if mode in modes]
    own_modes = reader.choices((*path, "modes"), [mode.value for mode in known], default=[mode.value for mode in modes])
    return TemplateVariable(
        name=name,
        category=reader.text((*path, "category"), pattern=_IDENTIFIER),
        type=kind,
        required=reader.boolean((*path, "required"), default=True),
        modes=frozenset(map(Mode, own_modes)) or modes,
        example=_example(reader, (*path, "example"), kind),
        links=_links(reader, (*path, "links"), kind),
        samples=_samples(reader, (*path, "samples"), kind),
    )


def _links(reader: _Reader, path: Path, kind: str) -> tuple[str, ...]:
    value = reader.get(path)
    if value is None:
        return ()
    try:
        links = tuple(map(READERS["url"], value)) if isinstance(value, list) and 0 < len(value) <= _LINKS_MAX else ()
    except ValueError as error:
        reader.fault(path, str(error))
        return ()
    if kind != "url" or not links:
        reader.fault(path, f"must be a list of 1 to {_LINKS_MAX} links, of a variable of type url")
    return links


def _samples(reader: _Reader, path: Path, kind: str) -> tuple[Any, ...]:
    value = reader.get(path)
    if value is None:
        return ()
    if not isinstance(value, list):
        reader.fault(path, "must be a list of further values to try")
        return ()
    for sample in value:
        try:
            READERS[kind](sample)
        except ValueError as error:
            reader.fault(path, str(error))
            return ()
    return tuple(value)


def _example(reader: _Reader, path: Path, kind: str) -> Mapping[Language, Any]:
    """The example for each language. A faulty one is reported, and replaced: whoever renders needs a value."""
    value = reader.get(path)
    stand_in = dict.fromkeys(LANGUAGES, _STAND_INS[kind])
    per_language = value if isinstance(value, Mapping) else dict.fromkeys(LANGUAGES, value)
    if value is None:
        reader.missing(path, "is missing: previews and checks need one")
        return stand_in
    if set(per_language) != set(LANGUAGES):
        reader.fault(path, f"needs one value, or one for each of {', '.join(LANGUAGES)}")
        return stand_in
    for value in per_language.values():
        try:
            READERS[kind](value)
        except ValueError as error:
            reader.fault(path, str(error))
            return stand_in
    return dict(per_language)


class _Reader:
    """Reads typed values at paths of one document, and collects all faults."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[TemplateError] = []
        self._unknown: dict[Path, list[str]] = {}  # keys, by table

    def fault(self, path: Path, message: str) -> None:
        value = self.get(path)
        self.faults.append(self.document.fault(path, "" if value is None or isinstance(value, Mapping) else value, message))

    def get(self, path: Path) -> Any:
        value: Any = self.document.data
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def check_keys(self, path: Path, keys: Iterable[str]) -> None:
        table = self.get(path)
        for key in table if isinstance(table, Mapping) else ():
            if key not in keys:
                self._unknown.setdefault(path, []).append(key)
                self.fault((*path, key), f"unknown key{did_you_mean(key, keys)}")

    def missing(self, path: Path, message: str = "is missing") -> None:
        """Report a missing key, unless an unknown one is probably meant to be it: that is reported."""
        if not nearest(path[-1], self._unknown.get(path[:-1], ())):
            self.fault(path, message)

    def text(self, path: Path, *, required: bool = True, pattern: re.Pattern[str] | None = None) -> str:
        value = self.get(path)
        if value is None and not required:
            return ""
        if value is None:
            self.missing(path)
            return ""
        if not isinstance(value, str) or not value:
            self.fault(path, "must be a text")
            return ""
        if pattern and not pattern.match(value):
            self.fault(path, "must be lower-case letters and digits, beginning with a letter")
            return ""
        return value

    def choice(self, path: Path, known: Iterable[str], *, required: bool = True) -> str:
        """One of the known words. In place of an unknown one stands the nearest, so that the error has no consequences."""
        value = self.text(path, required=required)
        if value and value not in known:
            self.fault(path, f"unknown{did_you_mean(value, known)}")
            return nearest(value, known)
        return value

    def choices(self, path: Path, known: list[str], default: list[str] | None = None) -> list[str]:
        """A list of known words. In place of an unknown one stands the nearest, so that the error has no consequences."""
        value = self.get(path)
        if value is None and default is not None:
            return default
        if not isinstance(value, list) or not value or len(set(map(str, value))) != len(value):
            self.fault(path, f"must be a list of different words out of {', '.join(known)}")
            return [word for word in known if word == value or (isinstance(value, list) and word in value)]
        for word in value:
            if word not in known:
                self.fault(path, f"unknown {word!r}{did_you_mean(str(word), known)}")
        words = [word if word in known else nearest(str(word), known) for word in value]
        return list(dict.fromkeys(filter(None, words)))

    def boolean(self, path: Path, *, default: bool) -> bool:
        value = self.get(path)
        if value is not None and not isinstance(value, bool):
            self.fault(path, "must be true or false")
        return value if isinstance(value, bool) else default

    def integer(self, path: Path, *, maximum: int) -> int | None:
        value = self.get(path)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            self.fault(path, f"must be a whole number from 0 to {maximum}")
            return None
        return value

    def tables(self, path: Path) -> list[str]:
        value = self.get(path)
        if value is not None and not isinstance(value, Mapping):
            self.fault(path, "must be a table")
            return []
        for name, inner in (value or {}).items():
            if not isinstance(inner, Mapping):
                self.fault((*path, name), "must be a table")
        return [name for name, inner in (value or {}).items() if isinstance(inner, Mapping)]
