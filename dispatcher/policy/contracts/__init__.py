"""The contract that a customer accepts by choosing "tailored": its texts by version, entity and language, read from a folder.

    <folder>/<version>/<language>.toml            the text of a version, for all entities
    <folder>/<version>/<entity>/<language>.toml   the text of an entity that has its own

A version that customers may have accepted is never edited: a new text gets a new version. See `docs/how-to/contract.md`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path

from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.domain.spelling import did_you_mean
from dispatcher.policy.data import Policy
from dispatcher.policy.section import InvalidPolicy, PolicyError, Section

SHIPPED_CONTRACTS = Path(__file__).parent  # examples, which the bank's lawyers replace
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,29}")  # a name of a version; it is part of evidence and of file names
SHARED = ""  # in place of an entity's id: the text of all entities without their own


@dataclass(frozen=True, slots=True)
class ContractSection:
    """A heading with its paragraphs."""

    heading: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContractText:
    """The text of one version in one language. `{entity}` in it stands for the name of the entity."""

    version: str
    entity: str  # "" for the text that all entities share
    language: Language
    title: str
    dated: date
    sections: tuple[ContractSection, ...]
    body: str = field(repr=False)  # the file

    @property
    def digest(self) -> str:
        """The SHA-256 of the file: two texts of one version have different digests."""
        return hashlib.sha256(self.body.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Contracts:
    """All versions, also former ones: customers accepted them, and they can still be read."""

    texts: Mapping[tuple[str, str, Language], ContractText]  # by version, entity and language

    @property
    def versions(self) -> tuple[str, ...]:
        """The names of the versions."""
        return tuple(sorted({version for version, _, _ in self.texts}))

    def find(self, version: str, entity: str, language: Language) -> ContractText | None:
        """The text of a version for an entity; None for an unknown version."""
        return self.texts.get((version, entity, language)) or self.texts.get((version, SHARED, language))

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Version, entity, language, digest and file of each text, as the ledger stores them."""
        return [(text.version, text.entity, text.language, text.digest, text.body) for text in self.texts.values()]

    def unknown(self, version: str) -> str | None:
        """Why a version cannot have been accepted; None for a known one."""
        return None if version in self.versions else unknown_version(version, self.versions)


def unknown_version(version: str, known: Collection[str]) -> str:
    """The error for a version that has no text."""
    hint = did_you_mean(version, known) or f"; known: {', '.join(sorted(known))}"
    return f"unknown version of the contract{hint}"


def read_contracts(folder: Path) -> Contracts:
    """The contracts of a folder. Raises `InvalidPolicy` with every error."""
    faults: list[PolicyError] = []
    texts = {}
    for version in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))):
        if not VERSION.fullmatch(version.name):
            faults.append(PolicyError(str(version), "the folder", version.name, "at most 30 letters, digits, dots, hyphens"))
            continue
        entities = sorted(path for path in version.iterdir() if path.is_dir())
        for place, entity in [(version, SHARED), *((path, path.name) for path in entities)]:
            for text in _texts(place, version.name, entity, faults):
                texts[text.version, text.entity, text.language] = text
    if not texts and not faults:
        faults.append(PolicyError(str(folder), "the folder", None, "a folder for each version of the contract, such as 1/nl.toml"))
    if faults:
        raise InvalidPolicy(tuple(faults))
    return Contracts(texts)


@cache
def shipped() -> Contracts:
    """The contracts that come with the program."""
    return read_contracts(SHIPPED_CONTRACTS)


def with_contracts(policy: Policy, contracts: Contracts, file: str = "policy.toml") -> Policy:
    """The policy with the versions that there are. Raises `InvalidPolicy` where the one that it names has no text, and for texts of
    an unknown entity.
    """
    version = policy.contract.version
    faults = []
    if reason := contracts.unknown(version):
        faults.append(PolicyError(file, "tailored_contract.version", version, reason))
    for entity in sorted({entity for _, entity, _ in contracts.texts} - {SHARED, *policy.entities}):
        hint = did_you_mean(entity, policy.entities)
        faults.append(PolicyError("contracts", entity, None, f"is a folder for an entity that is not in the policy{hint}"))
    if faults:
        raise InvalidPolicy(tuple(faults))
    return replace(policy, files=replace(policy.files, contract_versions=contracts.versions))


def _texts(folder: Path, version: str, entity: str, faults: list[PolicyError]) -> Iterator[ContractText]:
    """The texts in a folder: one for each language, or an error for each that is missing."""
    for language in LANGUAGES:
        path = folder / f"{language}.toml"
        try:
            body = path.read_text(encoding="utf-8")
            data = tomllib.loads(body)
        except FileNotFoundError:
            faults.append(PolicyError(str(path), "the file", None, "is missing: a contract exists in every language"))
            continue
        except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
            faults.append(PolicyError(str(path), "the file", None, f"cannot be read as TOML: {error}"))
            continue
        with Section(data, str(path), faults=faults) as top:
            yield ContractText(
                version, entity, language, _fillable(top, "title"), top.day("dated"), tuple(_sections(top)), body
            )  # fmt: skip


def _sections(top: Section) -> Iterator[ContractSection]:
    for section in top.sections("sections"):
        with section:
            yield ContractSection(_fillable(section, "heading"), section.strings("text"))
            for paragraph in section.strings("text"):
                _check_placeholders(section, "text", paragraph)


def _fillable(section: Section, key: str) -> str:
    text = section.text(key)
    _check_placeholders(section, key, text)
    return text


def _check_placeholders(section: Section, key: str, text: str) -> None:
    try:
        text.format(entity="")
    except (LookupError, ValueError, AttributeError):
        section.fault(key, "a text with no other placeholder than {entity}", text[:60])
