"""A decision's record in few bytes: a skeleton that is the same for many messages, and the values of this one. Pure.

The skeleton is a record's document with a place where each value belongs. It holds what few words can be: policy, template,
channels, modes, bases, codes, and the policy's keys. What names a person's fact is a value: numbers of consent events, moments, and
all other evidence. So a skeleton holds no personal data, and there are few of them.

A skeleton is named by the hash of its text. Nobody has to be asked for a number, and a name can never mean another skeleton.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from msgspec import Struct, structs
from pydantic_core import to_json

from dispatcher.domain.recipient import Source

SKELETONS_MAX = 4_096  # in the memory of a process: at most some ten megabytes
NAME_BYTES = 9  # 72 bits: among a million skeletons, two get one name with a probability of 1 to 10^10
CONSENT = "consent:"
EPOCH, SECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1)
# The sources of choices, in one letter each. Ledgers hold these letters: never change one.
SOURCES: Mapping[str, str] = {
    Source.MOBILE: "m",
    Source.TOUCH: "t",
    Source.LIVE: "l",
    Source.BRANCH: "b",
    Source.IMPORT: "i",
    Source.UNSUBSCRIBE: "u",
    Source.PREFERENCE_CENTRE: "c",
    Source.INBOUND: "s",
    Source.PROVIDER: "p",
    Source.ERASURE: "e",
}
_SOURCE_OF = {letter: str(source) for source, letter in SOURCES.items()}

Evidence = TypeVar("Evidence", bound=Hashable)
Document: TypeAlias = dict[str, Any]

# In a key: a text that many records share, or the place of a value: n in the numbers, ~n in the texts.
Place: TypeAlias = str | int


class SkeletonKey(NamedTuple):
    """All of a record but its values. Two records with equal keys have the same skeleton."""

    policy: str
    name: str
    job: tuple[str, str, str, str | None]
    legs: tuple[tuple[str, str, str, Place], ...]
    is_used: bool
    categories: frozenset[str]
    reasons: tuple[tuple[str, str, str, Place], ...]  # code, channel, rule, evidence
    choices: tuple[tuple[str, str, Place, Place, Place], ...]  # subject, value, event, source, moment
    approval: int | None
    until: Place | None
    content: tuple[str, Place] | None = None  # why the content was refused: code, and where


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A document with places for values, as JSON, and its name."""

    key: SkeletonKey
    name: str
    document: str


class CompactRecord(Struct, frozen=True):
    """A record as skeleton and values. `numbers` are joined by spaces."""

    skeleton: Skeleton
    numbers: str
    texts: tuple[str, ...] = ()

    def text(self) -> str:
        """As the ledger stores it: a JSON array of the skeleton's name with the numbers, and the texts."""
        packed = f"{self.skeleton.name} {self.numbers}"
        return to_json([packed, *self.texts]).decode() if self.texts else f'["{packed}"]'

    def document(self) -> Document:
        """The complete record."""
        return expand([f" {self.numbers}", *self.texts], skeleton_document(self.skeleton.key))


def with_content(document: Document | CompactRecord, code: str, where: str) -> Document | CompactRecord:
    """The record with why the content was refused."""
    if not isinstance(document, CompactRecord):
        return {**document, "content": {"code": code, "where": where}}
    key = document.skeleton.key._replace(content=(code, ~len(document.texts)))
    return structs.replace(document, skeleton=skeleton_of(key), texts=(*document.texts, where))


def merge_reasons(reasons: Iterable[tuple[str, str, str, Evidence]]) -> dict[tuple[str, str, Evidence], list[str]]:
    """The channels on which each objection (code, rule, evidence) was raised."""
    merged: dict[tuple[str, str, Evidence], list[str]] = {}
    for code, channel, rule, evidence in reasons:
        merged.setdefault((code, rule, evidence), []).append(channel)
    return merged


# -- skeletons ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=SKELETONS_MAX)
def skeleton_of(key: SkeletonKey) -> Skeleton:
    """The skeleton of a key; remembered."""
    document = skeleton_document(key)
    return Skeleton(key, name_of(document), _text_of(document))


def name_of(document: Mapping[str, Any]) -> str:
    """The name of the skeleton with this document."""
    return urlsafe_b64encode(hashlib.sha256(_text_of(document).encode()).digest()[:NAME_BYTES]).decode()


def _text_of(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def skeleton_document(key: SkeletonKey) -> Document:
    """The document that `record` gives, with a place instead of each value."""
    document: Document = {"policy": key.policy, "is": key.name, "job": list(key.job)}
    if key.legs:
        document["legs"] = [[channel, mode, basis, _place(why, "consent")] for channel, mode, basis, why in key.legs]
    if key.categories:
        document["used" if key.is_used else "allowed"] = sorted(key.categories)
    if key.reasons:
        merged = merge_reasons(key.reasons)
        document["reasons"] = [[code, rule, _place(why, "consent"), *channels] for (code, rule, why), channels in merged.items()]
    if key.choices:
        document["choices"] = {
            subject: [value, _place(event, "consent"), _place(source, "source"), _place(at, "moment")]
            for subject, value, event, source, at in key.choices
        }
    if key.approval:
        document["approval"] = key.approval
    if key.until is not None:
        document["until"] = _place(key.until, "")
    if key.content is not None:
        code, where = key.content
        document["content"] = {"code": code, "where": _place(where, "")}
    return document


def _place(place: Place, kind: str) -> Any:
    """A text as it is, or the place of a value of this kind."""
    if isinstance(place, str):
        return place
    return {kind: place} if place >= 0 else {"text": ~place}


# -- reading -----------------------------------------------------------------------------------------------------------


def skeleton_name(stored: Any) -> str | None:
    """The name of the skeleton that a stored record needs; None for one that is a complete document."""
    return str(stored[0]).partition(" ")[0] if isinstance(stored, list) else None


def expand(stored: Sequence[Any], skeleton: Mapping[str, Any]) -> Document:
    """The complete record of a stored one. What was added to it later is a document at its end."""
    packed, *rest = stored
    values = _StoredValues(packed.split(" ")[1:], [text for text in rest if isinstance(text, str)])
    document: Document = values.fill(skeleton)
    for added in rest:
        if isinstance(added, Mapping):
            document |= added
    return document


@dataclass(frozen=True, slots=True)
class _StoredValues:
    """The values of one record."""

    numbers: Sequence[str]
    texts: Sequence[str]

    def fill(self, part: Any) -> Any:
        """The part of a skeleton with its values."""
        if isinstance(part, Mapping):
            if len(part) == 1:
                ((kind, place),) = part.items()
                if isinstance(place, int):
                    return self._value(kind, place)
            return {name: self.fill(each) for name, each in part.items()}
        return [self.fill(each) for each in part] if isinstance(part, list) else part

    def _value(self, kind: str, place: int) -> str:
        match kind:
            case "consent":
                return CONSENT + self.numbers[place]
            case "source":
                return _SOURCE_OF[self.numbers[place]]
            case "moment":
                return (EPOCH + int(self.numbers[place]) * SECOND).isoformat(timespec="seconds")
            case "text":
                return self.texts[place]
        raise ValueError(f"a decision skeleton has a place for {kind}")
