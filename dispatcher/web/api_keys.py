"""API keys: a file of hashes with names and rights. Only the callers have the keys themselves.

    [[keys]]
    name = "marketing"
    hash = "sha256:<64 hex digits>"
    rights = ["campaigns", "messages"]
    entities = ["kbc-bank"]  # only their campaigns, customers and messages; without this line, those of all

A key is 256 random bits, so its hash cannot be guessed and needs neither salt nor a slow hash function.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tomllib
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from dispatcher.domain.derived_keys import derive
from dispatcher.domain.principal import UNLIMITED_RIGHTS, Entities, Principal, Right, service
from dispatcher.intake.errors import BadInput, InputError, StrictModel, read_text, validate

__all__ = ["ApiKey", "ApiKeyRing", "Right"]

PREFIX = "dsp_"  # so that people and secret scanners recognise a key
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller: `name` is the actor in the ledger, `digest` the SHA-256 of the key. `entities` None stands for all."""

    name: str
    digest: bytes = field(repr=False)
    rights: frozenset[Right]
    entities: Entities = None

    @property
    def principal(self) -> Principal:
        """The service account that the key belongs to."""
        return service(self.name, self.rights, self.entities)


@dataclass(frozen=True, slots=True)
class ApiKeyRing:
    """All valid keys. Without any, API and console admit nobody."""

    keys: tuple[ApiKey, ...] = ()

    def find(self, key: str) -> ApiKey | None:
        """Whose key this is. Takes the same time whether and where it matches."""
        return self.of_digest(_digest(key))

    def of_digest(self, digest: bytes) -> ApiKey | None:
        """The key with this hash, compared as `find` does."""
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


NO_KEYS = ApiKeyRing()


EntityName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class ApiKeyForm(StrictModel):
    """One entry of the file."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    hash: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    rights: Annotated[list[Right], Field(min_length=1)]
    entities: Annotated[list[EntityName], Field(min_length=1)] | None = None


class ApiKeysForm(StrictModel):
    """The whole file. An empty one has no keys yet: a secret that a service names has to be there before the first key is made."""

    keys: list[ApiKeyForm] = Field(default_factory=list)


def read_keys(path: Path | None) -> ApiKeyRing:
    """The keys in a file; none where there is no file. Raises `BadInput` with every error."""
    if path is None:
        return NO_KEYS
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(InputError(str(path), 0, "", f"is not TOML: {error}")) from None
    forms = validate(ApiKeysForm, content, str(path)).keys
    names = (form.name.casefold() for form in forms)  # two keys whose names differ in case only would be two people for four eyes
    duplicates = [*_duplicates("name", names), *_duplicates("hash", (form.hash for form in forms))]
    faults = [*duplicates, *(fault for form in forms for fault in _too_wide(form))]
    if faults:
        raise BadInput(*(InputError(str(path), 0, field, message) for field, message in faults))
    return ApiKeyRing(tuple(_api_key(form) for form in forms))


def _api_key(form: ApiKeyForm) -> ApiKey:
    entities = None if form.entities is None else frozenset(form.entities)
    return ApiKey(form.name, bytes.fromhex(form.hash[7:]), frozenset(form.rights), entities)


def _too_wide(form: ApiKeyForm) -> Iterator[tuple[str, str]]:
    """The rights of a limited key that concern all entities at once."""
    for right in form.rights if form.entities is not None else ():
        if right in UNLIMITED_RIGHTS:
            yield "rights", f"{form.name}: {right.value!r} concerns all entities, and the key is limited to some"


def _duplicates(field_: str, values: Iterable[str]) -> list[tuple[str, str]]:
    return [(field_, f"{value} is there twice") for value, count in Counter(values).items() if count > 1]


def new_key(
    name: str,
    rights: Iterable[str],
    random: Callable[[int], bytes] = secrets.token_bytes,
    entities: Sequence[str] = (),
) -> tuple[str, str]:
    """A new key, and its entry for the file. Nobody can show the key again. Without entities it is for all of them.

    Raises `BadInput` for a bad name or right.
    """
    key = PREFIX + urlsafe_b64encode(random(KEY_BYTES)).rstrip(b"=").decode()
    values = {"name": name, "hash": f"sha256:{_digest(key).hex()}", "rights": list(rights), "entities": list(entities) or None}
    form = validate(ApiKeyForm, values, "key")
    if too_wide := list(_too_wide(form)):
        raise BadInput(*(InputError("key", 0, field, message) for field, message in too_wide))
    limit = f"entities = {_listed(form.entities)}\n" if form.entities else ""
    return key, f'[[keys]]\nname = "{form.name}"\nhash = "{form.hash}"\nrights = {_listed(form.rights)}\n{limit}'


def _listed(words: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


def local_key(secret: bytes, folder: Path) -> tuple[str, Path]:
    """A key with every right, for a program that runs on one machine only: the key, and the file (in `folder`) that admits it.

    It is derived from the secret, so it is the same at each start; whoever can read the secret can make the key.
    """
    key, line = new_key("local", Right, random=lambda count: derive(secret, "local-key")[:count])
    file = folder / "api-keys.toml"
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(line, encoding="utf-8")
    draft.replace(file)
    return key, file


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
