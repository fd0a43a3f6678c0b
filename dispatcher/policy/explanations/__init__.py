"""The sentences of explanations, one TOML file per language, all with the same keys and the same places to fill in."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from dispatcher.domain.recipient import LANGUAGES, Language


@cache
def messages(language: Language) -> dict[str, Any]:
    """The sentences in a language; English for a language we do not write."""
    name = language if language in LANGUAGES else "en"
    return tomllib.loads(resources.files("dispatcher.policy.explanations").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
