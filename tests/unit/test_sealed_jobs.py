"""Sealed jobs: HPKE as RFC 9180 says, bound to the task, and open for every key of the ring."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dispatcher.domain.derived_keys import KeyRing
from dispatcher.domain.sealed_jobs import CannotUnseal, check_public_key, key_id, public_key, seal, unseal

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "celery-jobs.md"
TASK = "dispatcher.trigger"
OLD, NEW = b"an-old-secret-of-the-tests-long-enough", b"a-new-secret-of-the-tests-long-enough"
JOB = {"key": "k-1", "data": {"first_name": "Zo\u00eb", "amount": 0.1}}


@lru_cache
def blocks(language: str) -> list[str]:
    """The code blocks of the how-to page in a language."""
    return re.findall(rf"^```{language}\n(.+?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_what_is_sealed_opens_again() -> None:
    assert unseal(TASK, seal(TASK, JOB, public_key(NEW)), KeyRing.of(NEW)) == JOB
    assert seal(TASK, JOB, public_key(NEW)) != seal(TASK, JOB, public_key(NEW))


def test_every_key_of_the_ring_opens() -> None:
    sealed = seal(TASK, JOB, public_key(OLD))
    assert unseal(TASK, sealed, KeyRing.of(NEW, OLD)) == JOB
    with pytest.raises(CannotUnseal, match="do not have"):
        unseal(TASK, sealed, KeyRing.of(NEW))


def test_a_seal_is_for_one_task() -> None:
    with pytest.raises(CannotUnseal, match="another task"):
        unseal("dispatcher.submit_campaign", seal(TASK, JOB, public_key(NEW)), KeyRing.of(NEW))


def test_damage_is_one_error_without_content() -> None:
    sealed = seal(TASK, JOB, public_key(NEW))
    for place in range(len(sealed) - 1):  # the last character may have bits that do not count
        damaged = f"{sealed[:place]}{'A' if sealed[place] != 'A' else 'B'}{sealed[place + 1 :]}"
        for text in (damaged, sealed[:place], f"{sealed[:place]} {sealed[place:]}"):
            with pytest.raises(CannotUnseal):
                unseal(TASK, text, KeyRing.of(NEW))


@pytest.mark.parametrize(
    "text", ["", "x", "F1Dp", "F1DplhIoeMi_WaR0zFB76_vYbQlrKQzvOuEfSFTSEV=", "F1DplhIoeMi/WaR0zFB76/vYbQlrKQzvOuEfSFTSEVg"]
)
def test_a_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="43 characters"):
        check_public_key(text)


def test_no_json_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        seal(TASK, {"amount": float("nan")}, public_key(NEW))


def test_the_example_of_the_page_opens() -> None:
    (example,) = (json.loads(block) for block in blocks("json"))
    secret = example["secret"].encode()
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(example["private_key"]))
    derived = urlsafe_b64encode(private.public_key().public_bytes_raw()).decode().rstrip("=")
    assert derived == example["public_key"]
    assert (public_key(secret), key_id(public_key(secret))) == (example["public_key"], example["sealed"].split(".")[1])
    assert unseal(example["task"], example["sealed"], KeyRing.of(secret)) == example["job"]


def test_the_code_of_the_page_seals_what_workers_open() -> None:
    """It uses the primitives only, step by step as RFC 9180 has them: a second implementation of the cipher."""
    (code,) = (block for block in blocks("python") if "def seal" in block)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102
    assert unseal(TASK, names["seal"](TASK, JOB, public_key(NEW)), KeyRing.of(NEW)) == JOB
