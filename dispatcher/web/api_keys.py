"""API keys: a file of hashes with names and rights. Only the callers have the keys themselves.

    [[keys]]
    name = "marketing"
    hash = "sha256:<64 hex digits>"
    rights = ["campaigns", "messages"]

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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from dispatcher.domain.derived_keys import derive
from dispatcher.domain.principal import Principal, Right, service
from dispatcher.intake.errors import BadInput, InputError, StrictModel, read_text, validate

__all__ = ["ApiKey", "ApiKeyRing", "Right"]

PREFIX = "dsp_"  # so that people and secret scanners recognise a key
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller: `name` is the actor in the ledger, `digest` the SHA-256 of the key."""

    name: str
    digest: bytes = field(repr=False)
    rights: frozenset[Right]

    @property
    def principal(self) -> Principal:
        """The service account that the key belongs to."""
        return service(self.name, self.rights)


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


class ApiKeyForm(StrictModel):
    """One entry of the file."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    hash: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    rights: Annotated[list[Right], Field(min_length=1)]


class ApiKeysForm(StrictModel):
    """The whole file."""

    keys: list[ApiKeyForm]


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
    if duplicates:
        raise BadInput(*(InputError(str(path), 0, field, message) for field, message in duplicates))
    return ApiKeyRing(tuple(ApiKey(form.name, bytes.fromhex(form.hash[7:]), frozenset(form.rights)) for form in forms))


def _duplicates(field_: str, values: Iterable[str]) -> list[tuple[str, str]]:
    return [(field_, f"{value} is there twice") for value, count in Counter(values).items() if count > 1]


def new_key(name: str, rights: Iterable[str], random: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, str]:
    """A new key, and its entry for the file. Nobody can show the key again. Raises `BadInput` for a bad name or right."""
    key = PREFIX + urlsafe_b64encode(random(KEY_BYTES)).rstrip(b"=").decode()
    form = validate(ApiKeyForm, {"name": name, "hash": f"sha256:{_digest(key).hex()}", "rights": list(rights)}, "key")
    listed = ", ".join(f'"{right}"' for right in form.rights)
    return key, f'[[keys]]\nname = "{form.name}"\nhash = "{form.hash}"\nrights = [{listed}]\n'


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
